package control

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/spd"
)

// newHosted is a gateway whose host is a part of it; plans are what it was told.
func newHosted(t *testing.T) (g *gateway, plans *[]HostPlan) {
	plans = new([]HostPlan)
	return newGateway(t, func(c *Config) { c.Host = func(p HostPlan) { *plans = append(*plans, p) } }), plans
}

// later polls when the next plan may be made.
func (g *gateway) later() { g.Do(func() { g.poll(g.host.next.Add(time.Second)) }) }

func (p HostPlan) lines() (all []string) {
	for _, r := range p.Routes {
		src := "elsewhere"
		if r.Src.IsValid() {
			src = r.Src.String()
		}
		all = append(all, r.Dst.String()+" "+src)
	}
	return all
}

// The host's traffic under outbound protect policies comes to the gateway: from
// the address that the policy covers, the protected side's first.
func TestHostPlan(t *testing.T) {
	g, plans := newHosted(t)
	g.later()
	if len(*plans) != 0 {
		t.Error("a plan before the kernel has said anything")
	}
	g.see("10.255.0.1", "127.0.0.1", "fe80::7")
	g.later()
	if len(*plans) != 1 || len((*plans)[0].Routes) != 0 {
		t.Fatalf("without policies: %+v", *plans)
	}
	any4 := func(p *spd.Policy) { p.Sel.Src = prefix("0.0.0.0/0") }
	from := func(s string) func(*spd.Policy) { return func(p *spd.Policy) { p.Sel.Src = prefix(s) } }
	g.load(t,
		protect("10.2.0.0/16"),
		protect("10.2.0.0/16", any4), // the first decides
		protect("10.3.0.0/16", from("10.99.0.0/16")),
		protect("10.4.0.0/16", from("192.0.2.0/24")),
		protect("10.5.0.0/16", from("10.255.0.0/16")),
		protect("10.6.0.0/16", from("127.0.0.0/8")),
		protect("10.7.0.0/16", func(p *spd.Policy) { p.Action = spd.Bypass }),
		protect("10.8.0.0/16", func(p *spd.Policy) { p.Dir = spd.In }),
		protect("10.9.0.0/16", any4, func(p *spd.Policy) {
			p.Sel.Dst = flow.AddrRange{Lo: addr("10.9.0.1"), Hi: addr("10.9.0.6")}
		}),
		protect("fd02::/64", from("fd01::/64")),
		protect("fd03::/64", from("fe80::/10")),
	)
	g.later()
	want := []string{
		"10.2.0.0/16 10.1.0.1", "10.4.0.0/16 192.0.2.1", "10.5.0.0/16 10.255.0.1",
		"10.9.0.1/32 10.1.0.1", "10.9.0.2/31 10.1.0.1", "10.9.0.4/31 10.1.0.1", "10.9.0.6/32 10.1.0.1",
		"fd02::/64 fd01::1",
	}
	last := func() HostPlan { return (*plans)[len(*plans)-1] }
	if got := last().lines(); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := last().MTU; got != 1500-espMost {
		t.Errorf("MTU %d without an SA", got)
	}
	n := len(*plans)
	g.later()
	if len(*plans) != n {
		t.Error("the same plan is told twice")
	}
	g.load(t, protect("10.2.0.0/16"), sa(0x1000, "192.0.2.1", "192.0.2.2"))
	g.later()
	out := g.list()[0].out
	if got := last().MTU; got != out.Geo.MaxInner(1500) || len(last().Routes) != 1 {
		t.Errorf("with an SA: %+v", last())
	}
}

// A policy for everything does not take the host's own side away from it.
func TestHostPlanSparesTheProtectedSide(t *testing.T) {
	g, plans := newHosted(t)
	g.see()
	v := *g.view
	v.FIB.Routes = append(slices.Clone(v.FIB.Routes),
		fib.Route{Dst: prefix("10.1.0.0/24"), Link: 11},
		fib.Route{Dst: prefix("10.7.0.0/16"), Link: 11, Gateway: addr("10.1.0.9")},
		fib.Route{Dst: prefix("10.8.0.0/16"), Link: 11, Reject: true},
		fib.Route{Dst: prefix("192.0.2.0/24"), Link: 12},
		fib.Route{Dst: prefix("fd01::/64"), Link: 11},
	)
	g.Do(func() { g.adopt(&v) })
	g.load(t, protect("0.0.0.0/0"), protect("10.1.0.128/25"))
	g.later()
	want := []string{"0.0.0.0/0 10.1.0.1", "10.1.0.0/24 elsewhere", "10.1.0.128/25 10.1.0.1", "10.7.0.0/16 elsewhere"}
	if got := (*plans)[len(*plans)-1].lines(); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestHostPlanIsBounded(t *testing.T) {
	g, plans := newHosted(t)
	g.see()
	var all []any
	for i := range maxHostRoutes + 10 {
		all = append(all, protect(fmt.Sprintf("10.%d.%d.0/24", 16+i/256, i%256)))
	}
	g.load(t, all...)
	g.later()
	p := (*plans)[len(*plans)-1]
	if len(p.Routes) != maxHostRoutes || p.Missed != 10 || g.log.count("add routes for the others") != 1 {
		t.Errorf("%d routes, %d missed", len(p.Routes), p.Missed)
	}
	if got := p.Routes[0].Dst.String(); got != "10.16.0.0/24" {
		t.Errorf("the first policy has no route: %s", got)
	}
}

// Prefixes hold what the range holds: each address once, and no other.
func TestPrefixesOf(t *testing.T) {
	for _, row := range []struct {
		lo, hi string
		want   []string
	}{
		{"0.0.0.0", "255.255.255.255", []string{"0.0.0.0/0"}},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", []string{"::/0"}},
		{"255.255.255.254", "255.255.255.255", []string{"255.255.255.254/31"}},
		{"ffff::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", []string{"ffff::/16"}},
		{"::1", "::3", []string{"::1/128", "::2/127"}},
		{"10.0.0.7", "10.0.0.7", []string{"10.0.0.7/32"}},
	} {
		var got []string
		for _, p := range prefixesOf(flow.AddrRange{Lo: addr(row.lo), Hi: addr(row.hi)}) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s-%s: %v, want %v", row.lo, row.hi, got, row.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		lo, n := rapid.Uint32().Draw(t, "lo"), rapid.Uint32Range(0, 5000).Draw(t, "n")
		hi := min(uint64(lo)+uint64(n), 1<<32-1)
		next := uint64(lo)
		for _, p := range prefixesOf(flow.AddrRange{Lo: flow.V4(lo), Hi: flow.V4(uint32(hi))}) {
			r := flow.RangeOf(p)
			if r.Lo != flow.V4(uint32(next)) {
				t.Fatalf("%v does not follow", p)
			}
			next += uint64(1) << (32 - p.Bits())
		}
		if next != hi+1 {
			t.Fatalf("ends at %d, want %d", next, hi+1)
		}
	})
}

// The answer to the host itself comes from the address that it wrote to: it
// believes none from itself.
func TestAnswerToTheHost(t *testing.T) {
	g, _ := newHosted(t)
	g.see()
	for _, row := range []struct{ src, dst string }{{"10.1.0.1", "10.2.0.9"}, {"fd01::1", "fd02::9"}} {
		p := fib.Punt{Kind: fib.PuntTooBig, MTU: 1300}
		p.Len = uint16(copy(p.Data[:], packetFrom(row.src, row.dst)))
		if g.worker.Punts.Push([]fib.Punt{p}) != 1 {
			t.Fatal("ring is full")
		}
		g.later()
		var m [1]fib.Inject
		if g.worker.Injects.Pop(m[:]) != 1 {
			t.Fatalf("%s: no answer", row.src)
		}
		var tuple flow.Tuple
		if _, r := wire.Classify(m[0].Data[:m[0].Len], &tuple); r != 0 {
			t.Fatal(r)
		}
		if tuple.Src != addr(row.dst) || tuple.Dst != addr(row.src) || m[0].Policy {
			t.Errorf("answer: %v", tuple)
		}
	}
}

// packetFrom is an IP packet of protocol 59 with 64 bytes of nothing.
func packetFrom(src, dst string) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if s.Is4() {
		ip := make([]byte, 84)
		wire.IPv4(ip).Init(addr(src), addr(dst), 59, 64, len(ip))
		return ip
	}
	ip := make([]byte, 104)
	ip[0], ip[5], ip[6], ip[7] = 0x60, 64, 59, 64
	copy(ip[8:], s.AsSlice())
	copy(ip[24:], d.AsSlice())
	return ip
}
