package control

import (
	"testing"
	"time"
	"unsafe"
)

// jumped returns t as it would read if somebody had put the wall clock on by d, in
// whole seconds: the monotonic reading stays. No other way makes such a Time.
func jumped(t time.Time, d time.Duration) time.Time {
	const hasMonotonic, perSecond = 1 << 63, 1 << 30 // see time.Time
	wall := (*uint64)(unsafe.Pointer(&t))
	if *wall&hasMonotonic == 0 {
		panic("no monotonic reading")
	}
	*wall += uint64(d/time.Second) * perSecond
	return t
}

// What jumped makes is what package time calls a jump of the wall clock.
func TestJumped(t *testing.T) {
	now := time.Now()
	for _, d := range []time.Duration{time.Hour, -24 * time.Hour} {
		if is := jumped(now, d); is.Sub(now) != 0 || is.Round(0).Sub(now.Round(0)) != d {
			t.Errorf("by %v: %v became %v", d, now, is)
		}
	}
}
