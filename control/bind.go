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
	narrow   int                // of sas: those that carry a part of the traffic only
}

// add makes r an SA of w.
func (w *want) add(r *record) {
	w.sas = put(w.sas, r)
	if r.narrow() {
		w.narrow++
	}
}

// remove takes the SA in place i from w and says whether a policy may have to
// look for another one: only the newest is in use, unless some do not fit all
// policies or are used up.
func (w *want) remove(i int) (stale bool) {
	newest := w.sas[len(w.sas)-1]
	stale = i == len(w.sas)-1 || w.narrow > 0 || !usable(newest.out)
	if w.sas[i].narrow() {
		w.narrow--
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

// want returns what p asks of an SA. A template that names neither a reqid nor
// a peer is met by no SA, since whom to send to would depend on the packet: ok
// is false, as it is for policies that need no SA.
func (p *policy) wanted() (w wanted, ok bool) {
	t := &p.rule.Template
	if p.rule.Dir != spd.Out || p.rule.Action != spd.Protect || t.Reqid == 0 && t.Dst.IsZero() {
		return wanted{}, false
	}
	return wanted{t.Reqid, t.SPI, t.Proto, t.Mode == spd.Tunnel, t.Src, t.Dst}, true
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
			c.unbindFlow(p, r, w)
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

// seek gives p, which is new or another one under its ID, its SA.
func (c *Controller) seek(p *policy) {
	k, ok := p.wanted()
	if !ok { // an update may have changed that
		_ = c.db.Bind(p.rule.ID, nil) // cannot fail: it names no SA
		return
	}
	o := &c.offers
	w := o.wants[k]
	if w == nil {
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
	}
	if p.rule.PFP == 0 {
		w.policies[p.rule.ID] = p
		c.bind(p, w)
		return
	}
	_ = c.db.Bind(p.rule.ID, nil) // cannot fail: it names no SA
	w.perFlow[p.rule.ID] = p
	for _, r := range w.sas {
		c.bindFlow(p, r)
	}
}

// forsake undoes seek. The policy stays bound until compile makes the tables
// without it.
func (c *Controller) forsake(p *policy) {
	k, ok := p.wanted()
	if !ok {
		return
	}
	w := c.offers.wants[k]
	delete(w.policies, p.rule.ID)
	delete(w.perFlow, p.rule.ID)
	if len(w.policies)+len(w.perFlow) == 0 {
		delete(c.offers.wants, k)
		delete(c.offers.stale, w)
	}
}

// bind gives p the newest usable SA of w, so that a rekeyed SA takes over
// before the old one leaves (make before break).
func (c *Controller) bind(p *policy, w *want) {
	var sa *sad.Outbound
	for i := len(w.sas) - 1; i >= 0; i-- {
		if r := w.sas[i]; usable(r.out) && r.covers(&p.rule.Sel) {
			sa = r.out
			break
		}
	}
	if sa != nil {
		c.asks.answered(p.rule.ID)
	}
	if err := c.db.Bind(p.rule.ID, sa); err != nil {
		c.log.Error("bind a policy to its SA", "policy", p.rule.ID, "name", p.rule.Name, "err", err)
	}
}

// rebind binds anew the policies whose SAs have changed.
func (c *Controller) rebind() {
	for w := range c.offers.stale {
		for _, p := range w.policies {
			c.bind(p, w)
		}
	}
	clear(c.offers.stale)
}

// narrow says whether r has a selector of its own.
func (r *record) narrow() bool { return r.keyed != nil && r.keyed.params.Sel != nil }

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
