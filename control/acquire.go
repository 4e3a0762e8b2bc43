package control

import (
	"time"

	"spigot/internal/flow"
	"spigot/spd"
)

const (
	acquireQuiet = 30 * time.Second // one acquire for a policy and peer holds back others for as long
	maxAsks      = 4096             // acquires that are remembered
)

// Acquire asks a key daemon for an SA (RFC 2367, section 3.1.6).
type Acquire struct {
	Seq    uint32      // unique; the daemon's answer names it
	Policy *spd.Policy // immutable
	Flow   flow.Tuple  // of the packet that found no SA
	Peer   flow.Addr   // with whom to negotiate
}

// ask is what an acquire is for.
type ask struct {
	policy uint32
	peer   flow.Addr
}

// acquire passes a worker's request on, once in acquireQuiet for each policy
// and peer: workers repeat themselves.
func (c *Controller) acquire(req *spd.AcquireRequest, now time.Time) {
	c.stats.Acquires++
	p := c.policies[req.Policy]
	if p == nil || c.cfg.SAD.Load().Outbound(p.ID) != nil {
		return // answered, or the policy is gone: the request was on its way
	}
	peer := p.Template.Dst
	if peer.IsZero() {
		peer = req.Flow.Dst
	}
	k := ask{p.ID, peer}
	if t, asked := c.asks[k]; asked && now.Sub(t) < acquireQuiet {
		return
	}
	if len(c.asks) >= maxAsks {
		c.stats.AcquiresLost++
		return
	}
	c.asks[k] = now
	c.askSeq++
	c.stats.AcquiresSent++
	if c.askLog.take(now) {
		c.log.Warn("no SA for a packet", "policy", p.ID, "name", p.Name, "peer", peer, "flow", req.Flow)
	}
	if c.cfg.OnAcquire != nil {
		c.cfg.OnAcquire(Acquire{Seq: c.askSeq, Policy: p, Flow: req.Flow, Peer: peer})
	}
}

// forgetAsks drops what is no reason to be quiet any more.
func (c *Controller) forgetAsks(now time.Time) {
	for k, t := range c.asks {
		if now.Sub(t) >= acquireQuiet {
			delete(c.asks, k)
		}
	}
}

// forgetAnswered lets each policy that has an SA now ask again as soon as it
// loses it.
func (c *Controller) forgetAnswered() {
	bound := c.cfg.SAD.Load()
	for k := range c.asks {
		if bound.Outbound(k.policy) != nil {
			delete(c.asks, k)
		}
	}
}
