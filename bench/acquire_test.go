package bench_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"spigot/bench"
	"spigot/control"
	"spigot/control/kernel"
	"spigot/internal/counter"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/pmd/memport"
	"spigot/spd"
)

// TestAMillionAcquires floods a gateway with a million packets to random
// destinations that have no SA: half of them under a policy whose peer is the
// destination, half under one that has an SA for each flow. Traffic that has an
// SA goes on beside them, every packet, in order. What the gateway asks, and
// what it remembers, is bounded. How much the traffic suffers is printed.
func TestAMillionAcquires(t *testing.T) {
	const flood, calm = 1_000_000, 200_000 // packets
	var far farEnds
	g, events := newAsker(t, &far)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)

	quiet := g.carry(func(v counter.Values) bool { return v.Tx >= calm })
	g.flooding = true
	busy := g.carry(func(v counter.Values) bool { return v.Drops[counter.NoSA] >= flood })

	runtime.GC()
	runtime.ReadMemStats(&after)
	v := g.c.Load()
	if v.Dropped() != v.Drops[counter.NoSA] || v.Tx+v.Dropped() != v.Rx || far.wrong.Load() != 0 {
		t.Errorf("of %d packets %d left, %d of them wrongly, and %d had no SA", v.Rx, v.Tx, far.wrong.Load(), v.Drops[counter.NoSA])
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	asked := map[uint32]int{} // by policy
	var buf [64]control.Event
	for n := events.Take(buf[:]); n > 0; n = events.Take(buf[:]) {
		for _, e := range buf[:n] {
			if e.Kind == control.EventLost {
				t.Errorf("%d events were lost: more than a policy may ask", e.Lost)
				continue
			}
			asked[e.Acquire.Policy.ID]++
		}
	}
	const most = 256 // that a policy may ask in 30 seconds
	if len(asked) != 2 {
		t.Errorf("%d policies have asked, want both", len(asked))
	}
	for policy, n := range asked {
		if n > most*(1+int(busy.took/(30*time.Second))) {
			t.Errorf("policy %d has asked %d times in %v", policy, n, busy.took)
		}
	}
	t.Logf("forwarding at %.2f Mpps alone, and %.2f Mpps beside %d packets without an SA in %v; acquires by policy: %v, %d messages lost",
		quiet.mpps(), busy.mpps(), v.Drops[counter.NoSA], busy.took.Round(time.Millisecond), asked, v.LostMsgs)
}

// asker is a gateway of which half of the packets may have no SA.
type asker struct {
	*rig
	flooding bool
	random   *rand.Rand
	strays   [][]byte // packets to be sent elsewhere before each round
}

// newAsker returns a gateway whose protected port delivers packets for the
// carrier's SA and, while it is flooded, as many for nobody. What leaves is
// judged by far.
func newAsker(t *testing.T, far *farEnds) (*asker, *control.Subscriber) {
	t.Helper()
	g := &asker{rig: newParts(), random: rand.New(rand.NewPCG(1, 2))}
	pool := newPool(t, 2048)
	var packets [][]byte
	for i := range flows {
		p := bench.UDP4(redMAC, hostA, hostB, uint16(1000+i), 64)
		if packets = append(packets, p); i%2 == 1 {
			g.strays = append(g.strays, p)
		}
	}
	cfg := g.config(pool,
		generator(t, memport.GeneratorOptions{Options: memport.Options{Pool: pool, MAC: net.HardwareAddr(redMAC[:])},
			Templates: packets, OnWrap: g.scatter}),
		generator(t, memport.GeneratorOptions{Options: memport.Options{Pool: pool, MAC: net.HardwareAddr(blackMAC[:])},
			Sink: far.take}))
	h := make(host)
	ctl, err := control.New(control.Config{
		IPsec: &cfg.Snapshots.IPsec, FIB: &cfg.Snapshots.FIB, Epochs: g.d, Mirror: h, AllowManualAEAD: true,
		Workers: []control.Worker{{Counters: g.c, Acquires: cfg.Acquires, Punts: cfg.Punts, Injects: cfg.Injects}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = ctl.Run(ctx) }) // it has no error but that of ctx
	t.Cleanup(func() {
		stop()
		running.Wait()
		ctl.Close()
	})
	for range 2 { // when the second is taken the first is in force
		h <- &kernel.View{FIB: *network(false)}
	}
	conf := configuration()
	for i, dst := range []string{"10.64.0.0/10", "10.128.0.0/10"} {
		p := &spd.Policy{Dir: spd.Out, Action: spd.Protect, Static: true,
			Sel:      flow.Selector{Src: net4("10.1.0.0/16"), Dst: net4(dst), SrcPort: flow.AnyPort, DstPort: flow.AnyPort},
			Template: spd.Template{Proto: wire.ProtoESP}}
		if i == 1 {
			p.PFP, p.Template.Dst, p.Template.Src = spd.PFPAll, gwB, gwA
		}
		conf.Policies = append(conf.Policies, p)
	}
	if err := ctl.Load(conf); err != nil {
		t.Fatal(err)
	}
	events := ctl.Subscribe(control.Interest{Kinds: control.KindSet(control.EventAcquire)}, 1<<14)
	g.start(t, cfg)
	return g, events
}

// scatter gives each stray a destination that nobody has an SA for, by turns
// under one policy and under the other.
func (g *asker) scatter() {
	if !g.flooding {
		return
	}
	for i, p := range g.strays {
		ip := wire.IPv4(p[wire.EthernetLen:])
		binary.BigEndian.PutUint32(ip[16:], uint32(10<<24|(1+i%2)<<22)|g.random.Uint32()&(1<<22-1))
		clear(ip[10:12])
		binary.BigEndian.PutUint16(ip[10:], ^sum(ip[:wire.IPv4Len]))
	}
}

// sum is the Internet checksum, uncomplemented (RFC 1071).
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// carry turns the worker until done says so, and returns what left meanwhile.
func (g *asker) carry(done func(counter.Values) bool) span {
	g.c.Publish()
	start, from := time.Now(), g.c.Load().Tx
	for {
		for range 64 {
			g.w.Turn()
		}
		g.c.Publish()
		if v := g.c.Load(); done(v) {
			return span{packets: v.Tx - from, took: time.Since(start)}
		}
	}
}
