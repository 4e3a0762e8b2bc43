package flow

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drawAddr draws an address of either family, at the edges of blocks and next
// to the other family's as often as not.
func drawAddr(t *rapid.T, name string) netip.Addr {
	if rapid.Bool().Draw(t, name+" is v4") {
		b := rapid.OneOf(
			rapid.Uint32(),
			rapid.SampledFrom([]uint32{0, 1, 0x0a000000, 0x0a0000ff, 0x7fffffff, 1 << 31, 0xffffffff}),
		).Draw(t, name)
		return netip.AddrFrom4([4]byte{byte(b >> 24), byte(b >> 16), byte(b >> 8), byte(b)})
	}
	word := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 0xfffe_ffff_ffff, 0x1_0000_0000_0000, 1 << 63, 1<<64 - 1}))
	var b [16]byte
	Addr{word.Draw(t, name+" high"), word.Draw(t, name+" low")}.Put16(b[:])
	return netip.AddrFrom16(b).Unmap()
}

func drawPrefix(t *rapid.T, name string) netip.Prefix {
	a := drawAddr(t, name)
	return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, name+" bits"))
}

// netip is the oracle of all that an Addr can do.
func TestAddrIsNetip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, m := drawAddr(t, "a"), drawAddr(t, "b")
		a, b := FromNetip(n), FromNetip(m)
		if a.Netip() != n || a.String() != n.String() {
			t.Fatalf("%v comes back as %v, %v", n, a.Netip(), a)
		}
		if a.Is4() != n.Is4() || a.IsZero() != (n == netip.IPv6Unspecified()) {
			t.Fatalf("%v: Is4 %v, IsZero %v", n, a.Is4(), a.IsZero())
		}
		if (a == b) != (n == m) || (a.Compare(b) == 0) != (n == m) || a.Compare(b) != -b.Compare(a) || a.Less(b) != (a.Compare(b) < 0) {
			t.Fatalf("%v and %v: Compare %d, Less %v", n, m, a.Compare(b), a.Less(b))
		}
		if n.Is4() == m.Is4() && a.Compare(b) != n.Compare(m) {
			t.Fatalf("%v and %v: Compare %d, want %d", n, m, a.Compare(b), n.Compare(m))
		}

		wire := n.AsSlice()
		back := make([]byte, len(wire))
		var from Addr
		if n.Is4() {
			from = From4(wire)
			a.Put4(back)
		} else {
			from = From16(wire)
			a.Put16(back)
		}
		if from != a || !slices.Equal(back, wire) {
			t.Fatalf("%v: read from bytes as %v, written as %x", n, from, back)
		}
	})
}

func TestAddrConversions(t *testing.T) {
	for _, r := range []struct {
		from netip.Addr
		want Addr
		text string
	}{
		{netip.Addr{}, Addr{}, "::"},
		{netip.MustParseAddr("0.0.0.0"), V4(0), "0.0.0.0"},
		{netip.MustParseAddr("192.0.2.1"), V4(0xc0000201), "192.0.2.1"},
		{netip.MustParseAddr("::ffff:192.0.2.1"), V4(0xc0000201), "192.0.2.1"},
		{netip.MustParseAddr("::192.0.2.1"), Addr{0, 0xc0000201}, "::c000:201"},
		{netip.MustParseAddr("fe80::1%eth0"), Addr{0xfe80 << 48, 1}, "fe80::1"},
	} {
		if got := FromNetip(r.from); got != r.want || got.String() != r.text {
			t.Errorf("FromNetip(%v) = %v %#v, want %s %#v", r.from, got, got, r.text, r.want)
		}
	}
}

// netip says which addresses a prefix has.
func TestRangeOfIsAPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPrefix(t, "prefix")
		r := RangeOf(p)
		if r.String() != p.Masked().String() {
			t.Fatalf("RangeOf(%v) is shown as %v", p, r)
		}
		inside := rapid.SampledFrom([]netip.Addr{p.Addr(), r.Lo.Netip(), r.Hi.Netip(), r.Lo.Netip().Prev(), r.Hi.Netip().Next()}).Draw(t, "edge")
		for _, a := range []netip.Addr{drawAddr(t, "any"), inside} {
			if a.IsValid() && r.Contains(FromNetip(a.Unmap())) != p.Contains(a.Unmap()) {
				t.Fatalf("%v contains %v: %v", r, a, r.Contains(FromNetip(a)))
			}
		}
	})
}

func TestRangeOfEdges(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, r := range []struct {
		p      netip.Prefix
		lo, hi string
	}{
		{prefix("0.0.0.0/0"), "0.0.0.0", "255.255.255.255"},
		{prefix("10.1.2.3/8"), "10.0.0.0", "10.255.255.255"},
		{prefix("10.1.2.3/32"), "10.1.2.3", "10.1.2.3"},
		{prefix("::/0"), "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{prefix("2001:db8::/32"), "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"},
		{prefix("2001:db8::/63"), "2001:db8::", "2001:db8:0:1:ffff:ffff:ffff:ffff"},
		{prefix("2001:db8::/64"), "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"},
		{prefix("2001:db8::/65"), "2001:db8::", "2001:db8::7fff:ffff:ffff:ffff"},
		{prefix("2001:db8::1/128"), "2001:db8::1", "2001:db8::1"},
		{prefix("::ffff:10.0.0.0/104"), "10.0.0.0", "10.255.255.255"},
		{prefix("::ffff:10.0.0.1/128"), "10.0.0.1", "10.0.0.1"},
	} {
		want := AddrRange{FromNetip(netip.MustParseAddr(r.lo)), FromNetip(netip.MustParseAddr(r.hi))}
		if got := RangeOf(r.p); got != want {
			t.Errorf("RangeOf(%v) = %v-%v, want %s-%s", r.p, got.Lo, got.Hi, r.lo, r.hi)
		}
	}
	// A prefix that failed to parse must not become a policy for all of IPv6.
	for _, p := range []netip.Prefix{{}, netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 33), netip.PrefixFrom(netip.IPv6Unspecified(), -1)} {
		r := RangeOf(p)
		for _, a := range []string{"::", "::1", "10.0.0.0", "2001:db8::", "0.0.0.0"} {
			if r.Contains(FromNetip(netip.MustParseAddr(a))) {
				t.Errorf("RangeOf(%v) contains %s", p, a)
			}
		}
		if !r.Hi.Less(r.Lo) {
			t.Errorf("RangeOf(%v) = %v does not look upside down", p, r)
		}
	}
}

func TestRangeThatIsNoPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lo, hi, n := drawAddr(t, "lo"), drawAddr(t, "hi"), drawAddr(t, "a")
		r := AddrRange{FromNetip(lo), FromNetip(hi)}
		if lo.Is4() != hi.Is4() {
			return // no range
		}
		want := n.Is4() == lo.Is4() && lo.Compare(n) <= 0 && n.Compare(hi) <= 0
		if r.Contains(FromNetip(n)) != want {
			t.Fatalf("%v contains %v: %v", r, n, !want)
		}
	})
	r := AddrRange{V4(0x0a000001), V4(0x0a000003)}
	if r.String() != "10.0.0.1-10.0.0.3" {
		t.Errorf("shown as %v", r)
	}
}

func TestMatches(t *testing.T) {
	net := func(s string) AddrRange { return RangeOf(netip.MustParsePrefix(s)) }
	at := func(s string) Addr { return FromNetip(netip.MustParseAddr(s)) }
	any4, any6 := net("0.0.0.0/0"), net("::/0")
	web := Selector{Src: net("10.1.0.0/16"), Dst: net("10.2.0.0/16"), SrcPort: AnyPort, DstPort: PortRange{80, 90}, Proto: 6}
	echo := Selector{Src: any4, Dst: any4, SrcPort: PortRange{8 << 8, 8<<8 | 0xff}, DstPort: AnyPort, Proto: 1}
	all4 := Selector{Src: any4, Dst: any4, SrcPort: AnyPort, DstPort: AnyPort}
	all6 := Selector{Src: any6, Dst: any6, SrcPort: AnyPort, DstPort: AnyPort}
	opaque, half, opaqueEcho := web, web, echo
	opaque.SrcPort, opaque.DstPort, half.DstPort, opaqueEcho.SrcPort = OpaquePort, OpaquePort, OpaquePort, OpaquePort
	tcp := Tuple{Src: at("10.1.2.3"), Dst: at("10.2.3.4"), SrcPort: 1234, DstPort: 80, Proto: 6}
	with := func(t Tuple, edit func(*Tuple)) Tuple { edit(&t); return t }
	rows := []struct {
		name string
		s    Selector
		t    Tuple
		want bool
	}{
		{"all fields", web, tcp, true},
		{"last port", web, with(tcp, func(t *Tuple) { t.DstPort = 90 }), true},
		{"behind the last port", web, with(tcp, func(t *Tuple) { t.DstPort = 91 }), false},
		{"before the first port", web, with(tcp, func(t *Tuple) { t.DstPort = 79 }), false},
		{"protocol", web, with(tcp, func(t *Tuple) { t.Proto = 17 }), false},
		{"source", web, with(tcp, func(t *Tuple) { t.Src = at("10.2.0.0") }), false},
		{"destination", web, with(tcp, func(t *Tuple) { t.Dst = at("10.1.255.255") }), false},
		{"a fragment has no ports", web, with(tcp, func(t *Tuple) { t.NoPorts = true }), false},
		{"a fragment and any port", all4, with(tcp, func(t *Tuple) { t.NoPorts = true }), true},
		{"a fragment and OPAQUE", opaque, with(tcp, func(t *Tuple) { t.SrcPort, t.DstPort, t.NoPorts = 0, 0, true }), true},
		{"a fragment, any port and OPAQUE", half, with(tcp, func(t *Tuple) { t.NoPorts = true }), true},
		{"a fragment of another protocol and OPAQUE", opaque, with(tcp, func(t *Tuple) { t.NoPorts, t.Proto = true, 17 }), false},
		{"ports and OPAQUE", opaque, tcp, false},
		{"the last port and OPAQUE", opaque, with(tcp, func(t *Tuple) { t.SrcPort, t.DstPort = 65535, 65535 }), false},
		{"no port and OPAQUE", half, with(tcp, func(t *Tuple) { t.SrcPort, t.DstPort = 0, 0 }), false},
		{"OPAQUE type and code", opaqueEcho, Tuple{Src: at("10.1.2.3"), Dst: at("10.2.3.4"), NoPorts: true, Proto: 1}, true},
		{"type and code, and OPAQUE", opaqueEcho, Tuple{Src: at("10.1.2.3"), Dst: at("10.2.3.4"), SrcPort: 8 << 8, Proto: 1}, false},
		{"any protocol", all4, tcp, true},
		{"IPv4 is not in ::/0", all6, tcp, false},
		{"IPv6 is not in 0.0.0.0/0", all4, Tuple{Src: at("2001:db8::1"), Dst: at("2001:db8::2"), Proto: 6}, false},
		{"IPv6", all6, Tuple{Src: at("2001:db8::1"), Dst: at("::1"), Proto: 6}, true},
		{"ICMP type 8", echo, Tuple{Src: at("10.1.2.3"), Dst: at("10.2.3.4"), SrcPort: 8 << 8, Proto: 1}, true},
		{"ICMP type 0", echo, Tuple{Src: at("10.1.2.3"), Dst: at("10.2.3.4"), SrcPort: 0, Proto: 1}, false},
	}
	for _, r := range rows {
		if got := r.s.Matches(&r.t); got != r.want {
			t.Errorf("%s: %v", r.name, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { web.Matches(&tcp) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A mirrored selector matches the packets that go the other way, and no other.
func TestMirrored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		port := rapid.Uint16Range(0, 3)
		ports := func(name string) PortRange {
			return rapid.OneOf(rapid.SampledFrom([]PortRange{AnyPort, OpaquePort}), rapid.Custom(func(t *rapid.T) PortRange {
				return PortRange{port.Draw(t, "low"), port.Draw(t, "high")}
			})).Draw(t, name)
		}
		side := func(name string) AddrRange {
			return RangeOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(port.Draw(t, name))}), 31))
		}
		addr := func(name string) Addr { return V4(0x0a000000 + uint32(port.Draw(t, name))) }
		proto := rapid.SampledFrom([]uint8{1, 6, 17, 58})
		s := Selector{Src: side("from"), Dst: side("to"), SrcPort: ports("source"), DstPort: ports("destination"),
			Proto: rapid.OneOf(rapid.Just(uint8(AnyProto)), proto).Draw(t, "selector's protocol")}
		there := Tuple{Src: addr("src"), Dst: addr("dst"), SrcPort: port.Draw(t, "sport"), DstPort: port.Draw(t, "dport"),
			Proto: proto.Draw(t, "protocol"), NoPorts: rapid.Bool().Draw(t, "no ports")}
		back := there
		back.Src, back.Dst = there.Dst, there.Src
		icmp := there.Proto == 1 || there.Proto == 58
		if icmp {
			there.DstPort, back.DstPort = 0, 0 // type and code, in both directions
			if s.Proto == AnyProto {           // which has ports, or is for all of them
				s.SrcPort, s.DstPort = AnyPort, AnyPort
			}
		} else {
			back.SrcPort, back.DstPort = there.DstPort, there.SrcPort
		}
		m := s.Mirrored()
		if s.Matches(&there) != m.Matches(&back) {
			t.Fatalf("%+v matches %v: %v; mirrored it matches %v: %v", s, there, s.Matches(&there), back, m.Matches(&back))
		}
		if m.Mirrored() != s {
			t.Fatalf("%+v mirrored twice is %+v", s, m.Mirrored())
		}
	})
}

// One selector covers another if every packet of that one is its own; here, of
// ports, where a cover is never larger than the two ends of a range.
func TestCovers(t *testing.T) {
	all := AddrRange{V4(0), V4(1<<32 - 1)}
	ranges := []PortRange{AnyPort, OpaquePort, {0, 0}, {5, 10}, {6, 9}, {0, 65534}, {1, 65535}, {65535, 65535}}
	tuples := []Tuple{{NoPorts: true}}
	for _, port := range []uint16{0, 1, 5, 6, 9, 10, 11, 65534, 65535} {
		tuples = append(tuples, Tuple{Src: V4(1), Dst: V4(2), Proto: 6, SrcPort: port, DstPort: port})
	}
	tuples[0].Src, tuples[0].Dst, tuples[0].Proto = V4(1), V4(2), 6
	for _, a := range ranges {
		for _, b := range ranges {
			s := Selector{Src: all, Dst: all, SrcPort: a, DstPort: AnyPort, Proto: 6}
			q := Selector{Src: all, Dst: all, SrcPort: b, DstPort: AnyPort, Proto: 6}
			want := true
			for i := range tuples {
				want = want && (s.Matches(&tuples[i]) || !q.Matches(&tuples[i]))
			}
			if got := s.Covers(&q); got != want {
				t.Errorf("%v covers %v: %t, want %t", a, b, got, want)
			}
			s, q = s.Mirrored(), q.Mirrored()
			if got := s.Covers(&q); got != want {
				t.Errorf("destination %v covers %v: %t, want %t", a, b, got, want)
			}
		}
	}
}

// A selector with both ends of its ports in order that no packet can match, or
// that RFC 4301, section 7.2, forbids, is found out.
func TestPortsFault(t *testing.T) {
	one, down := PortRange{1, 1}, PortRange{2, 1}
	for _, r := range []struct {
		src, dst PortRange
		proto    uint8
		fault    string // a part of it
	}{
		{AnyPort, AnyPort, AnyProto, ""},
		{one, PortRange{80, 90}, 6, ""},
		{OpaquePort, OpaquePort, 6, ""},
		{OpaquePort, AnyPort, 17, ""},
		{AnyPort, OpaquePort, 47, ""},
		{OpaquePort, AnyPort, 1, ""},
		{down, AnyPort, 6, "source port range 2-1 is upside down"},
		{AnyPort, down, 6, "destination port range 2-1 is upside down"},
		{PortRange{65535, 1}, AnyPort, 6, "upside down"},
		{one, OpaquePort, 6, "OPAQUE at one end and a number at the other"},
		{OpaquePort, one, 6, "OPAQUE at one end and a number at the other"},
		{OpaquePort, OpaquePort, AnyProto, "name the protocol"},
	} {
		s := Selector{SrcPort: r.src, DstPort: r.dst, Proto: r.proto}
		got := s.PortsFault()
		if (got == "") != (r.fault == "") || !strings.Contains(got, r.fault) {
			t.Errorf("%v to %v of protocol %d: %q, want %q", r.src, r.dst, r.proto, got, r.fault)
		}
	}
}

// ICMP's type and code are one value, the same in both directions.
func TestMirroredICMP(t *testing.T) {
	a, b := V4(0x0a000001), V4(0x0a000002)
	for proto, want := range map[uint8]bool{1: true, 58: true, 17: false} {
		s := Selector{Src: AddrRange{a, a}, Dst: AddrRange{b, b}, SrcPort: PortRange{8 << 8, 8<<8 | 255}, DstPort: AnyPort, Proto: proto}
		m := s.Mirrored()
		if back := (Tuple{Src: b, Dst: a, SrcPort: 8 << 8, Proto: proto}); m.Matches(&back) != want {
			t.Errorf("protocol %d: %+v matches %v: %v", proto, m, back, !want)
		}
	}
}

func TestTupleString(t *testing.T) {
	tuple := Tuple{Src: V4(0x0a000001), Dst: V4(0x0a000002), SrcPort: 1, DstPort: 2, Proto: 6}
	if got := tuple.String(); got != "proto 6 10.0.0.1[1] -> 10.0.0.2[2]" {
		t.Errorf("%s", got)
	}
	tuple.NoPorts = true
	if got := tuple.String(); got != "proto 6 10.0.0.1 -> 10.0.0.2" {
		t.Errorf("%s", got)
	}
}
