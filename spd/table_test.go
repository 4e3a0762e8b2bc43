package spd

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"spigot/internal/flow"
)

func TestLookupFirstMatchByOrder(t *testing.T) {
	web := between("10.0.0.0/8", "0.0.0.0/0")
	web.Proto, web.DstPort = 6, flow.PortRange{Lo: 80, Hi: 443}
	echo := between("10.0.0.0/8", "0.0.0.0/0")
	echo.Proto, echo.SrcPort = 1, flow.PortRange{Lo: 8 << 8, Hi: 8<<8 | 255} // type 8, any code
	part := between("0.0.0.0/0", "0.0.0.0/0")
	part.Dst = flow.AddrRange{Lo: addr("172.16.0.3"), Hi: addr("172.16.0.9")}
	six := between("::/0", "::/0")
	parts := between("10.7.0.0/16", "0.0.0.0/0") // fragments of TCP, and of ICMP
	parts.Proto, parts.SrcPort, parts.DstPort = 6, flow.OpaquePort, flow.OpaquePort
	echoes := parts
	echoes.Proto, echoes.DstPort = 1, flow.AnyPort

	tab := compile(t, nil, policy(1, web), policy(2, echo), policy(3, part), policy(4, six),
		policy(5, between("10.2.0.0/16", "0.0.0.0/0")), policy(6, parts), policy(7, echoes))
	for _, c := range []struct {
		src, dst     string
		proto        uint8
		sport, dport uint16
		noPorts      bool
		want         uint32 // 0: no policy
	}{
		{"10.1.1.1", "8.8.8.8", 6, 1024, 80, false, 1},
		{"10.1.1.1", "8.8.8.8", 6, 1024, 443, false, 1},
		{"10.1.1.1", "8.8.8.8", 6, 1024, 79, false, 0},
		{"10.1.1.1", "8.8.8.8", 6, 1024, 444, false, 0},
		{"10.1.1.1", "8.8.8.8", 17, 1024, 80, false, 0},
		{"10.1.1.1", "8.8.8.8", 6, 0, 80, true, 0}, // a fragment has no port to match
		{"11.1.1.1", "8.8.8.8", 6, 1024, 80, false, 0},
		{"10.1.1.1", "8.8.8.8", 1, 8 << 8, 0, false, 2},
		{"10.1.1.1", "8.8.8.8", 1, 8<<8 | 3, 0, false, 2},
		{"10.1.1.1", "8.8.8.8", 1, 3 << 8, 0, false, 0},
		{"11.1.1.1", "172.16.0.2", 6, 1, 1, false, 0},
		{"11.1.1.1", "172.16.0.3", 6, 1, 1, false, 3},
		{"11.1.1.1", "172.16.0.9", 6, 0, 0, true, 3}, // any port takes fragments too
		{"11.1.1.1", "172.16.0.10", 6, 1, 1, false, 0},
		{"10.2.1.1", "172.16.0.9", 17, 1, 1, false, 3}, // 3 and 5 both match
		{"10.2.1.1", "8.8.8.8", 6, 1024, 80, false, 1}, // 1 and 5 both match
		{"10.2.1.1", "8.8.8.8", 17, 1024, 80, false, 5},
		{"2001:db8::1", "fe80::1", 17, 1, 1, false, 4},
		{"10.7.1.1", "9.9.9.9", 6, 0, 0, true, 6},  // OPAQUE takes what has no ports,
		{"10.7.1.1", "9.9.9.9", 6, 0, 0, false, 0}, // and nothing else,
		{"10.7.1.1", "9.9.9.9", 6, 65535, 65535, false, 0},
		{"10.7.1.1", "9.9.9.9", 17, 0, 0, true, 0},
		{"10.7.1.1", "172.16.0.9", 6, 0, 0, true, 3}, // in its order
		{"10.7.1.1", "9.9.9.9", 1, 0, 0, true, 7},
		{"10.7.1.1", "9.9.9.9", 1, 3 << 8, 0, false, 0},
		{"11.1.1.1", "9.9.9.9", 17, 1, 1, false, 0}, // ::/0 is IPv6 only
		{"2001:db8::1", "9.9.9.9", 17, 1, 1, false, 0},
		{"11.1.1.1", "2001:db8::1", 17, 1, 1, false, 0},
	} {
		tu := flow.Tuple{Src: addr(c.src), Dst: addr(c.dst), SrcPort: c.sport, DstPort: c.dport, Proto: c.proto, NoPorts: c.noPorts}
		got := tab.Lookup(&tu)
		if (got == nil) != (c.want == 0) || got != nil && got.ID != c.want {
			t.Errorf("%v: got %+v, want policy %d", tu, got, c.want)
		}
	}
}

func TestOrderIsPriorityThenPlace(t *testing.T) {
	all := between("0.0.0.0/0", "0.0.0.0/0")
	a, b, c := policy(1, all), policy(2, all), policy(3, all)
	a.Priority, b.Priority, c.Priority = 7, 5, 5
	given := []*Policy{a, b, c}
	tab := compile(t, nil, given...)
	if got := tab.Policies(); !slices.Equal(got, []*Policy{b, c, a}) {
		t.Errorf("order %v", got)
	}
	if !slices.Equal(given, []*Policy{a, b, c}) {
		t.Error("Compile sorted its argument")
	}
	// Swapping two overlapping entries swaps the action (RFC 4301, section 4.4.1).
	tu := visit(0, 1)
	if got := tab.Lookup(tu); got != b {
		t.Errorf("got %v, want the first of priority 5", got)
	}
	if got := compile(t, tab, c, b, a).Lookup(tu); got != c {
		t.Errorf("after the swap: got %v", got)
	}
	tab.Policies()[0] = nil
	if tab.Lookup(tu) != b {
		t.Error("the slice of Policies is the table's own")
	}
}

func TestNilAndEmptyTable(t *testing.T) {
	empty := compile(t, nil)
	c := NewCache(16, 1)
	for _, tab := range []*Table{nil, empty} {
		if tab.Lookup(visit(0, 1)) != nil || c.Lookup(tab, visit(0, 1)) != nil || len(tab.Policies()) != 0 {
			t.Errorf("table %v holds a policy", tab)
		}
	}
	if (*Table)(nil).Gen() != 0 || empty.Gen() == 0 {
		t.Error("generations: want 0 of the nil table only")
	}
}

func TestCompileRefuses(t *testing.T) {
	ok := func() *Policy {
		p := policy(7, between("10.0.0.0/8", "10.0.0.0/8"))
		p.Action, p.Name = Protect, "ipsec.conf:12"
		p.Template = Template{Proto: 50, Src: addr("192.0.2.1"), Dst: addr("192.0.2.2")}
		return p
	}
	compile(t, nil, ok())
	for _, c := range []struct {
		name string
		edit func(p *Policy)
		want string
	}{
		{"no ID", func(p *Policy) { p.ID = 0 }, "its ID is 0: give it"},
		{"no such direction", func(p *Policy) { p.Dir = 2 }, "use its constants"},
		{"no such action", func(p *Policy) { p.Action = 3 }, "use its constants"},
		{"no such level", func(p *Policy) { p.Level = 4 }, "use its constants"},
		{"source upside down", func(p *Policy) { p.Sel.Src.Lo.Lo += 1 << 30 }, "source range 74.0.0.0-10.255.255.255 is upside down: swap"},
		{"destination upside down", func(p *Policy) { p.Sel.Dst.Lo.Lo += 1 << 30 }, "destination range 74.0.0.0-10.255.255.255 is upside down: swap"},
		{"range of two families", func(p *Policy) { p.Sel.Src.Hi = addr("ffff::") }, "source range 10.0.0.0-ffff:: mixes IPv4 and IPv6"},
		{"ends of two families", func(p *Policy) { p.Sel.Src = prefix("::/0") }, "source ::/0 and destination 10.0.0.0/8 are of different families"},
		{"source ports", func(p *Policy) { p.Sel.SrcPort = flow.PortRange{Lo: 2, Hi: 1} }, "source port range 2-1 is upside down"},
		{"destination ports", func(p *Policy) { p.Sel.DstPort = flow.PortRange{Lo: 2, Hi: 1} }, "destination port range 2-1 is upside down"},
		{"OPAQUE ports of one end", func(p *Policy) {
			p.Sel.Proto, p.Sel.SrcPort, p.Sel.DstPort = 6, flow.OpaquePort, flow.PortRange{Lo: 80, Hi: 80}
		},
			"its port is OPAQUE at one end and a number at the other"},
		{"OPAQUE ports of no protocol", func(p *Policy) { p.Sel.SrcPort = flow.OpaquePort }, "OPAQUE, of any protocol: name the protocol"},
		{"no template", func(p *Policy) { p.Template = Template{} }, "has no template: give one"},
		{"template protocol", func(p *Policy) { p.Template.Proto = 6 }, "names protocol 6: use 50"},
		{"template mode", func(p *Policy) { p.Template.Mode = 2 }, "use Tunnel or Transport"},
		{"template families", func(p *Policy) { p.Template.Dst = addr("2001:db8::1") }, "from 192.0.2.1 to 2001:db8::1"},
	} {
		p := ok()
		c.edit(p)
		tab, err := Compile(nil, []*Policy{p})
		if tab != nil || !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "ipsec.conf:12") {
			t.Errorf("%s: got %v, %v; want a message with %q", c.name, tab, err, c.want)
		}
	}

	in := ok()
	in.ID, in.Dir = 8, In
	for name, c := range map[string]struct {
		prev     *Table
		policies []*Policy
		want     string
	}{
		"same ID twice":    {nil, []*Policy{ok(), ok()}, "has the same ID"},
		"mixed directions": {nil, []*Policy{ok(), in}, "one table a direction"},
		"other direction":  {compile(t, nil, ok()), []*Policy{in}, "one table a direction"},
		"nil policy":       {nil, []*Policy{ok(), nil}, "place 1 is nil"},
	} {
		if tab, err := Compile(c.prev, c.policies); tab != nil || !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v; want a message with %q", name, tab, err, c.want)
		}
	}
	// Discard and bypass need no template.
	p := ok()
	p.Action, p.Template = Discard, Template{}
	compile(t, nil, p)
}

func TestLookupEqualsLinearScan(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := world{rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))}
		policies := make([]*Policy, rapid.IntRange(0, 150).Draw(rt, "policies"))
		for i := range policies {
			policies[i] = policy(uint32(i+1), w.selector())
			policies[i].Priority = uint32(w.IntN(4))
		}
		tab, err := Compile(nil, policies)
		if err != nil {
			rt.Fatal(err)
		}
		for range 200 {
			tu := w.tuple()
			if got, want := tab.Lookup(tu), linear(policies, tu); got != want {
				rt.Fatalf("%v: got %v, want %v", tu, got, want)
			}
		}
	})
}

// A set of policies is worth an index only if the index bounds what a lookup
// compares with; this counts boxes, because nanoseconds are noisy.
func TestIndexBoundsComparisons(t *testing.T) {
	w := world{rand.New(rand.NewPCG(1, 2))}
	nested := make([]*Policy, 0, 4096) // all prefix lengths, wide ones first
	for i := range 4096 {
		lo := flow.V4(w.Uint32())
		s := between("0.0.0.0/0", "0.0.0.0/0")
		s.Dst = prefixOf(lo, 8+i*25/4096)
		nested = append(nested, policy(uint32(i+1), s))
	}
	bySource := network(4096)
	for i, p := range bySource {
		bySource[i] = policy(p.ID, p.Sel.Mirrored())
	}
	onePair := make([]*Policy, 300) // nothing but ports tells these apart
	for i := range onePair {
		s := between("10.0.0.0/8", "10.0.0.0/8")
		s.Proto, s.DstPort = 6, flow.PortRange{Lo: uint16(i), Hi: uint16(i)}
		onePair[i] = policy(uint32(i+1), s)
	}
	for _, c := range []struct {
		name     string
		policies []*Policy
		levels   int
		compared int
		copies   int // ranks held for each policy
	}{
		{"networks", network(10000), 1, 15, 2},
		{"networks by source", bySource, 1, 15, 2},
		{"all prefix lengths", nested, 5, 90, 3},
		{"few", network(12), 0, 12, 1},
		{"one pair", onePair, 0, 300, 1},
	} {
		tab := compile(t, nil, c.policies...).layers[0]
		compared, held := len(tab.rest), len(tab.rest)
		for _, l := range tab.index {
			compared += l.longest()
			held += len(l.ranks)
		}
		if len(tab.index) > c.levels || compared > c.compared || held > c.copies*len(c.policies) {
			t.Errorf("%s: %d levels, %d comparisons at worst, %d ranks held; want at most %d, %d, %d a policy",
				c.name, len(tab.index), compared, held, c.levels, c.compared, c.copies)
		}
	}
}

func prefixOf(a flow.Addr, bits int) flow.AddrRange {
	p, err := a.Netip().Prefix(bits)
	if err != nil {
		panic(err)
	}
	return flow.RangeOf(p)
}
