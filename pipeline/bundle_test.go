package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// bundle makes SA pairs, the innermost first, and policies of both families that
// want all of them together.
func (g *gateway) bundle(tns ...tunnel) (outs []*sad.Outbound, ins []*sad.Inbound) {
	g.t.Helper()
	var out, in []spd.Template
	for _, tn := range tns {
		o, i := g.pair(tn)
		outs, ins = append(outs, o), append(ins, i)
		out, in = append(out, naming(&o.SA)), append(in, naming(&i.SA))
	}
	for _, n := range [][2]netip.Prefix{{netA4, netB4}, {netA6, netB6}} {
		sel := selector(n[0], n[1])
		if g.side != 'a' {
			sel = sel.Mirrored()
		}
		leave := spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect}
		enter := spd.Policy{Dir: spd.In, Sel: sel.Mirrored(), Action: spd.Protect}
		leave.SetTemplates(out...)
		enter.SetTemplates(in...)
		id := g.addPolicy(leave)
		g.addPolicy(enter)
		if err := g.db.BindBundle(id, outs); err != nil {
			g.t.Fatal(err)
		}
	}
	return outs, ins
}

// The parts of bundles; each has an SPI of its own.
var (
	espTunnel  = tunnel{spi: 0x1000, enc: "aes-gcm-16", encLen: 20, window: 64}
	espTunnel2 = tunnel{spi: 0x1100, enc: "aes-cbc", encLen: 16, integ: "hmac-sha2-256-128", authLen: 32, window: 64, esn: true}
	espHost    = tunnel{spi: 0x1200, enc: "aes-gcm-16", encLen: 20, window: 64, host: true}
	ahTunnel   = tunnel{spi: 0x1300, ah: true, integ: "hmac-sha2-256-128", authLen: 32, window: 64}
	ahHost     = tunnel{spi: 0x1400, ah: true, integ: "hmac-sha2-384-192", authLen: 48, window: 64, esn: true, host: true}
	ahGate     = tunnel{spi: 0x1500, ah: true, integ: "aes-cmac-96", authLen: 16, window: 64, gate: true}
	espGate    = tunnel{spi: 0x1600, enc: "null", integ: "hmac-sha2-512-256", authLen: 64, window: 64, gate: true}
)

var bundles = []struct {
	name string
	sas  []tunnel // the innermost first
	wire []byte   // the protocols on the wire, the outermost first, as far as they can be seen
}{
	{"AH over ESP, transport", []tunnel{espHost, ahHost}, []byte{51, 50}},
	{"ESP over AH, transport", []tunnel{ahHost, espHost}, []byte{50}},
	{"AH in transport mode over an ESP tunnel", []tunnel{espTunnel, ahGate}, []byte{51, 50}},
	{"ESP in an AH tunnel", []tunnel{espHost, ahTunnel}, []byte{51, 4, 50}},
	{"ESP in ESP", []tunnel{espTunnel, espTunnel2}, []byte{50}},
	{"AH in ESP in AH", []tunnel{ahHost, espTunnel, ahGate}, []byte{51, 50}},
	{"four", []tunnel{espHost, ahHost, espTunnel, ahGate}, []byte{51, 50}},
	{"four of ESP", []tunnel{espHost, espTunnel, espGate, espTunnel2}, []byte{50}},
}

// each family, inside and outside, where the modes allow it.
func eachFamily(sas []tunnel, f func(sas []tunnel, inner6 bool)) {
	host := slices.ContainsFunc(sas, func(tn tunnel) bool { return tn.host })
	for _, outer6 := range []bool{false, true} {
		for _, inner6 := range []bool{false, true} {
			with := slices.Clone(sas)
			for i := range with {
				with[i].outer6 = outer6
			}
			if !host || outer6 == inner6 {
				f(with, inner6)
			}
		}
	}
}

// What is sent under several SAs arrives as it was; the headers on the wire are
// in their order.
func TestBundlesCross(t *testing.T) {
	for _, c := range bundles {
		eachFamily(c.sas, func(sas []tunnel, inner6 bool) {
			t.Run(fmt.Sprintf("%s/outer6=%t/inner6=%t", c.name, sas[0].outer6, inner6), func(t *testing.T) {
				a, b := newLone(t, 'a'), newLone(t, 'b')
				a.bundle(sas...)
				b.bundle(sas...)
				for _, size := range []int{49, 50, 51, 52, 600, 1111} {
					for _, g := range []struct {
						from, to *lone
						toB      bool
					}{{a, b, true}, {b, a, false}} {
						wire := g.from.outOf(innerFrame(inner6, g.toB, 64, size))
						if wire == nil {
							t.Fatalf("%d bytes did not leave: %v", size, g.from.drops())
						}
						if got := protocols(wire, len(c.wire)); !sas[0].outer6 && !bytes.Equal(got, c.wire) {
							t.Fatalf("on the wire %v, want %v", got, c.wire)
						}
						got, want := g.to.into(wire), innerFrame(inner6, g.toB, 62, size)
						if got == nil || !bytes.Equal(got[14:], want[14:]) {
							t.Fatalf("arrived\n%x\nwant\n%x\n%v", got, want, g.to.drops())
						}
					}
				}
			})
		})
	}
}

// protocols lists the first n protocols in an IPv4 frame.
func protocols(wire []byte, n int) (all []byte) {
	ip := wire[14:]
	for p := ip[9]; len(all) < n; {
		all = append(all, p)
		switch {
		case p == 4:
			ip = ip[20:]
			p = ip[9]
		case p == 51 && len(all) == 1:
			p = ip[20]
			ip = ip[4*(int(ip[21])+2):]
		default:
			return all
		}
	}
	return all
}

// The largest packet that fits the path under all SAs leaves, one byte more does
// not and is told so.
func TestMTUOfBundles(t *testing.T) {
	for _, c := range bundles {
		eachFamily(c.sas, func(sas []tunnel, inner6 bool) {
			a := newLone(t, 'a')
			a.bundle(sas...)
			a.outOf(innerFrame(inner6, true, 64, 1500))
			var p [1]fib.Punt
			if a.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntTooBig {
				t.Fatalf("%s: 1500 bytes were not answered: %v", c.name, a.drops())
			}
			fits := int(p[0].MTU)
			if inner6 && fits == 1280 {
				return // nobody is told less, and what does not fit is cut
			}
			wire := a.outOf(innerFrame(inner6, true, 64, fits))
			if n := len(wire) - 14; n > 1500 || n <= 1500-36 {
				t.Errorf("%s: %d bytes should just fit and leave as %d: %v", c.name, fits, n, a.drops())
			}
			if a.outOf(innerFrame(inner6, true, 64, fits+1)) != nil || a.cfg.Punts.Pop(p[:]) != 1 || int(p[0].MTU) != fits {
				t.Errorf("%s: %d bytes: told %d", c.name, fits+1, p[0].MTU)
			}
		})
	}
}

// A policy wants its SAs, all of them, in their order, and no other.
func TestBundlesAreHeldAgainstThePolicy(t *testing.T) {
	for _, c := range []struct {
		name   string
		sent   []tunnel // the innermost first
		want   []tunnel
		reason counter.Reason
	}{
		{"as it is", []tunnel{espHost, ahHost}, []tunnel{espHost, ahHost}, counter.None},
		{"without the outer one", []tunnel{espHost}, []tunnel{espHost, ahHost}, counter.InPolicyMismatch},
		{"without the inner one", []tunnel{ahHost}, []tunnel{espHost, ahHost}, counter.InPolicyMismatch},
		{"in clear", nil, []tunnel{espHost, ahHost}, counter.InPolicyClear},
		{"in the other order", []tunnel{ahHost, espHost}, []tunnel{espHost, ahHost}, counter.InPolicyMismatch},
		{"by one more", []tunnel{espHost, ahHost}, []tunnel{espHost}, counter.InPolicyMismatch},
		{"by one more outside", []tunnel{espTunnel, ahGate}, []tunnel{espTunnel}, counter.InPolicyMismatch},
		{"by three for two", []tunnel{ahHost, espTunnel, ahGate}, []tunnel{espTunnel, ahGate}, counter.InPolicyMismatch},
		{"by two for three", []tunnel{espTunnel, ahGate}, []tunnel{ahHost, espTunnel, ahGate}, counter.InPolicyMismatch},
	} {
		a, b := newLone(t, 'a'), newLone(t, 'b')
		frame := innerFrame(false, true, 64, 100)
		if len(c.sent) > 0 {
			a.bundle(c.sent...)
			frame = a.outOf(frame)
		}
		b.bundle(c.want...)
		for _, tn := range c.sent { // b has them all; it is the policy that refuses
			if !slices.ContainsFunc(c.want, func(o tunnel) bool { return o.spi == tn.spi }) {
				b.pair(tn)
			}
		}
		before := b.values()
		got := b.into(frame)
		if (got != nil) != (c.reason == counter.None) {
			t.Errorf("%s: arrived as %x: %v", c.name, got, b.drops())
		}
		if c.reason != counter.None {
			t.Run(c.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, c.reason) })
			b.t = t
		}
	}
}

// Nobody makes the gateway take off SA after SA.
func TestNestedSAsAreBounded(t *testing.T) {
	four := []tunnel{espHost, ahHost, espTunnel, ahGate}
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.bundle(four...)
	b.bundle(four...)
	more := espTunnel2
	b.pair(more)
	// A fifth around the four, by a gateway whose hosts are the gateways.
	c := newLone(t, 'a')
	out, _ := c.pair(more)
	id := c.addPolicy(spd.Policy{Dir: spd.Out, Sel: flow.Selector{
		Src: flow.AddrRange{Lo: out.Src, Hi: out.Src}, Dst: flow.AddrRange{Lo: out.Dst, Hi: out.Dst},
		SrcPort: flow.AnyPort, DstPort: flow.AnyPort}, Action: spd.Protect, Template: naming(&out.SA)})
	if err := c.db.Bind(id, out); err != nil {
		t.Fatal(err)
	}
	inner := a.outOf(innerFrame(false, true, 64, 100))
	copy(inner, mac(0xa0))
	wire := c.outOf(inner)
	if wire == nil {
		t.Fatalf("the fifth: %v", c.drops())
	}
	before := b.values()
	if got := b.into(wire); got != nil {
		t.Errorf("arrived as %x", got)
	}
	b.onlyDrop(before, counter.NestedSAs)
	if b.into(a.outOf(innerFrame(false, true, 64, 100))) == nil {
		t.Errorf("four are refused: %v", b.drops())
	}
}

// ESP for another host that comes out of a tunnel is a packet like any other.
func TestESPOfOthersInATunnel(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(espTunnel)
	b.protect(espTunnel)
	for _, proto := range []byte{50, 51} {
		f := fixSum4(change(udp4(hostA4, hostB4, 64, 100), 14+9, proto))
		got := b.into(a.outOf(f))
		if want := fixSum4(change(f, 14+8, 62)); got == nil || !bytes.Equal(got[14:], want[14:]) {
			t.Errorf("protocol %d arrived as %x: %v", proto, got, b.drops())
		}
	}
	// For the gateway itself, under no SA of its own: refused.
	f := fixSum4(change(udp4(hostA4, gwB4, 64, 100), 14+9, 50, 0, 0))
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: flow.Selector{Src: prefix(netA4), Dst: flow.AddrRange{Lo: addr(gwB4), Hi: addr(gwB4)},
		SrcPort: flow.AnyPort, DstPort: flow.AnyPort}, Action: spd.Protect, Template: a.policies[spd.Out][0].Template})
	if err := a.db.Bind(a.nextID, a.db.Bound(1)); err != nil {
		t.Fatal(err)
	}
	before := b.values()
	b.into(a.outOf(f))
	b.onlyDrop(before, counter.UnknownSPI)
}

// Selectors: a tunnel's are about what is in it, a transport SA's about the
// packet in the end.
func TestSelectorsInBundles(t *testing.T) {
	inside, outside := selector(netA4, netB4), selector(netB4, netA4)
	gates := flow.Selector{Src: flow.AddrRange{Lo: addr(gwA4), Hi: addr(gwA4)}, Dst: flow.AddrRange{Lo: addr(gwB4), Hi: addr(gwB4)},
		SrcPort: flow.AnyPort, DstPort: flow.AnyPort, Proto: 50}
	tcp := inside
	tcp.Proto = 6
	udp := inside
	udp.Proto = 17
	for _, c := range []struct {
		name   string
		sas    []tunnel
		sels   []flow.Selector // of each
		reason counter.Reason
	}{
		{"none", []tunnel{espHost, ahHost}, make([]flow.Selector, 2), counter.None},
		{"the packet in the end", []tunnel{espHost, ahHost}, []flow.Selector{udp, udp}, counter.None},
		{"not the inner one's", []tunnel{espHost, ahHost}, []flow.Selector{tcp, udp}, counter.SelectorMismatch},
		{"not the outer one's", []tunnel{espHost, ahHost}, []flow.Selector{udp, tcp}, counter.SelectorMismatch},
		{"the tunnel in the tunnel", []tunnel{espTunnel, espTunnel2}, []flow.Selector{inside, gates}, counter.None},
		{"not the tunnel in the tunnel", []tunnel{espTunnel, espTunnel2}, []flow.Selector{inside, inside}, counter.SelectorMismatch},
		{"not what is in both", []tunnel{espTunnel, espTunnel2}, []flow.Selector{outside, gates}, counter.SelectorMismatch},
	} {
		a, b := newLone(t, 'a'), newLone(t, 'b')
		a.bundle(c.sas...)
		_, ins := b.bundle(c.sas...)
		for i, sel := range c.sels {
			if sel != (flow.Selector{}) {
				ins[i].Selectors = []flow.Selector{sel}
			}
		}
		before := b.values()
		got := b.into(a.outOf(innerFrame(false, true, 64, 100)))
		if (got != nil) != (c.reason == counter.None) {
			t.Errorf("%s: arrived as %x: %v", c.name, got, b.drops())
		}
		if c.reason != counter.None {
			t.Run(c.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, c.reason) })
			b.t = t
		}
	}
}

// A bundle that has lost an SA carries nothing, and a burst in which one packet
// is refused half way carries the others.
func TestBundleThatLosesAnSA(t *testing.T) {
	a := newLone(t, 'a')
	outs, _ := a.bundle(espHost, ahHost)
	for range 3 {
		a.host.Inject(innerFrame(false, true, 64, 100))
		a.host.Inject(udp4(netip.MustParseAddr("10.1.0.11"), hostB4, 64, 100)) // not the SA's end
	}
	a.w.Turn()
	sent := a.wire.Take()
	if v := a.values(); len(sent) != 3 || v.Drops[counter.WrongSAMode] != 3 {
		t.Fatalf("%d left: %v", len(sent), a.drops())
	}
	for i, f := range sent {
		if seq := binary.BigEndian.Uint32(f[34+8:]); seq != uint32(i+1) {
			t.Errorf("packet %d has the outer number %d", i, seq)
		}
	}
	outs[1].Key.Zero()
	before := a.values()
	a.outOf(innerFrame(false, true, 64, 100))
	a.onlyDrop(before, counter.NoSA)
	if err := a.db.Remove(outs[1].SPI, outs[1].Dst, 51); err != nil {
		t.Fatal(err)
	}
	before = a.values()
	a.outOf(innerFrame(false, true, 64, 100))
	a.onlyDrop(before, counter.NoSA)
}

func TestZeroAllocationsInBundles(t *testing.T) {
	for _, c := range bundles {
		steady(t, c.name, func(g *gateway) { g.bundle(c.sas...) }, innerFrame(false, true, 64, 100), 20)
	}
}

// ESP that comes out of a tunnel as a fragment is refused (RFC 4303, section
// 3.4.1), although the ICV, which does not cover the IP header, may be right.
func TestFragmentOfESPInATunnel(t *testing.T) {
	outer := espTunnel
	outer.spi = 0x1700
	for _, fragment := range []bool{false, true} {
		a, b := newLone(t, 'a'), newLone(t, 'b')
		outs, _ := a.bundle(espTunnel, outer)
		b.bundle(espTunnel, outer)
		inner := forge(outs[0].Key, outs[0].SPI, 1, udp4(hostA4, hostB4, 64, 100)[14:], nil, 4)
		if fragment {
			inner = fixSum4(change(inner, 14+6, 0x20, 0))
		}
		before := b.values()
		got := b.into(forge(outs[1].Key, outs[1].SPI, 1, inner[14:], nil, 4))
		if got != nil == fragment {
			t.Errorf("fragment %t: %x: %v", fragment, got, b.drops())
		}
		if fragment {
			b.onlyDrop(before, counter.Fragment)
		}
	}
}
