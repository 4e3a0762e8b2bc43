// Package tsc reads the processor's time stamp counter, which on every amd64
// processor of the last fifteen years ticks at one constant rate on all cores.
// Elsewhere, and under the build tag purego, the monotonic clock stands in for
// it, with one tick a nanosecond.
package tsc

import (
	"math"
	"time"
)

// span is how long Calibrate measures. Its two readings are each wrong by some
// ten nanoseconds: that is a millionth of it.
const span = 20 * time.Millisecond

// Calibrate measures how many ticks Now counts a second against the monotonic
// clock. It takes about 20 ms; measure once and keep the result.
func Calibrate() float64 {
	start := time.Now()
	t0, d0 := read(start)
	time.Sleep(span)
	t1, d1 := read(start)
	return float64(t1-t0) / (d1 - d0).Seconds()
}

// read reads both clocks at one moment: of several tries the one in which the
// two readings of the counter lie closest together, because nothing came
// between them.
func read(start time.Time) (ticks uint64, d time.Duration) {
	best := uint64(math.MaxUint64)
	for range 16 {
		before := Now()
		now := time.Since(start)
		after := Now()
		if width := after - before; width < best {
			best, ticks, d = width, before+width/2, now
		}
	}
	return ticks, d
}
