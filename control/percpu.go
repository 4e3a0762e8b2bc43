package control

import (
	"slices"

	"spigot/sad"
	"spigot/spd"
)

// lacks says whether the SA that req asks for is still missing. One for a worker
// comes after the one for all.
func (c *Controller) lacks(req *spd.AcquireRequest) bool {
	if req.CPU == 0 {
		return c.db.Bound(req.Policy) == nil
	}
	sa := c.db.Snapshot().OutboundOn(req.Policy, req.CPU)
	return sa != nil && sa.CPU == 0
}

// own returns the SAs that p has for single workers (RFC 9611) and for some
// codepoints (RFC 4301, section 4.4.2.1): of each worker and each codepoint the
// newest usable one, as for all. A policy that wants several SAs around one
// another has none. What is for a worker that is not there serves nobody, and is
// no reason to keep a place for each below it.
func (c *Controller) own(p *policy, all []wanted) (sas []*sad.Outbound) {
	w := c.offers.wants[all[0]]
	if len(all) > 1 || w.parts == 0 {
		return nil
	}
	has, classes := make([]bool, len(c.cfg.Workers)+1), sad.Codepoints(0)
	for _, r := range slices.Backward(w.sas) {
		if !usable(r.out) || !r.covers(&p.rule.Sel) {
			continue
		}
		cpu := int(r.out.CPU)
		if cpu != 0 && cpu < len(has) && !has[cpu] || r.out.ForDSCP&^classes != 0 {
			sas = append(sas, r.out)
		}
		if cpu < len(has) {
			has[cpu] = true
		}
		classes |= r.out.ForDSCP
	}
	return sas
}

// notesWorker logs that the outbound SA of r is for a worker that is not there: a
// peer with more processors may ask for it, and an operator may have miscounted.
func (c *Controller) notesWorker(r *record) {
	if n := len(c.cfg.Workers); int(r.out.CPU) > n && c.cpuLog.take(r.added) {
		c.log.Warn("an SA is for a worker that is not there, and carries nothing: number workers as show workers does, from 0, "+
			"or start the gateway with more of them", "sa", r.id, "cpu", r.out.CPU-1, "workers", n)
	}
}

// tellUnused logs which policies of d do without SAs that they name, since these
// are for one worker, or some codepoints, and the policy wants several around one
// another, or one for each flow.
func (c *Controller) tellUnused(d *draft) {
	for _, m := range d.manual {
		if m.params.CPU == 0 && m.params.ForDSCP == 0 {
			continue
		}
		sa := sad.SA{SPI: m.params.SPI, Proto: m.params.Proto, Tunnel: m.params.Tunnel, Reqid: m.params.Reqid, Src: m.params.Src, Dst: m.params.Dst}
		answers := wantedOf(&sa)
		for _, p := range d.policies {
			all := p.wanted()
			fits := slices.ContainsFunc(all, func(k wanted) bool { return slices.Contains(answers[:], k) })
			if fits && (len(all) > 1 || p.rule.PFP != 0) {
				c.log.Warn("a policy with a bundle or with pfp has no use for an SA that is for one worker or for some codepoints: "+
					"leave out cpu and for-dscp", "sa", nameOf(&m.params), "policy", p.rule.Name)
			}
		}
	}
}
