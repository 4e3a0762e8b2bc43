package control

import (
	"cmp"
	"slices"
	"time"

	"spigot/internal/flow"
	"spigot/spd"
)

const (
	flowSeq      = 1 << 31          // of the numbers of acquires for one flow: daemons count their own from 1
	acquireQuiet = 30 * time.Second // one acquire for a policy and peer holds back others for as long
	maxAsks      = 4096             // acquires that are remembered
	maxPeers     = 256              // the same of one policy, so that it cannot use up those of others
)

// Acquire asks a key daemon for an SA (RFC 2367, section 3.1.6).
type Acquire struct {
	Seq    uint32  // unique; the daemon's answer names it
	Policy *Policy // as it was
	// Template is of the SA that is missing: of a bundle, the first.
	Template spd.Template
	Flow     flow.Tuple // of the packet that found no SA
	// Sel is what the SA is to carry: the policy's selector, with the fields that
	// it takes from packets as Flow has them.
	Sel  flow.Selector
	Src  flow.Addr // the gateway's end of the SA; zero: any
	Peer flow.Addr // with whom to negotiate
	CPU  uint16    // the worker, counted from 1, that the SA is to be for (RFC 9611); 0: all
	Time time.Time
}

// ask is what an acquire is for.
type ask struct {
	policy uint32
	peer   flow.Addr
	flow   flow.Tuple // of a policy that has an SA for each flow; else zero
	cpu    uint16     // of a policy that has an SA for each worker; else 0
}

// asked is an acquire that was made, whether anybody listened or not.
type asked struct {
	ask
	acquire Acquire
	heard   bool // by a subscriber
}

// acquires is what was asked for in the last acquireQuiet and not answered yet.
type acquires struct {
	byAsk    map[ask]*asked
	bySeq    map[uint32]*asked
	byPolicy map[uint32][]*asked
	lastSeq  uint32
}

func (a *acquires) add(q *asked) {
	a.byAsk[q.ask], a.bySeq[q.acquire.Seq] = q, q
	a.byPolicy[q.policy] = append(a.byPolicy[q.policy], q)
}

func (a *acquires) remove(q *asked) {
	delete(a.byAsk, q.ask)
	delete(a.bySeq, q.acquire.Seq)
	rest := slices.DeleteFunc(a.byPolicy[q.policy], func(p *asked) bool { return p == q })
	if a.byPolicy[q.policy] = rest; len(rest) == 0 {
		delete(a.byPolicy, q.policy)
	}
}

// answered lets a policy that has an SA now, for that worker if cpu is not 0, ask
// again as soon as it loses it.
func (a *acquires) answered(policy uint32, cpu uint16) {
	for _, q := range slices.Clone(a.byPolicy[policy]) {
		if q.cpu == cpu {
			a.remove(q)
		}
	}
}

// answeredFlow is answered for one flow of a policy.
func (a *acquires) answeredFlow(policy uint32, f flow.Tuple) {
	for _, q := range a.byPolicy[policy] {
		if q.flow == f {
			a.remove(q)
			return
		}
	}
}

// acquire passes a worker's request on, once in acquireQuiet for each policy
// and peer, or flow: workers repeat themselves.
func (c *Controller) acquire(req *spd.AcquireRequest, now time.Time) {
	c.stats.Acquires++
	p := c.spds.byID[req.Policy]
	if p == nil || !c.lacks(req) {
		return // answered, or the policy is gone: the request was on its way
	}
	f := p.rule.FlowOf(&req.Flow)
	if p.flows[f] != nil {
		return
	}
	t := c.missing(p)
	peer := t.Dst
	if peer.IsZero() {
		peer = req.Flow.Dst
	}
	k := ask{req.Policy, peer, f, req.CPU}
	if q := c.asks.byAsk[k]; q != nil {
		if now.Sub(q.acquire.Time) < acquireQuiet {
			return
		}
		c.asks.remove(q)
	}
	if len(c.asks.byAsk) >= maxAsks || len(c.asks.byPolicy[req.Policy]) >= maxPeers {
		c.stats.AcquiresLost++
		return
	}
	v := c.policyOf(p)
	c.asks.lastSeq++
	a := Acquire{
		Seq: c.asks.lastSeq &^ flowSeq, Policy: &v, Template: t, Flow: req.Flow, Sel: p.rule.Narrowed(&req.Flow),
		Src: t.Src, Peer: peer, CPU: req.CPU, Time: now,
	}
	if p.rule.PFP != 0 {
		a.Seq |= flowSeq
	}
	if a.Src.IsZero() && t.Mode == spd.Transport {
		a.Src = req.Flow.Src
	}
	c.asks.add(&asked{ask: k, acquire: a, heard: c.heard(EventAcquire, t.Proto)})
	c.stats.AcquiresSent++
	if req.CPU == 0 && c.askLog.take(now) {
		c.log.Warn("no SA for a packet", "policy", v.ID, "name", v.Name, "peer", peer, "flow", req.Flow)
	}
	c.tellEvent(Event{Kind: EventAcquire, Acquire: &a})
}

// missing returns the template of p that has no SA; of a bundle, the first.
func (c *Controller) missing(p *policy) spd.Template {
	templates := p.rule.Templates()
	if all := p.wanted(); len(all) > 1 {
		if _, i := c.choose(p, all); i >= 0 {
			return templates[i]
		}
	}
	return templates[0]
}

// forgetAsks drops what is no reason to be quiet any more.
func (c *Controller) forgetAsks(now time.Time) {
	for _, q := range c.asks.byAsk {
		if now.Sub(q.acquire.Time) >= acquireQuiet {
			c.asks.remove(q)
		}
	}
}

// forgetUnheard lets what nobody has heard be asked again now that somebody
// listens.
func (c *Controller) forgetUnheard(i *Interest) {
	for _, q := range c.asks.byAsk {
		if !q.heard && i.wants(EventAcquire, q.acquire.Template.Proto) {
			c.asks.remove(q)
		}
	}
}

// askedFor returns what q asks for, its time being that of the wall clock.
func (c *Controller) askedFor(q *asked) Acquire {
	a := q.acquire
	a.Time = c.clock.wall(a.Time)
	return a
}

// Acquire returns the acquire of that number, if it is neither answered nor
// older than 30 seconds.
func (k *Keying) Acquire(seq uint32) (Acquire, bool) {
	q := k.c.asks.bySeq[seq]
	if q == nil {
		return Acquire{}, false
	}
	return k.c.askedFor(q), true
}

// Acquires returns those that are neither answered nor older than 30 seconds,
// the oldest first.
func (k *Keying) Acquires() []Acquire {
	all := make([]Acquire, 0, len(k.c.asks.bySeq))
	for _, q := range k.c.asks.bySeq {
		all = append(all, k.c.askedFor(q))
	}
	slices.SortFunc(all, func(a, b Acquire) int { return cmp.Compare(a.Seq, b.Seq) })
	return all
}

// FailAcquire says that a daemon has given up the acquire of that number, so
// that the next packet asks again. It is false if there is none.
func (k *Keying) FailAcquire(seq uint32) bool {
	q := k.c.asks.bySeq[seq]
	if q != nil {
		k.c.asks.remove(q)
	}
	return q != nil
}
