package ring

import (
	"testing"

	"golang.org/x/sys/unix"
)

func newBell(t *testing.T) *Bell {
	t.Helper()
	b, err := NewBell()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readable says whether poll(2) reports fd readable now.
func readable(t *testing.T, fd int) bool {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

// The bell is heard once, by a consumer that sleeps, and by nobody else.
func TestBell(t *testing.T) {
	b := newBell(t)
	for _, step := range []struct {
		name string
		do   func()
		want bool
	}{
		{"awake", b.Ring, false},
		{"goes to sleep", b.Sleep, false},
		{"rung", b.Ring, true},
		{"rung again", b.Ring, true},
		{"awake again", b.Wake, false},
		{"rung while awake", b.Ring, false},
		{"asleep once more", b.Sleep, false},
		{"awake of itself", b.Wake, false},
	} {
		step.do()
		if got := readable(t, b.FD()); got != step.want {
			t.Errorf("%s: readable: %t", step.name, got)
		}
	}
	b.Sleep()
	b.Ring()
	if !b.Wait() {
		t.Error("Wait says that the bell is closed")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Wait() {
		t.Error("Wait does not say that the bell is closed")
	}
}

// No value waits for ever, however producer and consumer meet.
func TestBellLosesNoValue(t *testing.T) {
	const values = 20000
	r, b := New[int](4), newBell(t)
	go func() {
		for i := range values {
			for r.Push([]int{i}) == 0 {
			}
			b.Ring()
		}
	}()
	var got [1]int
	for want := range values {
		for r.Pop(got[:]) == 0 {
			b.Sleep()
			if r.Len() == 0 && !b.Wait() {
				t.Fatal("closed")
			}
		}
		if got[0] != want {
			t.Fatalf("got %d, want %d", got[0], want)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestBellAllocatesNothing(t *testing.T) {
	b := newBell(t)
	defer b.Close()
	if n := testing.AllocsPerRun(100, func() { b.Sleep(); b.Ring(); b.Wake() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
