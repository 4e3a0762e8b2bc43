package tsc

import (
	"testing"
	"time"
)

func TestNowGrowsAtItsRate(t *testing.T) {
	hz := Calibrate()
	if hz < 1e8 || hz > 1e10 {
		t.Fatalf("%.0f ticks a second", hz)
	}
	// Within a tenth: this holds the unit, not the machine's precision.
	t0, c0 := time.Now(), Now()
	time.Sleep(50 * time.Millisecond)
	c1 := Now()
	got := float64(c1-c0) / hz
	if want := time.Since(t0).Seconds(); got < 0.9*want-0.001 || got > 1.1*want+0.001 {
		t.Errorf("%.6f s by the counter, %.6f s by the clock", got, want)
	}
	if n := testing.AllocsPerRun(100, func() { Now() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
