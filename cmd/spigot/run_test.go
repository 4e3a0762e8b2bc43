package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/control/ipsecconf"
	"spigot/internal/affinity"
	"spigot/internal/fib"
	"spigot/pipeline"
	"spigot/pmd"
	"spigot/pmd/memport"
	"spigot/ring"
	"spigot/spd"
)

// trap is a port whose Rx panics once it is sprung.
type trap struct {
	pmd.Port
	sprung bool
}

func (p *trap) Rx(fs []pmd.Frame) int {
	if p.sprung {
		panic("sprung")
	}
	return p.Port.Rx(fs)
}

// newTestGateway assembles a gateway whose only worker has memory for ports.
func newTestGateway(t *testing.T, log *slog.Logger, sprung bool) *gateway {
	t.Helper()
	cores, err := affinity.Allowed()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{log: log, cfg: &Config{
		Ports: []PortConfig{{Name: "red0", Side: pipeline.Protected}, {Name: "blue0", Side: pipeline.Wire}},
		Cores: cores[:1], ControlCore: anyCore, Burst: 32, Idle: pipeline.Idle{Turns: 1, Sleep: maxSleep},
	}}
	mem := &pmd.Memory{Bytes: make([]byte, 64*2048)}
	pool, err := pmd.NewPool(mem, 2048)
	if err != nil {
		t.Fatal(err)
	}
	red, blue, err := memport.NewPair(16, memport.Options{Name: "red0", Pool: pool}, memport.Options{Name: "blue0", Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	g.cleanup.add("count frames", func() error { return g.countFrames(0, pool) })
	g.cleanup.add("release red0", red.Close)
	g.cleanup.add("release blue0", blue.Close)
	g.workers = []*worker{{
		core:     cores[0],
		pool:     pool,
		queues:   [][]pmd.Port{{&trap{red, sprung}}, {blue}},
		acquires: ring.New[spd.AcquireRequest](acquireSlots),
		punts:    ring.New[fib.Punt](packetSlots),
		injects:  ring.New[fib.Inject](packetSlots),
	}}
	if err := g.openMirror(); err != nil {
		t.Fatal(err)
	}
	if err := g.openControl(&ipsecconf.Config{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := g.makeLoops(); err != nil {
		t.Fatal(err)
	}
	return g
}

// runUntil runs g until ctx ends and checks that it could be taken down.
func runUntil(ctx context.Context, t *testing.T, g *gateway) error {
	t.Helper()
	ln, err := control.Listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	err = g.run(ctx, ln)
	if down := g.cleanup.run(); down != nil {
		t.Errorf("take down: %v", down)
	}
	if s := g.snapshots.IPsec.Load(); s == nil || s.SPD != (spd.Snapshot{}) {
		t.Error("policies are still published: control was not closed")
	}
	return err
}

func TestASignalEndsEverything(t *testing.T) {
	var log bytes.Buffer
	g := newTestGateway(t, slog.New(slog.NewTextHandler(&log, nil)), false)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := runUntil(ctx, t, g); err != nil {
		t.Errorf("got %v, want no error", err)
	}
	if v := g.workers[0].counters.Load(); v.Turns == 0 {
		t.Error("the worker did not turn")
	}
	for _, want := range []string{"gateway runs", "stopping", "all frames home"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &log)
		}
	}
}

func TestAPanicEndsEverything(t *testing.T) {
	g := newTestGateway(t, slog.New(slog.DiscardHandler), true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := runUntil(ctx, t, g)
	if err == nil || ctx.Err() != nil {
		t.Fatalf("got %v after %v, want the panic at once", err, ctx.Err())
	}
	for _, want := range []string{"worker 0: panic: sprung", "run_test.go"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

func TestLostFramesAreAFailure(t *testing.T) {
	g := newTestGateway(t, slog.New(slog.DiscardHandler), false)
	var taken [3]uint32
	g.workers[0].pool.Get(taken[:])
	err := g.cleanup.run()
	if !errors.Is(err, errFramesLost) || !strings.Contains(err.Error(), "61 of 64 are home") {
		t.Errorf("got %v, want %v with how many", err, errFramesLost)
	}
	if err := g.cleanup.run(); err != nil {
		t.Errorf("a second run: %v", err)
	}
}

func TestCleanupUndoesAllInReverse(t *testing.T) {
	var c cleanup
	var order []int
	failed := errors.New("failed")
	for i := range 3 {
		c.add("step", func() error {
			order = append(order, i)
			if i == 1 {
				return failed
			}
			return nil
		})
	}
	if err := c.run(); !errors.Is(err, failed) || err.Error() != "step: failed" {
		t.Errorf("got %v, want step: failed", err)
	}
	if !slices.Equal(order, []int{2, 1, 0}) {
		t.Errorf("undone in the order %v", order)
	}
}

// A worker's goroutine has a thread of its own on its core, before all others,
// and the thread ends with it; the main thread cannot end and is set aside.
func TestWorkerThread(t *testing.T) {
	cores, err := affinity.Allowed()
	if err != nil {
		t.Fatal(err)
	}
	core := cores[len(cores)-1]
	tid := make(chan int)
	go func() {
		defer close(tid)
		if err := lockWorkerThread(core, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
			return
		}
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil || set.Count() != 1 || !set.IsSet(core) {
			t.Errorf("the thread runs on %d cores, want core %d alone (%v)", set.Count(), core, err)
		}
		// The system call answers 20 - nice.
		if prio, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || 20-prio != workerNice {
			t.Errorf("nice %d, want %d (%v)", 20-prio, workerNice, err)
		}
		tid <- unix.Gettid()
	}()
	id, ok := <-tid
	if !ok || id == unix.Getpid() {
		return
	}
	for end := time.Now().Add(5 * time.Second); unix.Tgkill(unix.Getpid(), id, 0) == nil; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the worker's thread outlives its goroutine")
		}
	}
}

func TestWorkerThreadOnNoCore(t *testing.T) {
	err := make(chan error)
	go func() { err <- lockWorkerThread(8000, slog.New(slog.DiscardHandler)) }()
	if got := <-err; !errors.Is(got, affinity.ErrCore) {
		t.Errorf("got %v, want %v", got, affinity.ErrCore)
	}
}

func TestLogFormats(t *testing.T) {
	for _, tt := range []struct {
		format string
		level  slog.Level
		want   string
	}{
		{"text", slog.LevelInfo, `level=INFO msg=told port=red0`},
		{"json", slog.LevelInfo, `"level":"INFO","msg":"told","port":"red0"}`},
		{"text", slog.LevelWarn, ""},
	} {
		var out bytes.Buffer
		newLogger(&Config{LogFormat: tt.format, LogLevel: tt.level}, &out).Info("told", "port", "red0")
		if !strings.Contains(out.String(), tt.want) || tt.want == "" && out.Len() > 0 {
			t.Errorf("%s at %v: %q, want %q", tt.format, tt.level, &out, tt.want)
		}
	}
}
