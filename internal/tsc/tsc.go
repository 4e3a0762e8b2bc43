// Package tsc reads the processor's time-stamp counter, which ticks at a
// constant rate whatever the core's clock does.
package tsc

import "time"

// Calibrate measures how many ticks of Now make a second, against the
// monotonic clock. It takes about 20 ms; a caller keeps the result.
func Calibrate() float64 {
	best := 0.0
	shortest := time.Duration(1<<63 - 1)
	for range 4 {
		t0, c0 := time.Now(), Now()
		time.Sleep(5 * time.Millisecond)
		c1 := Now()
		// A run that was interrupted between the two readings is longer than
		// the others, and its ratio worse.
		if d := time.Since(t0); d < shortest {
			shortest, best = d, float64(c1-c0)/d.Seconds()
		}
	}
	return best
}
