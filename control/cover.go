package control

import (
	"math/rand/v2"
	"time"

	"spigot/internal/wire"
	"spigot/sad"
)

// cover is the dummy packets of an SA that is to send some while it is idle
// (RFC 4303, section 2.6), so that nobody learns when it is.
type cover struct {
	policy  uint32 // that the SA serves
	packets uint64 // that the SA had carried at the last look
	sent    uint64 // dummies that were not among them
	idle    bool   // nothing else was
	next    time.Time
}

// The dummies' lengths, without traffic-flow padding, which makes them as long
// as the others.
const (
	minDummy = 40
	maxDummy = 1400
)

// maxDummies bounds what one look at the clock sends for an SA.
const maxDummies = 8

// wantsCover says whether sa is to send dummies.
func wantsCover(sa *sad.Outbound) bool {
	return sa.Outer.Dummy != 0 && sa.Tunnel && sa.Proto == wire.ProtoESP
}

// notesCover notes whether sa wants dummies. Looking for such SAs costs what there
// is of policies, which nobody pays who has none.
func (c *Controller) notesCover(sa *sad.Outbound) { c.covering = c.covering || wantsCover(sa) }

// planCovers finds, once a second, the SAs that want dummies, and which of them
// have carried nothing else since the last time.
func (c *Controller) planCovers(now time.Time) {
	if !c.covering {
		return
	}
	before := c.covers
	c.covers = make(map[*sad.Outbound]*cover, len(before))
	for policy, sa := range c.db.Bindings() {
		if !wantsCover(sa) || c.covers[sa] != nil {
			continue
		}
		if c.db.Snapshot().Outbound(policy) != sa {
			continue // it is in a bundle, under which workers send none
		}
		packets, _ := sa.Used()
		v := before[sa]
		if v == nil {
			v = &cover{packets: packets, next: now}
		}
		carried := packets - v.packets
		v.idle = carried <= v.sent
		v.sent -= min(v.sent, carried)
		v.sent = min(v.sent, uint64(sa.Outer.Dummy)) // what was lost on its way is not waited for
		v.policy, v.packets = policy, packets
		c.covers[sa] = v
	}
}

// sendCovers has the workers send the dummies that are due.
func (c *Controller) sendCovers(now time.Time) {
	if len(c.cfg.Workers) == 0 {
		return
	}
	for sa, v := range c.covers {
		if !v.idle {
			v.next = now
			continue
		}
		every := time.Second / time.Duration(sa.Outer.Dummy)
		for n := 0; n < maxDummies && !v.next.After(now); n++ {
			c.coverWorker = (c.coverWorker + 1) % len(c.cfg.Workers)
			m := &c.inject[0]
			m.Dummy, m.Len = v.policy, uint16(minDummy+rand.IntN(maxDummy-minDummy))
			if c.cfg.Workers[c.coverWorker].Injects.Push(c.inject[:]) == 1 {
				v.sent++
				c.stats.Dummies++
			}
			v.next = v.next.Add(every)
		}
		if now.Sub(v.next) > every {
			v.next = now // late by more than it can make up
		}
	}
	c.inject[0].Dummy = 0
}
