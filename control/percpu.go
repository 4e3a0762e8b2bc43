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

// own returns the SAs that p has for single workers (RFC 9611): of each worker the
// newest usable one, as for all. A policy that wants several SAs around one
// another has none. What is for a worker that is not there serves nobody, and is
// no reason to keep a place for each below it.
func (c *Controller) own(p *policy, all []wanted) (sas []*sad.Outbound) {
	w := c.offers.wants[all[0]]
	if len(all) > 1 || w.parts == 0 {
		return nil
	}
	has := make([]bool, len(c.cfg.Workers)+1)
	for _, r := range slices.Backward(w.sas) {
		if cpu := int(r.out.CPU); cpu != 0 && cpu < len(has) && !has[cpu] && usable(r.out) && r.covers(&p.rule.Sel) {
			has[cpu] = true
			sas = append(sas, r.out)
		}
	}
	return sas
}
