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
	start := time.Now()
	t0, d0 := read(start)
	time.Sleep(3 * span)
	t1, d1 := read(start)
	got, want := float64(t1-t0)/hz, (d1 - d0).Seconds()
	if got < 0.99*want || got > 1.01*want {
		t.Errorf("%.6f s by the counter at %.0f Hz, %.6f s by the clock", got, hz, want)
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
