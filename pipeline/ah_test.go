package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/spd"
)

// ahSuites is every algorithm of AH.
var ahSuites = []tunnel{
	{spi: 0x1000, ah: true, integ: "hmac-sha1-96", authLen: 20, window: 64},
	{spi: 0x1000, ah: true, integ: "hmac-sha2-256-128", authLen: 32, window: 64},
	{spi: 0x1000, ah: true, integ: "hmac-sha2-384-192", authLen: 48, window: 64},
	{spi: 0x1000, ah: true, integ: "hmac-sha2-512-256", authLen: 64, window: 64},
	{spi: 0x1000, ah: true, integ: "aes-xcbc-96", authLen: 16, window: 64},
	{spi: 0x1000, ah: true, integ: "aes-cmac-96", authLen: 16, window: 64},
	{spi: 0x1000, ah: true, integ: "aes-gmac", authLen: 20, window: 64},
	{spi: 0x1000, ah: true, integ: "aes-gmac", authLen: 36, window: 64},
}

// ahVariants yields each algorithm over both families with and without ESN, and
// over IPv4 with both ways of padding.
func ahVariants(yield func(tunnel) bool) {
	for _, tn := range ahSuites {
		for k := range 8 {
			tn.esn, tn.outer6, tn.align4 = k&1 != 0, k&2 != 0, k&4 != 0
			if (!tn.align4 || !tn.outer6) && !yield(tn) {
				return
			}
		}
	}
}

// enRoute changes what routers may: TTL, DSCP and, of IPv6, the flow label.
func enRoute(wire []byte) []byte {
	f := bytes.Clone(wire)
	ip := f[14:]
	if ip[0]>>4 == 4 {
		ip[8] -= 3
		ip[1] ^= 0x28
		return fixSum4(f)
	}
	ip[7] -= 3
	ip[0] ^= 0x05
	ip[2] ^= 0x7f
	return f
}

// In tunnel mode any family goes in any family; what arrives is what was sent.
func TestPacketsCrossUnderAH(t *testing.T) {
	for tn := range ahVariants {
		t.Run(tn.String(), func(t *testing.T) {
			a, b := newLone(t, 'a'), newLone(t, 'b')
			out, _ := a.protect(tn)
			b.protect(tn)
			for i, size := range []int{48, 49, 50, 51, 574, 1337} {
				for _, f := range [][2][]byte{
					{udp4(hostA4, hostB4, 64, size), udp4(hostA4, hostB4, 62, size)},
					{udp6(hostA6, hostB6, 64, size), udp6(hostA6, hostB6, 62, size)},
				} {
					wire := a.outOf(f[0])
					if wire == nil {
						t.Fatalf("%d bytes did not leave: %v", size, a.drops())
					}
					next := map[byte]byte{4: 4, 6: 41}[f[0][14]>>4]
					if at := map[bool]int{false: 14 + 9, true: 14 + 6}[tn.outer6]; wire[at] != 51 {
						t.Fatalf("protocol %d on the wire", wire[at])
					}
					checkAH(t, wire[14+int(out.Geo.Outer):], tn, next, uint32(out.Seq()))
					got := b.into(enRoute(wire))
					if got == nil || !bytes.Equal(got[14:], f[1][14:]) {
						t.Fatalf("packet %d arrived\n%x\nwant\n%x\n%v", i, got, f[1], b.drops())
					}
				}
			}
		})
	}
}

// checkAH fails unless ah is the header that RFC 4302, section 2, draws.
func checkAH(t *testing.T, ah []byte, tn tunnel, next byte, seq uint32) {
	t.Helper()
	unit := 8
	if tn.align4 {
		unit = 4
	}
	icv := map[string]int{"hmac-sha1-96": 12, "hmac-sha2-256-128": 16, "hmac-sha2-384-192": 24, "hmac-sha2-512-256": 32,
		"aes-xcbc-96": 12, "aes-cmac-96": 12, "aes-gmac": 24}[tn.integ]
	n := (12 + icv + unit - 1) / unit * unit
	if ah[0] != next || int(ah[1]) != n/4-2 || ah[2] != 0 || ah[3] != 0 ||
		binary.BigEndian.Uint32(ah[4:]) != tn.spi || binary.BigEndian.Uint32(ah[8:]) != seq {
		t.Fatalf("AH %x; want a header of %d bytes and number %d", ah[:12], n, seq)
	}
	if pad := ah[12+icv : n]; !bytes.Equal(pad, make([]byte, len(pad))) {
		t.Fatalf("padding %x", pad)
	}
}

// In transport mode AH stands behind the headers, of which nothing has changed
// but length and protocol; routers may change what they may.
func TestPacketsCrossUnderAHInTransportMode(t *testing.T) {
	for tn := range ahVariants {
		tn.host = true
		for _, h := range headers {
			if h.v6 != tn.outer6 || h.kind == 44 {
				continue
			}
			t.Run(tn.String()+"/"+h.name, func(t *testing.T) {
				a, b := newLone(t, 'a'), newLone(t, 'b')
				out, _ := a.protect(tn)
				b.protect(tn)
				for _, size := range []int{48, 51, 1337} {
					frame := func(ttl byte) []byte {
						if h.v6 {
							return withExtension(udp6(hostA6, hostB6, ttl, size), h.kind, h.ext)
						}
						return withExtension(udp4(hostA4, hostB4, ttl, size), h.kind, h.ext)
					}
					wire := a.outOf(frame(64))
					if wire == nil {
						t.Fatalf("%d bytes did not leave: %v", size, a.drops())
					}
					checkAH(t, behindHeaders(t, wire, frame(63), 51, len(h.ext)), tn, 17, uint32(out.Seq()))
					got, want := b.into(enRoute(wire)), enRoute(frame(62))
					if got == nil || !bytes.Equal(got[14:], want[14:]) {
						t.Fatalf("arrived\n%x\nwant\n%x\n%v", got, want, b.drops())
					}
				}
			})
		}
	}
}

// The largest packet that fits leaves; one byte more is answered with that size.
func TestMTUUnderAH(t *testing.T) {
	for tn := range ahVariants {
		for _, tn.host = range []bool{false, true} {
			a := newLone(t, 'a')
			out, _ := a.protect(tn)
			fits := 1500 - out.Geo.Prefix()
			send := func(size int) []byte {
				if tn.outer6 {
					return a.outOf(udp6(hostA6, hostB6, 64, size))
				}
				return a.outOf(udp4(hostA4, hostB4, 64, size))
			}
			if wire := send(fits); len(wire)-14 != 1500 {
				t.Errorf("%v: %d bytes leave as %d", tn, fits, len(wire)-14)
			}
			var p [1]fib.Punt
			if send(fits+1) != nil || a.cfg.Punts.Pop(p[:]) != 1 || int(p[0].MTU) != fits {
				t.Errorf("%v: told %d for %d bytes, want %d", tn, p[0].MTU, fits+1, fits)
			}
		}
	}
}

// Everything but what may change on the way is authenticated: each flipped bit
// of the packet is refused, and none of the forged ones moves the window.
func TestAHRefusesEveryFlippedBit(t *testing.T) {
	for _, row := range []struct {
		v6   bool
		kind byte
		ext  []byte
		free []int // bytes of the IP packet that routers may change; IPv4's checksum is kept right
	}{
		{false, 17, []byte{148, 4, 0, 0, 7, 7, 4, 1, 2, 3, 4, 0}, []int{1, 6, 7, 8, 10, 11, 24, 26, 27, 28, 29, 30}},
		{true, 60, []byte{17, 0, 0x3e, 4, 1, 2, 3, 4}, []int{1, 2, 3, 7, 44, 45, 46, 47}},
	} {
		tn := ahSuites[1]
		tn.host, tn.outer6, tn.esn = true, row.v6, true
		a, b := newLone(t, 'a'), newLone(t, 'b')
		a.protect(tn)
		b.protect(tn)
		f := udp4(hostA4, hostB4, 64, 40)
		if row.v6 {
			f = udp6(hostA6, hostB6, 64, 56)
		}
		wire := a.outOf(withExtension(f, row.kind, row.ext))
		refused := 0
		for bit := range 8 * (len(wire) - 14) {
			at := bit / 8
			if slices.Contains(row.free, at) || row.v6 && at == 0 && bit%8 < 4 {
				continue
			}
			forged := change(wire, 14+at, wire[14+at]^1<<(bit%8))
			if !row.v6 {
				fixSum4(forged)
			}
			before := b.values()
			if got := b.into(forged); got != nil {
				t.Fatalf("v6=%t: bit %d of byte %d flipped, it arrived as %x", row.v6, bit%8, at, got)
			}
			if now := b.values(); now.Drops[counter.AuthFailed] > before.Drops[counter.AuthFailed] {
				refused++
			}
		}
		if refused < 8*(len(wire)-14)/2 {
			t.Errorf("v6=%t: only %d bits were found by the ICV", row.v6, refused)
		}
		if b.into(wire) == nil {
			t.Errorf("v6=%t: a forged number moved the window: %v", row.v6, b.drops())
		}
	}
}

// TestHostileAH: lengths that lie, chains that do not end, fragments, and what
// the SAD and the window are there for.
func TestHostileAH(t *testing.T) {
	tn := ahSuites[1]
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(tn)
	b.protect(tn)
	seal := func() []byte { return a.outOf(udp4(hostA4, hostB4, 64, 100)) }
	const ah = 34
	cut := func(n int) []byte { // the packet ends after n bytes of AH
		f := bytes.Clone(seal()[:ah+n])
		binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
		return fixSum4(f)
	}
	options := func(opts ...byte) []byte {
		f := seal()
		g := append(append(bytes.Clone(f[:ah]), opts...), f[ah:]...)
		g[14] += byte(len(opts) / 4)
		binary.BigEndian.PutUint16(g[16:], uint16(len(g)-14))
		return fixSum4(g)
	}
	first := seal()
	if b.into(first) == nil {
		t.Fatalf("good packet refused: %v", b.drops())
	}
	type hostile struct {
		name   string
		frame  []byte
		reason counter.Reason
	}
	rows := []hostile{
		{"payload length 0", change(seal(), ah+1, 0), counter.BadAH},
		{"payload length 1: no room for the ICV", change(seal(), ah+1, 1), counter.BadAH},
		{"payload length 255", change(seal(), ah+1, 255), counter.BadAH},
		{"a word more than the SA has", change(seal(), ah+1, 7), counter.BadAH},
		{"a word less", change(seal(), ah+1, 4), counter.BadAH},
		{"padded to 4 and not to 8, authentic or not", change(seal(), ah+1, 5), counter.AuthFailed},
		{"SPI 0", change(seal(), ah+4, 0, 0, 0, 0), counter.ReservedSPI},
		{"SPI 255", change(seal(), ah+4, 0, 0, 0, 255), counter.ReservedSPI},
		{"unknown SPI", change(seal(), ah+4, 9, 9, 9, 9), counter.UnknownSPI},
		{"replayed", first, counter.ReplaySeen},
		{"far-future number, bad ICV", change(seal(), ah+8, 0x7f), counter.AuthFailed},
		{"a fragment that is no multiple of 8", fixSum4(change(seal(), 20, 0x20, 0)), counter.BadFragment},
		{"another of that datagram", fixSum4(change(seal(), 20, 0, 9)), counter.BadFragment},
		{"option of length 0", options(7, 0, 0, 0), counter.BadExtension},
		{"option beyond the header", options(148, 8, 0, 0), counter.BadExtension},
		{"an option that was not sent", options(148, 4, 0, 0), counter.AuthFailed},
	}
	for n := range 32 { // of 0 bytes up to the minimum less one
		rows = append(rows, hostile{fmt.Sprintf("cut to %d bytes", n), cut(n), counter.BadAH})
	}
	for _, row := range rows {
		before := b.values()
		if got := b.into(row.frame); got != nil {
			t.Errorf("%s: delivered as %x", row.name, got)
		}
		t.Run(row.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, row.reason) })
	}
	b.t = t
	if b.into(seal()) == nil {
		t.Errorf("the window was moved: %v", b.drops())
	}
}

// IPv6: a hundred extension headers, headers longer than we sign, and fragment
// headers in front of AH.
func TestHostileAHOverIPv6(t *testing.T) {
	tn := ahSuites[1]
	tn.host, tn.outer6 = true, true
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(tn)
	b.protect(tn)
	wire := a.outOf(udp6(hostA6, hostB6, 64, 100))
	pad := func(next byte, n int) []byte { // destination options of 8*n bytes
		e := make([]byte, 8*n)
		e[0], e[1], e[2], e[3] = next, byte(n-1), 1, byte(min(8*n-4, 255))
		return e
	}
	for _, row := range []struct {
		name   string
		kind   byte
		ext    []byte
		reason counter.Reason
	}{
		{"a hundred headers", 60, append(bytes.Repeat(pad(60, 1), 99), pad(51, 1)...), counter.BadExtension},
		{"headers of 520 bytes", 60, append(pad(60, 32), pad(51, 33)...), counter.BadExtension},
		{"an atomic fragment", 44, []byte{51, 0, 0, 0, 1, 2, 3, 4}, counter.Fragment},
		{"a fragment", 44, []byte{51, 0, 0, 1, 1, 2, 3, 4}, counter.InPolicyClear},
		{"options that lie", 60, []byte{51, 0, 5, 99, 0, 0, 0, 0}, counter.BadExtension},
		{"a header that was not sent", 60, pad(51, 1), counter.AuthFailed},
		{"a routing header", 43, []byte{51, 0, 0, 0, 0, 0, 0, 0}, counter.BadExtension},
	} {
		before := b.values()
		if got := b.into(withExtension(wire, row.kind, row.ext)); got != nil {
			t.Errorf("%s: delivered as %x", row.name, got)
		}
		t.Run(row.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, row.reason) })
	}
	b.t = t
	before := a.values()
	a.outOf(withExtension(udp6(hostA6, hostB6, 64, 100), 44, []byte{17, 0, 0, 0, 1, 2, 3, 4}))
	a.onlyDrop(before, counter.Fragment)
	if b.into(wire) == nil {
		t.Errorf("the packet itself is refused: %v", b.drops())
	}
}

// AH between two other hosts is the SPD's, and an SA of ESP does not open AH.
func TestAHOfOthersIsTheSPDs(t *testing.T) {
	tn := ahSuites[1]
	tn.host = true
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(tn)
	b.protect(hosts) // the same SPI and destination
	wire := a.outOf(udp4(hostA4, hostB4, 64, 100))
	before := b.values()
	b.into(wire)
	b.onlyDrop(before, counter.InPolicyClear)
	sel := selector(netA4, netB4)
	sel.Proto = 51
	b.policies[spd.In] = nil
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Bypass})
	if got := b.into(wire); got == nil || !bytes.Equal(got[34:], wire[34:]) {
		t.Errorf("let through, it arrived as %x: %v", got, b.drops())
	}
	// And a policy that wants ESP is not content with AH.
	c := newLone(t, 'b')
	_, in := c.protect(tn)
	c.policies[spd.In] = nil
	sel.Proto = flow.AnyProto
	esp := naming(&in.SA)
	esp.Proto = 50
	c.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Protect, Template: esp})
	before = c.values()
	c.into(wire)
	c.onlyDrop(before, counter.InPolicyMismatch)
}

func TestZeroAllocationsUnderAH(t *testing.T) {
	for _, tn := range ahSuites {
		for _, tn.outer6 = range []bool{false, true} {
			tn.host, tn.esn = !tn.host, tn.outer6
			frame := udp4(hostA4, hostB4, 64, 100)
			if tn.outer6 {
				frame = udp6(hostA6, hostB6, 64, 100)
			}
			steady(t, tn.String(), func(g *gateway) { g.protect(tn) }, frame, 10)
		}
	}
}

// Random bytes behind an IP header that says AH, and an authentic packet with
// random bytes written over it: nothing panics, nothing gets in.
func TestGarbageUnderAH(t *testing.T) {
	rng := rand.New(rand.NewPCG(43, 2))
	for _, tn := range []tunnel{ahSuites[1], ahSuites[6]} {
		for _, tn.outer6 = range []bool{false, true} {
			a, b := newLone(t, 'a'), newLone(t, 'b')
			a.protect(tn)
			b.protect(tn)
			for range 3000 {
				f := a.outOf(udp4(hostA4, hostB4, 64, 28+rng.IntN(60)))
				for range 1 + rng.IntN(4) {
					f[14+rng.IntN(len(f)-14)] = byte(rng.Uint32())
				}
				if !tn.outer6 && f[14]>>4 == 4 && len(f) >= 14+int(f[14]&15)*4 && f[14]&15 >= 5 {
					fixSum4(f)
				}
				b.into(f)
			}
			if b.values().Drops[counter.AuthFailed] == 0 {
				t.Errorf("%v: nothing reached the ICV: %v", tn, b.drops())
			}
		}
	}
}
