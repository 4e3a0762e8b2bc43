package pipeline_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// The groups of the test network: what hosts send to, and what carries it.
var (
	inner4, inner6 = netip.MustParseAddr("239.1.2.3"), netip.MustParseAddr("ff15::203")
	outer4, outer6 = netip.MustParseAddr("239.137.9.9"), netip.MustParseAddr("ff1e::9:9")
	groups4        = netip.MustParsePrefix("239.1.0.0/16")
	groups6        = netip.MustParsePrefix("ff15::/16")
)

// newGroupLone is a gateway that has routes to the groups: the inner ones are on
// gateway b's protected side, the outer ones on the wire.
func newGroupLone(t testing.TB, side byte) *lone {
	l := newLone(t, side)
	l.routeGroups(map[bool]int{true: 2, false: 1}[side == 'a'])
	return l
}

// routeGroups has the inner groups leave by one link, and the outer ones by the wire's.
func (l *lone) routeGroups(inner int) {
	l.groups = []fib.Route{
		{Dst: prefix(groups4), Link: inner}, {Dst: prefix(groups6), Link: inner},
		{Dst: prefix(one(outer4)), Link: 2}, {Dst: prefix(one(outer6)), Link: 2},
	}
	l.setMTU(1500)
}

// castFrame is a datagram to a group as its sender's link carries it.
func castFrame(src, group netip.Addr, ttl byte, size int) []byte {
	f := udp4
	if group.Is6() {
		f = udp6
	}
	frame := f(src, group, ttl, size)
	copy(frame, groupMAC(group))
	return frame
}

func groupMAC(group netip.Addr) []byte {
	a := addr(group)
	mac := fib.GroupMAC(&a)
	return mac[:]
}

// cast gives an SA from a gateway's address to dst.
func cast(tn tunnel, src, dst netip.Addr) *sad.Params {
	p := tn.params(true)
	p.Src, p.Dst = addr(src), addr(dst)
	return p
}

// send has l protect what is for the inner groups under an SA; receive has it
// take that.
func (l *lone) send(p *sad.Params) *sad.Outbound {
	l.t.Helper()
	out, err := sad.NewOutbound(p)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.db.AddOutbound(out); err != nil {
		l.t.Fatal(err)
	}
	for _, sel := range []flow.Selector{selector(netA4, groups4), selector(netA6, groups6)} {
		id := l.addPolicy(spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect, Template: naming(&out.SA)})
		if err := l.db.Bind(id, out); err != nil {
			l.t.Fatal(err)
		}
	}
	return out
}

func (l *lone) receive(p *sad.Params) *sad.Inbound {
	l.t.Helper()
	in, err := sad.NewInbound(p)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.db.AddInbound(in); err != nil {
		l.t.Fatal(err)
	}
	for _, sel := range []flow.Selector{selector(netA4, groups4), selector(netA6, groups6)} {
		from := naming(&in.SA)
		from.Src = flow.Addr{}
		l.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Protect, Template: from})
	}
	return in
}

var castSuites = []tunnel{
	{spi: 0x1000, enc: "aes-gcm-16", encLen: 20, window: 64},
	{spi: 0x1000, enc: "aes-cbc", encLen: 16, integ: "hmac-sha2-256-128", authLen: 32, window: 64, esn: true},
	{spi: 0x1000, ah: true, integ: "hmac-sha2-256-128", authLen: 32, window: 64},
}

// What host a sends to a group every receiver gets, by a tunnel to a group or to
// one peer, with a TTL two lower and the groups' Ethernet addresses; a copy of it
// none takes.
func TestGroupsCross(t *testing.T) {
	for _, tn := range castSuites {
		for _, outer := range []netip.Addr{outer4, outer6, gwB4, gwB6} {
			t.Run(fmt.Sprint(tn, " to ", outer), func(t *testing.T) {
				src := map[bool]netip.Addr{true: gwA4, false: gwA6}[outer.Is4()]
				a, receivers := newGroupLone(t, 'a'), []*lone{newGroupLone(t, 'b'), newGroupLone(t, 'b')}
				a.send(cast(tn, src, outer))
				for _, r := range receivers {
					r.receive(cast(tn, src, outer))
				}
				for size := 48; size < 1400; size += 211 {
					for host, group := range map[netip.Addr]netip.Addr{hostA4: inner4, hostA6: inner6} {
						wire := a.outOf(castFrame(host, group, 64, size))
						if wire == nil {
							t.Fatalf("%d bytes to %v did not leave: %v", size, group, a.drops())
						}
						if outer.IsMulticast() && !bytes.Equal(wire[:6], groupMAC(outer)) {
							t.Errorf("to %v by Ethernet %x", outer, wire[:6])
						}
						for _, r := range receivers {
							if !outer.IsMulticast() {
								wire = retarget(wire)
							}
							got := r.one(r.wire, r.host, wire)
							if want := castFrame(host, group, 62, size); got == nil || !bytes.Equal(got[:6], want[:6]) || !bytes.Equal(got[14:], want[14:]) {
								t.Fatalf("arrived\n%x\nwant\n%x\n%v", got, want, r.drops())
							}
							before := r.values()
							if r.one(r.wire, r.host, wire) != nil {
								t.Error("a copy was taken")
							}
							r.onlyDrop(before, counter.ReplaySeen)
						}
					}
				}
			})
		}
	}
}

// In transport mode ESP is for the group that the packet is for.
func TestGroupsCrossInTransportMode(t *testing.T) {
	for host, group := range map[netip.Addr]netip.Addr{hostA4: inner4, hostA6: inner6} {
		tn := tunnel{spi: 0x1000, enc: "aes-gcm-16", encLen: 20, window: 64, gate: true}
		a, b := newGroupLone(t, 'a'), newGroupLone(t, 'b')
		a.send(cast(tn, host, group))
		b.receive(cast(tn, host, group))
		wire := a.outOf(castFrame(host, group, 64, 300))
		if wire == nil || !bytes.Equal(wire[:6], groupMAC(group)) || bytes.Contains(wire, []byte("the quick")) {
			t.Fatalf("sealed: %x: %v", wire, a.drops())
		}
		got := b.one(b.wire, b.host, wire)
		if want := castFrame(host, group, 62, 300); got == nil || !bytes.Equal(got[14:], want[14:]) {
			t.Errorf("arrived\n%x\nwant\n%x\n%v", got, want, b.drops())
		}
	}
}

// Two senders have one SPI and one group, and each an SA of its own with its own
// numbers; a third comes by the SA that names none. Numbers of one say nothing
// of another's, and each sender's are taken once.
func TestSendersToAGroupHaveTheirSAs(t *testing.T) {
	b := newGroupLone(t, 'b')
	senders := []netip.Addr{gwA4, netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8")}
	var keys []*sad.Inbound
	for i, s := range senders {
		p := cast(aes128gcm, s, outer4)
		p.EncKey, p.Lookup = key(20, byte(60+i)), sad.BySrcDst
		if i == 2 {
			p.Src, p.Lookup = flow.Addr{}, sad.ByDst
		}
		keys = append(keys, b.receive(p))
	}
	for _, seq := range []uint32{1, 2, 40} {
		for i, s := range senders {
			frame := forge(keys[i].Key, aes128gcm.spi, seq, udp4(hostA4, inner4, 64, 100)[14:], nil, 4)
			copy(frame[26:], s.AsSlice())
			copy(frame[30:], outer4.AsSlice())
			copy(frame, groupMAC(outer4))
			fixSum4(frame)
			if b.one(b.wire, b.host, frame) == nil {
				t.Errorf("number %d of %v: %v", seq, s, b.drops())
			}
			before := b.values()
			if b.one(b.wire, b.host, frame) != nil {
				t.Errorf("number %d of %v was taken twice", seq, s)
			}
			b.onlyDrop(before, counter.ReplaySeen)
			copy(frame[26:], senders[(i+1)%3].AsSlice()) // under another's SA it is no packet
			before = b.values()
			if b.one(b.wire, b.host, fixSum4(frame)) != nil {
				t.Errorf("number %d of %v was taken for another's", seq, s)
			}
			if now := b.values(); now.Drops[counter.AuthFailed]+now.Drops[counter.ReplaySeen] != before.Drops[counter.AuthFailed]+before.Drops[counter.ReplaySeen]+1 {
				t.Errorf("number %d of %v: %v", seq, s, b.drops())
			}
		}
	}
}

// One SA that many senders share has no window: their numbers are not in one row.
func TestAnSAOfManySendersWithoutAWindow(t *testing.T) {
	tn := aes128gcm
	tn.window = 0
	b := newGroupLone(t, 'b')
	p := cast(tn, gwA4, outer4)
	p.Src = flow.Addr{}
	in := b.receive(p)
	for _, s := range []string{"192.0.2.1", "192.0.2.7", "203.0.113.5"} {
		for _, seq := range []uint32{1000, 1, 2} {
			frame := forge(in.Key, tn.spi, seq, udp4(hostA4, inner4, 64, 100)[14:], nil, 4)
			copy(frame[26:], netip.MustParseAddr(s).AsSlice())
			copy(frame[30:], outer4.AsSlice())
			copy(frame, groupMAC(outer4))
			if b.one(b.wire, b.host, fixSum4(frame)) == nil {
				t.Errorf("number %d of %s: %v", seq, s, b.drops())
			}
		}
	}
}

// Where packets to groups end.
func TestGroupsThatAreNotForwarded(t *testing.T) {
	near4, near6 := netip.MustParseAddr("224.0.0.251"), netip.MustParseAddr("ff12::fb")
	byMAC := func(frame []byte, mac []byte) []byte { copy(frame, mac); return frame }
	unrouted := netip.MustParseAddr("239.200.0.1")
	for _, row := range []struct {
		name   string
		bypass bool // the SPD lets all pass in clear; else it protects all, to gateway b
		inner  int  // link of the routes to the inner groups: 1 protected, 2 wire
		frame  []byte
		want   counter.Reason // None: it leaves
	}{
		{"in clear", true, 2, castFrame(hostA4, inner4, 64, 100), counter.None},
		{"IPv6 in clear", true, 2, castFrame(hostA6, inner6, 64, 100), counter.None},
		{"by the port's own address (RFC 6085)", true, 2, udp4(hostA4, inner4, 64, 100), counter.None},
		{"sealed", false, 1, castFrame(hostA4, inner4, 64, 100), counter.None},
		{"back to its link", true, 1, castFrame(hostA4, inner4, 64, 100), counter.GroupLoop},
		{"IPv6 back to its link", true, 1, castFrame(hostA6, inner6, 64, 100), counter.GroupLoop},
		{"from a source beyond the wire", true, 2, castFrame(hostB4, inner4, 64, 100), counter.GroupLoop},
		{"sealed, from a source beyond the wire", false, 1, castFrame(hostB4, inner4, 64, 100), counter.GroupLoop},
		{"sealed, from the gateway's own address", false, 1, castFrame(gwA4, inner4, 64, 100), counter.GroupLoop},
		{"from a source of no route", true, 2, castFrame(netip.MustParseAddr("203.0.113.9"), inner4, 64, 100), counter.GroupLoop},
		{"sealed, from a source of no route", false, 1, castFrame(netip.MustParseAddr("203.0.113.9"), inner4, 64, 100), counter.GroupLoop},
		{"no route", true, 2, castFrame(hostA4, unrouted, 64, 100), counter.NoRoute},
		{"sealed needs no route", false, 2, castFrame(hostA4, unrouted, 64, 100), counter.None},
		{"of a link", true, 2, castFrame(hostA4, near4, 64, 100), counter.GroupScope},
		{"of a link, sealed", false, 2, castFrame(hostA4, near4, 64, 100), counter.GroupScope},
		{"IPv6 of a link", true, 2, castFrame(hostA6, near6, 64, 100), counter.GroupScope},
		{"IPv6 of a link, sealed", false, 2, castFrame(hostA6, near6, 64, 100), counter.GroupScope},
		{"IPv6 of a host, sealed", false, 2, castFrame(hostA6, netip.MustParseAddr("ff01::1"), 64, 100), counter.GroupScope},
		{"from a group", true, 2, castFrame(outer4, inner4, 64, 100), counter.Martian},
		{"from a group, sealed", false, 2, castFrame(outer4, inner4, 64, 100), counter.Martian},
		{"IPv6 from a group, sealed", false, 2, castFrame(outer6, inner6, 64, 100), counter.Martian},
		{"from loopback, sealed", false, 2, castFrame(netip.MustParseAddr("127.0.0.1"), inner4, 64, 100), counter.Martian},
		{"TTL runs out", true, 2, castFrame(hostA4, inner4, 1, 100), counter.TTLExpired},
		{"TTL runs out, sealed", false, 2, castFrame(hostA6, inner6, 1, 100), counter.TTLExpired},
		{"too big", false, 2, castFrame(hostA4, inner4, 64, 1490), counter.TooBig},
		{"by another group's Ethernet address", true, 2, byMAC(castFrame(hostA4, inner4, 64, 100), groupMAC(unrouted)), counter.BadMAC},
		{"by the other family's Ethernet address", true, 2, byMAC(castFrame(hostA4, inner4, 64, 100), groupMAC(inner6)), counter.BadMAC},
		{"by all stations'", true, 2, byMAC(castFrame(hostA4, inner4, 64, 100), []byte{255, 255, 255, 255, 255, 255}), counter.BadMAC},
		{"a host's packet by a group's Ethernet address", true, 2, byMAC(udp4(hostA4, hostB4, 64, 100), groupMAC(inner4)), counter.BadMAC},
		{"a runt", true, 2, castFrame(hostA4, inner4, 64, 100)[:33], counter.BadMAC},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := newLone(t, 'a')
			a.routeGroups(row.inner)
			out, _ := a.pair(aes128gcm)
			for _, sel := range anyToAny() {
				p := spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect, Template: naming(&out.SA)}
				if row.bypass {
					p = spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Bypass}
				}
				id := a.addPolicy(p)
				if err := a.db.Bind(id, out); err != nil {
					t.Fatal(err)
				}
			}
			before := a.values()
			left := a.outOf(row.frame)
			if (left != nil) != (row.want == counter.None) {
				t.Errorf("left: %t: %v", left != nil, a.drops())
			}
			if row.want != counter.None {
				a.onlyDrop(before, row.want)
			}
			if a.host.Take() != nil {
				t.Error("it left by the port that it came by")
			}
			var p [1]fib.Punt
			if a.cfg.Punts.Pop(p[:]) != 0 && p[0].Kind != fib.PuntAudit {
				t.Errorf("the slow path was asked: %d", p[0].Kind)
			}
		})
	}
}

// Dummies go to a group as all packets of their SA do, and its receivers consume them.
func TestDummiesToAGroup(t *testing.T) {
	for src, outer := range map[netip.Addr]netip.Addr{gwA4: outer4, gwA6: outer6} {
		a, b := newGroupLone(t, 'a'), newGroupLone(t, 'b')
		p := cast(aes128gcm, src, outer)
		out := a.send(p)
		b.receive(p)
		policy := uint32(1)
		for a.cfg.Snapshots.IPsec.Load().SAD.Outbound(policy) != out {
			policy++
		}
		a.cfg.Injects.Push([]fib.Inject{{Dummy: policy, Len: 100}})
		a.w.Turn()
		got := a.wire.Take()
		if len(got) != 1 || !bytes.Equal(got[0][:6], groupMAC(outer)) {
			t.Errorf("to %v leaves %x: %v", outer, got, a.drops())
			continue
		}
		before := b.values()
		if into := b.one(b.wire, b.host, got[0]); into != nil {
			t.Errorf("to %v: arrives as %x", outer, into)
		}
		b.onlyDrop(before, counter.DummyPacket)
	}
}

// The sender of an IPv6 packet to a group hears that it is too big, as no sender
// hears anything else of its packets to groups (RFC 4443, section 2.4 (e.3)).
func TestPacketTooBigForAGroup(t *testing.T) {
	a := newGroupLone(t, 'a')
	out := a.send(cast(aes128gcm, gwA4, outer4))
	frame := castFrame(hostA6, inner6, 64, 1490)
	if a.outOf(frame) != nil {
		t.Error("it left")
	}
	var p [1]fib.Punt
	if a.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntTooBig || int(p[0].MTU) != out.Geo.MaxInner(1500) {
		t.Errorf("punt %d, MTU %d", p[0].Kind, p[0].MTU)
	}
}

// What comes out of a tunnel is held to the same: it neither turns back to a
// group on the wire nor crosses a link.
func TestGroupsOutOfATunnel(t *testing.T) {
	for _, row := range []struct {
		name  string
		inner int // link of the routes to the inner groups
		frame []byte
		want  counter.Reason
	}{
		{"to the protected side", 1, udp4(hostA4, inner4, 64, 100), counter.None},
		{"back to the wire", 2, udp4(hostA4, inner4, 64, 100), counter.GroupLoop},
		{"of a link", 1, udp4(hostA4, netip.MustParseAddr("224.0.0.5"), 64, 100), counter.GroupScope},
		{"IPv6 of a link", 1, udp6(hostA6, netip.MustParseAddr("ff02::5"), 64, 100), counter.GroupScope},
		{"no route", 1, udp4(hostA4, netip.MustParseAddr("239.200.0.1"), 64, 100), counter.NoRoute},
		{"from a source of no route", 1, udp4(netip.MustParseAddr("203.0.113.9"), inner4, 64, 100), counter.None},
		{"from this gateway's own net", 1, udp4(hostB4, inner4, 64, 100), counter.GroupLoop},
		{"from a group", 1, udp4(outer4, inner4, 64, 100), counter.Martian},
		{"TTL runs out", 1, udp4(hostA4, inner4, 1, 100), counter.TTLExpired},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newLone(t, 'b')
			b.routeGroups(row.inner)
			in := b.receive(cast(aes128gcm, gwA4, outer4))
			for _, sel := range anyToAny() {
				b.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Protect, Template: naming(&in.SA)})
				b.addPolicy(spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Bypass})
			}
			version := byte(4)
			if row.frame[12] != 8 {
				version = 41
			}
			frame := forge(in.Key, aes128gcm.spi, 1, row.frame[14:], nil, version)
			copy(frame[26:], gwA4.AsSlice())
			copy(frame[30:], outer4.AsSlice())
			copy(frame, groupMAC(outer4))
			before := b.values()
			got := b.one(b.wire, b.host, fixSum4(frame))
			if (got != nil) != (row.want == counter.None) || b.wire.Take() != nil {
				t.Errorf("arrived: %t: %v", got != nil, b.drops())
			}
			if row.want != counter.None {
				b.onlyDrop(before, row.want)
			}
			var p [1]fib.Punt
			if b.cfg.Punts.Pop(p[:]) != 0 && p[0].Kind != fib.PuntAudit {
				t.Errorf("the slow path was asked: %d", p[0].Kind)
			}
		})
	}
}

// IPsec to a group under no SA is no clear packet, whatever lets those pass, and
// a clear one that a policy protects is none of the group's.
func TestStrangersToAGroup(t *testing.T) {
	b := newGroupLone(t, 'b')
	in := b.receive(cast(aes128gcm, gwA4, outer4))
	for _, sel := range anyToAny() {
		b.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Bypass})
	}
	esp := func(spi, seq uint32, edit func(frame []byte)) []byte {
		frame := forge(in.Key, spi, seq, udp4(hostA4, inner4, 64, 100)[14:], nil, 4)
		copy(frame[26:], gwA4.AsSlice())
		copy(frame[30:], outer4.AsSlice())
		copy(frame, groupMAC(outer4))
		if edit != nil {
			edit(frame)
		}
		return fixSum4(frame)
	}
	for _, row := range []struct {
		name  string
		frame []byte
		want  counter.Reason
	}{
		{"the SA's", esp(aes128gcm.spi, 1, nil), counter.None},
		{"another SPI", esp(0x7777, 1, nil), counter.UnknownSPI},
		{"AH", esp(aes128gcm.spi, 2, func(f []byte) { f[14+9] = 51; copy(f[34:], []byte{4, 4, 0, 0, 0, 0, 16, 0}) }), counter.UnknownSPI},
		{"another group", esp(aes128gcm.spi, 3, func(f []byte) { f[14+19]++; f[5]++ }), counter.UnknownSPI},
		{"a bad ICV", esp(aes128gcm.spi, 4, func(f []byte) { f[len(f)-1] ^= 1 }), counter.AuthFailed},
		{"in clear, protected", castFrame(hostA4, inner4, 64, 100), counter.InPolicyClear},
	} {
		before := b.values()
		got := b.one(b.wire, b.host, row.frame)
		if (got != nil) != (row.want == counter.None) {
			t.Errorf("%s: %t: %v", row.name, got != nil, b.drops())
		}
		if row.want != counter.None {
			b.onlyDrop(before, row.want)
		}
	}
}

// ESP to a group that was fragmented on its way is put together and opened.
func TestFragmentsToAGroup(t *testing.T) {
	for _, outer := range []netip.Addr{outer4, outer6} {
		src := map[bool]netip.Addr{true: gwA4, false: gwA6}[outer.Is4()]
		a, b := newGroupLone(t, 'a'), newGroupLone(t, 'b')
		a.send(cast(aes128gcm, src, outer))
		b.receive(cast(aes128gcm, src, outer))
		a.setMTU(1280)
		frame := castFrame(hostA4, inner4, 64, 1400)
		frame[14+6] = 0 // may be fragmented
		if !a.host.Inject(fixSum4(frame)) {
			t.Fatal("tap is full")
		}
		a.w.Turn()
		fragments := a.wire.Take()
		if len(fragments) < 2 {
			t.Fatalf("%d fragments: %v", len(fragments), a.drops())
		}
		var got [][]byte
		for _, f := range fragments {
			if !bytes.Equal(f[:6], groupMAC(outer)) {
				t.Errorf("a fragment by Ethernet %x", f[:6])
			}
			if !b.wire.Inject(f) {
				t.Fatal("tap is full")
			}
			b.w.Turn()
			got = append(got, b.host.Take()...)
		}
		if len(got) != 1 || len(got[0]) != 14+1400 {
			t.Errorf("%d packets arrived: %v", len(got), b.drops())
		}
	}
}

func TestGroupsAllocateNothing(t *testing.T) {
	a, b := newGroupLone(t, 'a'), newGroupLone(t, 'b')
	tn := aes128gcm
	tn.window = 0 // one packet again and again
	a.send(cast(tn, gwA4, outer4))
	b.receive(cast(tn, gwA4, outer4))
	frame := castFrame(hostA4, inner4, 64, 100)
	sealed := a.outOf(frame)
	if sealed == nil || b.one(b.wire, b.host, sealed) == nil {
		t.Fatalf("%v, %v", a.drops(), b.drops())
	}
	for name, n := range map[string]float64{
		"out": testing.AllocsPerRun(50, func() { a.host.Inject(frame); a.w.Turn() }),
		"in":  testing.AllocsPerRun(50, func() { b.wire.Inject(sealed); b.w.Turn() }),
	} {
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
