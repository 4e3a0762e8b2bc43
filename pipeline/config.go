package pipeline

import (
	"sync/atomic"
	"time"

	"spigot/internal/counter"
	"spigot/internal/epoch"
	"spigot/internal/fib"
	"spigot/internal/tables"
	"spigot/pmd"
	"spigot/ring"
	"spigot/spd"
)

// Side says which side of the gateway a port faces.
type Side uint8

// The sides.
const (
	Protected Side = iota // inner, cleartext packets
	Wire                  // ESP towards the peers
)

// String returns the side's name as the configuration spells it.
func (s Side) String() string {
	if s == Wire {
		return "wire"
	}
	return "protected"
}

// Port is one interface of the gateway as a worker sees it: the queues of it
// that the worker owns. The worker receives from all of them and sends by the
// first.
type Port struct {
	Side   Side
	Queues []pmd.Port // at least one
}

// Idle says what a worker does when there is nothing to do.
type Idle struct {
	Turns int           // empty turns before it sleeps in poll(2); 0: it spins for ever
	Sleep time.Duration // how long it sleeps at most, so that slow-path messages are seen
}

// Snapshots are the published tables that workers read: each pointer is stored
// by the slow path and loaded by every worker once a turn. None may be nil.
type Snapshots struct {
	IPsec tables.Published // SPD and SAD
	FIB   atomic.Pointer[fib.Table]
}

// Config is all that a Worker is made of. The worker owns the Pool and the
// queues while it runs.
type Config struct {
	Ports     []Port // the gateway's ports; fib.Hop.Port is an index in this list
	Pool      *pmd.Pool
	Snapshots *Snapshots
	Epoch     *epoch.Reader
	Counters  *counter.Worker

	Acquires *ring.SPSC[spd.AcquireRequest] // to the slow path
	Punts    *ring.SPSC[fib.Punt]           // to the slow path
	Injects  *ring.SPSC[fib.Inject]         // from the slow path
	Host     *fib.HostLink                  // nil: the host's own packets go around the gateway

	Burst        int    // frames a turn takes from a queue, 1 to MaxBurst
	CacheEntries int    // flow-cache entries a direction, a power of two
	Seed         uint64 // of the flow caches' hashes
	CPU          uint16 // the worker's number, from 1, by which SAs that are for one worker name it
	Idle         Idle
}

// MaxBurst is the largest burst.
const MaxBurst = 64
