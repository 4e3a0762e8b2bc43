package main

import (
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"spigot/internal/affinity"
)

// memoryLimit returns how much Go memory the process takes before a collection
// runs: a quarter of the machine's, within bounds. Packet memory and rings are
// mapped outside of it. The slow path is all that allocates, so that collections
// are rare, as long as the limit is well above what lives: 100,000 SAs and as
// many policies are some 400 MB.
func memoryLimit() int64 {
	const least, most = 512 << 20, 4 << 30
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return least
	}
	return int64(min(max(info.Totalram*uint64(info.Unit)/4, least), most))
}

// Go takes a goroutine from its thread when it has run for 10 ms, and for each
// collection. A worker, which is locked to its thread, gets on only when another
// thread of the process has found it waiting and handed over the right to run
// (a P of Go's scheduler). While that other thread waits for its core the worker
// stands still, on a core that nobody uses, and its rings fill up. Hence rights
// that nobody needs, so that one is always to be had, and a priority before
// other processes for all threads.
const (
	spareProcs  = 8
	processNice = -10
)

// settleRuntime makes Go's runtime leave polling cores alone: no collection
// before memoryLimit, room for every worker beside the rest, and all threads
// that are no worker's on the other cores, where they come before those of other
// processes. GOGC and GOMEMLIMIT of the environment are kept.
func settleRuntime(c *Config, m *machine, log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(-1)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit())
	}
	if n := len(c.Cores) + spareProcs; runtime.GOMAXPROCS(0) < n {
		runtime.GOMAXPROCS(n)
	}
	if _, err := affinity.Confine(otherCores(c, m.cores)); err != nil {
		log.Warn("cannot keep other threads off the workers' cores", "err", err)
	}
	if _, err := affinity.NiceAll(processNice); err != nil {
		log.Warn("the gateway's threads keep their ordinary priority: while the machine is busy, workers may wait for them", "err", err)
	}
}

// otherCores returns the cores of every thread but the workers': the control
// core, or all that no worker runs on.
func otherCores(c *Config, all []int) []int {
	if c.ControlCore != anyCore {
		return []int{c.ControlCore}
	}
	return affinity.Without(all, c.Cores)
}

// workerNice is the priority of a worker's thread: first among the ordinary
// ones. A real-time class would be throttled for 50 ms each second.
const workerNice = -20

// lockWorkerThread gives the calling goroutine a thread of its own, pinned to
// core. The goroutine never unlocks it, so that the thread ends with it.
func lockWorkerThread(core int, log *slog.Logger) error {
	runtime.LockOSThread()
	if err := affinity.Pin(core); err != nil {
		return err
	}
	if err := affinity.Nice(workerNice); err != nil {
		log.Warn("a worker's thread keeps its ordinary priority", "core", core, "err", err)
	}
	return nil
}
