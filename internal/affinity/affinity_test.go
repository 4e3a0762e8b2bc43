package affinity

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onThread runs f on a thread of its own, which ends with f.
func onThread(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

func allowedCores(t *testing.T) []int {
	t.Helper()
	cores, err := Allowed()
	if err != nil || len(cores) == 0 || !slices.IsSorted(cores) {
		t.Fatalf("allowed cores are %v, %v", cores, err)
	}
	return cores
}

func TestCheck(t *testing.T) {
	b, err := os.ReadFile(onlinePath)
	if err != nil {
		t.Fatal(err)
	}
	online, err := Parse(string(b))
	if err != nil {
		t.Fatal(err)
	}
	first := online[0]
	for _, c := range []struct {
		name    string
		core    int
		allowed []int
		want    string
	}{
		{"allowed", 7, []int{3, 4, 7}, ""},
		{"not on the machine", 8000, []int{3, 4, 7}, "8000 is not there or not online; choose one of 3-4,7"},
		{"negative", -1, []int{0}, "-1 is not there or not online; choose one of 0"},
		{"not for this process", first, []int{8001}, strconv.Itoa(first) + " is there, but this process may use 8001 only"},
	} {
		err := Check(c.core, c.allowed)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		} else if !errors.Is(err, ErrCore) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestPin(t *testing.T) {
	for _, core := range allowedCores(t) {
		onThread(t, func() {
			if err := Pin(core); err != nil {
				t.Error(err)
			}
			if got, err := coresOf(0); err != nil || !slices.Equal(got, []int{core}) {
				t.Errorf("the thread runs on %v, %v; want %d", got, err, core)
			}
		})
	}
}

func TestPinRefuses(t *testing.T) {
	use := Format(allowedCores(t))
	onThread(t, func() {
		before, _ := coresOf(0)
		for _, core := range []int{-1, maxCores - 1, maxCores, 1 << 40} {
			err := Pin(core)
			if !errors.Is(err, ErrCore) || !strings.Contains(err.Error(), strconv.Itoa(core)) || !strings.Contains(err.Error(), use) {
				t.Errorf("core %d: %v, want the core and %s", core, err, use)
			}
		}
		if after, _ := coresOf(0); !slices.Equal(before, after) {
			t.Errorf("the thread moved from %v to %v", before, after)
		}
	})
}

func TestNice(t *testing.T) {
	nice := func(tid int) int {
		n, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
		if err != nil {
			t.Fatal(err)
		}
		return 20 - n // what the system call returns instead of a negative number
	}
	before := nice(os.Getpid())
	onThread(t, func() {
		if err := Nice(19); err != nil {
			t.Error(err)
		}
		if n := nice(Thread()); n != 19 {
			t.Errorf("the thread's nice value is %d, want 19", n)
		}
	})
	if n := nice(os.Getpid()); n != before {
		t.Errorf("the process's nice value went from %d to %d", before, n)
	}
}

// placement returns the cores of every thread of the process.
func placement(t *testing.T) map[int]string {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	at := make(map[int]string)
	for _, path := range threads {
		tid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		cores, err := coresOf(tid)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		at[tid] = Format(cores)
	}
	return at
}

func TestConfine(t *testing.T) {
	allowed := allowedCores(t)
	defer func() {
		if _, err := Confine(allowed); err != nil {
			t.Error(err)
		}
	}()
	first, last := allowed[:1], allowed[len(allowed)-1]
	onThread(t, func() {
		if err := Pin(last); err != nil {
			t.Error(err)
			return
		}
		worker := Thread()
		n, err := Confine(first, worker)
		if err != nil || n == 0 {
			t.Errorf("moved %d threads, %v", n, err)
		}
		for tid, cores := range placement(t) {
			want := Format(first)
			if tid == worker {
				want = strconv.Itoa(last)
			}
			if cores != want {
				t.Errorf("thread %d runs on %s, want %s", tid, cores, want)
			}
		}
	})
	// A thread that starts later is confined, too.
	onThread(t, func() {
		if got, err := coresOf(0); err != nil || !slices.Equal(got, first) {
			t.Errorf("a new thread runs on %v, %v; want %v", got, err, first)
		}
	})
}

// TestNiceAll: all threads have the value but the one that is excepted, and so
// has a thread that starts later.
func TestNiceAll(t *testing.T) {
	niceOf := func(tid int) int {
		prio, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
		if err != nil {
			t.Error(err)
		}
		return 20 - prio // the system call's own way to say it
	}
	usual := niceOf(os.Getpid())
	defer func() {
		if _, err := NiceAll(usual); err != nil {
			t.Error(err)
		}
	}()
	onThread(t, func() {
		worker := Thread()
		before := niceOf(worker)
		n, err := NiceAll(-3, worker)
		if err != nil || n == 0 {
			t.Errorf("changed %d threads, %v", n, err)
		}
		for tid := range placement(t) {
			want := -3
			if tid == worker {
				want = before
			}
			if got := niceOf(tid); got != want {
				t.Errorf("thread %d has %d, want %d", tid, got, want)
			}
		}
	})
	onThread(t, func() {
		if got := niceOf(Thread()); got != -3 {
			t.Errorf("a new thread has %d, want -3", got)
		}
	})
}

func TestConfineToNothing(t *testing.T) {
	before := placement(t)
	if n, err := Confine(nil); n != 0 || err != nil {
		t.Errorf("moved %d threads, %v", n, err)
	}
	for tid, cores := range placement(t) {
		if was, there := before[tid]; there && was != cores {
			t.Errorf("thread %d moved from %s to %s", tid, was, cores)
		}
	}
}

func TestConfineRefuses(t *testing.T) {
	for _, cores := range [][]int{{maxCores - 1}, {maxCores}, {-1}} {
		if _, err := Confine(cores); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), Format(cores)) {
			t.Errorf("cores %v: %v", cores, err)
		}
	}
}
