package tsc

import (
	"testing"
	"time"
)

func TestNowGoesForward(t *testing.T) {
	last := Now()
	for range 10_000 {
		now := Now()
		if now < last {
			t.Fatalf("%d after %d", now, last)
		}
		last = now
	}
}

// The rate of one span holds over another, longer one.
func TestCalibrate(t *testing.T) {
	hz := Calibrate()
	t0, start := Now(), time.Now()
	time.Sleep(3 * span)
	t1, d := Now(), time.Since(start)
	if got := float64(t1-t0) / hz; got < 0.98*d.Seconds() || got > 1.02*d.Seconds() {
		t.Errorf("at %.0f Hz %v took %.6f s", hz, d, got)
	}
}

func TestNowAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Now() }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		Now()
	}
}
