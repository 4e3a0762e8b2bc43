package bench_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"spigot/bench"
	"spigot/internal/counter"
	"spigot/internal/epoch"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/tsc"
	"spigot/pipeline"
	"spigot/pmd"
	"spigot/pmd/memport"
	"spigot/ring"
	"spigot/sad"
	"spigot/spd"
)

var (
	redMAC   = [6]byte{2, 0, 0, 0, 0, 0xa0}
	blackMAC = [6]byte{2, 0, 0, 0, 0, 0xa1}
	gwA, gwB = addr("192.0.2.1"), addr("192.0.2.2")
	hostA    = netip.MustParseAddr("10.1.0.10")
	hostB    = netip.MustParseAddr("10.2.0.10") // packets to it are protected
	hostC    = netip.MustParseAddr("10.3.0.10") // and to it bypass
)

func addr(s string) flow.Addr { return flow.FromNetip(netip.MustParseAddr(s)) }
func net4(s string) flow.AddrRange {
	return flow.RangeOf(netip.MustParsePrefix(s))
}

// rig is a gateway with a protected and a wire port.
type rig struct {
	w      *pipeline.Worker
	c      *counter.Worker
	db     *sad.DB
	d      *epoch.Domain
	thread int // of the worker, once drive has started it
}

// newRig assembles the gateway at gwA, or gwB when far, in memory. red and
// black are what arrives by the protected and the wire port; sink sees what
// leaves.
func newRig(b testing.TB, far bool, red, black memport.GeneratorOptions) *rig {
	b.Helper()
	pool := newPool(b, 2048)
	red.Options = memport.Options{Pool: pool, MAC: net.HardwareAddr(redMAC[:])}
	black.Options = memport.Options{Pool: pool, MAC: net.HardwareAddr(blackMAC[:])}
	return assemble(b, far, pool, generator(b, red), generator(b, black))
}

// newPool returns a pool of n frames, on huge pages where there are any.
func newPool(b testing.TB, n int) *pmd.Pool {
	b.Helper()
	mem, err := pmd.Map(n * 2048)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = mem.Close() })
	pool, err := pmd.NewPool(mem, 2048)
	if err != nil {
		b.Fatal(err)
	}
	return pool
}

// assemble makes the gateway at gwA, or gwB when far, of its two ports.
func assemble(b testing.TB, far bool, pool *pmd.Pool, red, black pmd.Port) *rig {
	b.Helper()
	r := newParts()
	cfg := r.config(pool, red, black)
	r.db = sad.NewDB(r.d, cfg.Snapshots.IPsec.StoreSAD)
	cfg.Snapshots.FIB.Store(fib.Build(network(far)))
	cfg.Snapshots.IPsec.StoreSPD(spd.Snapshot{})
	r.start(b, cfg)
	r.policies(b, far, cfg.Snapshots)
	return r
}

// newParts returns a rig that has neither tables nor a worker yet.
func newParts() *rig { return &rig{c: new(counter.Worker), d: new(epoch.Domain)} }

// config is that of the rig's worker, whose snapshots are to be published
// before start.
func (r *rig) config(pool *pmd.Pool, red, black pmd.Port) pipeline.Config {
	return pipeline.Config{
		Ports: []pipeline.Port{
			{Side: pipeline.Protected, Queues: []pmd.Port{red}},
			{Side: pipeline.Wire, Queues: []pmd.Port{black}},
		},
		Pool: pool, Snapshots: new(pipeline.Snapshots), Epoch: r.d.Register(), Counters: r.c,
		Acquires: ring.New[spd.AcquireRequest](64), Punts: ring.New[fib.Punt](16), Injects: ring.New[fib.Inject](16),
		Burst: pipeline.MaxBurst, CacheEntries: 1 << 14, Seed: 1,
	}
}

// start makes the worker, which does nothing yet.
func (r *rig) start(b testing.TB, cfg pipeline.Config) {
	b.Helper()
	var err error
	if r.w, err = pipeline.New(cfg); err != nil {
		b.Fatal(err)
	}
}

func generator(b testing.TB, o memport.GeneratorOptions) *memport.Generator {
	b.Helper()
	g, err := memport.NewGenerator(o)
	if err != nil {
		b.Fatal(err)
	}
	return g
}

// network is what the gateway knows of links, routes and neighbours.
func network(far bool) *fib.Config {
	near, away, peer, own, host := net4("10.1.0.0/16"), net4("10.2.0.0/16"), gwB, gwA, hostA
	if far {
		near, away, peer, own, host = away, near, gwA, gwB, hostB
	}
	return &fib.Config{
		Links: []fib.Link{
			{Index: 1, Port: 0, MAC: net.HardwareAddr(redMAC[:]), MTU: 1500},
			{Index: 2, Port: 1, MAC: net.HardwareAddr(blackMAC[:]), MTU: 1500},
		},
		Routes: []fib.Route{
			{Dst: near, Link: 1},
			{Dst: net4("10.3.0.0/16"), Gateway: peer, Link: 2},
			{Dst: away, Gateway: peer, Link: 2},
			{Dst: net4("192.0.2.0/24"), Link: 2},
		},
		Neighbours: []fib.Neighbour{
			{Addr: flow.FromNetip(host), Link: 1, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}},
			{Addr: peer, Link: 2, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}},
		},
		Local: []flow.Addr{own},
	}
}

const policyID = 1

// policies publishes those of entries.
func (r *rig) policies(b testing.TB, far bool, snaps *pipeline.Snapshots) {
	var tables [2]*spd.Table
	for dir, list := range entries(far) {
		var err error
		if tables[dir], err = spd.Compile(nil, list); err != nil {
			b.Fatal(err)
		}
	}
	snaps.IPsec.StoreSPD(spd.Snapshot{Out: tables[spd.Out], In: tables[spd.In]})
}

// entries are the policies, by direction, that protect 10.1/16 <-> 10.2/16 and
// let 10.1/16 -> 10.3/16 pass in clear.
func entries(far bool) [2][]*spd.Policy {
	sel := flow.Selector{Src: net4("10.1.0.0/16"), Dst: net4("10.2.0.0/16"), SrcPort: flow.AnyPort, DstPort: flow.AnyPort}
	clear := sel
	clear.Dst = net4("10.3.0.0/16")
	src, dst := gwA, gwB
	if far {
		sel, src, dst = sel.Mirrored(), gwB, gwA
	}
	tpl := spd.Template{Proto: 50, Src: src, Dst: dst}
	back := spd.Template{Proto: 50, Src: dst, Dst: src}
	return [2][]*spd.Policy{
		spd.Out: {
			{ID: policyID, Dir: spd.Out, Sel: sel, Action: spd.Protect, Template: tpl},
			{ID: 2, Dir: spd.Out, Sel: clear, Action: spd.Bypass},
		},
		spd.In: {{ID: 3, Dir: spd.In, Sel: sel.Mirrored(), Action: spd.Protect, Template: back}},
	}
}

// suite names algorithms as the benchmarks' names spell them.
type suite struct {
	name, enc, integ string
	encLen, authLen  int
}

func suites() []suite {
	return []suite{{"aes128gcm", "aes-gcm-16", "", 20, 0}}
}

// params is the SA from gwA to gwB.
func (s suite) params() *sad.Params {
	return &sad.Params{SPI: 0x1000, Proto: 50, Src: gwA, Dst: gwB, Tunnel: true, Encryption: s.enc, Integrity: s.integ,
		EncKey: bytes.Repeat([]byte{7}, s.encLen), AuthKey: bytes.Repeat([]byte{9}, s.authLen), Window: 64}
}

// outbound gives the rig a fresh SA towards gwB in place of the one it had.
func (r *rig) outbound(b testing.TB, s suite) {
	b.Helper()
	sa, err := sad.NewOutbound(s.params())
	if err != nil {
		b.Fatal(err)
	}
	if err := r.db.AddOutbound(sa); err != nil {
		b.Fatal(err)
	}
	if err := r.db.Bind(policyID, sa); err != nil {
		b.Fatal(err)
	}
}

// inbound gives the rig a fresh SA from gwA, whose replay window starts anew.
func (r *rig) inbound(b testing.TB, s suite) {
	sa, err := sad.NewInbound(s.params())
	if err != nil {
		b.Fatal(err)
	}
	err = r.db.Batch(func() error {
		if r.db.FindInbound(sa.SPI, sa.Dst, 50) != nil {
			if err := r.db.Remove(sa.SPI, sa.Dst, 50); err != nil {
				return err
			}
		}
		return r.db.AddInbound(sa)
	})
	if err != nil {
		b.Fatal(err)
	}
	r.d.Reap()
}

// frames are the packets of profile p from hostA to dst.
func frames(p bench.Profile, mac [6]byte, dst netip.Addr, n int) [][]byte {
	var fs [][]byte
	for i := range n {
		fs = append(fs, bench.UDP4(mac, hostA, dst, 1000, p.Sizes[i%len(p.Sizes)]))
	}
	return fs
}

// sealed returns the n first packets of profile p as gwA sends them to gwB,
// addressed to gwB's wire port.
func sealed(b testing.TB, p bench.Profile, s suite, n int) [][]byte {
	b.Helper()
	var out [][]byte
	collect := func(f []byte) {
		f = bytes.Clone(f)
		copy(f, blackMAC[:])
		out = append(out, f)
	}
	r := newRig(b, false, memport.GeneratorOptions{Templates: frames(p, redMAC, hostB, len(p.Sizes))},
		memport.GeneratorOptions{Sink: collect})
	r.outbound(b, s)
	for len(out) < n {
		r.w.Turn()
	}
	out = out[:n]
	for i, f := range out {
		if seq := binary.BigEndian.Uint32(f[14+24:]); f[14+9] != 50 || seq != uint32(i+1) {
			b.Fatalf("packet %d: protocol %d, sequence %d", i, f[14+9], seq)
		}
	}
	return out
}

// run turns until b.N packets are through and reports per-packet figures. It
// calls between before each round packets, unless round is 0.
func (r *rig) run(b *testing.B, p bench.Profile, round int, between func()) {
	b.Helper()
	b.ReportAllocs()
	if round == 0 {
		for range 100 { // warm the caches
			r.w.Turn()
		}
	}
	start := r.c.Values
	b.ResetTimer()
	t0 := tsc.Now()
	n := 0
	for n < b.N {
		if round > 0 && n%round == 0 {
			between()
		}
		n += r.w.Turn()
	}
	cycles := float64(tsc.Now() - t0)
	sec := b.Elapsed().Seconds()
	b.StopTimer()
	if sent := r.c.Tx - start.Tx; sent != uint64(n) {
		b.Fatalf("%d of %d packets were sent; drops %v", sent, n, r.c.Drops)
	}
	report(b, n, cycles, sec, p.Mean())
}

// report adds cycles/pkt, Mpps and Gbit/s for n packets of mean bytes.
func report(b *testing.B, n int, cycles, sec, mean float64) {
	b.ReportMetric(cycles/float64(n), "cycles/pkt")
	b.ReportMetric(float64(n)/sec/1e6, "Mpps")
	b.ReportMetric(float64(n)*mean*8/sec/1e9, "Gbit/s")
}
