package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"spigot/control"
	"spigot/control/host"
	"spigot/control/ipsecconf"
	"spigot/control/kernel"
	"spigot/internal/counter"
	"spigot/internal/epoch"
	"spigot/internal/fib"
	"spigot/pipeline"
	"spigot/pmd"
	"spigot/pmd/afxdp"
	"spigot/pmd/capture"
	"spigot/ring"
	"spigot/spd"
)

// Sizes of what a worker and the slow path share.
const (
	acquireSlots = 1024 // acquire requests that wait
	packetSlots  = 256  // punts, or injects, that wait; each carries a packet
	cacheEntries = 1 << 14
)

// errFramesLost says that a worker's frames did not all come back to its pool.
var errFramesLost = errors.New("frames lost")

// gateway is a Config that was made live: programs attached, queues taken,
// policies published; nothing runs yet.
type gateway struct {
	cfg       *Config
	log       *slog.Logger
	snapshots pipeline.Snapshots
	epochs    epoch.Domain
	steerings []*afxdp.Steering   // by port
	recorders []*capture.Recorder // by port; nil where nothing is captured
	workers   []*worker
	mirror    *kernel.Mirror
	host      *host.Device // nil: the host's packets go around IPsec
	control   *control.Controller
	pfkey     *net.UnixListener // nil: no PF_KEY
	metrics   net.Listener      // nil: no TCP for them
	xfrm      *net.UnixListener // nil: no netlink XFRM
	cleanup   cleanup           // undoes assemble
}

// worker is one core's share of the gateway.
type worker struct {
	core     int
	pool     *pmd.Pool
	umem     *afxdp.UMEM
	queues   [][]pmd.Port // by port of the gateway
	counters counter.Worker
	acquires *ring.SPSC[spd.AcquireRequest]
	punts    *ring.SPSC[fib.Punt]
	injects  *ring.SPSC[fib.Inject]
	loop     *pipeline.Worker
}

// assemble makes c live with the policies and SAs of conf. It is the only
// place where the parts of the gateway meet. On an error, everything that was
// opened is closed again.
func assemble(c *Config, conf *ipsecconf.Config, log *slog.Logger) (*gateway, error) {
	g := &gateway{cfg: c, log: log}
	for _, part := range []func() error{
		g.attachPrograms,
		g.startRecorders,
		g.openHost,
		g.openWorkers,
		g.openMirror,
		func() error { return g.openControl(conf, g.controlPorts()) },
		g.makeLoops,
	} {
		if err := part(); err != nil {
			return nil, errors.Join(err, g.cleanup.run())
		}
	}
	return g, nil
}

// openWorkers gives each worker its memory, its rings and its queues.
func (g *gateway) openWorkers() error {
	for i, core := range g.cfg.Cores {
		w := &worker{
			core:     core,
			acquires: ring.New[spd.AcquireRequest](acquireSlots),
			punts:    ring.New[fib.Punt](packetSlots),
			injects:  ring.New[fib.Inject](packetSlots),
		}
		if err := g.openMemory(i, w); err != nil {
			return err
		}
		for p := range g.cfg.Ports {
			queues, err := g.openQueues(p, i, w)
			if err != nil {
				return err
			}
			w.queues = append(w.queues, queues)
		}
		g.workers = append(g.workers, w)
	}
	return nil
}

// openMemory maps worker i's frames.
func (g *gateway) openMemory(i int, w *worker) error {
	mem, err := pmd.Map(g.cfg.Frames*g.cfg.FrameSize + g.cfg.Jumbo.Bytes())
	if err != nil {
		return fmt.Errorf("memory of worker %d: %w; lower memory.frames or memory.jumbo_frames, or add memory", i, err)
	}
	g.cleanup.add("unmap packet memory", mem.Close)
	if w.pool, err = pmd.NewJumboPool(mem, g.cfg.FrameSize, g.cfg.Jumbo); err != nil {
		return fmt.Errorf("memory of worker %d: %w", i, err)
	}
	g.cleanup.add("count frames", func() error { return g.countFrames(i, w.pool) })
	if w.umem, err = afxdp.NewUMEM(w.pool); err != nil {
		return fmt.Errorf("memory of worker %d: %w", i, err)
	}
	return nil
}

// countFrames says whether every frame of worker i came home, once its queues
// are closed.
func (g *gateway) countFrames(i int, pool *pmd.Pool) error {
	if pool.Len() != pool.Cap() || pool.Bad() != 0 {
		return fmt.Errorf("worker %d: %w: %d of %d are home, and %d came back that were not its own",
			i, errFramesLost, pool.Len(), pool.Cap(), pool.Bad())
	}
	g.log.Info("all frames home", "worker", i, "frames", pool.Cap())
	return nil
}

// openMirror opens the view on the kernel's routes and neighbours.
func (g *gateway) openMirror() error {
	names := make([]string, len(g.cfg.Ports))
	for i, port := range g.cfg.Ports {
		names[i] = port.Name
	}
	mirror, err := kernel.New(kernel.Config{Ports: names, Log: g.log})
	if err != nil {
		return fmt.Errorf("mirror the kernel's routes: %w", err)
	}
	g.mirror = mirror
	g.cleanup.add("close the mirror", func() error { mirror.Close(); return nil })
	return nil
}

// openControl makes the slow path and has it publish the tables of conf.
func (g *gateway) openControl(conf *ipsecconf.Config, ports []control.Port) error {
	c := control.Config{
		Log:             g.log,
		IPsec:           &g.snapshots.IPsec,
		FIB:             &g.snapshots.FIB,
		Epochs:          &g.epochs,
		Ports:           ports,
		Mirror:          g.mirror,
		AllowManualAEAD: g.cfg.AllowManualAEAD,
		AllowLegacy:     g.cfg.AllowLegacy,
		NATKeepalive:    g.cfg.NATKeepalive,
		PathMTULife:     g.cfg.PathMTULife,
	}
	for _, w := range g.workers {
		c.Workers = append(c.Workers, control.Worker{
			Core:     w.core,
			Counters: &w.counters,
			Acquires: w.acquires,
			Punts:    w.punts,
			Injects:  w.injects,
		})
	}
	if g.host != nil {
		c.Host = g.host.Plan
	}
	ctl, err := control.New(c)
	if err != nil {
		return err
	}
	g.control = ctl
	g.cleanup.add("zero keys", func() error { ctl.Close(); return nil })
	return ctl.Load(conf)
}

// makeLoops makes the loop of every worker, now that all tables are published.
func (g *gateway) makeLoops() error {
	for i, w := range g.workers {
		ports := make([]pipeline.Port, len(g.cfg.Ports))
		for p, port := range g.cfg.Ports {
			ports[p] = pipeline.Port{Side: port.Side, Queues: w.queues[p]}
		}
		var link *fib.HostLink
		if g.host != nil {
			link = g.host.Link(i)
		}
		var err error
		w.loop, err = pipeline.New(pipeline.Config{
			Ports:        ports,
			Pool:         w.pool,
			Snapshots:    &g.snapshots,
			Epoch:        g.epochs.Register(),
			Counters:     &w.counters,
			Acquires:     w.acquires,
			Punts:        w.punts,
			Injects:      w.injects,
			Host:         link,
			Burst:        g.cfg.Burst,
			CacheEntries: cacheEntries,
			Seed:         randomSeed(),
			Idle:         g.cfg.Idle,
			CPU:          uint16(i + 1),
		})
		if err != nil {
			return fmt.Errorf("worker %d: %w", i, err)
		}
	}
	return nil
}

// randomSeed returns what no sender can guess.
func randomSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	return binary.LittleEndian.Uint64(b[:])
}
