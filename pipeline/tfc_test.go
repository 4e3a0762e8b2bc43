package pipeline_test

import (
	"bytes"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/sad"
)

// Under an SA with traffic-flow padding all shorter packets leave alike, in each
// family, up to what path and link carry; what arrives is what was sent.
func TestPaddedPacketsAreOfOneLength(t *testing.T) {
	for _, r := range []struct {
		name string
		enc  string
		tfc  uint16
		path int
		want map[int]int // inner length: as if it were
	}{
		{"none", "aes-gcm-16", 0, 1500, map[int]int{20: 20, 100: 100, 1000: 1000}},
		{"to 512 bytes", "aes-gcm-16", 512, 1500, map[int]int{20: 512, 511: 512, 512: 512, 513: 513, 1400: 1400}},
		{"to the link", "aes-gcm-16", sad.TFCPath, 65535, map[int]int{20: 1446, 700: 1446, 1446: 1446}},
		{"to the path", "aes-gcm-16", sad.TFCPath, 1400, map[int]int{20: 1346, 700: 1346, 1346: 1346}},
		{"beyond the path", "aes-gcm-16", 1400, 1000, map[int]int{20: 946, 900: 946}},
		{"of blocks", "aes-cbc", 512, 1500, map[int]int{20: 512, 600: 600}},
	} {
		for size, as := range r.want {
			tn := aes128gcm
			tn.outer.TFC = r.tfc
			if r.enc == "aes-cbc" {
				tn.enc, tn.encLen, tn.integ, tn.authLen = "aes-cbc", 16, "hmac-sha2-256-128", 32
			}
			a, b := newLone(t, 'a'), newLone(t, 'b')
			out, _ := a.protect(tn)
			b.protect(tn)
			out.SetPathMTU(r.path, false)
			sent := innerFrame(false, true, 64, size)
			wire := a.outOf(bytes.Clone(sent))
			if want := 14 + out.Geo.Sealed(as); len(wire) != want {
				t.Errorf("%s: %d bytes leave as %d, want %d", r.name, size, len(wire), want)
				continue
			}
			got, want := b.into(wire), innerFrame(false, true, 62, size)
			if !bytes.Equal(got[14:], want[14:]) {
				t.Errorf("%s: %d bytes arrive as\n%x, want\n%x", r.name, size, got, want)
			}
			if _, bytes := out.Used(); bytes != uint64(as) {
				t.Errorf("%s: %d bytes count as %d, want %d", r.name, size, bytes, as)
			}
		}
	}
}

// A dummy leaves as a packet of the SA, and as long as the others where they are
// padded; the peer consumes it, and nobody behind it sees anything.
func TestDummiesAreSentAndConsumed(t *testing.T) {
	for _, r := range []struct {
		name   string
		tfc    uint16
		outer6 bool
		esn    bool
		len    uint16
		as     int
	}{
		{"of its length", 0, false, false, 100, 100},
		{"with ESN, over IPv6", 0, true, true, 100, 100},
		{"as long as the others", 700, false, false, 100, 700},
		{"no longer than the link takes", 0, false, false, 9000, 1446},
	} {
		tn := aes128gcm
		tn.outer.TFC, tn.outer6, tn.esn, tn.window = r.tfc, r.outer6, r.esn, 64
		a, b := newLone(t, 'a'), newLone(t, 'b')
		out, _ := a.protect(tn)
		_, in := b.protect(tn)
		policy := uint32(1)
		for a.cfg.Snapshots.IPsec.Load().SAD.Outbound(policy) != out {
			policy++
		}
		send := func(policy uint32) []byte {
			a.cfg.Injects.Push([]fib.Inject{{Dummy: policy, Len: r.len}})
			a.w.Turn()
			if got := a.wire.Take(); len(got) == 1 {
				return got[0]
			}
			return nil
		}
		wire := send(policy)
		if want := 14 + out.Geo.Sealed(r.as); len(wire) != want {
			t.Errorf("%s: %d bytes, want %d", r.name, len(wire), want)
			continue
		}
		before := b.values()
		if got := b.into(wire); got != nil {
			t.Errorf("%s: arrives as %x", r.name, got)
		}
		b.onlyDrop(before, counter.DummyPacket)
		for _, sa := range []interface{ Used() (uint64, uint64) }{out, in} {
			if packets, _ := sa.Used(); packets != 1 {
				t.Errorf("%s: %d packets counted", r.name, packets)
			}
		}
		if out.Seq() != 1 {
			t.Errorf("%s: the number is %d", r.name, out.Seq())
		}
		before = a.values()
		if got := send(policy + 1000); got != nil {
			t.Errorf("%s: a policy that is not there sends %x", r.name, got)
		}
		a.onlyDrop(before, counter.NoSA)
	}
}
