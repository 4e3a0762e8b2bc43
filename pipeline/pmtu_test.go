package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/ip4defrag"
	"github.com/gopacket/gopacket/layers"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/sad"
)

// The largest inner packet by algorithm, outer family and MTU, as literals. For
// AES-GCM over IPv4 with 1500 bytes: 20 IP, 8 ESP, 8 IV and 16 ICV leave 1448, in
// which packet, padding and two bytes of trailer end on a multiple of 4.
func TestGoldenPTB(t *testing.T) {
	gcm := tunnel{spi: 0x1000, enc: "aes-gcm-16", encLen: 20, window: 64}
	chacha := tunnel{spi: 0x1000, enc: "chacha20-poly1305", encLen: 36, window: 64}
	cbc := tunnel{spi: 0x1000, enc: "aes-cbc", encLen: 16, integ: "hmac-sha2-256-128", authLen: 32, window: 64}
	cbc512 := tunnel{spi: 0x1000, enc: "aes-cbc", encLen: 32, integ: "hmac-sha2-512-256", authLen: 64, window: 64}
	null := tunnel{spi: 0x1000, enc: "null", integ: "hmac-sha2-256-128", authLen: 32, window: 64}
	wrapped := func(tn tunnel) tunnel { tn.udp = true; return tn }
	for _, r := range []struct {
		name           string
		tn             tunnel
		outer6         bool
		at1500, at1400 int
	}{
		{"aes-gcm-16", gcm, false, 1446, 1346},
		{"aes-gcm-16", gcm, true, 1426, 1326},
		{"aes-gcm-16 in UDP", wrapped(gcm), false, 1438, 1338},
		{"aes-gcm-16 in UDP", wrapped(gcm), true, 1418, 1318},
		{"chacha20-poly1305", chacha, false, 1446, 1346},
		{"chacha20-poly1305", chacha, true, 1426, 1326},
		{"aes-cbc, hmac-sha2-256", cbc, false, 1438, 1326},
		{"aes-cbc, hmac-sha2-256", cbc, true, 1406, 1310},
		{"aes-cbc, hmac-sha2-256 in UDP", wrapped(cbc), false, 1422, 1326},
		{"aes-cbc, hmac-sha2-512", cbc512, false, 1422, 1310},
		{"null, hmac-sha2-256", null, false, 1454, 1354},
		{"null, hmac-sha2-256", null, true, 1434, 1334},
	} {
		a := newLone(t, 'a')
		r.tn.outer6 = r.outer6
		out, _ := a.protect(r.tn)
		for _, c := range []struct{ path, want int }{{1500, r.at1500}, {1400, r.at1400}} {
			out.SetPathMTU(c.path, false)
			frame := a.outOf(udp4(hostA4, hostB4, 64, c.want))
			if frame == nil || len(frame)-14 > c.path {
				t.Errorf("%s, outer6 %t, path %d: %d bytes left as %d", r.name, r.outer6, c.path, c.want, len(frame)-14)
			}
			for _, big := range [][]byte{udp4(hostA4, hostB4, 64, c.want+1), udp6(hostA6, hostB6, 64, c.want+1)} {
				if got := a.outOf(big); got != nil {
					t.Errorf("%s, outer6 %t, path %d: %d bytes left as %d", r.name, r.outer6, c.path, c.want+1, len(got)-14)
				}
				var p [1]fib.Punt
				if a.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntTooBig || int(p[0].MTU) != c.want {
					t.Errorf("%s, outer6 %t, path %d: told %d, want %d", r.name, r.outer6, c.path, p[0].MTU, c.want)
				}
			}
		}
	}
}

// all sends frame in by in and returns all that then left by out.
func (l *lone) all(in interface{ Inject([]byte) bool }, out interface{ Take() [][]byte }, frame []byte) [][]byte {
	l.t.Helper()
	if !in.Inject(frame) {
		l.t.Fatal("tap is full")
	}
	l.w.Turn()
	return out.Take()
}

// clearDF makes an IPv4 frame one that may be fragmented.
func clearDF(f []byte) []byte {
	return fixSum4(change(change(f, 14+6, 0), 14+4, 0xbe, 0xef))
}

// joined puts the fragments in frames together, IPv4 by gopacket.
func joined(t *testing.T, frames [][]byte, mtu int) []byte {
	t.Helper()
	if len(frames) < 2 {
		t.Fatalf("%d fragments", len(frames))
	}
	for _, f := range frames {
		if len(f)-14 > mtu {
			t.Fatalf("a fragment of %d bytes on a path of %d", len(f)-14, mtu)
		}
	}
	if frames[0][12] == 0x86 {
		return joined6(t, frames)
	}
	d := ip4defrag.NewIPv4Defragmenter()
	for i, f := range frames {
		if sum(f[14:34]) != 0xffff || f[14+6]&0x40 != 0 {
			t.Fatalf("fragment %d has header %x", i, f[14:34])
		}
		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
		ip, err := d.DefragIPv4(p.NetworkLayer().(*layers.IPv4))
		if err != nil || (ip != nil) != (i == len(frames)-1) {
			t.Fatalf("fragment %d of %d: %v, %v", i, len(frames), ip, err)
		}
		if ip == nil {
			continue
		}
		whole := append(bytes.Clone(f[:34]), ip.Payload...)
		binary.BigEndian.PutUint16(whole[14+2:], uint16(20+len(ip.Payload)))
		whole[14+6], whole[14+7] = 0, 0
		return fixSum4(whole)
	}
	return nil
}

// joined6 is joined for IPv6, as RFC 8200, section 4.5 says, in order.
func joined6(t *testing.T, frames [][]byte) []byte {
	t.Helper()
	var body []byte
	for i, f := range frames {
		offset := binary.BigEndian.Uint16(f[14+42:])
		if f[14+6] != 44 || int(offset&^7) != len(body) || (offset&1 != 0) != (i < len(frames)-1) ||
			!bytes.Equal(f[14+44:14+48], frames[0][14+44:14+48]) || int(binary.BigEndian.Uint16(f[14+4:])) != len(f)-54 {
			t.Fatalf("fragment %d of %d has headers %x", i, len(frames), f[14:14+48])
		}
		body = append(body, f[14+48:]...)
	}
	whole := append(bytes.Clone(frames[0][:54]), body...)
	whole[14+6] = frames[0][14+40]
	binary.BigEndian.PutUint16(whole[14+4:], uint16(len(body)))
	return whole
}

// What becomes of a packet of 1400 bytes on a path of 1300 (RFC 4301, section 8).
func TestPacketsTooBigForThePath(t *testing.T) {
	const answered, after, before = "answered", "fragmented after", "fragmented before"
	df, noDF := udp4(hostA4, hostB4, 64, 1400), clearDF(udp4(hostA4, hostB4, 64, 1400))
	v6 := udp6(hostA6, hostB6, 64, 1400)
	for _, r := range []struct {
		name  string
		inner []byte
		outer sad.Outer
		want  string
	}{
		{"IPv4 with DF", df, sad.Outer{}, answered},
		{"IPv6", v6, sad.Outer{}, answered},
		{"IPv4", noDF, sad.Outer{}, after},
		{"IPv4, first", noDF, sad.Outer{SplitFirst: true}, before},
		{"IPv4 with DF, first", df, sad.Outer{SplitFirst: true}, answered},
		{"IPv4, DF set", noDF, sad.Outer{DF: sad.DFSet}, before},
		{"IPv4 with DF, DF set", df, sad.Outer{DF: sad.DFSet}, answered},
		{"IPv4 with DF, DF clear", df, sad.Outer{DF: sad.DFClear}, after},
		{"IPv4, DF clear", noDF, sad.Outer{DF: sad.DFClear}, after},
		{"IPv6, DF clear", v6, sad.Outer{DF: sad.DFClear}, after},
		{"IPv4 with DF, DF clear, first", df, sad.Outer{DF: sad.DFClear, SplitFirst: true}, after},
	} {
		for _, outer6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/outer6=%t", r.name, outer6), func(t *testing.T) {
				a, b := newLone(t, 'a'), newLone(t, 'b')
				tn := aes128gcm
				tn.outer6, tn.outer = outer6, r.outer
				out, _ := a.protect(tn)
				b.protect(tn)
				out.SetPathMTU(1300, false)
				frames := a.all(a.host, a.wire, r.inner)
				var p [1]fib.Punt
				switch r.want {
				case answered:
					want := out.Geo.MaxInner(1300)
					if r.inner[12] == 0x86 {
						want = max(want, 1280)
					}
					if len(frames) != 0 || a.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntTooBig || int(p[0].MTU) != want {
						t.Fatalf("%d frames left; told %d, want %d", len(frames), p[0].MTU, want)
					}
					return
				case after:
					if got := b.into(joined(t, frames, 1300)); !arrives(got, r.inner) {
						t.Fatalf("arrived %x: %v", got, b.drops())
					}
				case before:
					var pieces [][]byte
					for _, f := range frames {
						if len(f)-14 > 1300 || !outer6 && f[14+6]&0x3f != 0 {
							t.Fatalf("an outer packet of %d bytes, flags %#x", len(f)-14, f[14+6])
						}
						pieces = append(pieces, b.into(f))
					}
					if got := joined(t, pieces, 1300); !arrives(got, r.inner) {
						t.Fatalf("arrived %x: %v", got, b.drops())
					}
				}
				if v := a.values(); v.Cut != 1 || v.Fragments != uint64(len(frames)) || v.Tx != v.Fragments || v.Punted != 0 {
					t.Errorf("cut %d into %d, sent %d", v.Cut, v.Fragments, v.Tx)
				}
			})
		}
	}
}

// arrives says whether got is sent, two hops on.
func arrives(got, sent []byte) bool {
	if len(got) != len(sent) {
		return false
	}
	sent = bytes.Clone(sent)
	if sent[12] == 0x86 {
		sent[14+7] -= 2
	} else {
		sent[14+8] -= 2
		sent = fixSum4(sent)
	}
	return bytes.Equal(got[14:], sent[14:])
}

// An IPv6 packet of 1280 bytes is never refused, however narrow the path: the
// outer packet is fragmented. So is an IPv4 packet of 68 bytes.
func TestTheLeastMTUIsAlwaysCarried(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		path := 1280
		if !outer6 {
			path = 576
		}
		a, b := newLone(t, 'a'), newLone(t, 'b')
		tn := aes128gcm
		tn.outer6 = outer6
		out, _ := a.protect(tn)
		b.protect(tn)
		out.SetPathMTU(path, false)
		for size := out.Geo.MaxInner(path) - 3; size <= 1280; size += 41 {
			inner := udp6(hostA6, hostB6, 64, size)
			frames := a.all(a.host, a.wire, inner)
			if len(frames) == 1 {
				frames = append(frames, nil)[:1]
				if got := b.into(frames[0]); !arrives(got, inner) || size > out.Geo.MaxInner(path) {
					t.Fatalf("%d bytes: %v", size, b.drops())
				}
				continue
			}
			if got := b.into(joined(t, frames, path)); !arrives(got, inner) {
				t.Fatalf("%d bytes: %v", size, b.drops())
			}
		}
		if got := a.all(a.host, a.wire, udp6(hostA6, hostB6, 64, 1281)); len(got) != 0 {
			t.Fatalf("1281 bytes left in %d frames", len(got))
		}
		var p [1]fib.Punt
		if a.cfg.Punts.Pop(p[:]) != 1 || p[0].MTU != 1280 {
			t.Errorf("told %d, want 1280", p[0].MTU)
		}
	}
	a := newLone(t, 'a')
	a.protect(aes128gcm)
	a.setMTU(110)
	if got := a.all(a.host, a.wire, udp4(hostA4, hostB4, 64, 68)); len(got) != 2 || len(joined(t, got, 110))-14 != 124 {
		t.Errorf("68 bytes with DF on a path of 110: %d frames", len(got))
	}
}

// A path that is narrower than can be told: nothing that leaves forbids routers to
// fragment it.
func TestNarrowPathIsLeftToRouters(t *testing.T) {
	a := newLone(t, 'a')
	out, _ := a.protect(aes128gcm)
	out.SetPathMTU(576, true)
	f := a.outOf(udp4(hostA4, hostB4, 64, 500))
	if f == nil || f[14+6] != 0 {
		t.Errorf("flags %x", f)
	}
	if out.ForgetPathMTU(); a.outOf(udp4(hostA4, hostB4, 64, 1400))[14+6] != 0x40 {
		t.Error("DF is not copied any more")
	}
}

// A clear packet is fragmented as a router does, in either direction, and again
// where it is a fragment already; its options go along as they say.
func TestClearPacketsAreFragmented(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	b.protect(aes128gcm)
	b.setMTUs(1000, 1500)
	inner := clearDF(udp4(hostA4, hostB4, 64, 1400))
	frames := b.all(b.wire, b.host, retarget(a.outOf(inner)))
	if got := joined(t, frames, 1000); !arrives(got, inner) {
		t.Errorf("arrived %x", got)
	}

	// A security option (130, copied), a record route (7, not copied), and the end.
	options := []byte{130, 4, 1, 2, 1, 7, 7, 4, 0, 0, 0, 0}
	long := append(append(bytes.Clone(inner[:34]), options...), inner[34:]...)
	long[14], long[14+6] = 0x48, 0x20
	binary.BigEndian.PutUint16(long[14+2:], uint16(len(long)-14))
	frames = b.all(b.wire, b.host, retarget(a.outOf(fixSum4(long))))
	if len(frames) != 2 {
		t.Fatalf("%d fragments: %v", len(frames), b.drops())
	}
	first, second := frames[0][14:], frames[1][14:]
	if first[0] != 0x48 || !bytes.Equal(first[20:32], options) || first[6] != 0x20 || first[7] != 0 {
		t.Errorf("first fragment has header %x", first[:32])
	}
	if second[0] != 0x46 || !bytes.Equal(second[20:24], options[:4]) || sum(second[:24]) != 0xffff || second[6]&0x20 == 0 {
		t.Errorf("second fragment, with more to come, has header %x", second[:24])
	}
	if n := len(first) - 32; int(second[7])*8 != n || !bytes.Equal(append(bytes.Clone(first[32:]), second[24:]...), inner[34:]) {
		t.Errorf("fragments of %d and %d bytes, the second at %d", len(first), len(second), int(second[7])*8)
	}
}

// A packet cannot be cut when the pool is empty: what is there leaves, nothing is
// lost, all is counted (see home).
func TestCuttingWithoutFrames(t *testing.T) {
	a := newLone(t, 'a')
	out, _ := a.protect(aes128gcm)
	out.SetPathMTU(600, false)
	if !a.host.Inject(clearDF(udp4(hostA4, hostB4, 64, 1400))) {
		t.Fatal("tap is full")
	}
	taken := make([]uint32, a.pool.Len())
	n := a.pool.Get(taken[:len(taken)-3])
	before := a.values()
	a.w.Turn()
	a.onlyDrop(before, counter.PoolEmpty)
	for _, base := range taken[:n] {
		a.pool.Put(base)
	}
}

// More fragments than a burst has room for.
func TestManyFragments(t *testing.T) {
	a := newLone(t, 'a')
	out, _ := a.protect(aes128gcm)
	out.SetPathMTU(68, false)
	for range 3 {
		if !a.host.Inject(clearDF(udp4(hostA4, hostB4, 64, 1500))) {
			t.Fatal("tap is full")
		}
	}
	a.w.Turn()
	if got := a.wire.Take(); len(got) != 3*32 { // 1556 bytes, 20 of them header, 48 in each
		t.Errorf("%d fragments: %v", len(got), a.drops())
	}
}

// No fragment and no cutting allocates.
func TestCuttingAllocatesNothing(t *testing.T) {
	a := newLone(t, 'a')
	out, _ := a.protect(aes128gcm)
	out.SetPathMTU(700, false)
	frame := clearDF(udp4(hostA4, hostB4, 64, 1400))
	a.all(a.host, a.wire, frame)
	w := a.w
	if n := testing.AllocsPerRun(20, func() {
		a.host.Inject(frame)
		w.Turn()
	}); n > 1 { // the tap's copy
		t.Errorf("%v allocations", n)
	}
	a.wire.Take()
}

// icmpTooBig is an ICMP error to gateway a that quotes the first n bytes of the
// IP packet in frame.
func icmpTooBig(frame []byte, n, mtu int) []byte {
	quote := frame[14 : 14+n]
	f := udp4(netip.MustParseAddr("198.51.100.7"), gwA4, 64, 28+n)
	f[14+9], f[34], f[35] = 1, 3, 4
	if frame[12] == 0x86 {
		f = udp6(netip.MustParseAddr("2001:db8:7::7"), gwA6, 64, 48+n)
		f[14+6], f[54], f[55] = 58, 2, 0
	}
	m := f[len(f)-8-n:]
	clear(m[2:8])
	binary.BigEndian.PutUint16(m[6:], uint16(mtu))
	copy(m[8:], quote)
	copy(f, mac(0xa1))
	return fixSum4(f)
}

// What reaches the slow path of ICMP on the wire, and what does not.
func TestPathReportsGoToTheSlowPath(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			a := newLone(t, 'a')
			tn := aes128gcm
			tn.outer6, tn.udp = outer6, udp
			a.protect(tn)
			esp := a.outOf(udp4(hostA4, hostB4, 64, 1000))
			before := a.values()
			report := icmpTooBig(esp, 100, 900)
			if !a.wire.Inject(report) {
				t.Fatal("tap is full")
			}
			a.w.Turn()
			var p [1]fib.Punt
			if a.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntPMTU || !bytes.Equal(p[0].Data[:p[0].Len], report[14:]) {
				t.Errorf("outer6 %t, udp %t: punt %d, %v", outer6, udp, p[0].Kind, a.drops())
			}
			if v := a.values(); v.Punted != before.Punted+1 {
				t.Errorf("punted %d", v.Punted)
			}
			// Half of the ring is for answers.
			for range 20 {
				a.wire.Inject(report)
			}
			a.w.Turn()
			if n := a.cfg.Punts.Len(); n != a.cfg.Punts.Cap()/2 {
				t.Errorf("%d reports wait", n)
			}
			if v := a.values(); v.Drops[counter.PathReport] != 12 {
				t.Errorf("drops: %v", a.drops())
			}
		}
	}
	a := newLone(t, 'a')
	a.protect(aes128gcm)
	esp := a.outOf(udp4(hostA4, hostB4, 64, 1000))
	for name, f := range map[string][]byte{
		"port unreachable":     fixSum4(change(icmpTooBig(esp, 100, 900), 35, 3)),
		"half a quoted header": icmpTooBig(esp, 19, 900),
		"of clear traffic":     icmpTooBig(udp4(gwA4, gwB4, 64, 1000), 100, 900),
		"for another host":     fixSum4(change(icmpTooBig(esp, 100, 900), 14+16, hostA4.AsSlice()...)),
		"a later fragment":     icmpTooBig(change(esp, 14+7, 1), 100, 900),
	} {
		if !a.wire.Inject(f) {
			t.Fatal("tap is full")
		}
		a.w.Turn()
		if a.cfg.Punts.Len() != 0 {
			t.Errorf("%s went to the slow path", name)
		}
	}
}
