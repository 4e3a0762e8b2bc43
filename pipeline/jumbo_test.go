package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/pmd"
	"spigot/pmd/fault"
	"spigot/sad"
	"spigot/spd"
)

// jumbos are jumbo frames for packets of 9,000 bytes.
var jumbos = pmd.Jumbo{Size: pmd.JumboSize(9000, 2048), Count: 32}

// newJumbo is newLone with links of 9,000 bytes and jumbo frames.
func newJumbo(t testing.TB, side byte, j pmd.Jumbo) *lone {
	t.Helper()
	pool, err := pmd.NewJumboPool(&pmd.Memory{Bytes: make([]byte, 64*2048+j.Bytes())}, 2048, j)
	if err != nil {
		t.Fatal(err)
	}
	red, host := newTap(t, pool, mac(0xa0))
	black, wire := newTap(t, pool, mac(0xa1))
	l := &lone{newGateway(t, side, pool, queues{red, black}), host, wire}
	l.setMTUs(9000, 9000)
	t.Cleanup(l.home)
	return l
}

// spoil fills all of the gateway's memory with canaries.
func (l *lone) spoil() {
	for i := range l.pool.Mem() {
		l.pool.Mem()[i] = 0xc5
	}
}

// spotless fails unless what has been written since spoil lies in one frame, or in one
// of each kind where a packet of size bytes has outgrown its chunk, around its place
// there, and is no longer than the sealed packet is.
func (l *lone) spotless(size, sealed int) {
	l.t.Helper()
	mem, at, touched := l.pool.Mem(), 0, [2]int{}
	for at < len(mem) {
		frame := l.pool.ChunkOf(pmd.Frame{Base: uint32(at)})
		at += len(frame)
		lo, hi := 0, len(frame)
		for lo < hi && frame[lo] == 0xc5 {
			lo++
		}
		for lo < hi && frame[hi-1] == 0xc5 {
			hi--
		}
		if lo == hi {
			continue
		}
		kind := 0
		if len(frame) > l.pool.Chunk() {
			kind = 1
		}
		touched[kind]++
		if lo < pmd.Headroom-128 || hi > pmd.Headroom+14+sealed {
			l.t.Errorf("%d bytes, %d sealed: bytes %d to %d of a frame of %d were written", size, sealed, lo, hi, len(frame))
		}
	}
	if touched[0] > 1 || touched[1] > 1 || touched[0]+touched[1] == 0 {
		l.t.Errorf("%d bytes: wrote to %d chunks and %d jumbo frames", size, touched[0], touched[1])
	}
}

// Packets of every length around a chunk's end, two chunks', and the MTU cross a
// tunnel unchanged; no byte is written outside of the frames that they lie in.
func TestJumboPacketsCross(t *testing.T) {
	for _, tn := range []tunnel{
		aes128gcm,
		{spi: 0x1000, enc: "aes-cbc", encLen: 16, integ: "hmac-sha2-512-256", authLen: 64, window: 64, outer6: true, udp: true, esn: true},
		{spi: 0x1000, enc: "aes-gcm-16", encLen: 20, window: 64, host: true},
		{spi: 0x1000, integ: "hmac-sha2-256-128", authLen: 32, window: 64, ah: true},
	} {
		t.Run(tn.String(), func(t *testing.T) {
			few := pmd.Jumbo{Size: jumbos.Size, Count: 3} // spotless looks at all of them
			a, b := newJumbo(t, 'a', few), newJumbo(t, 'b', few)
			out, _ := a.protect(tn)
			b.protect(tn)
			most := out.Geo.MaxInner(9000)
			if tn.host {
				most = 20 + out.Geo.MaxInner(9000-20)
			}
			room := 2048 - pmd.Headroom - 14
			sizes := []int{100, 1500, 2048, 4096, 8192, most - 1, most}
			for n := room - 120; n <= room+2; n++ {
				sizes = append(sizes, n, n+1792)
			}
			for _, size := range sizes {
				sent := udp4(hostA4, hostB4, 64, size)
				a.spoil()
				sealed := a.outOf(bytes.Clone(sent))
				if sealed == nil {
					t.Fatalf("%d bytes do not leave: %v", size, a.drops())
				}
				a.spotless(size, len(sealed)-14)
				want := bytes.Clone(sent)
				want[14+8] -= 2
				b.spoil()
				got := b.into(sealed)
				b.spotless(size, len(sealed)-14)
				if got == nil || !bytes.Equal(got[14:], fixSum4(want)[14:]) {
					t.Fatalf("%d bytes arrive as %d: %v", size, len(got), b.drops())
				}
			}
			before := a.values()
			if got := a.outOf(udp4(hostA4, hostB4, 64, most+1)); got != nil {
				t.Errorf("%d bytes leave as %d", most+1, len(got))
			}
			var p [1]fib.Punt
			if a.values().Punted != before.Punted+1 || a.cfg.Punts.Pop(p[:]) != 1 || int(p[0].MTU) != most {
				t.Errorf("told %d, want %d", p[0].MTU, most)
			}
		})
	}
}

// A jumbo packet for a link of 1,500 bytes is answered with what fits, or cut up; in
// both directions.
func TestJumboOntoANarrowLink(t *testing.T) {
	a, b := newJumbo(t, 'a', jumbos), newJumbo(t, 'b', jumbos)
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	a.setMTUs(9000, 1500)
	told := func(g *lone, what string, mtu int) {
		t.Helper()
		var p [1]fib.Punt
		if g.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntTooBig || int(p[0].MTU) != mtu {
			t.Errorf("%s: told %d, want %d: %v", what, p[0].MTU, mtu, g.drops())
		}
	}
	if got := a.all(a.host, a.wire, udp4(hostA4, hostB4, 64, 8900)); len(got) != 0 {
		t.Errorf("left in %d packets", len(got))
	}
	told(a, "outbound", out.Geo.MaxInner(1500))
	sent := clearDF(udp4(hostA4, hostB4, 64, 8900))
	var pieces [][]byte
	for _, f := range a.all(a.host, a.wire, bytes.Clone(sent)) {
		if len(f) > 1514 {
			t.Errorf("a fragment of %d bytes", len(f)-14)
		}
		pieces = append(pieces, b.all(b.wire, b.host, retarget(f))...)
	}
	want := bytes.Clone(sent)
	want[14+8] -= 2
	if len(pieces) != 1 || !bytes.Equal(pieces[0][14:], fixSum4(want)[14:]) {
		t.Errorf("arrives in %d packets: %v, %v", len(pieces), a.drops(), b.drops())
	}

	a.setMTUs(9000, 9000)
	b.setMTUs(1500, 9000)
	if got := b.into(a.outOf(udp6(hostA6, hostB6, 64, 8900))); got != nil {
		t.Errorf("IPv6 leaves whole: %d bytes", len(got))
	}
	told(b, "inbound", 1500)
	got := b.all(b.wire, b.host, retarget(a.outOf(bytes.Clone(sent))))
	if len(got) < 6 {
		t.Fatalf("%d fragments: %v", len(got), b.drops())
	}
	if all := joined(t, got, 1500); !bytes.Equal(all[34:], sent[34:]) {
		t.Errorf("the fragments are not what was sent")
	}
}

// What comes in fragments is put together in a jumbo frame, as far as it fits, and
// goes on whole; fragments that are made are as long as the link takes.
func TestJumboFragments(t *testing.T) {
	a, b := newJumbo(t, 'a', jumbos), newJumbo(t, 'b', jumbos)
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	for k, size := range []int{1800, 5000, 9000} {
		inner := udp4(hostA4, hostB4, 64, size)
		var got [][]byte
		for _, f := range split(forge(out.Key, out.SPI, mustReserve(t, out), inner[14:], nil, 4), uint16(k)) {
			got = append(got, b.all(b.wire, b.host, f)...)
		}
		if len(got) != 1 || !arrivesHere(got[0], inner) {
			t.Errorf("%d bytes arrive in %d packets: %v", size, len(got), b.drops())
		}
	}
	// 64 KB lie in a buffer of the worker's, and leave in fragments of 9,000 bytes; with
	// too few jumbo frames in those that fit a chunk.
	inner := clearDF(udp4(hostA4, hostB4, 64, 65000))
	for k, row := range []struct{ keep, fragments, mtu int }{{32, 8, 9000}, {7, 39, 1778}} {
		var kept []uint32
		for b.pool.JumboLen() > row.keep {
			base, _ := b.pool.GetJumbo()
			kept = append(kept, base)
		}
		var got [][]byte
		for _, f := range split(forge(out.Key, out.SPI, mustReserve(t, out), inner[14:], nil, 4), uint16(10+k)) {
			got = append(got, b.all(b.wire, b.host, f)...)
		}
		if len(got) != row.fragments {
			t.Fatalf("%d fragments, want %d: %v", len(got), row.fragments, b.drops())
		}
		if all := joined(t, got, row.mtu); !arrivesHere(all, inner) {
			t.Errorf("the fragments are not what was sent")
		}
		for _, base := range kept {
			b.pool.Put(base)
		}
	}
	// A fragment may itself be longer than a chunk.
	whole := forge(out.Key, out.SPI, mustReserve(t, out), udp4(hostA4, hostB4, 64, 8900)[14:], nil, 4)
	copy(whole, mac(0xa1))
	body := whole[34:]
	var got [][]byte
	for at := 0; at < len(body); at += 4000 {
		n := min(4000, len(body)-at)
		f := append(bytes.Clone(whole[:34]), body[at:at+n]...)
		binary.BigEndian.PutUint16(f[14+2:], uint16(20+n))
		flags := uint16(at / 8)
		if at+n < len(body) {
			flags |= 0x2000
		}
		binary.BigEndian.PutUint16(f[14+6:], flags)
		got = append(got, b.all(b.wire, b.host, fixSum4(f))...)
	}
	if len(got) != 1 || !arrivesHere(got[0], udp4(hostA4, hostB4, 64, 8900)) {
		t.Errorf("long fragments arrive in %d packets: %v", len(got), b.drops())
	}
}

// Without a free jumbo frame a packet that outgrows its chunk is dropped and counted,
// and the next one is not.
func TestJumboFramesRunOut(t *testing.T) {
	a := newJumbo(t, 'a', pmd.Jumbo{Size: jumbos.Size, Count: 1})
	a.protect(aes128gcm)
	kept, _ := a.pool.GetJumbo()
	before := a.values()
	size := 2048 - pmd.Headroom - 14
	if got := a.outOf(udp4(hostA4, hostB4, 64, size)); got != nil {
		t.Errorf("left as %d bytes", len(got))
	}
	a.onlyDrop(before, counter.NoRoom)
	if got := a.outOf(udp4(hostA4, hostB4, 64, 100)); got == nil {
		t.Errorf("a short packet does not leave: %v", a.drops())
	}
	a.pool.Put(kept)
	if got := a.outOf(udp4(hostA4, hostB4, 64, size)); got == nil {
		t.Errorf("with a jumbo frame it does not leave: %v", a.drops())
	}
}

// Traffic-flow padding to the MTU makes short packets jumbo ones.
func TestJumboPadding(t *testing.T) {
	tn := aes128gcm
	tn.outer.TFC = sad.TFCPath
	a, b := newJumbo(t, 'a', jumbos), newJumbo(t, 'b', jumbos)
	out, _ := a.protect(tn)
	b.protect(tn)
	most := out.Geo.MaxInner(9000)
	for _, size := range []int{20, 1500, 4000, most} {
		sent := innerFrame(false, true, 64, size)
		sealed := a.outOf(bytes.Clone(sent))
		if len(sealed) != 14+out.Geo.Sealed(most) {
			t.Errorf("%d bytes leave as %d: %v", size, len(sealed), a.drops())
			continue
		}
		if got, want := b.into(sealed), innerFrame(false, true, 62, size); !bytes.Equal(got[14:], want[14:]) {
			t.Errorf("%d bytes arrive as %d", size, len(got)-14)
		}
	}
	a.cfg.Injects.Push([]fib.Inject{{Dummy: 1, Len: 100}})
	a.w.Turn()
	if got := a.wire.Take(); len(got) != 1 || len(got[0]) != 14+out.Geo.Sealed(most) {
		t.Errorf("a dummy leaves as %d packets: %v", len(got), a.drops())
	}
}

// A link may become wider than any frame: padding ends with the frame.
func TestPaddingEndsWithTheFrame(t *testing.T) {
	tn := aes128gcm
	tn.outer.TFC = sad.TFCPath
	a := newJumbo(t, 'a', jumbos)
	out, _ := a.protect(tn)
	a.setMTUs(9000, 60000)
	for _, size := range []int{20, 1700, 8900} {
		sealed := a.outOf(innerFrame(false, true, 64, size))
		if n := len(sealed); n < 14+out.Geo.Sealed(8900) || n > jumbos.Size {
			t.Errorf("%d bytes leave as %d: %v", size, n, a.drops())
		}
	}
}

// The host's own packets go up to what a HostPacket holds, and longer ones that come
// by an SA arrive in fragments; in clear, who sends more than its kernel takes is told.
func TestJumboPacketsOfTheHost(t *testing.T) {
	far := newJumbo(t, 'b', jumbos)
	open := netip.MustParseAddr("10.1.0.99")
	far.addPolicy(spd.Policy{Dir: spd.In, Sel: selector(one(open), one(gwB4)), Action: spd.Bypass})
	a, b := hosted(t, newJumbo(t, 'a', jumbos), 32, aes128gcm), hosted(t, far, 32, aes128gcm)
	sent := a.sends(udp4(gwA4, gwB4, 64, 3900)[14:])
	if len(sent) != 1 {
		t.Fatalf("the host sends %d packets: %v", len(sent), a.drops())
	}
	b.wireIn(sent[0])
	if got, _ := b.gets(); len(got) != 1 || !bytes.Equal(got[0], udp4(gwA4, gwB4, 64, 3900)[14:]) {
		t.Errorf("the host gets %d packets: %v", len(got), b.drops())
	}
	b.wireIn(a.outOf(udp4(hostA4, gwB4, 64, 8900)))
	if got, _ := b.gets(); len(got) != 3 {
		t.Errorf("8900 bytes: the host gets %d packets: %v", len(got), b.drops())
	}
	clear := udp4(open, gwB4, 64, fib.ClearSize-14)
	b.wireIn(clear)
	if got, _ := b.gets(); len(got) != 1 || !bytes.Equal(got[0], retarget(clear)) {
		t.Errorf("in clear the host gets %d packets: %v", len(got), b.drops())
	}
	b.wireIn(udp4(open, gwB4, 64, fib.ClearSize-13))
	var p [1]fib.Punt
	if b.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntTooBig || p[0].MTU != fib.ClearSize-14 {
		t.Errorf("told MTU %d: %v", p[0].MTU, b.drops())
	}
	before := b.values()
	b.wireIn(clearDF(udp4(open, gwB4, 64, fib.ClearSize-13)))
	b.onlyDrop(before, counter.NoRoom)
	if got, _ := b.gets(); len(got) != 0 {
		t.Errorf("in clear the host gets %d packets that are too long", len(got))
	}
}

// Short and long packets, whole and in fragments, both ways, onto links of changing
// width, with too few jumbo frames and faults at every port: everything is counted
// once, and every frame comes home.
func TestJumboFramesUnderFaults(t *testing.T) {
	a := newJumbo(t, 'a', pmd.Jumbo{Size: jumbos.Size, Count: 8})
	bad := fault.Options{RxLose: 0.05, RxCorrupt: 0.05, RxTruncate: 0.05, RxDuplicate: 0.2, RxReorder: 0.2, TxShort: 0.2, TxLose: 0.02}
	var faulty queues
	for i := range faulty {
		var err error
		bad.Seed = uint64(i) + 1
		if faulty[i], err = fault.New(a.cfg.Ports[i].Queues[0], a.pool, bad); err != nil {
			t.Fatal(err)
		}
	}
	a.assemble(faulty)
	a.protect(aes128gcm)
	peer := newJumbo(t, 'b', jumbos)
	peer.protect(aes128gcm)
	rng := rand.New(rand.NewPCG(3, 4))
	for n := range 800 {
		if n%100 == 0 {
			widths := []int{1400, 1500, 4000, 9000}
			a.setMTUs(widths[rng.IntN(4)], widths[rng.IntN(4)])
		}
		a.host.Inject(udp4(hostA4, hostB4, 64, 28+rng.IntN(9000)))
		a.host.Inject(clearDF(udp4(hostA4, hostB4, 64, 28+rng.IntN(9000))))
		a.host.Inject(udp6(hostA6, hostB6, 64, 48+rng.IntN(9000)))
		for _, f := range peer.all(peer.host, peer.wire, clearDF(udp4(hostB4, hostA4, 64, 28+rng.IntN(8900)))) {
			if rng.IntN(2) == 0 {
				a.wire.Inject(retarget(f))
				continue
			}
			for _, piece := range split(f, uint16(n)) {
				a.wire.Inject(retarget(piece))
			}
		}
		a.w.Turn()
		a.host.Take()
		a.wire.Take()
		a.cfg.Punts.Pop(make([]fib.Punt, 16))
	}
	v := a.values()
	if v.Tx == 0 || v.Cut == 0 || v.Joined == 0 || v.Drops[counter.AuthFailed] == 0 || a.wireStats().JumboEmpty == 0 {
		t.Errorf("the faults did not bite: %v, %+v", a.drops(), a.wireStats())
	}
}

// wireStats are the counters of the wire port.
func (l *lone) wireStats() pmd.Stats { return l.cfg.Ports[1].Queues[0].Stats() }

// Nothing is allocated for a jumbo packet.
func TestJumboAllocatesNothing(t *testing.T) {
	a := newJumbo(t, 'a', jumbos)
	a.protect(aes128gcm)
	frame := clearDF(udp4(hostA4, hostB4, 64, 8900))
	turn := func() {
		a.host.Inject(frame)
		a.w.Turn()
	}
	for range 300 { // until each buffer of the cables has held one
		turn()
		a.wire.Take()
	}
	if n := testing.AllocsPerRun(100, turn); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
