package control

import (
	"time"

	"spigot/sad"
)

// The pace of judging: a hundred thousand SAs take tens of milliseconds, which
// nobody else is to wait for.
const (
	minSlice  = 1024 // SAs judged at once
	maxSlices = 128  // that a round is made of; poll does one
)

// judge goes on with the round over all SAs that chores has begun.
func (c *Controller) judge(now time.Time) {
	if c.sas.cursor != nil {
		c.edit(func() { c.expire(now) })
	}
}

// expire judges the lifetimes of the next SAs: what has reached the hard one
// leaves, what has reached the soft one is announced once, and what is larval
// for too long is forgotten. Workers only count, so a lifetime is held to within
// two seconds.
func (c *Controller) expire(now time.Time) {
	for range max(minSlice, len(c.sas.byID)/maxSlices) {
		r := c.sas.cursor
		if r == nil {
			return
		}
		c.sas.cursor = r.next
		if r.larval && now.Sub(r.added) >= larvalLife {
			c.remove(r)
		}
		if !r.placed() {
			continue
		}
		packets, bytes := r.carried()
		r.notice(packets, now)
		reason := reached(&r.hardLimit, r, packets, bytes, now)
		if reason == "" && r.out != nil && !usable(r.out) {
			reason = "sequence" // RFC 4303, section 3.3.3: no number is sent twice
		}
		if reason != "" {
			c.tell(r, true, reason)
			if r.manual != nil {
				c.spent[r.manual.digest] = true // a reload must not start its sequence again
			}
			c.remove(r)
			continue
		}
		if r.soft {
			continue
		}
		if reason := reached(&r.softLimit, r, packets, bytes, now); reason != "" {
			r.soft = true
			c.tell(r, false, reason)
		}
	}
}

// notice takes down when the SA is used. Packets that it carried elsewhere are
// no use of it.
func (r *record) notice(packets uint64, now time.Time) {
	if r.keyed != nil {
		packets -= r.keyed.params.Carried.Packets
	}
	if packets == r.seen {
		return
	}
	r.seen, r.last = packets, now
	if r.used.IsZero() {
		r.used = now
	}
}

// reached says which bound of l the SA has come to, "" if none.
func reached(l *sad.Lifetime, r *record, packets, bytes uint64, now time.Time) string {
	switch {
	case l.Seconds != 0 && now.Sub(r.added) >= seconds(l.Seconds):
		return "time"
	case l.UseSeconds != 0 && !r.used.IsZero() && now.Sub(r.used) >= seconds(l.UseSeconds):
		return "use time"
	case l.Bytes != 0 && bytes >= l.Bytes:
		return "bytes"
	case l.Packets != 0 && packets >= l.Packets:
		return "packets"
	}
	return ""
}

// seconds returns n seconds, or the longest Duration where that is shorter.
func seconds(n uint64) time.Duration {
	const most = uint64(1<<63-1) / uint64(time.Second)
	return time.Duration(min(n, most)) * time.Second
}

// tell announces that r has reached a lifetime.
func (c *Controller) tell(r *record, hard bool, reason string) {
	if hard {
		c.stats.HardExpired++
		c.log.Warn("SA expired and is gone", "sa", r.sa(), "by", reason, "name", r.name)
	} else {
		c.stats.SoftExpired++
		c.log.Info("SA wants to be replaced", "sa", r.sa(), "by", reason, "name", r.name)
	}
	if c.heard(EventExpire, r.id.Proto) {
		v := r.view(false)
		c.tellEvent(Event{Kind: EventExpire, SA: &v, Hard: hard, Reason: reason})
	}
}
