package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// cpus is how many workers' SAs the search is for, and one for a worker that has
// none of its own.
const cpus = 3

// search finds p's SA on each worker, and for each codepoint, the slow way: the
// newest of all that its template names and that is for this, else that is for all.
func (g *gateway) search(p *policy) (best [cpus]*sad.Outbound, classes sad.Classes) {
	t := &p.rule.Template
	if p.rule.Dir != spd.Out || p.rule.Action != spd.Protect || t.Reqid == 0 && t.Dst.IsZero() {
		return best, classes
	}
	for r := range g.sas.all {
		if r.out == nil || !usable(r.out) {
			continue
		}
		sa := r.out
		fits := sa.Proto == t.Proto && sa.Tunnel == (t.Mode == spd.Tunnel) &&
			(t.Reqid == 0 || t.Reqid == sa.Reqid) && (t.SPI == 0 || t.SPI == sa.SPI) &&
			(t.Src.IsZero() || t.Src == sa.Src) && (t.Dst.IsZero() || t.Dst == sa.Dst)
		if s := r.keyed.params.Sel; s != nil {
			fits = fits && s.Dst.Contains(p.rule.Sel.Dst.Lo) && s.Dst.Contains(p.rule.Sel.Dst.Hi)
		}
		switch {
		case fits && sa.ForDSCP != 0:
			for d := range sa.ForDSCP.All {
				classes[d] = sa
			}
		case fits && sa.CPU < cpus:
			best[sa.CPU] = sa
		}
	}
	for i := range best {
		if best[i] == nil {
			best[i] = best[0]
		}
	}
	return best, classes
}

// TestBindingsEqualASearch makes daemons do anything, several things at a time,
// and holds each policy's SA against a search of all.
func TestBindingsEqualASearch(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newGateway(t, func(c *Config) { c.Workers = slices.Repeat(c.Workers, cpus-1) })
		g.see("192.0.2.7")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		rnd := r.IntN
		srcs, dsts := []string{here, "192.0.2.7", "203.0.113.1"}, []string{peer, "192.0.2.3"}
		narrow := selector("10.1.0.0/16", "10.2.0.0/24")
		randomSA := func() SAParams {
			return keyedSA(uint32(300+rnd(8)), srcs[rnd(3)], dsts[rnd(2)], func(p *SAParams) {
				p.Reqid, p.Tunnel = uint32(rnd(3)), rnd(4) != 0
				if rnd(4) == 0 {
					p.Sel = &narrow
				}
				if rnd(3) == 0 {
					p.CPU = uint16(1 + rnd(cpus)) // the last of them is of no worker
				} else if rnd(3) == 0 {
					p.ForDSCP = sad.CodepointsOf([]uint8{0, 34, 46}[rnd(3)], []uint8{0, 46, 63}[rnd(3)])
				}
			})
		}
		randomPolicy := func() PolicyParams {
			return keyedPolicy(fmt.Sprintf("10.2.%d.0/%d", rnd(2), 22+2*rnd(3)), func(p *PolicyParams) {
				p.Priority = uint32(rnd(2))
				t := &p.Template
				t.Reqid, t.Mode = uint32(rnd(3)), spd.Mode(rnd(4)/3)
				t.Src, t.Dst = addr(srcs[rnd(2)]), addr(dsts[rnd(2)])
				if rnd(2) == 0 {
					t.Src = flow.Addr{}
				}
				if rnd(3) == 0 {
					t.Dst = flow.Addr{}
				}
				if rnd(5) == 0 {
					t.SPI = uint32(300 + rnd(8))
				}
				if rnd(8) == 0 {
					p.Action = spd.Bypass
				}
			})
		}
		act := func(k *Keying) {
			p, q := randomSA(), randomPolicy()
			switch rnd(12) {
			case 0, 1, 2, 3:
				_ = k.AddSA(daemon, p)
			case 4:
				_, _ = k.DeleteSA(daemon, p.ID())
			case 5: // to another source, if it is there
				p.EncKey, p.AuthKey = nil, nil
				_ = k.UpdateSA(daemon, p)
			case 6, 7:
				_, _ = k.AddPolicy(daemon, q)
			case 8:
				_, _ = k.UpdatePolicy(daemon, q)
			case 9:
				_, _ = k.DeletePolicy(daemon, q.name())
			case 10: // its numbers end
				if r := g.sas.byID[p.ID()]; r != nil && r.out != nil {
					r.out.Advance(lastSeq(&r.out.SA))
				}
			case 11:
				switch rnd(6) {
				case 0:
					k.FlushSAs(daemon, 0)
				case 1:
					k.FlushPolicies(daemon)
				}
			}
		}
		for range 30 {
			g.key(t, func(k *Keying) {
				for range 1 + rnd(4) {
					act(k)
				}
			})
			if rnd(6) == 0 {
				g.see([]string{"192.0.2.7", "203.0.113.1"}[:1+rnd(2)]...)
			}
			g.round(time.Now()) // what is used up leaves
			for id, p := range g.spds.byID {
				all, classes := g.search(p)
				for cpu, want := range all {
					got, by := g.sad.Load().OutboundsOn(id, uint16(cpu))
					if got != want {
						rt.Fatalf("policy %d %+v: worker %d is bound to %v, want %v", id, p.rule.Template, cpu, got, want)
					}
					if by == nil {
						by = new(sad.Classes)
					}
					if *by != classes {
						rt.Fatalf("policy %d %+v: worker %d has for codepoints %v, want %v", id, p.rule.Template, cpu, *by, classes)
					}
				}
			}
			if n, m := len(g.spd.Load().Out.Policies()), len(g.spds.byID); n != m {
				rt.Fatalf("workers see %d policies of %d", n, m)
			}
		}
		g.key(t, func(k *Keying) { k.FlushSAs(daemon, 0); k.FlushPolicies(daemon) })
		o := &g.offers
		if len(o.wants)+len(o.peers)+len(o.reqids)+len(o.stale)+len(g.spds.byID)+len(g.sas.byID)+g.waiting+g.larvals != 0 {
			rt.Fatalf("left behind: %+v, %d wait", o, g.waiting)
		}
		for id := range g.db.Bindings() {
			rt.Fatalf("policy %d is gone and bound", id)
		}
	})
}
