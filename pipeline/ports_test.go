package pipeline_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// pieces are the fragments of a UDP datagram from src to dst with destination
// port port, of 800 and 400 bytes.
func pieces(src, dst netip.Addr, id, port uint16) [2][]byte {
	if src.Is6() {
		f := udp6(src, dst, 64, 1240)
		binary.BigEndian.PutUint16(f[54+2:], port)
		cut := func(from, to int, offset uint16) []byte {
			g := append(append(append([]byte{}, f[:54]...), 17, 0, byte(offset>>8), byte(offset), 0, 0, byte(id>>8), byte(id)), f[54+from:54+to]...)
			g[14+6] = 44
			binary.BigEndian.PutUint16(g[14+4:], uint16(len(g)-54))
			return g
		}
		return [2][]byte{cut(0, 800, 1), cut(800, 1200, 800)}
	}
	f := udp4(src, dst, 64, 1220)
	binary.BigEndian.PutUint16(f[34+2:], port)
	cut := func(from, to int, offset uint16) []byte {
		g := append(append([]byte{}, f[:34]...), f[34+from:34+to]...)
		binary.BigEndian.PutUint16(g[14+2:], uint16(len(g)-14))
		binary.BigEndian.PutUint16(g[14+4:], id)
		binary.BigEndian.PutUint16(g[14+6:], offset)
		return fixSum4(g)
	}
	return [2][]byte{cut(0, 800, 0x2000), cut(800, 1200, 100)}
}

// port restricts sel to one destination port of UDP.
func port(sel flow.Selector, n uint16) flow.Selector {
	sel.Proto, sel.DstPort = 17, flow.PortRange{Lo: n, Hi: n}
	return sel
}

// drop checks that frame does not leave, and why.
func (l *lone) drop(what string, send func([]byte) []byte, frame []byte, reason counter.Reason) {
	l.t.Helper()
	before := l.values()
	if got := send(frame); got != nil {
		l.t.Errorf("%s: it got through as %x", what, got)
	}
	l.onlyDrop(before, reason)
}

// Fragments of a datagram are judged as their first one is (RFC 4301, section
// 7.3), where a policy selects by ports; elsewhere each for itself.
func TestFragmentsHaveTheirDatagramsPorts(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		here, there, other := hostA4, hostB4, netip.MustParseAddr("10.2.9.9")
		inside, outside := netA4, netB4
		if v6 {
			here, there, other = hostA6, hostB6, netip.MustParseAddr("fd00:2::9")
			inside, outside = netA6, netB6
		}
		a := newLone(t, 'a')
		to := selector(inside, outside)
		to.Dst.Hi = addr(there)
		a.addPolicy(spd.Policy{Dir: spd.Out, Sel: port(to, 2000), Action: spd.Discard})
		a.protect(aes128gcm)
		good, bad := pieces(here, there, 1, 3000), pieces(here, there, 2, 2000)
		for k, frame := range good {
			if a.outOf(frame) == nil {
				t.Errorf("v6 %t: fragment %d of what may pass: %v", v6, k, a.drops())
			}
		}
		for k, frame := range bad {
			a.drop(string(rune('0'+k)), a.outOf, frame, counter.PolicyDiscard)
		}
		a.drop("without the first one", a.outOf, pieces(here, there, 3, 3000)[1], counter.Fragment)
		if v6 {
			other = netip.MustParseAddr("fd00:2::99")
		}
		if !v6 && a.outOf(pieces(here, other, 4, 3000)[1]) == nil {
			t.Errorf("where no policy asks for ports: %v", a.drops())
		}
		// The same number again, for another datagram.
		a.outOf(pieces(here, there, 2, 3000)[0])
		if a.outOf(good[1]) == nil || a.outOf(pieces(here, there, 2, 3000)[1]) == nil {
			t.Errorf("v6 %t: a number is used again: %v", v6, a.drops())
		}
	}
}

// What comes by an SA is held against the ports of the SA's selectors and the
// policies, fragment by fragment.
func TestFragmentsOutOfTheTunnelHaveTheirPorts(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	p := aes128gcm.params(true)
	p.Selectors = []flow.Selector{port(selector(netA4, netB4), 2000)}
	in, err := sad.NewInbound(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.db.AddInbound(in); err != nil {
		t.Fatal(err)
	}
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: selector(netA4, netB4), Action: spd.Protect, Template: templateOf(in.Src, in.Dst)})
	for k, frame := range pieces(hostA4, hostB4, 1, 2000) {
		if b.into(a.outOf(frame)) == nil {
			t.Errorf("fragment %d: %v", k, b.drops())
		}
	}
	for k, frame := range pieces(hostA4, hostB4, 2, 2001) {
		b.drop(string(rune('0'+k)), b.into, a.outOf(frame), counter.SelectorMismatch)
	}
	b.drop("without the first one", b.into, a.outOf(pieces(hostA4, hostB4, 3, 2000)[1]), counter.Fragment)

	// A first fragment in clear says nothing about what comes by the SA.
	b.drop("in clear", b.into, pieces(hostA4, hostB4, 4, 2000)[0], counter.InPolicyClear)
	b.drop("without the first one by the SA", b.into, a.outOf(pieces(hostA4, hostB4, 4, 2000)[1]), counter.Fragment)
}

// A first fragment that ends before its ports has none.
func TestFragmentWithoutPorts(t *testing.T) {
	a := newLone(t, 'a')
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: port(selector(netA4, netB4), 2000), Action: spd.Discard})
	a.protect(aes128gcm)
	f := fixSum4(change(change(udp4(hostA4, hostB4, 64, 28)[:14+22], 14+2, 0, 22), 14+6, 0x20, 0))
	a.drop("two bytes", a.outOf, f, counter.Runt)
}

func TestPortsOfFragmentsAllocateNothing(t *testing.T) {
	a := newLone(t, 'a')
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: port(selector(netA4, netB4), 2000), Action: spd.Discard})
	a.protect(aes128gcm)
	frames := pieces(hostA4, hostB4, 1, 3000)
	a.outOf(frames[0])
	if n := testing.AllocsPerRun(100, func() {
		a.host.Inject(frames[0])
		a.host.Inject(frames[1])
		a.w.Turn()
	}); n > 2 { // the tap's copies
		t.Errorf("%v allocations", n)
	}
	a.wire.Take()
}

// A first fragment that comes by one SA says nothing about what comes by another:
// else the peer of that one, who may send no such packet, could stop the datagram.
func TestPortsOfAnotherSA(t *testing.T) {
	b := newLone(t, 'b')
	var ins []*sad.Inbound
	for i, sel := range []flow.Selector{port(selector(netA4, netB4), 2000), selector(netip.MustParsePrefix("10.9.0.0/16"), netB4)} {
		p := aes128gcm.params(true)
		p.SPI += uint32(i)
		p.Selectors = []flow.Selector{sel}
		in, err := sad.NewInbound(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.db.AddInbound(in); err != nil {
			t.Fatal(err)
		}
		ins = append(ins, in)
	}
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: port(selector(netA4, netB4), 2000), Action: spd.Protect, Template: naming(&ins[0].SA)})
	good, bad := pieces(hostA4, hostB4, 5, 2000), pieces(hostA4, hostB4, 5, 2001)
	if b.into(forge(ins[0].Key, ins[0].SPI, 1, good[0][14:], nil, 4)) == nil {
		t.Fatal(b.drops())
	}
	b.drop("by another", b.into, forge(ins[1].Key, ins[1].SPI, 1, bad[0][14:], nil, 4), counter.SelectorMismatch)
	if b.into(forge(ins[0].Key, ins[0].SPI, 2, good[1][14:], nil, 4)) == nil {
		t.Errorf("the rest: %v", b.drops())
	}
}

// Of a protocol without ports a later fragment has none, as the first one: it is
// not taken for one to port 0.
func TestLaterFragmentsHaveNoPortsEither(t *testing.T) {
	a := newLone(t, 'a')
	low := selector(netA4, netB4)
	low.DstPort = flow.PortRange{Lo: 0, Hi: 1023}
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: low, Action: spd.Bypass})
	a.protect(aes128gcm)
	for k, f := range pieces(hostA4, hostB4, 1, 3000) {
		f[14+9] = 47
		got := a.outOf(fixSum4(f))
		if got == nil || got[14+9] != 50 {
			t.Errorf("fragment %d left as protocol %d: %v", k, got[14+9], a.drops())
		}
	}
}
