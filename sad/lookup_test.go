package sad

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"spigot/internal/epoch"
	"spigot/internal/flow"
)

// longest is Find as RFC 4301, section 4.1, has it.
func longest(sas []*Inbound, spi uint32, dst, src flow.Addr, proto uint8) (found *Inbound) {
	best := -1
	for _, sa := range sas {
		if sa.SPI != spi || sa.Proto != proto {
			continue
		}
		says := 0
		switch sa.Lookup {
		case ByDst:
			if says = 1; sa.Dst != dst {
				continue
			}
		case BySrcDst:
			if says = 2; sa.Dst != dst || sa.Src != src {
				continue
			}
		}
		if says > best {
			found, best = sa, says
		}
	}
	return found
}

// TestLongestMatch holds Find against longest while SAs come and go; and what
// Find calls the only answer is that for every source.
func TestLongestMatch(t *testing.T) {
	hosts := []flow.Addr{flow.V4(0x0a000001), flow.V4(0x0a000002), flow.V4(0x0a000003)}
	addrs := []flow.Addr{hosts[0], hosts[1], flow.V4(0xe0000101)} // the last is a group
	rapid.Check(t, func(t *rapid.T) {
		var now *Snapshot
		db := NewDB(new(epoch.Domain), func(s *Snapshot) { now = s })
		defer db.Close()
		var sas []*Inbound
		addr := func(what string, of []flow.Addr) flow.Addr { return rapid.SampledFrom(of).Draw(t, what) }
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if len(sas) > 0 && rapid.Bool().Draw(t, "remove") {
				i := rapid.IntRange(0, len(sas)-1).Draw(t, "which")
				if err := db.RemoveInbound(sas[i]); err != nil {
					t.Fatal(err)
				}
				sas = append(sas[:i:i], sas[i+1:]...)
			} else {
				p := params()
				p.SPI, p.Dst, p.Src = rapid.Uint32Range(300, 301).Draw(t, "spi"), addr("dst", addrs), addr("src", hosts)
				p.Lookup = Lookup(rapid.IntRange(0, 2).Draw(t, "lookup"))
				sa, err := NewInbound(p)
				if err != nil {
					t.Fatal(err)
				}
				twice := false
				for _, other := range sas {
					twice = twice || placeOf(other) == placeOf(sa)
				}
				switch err := db.AddInbound(sa); {
				case twice != errors.Is(err, ErrExists):
					t.Fatalf("%v is there: %v, and AddInbound says %v", placeOf(sa), twice, err)
				case err == nil:
					sas = append(sas, sa)
				}
			}
			for spi := uint32(300); spi < 302; spi++ {
				for _, dst := range addrs {
					same := true
					for _, src := range hosts {
						want := longest(sas, spi, dst, src, protoESP)
						got, only := now.Find(spi, &dst, &src, protoESP)
						if got != want {
							t.Fatalf("SPI %d %v -> %v: %v, want %v", spi, src, dst, got, want)
						}
						same = same && want == longest(sas, spi, dst, hosts[0], protoESP)
						if only && (got == nil || got.Dst != dst) {
							t.Fatalf("SPI %d %v -> %v: %v is said to go by its destination", spi, src, dst, got)
						}
					}
					if _, only := now.Find(spi, &dst, &hosts[0], protoESP); only && !same {
						t.Fatalf("SPI %d -> %v: said to be the same for all sources", spi, dst)
					}
				}
			}
		}
	})
}

func TestLookupNeedsItsSource(t *testing.T) {
	p := params()
	p.Tunnel, p.Src, p.Lookup = false, flow.Addr{}, BySrcDst
	if _, err := NewInbound(p); !errors.Is(err, ErrParams) {
		t.Errorf("by source without one: %v", err)
	}
	p.Lookup = BySPI + 1
	if _, err := NewInbound(p); !errors.Is(err, ErrParams) {
		t.Errorf("lookup %d: %v", p.Lookup, err)
	}
}

// TestAnSAEndsWhatWasExpected: keys that have come are waited for no more,
// whatever the SA goes by.
func TestAnSAEndsWhatWasExpected(t *testing.T) {
	for _, by := range []Lookup{ByDst, BySrcDst, BySPI} {
		var now *Snapshot
		db := NewDB(new(epoch.Domain), func(s *Snapshot) { now = s })
		p := params()
		p.Lookup = by
		sa, err := NewInbound(p)
		if err != nil {
			t.Fatal(err)
		}
		db.Expect(p.SPI, p.Dst, p.Proto)
		if !now.Expected(p.SPI, &p.Dst, p.Proto) {
			t.Errorf("by %v: not expected", by)
		}
		if err := db.AddInbound(sa); err != nil {
			t.Fatal(err)
		}
		if now.Expected(p.SPI, &p.Dst, p.Proto) {
			t.Errorf("by %v: still expected", by)
		}
		db.Close()
	}
}
