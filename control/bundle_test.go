package control

import (
	"slices"
	"testing"
	"time"

	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// bundleOf lists the SPIs that the policy of that name uses, the innermost
// first.
func (g *gateway) bundleOf(t *testing.T, name string) (spis []uint32) {
	t.Helper()
	for _, p := range g.spd.Load().Out.Policies() {
		if p.Name != name {
			continue
		}
		switch o := g.sad.Load().Outbound(p.ID); {
		case o == nil:
		case o.Bundle == nil:
			spis = append(spis, o.SPI)
		default:
			for _, sa := range o.Bundle {
				spis = append(spis, sa.SPI)
			}
		}
		return spis
	}
	t.Fatalf("no policy %q", name)
	return nil
}

// two wants ESP from gateway to gateway, and AH around it in transport mode.
func two(p *spd.Policy) {
	ah := p.Template
	ah.Proto, ah.Mode = 51, spd.Transport
	p.SetTemplates(p.Template, ah)
}

// ahSA is the SA of AH that two wants.
func ahSA(p *sad.Params) {
	p.Proto, p.Tunnel, p.Encryption, p.EncKey = 51, false, "", nil
}

// A bundle is in use as a whole: while one SA is missing it has none, that one is
// asked for, and a newer SA takes its place in it.
func TestBundlesFindTheirSAs(t *testing.T) {
	g := newGateway(t)
	g.see()
	const to = "to 10.2.0.0/16"
	step := func(want ...uint32) {
		t.Helper()
		if got := g.bundleOf(t, to); !slices.Equal(got, want) {
			t.Errorf("bound to %d, want %d", got, want)
		}
	}
	missing := func(proto uint8) {
		t.Helper()
		var id uint32
		for _, p := range g.spd.Load().Out.Policies() {
			id = p.ID
		}
		g.Do(func() {
			for _, q := range g.asks.byAsk {
				g.asks.remove(q)
			}
			g.acquire(&spd.AcquireRequest{Policy: id, Flow: flow.Tuple{Src: addr("10.1.0.1"), Dst: addr("10.2.0.1"), NoPorts: true}}, time.Now())
			for _, q := range g.asks.byAsk {
				if q.acquire.Template.Proto != proto {
					t.Errorf("asked for protocol %d, want %d", q.acquire.Template.Proto, proto)
				}
			}
			if len(g.asks.byAsk) != 1 {
				t.Errorf("%d acquires", len(g.asks.byAsk))
			}
		})
	}
	add := func(p *sad.Params) {
		t.Helper()
		g.key(t, func(k *Keying) {
			if err := k.AddSA(daemon, SAParams{Params: *p}); err != nil {
				t.Fatal(err)
			}
		})
	}
	del := func(spi uint32, proto uint8) {
		t.Helper()
		g.key(t, func(k *Keying) {
			if _, err := k.DeleteSA(daemon, SAID{SPI: spi, Dst: addr(peer), Proto: proto}); err != nil {
				t.Fatal(err)
			}
		})
	}
	g.load(t, protect("10.2.0.0/16", two))
	step()
	missing(50)
	add(sa(300, here, peer))
	step()
	missing(51)
	add(sa(400, here, peer, ahSA))
	step(300, 400)
	add(sa(301, here, peer))
	step(301, 400)
	add(sa(401, here, peer, ahSA))
	step(301, 401)
	del(301, 50)
	step(300, 401)
	del(401, 51)
	step(300, 400)
	del(400, 51)
	step()
	missing(51)
	add(sa(402, here, peer, ahSA))
	step(300, 402)
	del(300, 50)
	step()
}

// A reload keeps a bundle that stays as it is, and changes one that does not.
func TestAReloadKeepsBundles(t *testing.T) {
	g := newGateway(t)
	g.see()
	number := func() uint32 { return g.spd.Load().Out.Policies()[0].ID }
	esp, ah := sa(300, here, peer), sa(400, here, peer, ahSA)
	g.load(t, protect("10.2.0.0/16", two), esp, ah)
	before := number()
	g.load(t, protect("10.2.0.0/16", two), esp, ah)
	if number() != before || !slices.Equal(g.bundleOf(t, "to 10.2.0.0/16"), []uint32{300, 400}) {
		t.Errorf("policy %d became %d", before, number())
	}
	g.load(t, protect("10.2.0.0/16", two, func(p *spd.Policy) { p.Bundle[1].Reqid = 9 }), esp, ah)
	if number() == before || g.bundleOf(t, "to 10.2.0.0/16") != nil {
		t.Errorf("another bundle under the old number %d", before)
	}
	g.load(t, protect("10.2.0.0/16"), esp, ah)
	if !slices.Equal(g.bundleOf(t, "to 10.2.0.0/16"), []uint32{300}) {
		t.Errorf("without a bundle: %d", g.bundleOf(t, "to 10.2.0.0/16"))
	}
}

// In transport mode a template may leave the peer open where the policy has but
// one destination, which is it.
func TestTransportTemplatesWithoutAPeer(t *testing.T) {
	g := newGateway(t)
	g.see()
	open := func(dst string) *spd.Policy {
		p := protect(dst, func(p *spd.Policy) { p.Template = spd.Template{Proto: 50, Mode: spd.Transport} })
		p.Sel.Src = prefix(here + "/32")
		return p
	}
	transport := func(p *sad.Params) { p.Tunnel = false }
	g.load(t, open(peer+"/32"), open("203.0.113.0/24"), sa(300, here, peer, transport))
	if got := g.bundleOf(t, "to "+peer+"/32"); !slices.Equal(got, []uint32{300}) {
		t.Errorf("to the peer: %d", got)
	}
	if got := g.bundleOf(t, "to 203.0.113.0/24"); got != nil {
		t.Errorf("to a network: %d", got)
	}
}

// What the operators' API shows of a bundle.
func TestBundlesAreShown(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.load(t, protect("10.2.0.0/16", two), sa(300, here, peer), sa(400, here, peer, ahSA))
	var all []PolicyInfo
	g.Do(func() { all = g.reportPolicies() })
	p := all[0]
	if *p.Template != (TemplateInfo{"esp", "tunnel", here, peer, 0}) || len(p.Outer) != 1 ||
		p.Outer[0] != (TemplateInfo{"ah", "transport", here, peer, 0}) || p.BoundSPI != 300 || !slices.Equal(p.OuterSPIs, []uint32{400}) {
		t.Errorf("%+v", p)
	}
}
