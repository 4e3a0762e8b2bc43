package control

import (
	"slices"

	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// bindFlow gives the flow of p that r is for, if there is one, r as its SA, unless
// it has a newer one: a rekeyed SA takes over before the old one leaves.
func (c *Controller) bindFlow(p *policy, r *record) {
	if !r.narrow() || !r.out.ForAll() || !usable(r.out) {
		return
	}
	f, ok := p.rule.FlowFor(r.keyed.params.Sel)
	if !ok {
		return
	}
	if p.flows == nil {
		p.flows = map[flow.Tuple][]*record{}
	}
	list := put(p.flows[f], r)
	p.flows[f] = list
	if list[len(list)-1] == r {
		c.asks.answeredFlow(p.rule.ID, f)
		c.tie(p, f, r.out)
	}
}

// unbindFlow has the flow of p that r served, if it did, served by the newest of
// the others, or by none.
func (c *Controller) unbindFlow(p *policy, r *record) {
	if !r.narrow() {
		return
	}
	f, ok := p.rule.FlowFor(r.keyed.params.Sel)
	if !ok {
		return
	}
	if _, there := find(p.flows[f], r); !there {
		return
	}
	drop(p.flows, f, r)
	for _, other := range slices.Backward(p.flows[f]) {
		if usable(other.out) {
			c.tie(p, f, other.out)
			return
		}
	}
	c.tie(p, f, nil)
}

// tie makes the flow f of p use sa.
func (c *Controller) tie(p *policy, f flow.Tuple, sa *sad.Outbound) {
	if err := c.db.BindFlow(p.rule.ID, f, sa); err != nil {
		c.log.Error("bind a flow to its SA", "policy", p.rule.ID, "name", p.rule.Name, "flow", f, "err", err)
	}
}

// unbind leaves p, which has left the SPD, without SAs; what another policy under
// its ID uses stays.
func (c *Controller) unbind(p *policy) {
	id := p.rule.ID
	now := c.spds.byID[id]
	if now == nil {
		_ = c.db.Bind(id, nil) // cannot fail: it names no SA
	}
	for f := range p.flows {
		if now == nil || now.flows[f] == nil {
			c.tie(p, f, nil)
		}
	}
}

// narrow gives p, an SA that answers the acquire of one flow by its number (RFC
// 2367, section 3.1.6) and says nothing of its own, that flow's selector. larva
// is what GetSPI reserved for it, or nil.
func (c *Controller) narrow(by Origin, p *SAParams, larva *record) {
	if p.Sel != nil {
		return
	}
	if larva != nil && larva.keyed.params.Sel != nil {
		sel := *larva.keyed.params.Sel
		p.Sel = &sel
		return
	}
	q := c.asks.bySeq[by.Seq]
	if q == nil || by.Seq&flowSeq == 0 {
		return
	}
	t := &q.acquire.Template
	if t.Proto != p.Proto || (t.Mode == spd.Tunnel) != p.Tunnel {
		return
	}
	sel := q.acquire.Sel
	switch q.acquire.Peer {
	case p.Dst:
	case p.Src:
		sel = sel.Mirrored()
	default:
		return
	}
	p.Sel = &sel
}
