package control

import (
	"time"

	"spigot/sad"
)

// Expire tells that an SA has reached a lifetime (RFC 2367, section 3.1.7).
type Expire struct {
	SA      *sad.SA // immutable; of a hard expiry its key dies soon
	Inbound bool
	Hard    bool   // the SA is gone; else it wants to be replaced
	Reason  string // "time", "use time", "bytes", "packets" or "sequence"
}

// expire judges the lifetimes of all SAs: what has reached the hard one leaves,
// what has reached the soft one is announced once. Workers only count, so a
// lifetime is held to within a second.
func (c *Controller) expire(now time.Time) {
	var dead map[*record]bool
	for _, r := range c.sas {
		packets, bytes := r.carried()
		if packets > 0 && r.used.IsZero() {
			r.used = now
		}
		reason := reached(&r.hardLimit, r, packets, bytes, now)
		if reason == "" && r.out != nil && !usable(r.out) {
			reason = "sequence" // RFC 4303, section 3.3.3: no number is sent twice
		}
		if reason != "" {
			if dead == nil {
				dead = make(map[*record]bool)
			}
			dead[r] = true
			c.tell(r, true, reason)
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
	if len(dead) == 0 {
		return
	}
	_ = c.db.Batch(func() error {
		c.remove(func(r *record) bool {
			if dead[r] && r.manual != nil {
				c.spent[r.manual.digest] = true // a reload must not start its sequence again
			}
			return dead[r]
		})
		c.rebind()
		return nil
	})
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
	if c.cfg.OnExpire != nil {
		c.cfg.OnExpire(Expire{SA: r.sa(), Inbound: r.in != nil, Hard: hard, Reason: reason})
	}
}
