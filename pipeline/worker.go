package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/tsc"
	"spigot/pmd"
	"spigot/sad"
	"spigot/spd"
)

// ErrConfig is wrapped by the errors of New.
var ErrConfig = errors.New("pipeline: bad configuration")

// port is a Port with what the stages need at hand.
type port struct {
	side   Side
	mac    uint64 // 0: accept any destination
	queues []pmd.Port
}

// Worker is one core's share of the gateway. All of it belongs to the
// goroutine that runs it.
type Worker struct {
	cfg   Config
	ports []port
	c     *counter.Worker

	// The snapshots of this turn.
	spd *spd.Snapshot
	sad *sad.Snapshot
	fib *fib.Table

	outCache, inCache *spd.Cache
	saCache           saCache
	early             early
	engine            *sad.Engine
	signing           signing
	paths             [MaxBurst]path
	several           sad.Inbound // what a packet came by that came by several SAs: see paths

	// Scratch, used again by every burst.
	burst     Burst
	fragments Burst

	reassembler *reassembler
	portMemory  portMemory
	groupHops   *[MaxBurst]fib.Hop // of packets to groups, each with its group's address
	giants      [maxGiants][]byte  // nil until one is needed
	born        time.Time
	fragmentID  uint32 // of the last IPv6 packet that was cut
	frames      [MaxBurst]pmd.Frame
	jobs        [MaxBurst]sad.Job
	egress      []egress

	acquired asked
	resolved asked
	located  asked
	quote    flow.Tuple // what an ICMP error is about
	audited  struct {
		since uint64 // turn
		n     int    // audits since then
	}
	acquireMsg [1]spd.AcquireRequest
	puntMsg    [1]fib.Punt
	injectMsg  [4]fib.Inject
	hostMsgs   []fib.HostPacket // from the host; nil without one
	hostMsg    []fib.HostPacket // to the host: one

	unpublished bool // counters have moved since Publish

	sampling bool   // this turn's cycles are counted
	mark     uint64 // TSC at the end of the last stage
	polls    []unix.PollFd
	stop     atomic.Bool
}

// New makes a worker of cfg. The worker does nothing until Run or Turn.
func New(cfg Config) (*Worker, error) {
	if err := check(&cfg); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	w := &Worker{
		cfg:        cfg,
		c:          cfg.Counters,
		outCache:   spd.NewCache(cfg.CacheEntries, cfg.Seed),
		inCache:    spd.NewCache(cfg.CacheEntries, cfg.Seed+1),
		engine:     sad.NewEngine(),
		fragmentID: uint32(cfg.Seed),
		egress:     make([]egress, len(cfg.Ports)),
		groupHops:  new([MaxBurst]fib.Hop),
	}
	if h := cfg.Host; h != nil {
		w.hostMsgs, w.hostMsg = make([]fib.HostPacket, hostBurst), make([]fib.HostPacket, 1)
		w.polls = append(w.polls, unix.PollFd{Fd: int32(h.Wake.FD()), Events: unix.POLLIN})
	}
	w.portMemory.seed = spread(cfg.Seed + 1)
	w.reassembler, w.born = newReassembler(w.c, cfg.Seed, cfg.Pool.Longest()), time.Now()
	for _, p := range cfg.Ports {
		q := port{side: p.Side, queues: p.Queues}
		if mac := p.Queues[0].Info().MAC; len(mac) == 6 {
			q.mac = mac48(mac)
		}
		w.ports = append(w.ports, q)
		for _, rx := range p.Queues {
			if fd := rx.FD(); fd >= 0 {
				w.polls = append(w.polls, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			}
		}
	}
	return w, nil
}

func check(cfg *Config) error {
	switch {
	case len(cfg.Ports) == 0:
		return errors.New("no ports")
	case cfg.Burst < 1 || cfg.Burst > MaxBurst:
		return fmt.Errorf("burst %d is not from 1 to %d", cfg.Burst, MaxBurst)
	case cfg.CacheEntries < 1 || cfg.CacheEntries&(cfg.CacheEntries-1) != 0:
		return fmt.Errorf("flow cache of %d entries: want a power of two", cfg.CacheEntries)
	case cfg.Pool == nil || cfg.Snapshots == nil || cfg.Epoch == nil || cfg.Counters == nil:
		return errors.New("pool, snapshots, epoch reader and counters are all needed")
	case cfg.Acquires == nil || cfg.Punts == nil || cfg.Injects == nil:
		return errors.New("all three rings are needed")
	case cfg.Host != nil && (cfg.Host.Sent == nil || cfg.Host.Got == nil || cfg.Host.Wake == nil || cfg.Host.Tell == nil):
		return errors.New("the host's rings and bells are all needed")
	case cfg.Snapshots.IPsec.Load() == nil || cfg.Snapshots.IPsec.Load().SAD == nil || cfg.Snapshots.FIB.Load() == nil:
		return errors.New("a snapshot is not published yet")
	}
	for i, p := range cfg.Ports {
		if len(p.Queues) == 0 {
			return fmt.Errorf("port %d has no queue for this worker", i)
		}
	}
	return nil
}

// Run turns until ctx is done, then ends the turn that it is in and returns.
// The caller has locked and pinned the thread. Between turns without work it
// sleeps as Config.Idle says.
func (w *Worker) Run(ctx context.Context) {
	cancel := context.AfterFunc(ctx, func() { w.stop.Store(true) })
	defer cancel()
	w.cfg.Epoch.Online()
	defer w.cfg.Epoch.Offline()
	idle := 0
	for !w.stop.Load() {
		if w.Turn() > 0 {
			idle = 0
			continue
		}
		if idle++; w.cfg.Idle.Turns > 0 && idle >= w.cfg.Idle.Turns {
			w.sleep()
		}
	}
	w.abandon()
	w.c.Publish()
}

// sleep waits in poll(2) until a queue has frames, at most Idle.Sleep.
func (w *Worker) sleep() {
	w.c.Sleeps++
	w.c.Publish()
	w.cfg.Epoch.Offline()
	if h := w.cfg.Host; h != nil {
		h.Wake.Sleep()
		if h.Sent.Len() > 0 {
			h.Wake.Ring()
		}
		defer h.Wake.Wake()
	}
	// An error (EINTR) is as good as a wake-up: the next turn looks anyway.
	_, _ = unix.Poll(w.polls, int(w.cfg.Idle.Sleep.Milliseconds()))
	w.cfg.Epoch.Online()
	// askEvery counts turns, of which one may now have taken Idle.Sleep.
	w.acquired, w.resolved = asked{}, asked{}
	w.audited.n = 0
}

// publishEvery is how many turns lie between two publications of the counters.
const publishEvery = 64

// sampleEvery is how many turns lie between two turns whose cycles are counted.
const sampleEvery = 16

// Turn goes once around: packets of the slow path, every queue of every port,
// then the drivers' housekeeping. It returns how many packets it carried.
func (w *Worker) Turn() int {
	t := w.cfg.Snapshots.IPsec.Load()
	w.spd, w.sad, w.fib = &t.SPD, t.SAD, w.cfg.Snapshots.FIB.Load()
	w.sampling = w.c.Turns%sampleEvery == 0
	w.c.Turns++

	n := w.inject()
	if w.cfg.Host != nil {
		n += w.fromHost()
	}
	if w.early.n > 0 {
		n += w.release()
	}
	for i := range w.ports {
		for _, q := range w.ports[i].queues {
			n += w.receive(i, q)
		}
	}
	w.flush(n)
	if n > 0 {
		w.c.Busy++
		w.unpublished = true
	}
	if w.c.Turns%publishEvery == 0 || n == 0 && w.unpublished {
		if w.c.Waiting != 0 {
			w.reassembler.sweep(time.Since(w.born))
		}
		w.c.Publish()
		w.unpublished = false
	}
	w.cfg.Epoch.Quiesce()
	return n
}

// receive takes one burst from q, a queue of port i, and carries it.
func (w *Worker) receive(i int, q pmd.Port) int {
	w.lap(counter.NumStages, 0)
	n := q.Rx(w.frames[:w.cfg.Burst])
	if n == 0 {
		return 0
	}
	w.c.Rx += uint64(n)
	b := &w.burst
	b.load(i, w.cfg.Pool, w.frames[:n])
	w.lap(counter.StageRx, n)
	if w.ports[i].side == Protected {
		w.outbound(b)
	} else {
		w.inbound(b)
	}
	w.finish(b)
	return n
}

// outbound carries b from the protected side to the wire.
func (w *Worker) outbound(b *Burst) {
	w.classify(b) // headers valid, flow tuple; drop what is malformed
	w.lap(counter.StageClassify, b.n)
	w.policy(b) // SPD: discard, bypass, or protect under an SA
	w.lap(counter.StagePolicy, b.n)
	w.route(b) // next hop; TTL and path MTU, or an ICMP answer
	w.lap(counter.StageRoute, b.n)
	w.seal(b) // ESP under that SA, in place
	w.lap(counter.StageSeal, b.n)
	w.send(b) // next hop's Ethernet header, egress queue
	w.lap(counter.StageSend, b.n)
}

// inbound carries b from the wire to the protected side.
func (w *Worker) inbound(b *Burst) {
	w.classify(b) // headers valid; ESP or clear
	w.lap(counter.StageClassify, b.n)
	w.sa(b) // SPI -> SA, replay check
	w.lap(counter.StageSA, b.n)
	w.open(b) // authenticate and decrypt in place, replay mark
	if b.more {
		w.unwrapMore(b) // AH, and SAs in SAs: seldom, and one by one
	}
	w.lap(counter.StageOpen, b.n)
	w.policyBack(b) // inner packet against the SA's selectors and the SPD
	w.lap(counter.StagePolicyBack, b.n)
	w.route(b) // next hop; TTL and MTU, or an ICMP answer; the SPD for what turns back
	w.lap(counter.StageRoute, b.n)
	w.seal(b) // what turns back to the wire under another SA: seldom anything, and no lap of its own
	w.send(b) // next hop's Ethernet header, egress queue
	w.lap(counter.StageSend, b.n)
}

// finish counts every packet of b once and gives back the frames that no port
// took.
func (w *Worker) finish(b *Burst) {
	for i := range b.pkts[:b.n] {
		p := &b.pkts[i]
		switch p.fate {
		case sent:
			w.c.Tx++
			continue
		case held:
			continue
		case punted:
			w.c.Punted++
		case cutUp:
			w.c.Cut++
		case parted: // the reassembler has counted it
		default:
			w.c.Drops[p.reason]++
			if auditable>>p.reason&1 != 0 {
				w.audit(b, uint8(i))
			}
		}
		w.cfg.Pool.Put(p.base)
	}
}

// flush ends the turn on every queue.
func (w *Worker) flush(n int) {
	w.lap(counter.NumStages, 0)
	for i := range w.ports {
		for _, q := range w.ports[i].queues {
			q.Flush()
		}
	}
	if n > 0 {
		w.lap(counter.StageFlush, n)
	}
}

// lap adds the cycles since the last lap to stage, which saw n packets, in the
// turns that are sampled; stage NumStages only starts the clock.
func (w *Worker) lap(stage counter.Stage, n int) {
	if !w.sampling {
		return
	}
	now := tsc.Now()
	if stage < counter.NumStages {
		w.c.Cycles[stage] += now - w.mark
		w.c.Packets[stage] += uint64(n)
	}
	w.mark = now
}
