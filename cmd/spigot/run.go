package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/control/pfkey"
	"spigot/control/xfrm"
	"spigot/crypto"
	"spigot/internal/affinity"
	"spigot/pmd"
)

// How long run waits for what should take no time, before it says so.
const (
	mirrorWait   = 2 * time.Second // for the first view of the kernel's routes
	stopPatience = 5 * time.Second // between two complaints about a worker that does not stop
)

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway until SIGTERM, SIGINT or SIGHUP",
		Args:  cobra.NoArgs,
	}
	fl := newFlags(cmd)
	cmd.RunE = doing(func(cmd *cobra.Command) error { return runGateway(cmd, fl) })
	return cmd
}

// runGateway runs what the flags and the configuration say until a signal. A
// second signal ends the process at once.
func runGateway(cmd *cobra.Command, fl *flags) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop)
	m, err := thisMachine()
	if err != nil {
		return err
	}
	c, err := loadConfig(fl, m)
	if err != nil {
		return err
	}
	if err := checkPrivilege(); err != nil {
		return err
	}
	if _, err := crypto.ChosenTier(); err != nil {
		return err
	}
	log := newLogger(c, cmd.ErrOrStderr())
	err = serve(ctx, c, m, log)
	if err != nil && c.LogFormat == "json" {
		log.Error("failed", "err", err)
		return errLogged
	}
	return err
}

// serve brings the gateway up in order, waits until ctx ends, and takes it down
// in the opposite order.
func serve(ctx context.Context, c *Config, m *machine, log *slog.Logger) error {
	conf, err := loadPolicies(c)
	defer wipe(conf)
	if err != nil {
		return err
	}
	ln, err := control.Listen(c.Socket)
	if err != nil {
		return err
	}
	defer ln.Close() // Serve has closed it already, unless it never ran
	for _, text := range warnings(c, m) {
		log.Warn(text)
	}
	var keys [2]*net.UnixListener
	for i, path := range []string{c.PFKey, c.XFRM} {
		if path == "" {
			continue
		}
		if keys[i], err = control.ListenPacket(path); err != nil {
			return err
		}
		defer keys[i].Close() // as ln
	}
	var metrics net.Listener
	if c.Metrics != "" {
		if metrics, err = net.Listen("tcp", c.Metrics); err != nil {
			return fmt.Errorf("metrics: %w: choose another --metrics", err)
		}
		defer metrics.Close() // as ln
	}
	settleRuntime(c, m, log)
	g, err := assemble(c, conf, log)
	if err != nil {
		return err
	}
	g.pfkey, g.xfrm, g.metrics = keys[0], keys[1], metrics
	err = g.run(ctx, ln)
	if err = errors.Join(err, g.cleanup.run()); err == nil {
		log.Info("stopped")
	}
	return err
}

// run runs an assembled gateway until ctx ends or a part of it fails. When it
// returns, none of its goroutines runs any more.
func (g *gateway) run(ctx context.Context, ln net.Listener) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	f := &failures{end: end}
	// The slow path outlives the workers.
	slow, endSlow := context.WithCancel(context.WithoutCancel(ctx))
	defer endSlow()
	var helpers sync.WaitGroup
	parts := map[string]func(context.Context) error{
		"mirror":  g.mirror.Run,
		"control": g.control.Run,
		"api":     func(ctx context.Context) error { return g.control.Serve(ctx, ln) },
	}
	if g.metrics != nil {
		parts["metrics"] = func(ctx context.Context) error { return g.control.ServeMetrics(ctx, g.metrics) }
	}
	if g.host != nil {
		parts["host"] = g.host.Run
	}
	if g.pfkey != nil {
		keys := pfkey.New(pfkey.Config{Control: g.control, Log: g.log})
		parts["pf_key"] = func(ctx context.Context) error { return keys.Serve(ctx, g.pfkey) }
	}
	if g.xfrm != nil {
		keys := xfrm.New(xfrm.Config{Control: g.control, Log: g.log})
		defer keys.Close()
		parts["xfrm"] = func(ctx context.Context) error { return keys.Serve(ctx, g.xfrm) }
	}
	for name, part := range parts {
		helpers.Go(func() { f.guard(name, func() error { return part(slow) }) })
	}
	g.awaitMirror(ctx)
	g.runWorkers(ctx, f)
	endSlow()
	helpers.Wait()
	return f.err()
}

// awaitMirror waits until the kernel's routes are published, so that the first
// packets find theirs.
func (g *gateway) awaitMirror(ctx context.Context) {
	empty := g.snapshots.FIB.Load()
	late := time.After(mirrorWait)
	for g.snapshots.FIB.Load() == empty {
		select {
		case <-ctx.Done():
			return
		case <-late:
			g.log.Warn("the kernel's routes are not known yet; packets are dropped until they are")
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// runWorkers starts the workers and returns when all of them have stopped.
func (g *gateway) runWorkers(ctx context.Context, f *failures) {
	var workers sync.WaitGroup
	for i, w := range g.workers {
		workers.Go(func() {
			f.guard(fmt.Sprintf("worker %d", i), func() error {
				if err := lockWorkerThread(w.core, g.log); err != nil {
					return err
				}
				w.loop.Run(ctx)
				return nil
			})
		})
	}
	g.announce()
	<-ctx.Done()
	g.log.Info("stopping")
	stopped := make(chan struct{})
	go func() { workers.Wait(); close(stopped) }()
	for {
		select {
		case <-stopped:
			return
		case <-time.After(stopPatience):
			g.log.Error("a worker does not stop; another signal ends the process as it is")
		}
	}
}

// failures collects what parts of the gateway failed with; the first ends all
// of them.
type failures struct {
	end  context.CancelFunc
	mu   sync.Mutex
	list []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	f.list = append(f.list, err)
	f.mu.Unlock()
	f.end()
}

func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.list...)
}

// guard runs part and notes how it fails. A panic is a failure: keys are still
// to be zeroed and programs to be detached.
func (f *failures) guard(name string, part func() error) {
	defer func() {
		if r := recover(); r != nil {
			f.add(fmt.Errorf("%s: panic: %v\n%s", name, r, debug.Stack()))
		}
	}()
	if err := part(); err != nil {
		f.add(fmt.Errorf("%s: %w", name, err))
	}
}

// announce logs what runs, and how.
func (g *gateway) announce() {
	for p, port := range g.cfg.Ports {
		for i, w := range g.workers {
			for _, q := range w.queues[p] {
				info := q.Info()
				g.log.Info("port", "name", info.Name, "queue", info.Queue, "side", port.Side.String(), "worker", i,
					"driver", info.Driver, "mode", info.Mode, "hugepages", info.Hugetlb, "mac", info.MAC.String(), "longest_frame", info.Longest)
				if info.NoJumbo != "" {
					g.log.Warn("the port carries no jumbo frames: longer ones are dropped", "name", info.Name, "queue", info.Queue,
						"longest_frame", info.Longest, "why", info.NoJumbo)
				}
			}
		}
	}
	if j := g.cfg.Jumbo; j.Count > 0 {
		g.log.Info("jumbo frames", "a_worker", j.Count, "size", j.Size, "bytes", j.Bytes(), "longest_packet", pmd.Room(j.Size))
	}
	core := "any other"
	if g.cfg.ControlCore != anyCore {
		core = strconv.Itoa(g.cfg.ControlCore)
	}
	tier, _ := crypto.ChosenTier() // an error has ended run before
	g.log.Info("gateway runs", "cores", affinity.Format(g.cfg.Cores), "control_core", core, "idle", idleText(g.cfg), "socket", g.cfg.Socket,
		"pf_key", g.cfg.PFKey, "xfrm", g.cfg.XFRM, "enc", g.cfg.Enc, "crypto", tier.String())
}

// idleText says what workers do without packets.
func idleText(c *Config) string {
	if c.Idle.Turns == 0 {
		return "spin"
	}
	return fmt.Sprintf("sleep after %d empty turns", c.Idle.Turns)
}
