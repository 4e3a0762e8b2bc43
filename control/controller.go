// Package control is the slow path: it owns the SADB and the SPD, mirrors the
// kernel's network into the forwarding table, answers what the workers punt,
// and judges lifetimes. Everything that it decides reaches the workers as an
// immutable snapshot behind an atomic pointer.
//
// There is one thread of control: Run's, into which Do and Load step for the
// length of a call. Nothing in it waits for a client, a worker or the network.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"spigot/control/kernel"
	"spigot/internal/counter"
	"spigot/internal/epoch"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/tables"
	"spigot/pmd"
	"spigot/ring"
	"spigot/sad"
	"spigot/spd"
)

// Errors of New and Load; wrapped with what and how to mend.
var (
	ErrConfig    = errors.New("control: bad configuration")
	ErrManualKey = errors.New("control: manual key refused")
	ErrClosed    = errors.New("control: closed")
)

// Mirror tells what the kernel knows of the network: kernel.Mirror, or a fake.
type Mirror interface {
	// Updates delivers what the kernel knows, whenever it differs.
	Updates() <-chan *kernel.View
	// Resolve asks for the link-layer address of addr on the link with that
	// interface index. It does not block; the answer is an update.
	Resolve(link int, addr flow.Addr)
}

// Worker is a worker of the pipeline as the slow path sees it. The controller
// consumes Acquires and Punts and produces Injects.
type Worker struct {
	Core     int
	Counters *counter.Worker
	Acquires *ring.SPSC[spd.AcquireRequest]
	Punts    *ring.SPSC[fib.Punt]
	Injects  *ring.SPSC[fib.Inject]
}

// The values of Port.Side.
const (
	SideProtected = "protected" // inner, cleartext packets
	SideWire      = "wire"      // ESP towards the peers
)

// Port is an interface of the gateway. Its place in Config.Ports is its
// number in fib.Hop and fib.Punt, and in the mirror's Views.
type Port struct {
	Name   string
	Side   string // SideProtected or SideWire
	Queues []pmd.Port
	// Check says what is wrong with the port's steering program, after trying to
	// mend it. It is called once a second; nil: nothing can be.
	Check func() error
	// SetLocal tells the steering program the host's addresses; nil: nobody asks.
	SetLocal func([]netip.Addr) error
	// SetGroups tells the port, which has the interface index link (0: there is none),
	// what it is to receive of what is sent to groups; nil: nobody asks.
	SetGroups func(link int, want Groups) error
}

// Config is all that a Controller is made of. The tables, Epochs and
// Mirror must be there.
type Config struct {
	Log     *slog.Logger      // nil: discard
	IPsec   *tables.Published // SPD and SAD
	FIB     *atomic.Pointer[fib.Table]
	Epochs  *epoch.Domain
	Workers []Worker
	Ports   []Port
	Mirror  Mirror // whoever made it runs it

	// NATKeepalive is how long nothing is sent to a peer of ESP in UDP before a
	// NAT-keepalive is (RFC 3948, section 4); 0: none is sent.
	NATKeepalive time.Duration

	// Host is told which of the host's own packets are to come to the gateway,
	// whenever that changes. It must not block. nil: none do.
	Host func(HostPlan)

	// AllowManualAEAD accepts manual keys for counter-mode ciphers, although a
	// restart repeats their IVs.
	AllowManualAEAD bool
	// PathMTULife is how long an SA's path MTU is believed before a larger one is
	// tried (RFC 1191, section 6.3); 0: 10 minutes.
	PathMTULife time.Duration
	// AllowLegacy accepts algorithms that are there for old peers only: SHA-1.
	AllowLegacy bool
}

// Controller is the slow path. Its methods may be called by any goroutine.
type Controller struct {
	cfg   Config
	log   *slog.Logger
	clock clock
	start time.Time

	mu       sync.Mutex // held by whoever is in the thread of control
	closed   bool
	db       *sad.DB
	sas      records   // those of db, and those that are larval or wait
	larvals  int       // of sas
	waiting  int       // of sas: for an address of the host that tells their direction
	pending  []*manual // the same of the configuration's; not in sas
	offers   offers
	drains   drains
	spds     policies
	secret   [32]byte        // keys the digests of manual SAs
	spent    map[digest]bool // manual SAs that have expired
	usedKeys map[digest]bool // counter-mode keys that manual SAs have had

	view   *kernel.View // nil until the mirror has spoken
	host   planner
	alive  keepalives
	trail  trail
	local  map[flow.Addr]bool
	groups groups

	asks    acquires
	askLog  bucket
	cpuLog  bucket
	answers []answers          // by worker
	paths   map[SAID]time.Time // SAs whose path MTU was learned, and when
	oldLog  bucket             // of refused algorithms
	icmpID  uint16
	broken  []string // by port: what Check said last, "" if nothing
	behind  []bool   // by port: SetLocal has failed and is to be tried again
	stats   Stats

	covering    bool // there has been an SA that wants dummies
	covers      map[*sad.Outbound]*cover
	coverWorker int // the next to send one

	clients     atomic.Uint64 // numbers given out by NewClient
	subscribers map[*Subscriber]bool
	news        []Event  // not delivered yet
	undo        []func() // of what Atomic runs; nil: it does not

	// Scratch of poll.
	requests [64]spd.AcquireRequest
	punts    [16]fib.Punt
	inject   [1]fib.Inject
}

// The paces of Run.
const (
	pollBusy = time.Millisecond     // between two looks at the rings
	pollIdle = 5 * time.Millisecond // the same, when there is nothing in them
	second   = time.Second          // between two rounds of chores
	drainMax = 64                   // batches taken from one ring in one look
)

// New returns a controller with empty tables, which it publishes. Its Run has
// to be called; Close, when the workers and Run have stopped.
func New(cfg Config) (*Controller, error) {
	if cfg.IPsec == nil || cfg.FIB == nil || cfg.Epochs == nil || cfg.Mirror == nil {
		return nil, fmt.Errorf("new controller: %w: IPsec, FIB, Epochs and Mirror must be set", ErrConfig)
	}
	for i, p := range cfg.Ports {
		if p.Side != SideProtected && p.Side != SideWire {
			return nil, fmt.Errorf("new controller: %w: port %d (%s) has side %q: set it to %q or %q",
				ErrConfig, i, p.Name, p.Side, SideProtected, SideWire)
		}
	}
	for i, w := range cfg.Workers {
		if w.Counters == nil || w.Acquires == nil || w.Punts == nil || w.Injects == nil {
			return nil, fmt.Errorf("new controller: %w: worker %d lacks counters or a ring", ErrConfig, i)
		}
	}
	if cfg.PathMTULife == 0 {
		cfg.PathMTULife = 10 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{
		cfg:   cfg,
		log:   cfg.Log,
		clock: newClock(),
		sas:   records{byID: map[SAID]*record{}},
		offers: offers{
			wants: map[wanted]*want{}, stale: map[*want]bool{},
			reqids: map[uint32][]*record{}, peers: map[flow.Addr][]*record{},
		},
		drains: drains{trunks: map[trunk][]*record{}},
		spds: policies{
			byID: map[uint32]*policy{}, byName: map[PolicyName]*policy{}, mortal: map[uint32]*policy{},
		},
		alive:       keepalives{paths: map[natPath]*natLife{}},
		trail:       trail{limit: bucket{rate: auditRate, burst: auditBurst}},
		subscribers: map[*Subscriber]bool{},
		spent:       map[digest]bool{},
		usedKeys:    map[digest]bool{},
		local:       map[flow.Addr]bool{},
		groups:      newGroups(len(cfg.Ports)),
		asks: acquires{
			byAsk: map[ask]*asked{}, bySeq: map[uint32]*asked{}, byPolicy: map[uint32][]*asked{},
		},
		askLog:  bucket{rate: 10, burst: 20},
		cpuLog:  bucket{rate: 1, burst: 10},
		answers: make([]answers, len(cfg.Workers)),
		paths:   map[SAID]time.Time{},
		oldLog:  bucket{rate: 1, burst: 10},
		broken:  make([]string, len(cfg.Ports)),
		behind:  make([]bool, len(cfg.Ports)),
	}
	for i := range c.answers {
		c.answers[i] = answers{bucket{rate: ttlRate, burst: ttlRate}, bucket{rate: tooBigRate, burst: tooBigRate}}
	}
	c.start = c.clock.now()
	c.newSecret()
	c.db = sad.NewDB(cfg.Epochs, func(s *sad.Snapshot) { cfg.IPsec.Store(c.spds.tables, s) })
	cfg.FIB.Store(fib.Build(&fib.Config{}))
	return c, nil
}

// Run is the slow path's loop. It returns nil when ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	wait := pollBusy
	poll := time.NewTimer(wait)
	defer poll.Stop()
	chores := time.NewTicker(second)
	defer chores.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case v := <-c.cfg.Mirror.Updates():
			c.Do(func() { c.adopt(v) })
		case <-chores.C:
			c.Do(func() {
				c.clock.look()
				c.chores(c.clock.now())
			})
		case <-poll.C:
			busy := false
			c.Do(func() { busy = c.poll(c.clock.now()) })
			if wait = min(2*wait, pollIdle); busy {
				wait = pollBusy
			}
			poll.Reset(wait)
		}
	}
}

// Do runs f in the thread of control: nothing that the controller owns changes
// meanwhile. f must be short and must not call the Controller.
func (c *Controller) Do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// Close empties SPD and SAD and zeroes all keys. The workers and Run must have
// stopped.
func (c *Controller) Close() {
	c.Do(func() {
		if c.closed {
			return
		}
		c.closed = true
		c.spds = policies{}
		c.db.Close()
		c.cfg.Epochs.Reap()
		for _, m := range c.pending {
			m.wipe()
		}
		for r := range c.sas.all {
			if r.keyed != nil {
				r.keyed.params.wipe()
			}
			if r.manual != nil {
				r.manual.wipe()
			}
		}
		c.sas, c.pending, c.covers = records{}, nil, nil
		c.asks, c.offers, c.drains = acquires{}, offers{}, drains{}
		clear(c.subscribers)
		clear(c.secret[:])
	})
}

// poll serves the rings of all workers and says whether there was anything.
func (c *Controller) poll(now time.Time) (busy bool) {
	for i := range c.cfg.Workers {
		w := &c.cfg.Workers[i]
		for range drainMax { // what a worker keeps on sending must not starve the others
			n := w.Acquires.Pop(c.requests[:])
			for j := range c.requests[:n] {
				c.acquire(&c.requests[j], now)
			}
			k := w.Punts.Pop(c.punts[:])
			for j := range c.punts[:k] {
				c.punt(i, &c.punts[j], now)
			}
			if n+k == 0 {
				break
			}
			busy = true
		}
	}
	c.judge(now)
	c.planHost(now)
	c.watch(now)
	c.sendCovers(now)
	c.drained(now)
	c.deliver()
	c.cfg.Epochs.Reap()
	return busy || c.sas.cursor != nil
}

// chores does what is due once a second.
func (c *Controller) chores(now time.Time) {
	if c.closed {
		return
	}
	if c.sas.cursor == nil {
		c.sas.cursor = c.sas.first
	}
	c.edit(func() {
		c.expire(now)
		c.expirePolicies(now)
	})
	c.forgetAsks(now)
	c.forgetNATs(now)
	c.planCovers(now)
	c.forgetPaths(now)
	for i := range c.cfg.Ports {
		c.check(i)
		if c.behind[i] {
			c.tellLocal(i)
		}
	}
	c.tellGroups()
}

// check has port i look after its steering program, and tells once what
// changed about it.
func (c *Controller) check(i int) {
	p := &c.cfg.Ports[i]
	if p.Check == nil {
		return
	}
	text := ""
	if err := p.Check(); err != nil {
		text = err.Error()
	}
	if text == c.broken[i] {
		return
	}
	if c.broken[i] = text; text != "" {
		c.log.Error("port does not receive", "port", p.Name, "err", text)
	} else {
		c.log.Info("port receives again", "port", p.Name)
	}
}

// adopt makes what the kernel says now the truth for workers, steering
// programs and SAs.
func (c *Controller) adopt(v *kernel.View) {
	if c.closed || v == nil {
		return
	}
	c.cfg.FIB.Store(fib.Build(&v.FIB))
	first := c.view == nil
	c.view = v
	defer c.tellGroups() // an interface may be another one
	local := make(map[flow.Addr]bool, len(v.FIB.Local))
	changed := first || len(v.FIB.Local) != len(c.local)
	for _, a := range v.FIB.Local {
		local[a] = true
		changed = changed || !c.local[a]
	}
	if !changed {
		return
	}
	c.local = local
	for i := range c.cfg.Ports {
		c.tellLocal(i)
	}
	c.edit(func() {
		c.turn()
		c.placePending()
		c.placeWaiting()
	})
}

// tellLocal tells port i's steering program the host's addresses; chores tries
// again what failed.
func (c *Controller) tellLocal(i int) {
	p := &c.cfg.Ports[i]
	if p.SetLocal == nil {
		return
	}
	addrs := make([]netip.Addr, 0, len(c.view.FIB.Local))
	for _, a := range c.view.FIB.Local {
		addrs = append(addrs, a.Netip())
	}
	err := p.SetLocal(addrs)
	if err != nil && !c.behind[i] {
		c.log.Error("tell the steering program the host's addresses", "port", p.Name, "err", err)
	}
	c.behind[i] = err != nil
}
