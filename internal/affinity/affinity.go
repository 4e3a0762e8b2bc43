// Package affinity places the process's threads on the machine's cores. A core
// is a CPU as Linux numbers it.
package affinity

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrCore is wrapped by the errors about a core that is not there, or that the
// process may not use.
var ErrCore = errors.New("affinity: unusable core")

// maxCores is how many cores this package can name; Linux is never built for
// more than 8192.
const maxCores = 8192

// onlinePath lists the machine's cores as Parse reads them.
const onlinePath = "/sys/devices/system/cpu/online"

// Allowed returns the cores that the process may use, ascending: those of its
// main thread. Ask before that thread is pinned or confined.
func Allowed() ([]int, error) {
	cores, err := coresOf(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("affinity: ask for the allowed cores: %w", err)
	}
	return cores, nil
}

// coresOf returns the cores of the thread tid, or of the calling one for 0.
func coresOf(tid int) ([]int, error) {
	set := unix.NewCPUSet(maxCores)
	if err := unix.SchedGetaffinityDynamic(tid, set); err != nil {
		return nil, err
	}
	var cores []int
	for core := range maxCores {
		if set.IsSet(core) {
			cores = append(cores, core)
		}
	}
	return cores, nil
}

func setOf(cores []int) unix.CPUSetDynamic {
	set := unix.NewCPUSet(maxCores)
	for _, core := range cores {
		if core >= 0 { // Set ignores what is above maxCores, but not this
			set.Set(core)
		}
	}
	return set
}

// Check returns an error that wraps ErrCore and names the cores there are,
// unless core is among allowed, what Allowed returned.
func Check(core int, allowed []int) error {
	if slices.Contains(allowed, core) {
		return nil
	}
	use := Format(allowed)
	if b, err := os.ReadFile(onlinePath); err == nil {
		if online, err := Parse(string(b)); err == nil && slices.Contains(online, core) {
			return fmt.Errorf("%w: %d is there, but this process may use %s only; choose one of these, or widen its cpuset (taskset, systemd's AllowedCPUs, docker's --cpuset-cpus)", ErrCore, core, use)
		}
	}
	return fmt.Errorf("%w: %d is not there or not online; choose one of %s", ErrCore, core, use)
}

// Pin has the calling thread run on core only. The caller has locked its
// goroutine to the thread (runtime.LockOSThread), and leaves it locked until it
// returns, so that the thread ends with it.
func Pin(core int) error {
	err := error(unix.EINVAL) // what the kernel says of a core that is not there
	if core >= 0 && core < maxCores {
		err = unix.SchedSetaffinityDynamic(0, setOf([]int{core}))
	}
	if err == nil {
		return nil
	}
	if allowed, aerr := Allowed(); aerr == nil && errors.Is(err, unix.EINVAL) {
		if cerr := Check(core, allowed); cerr != nil {
			return fmt.Errorf("pin the thread: %w", cerr)
		}
	}
	return fmt.Errorf("affinity: pin the thread to core %d: %w", core, err)
}

// Nice sets the calling thread's nice value, -20 (first) to 19. Less than the
// present one needs CAP_SYS_NICE. The caller has locked its goroutine.
func Nice(n int) error {
	if err := unix.Setpriority(unix.PRIO_PROCESS, Thread(), n); err != nil {
		return fmt.Errorf("affinity: set the thread's nice value to %d (less than the present one needs CAP_SYS_NICE): %w", n, err)
	}
	return nil
}

// Thread returns the kernel's number of the calling thread, for Confine.
func Thread() int { return unix.Gettid() }

// Confine has every thread of the process run on cores only, except those
// given, and returns how many it moved. Without cores it moves nothing: that is
// what is left when workers take every core.
//
// Threads that start later inherit the cores of the one that starts them, and
// Go never starts one from a locked thread: they are confined, too.
func Confine(cores []int, except ...int) (int, error) {
	if len(cores) == 0 {
		return 0, nil
	}
	set := setOf(cores)
	n, err := eachThread(except, func(tid int) error { return unix.SchedSetaffinityDynamic(tid, set) })
	if err != nil {
		return n, fmt.Errorf("affinity: move threads to the cores %s: %w", Format(cores), err)
	}
	return n, nil
}

// NiceAll gives every thread of the process the nice value n, except those
// given, and returns how many got it. Threads that start later inherit it, as
// with Confine.
func NiceAll(n int, except ...int) (int, error) {
	got, err := eachThread(except, func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, n) })
	if err != nil {
		return got, fmt.Errorf("affinity: set the threads' nice value to %d (less than the present one needs CAP_SYS_NICE): %w", n, err)
	}
	return got, nil
}

// eachThread calls f for every thread of the process, except those given, until
// there is no new one, and returns how many times f succeeded.
func eachThread(except []int, f func(tid int) error) (int, error) {
	done := make(map[int]bool)
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return len(done), fmt.Errorf("list the threads: %w", err)
		}
		before := len(done)
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || done[tid] || slices.Contains(except, tid) {
				continue
			}
			switch err := f(tid); {
			case errors.Is(err, unix.ESRCH): // it has ended
			case err != nil:
				return len(done), fmt.Errorf("thread %d: %w", tid, err)
			default:
				done[tid] = true
			}
		}
		if len(done) == before { // nobody started one meanwhile
			return before, nil
		}
	}
}
