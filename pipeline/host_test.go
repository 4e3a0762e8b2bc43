package pipeline_test

import (
	"bytes"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/pipeline"
	"spigot/ring"
	"spigot/sad"
	"spigot/spd"
)

// host is a gateway that its host is a part of.
type host struct {
	*lone
	out *sad.Outbound
}

// newHost returns gateway side with a tunnel for all four combinations of nets
// and gateways, and rings of that many packets.
func newHost(t testing.TB, side byte, slots int) *host { return newHostOf(t, side, slots, aes128gcm) }

// newHostOf is newHost with the SA pair of tn.
func newHostOf(t testing.TB, side byte, slots int, tn tunnel) *host {
	t.Helper()
	return hosted(t, newLone(t, side), slots, tn)
}

// hosted makes l such a gateway.
func hosted(t testing.TB, l *lone, slots int, tn tunnel) *host {
	t.Helper()
	h := &host{lone: l}
	side := l.side
	wake, err := ring.NewBell()
	if err != nil {
		t.Fatal(err)
	}
	tell, err := ring.NewBell()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wake.Close(); tell.Close() })
	h.cfg.Host = &fib.HostLink{
		Sent: ring.New[fib.HostPacket](slots), Got: ring.New[fib.HostPacket](slots), Wake: wake, Tell: tell,
	}
	if h.w, err = pipeline.New(h.cfg); err != nil {
		t.Fatal(err)
	}
	var in *sad.Inbound
	h.out, in = h.protect(tn)
	ends := [][2]netip.Prefix{
		{one(gwA4), one(gwB4)}, {one(gwA4), netB4}, {netA4, one(gwB4)},
		{one(gwA6), one(gwB6)}, {one(gwA6), netB6}, {netA6, one(gwB6)},
	}
	for _, e := range ends {
		sel := selector(e[0], e[1])
		if side == 'b' {
			sel = sel.Mirrored()
		}
		id := h.addPolicy(spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect, Template: naming(&h.out.SA)})
		h.addPolicy(spd.Policy{Dir: spd.In, Sel: sel.Mirrored(), Action: spd.Protect, Template: naming(&in.SA)})
		if err := h.db.Bind(id, h.out); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func one(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// sends has the host send packets, and returns what left by the wire.
func (h *host) sends(packets ...[]byte) [][]byte {
	h.t.Helper()
	for _, p := range packets {
		m := make([]fib.HostPacket, 1)
		m[0].Len = uint16(copy(m[0].Data[:], p))
		if h.cfg.Host.Sent.Push(m) != 1 {
			h.t.Fatal("the host's ring is full")
		}
	}
	h.w.Turn()
	return h.wire.Take()
}

// gets returns the packets that the host got, and by which port.
func (h *host) gets() (packets [][]byte, ports []int16) {
	m := make([]fib.HostPacket, 1)
	for h.cfg.Host.Got.Pop(m) == 1 {
		packets = append(packets, bytes.Clone(m[0].Data[:m[0].Len]))
		ports = append(ports, m[0].Port)
	}
	return packets, ports
}

// wireIn gives the gateway a frame from the wire, and takes nothing.
func (h *host) wireIn(frame []byte) {
	h.t.Helper()
	if !h.wire.Inject(retarget(frame)) {
		h.t.Fatal("tap is full")
	}
	h.w.Turn()
}

// What one host sends to the other, or to a host behind it, arrives as it was
// sent: sealed on the wire, its TTL untouched, and received securely.
func TestHostsTalkThroughTheTunnel(t *testing.T) {
	a, b := newHost(t, 'a', 32), newHost(t, 'b', 32)
	for _, row := range []struct {
		name   string
		packet []byte
	}{
		{"v4", udp4(gwA4, gwB4, 64, 100)[14:]},
		{"v4, TTL 1", udp4(gwA4, gwB4, 1, 100)[14:]},
		{"v4, the largest", udp4(gwA4, gwB4, 64, a.out.Geo.MaxInner(1500))[14:]},
		{"v6", udp6(gwA6, gwB6, 64, 100)[14:]},
		{"v6, hop limit 1", udp6(gwA6, gwB6, 1, 100)[14:]},
	} {
		sealed := a.sends(row.packet)
		if len(sealed) != 1 || bytes.Contains(sealed[0], []byte("quick brown")) {
			t.Fatalf("%s: %d packets left: %v", row.name, len(sealed), a.drops())
		}
		b.wireIn(sealed[0])
		got, ports := b.gets()
		if len(got) != 1 || !bytes.Equal(got[0], row.packet) || ports[0] != fib.Secured {
			t.Errorf("%s: %d packets by ports %v: %v", row.name, len(got), ports, b.drops())
		}
	}
	// To a host behind the other gateway, and from it to this one.
	if sealed := a.sends(udp4(gwA4, hostB4, 64, 100)[14:]); len(sealed) != 1 || b.into(sealed[0]) == nil {
		t.Errorf("to a host behind the peer: %v", b.drops())
	}
	if sealed := b.outOf(udp4(hostB4, gwA4, 64, 100)); sealed == nil {
		t.Errorf("from a host behind the peer: %v", b.drops())
	} else if a.wireIn(sealed); a.cfg.Host.Got.Len() != 1 {
		t.Errorf("from a host behind the peer: %v", a.drops())
	}
	// A burst, of more than a turn takes.
	burst := make([][]byte, 20)
	for i := range burst {
		burst[i] = udp4(gwA4, gwB4, 64, 100+i)[14:]
	}
	n := len(a.sends(burst...))
	a.w.Turn()
	if n += len(a.wire.Take()); n != len(burst) {
		t.Errorf("%d of %d packets left", n, len(burst))
	}
	b.gets()
	a.gets()
}

// What the host sends is held against the SPD: bypass leaves in clear, and what
// no policy names does not leave.
func TestHostIsHeldToTheSPD(t *testing.T) {
	a := newHost(t, 'a', 32)
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(one(gwA4), netip.MustParsePrefix("10.1.0.10/32")), Action: spd.Bypass})
	if n := len(a.sends(udp4(gwA4, hostA4, 64, 100)[14:])) + len(a.host.Take()); n != 1 {
		t.Errorf("bypassed: %d packets left", n)
	}
	for _, row := range []struct {
		name   string
		packet []byte
		reason counter.Reason
	}{
		{"no policy", udp4(gwA4, netip.MustParseAddr("10.9.0.1"), 64, 100)[14:], counter.NoPolicy},
		{"no packet", bytes.Repeat([]byte("garbage"), 9), counter.BadIPHeader},
		{"nothing", nil, counter.Runt},
		{"more than a frame holds", udp4(gwA4, gwB4, 64, 4000)[14:], counter.NoRoom},
	} {
		before := a.values()
		if got := a.sends(row.packet); len(got) != 0 {
			t.Errorf("%s: left as %x", row.name, got)
		}
		t.Run(row.name, func(t *testing.T) { a.t = t; a.onlyDrop(before, row.reason) })
	}
	a.t = t
}

// What is for the host's addresses in clear is held against SPD-I, where it
// comes from the wire (RFC 4301, section 5.2); from the protected side it is no
// business of the gateway's. Hostile input 7 and CVE-2019-14899: a packet to an
// address within the tunnel from outside of it does not get in, whoever it says
// that it is from.
func TestHostGetsNothingInClearThatAPolicyProtects(t *testing.T) {
	b := newHost(t, 'b', 32)
	admin := netip.MustParseAddr("198.51.100.7")
	sel := selector(one(admin), one(gwB4))
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Bypass})
	b.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netB4, one(gwB4)), Action: spd.Bypass})
	may := retarget(udp4(admin, gwB4, 64, 100))
	b.wireIn(may)
	if got, ports := b.gets(); len(got) != 1 || !bytes.Equal(got[0], may) || ports[0] != 1 {
		t.Errorf("bypassed: %x by ports %v: %v", got, ports, b.drops())
	}
	fragment := fixSum4(change(may, 20, 0x20, 0))
	b.wireIn(fragment)
	if got, _ := b.gets(); len(got) != 1 || !bytes.Equal(got[0], fragment) {
		t.Errorf("bypassed fragment: %x: %v", got, b.drops())
	}
	for _, row := range []struct {
		name   string
		in     func([]byte)
		frame  []byte
		reason counter.Reason
	}{
		{"CVE-2019-14899: as from the peer's net", b.wireIn, udp4(hostA4, gwB4, 64, 100), counter.InPolicyClear},
		{"CVE-2019-14899: as from the peer's net, v6", b.wireIn, udp6(hostA6, gwB6, 64, 100), counter.InPolicyClear},
		{"as from the peer", b.wireIn, udp4(gwA4, gwB4, 64, 100), counter.InPolicyClear},
		{"as from the peer, a fragment", b.wireIn, fixSum4(change(udp4(gwA4, gwB4, 64, 100), 20, 0x20, 0)), counter.InPolicyClear},
		{"without a policy", b.wireIn, udp4(netip.MustParseAddr("198.51.100.8"), gwB4, 64, 100), counter.NoPolicy},
		{"in a frame for a group", b.wireIn, change(may, 0, 1), counter.BadMAC},
		{"from the protected side", func(f []byte) { b.outOf(f) }, udp4(hostB4, gwB4, 64, 100), counter.HostLocal},
	} {
		before := b.values()
		if row.name == "in a frame for a group" { // as it is
			if !b.wire.Inject(row.frame) {
				t.Fatal("tap is full")
			}
			b.w.Turn()
		} else {
			row.in(row.frame)
		}
		if got, _ := b.gets(); len(got) != 0 {
			t.Errorf("%s: the host got %x", row.name, got)
		}
		t.Run(row.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, row.reason) })
	}
	b.t = t
}

// A host that does not take its packets loses its own, and nobody else's.
func TestHostThatIsSlow(t *testing.T) {
	a, b := newHost(t, 'a', 32), newHost(t, 'b', 4)
	for range 6 {
		b.wireIn(a.sends(udp4(gwA4, gwB4, 64, 100)[14:])[0])
	}
	if d := b.values().Drops[counter.HostFull]; d != 2 {
		t.Errorf("%d packets lost of 6 in a ring of 4: %v", d, b.drops())
	}
	if b.into(a.outOf(udp4(hostA4, hostB4, 64, 100))) == nil {
		t.Errorf("another packet was lost, too: %v", b.drops())
	}
	if got, _ := b.gets(); len(got) != 4 {
		t.Errorf("the host has %d packets", len(got))
	}
}

// What does not fit is answered: the slow path is asked, and its answer to the
// host reaches the host.
func TestHostLearnsThePathMTU(t *testing.T) {
	a := newHost(t, 'a', 32)
	a.setMTU(1000)
	if got := a.sends(udp4(gwA4, gwB4, 64, 1000)[14:]); len(got) != 0 {
		t.Fatalf("left: %d packets", len(got))
	}
	var p [1]fib.Punt
	if a.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntTooBig || int(p[0].MTU) != a.out.Geo.MaxInner(1000) || p[0].Secured {
		t.Fatalf("asked for %+v", p[0].Kind)
	}
	answer := udp4(gwB4, gwA4, 64, 100)[14:]
	m := make([]fib.Inject, 1)
	m[0].Len = uint16(copy(m[0].Data[:], answer))
	if a.cfg.Injects.Push(m) != 1 {
		t.Fatal("ring is full")
	}
	a.w.Turn()
	if got, ports := a.gets(); len(got) != 1 || !bytes.Equal(got[0], answer) || ports[0] != fib.Secured {
		t.Errorf("the host got %d packets by %v: %v", len(got), ports, a.drops())
	}
}

func TestHostAllocatesNothing(t *testing.T) {
	a, b := newHost(t, 'a', 32), newHost(t, 'b', 32)
	m := make([]fib.HostPacket, 1)
	m[0].Len = uint16(copy(m[0].Data[:], udp4(gwA4, gwB4, 64, 100)[14:]))
	var sealed [][]byte
	for range 60 {
		sealed = append(sealed, retarget(a.sends(m[0].Data[:m[0].Len])[0]))
	}
	if n := testing.AllocsPerRun(50, func() { a.cfg.Host.Sent.Push(m); a.w.Turn() }); n != 0 {
		t.Errorf("%v allocations for a packet of the host", n)
	}
	a.wire.Take()
	next, got := 0, 0
	if n := testing.AllocsPerRun(50, func() {
		b.wire.Inject(sealed[next])
		next++
		b.w.Turn()
		got += b.cfg.Host.Got.Pop(m)
	}); n != 0 || got != next {
		t.Errorf("%v allocations for a packet to the host, %d of %d arrived", n, got, next)
	}
}
