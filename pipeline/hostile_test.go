package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/pmd/fault"
	"spigot/sad"
	"spigot/spd"
)

// change returns a copy of f with b at offset at.
func change(f []byte, at int, b ...byte) []byte {
	f = bytes.Clone(f)
	copy(f[at:], b)
	return f
}

// Each row is one frame and the one reason that must be counted for it.
func TestEveryDropHasItsReason(t *testing.T) {
	a := newLone(t, 'a')
	a.protect(aes128gcm)
	good := udp4(hostA4, hostB4, 64, 100)
	good6 := udp6(hostA6, hostB6, 64, 100)
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netip.MustParsePrefix("10.3.0.0/16")), Action: spd.Discard})
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netip.MustParsePrefix("10.4.0.0/16")), Action: spd.Bypass})
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netip.MustParsePrefix("10.1.0.0/16")), Action: spd.Bypass})
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netip.MustParsePrefix("192.0.2.0/24")), Action: spd.Bypass})
	to := func(s string) []byte { return udp4(hostA4, netip.MustParseAddr(s), 64, 100) }
	for _, row := range []struct {
		name   string
		frame  []byte
		reason counter.Reason
	}{
		{"nothing", nil, counter.Runt},
		{"half an Ethernet header", good[:7], counter.Runt},
		{"Ethernet header only", good[:14], counter.Runt},
		{"half an IPv4 header", good[:30], counter.Runt},
		{"half an IPv6 header", good6[:30], counter.Runt},
		{"for another host", change(good, 5, 0xee), counter.BadMAC},
		{"ARP", change(good, 12, 0x08, 0x06), counter.BadEtherType},
		{"version 6 under IPv4's type", change(good, 14, 0x65), counter.BadIPHeader},
		{"IHL 4", fixSum4(change(good, 14, 0x44)), counter.BadIPHeader},
		{"total length beyond the frame", fixSum4(change(good, 16, 0, 101)), counter.BadIPHeader},
		{"total length within the header", fixSum4(change(good, 16, 0, 19)), counter.BadIPHeader},
		{"header checksum", change(good, 24, good[24]^1), counter.BadIPHeader},
		{"IPv6 payload length beyond the frame", change(good6, 18, 0, 61), counter.BadIPHeader},
		{"IPv6 payload length 0", change(good6, 18, 0, 0), counter.BadIPHeader},
		{"IPv6 routing header", change(good6, 20, 43), counter.BadExtension},
		{"no policy", to("10.9.0.1"), counter.NoPolicy},
		{"policy says discard", to("10.3.0.1"), counter.PolicyDiscard},
		{"no route", to("10.4.0.1"), counter.NoRoute},
		{"neighbour unknown", to("10.1.0.77"), counter.NoNeighbour},
		{"the gateway itself", to("192.0.2.1"), counter.HostLocal},
	} {
		before := a.values()
		if got := a.outOf(row.frame); got != nil {
			t.Errorf("%s: left as %x", row.name, got)
		}
		t.Run(row.name, func(t *testing.T) { a.t = t; a.onlyDrop(before, row.reason) })
	}
	a.t = t
	var p [2]fib.Punt
	if a.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntResolve || p[0].Via != addr(netip.MustParseAddr("10.1.0.77")) {
		t.Errorf("neighbour was not asked for: %d %v", p[0].Kind, p[0].Via)
	}
}

func TestEveryInboundDropHasItsReason(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	tn := aes128gcm
	tn.selector = true
	a.protect(tn)
	b.protect(tn)
	seal := func() []byte { return a.outOf(udp4(hostA4, hostB4, 64, 100)) }
	first := seal()
	if b.into(first) == nil {
		t.Fatalf("good packet refused: %v", b.drops())
	}
	stale := seal()
	for range 70 {
		b.into(seal())
	}
	const esp = 34
	cut := func(f []byte, n int) []byte {
		f = bytes.Clone(f[:len(f)-n])
		binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
		return fixSum4(f)
	}
	short := func(n int) []byte {
		f := seal()
		return cut(f, len(f)-esp-n)
	}
	for _, row := range []struct {
		name   string
		frame  []byte
		reason counter.Reason
	}{
		{"replayed", first, counter.ReplayOld},
		{"left of the window", stale, counter.ReplayOld},
		{"ESP of 0 bytes", short(0), counter.BadESP},
		{"ESP of 7 bytes", short(7), counter.BadESP},
		{"ESP of 8 bytes", short(8), counter.BadESP},
		{"ESP one block too short", short(8 + 8 + 16), counter.BadESP},
		{"ESP not a multiple of 4", cut(seal(), 1), counter.BadESP},
		{"SPI 0", change(seal(), esp, 0, 0, 0, 0), counter.ReservedSPI},
		{"SPI 255", change(seal(), esp, 0, 0, 0, 255), counter.ReservedSPI},
		{"unknown SPI", change(seal(), esp, 9, 9, 9, 9), counter.UnknownSPI},
		{"ICV", change(seal(), len(first)-1, ^seal()[len(first)-1]), counter.AuthFailed},
		{"cut by a block", cut(seal(), 4), counter.AuthFailed},
		{"a tiny fragment", fixSum4(change(change(seal(), 20, 0x20, 0), 16, 0, 60)), counter.BadFragment},
		{"far-future number, bad ICV", change(seal(), esp+4, 0x7f, 0, 0, 0), counter.AuthFailed},
		{"clear, though protected", udp4(hostA4, hostB4, 64, 100), counter.InPolicyClear},
		{"clear, without a policy", udp4(hostA4, netip.MustParseAddr("10.77.0.1"), 64, 100), counter.NoPolicy},
	} {
		before := b.values()
		if got := b.into(row.frame); got != nil {
			t.Errorf("%s: delivered as %x", row.name, got)
		}
		t.Run(row.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, row.reason) })
	}
	b.t = t
	if b.into(seal()) == nil {
		t.Errorf("the window was moved by a forged number: %v", b.drops())
	}
	twice := seal()
	before := b.values()
	b.wire.Inject(retarget(twice))
	b.wire.Inject(retarget(twice))
	b.w.Turn()
	if got := len(b.host.Take()); got != 1 {
		t.Errorf("the same packet twice in one burst was delivered %d times", got)
	}
	b.onlyDrop(before, counter.ReplaySeen)
}

// ESP in UDP (RFC 3948): lengths that lie, and the wrong wrapping for the SA.
func TestEveryNATTDropHasItsReason(t *testing.T) {
	tn := aes128gcm
	tn.udp = true
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(tn)
	b.protect(tn)
	plain := newLone(t, 'a')
	plain.protect(aes128gcm)
	seal := func() []byte { return a.outOf(udp4(hostA4, hostB4, 64, 100)) }
	const udp, esp = 34, 42
	ofLen := func(n int) []byte { // the datagram cut to n bytes of UDP payload
		f := bytes.Clone(seal()[:esp+n])
		binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
		binary.BigEndian.PutUint16(f[udp+4:], uint16(8+n))
		return fixSum4(f)
	}
	transit := udp4(hostA4, hostB4, 64, 100)
	binary.BigEndian.PutUint16(transit[udp+2:], 4500)
	for _, row := range []struct {
		name   string
		frame  []byte
		reason counter.Reason
	}{
		{"UDP length beyond the packet", change(seal(), udp+4, 0xff, 0xff), counter.BadESP},
		{"UDP length 0", change(seal(), udp+4, 0, 0), counter.BadESP},
		{"UDP length 7", change(seal(), udp+4, 0, 7), counter.BadESP},
		{"payload of 0 bytes", ofLen(0), counter.BadESP},
		{"payload of 7 bytes", ofLen(7), counter.BadESP},
		{"payload of 12 bytes", ofLen(12), counter.BadESP},
		{"SPI 255", change(seal(), esp, 0, 0, 0, 255), counter.ReservedSPI},
		{"unknown SPI", change(seal(), esp, 9, 9, 9, 9), counter.UnknownSPI},
		{"bad ICV", change(seal(), esp+30, ^seal()[esp+30]), counter.AuthFailed},
		{"plain ESP under an SA for UDP", plain.outOf(udp4(hostA4, hostB4, 64, 100)), counter.WrongSAMode},
		{"port 4500 of another host", transit, counter.InPolicyClear},
	} {
		before := b.values()
		if got := b.into(row.frame); got != nil {
			t.Errorf("%s: delivered as %x", row.name, got)
		}
		t.Run(row.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, row.reason) })
	}
	b.t = t
	before := plain.values()
	if plain.into(newLoneSealing(t, tn)); plain.values().Tx != before.Tx {
		t.Error("ESP in UDP was delivered under an SA for plain ESP")
	}
	plain.onlyDrop(before, counter.WrongSAMode)
}

// newLoneSealing returns a packet from gateway b to gateway a under tn.
func newLoneSealing(t *testing.T, tn tunnel) []byte {
	g := newLone(t, 'b')
	g.protect(tn)
	return g.outOf(udp4(hostB4, hostA4, 64, 100))
}

// What a peer with a valid key may send and must not get through.
func TestAuthenticButWrongInside(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(aes128gcm)
	tn := aes128gcm
	tn.selector = true
	b.protect(tn)
	for _, row := range []struct {
		name   string
		inner  []byte
		next   byte
		pad    []byte
		reason counter.Reason
	}{
		{"outside the selectors", udp4(netip.MustParseAddr("10.66.0.1"), hostB4, 64, 98)[14:], 4, nil, counter.SelectorMismatch},
		{"source of the own side", udp4(hostB4, hostB4, 64, 98)[14:], 4, nil, counter.SelectorMismatch},
		{"IPv6 under next header 4", udp6(hostA6, hostB6, 64, 98)[14:], 4, nil, counter.BadInner},
		{"IPv4 under next header 41", udp4(hostA4, hostB4, 64, 98)[14:], 41, nil, counter.BadInner},
		{"TCP segment: transport mode", make([]byte, 98), 6, nil, counter.WrongSAMode},
		{"dummy", make([]byte, 98), 59, nil, counter.DummyPacket},
		{"empty", nil, 4, []byte{1, 2}, counter.BadInner},
		{"inner length lies", change(udp4(hostA4, hostB4, 64, 98)[14:], 2, 1, 0), 4, nil, counter.BadInner},
		{"inner length 0", change(udp4(hostA4, hostB4, 64, 98)[14:], 2, 0, 0), 4, nil, counter.BadInner},
		{"padding not 1, 2, 3", udp4(hostA4, hostB4, 64, 96)[14:], 4, []byte{1, 3}, counter.BadPadding},
		{"padding all zero", udp4(hostA4, hostB4, 64, 96)[14:], 4, []byte{0, 0}, counter.BadPadding},
	} {
		before := b.values()
		if got := b.into(forge(out.Key, out.SPI, mustReserve(t, out), row.inner, row.pad, row.next)); got != nil {
			t.Errorf("%s: delivered as %x", row.name, got)
		}
		t.Run(row.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, row.reason) })
	}
	b.t = t
	// Traffic-flow confidentiality padding behind the inner packet is trimmed.
	tfc := append(udp4(hostA4, hostB4, 64, 70)[14:], make([]byte, 28)...)
	got := b.into(forge(out.Key, out.SPI, mustReserve(t, out), tfc, nil, 4))
	if want := udp4(hostA4, hostB4, 63, 70); got == nil || !bytes.Equal(got[14:], want[14:]) {
		t.Errorf("TFC padding: got %x", got)
	}
}

// Garbage on both sides under a fault wrapper: nothing panics, everything is
// counted once, every frame comes home.
func TestFaultsKeepTheEquation(t *testing.T) {
	pool := newPool(t, 512)
	red, host := newTap(t, pool, mac(0xa0))
	black, wire := newTap(t, pool, mac(0xa1))
	bad := fault.Options{Seed: 11, RxLose: 0.05, RxCorrupt: 0.1, RxTruncate: 0.05, RxDuplicate: 0.05, RxReorder: 0.1, TxShort: 0.2, TxLose: 0.02}
	fr, err := fault.New(red, pool, bad)
	if err != nil {
		t.Fatal(err)
	}
	bad.Seed = 12
	fb, err := fault.New(black, pool, bad)
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, 'a', pool, queues{fr, fb})
	g.protect(aes128gcm)
	rng := rand.New(rand.NewPCG(1, 2))
	peer := newLone(t, 'b')
	peer.protect(aes128gcm)
	for range 2000 {
		host.Inject(udp4(hostA4, hostB4, byte(rng.IntN(70)), 28+rng.IntN(1500)))
		host.Inject(udp6(hostA6, hostB6, byte(rng.IntN(70)), 48+rng.IntN(1500)))
		if f := peer.outOf(udp4(hostB4, hostA4, 64, 28+rng.IntN(1300))); f != nil {
			wire.Inject(retarget(f))
		}
		junk := make([]byte, rng.IntN(200))
		for i := range junk {
			junk[i] = byte(rng.Uint32())
		}
		wire.Inject(junk)
		g.w.Turn()
		host.Take()
		wire.Take()
		g.cfg.Punts.Pop(make([]fib.Punt, 16))
	}
	v := g.values()
	if v.Tx == 0 || v.Drops[counter.AuthFailed] == 0 || v.Drops[counter.TxFull] == 0 {
		t.Errorf("the faults did not bite: %v", g.drops())
	}
	g.home()
}

// FuzzInbound throws frames at the wire side, as they are and as the inside of
// an authentic packet.
func FuzzInbound(f *testing.F) {
	f.Add(udp4(hostA4, hostB4, 64, 100), byte(4))
	f.Add(udp6(hostA6, hostB6, 64, 100), byte(41))
	a, b := newLone(f, 'a'), newLone(f, 'b')
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	f.Fuzz(func(t *testing.T, frame []byte, next byte) {
		if len(frame) > 1500 {
			return
		}
		a.t, b.t = t, t
		b.into(frame)
		b.into(forge(out.Key, out.SPI, mustReserve(t, out), frame, nil, next))
		if v := b.values(); !v.Balanced() || b.pool.Len() != b.pool.Cap() {
			t.Fatalf("%d of %d frames home; %+v", b.pool.Len(), b.pool.Cap(), v)
		}
	})
	a.t, b.t = f, f
}

// The routes may send a decrypted packet back to the wire: the link to the
// hosts is down, or the gateway is a hub. Only the outbound SPD lets it leave.
func TestWhatTurnsBackToTheWireMeetsTheSPD(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	b.protect(aes128gcm)
	b.snaps.FIB.Store(fib.Build(&fib.Config{
		Links:      []fib.Link{{Index: 2, Port: 1, MAC: mac(0xa1), MTU: 1500}},
		Routes:     []fib.Route{{Dst: prefix(netip.MustParsePrefix("0.0.0.0/0")), Gateway: addr(gwA4), Link: 2}},
		Neighbours: []fib.Neighbour{{Addr: addr(gwA4), Link: 2, MAC: mac(2)}},
	}))
	turn := func() []byte {
		return b.one(b.wire, b.wire, retarget(a.outOf(udp4(hostA4, hostB4, 64, 100))))
	}

	before := b.values()
	if got := turn(); got != nil {
		t.Errorf("without an outbound policy it left as %x", got)
	}
	b.onlyDrop(before, counter.NoPolicy)

	hub := selector(netA4, netB4)
	spoke := aes128gcm
	spoke.spi = 0x3000
	sa, err := sad.NewOutbound(spoke.params(false))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.db.AddOutbound(sa); err != nil {
		t.Fatal(err)
	}
	id := b.addPolicy(spd.Policy{Dir: spd.Out, Sel: hub, Action: spd.Protect, Template: templateOf(sa.Src, sa.Dst)})
	before = b.values()
	if got := turn(); got != nil {
		t.Errorf("without an SA it left as %x", got)
	}
	b.onlyDrop(before, counter.NoSA)

	if err := b.db.Bind(id, sa); err != nil {
		t.Fatal(err)
	}
	got := turn()
	if got == nil || got[14+9] != 50 || binary.BigEndian.Uint32(got[14+20:]) != sa.SPI || bytes.Contains(got, []byte("the quick")) {
		t.Errorf("under an SA it left as %x: %v", got, b.drops())
	}
}
