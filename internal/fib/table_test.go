package fib

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"spigot/internal/flow"
)

func addr(s string) flow.Addr { return flow.FromNetip(netip.MustParseAddr(s)) }

func prefix(s string) flow.AddrRange { return flow.RangeOf(netip.MustParsePrefix(s)) }

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

// office is a gateway with a LAN on port 0 and a provider on port 1. Link 9 is
// an interface of the host that is no port.
func office() *Config {
	return &Config{
		Links: []Link{{Index: 2, Port: 0, MAC: mac(0xa0), MTU: 1500}, {Index: 3, Port: 1, MAC: mac(0xa1), MTU: 9000}},
		Routes: []Route{
			{Dst: prefix("10.1.0.0/24"), Link: 2},
			{Dst: prefix("192.0.2.0/24"), Link: 3, MTU: 1400},
			{Dst: prefix("0.0.0.0/0"), Gateway: addr("192.0.2.1"), Link: 3, Metric: 100},
			{Dst: prefix("0.0.0.0/0"), Gateway: addr("10.1.0.254"), Link: 2, Metric: 200},
			{Dst: prefix("10.2.0.0/16"), Gateway: addr("10.1.0.2"), Link: 2},
			{Dst: prefix("10.2.9.0/24"), Link: 2, Reject: true},
			{Dst: prefix("10.3.0.0/16"), Link: 9},
			{Dst: prefix("10.1.0.99/32"), Gateway: addr("192.0.2.1"), Link: 3},
			{Dst: prefix("224.0.0.0/24"), Link: 2},
			{Dst: prefix("224.0.0.5/32"), Link: 2},
			{Dst: prefix("239.1.1.1/32"), Link: 2},
			{Dst: prefix("239.2.0.0/16"), Gateway: addr("192.0.2.1"), Link: 3, MTU: 1280},
			{Dst: prefix("239.2.9.0/24"), Link: 2, Reject: true},
			{Dst: prefix("239.3.0.0/16"), Link: 9},
			{Dst: prefix("ff10::/12"), Link: 2},
			{Dst: prefix("ff02::/16"), Link: 2},
			{Dst: prefix("2001:db8:1::/64"), Link: 2},
			{Dst: prefix("::/0"), Gateway: addr("fe80::1"), Link: 3},
			{Dst: prefix("fe80::/64"), Link: 3},
			{Dst: prefix("203.0.113.0/24"), Gateway: addr("fe80::1"), Link: 3, MTU: 65536},
		},
		Neighbours: []Neighbour{
			{Addr: addr("10.1.0.5"), Link: 2, MAC: mac(5)},
			{Addr: addr("10.1.0.99"), Link: 2, MAC: mac(99)}, // a host route leads elsewhere
			{Addr: addr("10.1.0.6"), Link: 3, MAC: mac(6)},   // not on that link by the routes
			{Addr: addr("10.1.0.7"), Link: 2},                // no MAC
			{Addr: addr("10.3.0.5"), Link: 9, MAC: mac(7)},   // no port
			{Addr: addr("192.0.2.1"), Link: 3, MAC: mac(1)},
			{Addr: addr("2001:db8:1::5"), Link: 2, MAC: mac(65)},
			{Addr: addr("fe80::1"), Link: 3, MAC: mac(61)},
		},
		Local: []flow.Addr{addr("10.1.0.1"), addr("2001:db8:1::1"), addr("fe80::a0"), addr("127.0.0.1"), addr("239.2.0.9")},
	}
}

func TestLookup(t *testing.T) {
	table := Build(office())
	lan := Hop{Port: 0, MTU: 1500, SrcMAC: [6]byte(mac(0xa0))}
	provider := Hop{Port: 1, MTU: 9000, SrcMAC: [6]byte(mac(0xa1))}
	ready := func(h Hop, n byte) Hop { h.State, h.DstMAC = Ready, [6]byte(mac(n)); return h }
	via := func(h Hop, a string) Hop { h.State, h.Via = Unresolved, addr(a); return h }
	mtu := func(h Hop, n uint16) Hop { h.MTU = n; return h }
	onLink := func(h Hop) Hop { h.State = Unresolved; return h }
	group := func(h Hop) Hop { h.State = Group; return h }
	for _, c := range []struct {
		name, dst string
		want      Hop
	}{
		{"resolved neighbour", "10.1.0.5", ready(lan, 5)},
		{"neighbour below it", "10.1.0.4", onLink(lan)},
		{"neighbour above it", "10.1.0.6", onLink(lan)},
		{"neighbour without MAC", "10.1.0.7", onLink(lan)},
		{"first address of the link", "10.1.0.0", onLink(lan)},
		{"last address of the link", "10.1.0.255", onLink(lan)},
		{"before the link", "10.0.255.255", ready(via(provider, "192.0.2.1"), 1)},
		{"behind the link", "10.1.1.0", ready(via(provider, "192.0.2.1"), 1)},
		{"host route over a neighbour", "10.1.0.99", ready(via(provider, "192.0.2.1"), 1)},
		{"default route of the lower metric", "8.8.8.8", ready(via(provider, "192.0.2.1"), 1)},
		{"the gateway itself, with the link route's MTU", "192.0.2.1", mtu(ready(provider, 1), 1400)},
		{"route's MTU", "192.0.2.9", mtu(onLink(provider), 1400)},
		{"unresolved gateway", "10.2.8.255", via(lan, "10.1.0.2")},
		{"rejected", "10.2.9.0", Hop{}},
		{"behind the rejected", "10.2.10.0", via(lan, "10.1.0.2")},
		{"out of no port", "10.3.0.5", Hop{}},
		{"own address", "10.1.0.1", Hop{State: Local}},
		{"loopback", "127.0.0.2", Hop{}},
		{"own loopback", "127.0.0.1", Hop{State: Local}},
		{"this network", "0.1.2.3", Hop{}},
		{"group of this link, with a route", "224.0.0.5", Hop{}},
		{"group of no route", "224.0.1.5", Hop{}},
		{"group with a route", "239.1.1.1", group(lan)},
		{"group by a gateway, which does not matter", "239.2.0.1", mtu(group(provider), 1280)},
		{"group rejected", "239.2.9.9", Hop{}},
		{"group out of no port", "239.3.0.1", Hop{}},
		{"group behind the routes", "239.4.0.0", Hop{}},
		{"group that is an own address", "239.2.0.9", Hop{State: Local}},
		{"last address in front of multicast", "223.255.255.255", ready(via(provider, "192.0.2.1"), 1)},
		{"behind multicast", "240.0.0.0", ready(via(provider, "192.0.2.1"), 1)},
		{"limited broadcast", "255.255.255.255", Hop{}},
		{"IPv4 by an IPv6 gateway, MTU bounded by the link", "203.0.113.7", ready(via(provider, "fe80::1"), 61)},
		{"v6 neighbour", "2001:db8:1::5", ready(lan, 65)},
		{"v6 on the link", "2001:db8:1::6", onLink(lan)},
		{"v6 own address", "2001:db8:1::1", Hop{State: Local}},
		{"v6 default", "2001:db8:2::1", ready(via(provider, "fe80::1"), 61)},
		{"v6 link-local", "fe80::1", Hop{}},
		{"v6 own link-local", "fe80::a0", Hop{State: Local}},
		{"v6 group of this link, with a route", "ff02::1", Hop{}},
		{"v6 group of this link, transient, with a route", "ff12::1", Hop{}},
		{"v6 group of this host, with a route", "ff11::1", Hop{}},
		{"v6 group of the realm", "ff13::1", group(lan)},
		{"v6 group of a site", "ff15::1", group(lan)},
		{"v6 group of no route", "ff05::1", Hop{}},
		{"v6 last address", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Hop{}},
		{"v6 unspecified", "::", Hop{}},
		{"v6 loopback", "::1", Hop{}},
		{"v6 behind loopback", "::2", ready(via(provider, "fe80::1"), 61)},
	} {
		t.Run(c.name, func(t *testing.T) {
			dst := addr(c.dst)
			if got := *table.Lookup(&dst); got != c.want {
				t.Errorf("%s leaves by\n%+v, want\n%+v", c.dst, got, c.want)
			}
		})
	}
}

func TestLookupWithoutRoutes(t *testing.T) {
	for name, table := range map[string]*Table{"zero": {}, "empty": Build(&Config{})} {
		for _, s := range []string{"0.0.0.0", "10.0.0.1", "255.255.255.255", "::", "2001:db8::1"} {
			dst := addr(s)
			if hop := table.Lookup(&dst); hop == nil || *hop != (Hop{}) {
				t.Errorf("%s table: %s leaves by %+v, want no route", name, s, hop)
			}
		}
		if n := len(table.Routes()); n != 0 {
			t.Errorf("%s table lists %d routes", name, n)
		}
	}
}

// Among routes to one prefix with one metric the first wins: the kernel's
// order is the only tie-break there is.
func TestFirstOfEqualRoutesWins(t *testing.T) {
	cfg := &Config{Links: []Link{{Index: 2}, {Index: 3, Port: 1}, {Index: 4, Port: 2}}}
	for _, link := range []int{3, 2, 4} {
		cfg.Routes = append(cfg.Routes, Route{Dst: prefix("10.0.0.0/8"), Link: link})
	}
	dst := addr("10.0.0.1")
	if hop := Build(cfg).Lookup(&dst); hop.Port != 1 {
		t.Errorf("leaves by port %d, want 1", hop.Port)
	}
}

func TestBuildIgnoresWhatIsNoPrefix(t *testing.T) {
	lo, hi := addr("10.0.0.0"), addr("10.0.0.255")
	v6 := addr("2001:db8::")
	for _, r := range []flow.AddrRange{
		{Lo: hi, Hi: lo},
		{Lo: lo, Hi: addr("10.0.0.254")},
		{Lo: addr("10.0.0.1"), Hi: addr("10.0.0.2")},
		{Lo: lo, Hi: v6},
		{Lo: v6, Hi: hi},
		{Lo: addr("0.0.0.0"), Hi: addr("::1:255.255.255.255")},
		{Lo: v6, Hi: flow.Addr{Hi: v6.Hi | 1, Lo: 7}},
	} {
		table := Build(&Config{Links: []Link{{Index: 2}}, Routes: []Route{{Dst: r, Link: 2}}})
		if rs := table.Routes(); len(rs) != 0 {
			t.Errorf("%v-%v became %v", r.Lo, r.Hi, rs)
		}
	}
}

func TestRoutes(t *testing.T) {
	var got []string
	for _, v := range Build(office()).Routes() {
		got = append(got, fmt.Sprintf("%v %v port %d", v.Dst, v.Hop.State, v.Hop.Port))
	}
	want := []string{
		"0.0.0.0/0 ready port 1",
		"10.1.0.0/24 unresolved port 0",
		"10.1.0.1/32 local port 0",
		"10.1.0.5/32 ready port 0",
		"10.1.0.99/32 ready port 1",
		"10.2.0.0/16 unresolved port 0",
		"10.2.9.0/24 no_route port 0",
		"10.3.0.0/16 no_route port 0",
		"127.0.0.1/32 local port 0",
		"192.0.2.0/24 unresolved port 1",
		"192.0.2.1/32 ready port 1",
		"203.0.113.0/24 ready port 1",
		"239.1.1.1/32 group port 0",
		"239.2.0.0/16 group port 1",
		"239.2.0.9/32 local port 0",
		"239.2.9.0/24 no_route port 0",
		"239.3.0.0/16 no_route port 0",
		"::/0 ready port 1",
		"2001:db8:1::/64 unresolved port 0",
		"2001:db8:1::1/128 local port 0",
		"2001:db8:1::5/128 ready port 0",
		"fe80::a0/128 local port 0",
		"ff10::/12 group port 0",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("routes are\n%q, want\n%q", got, want)
	}
	if s := State(200).String(); s != "unknown" {
		t.Errorf("state 200 is %q", s)
	}
}

// scan is what Lookup must answer, by Build's documentation, the slow way.
func scan(cfg *Config, dst flow.Addr) Hop {
	for _, a := range cfg.Local {
		if a == dst {
			return Hop{State: Local}
		}
	}
	ip := dst.Netip()
	near := ip.IsMulticast() && (ip.IsLinkLocalMulticast() || ip.Is6() && ip.As16()[1]&15 <= 2)
	if near || ip.IsLoopback() || ip.IsUnspecified() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) ||
		ip.Is4() && ip.As4()[0] == 0 || ip.Is6() && ip.IsLinkLocalUnicast() {
		return Hop{}
	}
	var best *Route
	bits := -1
	for i := range cfg.Routes {
		r := &cfg.Routes[i]
		p := netip.MustParsePrefix(r.Dst.String())
		if ip.IsMulticast() && p.Bits() < map[bool]int{true: 4, false: 8}[ip.Is4()] {
			continue // it says nothing of groups
		}
		if p.Contains(ip) && (p.Bits() > bits || p.Bits() == bits && r.Metric < best.Metric) {
			best, bits = r, p.Bits()
		}
	}
	if best == nil || best.Reject {
		return Hop{}
	}
	for _, l := range cfg.Links {
		if l.Index != best.Link {
			continue
		}
		h := Hop{Via: best.Gateway, Port: l.Port, MTU: uint16(l.MTU), State: Unresolved, SrcMAC: [6]byte(l.MAC)}
		if best.MTU != 0 {
			h.MTU = uint16(min(best.MTU, l.MTU))
		}
		if ip.IsMulticast() {
			h.Via, h.State = flow.Addr{}, Group
			return h
		}
		next := best.Gateway
		if next.IsZero() {
			next = dst
		}
		for _, n := range cfg.Neighbours {
			if n.Addr == next && n.Link == l.Index {
				h.State, h.DstMAC = Ready, [6]byte(n.MAC)
			}
		}
		return h
	}
	return Hop{}
}

// drawAddr draws addresses that are close together, so that prefixes nest,
// meet and repeat.
func drawAddr(t *rapid.T, v6 bool) flow.Addr {
	low := rapid.Uint32Range(0, 63).Draw(t, "low")
	if v6 {
		hi := rapid.SampledFrom([]uint64{0, 0x20010db8_00000000, 0x20010db8_00000001, 0xfe80_0000_0000_0000, 0xff12 << 48, 0xff15 << 48, 1<<64 - 1}).Draw(t, "hi")
		lo := rapid.SampledFrom([]uint64{0, 1<<64 - 64}).Draw(t, "lo")
		return flow.Addr{Hi: hi, Lo: lo | uint64(low)}
	}
	return flow.V4(rapid.SampledFrom([]uint32{0, 10 << 24, 10<<24 | 1<<16, 127 << 24, 224 << 24, 239 << 24, 0xffffffc0}).Draw(t, "net") | low)
}

func drawConfig(t *rapid.T, v6 bool) *Config {
	cfg := &Config{Links: []Link{{Index: 2, MAC: mac(1), MTU: 1500}, {Index: 3, Port: 1, MAC: mac(2), MTU: 1400}}}
	link := rapid.IntRange(2, 4) // 4 is no port
	for range rapid.IntRange(0, 24).Draw(t, "routes") {
		a := drawAddr(t, v6).Netip()
		// Short and long prefixes alike, and those that end where words do.
		bits := a.BitLen() - rapid.OneOf(rapid.IntRange(0, 7), rapid.IntRange(0, a.BitLen())).Draw(t, "host bits")
		r := Route{
			Dst: flow.RangeOf(netip.PrefixFrom(a, bits)), Link: link.Draw(t, "link"),
			Metric: rapid.IntRange(0, 2).Draw(t, "metric"), MTU: rapid.SampledFrom([]int{0, 0, 1280, 9000}).Draw(t, "mtu"),
			Reject: rapid.IntRange(0, 5).Draw(t, "reject") == 0,
		}
		if rapid.Bool().Draw(t, "gateway") {
			r.Gateway = drawAddr(t, v6)
		}
		cfg.Routes = append(cfg.Routes, r)
	}
	seen := map[neighbourKey]bool{}
	for i := range rapid.IntRange(0, 12).Draw(t, "neighbours") {
		n := Neighbour{Addr: drawAddr(t, v6), Link: link.Draw(t, "link"), MAC: mac(byte(i))}
		if k := (neighbourKey{n.Addr, n.Link}); !seen[k] {
			seen[k] = true
			cfg.Neighbours = append(cfg.Neighbours, n)
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "local") {
		cfg.Local = append(cfg.Local, drawAddr(t, v6))
	}
	return cfg
}

func TestLookupAgreesWithScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		cfg := drawConfig(t, v6)
		table := Build(cfg)
		check := func(dst flow.Addr) {
			if dst.Is4() == v6 {
				return // arithmetic left the family
			}
			if got, want := *table.Lookup(&dst), scan(cfg, dst); got != want {
				t.Fatalf("%v leaves by\n%+v, want\n%+v\n%+v", dst, got, want, cfg)
			}
		}
		for range 20 {
			check(drawAddr(t, v6))
		}
		for _, r := range cfg.Routes { // both sides of every edge
			check(r.Dst.Lo)
			check(r.Dst.Hi)
			check(flow.Addr{Hi: r.Dst.Lo.Hi, Lo: r.Dst.Lo.Lo - 1})
			check(flow.Addr{Hi: r.Dst.Hi.Hi, Lo: r.Dst.Hi.Lo + 1})
		}
	})
}

func TestLookupAllocatesNothing(t *testing.T) {
	table := Build(office())
	v4, v6 := addr("10.1.0.5"), addr("2001:db8:1::5")
	if n := testing.AllocsPerRun(100, func() { table.Lookup(&v4); table.Lookup(&v6) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// random returns a Config of n routes of each family.
func random(n int) *Config {
	rng := rand.New(rand.NewPCG(1, 2))
	cfg := &Config{Links: []Link{{Index: 2, MAC: mac(1), MTU: 1500}}}
	for range n {
		r := Route{Gateway: flow.V4(rng.Uint32N(16)), Link: 2}
		r.Dst = flow.RangeOf(netip.PrefixFrom(flow.V4(rng.Uint32()).Netip(), 8+rng.IntN(17)))
		cfg.Routes = append(cfg.Routes, r)
		r.Dst = flow.RangeOf(netip.PrefixFrom(flow.Addr{Hi: 0x2000<<48 | rng.Uint64()>>16, Lo: rng.Uint64()}.Netip(), 24+rng.IntN(41)))
		cfg.Routes = append(cfg.Routes, r)
	}
	return cfg
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{16, 10_000} {
		cfg := random(n)
		table := Build(cfg)
		for _, family := range []string{"v4", "v6"} {
			var dsts [1024]flow.Addr
			rng := rand.New(rand.NewPCG(3, 4))
			for i := range dsts {
				r := cfg.Routes[2*rng.IntN(n)]
				if family == "v6" {
					r = cfg.Routes[2*rng.IntN(n)+1]
				}
				dsts[i] = r.Dst.Lo
			}
			b.Run(fmt.Sprintf("%s/routes=%d", family, n), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					table.Lookup(&dsts[i%len(dsts)])
				}
			})
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	cfg := random(5_000)
	for b.Loop() {
		Build(cfg)
	}
}
