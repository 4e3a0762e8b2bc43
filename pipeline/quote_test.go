package pipeline_test

import (
	"bytes"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/sad"
	"spigot/spd"
)

// icmpAbout makes a frame with an ICMP message from src to dst, of the type typ,
// whose body is body.
func icmpAbout(src, dst netip.Addr, typ byte, body []byte) []byte {
	n := wire.ICMPLen + len(body)
	var f []byte
	if src.Is4() {
		f = udp4(src, dst, 64, 20+n)
		wire.IPv4(f[14:]).SetProto(wire.ProtoICMP)
		f = f[:14+20+n]
		m := wire.ICMP(f[34:])
		m.Init(typ, 0, 0)
		copy(m.Body(), body)
		m.UpdateChecksum4()
		return f
	}
	f = udp6(src, dst, 64, 40+n)
	f[20] = wire.ProtoICMPv6
	m := wire.ICMP(f[54:])
	m.Init(typ, 0, 0)
	copy(m.Body(), body)
	m.UpdateChecksum6(addr(src), addr(dst))
	return f
}

// anyToAny are the selectors of everything.
func anyToAny() []flow.Selector {
	return []flow.Selector{
		selector(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("0.0.0.0/0")),
		selector(netip.MustParsePrefix("::/0"), netip.MustParsePrefix("::/0")),
	}
}

// ICMP errors in a tunnel are judged by the packet that they quote (RFC 4301,
// section 6.2): a router behind the peer may tell of a flow of the SA, and the
// peer must not tell of a flow that is another's.
func TestICMPErrorsInTheTunnel(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	for _, sel := range anyToAny() { // a peer that sends what it likes
		id := a.addPolicy(spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect, Template: templateOf(out.Src, out.Dst)})
		if err := a.db.Bind(id, out); err != nil {
			t.Fatal(err)
		}
	}
	ip := netip.MustParseAddr
	router4, router6 := ip("172.16.0.1"), ip("fd99::1")
	other4, other6 := ip("10.77.0.1"), ip("fd77::1")
	sent4 := func(src, dst netip.Addr) []byte { return udp4(src, dst, 64, 60)[14:] }
	sent6 := func(src, dst netip.Addr) []byte { return udp6(src, dst, 64, 80)[14:] }
	later := fixSum4(change(udp4(hostB4, hostA4, 64, 60), 20, 0, 9))[14:]
	for _, row := range []struct {
		name  string
		frame []byte
		want  counter.Reason // None: it arrives
	}{
		{"v4, from a router that no policy knows", icmpAbout(router4, hostB4, 11, sent4(hostB4, hostA4)), counter.None},
		{"v4, from the host itself", icmpAbout(hostA4, hostB4, 3, sent4(hostB4, hostA4)), counter.None},
		{"v4, 8 bytes are quoted", icmpAbout(router4, hostB4, 3, sent4(hostB4, hostA4)[:28]), counter.None},
		{"v6, from a router that no policy knows", icmpAbout(router6, hostB6, 3, sent6(hostB6, hostA6)), counter.None},
		{"v6, too big", icmpAbout(router6, hostB6, 2, sent6(hostB6, hostA6)), counter.None},
		{"v4, an echo is no error", icmpAbout(hostA4, hostB4, 8, nil), counter.None},
		{"v6, nor here", icmpAbout(hostA6, hostB6, 128, nil), counter.None},

		{"v4, an echo from a router", icmpAbout(router4, hostB4, 8, nil), counter.NoPolicy},
		{"v4, of a flow that is another's", icmpAbout(hostA4, hostB4, 3, sent4(hostB4, other4)), counter.NoPolicy},
		{"v6, of a flow that is another's", icmpAbout(hostA6, hostB6, 2, sent6(hostB6, other6)), counter.NoPolicy},
		{"v4, to who has not sent it", icmpAbout(hostA4, hostB4, 3, sent4(ip("10.2.0.99"), hostA4)), counter.BadQuote},
		{"v6, to who has not sent it", icmpAbout(hostA6, hostB6, 1, sent6(ip("fd00:2::99"), hostA6)), counter.BadQuote},
		{"v4, a flow the wrong way round", icmpAbout(hostA4, hostB4, 3, sent4(hostA4, hostB4)), counter.BadQuote},
		{"v4, nothing is quoted", icmpAbout(hostA4, hostB4, 11, nil), counter.BadQuote},
		{"v4, 19 bytes are quoted", icmpAbout(hostA4, hostB4, 11, sent4(hostB4, hostA4)[:19]), counter.BadQuote},
		{"v4, a later fragment is quoted", icmpAbout(hostA4, hostB4, 11, later), counter.BadQuote},
		{"v4, IPv6 is quoted", icmpAbout(hostA4, hostB4, 3, sent6(hostB6, hostA6)), counter.BadQuote},
		{"v6, IPv4 is quoted", icmpAbout(hostA6, hostB6, 1, sent4(hostB4, hostA4)), counter.BadQuote},
		{"v6, 39 bytes are quoted", icmpAbout(hostA6, hostB6, 1, sent6(hostB6, hostA6)[:39]), counter.BadQuote},
	} {
		t.Run(row.name, func(t *testing.T) {
			a.t, b.t = t, t
			sealed := a.outOf(row.frame)
			if sealed == nil {
				t.Fatalf("not sealed: %v", a.drops())
			}
			before := b.values()
			got := b.into(sealed)
			if (got != nil) != (row.want == counter.None) {
				t.Errorf("arrived: %t: %v", got != nil, b.drops())
			}
			if got != nil && !bytes.Equal(got[34:], row.frame[34:]) {
				t.Error("it arrived changed")
			}
			if row.want != counter.None {
				b.onlyDrop(before, row.want)
			}
		})
	}
	a.t, b.t = t, t
}

// What a router on the protected side has to say of a flow leaves by the flow's
// SA, although no policy names the router.
func TestARoutersErrorLeavesByTheFlowsSA(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	b.protect(aes128gcm)
	router, other := netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("10.77.0.1")
	about := func(src, dst netip.Addr) []byte { return icmpAbout(router, src, 11, udp4(src, dst, 64, 60)[14:]) }
	if sealed := a.outOf(about(hostB4, hostA4)); sealed == nil || b.into(sealed) == nil {
		t.Errorf("a: %v, b: %v", a.drops(), b.drops())
	}
	for name, frame := range map[string][]byte{
		"of a flow that no policy names": about(hostB4, other),
		"an echo":                        icmpAbout(router, hostB4, 8, nil),
		"to who has not sent it":         icmpAbout(router, hostB4, 11, udp4(netip.MustParseAddr("10.2.0.99"), hostA4, 64, 60)[14:]),
	} {
		before := a.values()
		if a.outOf(frame) != nil {
			t.Errorf("%s: it left", name)
		}
		t.Run(name, func(t *testing.T) { a.t = t; a.onlyDrop(before, counter.NoPolicy) })
	}
	a.t = t
}

// An ICMP error of a router that no policy names goes by the SA of the flow that it
// is about, also where each flow has its own; that is the one that is asked for.
func TestICMPErrorGoesByTheFlowsSA(t *testing.T) {
	l := newLone(t, 'a')
	id := l.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netB4), Action: spd.Protect,
		Template: templateOf(addr(gwA4), addr(gwB4)), PFP: spd.PFPSrc | spd.PFPDst})
	router := netip.MustParseAddr("172.16.0.1")
	about := udp4(hostB4, hostA4, 64, 100)[14:]
	frame := icmpAbout(router, hostB4, wire.ICMPTimeExceeded, about)
	l.drop("without an SA", l.outOf, frame, counter.NoSA)
	var req [2]spd.AcquireRequest
	if n := l.cfg.Acquires.Pop(req[:]); n != 1 || req[0].Flow.Src != addr(hostA4) || req[0].Flow.Dst != addr(hostB4) {
		t.Errorf("%d acquires, %+v", n, req[0])
	}
	out, err := sad.NewOutbound(aes128gcm.params(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.db.AddOutbound(out); err != nil {
		t.Fatal(err)
	}
	if err := l.db.BindFlow(id, flow.Tuple{Src: addr(hostA4), Dst: addr(hostB4)}, out); err != nil {
		t.Fatal(err)
	}
	if l.outOf(frame) == nil {
		t.Errorf("with an SA: %v", l.drops())
	}
}
