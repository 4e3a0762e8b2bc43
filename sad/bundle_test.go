package sad

import (
	"errors"
	"slices"
	"testing"

	"spigot/internal/epoch"
)

// outbounds returns n SAs that were added to db.
func outbounds(t *testing.T, db *DB, n int) []*Outbound {
	t.Helper()
	var all []*Outbound
	for i := range n {
		sa, err := NewOutbound(params(func(p *Params) { p.SPI = 0x5000 + uint32(i) }))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.AddOutbound(sa); err != nil {
			t.Fatal(err)
		}
		all = append(all, sa)
	}
	return all
}

// A bundle is there as a whole or not at all, whichever of its SAs leaves.
func TestBundle(t *testing.T) {
	db := NewDB(new(epoch.Domain), func(*Snapshot) {})
	sas := outbounds(t, db, 5)
	bound := func() []*Outbound {
		if o := db.Snapshot().Outbound(7); o != nil && o.Bundle != nil {
			return o.Bundle
		} else if o != nil {
			return []*Outbound{o}
		}
		return nil
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	gen := func() uint64 { return db.Snapshot().Gen }
	for _, want := range [][]*Outbound{sas[:2], sas[:4], sas[:1], sas[1:4], {sas[2], sas[2]}, sas[2:3], sas[:3]} {
		must(db.BindBundle(7, want))
		if got := bound(); !slices.Equal(got, want) || db.Bound(7) != want[0] {
			t.Fatalf("bound to %v, want %v", got, want)
		}
		before := gen()
		if must(db.BindBundle(7, want)); gen() != before {
			t.Errorf("binding %d SAs again has published", len(want))
		}
	}
	must(db.Remove(sas[1].SPI, sas[1].Dst, 50)) // in the middle
	if got := bound(); got != nil || db.Bound(7) != nil {
		t.Errorf("without one of its SAs it is still bound to %v", got)
	}
	must(db.BindBundle(7, []*Outbound{sas[0], sas[2]}))
	must(db.Bind(7, sas[3]))
	must(db.Remove(sas[2].SPI, sas[2].Dst, 50))
	if got := bound(); len(got) != 1 || got[0] != sas[3] {
		t.Errorf("an SA that it used before took %v with it", got)
	}
	must(db.BindBundle(7, []*Outbound{sas[0], sas[3]}))
	must(db.Bind(7, nil))
	if bound() != nil {
		t.Error("not unbound")
	}

	other, err := NewOutbound(params(func(*Params) {}))
	must(err)
	for name, c := range map[string]struct {
		sas []*Outbound
		is  error
	}{
		"none": {nil, ErrParams}, "five": {slices.Repeat(sas[:1], 5), ErrParams},
		"not added": {[]*Outbound{sas[0], other}, ErrNoSA}, "removed": {[]*Outbound{sas[1], sas[0]}, ErrNoSA},
	} {
		if err := db.BindBundle(7, c.sas); !errors.Is(err, c.is) || bound() != nil {
			t.Errorf("%s: %v, bound to %v", name, err, bound())
		}
	}
}

// What stands for a bundle sends where its last tunnel does, and knows what fits.
func TestBundleAsOne(t *testing.T) {
	sa := func(edit func(*Params)) *Outbound {
		out, err := NewOutbound(params(edit))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	tunnel := sa(func(*Params) {}) // 36 in front, up to 21 behind
	far := sa(func(p *Params) { p.Dst = addr("203.0.113.1") })
	host := sa(func(p *Params) { p.Tunnel = false })
	ah := sa(func(p *Params) { ahParams(p); p.Tunnel, p.Dst = false, addr("203.0.113.1") })
	for _, c := range []struct {
		name   string
		sas    []*Outbound
		dst    string
		max    int // of 1500, with a header of 20
		max100 int // with one of 100
	}{
		{"two tunnels", []*Outbound{tunnel, far}, far.Dst.String(), 1390, 1390},
		{"AH around a tunnel", []*Outbound{far, ah}, far.Dst.String(), 1414, 1414},
		{"transport", []*Outbound{host, host}, host.Dst.String(), 1430, 1430},
		{"transport in a tunnel", []*Outbound{host, tunnel}, tunnel.Dst.String(), 1410, 1410},
	} {
		b := newBundle(c.sas)
		if b.Dst.String() != c.dst || b.Tunnel || b.Proto != 0 {
			t.Errorf("%s: %v tunnel=%t", c.name, b, b.Tunnel)
		}
		for head, want := range map[int]int{20: c.max, 100: c.max100} {
			if got := b.MaxInner(1500, head); got != want || !fits(c.sas, got, head) || fits(c.sas, got+1, head) {
				t.Errorf("%s with a header of %d: MaxInner(1500) = %d, want %d", c.name, head, got, want)
			}
		}
	}
}

// fits adds up what the SAs make of a packet of n bytes with such a header.
func fits(sas []*Outbound, n, head int) bool {
	for _, sa := range sas {
		if sa.Tunnel {
			n, head = sa.Geo.Sealed(n), int(sa.Geo.Outer)
		} else {
			n = head + sa.Geo.Sealed(n-head)
		}
	}
	return n <= 1500
}
