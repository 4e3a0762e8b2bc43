package control

import "time"

// bucket is a token bucket: rate tokens a second, at most burst of them saved
// up. It starts full.
type bucket struct {
	rate, burst float64
	tokens      float64
	last        time.Time
}

// take takes a token if there is one.
func (b *bucket) take(now time.Time) bool {
	if b.last.IsZero() {
		b.tokens = b.burst
	} else if d := now.Sub(b.last); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.rate)
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
