package control

import (
	"testing"
	"time"

	"spigot/internal/flow"
	"spigot/spd"
)

func perFlow(p *PolicyParams) { p.PFP = spd.PFPAll }

// packet is a flow to dst.
func packet(dst string, sport uint16) flow.Tuple {
	return flow.Tuple{Src: addr("10.1.0.5"), Dst: addr(dst), SrcPort: sport, DstPort: 80, Proto: 6}
}

// ofFlow is the selector of one flow alone.
func ofFlow(t flow.Tuple) *flow.Selector {
	return &flow.Selector{
		Src: flow.AddrRange{Lo: t.Src, Hi: t.Src}, Dst: flow.AddrRange{Lo: t.Dst, Hi: t.Dst}, Proto: t.Proto,
		SrcPort: flow.PortRange{Lo: t.SrcPort, Hi: t.SrcPort}, DstPort: flow.PortRange{Lo: t.DstPort, Hi: t.DstPort},
	}
}

// perFlowGateway has one policy that has an SA for each flow.
func perFlowGateway(t *testing.T) (g *gateway, policy uint32) {
	t.Helper()
	g = newGateway(t)
	g.see()
	g.key(t, func(k *Keying) {
		var err error
		if policy, err = k.AddPolicy(daemon, keyedPolicy("10.2.0.0/16", perFlow)); err != nil {
			t.Fatal(err)
		}
	})
	return g, policy
}

// wants hands the controller an acquire request of a flow.
func (g *gateway) wants(policy uint32, f flow.Tuple, now time.Time) {
	g.worker.Acquires.Push([]spd.AcquireRequest{{Policy: policy, Flow: f}})
	g.Do(func() { g.poll(now) })
}

// flowSPI returns the SPI that packets of f are sealed with, 0 if none.
func (g *gateway) flowSPI(policy uint32, f flow.Tuple) uint32 {
	if sa := g.sad.Load().OutboundFlow(policy, &f); sa != nil {
		return sa.SPI
	}
	return 0
}

// TestEachFlowAsksForItself: two flows make two acquires, each with selectors of
// its own, one time in 30 seconds; and not a third for a flow that has its SA.
func TestEachFlowAsksForItself(t *testing.T) {
	g, policy := perFlowGateway(t)
	one, two, now := packet("10.2.0.1", 1000), packet("10.2.0.1", 1001), time.Now()
	for i, c := range []struct {
		flow  flow.Tuple
		after time.Duration
		sent  int
	}{
		{one, 0, 1}, {two, 0, 2}, {one, time.Second, 2}, {two, 29 * time.Second, 2}, {one, 30 * time.Second, 3},
	} {
		if g.wants(policy, c.flow, now.Add(c.after)); len(g.hear(EventAcquire)) != c.sent {
			t.Errorf("step %d: %d acquires, want %d", i, len(g.hear(EventAcquire)), c.sent)
		}
	}
	for i, f := range []flow.Tuple{one, two} {
		a := g.hear(EventAcquire)[i].Acquire
		if a.Sel != *ofFlow(f) || a.Flow != f || a.Peer != addr(peer) || a.Seq < flowSeq {
			t.Errorf("acquire %d: %+v", i, a)
		}
	}
	g.key(t, func(k *Keying) {
		if err := k.AddSA(daemon, keyedSA(1001, here, peer, func(p *SAParams) { p.Sel = ofFlow(one) })); err != nil {
			t.Fatal(err)
		}
	})
	g.wants(policy, one, now.Add(90*time.Second))
	if n := len(g.hear(EventAcquire)); n != 3 {
		t.Errorf("%d acquires: a flow with an SA was asked for", n)
	}
	if len(g.asks.bySeq) != 1 {
		t.Errorf("%d acquires are open, want that of the other flow", len(g.asks.bySeq))
	}
}

// TestFlowsFindTheirSAs: by selectors, or as the answer to an acquire by its
// number; make before break as for whole policies.
func TestFlowsFindTheirSAs(t *testing.T) {
	one, two := packet("10.2.0.1", 1000), packet("10.2.0.2", 1000)
	type world struct {
		g        *gateway
		policy   uint32
		acquires []Acquire // of one and two
	}
	add := func(spi uint32, by Origin, edit ...func(*SAParams)) func(*testing.T, *world, *Keying) {
		return func(t *testing.T, _ *world, k *Keying) {
			if err := k.AddSA(by, keyedSA(spi, here, peer, edit...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	carries := func(f flow.Tuple) func(*SAParams) { return func(p *SAParams) { p.Sel = ofFlow(f) } }
	answers := func(spi uint32, i int, edit ...func(*SAParams)) func(*testing.T, *world, *Keying) {
		return func(t *testing.T, w *world, k *Keying) {
			add(spi, Origin{Client: 7, Seq: w.acquires[i].Seq}, edit...)(t, w, k)
		}
	}
	drop := func(spi uint32) func(*testing.T, *world, *Keying) {
		return func(t *testing.T, _ *world, k *Keying) {
			if _, err := k.DeleteSA(daemon, id(spi, peer)); err != nil {
				t.Fatal(err)
			}
		}
	}
	update := func(edit ...func(*PolicyParams)) func(*testing.T, *world, *Keying) {
		return func(t *testing.T, _ *world, k *Keying) {
			if _, err := k.UpdatePolicy(daemon, keyedPolicy("10.2.0.0/16", edit...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone := func(t *testing.T, w *world, k *Keying) {
		if _, err := k.DeletePolicyID(daemon, w.policy); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name          string
		steps         []func(*testing.T, *world, *Keying)
		one, two, all uint32 // what each is sealed by
	}{
		{"two SAs", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)), add(1002, daemon, carries(two))}, 1001, 1002, 0},
		{"in one order or the other", []func(*testing.T, *world, *Keying){add(1002, daemon, carries(two)), add(1001, daemon, carries(one))}, 1001, 1002, 0},
		{"an SA for everything is for no flow", []func(*testing.T, *world, *Keying){add(1001, daemon)}, 0, 0, 0},
		{"the newest", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)), add(1002, daemon, carries(one))}, 1002, 0, 0},
		{"the older one leaves", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)), add(1002, daemon, carries(one)), drop(1001)}, 1002, 0, 0},
		{"the newer one leaves", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)), add(1002, daemon, carries(one)), drop(1002)}, 1001, 0, 0},
		{"both leave", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)), add(1002, daemon, carries(one)), drop(1002), drop(1001)}, 0, 0, 0},
		{"of three the newer ones leave", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)), add(1002, daemon, carries(one)),
			add(1003, daemon, carries(one)), drop(1003), drop(1002)}, 1001, 0, 0},
		{"of three the newest and the oldest leave", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)),
			add(1002, daemon, carries(one)), add(1003, daemon, carries(one)), drop(1003), drop(1001)}, 1002, 0, 0},
		{"answers", []func(*testing.T, *world, *Keying){answers(1001, 0), answers(1002, 1)}, 1001, 1002, 0},
		{"answers in the other order", []func(*testing.T, *world, *Keying){answers(1002, 1), answers(1001, 0)}, 1001, 1002, 0},
		{"an answer to another peer", []func(*testing.T, *world, *Keying){answers(1001, 0, func(p *SAParams) { p.Dst = addr("192.0.2.9") })}, 0, 0, 0},
		{"an answer in another mode", []func(*testing.T, *world, *Keying){answers(1001, 0, func(p *SAParams) { p.Tunnel = false })}, 0, 0, 0},
		{"the number of nothing", []func(*testing.T, *world, *Keying){add(1001, Origin{Seq: flowSeq + 77})}, 0, 0, 0},
		{"the policy leaves", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)), gone}, 0, 0, 0},
		{"the policy stays as it is", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)), update(perFlow)}, 1001, 0, 0},
		{"the policy takes the source alone", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)),
			update(func(p *PolicyParams) { p.PFP = spd.PFPSrc })}, 0, 0, 0},
		{"one SA for the policy from now on", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)), add(1002, daemon), update()}, 0, 0, 1002},
		{"and back", []func(*testing.T, *world, *Keying){add(1001, daemon, carries(one)), add(1002, daemon), update(), update(perFlow)}, 1001, 0, 0},
	} {
		g, policy := perFlowGateway(t)
		w := &world{g: g, policy: policy}
		for _, f := range []flow.Tuple{one, two} {
			g.wants(policy, f, time.Now())
		}
		for _, e := range g.hear(EventAcquire) {
			w.acquires = append(w.acquires, *e.Acquire)
		}
		for _, step := range c.steps {
			g.key(t, func(k *Keying) { step(t, w, k) })
		}
		var all uint32
		if sa := g.sad.Load().Outbound(policy); sa != nil {
			all = sa.SPI
		}
		if a, b := g.flowSPI(policy, one), g.flowSPI(policy, two); a != c.one || b != c.two || all != c.all {
			t.Errorf("%s: flows by %d and %d, the policy by %d; want %d, %d and %d", c.name, a, b, all, c.one, c.two, c.all)
		}
	}
}

// TestTheAnswersSelectorsHoldInbound, too: what comes by the SA that a GETSPI for
// one flow reserved must be of that flow.
func TestTheAnswersSelectorsHoldInbound(t *testing.T) {
	g, policy := perFlowGateway(t)
	one := packet("10.2.0.1", 1000)
	g.wants(policy, one, time.Now())
	seq := g.hear(EventAcquire)[0].Acquire.Seq
	var spi uint32
	g.key(t, func(k *Keying) {
		sa, err := k.GetSPI(Origin{Seq: seq}, GetSPIRequest{Proto: 50, Src: addr(peer), Dst: addr(here), Tunnel: true})
		if err != nil {
			t.Fatal(err)
		}
		spi = sa.SPI
		if err := k.AddSA(Origin{Seq: seq}, keyedSA(1001, here, peer)); err != nil { // the acquire is answered
			t.Fatal(err)
		}
		if err := k.UpdateSA(Origin{Seq: seq}, keyedSA(spi, peer, here)); err != nil {
			t.Fatal(err)
		}
	})
	dst := addr(here)
	in := g.sad.Load().Inbound(spi, &dst, 50)
	if in == nil {
		t.Fatal("no inbound SA")
	}
	back := flow.Tuple{Src: one.Dst, Dst: one.Src, SrcPort: one.DstPort, DstPort: one.SrcPort, Proto: one.Proto}
	if !in.Admits(&back) || in.Admits(&one) {
		t.Errorf("selectors %+v", in.Selectors)
	}
	if back.DstPort++; in.Admits(&back) {
		t.Error("another flow may come by it")
	}
}

// TestAFloodOfFlowsIsBounded: each of a million flows asks for its own SA.
func TestAFloodOfFlowsIsBounded(t *testing.T) {
	g, policy := perFlowGateway(t)
	req, now := &spd.AcquireRequest{Policy: policy}, time.Now()
	g.Do(func() {
		for i := range uint32(1_000_000) {
			req.Flow = packet("10.2.0.1", uint16(i))
			req.Flow.Src.Lo += uint64(i)
			g.acquire(req, now)
		}
		g.deliver()
	})
	if n := len(g.hear(EventAcquire)); n != maxPeers || len(g.asks.byAsk) != maxPeers || g.stats.AcquiresLost != 1_000_000-maxPeers {
		t.Errorf("%d acquires, %d remembered, %d lost", n, len(g.asks.byAsk), g.stats.AcquiresLost)
	}
}
