package control

import (
	"time"

	"spigot/internal/flow"
)

const (
	drainTime = time.Second // how long an SA that was replaced still opens packets
	maxDrains = 4096
)

// trunk is what inbound SAs that may replace one another have in common.
type trunk struct {
	src, dst flow.Addr
	reqid    uint32
	proto    uint8
	tunnel   bool
}

func (r *record) trunk() trunk {
	sa := &r.in.SA
	return trunk{sa.Src, sa.Dst, sa.Reqid, sa.Proto, sa.Tunnel}
}

// drain is an inbound SA that a daemon has deleted since a newer one replaces
// it. It is in no list any more, and workers go on to open what is on its way:
// the peer turns to the new SA when its own daemon comes to it, which may be
// after the daemon here has deleted the old one (iked does so at once; charon
// waits of itself).
type drain struct {
	id    SAID
	trunk trunk
	until time.Time
}

// drains are inbound SAs by trunk, and those that drain, the oldest first.
type drains struct {
	trunks map[trunk][]*record // in the order in which they were added
	list   []drain
}

// mayDrain says whether r, which a daemon deletes, has a successor. Without one
// the daemon means the peer, and deletes at once.
func (c *Controller) mayDrain(r *record) bool {
	if r.in == nil || r.keyed == nil || len(c.drains.list) >= maxDrains {
		return false
	}
	list := c.drains.trunks[r.trunk()]
	return list[len(list)-1] != r
}

// beginDrain notes that r, which leaves the SADB, stays with the workers for a
// while.
func (c *Controller) beginDrain(r *record, now time.Time) {
	c.drains.list = append(c.drains.list, drain{r.id, r.trunk(), now.Add(drainTime)})
}

// endDrains takes from the workers what drains and fits.
func (c *Controller) endDrains(fits func(*drain) bool) {
	rest := c.drains.list[:0]
	for i := range c.drains.list {
		d := c.drains.list[i]
		if !fits(&d) {
			rest = append(rest, d)
			continue
		}
		if err := c.db.Remove(d.id.SPI, d.id.Dst, d.id.Proto); err != nil {
			c.log.Error("remove an SA", "sa", d.id, "err", err)
		}
	}
	c.drains.list = rest
}

// drained ends what has drained for long enough.
func (c *Controller) drained(now time.Time) {
	if len(c.drains.list) == 0 || now.Before(c.drains.list[0].until) {
		return
	}
	c.edit(func() {
		c.endDrains(func(d *drain) bool { return !now.Before(d.until) })
	})
}

// carries notes that the workers have the inbound SA of r.
func (c *Controller) carries(r *record) {
	if r.in != nil {
		t := r.trunk()
		c.drains.trunks[t] = put(c.drains.trunks[t], r)
	}
}

// carriesNot undoes carries. With the last of its kind goes what drains.
func (c *Controller) carriesNot(r *record) {
	if r.in == nil {
		return
	}
	t := r.trunk()
	drop(c.drains.trunks, t, r)
	if c.drains.trunks[t] == nil {
		c.endDrains(func(d *drain) bool { return d.trunk == t })
	}
}
