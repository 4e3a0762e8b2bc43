package control

import (
	"testing"
	"time"

	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// TestEachWorkerAsksForItself: of a policy that wants an SA for each worker, the
// one for all is asked for first, then one for each worker that lacks it, once in
// 30 seconds; and an answer ends its own question alone.
func TestEachWorkerAsksForItself(t *testing.T) {
	g := newGateway(t)
	g.see()
	var policy uint32
	g.key(t, func(k *Keying) {
		var err error
		if policy, err = k.AddPolicy(daemon, keyedPolicy("10.2.0.0/16", func(p *PolicyParams) { p.PerCPU = true })); err != nil {
			t.Fatal(err)
		}
	})
	start := time.Now()
	asks := func(step string, cpu uint16, after time.Duration, want uint64) {
		t.Helper()
		before, f := g.stats.AcquiresSent, flow.Tuple{Src: addr("10.1.0.1"), Dst: addr("10.2.0.1"), NoPorts: true}
		g.worker.Acquires.Push([]spd.AcquireRequest{{Policy: policy, CPU: cpu, Flow: f}})
		g.Do(func() { g.poll(start.Add(after)) })
		if got := g.stats.AcquiresSent - before; got != want {
			t.Errorf("%s: %d acquires, want %d", step, got, want)
		}
		if want == 1 {
			g.key(t, func(k *Keying) {
				all := k.Acquires()
				if a := all[len(all)-1]; a.CPU != cpu || a.Peer != addr(peer) {
					t.Errorf("%s: asked for worker %d and %v", step, a.CPU, a.Peer)
				}
			})
		}
	}
	add := func(spi uint32, cpu uint16) {
		t.Helper()
		g.key(t, func(k *Keying) {
			if err := k.AddSA(daemon, keyedSA(spi, here, peer, func(p *SAParams) { p.CPU = cpu })); err != nil {
				t.Fatal(err)
			}
		})
	}
	asks("its own before that for all", 1, 0, 0)
	asks("for all", 0, 0, 1)
	add(300, 0)
	asks("for all again", 0, 0, 0)
	asks("the first worker", 1, 0, 1)
	asks("the second worker", 2, 0, 1)
	asks("the first worker again", 1, time.Second, 0)
	add(301, 1)
	asks("the first worker has one", 1, time.Second, 0)
	asks("the second worker again", 2, time.Second, 0)
	asks("the second worker much later", 2, 31*time.Second, 1)
	g.key(t, func(k *Keying) {
		if _, err := k.DeleteSA(daemon, id(301, peer)); err != nil {
			t.Fatal(err)
		}
	})
	asks("the first worker has lost it", 1, 31*time.Second, 1)
}

// TestAnSAForAWorkerThatIsNotThereIsTold: an outbound SA for one is told in the log,
// whoever made it, with how many workers there are; an inbound one means the peer's.
func TestAnSAForAWorkerThatIsNotThereIsTold(t *testing.T) {
	g := newGateway(t)
	g.see()
	const text = `level=WARN msg="an SA is for a worker that is not there`
	there := func(cpu uint16) func(*sad.Params) { return func(p *sad.Params) { p.CPU = cpu } }
	g.load(t, protect("10.2.0.0/16"), sa(300, here, peer, there(1)), sa(301, peer, here, there(7)))
	if n := g.log.count(text); n != 0 {
		t.Errorf("told %d times of SAs that are right", n)
	}
	g.load(t, protect("10.2.0.0/16"), sa(302, here, peer, there(2)))
	g.key(t, func(k *Keying) {
		if err := k.AddSA(daemon, keyedSA(303, here, peer, func(p *SAParams) { p.CPU = 7 })); err != nil {
			t.Fatal(err)
		}
	})
	if n := g.log.count(text); n != 2 || g.log.count("cpu=1 workers=1") != 1 || g.log.count("cpu=6 workers=1") != 1 {
		t.Errorf("told %d times", n)
	}
}
