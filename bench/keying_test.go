package bench_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spigot/bench"
	"spigot/control"
	"spigot/control/ipsecconf"
	"spigot/control/kernel"
	"spigot/internal/affinity"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/pmd/memport"
	"spigot/sad"
	"spigot/spd"
)

// fewest is how many SAs and policies are added at least.
const fewest = 2000

// BenchmarkKeyingWhileForwarding has a key daemon add b.N SAs and as many
// policies, 2,000 at least, delete half of them one by one and flush the rest,
// while a worker on a core of its own forwards without a pause, under an SA and
// a policy that are none of these. It fails if the gateway drops a packet, or
// sends one out of order or under another SA.
//
// Times are those that requests take until they are in force and answered,
// batch of them handed in together; making them is not counted.
func BenchmarkKeyingWhileForwarding(b *testing.B) {
	allowed := cores(b)
	for _, d := range dialects {
		for _, batch := range []int{1, 64} {
			b.Run(fmt.Sprintf("dialect=%s/batch=%d", d.name, batch), func(b *testing.B) {
				g := newKeyed(b, allowed)
				g.measure(b, d.connect(b, g.ctl), max(b.N, fewest), batch)
			})
		}
	}
}

// keyed is a gateway whose tables a controller makes.
type keyed struct {
	*rig
	ctl *control.Controller
	farEnds
}

// farEnds is what is seen from outside of the gateway. But for the atomics it
// belongs to the worker.
type farEnds struct {
	turned  time.Time     // when the last turn began
	longest atomic.Int64  // of all turns since it was reset, in nanoseconds
	seq     uint32        // of the packet that left last
	wrong   atomic.Uint64 // packets that left in a way they should not
}

// turn is called once in a turn.
func (e *farEnds) turn() {
	now := time.Now()
	if took := int64(now.Sub(e.turned)); !e.turned.IsZero() && took > e.longest.Load() {
		e.longest.Store(took)
	}
	e.turned = now
}

// take judges a packet that left: under the one SA, with the next number.
func (e *farEnds) take(packet []byte) {
	esp := packet[wire.EthernetLen+wire.IPv4Len:]
	spi, seq := binary.BigEndian.Uint32(esp), binary.BigEndian.Uint32(esp[4:])
	if spi != carrier.SPI || seq != e.seq+1 {
		e.wrong.Add(1)
	}
	e.seq = seq
}

// carrier is the SA that carries the traffic.
var carrier = suites()[0].params()

// host is a kernel that has said once what it knows.
type host chan *kernel.View

func (h host) Updates() <-chan *kernel.View { return h }
func (h host) Resolve(int, flow.Addr)       {}

// flows is how many flows the traffic has: a burst is a packet of each.
const flows = 64

// newKeyed returns a gateway that forwards already.
func newKeyed(b *testing.B, allowed []int) *keyed {
	b.Helper()
	settle(b)
	g := &keyed{rig: newParts()}
	pool := newPool(b, 2048)
	var packets [][]byte
	for i := range flows {
		packets = append(packets, bench.UDP4(redMAC, hostA, hostB, uint16(1000+i), 64))
	}
	cfg := g.config(pool,
		generator(b, memport.GeneratorOptions{Options: memport.Options{Pool: pool, MAC: net.HardwareAddr(redMAC[:])},
			Templates: packets, HeaderOnly: 64, OnWrap: g.turn}),
		generator(b, memport.GeneratorOptions{Options: memport.Options{Pool: pool, MAC: net.HardwareAddr(blackMAC[:])},
			Sink: g.take}))

	h := make(host)
	var err error
	g.ctl, err = control.New(control.Config{
		IPsec: &cfg.Snapshots.IPsec, FIB: &cfg.Snapshots.FIB, Epochs: g.d, Mirror: h, AllowManualAEAD: true,
		Workers: []control.Worker{{Counters: g.c, Acquires: cfg.Acquires, Punts: cfg.Punts, Injects: cfg.Injects}},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = g.ctl.Run(ctx) }) // it has no error but that of ctx
	b.Cleanup(func() {
		stop()
		running.Wait()
		g.ctl.Close()
	})
	for range 2 { // when the second is taken the first is in force
		h <- &kernel.View{FIB: *network(false)}
	}
	if err := g.ctl.Load(configuration()); err != nil {
		b.Fatal(err)
	}
	g.start(b, cfg)
	g.drive(b, allowed)
	return g
}

// configuration is entries, and one SA that serves them and no others.
func configuration() *ipsecconf.Config {
	const reqid = 1 // or the newest SA of any would serve
	sa := suites()[0].params()
	sa.Reqid = reqid
	conf := &ipsecconf.Config{SAs: []*sad.Params{sa}}
	for _, list := range entries(false) {
		for _, p := range list {
			if p.ID = 0; p.Action == spd.Protect {
				p.Template.Reqid = reqid
			}
			conf.Policies = append(conf.Policies, p)
		}
	}
	return conf
}

// settle sets Go's runtime as the gateway does on a small machine: no collection
// before there are 512 MB, unless GOMEMLIMIT says otherwise, and room for the
// worker beside the rest.
func settle(b *testing.B) {
	percent, limit, procs := debug.SetGCPercent(-1), debug.SetMemoryLimit(-1), runtime.GOMAXPROCS(0)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(512 << 20)
	}
	runtime.GOMAXPROCS(max(procs, 3))
	b.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
		runtime.GOMAXPROCS(procs)
	})
}

// span is what the worker did in a time.
type span struct {
	packets    uint64
	took, wait time.Duration
	turn       time.Duration // the longest
}

func (s span) mpps() float64 { return float64(s.packets) / s.took.Seconds() / 1e6 }

// during runs f and returns what the worker did meanwhile.
func (g *keyed) during(b *testing.B, f func()) span {
	b.Helper()
	g.longest.Store(0)
	t0, wait, sent := time.Now(), waited(b, g.thread), g.c.Load().Tx
	f()
	return span{g.c.Load().Tx - sent, time.Since(t0), waited(b, g.thread) - wait, time.Duration(g.longest.Load())}
}

// quietTime is how long the worker is looked at before the load.
const quietTime = 200 * time.Millisecond

// measure adds n SAs and n policies and takes them away again.
func (g *keyed) measure(b *testing.B, c dialect, n, batch int) {
	runtime.LockOSThread() // never unlocked: the thread ends with this run of the benchmark
	check(b, affinity.Nice(-20))
	for g.c.Load().Tx == 0 {
		time.Sleep(time.Millisecond)
	}
	before := g.during(b, func() { time.Sleep(quietTime) })
	var addSA, addPolicy, remove, flush time.Duration
	half := n / 2
	asked := waited(b, affinity.Thread())
	b.ResetTimer()
	load := g.during(b, func() {
		addSA = ask(b, c, n, batch, func(i int) []byte { return c.addSA(keyedSA(i)) })
		addPolicy = ask(b, c, n, batch, func(i int) []byte { return c.addPolicy(keyedPolicy(i)) })
		g.holds(b, n)
		remove = ask(b, c, half, batch, func(i int) []byte { return c.deletePolicy(keyedPolicy(i)) })
		remove += ask(b, c, half, batch, func(i int) []byte { return c.deleteSA(keyedSA(i)) })
		t0 := time.Now()
		if err := c.ask(c.flush()); err != nil {
			b.Fatal(err)
		}
		flush = time.Since(t0)
	})
	b.StopTimer()
	asked = waited(b, affinity.Thread()) - asked
	g.holds(b, 0)
	after := g.during(b, func() { time.Sleep(min(max(quietTime, load.took/2), 5*time.Second)) })
	g.judge(b)

	quiet := span{packets: before.packets + after.packets, took: before.took + after.took}
	b.ReportMetric(0, "ns/op") // of what would it be?
	b.ReportMetric(float64(n), "entries")
	b.ReportMetric(float64(n)/addSA.Seconds(), "SAs/s")
	b.ReportMetric(float64(n)/addPolicy.Seconds(), "policies/s")
	b.ReportMetric(float64(2*half)/remove.Seconds(), "deletes/s")
	b.ReportMetric(flush.Seconds()*1e3, "flush-ms")
	b.ReportMetric(load.mpps(), "Mpps")
	b.ReportMetric(quiet.mpps(), "quiet-Mpps")
	b.ReportMetric(load.mpps()/quiet.mpps(), "ratio")
	b.ReportMetric(float64(load.packets)/1e6, "Mpackets")
	b.ReportMetric(float64(load.turn.Microseconds()), "max-turn-us")
	b.ReportMetric(float64(max(before.turn, after.turn).Microseconds()), "quiet-max-turn-us")
	b.ReportMetric(load.wait.Seconds()/load.took.Seconds()*100, "waited-%")
	b.ReportMetric(asked.Seconds()/load.took.Seconds()*100, "daemon-waited-%")
}

// ask makes n requests, asks them in batches, and returns how long the asking
// took.
func ask(b *testing.B, c dialect, n, batch int, request func(int) []byte) (took time.Duration) {
	b.Helper()
	requests := make([][]byte, 0, batch)
	for i := 0; i < n; {
		requests = requests[:0]
		for ; i < n && len(requests) < batch; i++ {
			requests = append(requests, request(i))
		}
		t0 := time.Now()
		if err := c.ask(requests); err != nil {
			b.Fatalf("before request %d of %d: %v", i, n, err)
		}
		took += time.Since(t0)
	}
	return took
}

// holds fails b unless there are n SAs and n policies beside the
// configuration's.
func (g *keyed) holds(b *testing.B, n int) {
	b.Helper()
	var sas int
	var policies [3]int
	if err := g.ctl.Keying(func(k *control.Keying) {
		sas = k.SACount()
		policies, _ = k.PolicyCount()
	}); err != nil {
		b.Fatal(err)
	}
	if sas != n+1 || policies[spd.Out] != n {
		b.Fatalf("%d SAs and %d policies, want %d and %d", sas, policies[spd.Out], n+1, n)
	}
}

// judge fails b unless every packet left under the one SA, in order.
func (g *keyed) judge(b *testing.B) {
	b.Helper()
	v := g.c.Load()
	if lost := v.Dropped() + v.Punted; lost > 0 || v.Acquires > 0 {
		b.Fatalf("the gateway did not send %d of %d packets, and asked for an SA %d times; drops %v", lost, v.Rx, v.Acquires, v.Drops)
	}
	if n := g.wrong.Load(); n > 0 {
		b.Fatalf("%d of %d packets left under another SA or out of order", n, v.Tx)
	}
}

var _ control.Mirror = host(nil)
