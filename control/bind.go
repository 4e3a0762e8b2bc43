package control

import (
	"cmp"
	"math"
	"slices"

	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// wanted is what a template asks of an SA. Both ways of keying are served:
// charon ties SAs to policies by reqid, and names the SPI so that a rekeyed SA
// waits until the peer has it, too; iked and people do it by the tunnel.
type wanted struct {
	reqid    uint32 // 0: any
	spi      uint32 // 0: any
	proto    uint8
	tunnel   bool
	src, dst flow.Addr // zero: any
}

// want is all outbound policies that want one kind of SA, and the SAs of it.
type want struct {
	policies map[uint32]*policy // that one SA serves
	perFlow  map[uint32]*policy // that have an SA for each flow
	sas      []*record          // in the order in which they were added
	parts    int                // of sas: those that carry a part of the traffic only
}

// add makes r an SA of w.
func (w *want) add(r *record) {
	w.sas = put(w.sas, r)
	if r.partial() {
		w.parts++
	}
}

// remove takes the SA in place i from w and says whether a policy may have to
// look for another one: only the newest is in use, unless some do not fit all
// policies or are used up.
func (w *want) remove(i int) (stale bool) {
	newest := w.sas[len(w.sas)-1]
	stale = i == len(w.sas)-1 || w.parts > 0 || !usable(newest.out)
	if w.sas[i].partial() {
		w.parts--
	}
	w.sas = slices.Delete(w.sas, i, i+1)
	return stale
}

// offers is the outbound SAs, by what a policy that is new looks for.
type offers struct {
	wants  map[wanted]*want
	reqids map[uint32][]*record // in the order in which they were added
	peers  map[flow.Addr][]*record
	stale  map[*want]bool // its policies are to be bound anew
}

// wantedOf lists all templates that an SA answers, some of them twice.
func wantedOf(sa *sad.SA) [16]wanted {
	var all [16]wanted
	for i := range all {
		w := wanted{proto: sa.Proto, tunnel: sa.Tunnel}
		if i&1 != 0 {
			w.reqid = sa.Reqid
		}
		if i&2 != 0 {
			w.src = sa.Src
		}
		if i&4 != 0 {
			w.dst = sa.Dst
		}
		if i&8 != 0 {
			w.spi = sa.SPI
		}
		all[i] = w
	}
	return all
}

// wanted returns what p asks of its SAs, the innermost first. A template that
// names neither a reqid nor a peer is met by no SA, since whom to send to would
// depend on the packet: there is nothing then, as for policies that need no SA.
func (p *policy) wanted() []wanted {
	if p.rule.Dir != spd.Out || p.rule.Action != spd.Protect {
		return nil
	}
	templates := p.rule.Templates()
	all := make([]wanted, len(templates))
	for i := range templates {
		t := &templates[i]
		w := wanted{t.Reqid, t.SPI, t.Proto, t.Mode == spd.Tunnel, t.Src, t.Dst}
		if i == 0 && !w.tunnel {
			w.betweenHosts(&p.rule.Sel)
		}
		if w.reqid == 0 && w.dst.IsZero() {
			return nil
		}
		all[i] = w
	}
	return all
}

// betweenHosts gives w, which is in transport mode, the peer that it leaves open:
// the packet's destination, where s has but one.
func (w *wanted) betweenHosts(s *flow.Selector) {
	if w.dst.IsZero() && s.Dst.Lo == s.Dst.Hi {
		w.dst = s.Dst.Lo
	}
}

// offer lets policies use r.
func (c *Controller) offer(r *record) {
	if r.out == nil {
		return
	}
	o, sa := &c.offers, r.sa()
	o.peers[sa.Dst] = put(o.peers[sa.Dst], r)
	if sa.Reqid != 0 {
		o.reqids[sa.Reqid] = put(o.reqids[sa.Reqid], r)
	}
	for _, k := range wantedOf(sa) {
		w := o.wants[k]
		if w == nil {
			continue
		}
		if _, there := find(w.sas, r); !there {
			w.add(r)
			o.stale[w] = true
			for _, p := range w.perFlow {
				c.bindFlow(p, r)
			}
		}
	}
}

// withdraw undoes offer.
func (c *Controller) withdraw(r *record) {
	if r.out == nil {
		return
	}
	o, sa := &c.offers, r.sa()
	drop(o.peers, sa.Dst, r)
	drop(o.reqids, sa.Reqid, r)
	for _, k := range wantedOf(sa) {
		w := o.wants[k]
		if w == nil {
			continue
		}
		i, ok := find(w.sas, r)
		if ok && w.remove(i) {
			o.stale[w] = true
		}
		for _, p := range w.perFlow {
			c.unbindFlow(p, r)
		}
	}
}

// find returns r's place in list, which is in the order of adding.
func find(list []*record, r *record) (int, bool) {
	return slices.BinarySearchFunc(list, r, func(a, b *record) int { return cmp.Compare(a.order, b.order) })
}

// put adds r to list, in its place: at the end unless it was there before.
func put(list []*record, r *record) []*record {
	i, _ := find(list, r)
	return slices.Insert(list, i, r)
}

// drop takes r from the list of key.
func drop[K comparable](lists map[K][]*record, key K, r *record) {
	list := lists[key]
	i, ok := find(list, r)
	switch {
	case !ok:
	case len(list) == 1:
		delete(lists, key)
	default:
		lists[key] = slices.Delete(list, i, i+1)
	}
}

// seek gives p, which is new or another one under its ID, its SAs.
func (c *Controller) seek(p *policy) {
	all := p.wanted()
	if len(all) == 0 { // an update may have changed that
		_ = c.db.Bind(p.rule.ID, nil) // cannot fail: it names no SA
		return
	}
	if p.rule.PFP == 0 {
		for _, k := range all {
			c.offers.want(k).policies[p.rule.ID] = p
		}
		c.bind(p, all)
		return
	}
	_ = c.db.Bind(p.rule.ID, nil) // cannot fail: it names no SA
	w := c.offers.want(all[0])
	w.perFlow[p.rule.ID] = p
	for _, r := range w.sas {
		c.bindFlow(p, r)
	}
}

// want returns the want of k, which may be new.
func (o *offers) want(k wanted) *want {
	w := o.wants[k]
	if w != nil {
		return w
	}
	w = &want{policies: map[uint32]*policy{}, perFlow: map[uint32]*policy{}}
	list := o.peers[k.dst]
	if k.reqid != 0 {
		list = o.reqids[k.reqid]
	}
	for _, r := range list {
		if all := wantedOf(r.sa()); slices.Contains(all[:], k) {
			w.add(r)
		}
	}
	o.wants[k] = w
	return w
}

// forsake undoes seek. The policy stays bound until compile makes the tables
// without it.
func (c *Controller) forsake(p *policy) {
	for _, k := range p.wanted() {
		w := c.offers.wants[k]
		if w == nil {
			continue // a bundle may want the same twice
		}
		delete(w.policies, p.rule.ID)
		delete(w.perFlow, p.rule.ID)
		if len(w.policies)+len(w.perFlow) == 0 {
			delete(c.offers.wants, k)
			delete(c.offers.stale, w)
		}
	}
}

// bind gives p the newest usable SA of each that it wants, so that a rekeyed SA
// takes over before the old one leaves (make before break). While one is missing
// it has none.
func (c *Controller) bind(p *policy, all []wanted) {
	sas, missing := c.choose(p, all)
	if missing < 0 {
		c.asks.answered(p.rule.ID, 0)
	}
	own := c.own(p, all)
	for _, sa := range own {
		if sa.CPU != 0 {
			c.asks.answered(p.rule.ID, sa.CPU)
		}
	}
	var err error
	switch {
	case own != nil && missing >= 0:
		err = c.db.BindSeveral(p.rule.ID, nil, own)
	case own != nil:
		err = c.db.BindSeveral(p.rule.ID, sas[0], own)
	case missing >= 0:
		err = c.db.Bind(p.rule.ID, nil)
	default:
		err = c.db.BindBundle(p.rule.ID, sas)
	}
	if err != nil {
		c.log.Error("bind a policy to its SA", "policy", p.rule.ID, "name", p.rule.Name, "err", err)
	}
}

// choose returns the SAs for p, or which of those that it wants is missing; -1
// if none is.
func (c *Controller) choose(p *policy, all []wanted) (sas []*sad.Outbound, missing int) {
	carried := p.rule.Sel
	for i, k := range all {
		sa := c.offers.wants[k].newest(&carried)
		if sa == nil {
			return nil, i
		}
		sas = append(sas, sa)
		if sa.Tunnel { // what the next one carries is between its ends
			carried = flow.Selector{
				Src: flow.AddrRange{Lo: sa.Src, Hi: sa.Src}, Dst: flow.AddrRange{Lo: sa.Dst, Hi: sa.Dst},
				SrcPort: flow.AnyPort, DstPort: flow.AnyPort, Proto: sa.Proto,
			}
		}
	}
	return sas, -1
}

// newest returns the newest usable SA of w that is for all and may carry
// all that s selects, or nil.
func (w *want) newest(s *flow.Selector) *sad.Outbound {
	for _, r := range slices.Backward(w.sas) {
		if r.out.ForAll() && usable(r.out) && r.covers(s) {
			return r.out
		}
	}
	return nil
}

// rebind binds anew the policies whose SAs have changed.
func (c *Controller) rebind() {
	for w := range c.offers.stale {
		for _, p := range w.policies {
			c.bind(p, p.wanted())
		}
	}
	clear(c.offers.stale)
}

// narrow says whether r has a selector of its own.
func (r *record) narrow() bool { return r.keyed != nil && r.keyed.params.Sel != nil }

// partial says whether r carries a part of the traffic only.
func (r *record) partial() bool { return r.narrow() || !r.out.ForAll() }

// covers says whether r may carry all that s selects.
func (r *record) covers(s *flow.Selector) bool {
	return !r.narrow() || r.keyed.params.Sel.Covers(s)
}

// usable says whether sa can seal another packet.
func usable(sa *sad.Outbound) bool { return sa.Seq() < lastSeq(&sa.SA) }

// lastSeq returns the last sequence number of an SA (RFC 4303, section 3.3.3).
func lastSeq(sa *sad.SA) uint64 {
	if sa.ESN {
		return math.MaxUint64
	}
	return math.MaxUint32
}
