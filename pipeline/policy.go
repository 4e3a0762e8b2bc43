package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// policy asks the SPD what becomes of each packet that wants to leave by the
// wire (RFC 4301, section 5.1), and finds the SA where the answer is protect.
func (w *Worker) policy(b *Burst) {
	var last bound
	for _, i := range b.Live() {
		w.judge(b, i, &last)
	}
}

// bound is a protect policy and its SA: packets of one flow come in rows. Where
// the packets' codepoints choose among several SAs, sa is nil.
type bound struct {
	pol     *spd.Policy
	sa      *sad.Outbound
	classes *sad.Classes  // by codepoint; nil where these do not matter
	rest    *sad.Outbound // of all that have none in classes
}

// judge is policy for packet i.
func (w *Worker) judge(b *Burst, i uint8, last *bound) {
	p := &b.pkts[i]
	if p.info.Fragment && !w.portsOf(b, i, w.spd.Out, laneOut) {
		return
	}
	t := &p.tuple
	pol := w.outCache.Lookup(w.spd.Out, t)
	if pol == nil {
		pol, t = w.byQuote(p)
	}
	switch {
	case pol == nil:
		b.Drop(i, counter.NoPolicy)
	case pol.Action == spd.Bypass:
	case pol.Action != spd.Protect:
		b.Drop(i, counter.PolicyDiscard)
	default:
		if pol != last.pol {
			*last = w.bindingOf(pol)
			if pol.PerCPU && last.rest != nil && last.rest.CPU == 0 {
				w.acquire(pol, t, w.cfg.CPU)
			}
		}
		p.out = last.sa
		if p.out == nil && w.unbound(last, p, t) {
			b.Drop(i, counter.NoSA)
		}
	}
}

// bindingOf finds the SA of pol, or the SAs.
func (w *Worker) bindingOf(pol *spd.Policy) bound {
	b := bound{pol: pol}
	b.rest, b.classes = w.sad.OutboundsOn(pol.ID, w.cfg.CPU)
	if b.classes == nil {
		b.sa = b.rest
	}
	return b
}

// of returns the SA for a packet with that type of service, or traffic class (RFC
// 4301, section 4.4.2.1), or nil.
func (b *bound) of(tos uint8) *sad.Outbound {
	if b.classes != nil {
		if sa := b.classes[tos>>2]; sa != nil {
			return sa
		}
	}
	return b.rest
}

// unbound handles a protect policy that one SA does not serve: p gets that of its
// codepoint, or of its flow t, where the policy has such. Else it asks the slow
// path for one where the policy's level says so, and tells whether the packet is
// lost.
func (w *Worker) unbound(b *bound, p *packet, t *flow.Tuple) (drop bool) {
	if p.out = b.of(p.info.TOS); p.out != nil {
		return false
	}
	pol := b.pol
	if pol.PFP != 0 {
		f := pol.FlowOf(t)
		if p.out = w.sad.OutboundFlow(pol.ID, &f); p.out != nil {
			return false
		}
	}
	if pol.Level == spd.Require || pol.Level == spd.Acquire {
		w.acquire(pol, t, 0)
	}
	return pol.Level == spd.Require || pol.Level == spd.DontAcq
}

// policyBack holds each packet that came from the wire against the SPD: one
// that came by an SA must lie in the SA's selectors and have come by the SA
// that its policy names (RFC 4301, section 5.2, step 4); one that came in
// clear must have a policy that lets it.
func (w *Worker) policyBack(b *Burst) {
	for _, i := range b.Live() {
		p := &b.pkts[i]
		if p.info.Fragment && !w.portsOf(b, i, w.spd.In, laneOf(p)) {
			continue
		}
		t := &p.tuple
		if p.in != nil {
			if p.isICMP() {
				if t = w.judgedBy(b, i); t == nil {
					continue
				}
			}
			if !p.in.Admits(t) {
				b.Drop(i, counter.SelectorMismatch)
				continue
			}
			if p.in.Outer.MSS != 0 {
				w.clampIn(p)
			}
		}
		pol := w.inCache.Lookup(w.spd.In, t)
		switch {
		case pol == nil:
			b.Drop(i, counter.NoPolicy)
		case pol.Action == spd.Bypass:
		case pol.Action != spd.Protect:
			b.Drop(i, counter.PolicyDiscard)
		case p.in == nil:
			if pol.Level != spd.Use && pol.Level != spd.Acquire {
				b.Drop(i, counter.InPolicyClear)
			}
		case !cameBy(&pol.Template, p.in) && !w.cameByAll(pol, i, p.in):
			b.Drop(i, counter.InPolicyMismatch)
		}
	}
}

// cameBy says whether sa is one that t names. The template of a policy that has
// a bundle is zero and names none, and no template names w.several.
func cameBy(t *spd.Template, sa *sad.Inbound) bool {
	return t.Proto == sa.Proto &&
		(t.Mode == spd.Tunnel) == sa.Tunnel &&
		(t.Reqid == 0 || t.Reqid == sa.Reqid) &&
		(t.Src.IsZero() || t.Src == sa.Src) &&
		(t.Dst.IsZero() || t.Dst == sa.Dst)
}
