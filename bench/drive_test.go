package bench_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"spigot/internal/affinity"
)

// drive runs the worker on the last core until b ends, and keeps all other
// threads of the process off that core.
func (r *rig) drive(b testing.TB, allowed []int) {
	b.Helper()
	last := len(allowed) - 1
	ctx, cancel := context.WithCancel(context.Background())
	thread := make(chan int, 1)
	ended := onThread(func() error {
		defer close(thread)
		if err := affinity.Pin(allowed[last]); err != nil {
			return err
		}
		if err := affinity.Nice(-20); err != nil {
			return err
		}
		thread <- affinity.Thread()
		r.w.Run(ctx)
		return nil
	})
	b.Cleanup(func() {
		cancel()
		check(b, <-ended)
		_, err := affinity.Confine(allowed) // as it was
		check(b, err)
		if v := r.c.Load(); !v.Balanced() {
			b.Errorf("frames are counted twice, or not at all: %+v", v)
		}
	})
	var ok bool
	if r.thread, ok = <-thread; !ok {
		b.Fatal(<-ended)
	}
	if _, err := affinity.Confine(allowed[:last], r.thread); err != nil {
		b.Fatal(err)
	}
}

// waited returns how long a thread of the process has waited for its core
// because others ran there: the second number of schedstat.
func waited(b testing.TB, thread int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/schedstat", thread))
	if err != nil {
		b.Fatal(err)
	}
	var ran, waited time.Duration
	if _, err := fmt.Sscan(string(text), &ran, &waited); err != nil {
		b.Fatalf("read schedstat %q: %v", text, err)
	}
	return waited
}
