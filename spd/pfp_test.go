package spd

import (
	"errors"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"spigot/internal/flow"
)

func port(n uint16) flow.PortRange { return flow.PortRange{Lo: n, Hi: n} }

// TestNarrowedSelectors: what an SA of one flow carries, by the fields that its
// policy takes from the packet.
func TestNarrowedSelectors(t *testing.T) {
	tuple := flow.Tuple{Src: addr("10.1.0.5"), Dst: addr("10.2.0.7"), SrcPort: 4711, DstPort: 80, Proto: 6}
	fragment := tuple
	fragment.SrcPort, fragment.DstPort, fragment.NoPorts = 0, 0, true
	echo := flow.Tuple{Src: tuple.Src, Dst: tuple.Dst, SrcPort: 8 << 8, Proto: 1}
	whole := between("10.1.0.0/16", "10.2.0.0/16")
	with := func(edit func(*flow.Selector)) flow.Selector { s := whole; edit(&s); return s }
	for _, c := range []struct {
		name  string
		pfp   PFP
		tuple flow.Tuple
		sel   flow.Selector
		flow  flow.Tuple
	}{
		{"none", 0, tuple, whole, flow.Tuple{}},
		{"source", PFPSrc, tuple, with(func(s *flow.Selector) { s.Src = prefix("10.1.0.5/32") }), flow.Tuple{Src: tuple.Src}},
		{"destination", PFPDst, tuple, with(func(s *flow.Selector) { s.Dst = prefix("10.2.0.7/32") }), flow.Tuple{Dst: tuple.Dst}},
		{"protocol", PFPProto, tuple, with(func(s *flow.Selector) { s.Proto = 6 }), flow.Tuple{Proto: 6}},
		{"ports", PFPProto | PFPPorts, tuple, with(func(s *flow.Selector) { s.Proto, s.SrcPort, s.DstPort = 6, port(4711), port(80) }),
			flow.Tuple{Proto: 6, SrcPort: 4711, DstPort: 80}},
		{"type and code", PFPProto | PFPPorts, echo, with(func(s *flow.Selector) { s.Proto, s.SrcPort = 1, port(8<<8) }), flow.Tuple{Proto: 1, SrcPort: 8 << 8}},
		{"no ports to be seen", PFPProto | PFPPorts, fragment, with(func(s *flow.Selector) { s.Proto = 6 }), flow.Tuple{Proto: 6, NoPorts: true}},
		{"all", PFPAll, tuple, flow.Selector{Src: prefix("10.1.0.5/32"), Dst: prefix("10.2.0.7/32"), SrcPort: port(4711), DstPort: port(80), Proto: 6}, tuple},
	} {
		p := &Policy{ID: 1, Sel: whole, Action: Protect, Template: Template{Proto: 50}, PFP: c.pfp}
		if got := p.Narrowed(&c.tuple); got != c.sel {
			t.Errorf("%s: selector %+v, want %+v", c.name, got, c.sel)
		}
		if got := p.FlowOf(&c.tuple); got != c.flow {
			t.Errorf("%s: flow %v, want %v", c.name, got, c.flow)
		}
	}
}

// TestWhichFlowAnSAIsFor: an SA serves a flow if it carries just that in the
// fields that the policy takes from packets, and all of the policy in the others.
func TestWhichFlowAnSAIsFor(t *testing.T) {
	sel := between("10.1.0.5/32", "10.2.0.0/16")
	for _, c := range []struct {
		name string
		edit func(*flow.Selector)
		ok   bool
	}{
		{"just the flow", func(*flow.Selector) {}, true},
		{"more than the policy where it takes nothing", func(s *flow.Selector) { s.Dst = prefix("10.0.0.0/8") }, true},
		{"less of it", func(s *flow.Selector) { s.Dst = prefix("10.2.1.0/24") }, false},
		{"one protocol of it", func(s *flow.Selector) { s.Proto = 6 }, false},
		{"two sources", func(s *flow.Selector) { s.Src = prefix("10.1.0.4/31") }, false},
		{"a source that is not the policy's", func(s *flow.Selector) { s.Src = prefix("10.9.0.5/32") }, false},
		{"another family", func(s *flow.Selector) { *s = between("2001:db8::1/128", "2001:db8::/32") }, false},
	} {
		p := &Policy{ID: 1, Sel: between("10.1.0.0/16", "10.2.0.0/16"), PFP: PFPSrc}
		s := sel
		c.edit(&s)
		f, ok := p.FlowFor(&s)
		if ok != c.ok || ok && f != (flow.Tuple{Src: addr("10.1.0.5")}) {
			t.Errorf("%s: flow %v, %v", c.name, f, ok)
		}
	}
}

// TestAnSAMadeForAPacketServesIt, whatever policy and packet.
func TestAnSAMadeForAPacketServesIt(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := world{rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))}
		tuple := *w.tuple()
		p := &Policy{ID: 1, PFP: PFP(rapid.IntRange(0, int(PFPAll)).Draw(rt, "pfp"))}
		p.Sel = flow.Selector{
			Src: flow.AddrRange{Lo: tuple.Src, Hi: tuple.Src}, Dst: flow.AddrRange{Lo: tuple.Dst, Hi: tuple.Dst},
			SrcPort: flow.AnyPort, DstPort: flow.AnyPort,
		}
		if p.PFP&PFPPorts != 0 {
			p.PFP |= PFPProto
		}
		if tuple.Proto == flow.AnyProto {
			return // no packet has it
		}
		if flow.IsICMP(tuple.Proto) {
			tuple.DstPort = 0
		}
		s := p.Narrowed(&tuple)
		if f, ok := p.FlowFor(&s); !ok || f != p.FlowOf(&tuple) || !s.Matches(&tuple) {
			rt.Fatalf("PFP %#x, %+v: SA %+v is for %v (%v), want %v", p.PFP, tuple, s, f, ok, p.FlowOf(&tuple))
		}
	})
}

func TestPFPIsForOutboundPoliciesThatProtect(t *testing.T) {
	tmpl := Template{Proto: 50, Dst: addr("192.0.2.2")}
	for _, c := range []struct {
		name string
		edit func(*Policy)
		ok   bool
	}{
		{"out", func(*Policy) {}, true},
		{"in", func(p *Policy) { p.Dir = In }, false},
		{"bypass", func(p *Policy) { p.Action = Bypass }, false},
		{"unknown flags", func(p *Policy) { p.PFP = PFPAll + 1 }, false},
		{"ports of any protocol", func(p *Policy) { p.PFP = PFPPorts }, false},
		{"OPAQUE ports", func(p *Policy) { p.PFP, p.Sel.Proto, p.Sel.DstPort = PFPPorts, 17, flow.OpaquePort }, false},
		{"sources of OPAQUE ports", func(p *Policy) { p.PFP, p.Sel.Proto, p.Sel.DstPort = PFPSrc, 17, flow.OpaquePort }, true},
		{"an SA for each worker and flow", func(p *Policy) { p.PerCPU = true }, false},
		{"an SA for each worker", func(p *Policy) { p.PFP, p.PerCPU = 0, true }, true},
		{"an SA for each worker, in", func(p *Policy) { p.PFP, p.PerCPU, p.Dir = 0, true, In }, false},
		{"an SA for each worker, bypass", func(p *Policy) { p.PFP, p.PerCPU, p.Action = 0, true, Bypass }, false},
		{"a bundle for each worker", func(p *Policy) { p.PFP, p.PerCPU = 0, true; p.SetTemplates(tmpl, tmpl) }, false},
		{"ports of one", func(p *Policy) { p.PFP, p.Sel.Proto = PFPPorts, 17 }, true},
	} {
		p := &Policy{ID: 1, Sel: between("10.1.0.0/16", "10.2.0.0/16"), Action: Protect, Template: tmpl, PFP: PFPAll}
		c.edit(p)
		if err := p.Check(); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
