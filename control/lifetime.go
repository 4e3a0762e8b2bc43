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

// grace is what an SA gets at the least between the announcement of its soft
// lifetime and the end of the hard one. It is less than a second, so that a hard
// lifetime a second after the soft one does not miss its round.
const grace = 900 * time.Millisecond

// infancy is how old an SA is at the least when its soft lifetime is announced:
// a daemon that has just added it may not know it yet as its own, and is told
// only once. It also bounds how often an SA is rekeyed.
const infancy = 500 * time.Millisecond

// judge goes on with the round over all SAs that chores has begun.
func (c *Controller) judge(now time.Time) {
	if c.sas.cursor != nil {
		c.edit(func() { c.expire(now) })
	}
}

// expire judges the lifetimes of the next SAs, and what is larval for too long
// is forgotten. Workers only count: a lifetime in seconds is held to within two
// seconds, and one in bytes or packets by watch.
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
		if r.placed() {
			packets, bytes := r.carried()
			r.notice(packets, now)
			c.keepAlive(r, now)
			c.sentence(r, packets, bytes, now)
		}
	}
}

// watch judges the next of the SAs that have a lifetime in bytes or packets. A
// fast link takes such an SA from its soft to its hard lifetime within a
// fraction of the second that expire waits; a daemon is to have that time.
func (c *Controller) watch(now time.Time) {
	s := &c.sas
	if now.Sub(s.looked) < pollIdle {
		return
	}
	s.looked, s.due = now, s.due[:0]
	for range min(minSlice, len(s.watched)) {
		if s.turn >= len(s.watched) {
			s.turn = 0
		}
		r := s.watched[s.turn]
		s.turn++
		if !r.placed() {
			continue
		}
		packets, bytes := r.carried()
		if reason, _ := r.verdict(packets, bytes, now); reason != "" {
			s.due = append(s.due, r)
		}
	}
	if len(s.due) == 0 {
		return
	}
	c.edit(func() {
		for _, r := range s.due {
			packets, bytes := r.carried()
			r.notice(packets, now)
			c.sentence(r, packets, bytes, now)
		}
	})
	clear(s.due)
}

// sentence does what r's verdict says: what has reached its hard lifetime
// leaves, what has reached the soft one is announced once.
func (c *Controller) sentence(r *record, packets, bytes uint64, now time.Time) {
	reason, hard := r.verdict(packets, bytes, now)
	switch {
	case reason == "":
	case hard:
		c.tell(r, true, reason)
		if r.manual != nil {
			c.spent[r.manual.digest] = true // a reload must not start its sequence again
		}
		c.remove(r)
	default:
		r.soft, r.warned = true, now
		c.tell(r, false, reason)
	}
}

// verdict says which lifetime of r has ended, and by what: "" if none has. An SA
// whose soft lifetime has ended outlives that by grace, or nobody could replace
// it in time; except that no sequence number is ever sent twice.
func (r *record) verdict(packets, bytes uint64, now time.Time) (reason string, hard bool) {
	if r.out != nil && !usable(r.out) {
		return "sequence", true // RFC 4303, section 3.3.3
	}
	if !r.soft {
		if reason = reached(&r.softLimit, r, packets, bytes, now); reason != "" {
			if now.Sub(r.added) < infancy {
				reason = ""
			}
			return reason, false
		}
	} else if now.Sub(r.warned) < grace {
		return "", false
	}
	return reached(&r.hardLimit, r, packets, bytes, now), true
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
		v := c.viewOf(r, false)
		c.tellEvent(Event{Kind: EventExpire, SA: &v, Hard: hard, Reason: reason})
	}
}
