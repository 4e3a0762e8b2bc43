package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/pmd/memport"
	"spigot/sad"
	"spigot/spd"
)

// hosts is a transport SA pair between the two hosts: their gateways seal for
// them, as a bump in the wire does.
var hosts = tunnel{spi: 0x1000, enc: "aes-gcm-16", encLen: 20, window: 64, host: true}

// The headers of RFC 4303, section 3.1.1, that ESP has to follow. Each is what
// stands between a packet's fixed header and its UDP datagram.
var headers = []struct {
	name string
	v6   bool
	kind byte // of the first; IPv4: 17
	ext  []byte
}{
	{"IPv4", false, 17, nil},
	{"IPv4, router alert and record route", false, 17, []byte{148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0}},
	{"IPv6", true, 17, nil},
	{"hop-by-hop", true, 0, []byte{17, 0, 5, 2, 0, 0, 1, 0}},
	{"hop-by-hop, destination options", true, 0, []byte{60, 0, 1, 4, 0, 0, 0, 0, 17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
	{"atomic fragment", true, 44, []byte{17, 0, 0, 0, 1, 2, 3, 4}},
}

// withExtension returns the UDP frame f, of host a or b, with headers of h.
func withExtension(f []byte, kind byte, ext []byte) []byte {
	at := 14 + 20
	if f[12] == 0x86 {
		at = 14 + 40
	}
	g := append(append(bytes.Clone(f[:at]), ext...), f[at:]...)
	if f[12] == 0x86 {
		g[14+6] = kind
		binary.BigEndian.PutUint16(g[14+4:], uint16(len(g)-14-40))
		return g
	}
	g[14] += byte(len(ext) / 4)
	binary.BigEndian.PutUint16(g[14+2:], uint16(len(g)-14))
	return fixSum4(g)
}

// Every algorithm, both families, every header: what one host sends is what the
// other gets, and on the wire ESP stands behind the headers, of which nothing
// has changed but length, protocol and TTL.
func TestPacketsCrossInTransportMode(t *testing.T) {
	for _, tn := range suites {
		tn.host = true
		for _, h := range headers {
			tn.outer6 = h.v6
			t.Run(tn.String()+"/"+h.name, func(t *testing.T) {
				a, b := newLone(t, 'a'), newLone(t, 'b')
				a.protect(tn)
				b.protect(tn)
				for size := 48; size < 1300; size += 97 {
					frame := func(ttl byte) []byte {
						f := udp4(hostA4, hostB4, ttl, size)
						f[15] = 0xb9
						if h.v6 {
							f = udp6(hostA6, hostB6, ttl, size)
							f[14], f[15] = 0x6b, 0x95
						}
						return withExtension(f, h.kind, h.ext)
					}
					wire := a.outOf(frame(64))
					if wire == nil {
						t.Fatalf("%d bytes did not leave: %v", size, a.drops())
					}
					checkTransport(t, wire, frame(63), tn, len(h.ext))
					if got := b.into(wire); got == nil || !bytes.Equal(got[14:], frame(62)[14:]) {
						t.Fatalf("arrived\n%x\nwant\n%x\n%v", got, frame(62), b.drops())
					}
				}
			})
		}
	}
}

// checkTransport fails unless wire has the IP header of plain, and ESP behind
// it and ext bytes more.
func checkTransport(t *testing.T, wire, plain []byte, tn tunnel, ext int) {
	t.Helper()
	if !tn.udp {
		if spi := binary.BigEndian.Uint32(behindHeaders(t, wire, plain, 50, ext)); spi != tn.spi {
			t.Fatalf("SPI %#x behind the headers", spi)
		}
		return
	}
	udp := behindHeaders(t, wire, plain, 17, ext)
	if binary.BigEndian.Uint16(udp[2:]) != 4500 || int(binary.BigEndian.Uint16(udp[4:])) != len(udp) ||
		binary.BigEndian.Uint32(udp[8:]) != tn.spi {
		t.Fatalf("UDP header and SPI %x", udp[:12])
	}
}

// behindHeaders fails unless wire has the IP header of plain and ext bytes more,
// with proto for UDP and a length of its own, and returns the rest.
func behindHeaders(t *testing.T, wire, plain []byte, proto byte, ext int) []byte {
	t.Helper()
	end := 14 + 20 + ext
	want := bytes.Clone(plain)
	if plain[14]>>4 == 6 {
		end = 14 + 40 + ext
		binary.BigEndian.PutUint16(want[14+4:], uint16(len(wire)-14-40))
		at := 14 + 6 // walk to the field that says UDP
		for next := 14 + 40; next < end; {
			kind := want[at]
			at = next
			if next += 8; kind != 44 {
				next += 8 * int(want[at+1])
			}
		}
		want[at] = proto
	} else {
		binary.BigEndian.PutUint16(want[14+2:], uint16(len(wire)-14))
		want[14+9] = proto
		fixSum4(want)
	}
	if !bytes.Equal(wire[14:end], want[14:end]) {
		t.Fatalf("on the wire\n%x\nwant\n%x", wire[14:end], want[14:end])
	}
	return wire[end:]
}

// The largest packet that fits leaves; one byte more is answered with that size.
func TestTransportMTU(t *testing.T) {
	for _, tn := range suites {
		tn.host = true
		for _, h := range headers {
			tn.outer6 = h.v6
			a := newLone(t, 'a')
			a.protect(tn)
			send := func(size int) []byte {
				f := udp4(hostA4, hostB4, 64, size-len(h.ext))
				if h.v6 {
					f = udp6(hostA6, hostB6, 64, size-len(h.ext))
				}
				return a.outOf(withExtension(f, h.kind, h.ext))
			}
			for _, mtu := range []int{1500, 1499, 1491, 1400} {
				a.setMTU(mtu)
				send(1500)
				var p [1]fib.Punt
				if a.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntTooBig {
					t.Fatalf("%v, %s: 1500 bytes at MTU %d were not answered: %v", tn, h.name, mtu, a.drops())
				}
				fits := int(p[0].MTU)
				if wire := send(fits); wire == nil || len(wire)-14 > mtu || len(wire)-14 < mtu-16 {
					t.Fatalf("%v, %s: %d bytes should just fit MTU %d: %d", tn, h.name, fits, mtu, len(wire)-14)
				}
				if send(fits+1) != nil || a.cfg.Punts.Pop(p[:]) != 1 || int(p[0].MTU) != fits {
					t.Fatalf("%v, %s: %d bytes at MTU %d: told %d", tn, h.name, fits+1, mtu, p[0].MTU)
				}
			}
		}
	}
}

// An SA in transport mode carries whole datagrams between its own two ends.
func TestTransportIsForItsEnds(t *testing.T) {
	a := newLone(t, 'a')
	a.protect(hosts)
	other := netip.MustParseAddr("10.1.0.11")
	for _, row := range []struct {
		name   string
		frame  []byte
		reason counter.Reason
	}{
		{"from another host", udp4(other, hostB4, 64, 100), counter.WrongSAMode},
		{"to another host", udp4(hostA4, netip.MustParseAddr("10.2.0.11"), 64, 100), counter.WrongSAMode},
		{"the first fragment", fixSum4(change(udp4(hostA4, hostB4, 64, 100), 20, 0x20, 0)), counter.Fragment},
		{"the last fragment", fixSum4(change(udp4(hostA4, hostB4, 64, 100), 20, 0, 9)), counter.Fragment},
	} {
		before := a.values()
		if got := a.outOf(row.frame); got != nil {
			t.Errorf("%s: left as %x", row.name, got)
		}
		t.Run(row.name, func(t *testing.T) { a.t = t; a.onlyDrop(before, row.reason) })
	}
	a.t = t
}

// What a peer with a valid key may send in transport mode and must not get through.
func TestAuthenticButWrongInTransport(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(hosts)
	tn := hosts
	tn.selector = true
	b.protect(tn)
	udp := udp4(hostA4, hostB4, 64, 98)[34:]
	seal := func(payload []byte, next byte) []byte {
		f := forge(out.Key, out.SPI, mustReserve(t, out), payload, nil, next)
		copy(f[26:], hostA4.AsSlice())
		copy(f[30:], hostB4.AsSlice())
		return fixSum4(f)
	}
	for _, row := range []struct {
		name   string
		frame  []byte
		reason counter.Reason
	}{
		{"dummy", seal(udp, 59), counter.DummyPacket},
		{"half a UDP header", seal(udp[:2], 17), counter.BadInner},
		{"nothing", seal(nil, 6), counter.BadInner},
		{"from outside the selectors", fixSum4(change(seal(udp, 17), 26, 10, 66, 0, 1)), counter.SelectorMismatch},
	} {
		before := b.values()
		if got := b.into(row.frame); got != nil {
			t.Errorf("%s: delivered as %x", row.name, got)
		}
		t.Run(row.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, row.reason) })
	}
	b.t = t
	if got := b.into(seal(udp, 17)); got == nil {
		t.Errorf("a good one is refused: %v", b.drops())
	}
	// IP in IP is a payload like any other; the policy sees the outer addresses.
	if got := b.into(seal(udp4(hostB4, hostA4, 64, 98)[14:], 4)); got == nil || got[14+9] != 4 {
		t.Errorf("IP in IP arrived as %x: %v", got, b.drops())
	}
}

// IPv6 may not hide a fragment or a second hop-by-hop header in ESP.
func TestIPv6HeadersInsideTransport(t *testing.T) {
	tn := hosts
	tn.outer6 = true
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(tn)
	b.protect(tn)
	udp := udp6(hostA6, hostB6, 64, 98)[54:]
	for _, row := range []struct {
		name   string
		kind   byte
		ext    []byte
		reason counter.Reason // of the drop; None: it arrives
	}{
		{"destination options", 60, []byte{17, 0, 1, 4, 0, 0, 0, 0}, counter.None},
		{"a fragment", 44, []byte{17, 0, 0, 1, 1, 2, 3, 4}, counter.BadInner},
		{"hop-by-hop behind destination options", 60, []byte{0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0}, counter.BadInner},
		{"routing header", 43, []byte{17, 0, 0, 1, 0, 0, 0, 0}, counter.BadInner},
	} {
		esp := forge(out.Key, out.SPI, mustReserve(t, out), append(bytes.Clone(row.ext), udp...), nil, row.kind)[34:]
		f := udp6(hostA6, hostB6, 64, 40+len(esp))
		f[14+6] = 50
		copy(f[54:], esp)
		before := b.values()
		got := b.into(f)
		if row.reason != counter.None {
			t.Run(row.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, row.reason) })
			continue
		}
		if want := withExtension(udp6(hostA6, hostB6, 63, 98), row.kind, row.ext); got == nil || !bytes.Equal(got[14:], want[14:]) {
			t.Errorf("%s: arrived as %x, want %x", row.name, got, want)
		}
	}
	b.t = t
}

// What a transport SA brings to an address of the gateway is the host's, as what
// comes in clear for it; what the host sends leaves under the SA.
func TestTransportOfTheGatewayItself(t *testing.T) {
	for _, p := range []struct{ from, to netip.Addr }{{gwA4, gwB4}, {gwA6, gwB6}} {
		a, b := newLone(t, 'a'), newLone(t, 'b')
		q := hosts.params(true)
		q.Src, q.Dst = addr(p.from), addr(p.to)
		out, err := sad.NewOutbound(q)
		if err != nil {
			t.Fatal(err)
		}
		in, err := sad.NewInbound(q)
		if err != nil {
			t.Fatal(err)
		}
		sel := flow.Selector{Src: flow.AddrRange{Lo: out.Src, Hi: out.Src}, Dst: flow.AddrRange{Lo: out.Dst, Hi: out.Dst},
			SrcPort: flow.AnyPort, DstPort: flow.AnyPort}
		if err := a.db.AddOutbound(out); err != nil {
			t.Fatal(err)
		}
		if err := b.db.AddInbound(in); err != nil {
			t.Fatal(err)
		}
		id := a.addPolicy(spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect, Template: naming(&out.SA)})
		if err := a.db.Bind(id, out); err != nil {
			t.Fatal(err)
		}
		b.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Protect, Template: naming(&in.SA)})

		ip := udp4(p.from, p.to, 64, 100)[14:]
		if p.to.Is6() {
			ip = udp6(p.from, p.to, 64, 100)[14:]
		}
		m := []fib.Inject{{Policy: true, Len: uint16(len(ip))}}
		copy(m[0].Data[:], ip)
		a.cfg.Injects.Push(m)
		a.w.Turn()
		sent := a.wire.Take()
		if len(sent) != 1 || bytes.Contains(sent[0], []byte("the quick")) {
			t.Fatalf("%v: sent %x: %v", p.from, sent, a.drops())
		}
		before := b.values()
		b.into(sent[0])
		b.onlyDrop(before, counter.HostLocal)
		if n, _ := in.Used(); n != 1 {
			t.Errorf("%v: %d packets came by the SA", p.to, n)
		}
	}
}

// Ports are hidden by ESP and selectors behind it: the policy sees those of the
// packet that came out.
func TestPortsAreSelectorsInTransport(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(hosts)
	_, in := b.protect(hosts)
	b.policies[spd.In] = nil
	sel := selector(netA4, netB4)
	sel.Proto, sel.DstPort = 17, flow.PortRange{Lo: 2000, Hi: 2000}
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Protect, Template: naming(&in.SA)})
	if b.into(a.outOf(udp4(hostA4, hostB4, 64, 100))) == nil {
		t.Errorf("port 2000: %v", b.drops())
	}
	before := b.values()
	if got := b.into(a.outOf(change(udp4(hostA4, hostB4, 64, 100), 36, 0x07, 0xd1))); got != nil {
		t.Errorf("port 2001 arrived as %x", got)
	}
	b.onlyDrop(before, counter.NoPolicy)
	// The same SA does not serve a policy that wants a tunnel.
	b.policies[spd.In] = nil
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Protect, Template: templateOf(in.Src, in.Dst)})
	before = b.values()
	b.into(a.outOf(udp4(hostA4, hostB4, 64, 100)))
	b.onlyDrop(before, counter.InPolicyMismatch)
}

// A NAT rewrites the source on the way; the TCP and UDP checksums inside, which
// cover the address, are right again when they come out (RFC 3948, 3.1.2).
func TestTransportThroughANAT(t *testing.T) {
	tn := hosts
	tn.udp = true
	for _, proto := range []byte{6, 17} {
		for _, tn.outer6 = range []bool{false, true} {
			a, b := newLone(t, 'a'), newLone(t, 'b')
			a.protect(tn)
			b.protect(tn)
			outside, ip, src, sumAt := netip.MustParseAddr("10.1.7.7"), 20, 26, map[byte]int{6: 16, 17: 6}[proto]
			f := udp4(hostA4, hostB4, 64, 100)
			if tn.outer6 {
				outside, ip, src = netip.MustParseAddr("fd00:1::77"), 40, 22
				f = udp6(hostA6, hostB6, 64, 100)
			}
			f[14+map[int]int{20: 9, 40: 6}[ip]] = proto
			upper := f[14+ip:]
			upper[sumAt], upper[sumAt+1] = 0, 0
			binary.BigEndian.PutUint16(upper[sumAt:], ^upperSum(f, ip, proto))
			if ip == 20 {
				fixSum4(f)
			}
			wire := a.outOf(f)
			if wire == nil {
				t.Fatalf("did not leave: %v", a.drops())
			}
			copy(wire[src:], outside.AsSlice())
			if ip == 20 {
				fixSum4(wire)
			}
			got := b.into(wire)
			if got == nil {
				t.Fatalf("proto %d: did not arrive: %v", proto, b.drops())
			}
			if s := upperSum(got, ip, proto); s != 0xffff {
				t.Errorf("proto %d over a header of %d: the checksum sums up to %#x", proto, ip, s)
			}
			if !bytes.Equal(got[src:src+len(outside.AsSlice())], outside.AsSlice()) {
				t.Errorf("the source is %x", got[src:src+4])
			}
		}
	}
}

// upperSum is the sum over the pseudo header and the payload of f, whose IP
// header has that length.
func upperSum(f []byte, ip int, proto byte) uint16 {
	upper := f[14+ip:]
	pseudo := append([]byte{}, f[26:34]...)
	if ip == 40 {
		pseudo = append([]byte{}, f[22:54]...)
	}
	pseudo = append(pseudo, 0, proto, byte(len(upper)>>8), byte(len(upper)))
	return sum(append(pseudo, upper...))
}

func TestZeroAllocationsInTransportMode(t *testing.T) {
	for _, tn := range suites {
		tn.host = true
		for _, tn.outer6 = range []bool{false, true} {
			frame := udp4(hostA4, hostB4, 64, 100)
			if tn.outer6 {
				frame = udp6(hostA6, hostB6, 64, 100)
			}
			steady(t, tn.String(), func(g *gateway) { g.protect(tn) }, frame, 100)
		}
	}
}

// steady fails if gateway a, that seals frame, or gateway b, that opens what
// comes of it, allocates or drops in some turns; key gives each its SAs.
func steady(t *testing.T, name string, key func(*gateway), frame []byte, turns int) {
	t.Helper()
	a := newLone(t, 'a')
	key(a.gateway)
	var sealed [][]byte
	for range (turns + 4) * a.cfg.Burst {
		f := a.outOf(frame)
		if f == nil {
			t.Fatalf("%s: %v", name, a.drops())
		}
		sealed = append(sealed, retarget(f))
	}
	for side, templates := range map[byte][2][][]byte{'a': {{frame}, nil}, 'b': {nil, sealed}} {
		pool := newPool(t, 512)
		var q queues
		for i := range q {
			var err error
			q[i], err = memport.NewGenerator(memport.GeneratorOptions{
				Options: memport.Options{Pool: pool, MAC: mac(0xa0 + byte(i))}, Templates: templates[i]})
			if err != nil {
				t.Fatal(err)
			}
		}
		g := newGateway(t, side, pool, q)
		key(g)
		g.w.Turn()
		if n := testing.AllocsPerRun(turns, func() { g.w.Turn() }); n != 0 {
			t.Errorf("%s: %v allocations a turn on side %c", name, n, side)
		}
		if v := g.values(); v.Tx < uint64(turns*g.cfg.Burst) || v.Dropped() != 0 {
			t.Errorf("%s: side %c: tx %d, drops %v", name, side, v.Tx, g.drops())
		}
		g.home()
	}
}

// In transport mode the source is one end of the SA, which ESP's ICV does not
// cover: nobody on the path can make the packet another host's. Behind a NAT it is
// not, and one end may be open.
func TestTransportIsFromTheSAsEnd(t *testing.T) {
	other := netip.MustParseAddr("10.1.0.99").As4()
	natted := espHost
	natted.udp = true
	for _, row := range []struct {
		name   string
		tn     tunnel
		open   bool // the SA does not say who sends
		passes bool
	}{
		{"ESP", espHost, false, false},
		{"behind a NAT", natted, false, true},
		{"from anybody", espHost, true, true},
	} {
		a, b := newLone(t, 'a'), newLone(t, 'b')
		a.protect(row.tn)
		p := row.tn.params(true)
		if row.open {
			p.Src = flow.Addr{}
		}
		in, err := sad.NewInbound(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.db.AddInbound(in); err != nil {
			t.Fatal(err)
		}
		b.addPolicy(spd.Policy{Dir: spd.In, Sel: selector(netA4, netB4), Action: spd.Protect, Template: naming(&in.SA)})
		seal := func() []byte { return a.outOf(udp4(hostA4, hostB4, 64, 100)) }
		if b.into(seal()) == nil {
			t.Errorf("%s, from the SA's end: %v", row.name, b.drops())
		}
		moved := fixSum4(change(seal(), 26, other[:]...))
		if !row.passes {
			b.drop(row.name, b.into, moved, counter.SelectorMismatch)
		} else if b.into(moved) == nil {
			t.Errorf("%s, from another: %v", row.name, b.drops())
		}
	}
}
