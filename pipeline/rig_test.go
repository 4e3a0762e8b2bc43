package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/epoch"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/pipeline"
	"spigot/pmd"
	"spigot/pmd/memport"
	"spigot/ring"
	"spigot/sad"
	"spigot/spd"
)

// The test network, in both families:
//
//	host a -- [port 0  gateway a  port 1] -- wire -- [port 1  gateway b  port 0] -- host b
var (
	netA4, netB4 = netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16")
	netA6, netB6 = netip.MustParsePrefix("fd00:1::/32"), netip.MustParsePrefix("fd00:2::/32")
	hostA4       = netip.MustParseAddr("10.1.0.10")
	hostB4       = netip.MustParseAddr("10.2.0.10")
	hostA6       = netip.MustParseAddr("fd00:1::10")
	hostB6       = netip.MustParseAddr("fd00:2::10")
	gwA4         = netip.MustParseAddr("192.0.2.1")
	gwB4         = netip.MustParseAddr("192.0.2.2")
	gwA6         = netip.MustParseAddr("2001:db8::1")
	gwB6         = netip.MustParseAddr("2001:db8::2")
)

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

func addr(a netip.Addr) flow.Addr          { return flow.FromNetip(a) }
func prefix(p netip.Prefix) flow.AddrRange { return flow.RangeOf(p) }
func selector(src, dst netip.Prefix) flow.Selector {
	return flow.Selector{Src: prefix(src), Dst: prefix(dst), SrcPort: flow.AnyPort, DstPort: flow.AnyPort}
}

// gateway is one worker with all that the slow path would hold.
type gateway struct {
	t        testing.TB
	cfg      pipeline.Config
	w        *pipeline.Worker
	pool     *pmd.Pool
	snaps    *pipeline.Snapshots
	epochs   *epoch.Domain
	db       *sad.DB
	policies map[spd.Dir][]*spd.Policy
	nextID   uint32
	mtu      int
	side     byte // 'a' or 'b'
	groups   []fib.Route
	cpu      uint16
}

// queues are what a gateway is built on; the first is protected, the second wire.
type queues [2]pmd.Port

func newPool(t testing.TB, frames int) *pmd.Pool {
	t.Helper()
	p, err := pmd.NewPool(&pmd.Memory{Bytes: make([]byte, frames*2048)}, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newGateway assembles gateway side over q with routes for the test network,
// and no policies or SAs.
func newGateway(t testing.TB, side byte, pool *pmd.Pool, q queues) *gateway {
	t.Helper()
	g := &gateway{t: t, side: side, pool: pool, snaps: new(pipeline.Snapshots), epochs: new(epoch.Domain),
		policies: map[spd.Dir][]*spd.Policy{}, mtu: 1500, cpu: 1}
	g.db = sad.NewDB(g.epochs, g.snaps.IPsec.StoreSAD)
	g.snaps.IPsec.StoreSPD(spd.Snapshot{})
	g.setMTU(1500)
	g.assemble(q)
	return g
}

// assemble gives g its worker.
func (g *gateway) assemble(q queues) {
	g.t.Helper()
	g.cfg = pipeline.Config{
		Ports: []pipeline.Port{
			{Side: pipeline.Protected, Queues: []pmd.Port{q[0]}},
			{Side: pipeline.Wire, Queues: []pmd.Port{q[1]}},
		},
		Pool: g.pool, Snapshots: g.snaps, Epoch: g.epochs.Register(), Counters: new(counter.Worker),
		Acquires: ring.New[spd.AcquireRequest](64), Punts: ring.New[fib.Punt](16), Injects: ring.New[fib.Inject](16),
		Burst: 32, CacheEntries: 1024, Seed: 1, CPU: g.cpu,
	}
	w, err := pipeline.New(g.cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	g.w = w
}

// setMTU publishes the test network's routes with the given MTU on the wire.
func (g *gateway) setMTU(wire int) { g.setMTUs(1500, wire) }

// setMTUs is setMTU with an MTU on the protected side, too.
func (g *gateway) setMTUs(red, wire int) {
	g.mtu = wire
	cfg := &fib.Config{Links: []fib.Link{
		{Index: 1, Port: 0, MAC: mac(0xa0), MTU: red},
		{Index: 2, Port: 1, MAC: mac(0xa1), MTU: wire},
	}}
	near, far := []netip.Prefix{netA4, netA6}, []netip.Prefix{netB4, netB6}
	host, peer := []netip.Addr{hostA4, hostA6}, []netip.Addr{gwB4, gwB6}
	own := []netip.Addr{gwA4, gwA6}
	if g.side == 'b' {
		near, far = far, near
		host, peer, own = []netip.Addr{hostB4, hostB6}, []netip.Addr{gwA4, gwA6}, []netip.Addr{gwB4, gwB6}
	}
	for f := range 2 {
		cfg.Local = append(cfg.Local, addr(own[f]))
		cfg.Routes = append(cfg.Routes,
			fib.Route{Dst: prefix(near[f]), Link: 1},
			fib.Route{Dst: prefix(far[f]), Gateway: addr(peer[f]), Link: 2},
			fib.Route{Dst: flow.AddrRange{Lo: addr(peer[f]), Hi: addr(peer[f])}, Link: 2})
		cfg.Neighbours = append(cfg.Neighbours,
			fib.Neighbour{Addr: addr(host[f]), Link: 1, MAC: mac(1)},
			fib.Neighbour{Addr: addr(peer[f]), Link: 2, MAC: mac(2)})
	}
	cfg.Routes = append(cfg.Routes, g.groups...)
	g.snaps.FIB.Store(fib.Build(cfg))
}

// addPolicy publishes p behind those that are there, and returns its ID.
func (g *gateway) addPolicy(p spd.Policy) uint32 {
	g.t.Helper()
	g.nextID++
	p.ID = g.nextID
	g.policies[p.Dir] = append(g.policies[p.Dir], &p)
	g.publishPolicies()
	return p.ID
}

func (g *gateway) publishPolicies() {
	g.t.Helper()
	old := g.snaps.IPsec.Load().SPD
	out, err := spd.Compile(old.Out, g.policies[spd.Out])
	if err != nil {
		g.t.Fatal(err)
	}
	in, err := spd.Compile(old.In, g.policies[spd.In])
	if err != nil {
		g.t.Fatal(err)
	}
	g.snaps.IPsec.StoreSPD(spd.Snapshot{Out: out, In: in})
}

// tunnel describes one SA pair's outer side; a to b has SPI spi, b to a spi+1.
type tunnel struct {
	spi      uint32
	enc      string
	integ    string
	encLen   int
	authLen  int
	esn      bool
	outer6   bool
	udp      bool // ESP in UDP (RFC 3948)
	host     bool // transport mode, from host to host
	gate     bool // transport mode, from gateway to gateway
	ah       bool // AH, with the integrity algorithm; else ESP
	align4   bool
	window   int
	outer    sad.Outer
	selector bool // SAs carry the test network's selectors
}

var aes128gcm = tunnel{spi: 0x1000, enc: "aes-gcm-16", encLen: 20, window: 64}

func (tn *tunnel) params(fromA bool) *sad.Params {
	src, dst, spi := gwA4, gwB4, tn.spi
	switch {
	case tn.host && tn.outer6:
		src, dst = hostA6, hostB6
	case tn.host:
		src, dst = hostA4, hostB4
	case tn.outer6:
		src, dst = gwA6, gwB6
	}
	if !fromA {
		src, dst, spi = dst, src, spi+1
	}
	p := &sad.Params{SPI: spi, Proto: 50, Src: addr(src), Dst: addr(dst), Tunnel: !tn.host && !tn.gate,
		Encryption: tn.enc, Integrity: tn.integ, ESN: tn.esn, Window: tn.window, Reqid: 7, Outer: tn.outer,
		EncKey: key(tn.encLen, byte(spi)), AuthKey: key(tn.authLen, byte(spi)+100)}
	if tn.ah {
		p.Proto, p.EncKey, p.Align4 = 51, nil, tn.align4
	}
	if tn.udp {
		p.Encap = sad.Encap{Type: sad.EncapUDP, SrcPort: 4500, DstPort: 4500}
	}
	if tn.selector {
		p.Selectors = []flow.Selector{selector(netA4, netB4)}
		if !fromA {
			p.Selectors[0] = p.Selectors[0].Mirrored()
		}
	}
	return p
}

func key(n int, seed byte) []byte {
	k := make([]byte, n)
	for i := range k {
		k[i] = seed + byte(i)*7
	}
	return k
}

// protect gives g the SA pair of tn, and policies for both families that ask for it.
func (g *gateway) protect(tn tunnel) (out *sad.Outbound, in *sad.Inbound) {
	g.t.Helper()
	out, in = g.pair(tn)
	for _, n := range [][2]netip.Prefix{{netA4, netB4}, {netA6, netB6}} {
		sel := selector(n[0], n[1])
		if g.side != 'a' {
			sel = sel.Mirrored()
		}
		id := g.addPolicy(spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect, Template: naming(&out.SA)})
		g.addPolicy(spd.Policy{Dir: spd.In, Sel: sel.Mirrored(), Action: spd.Protect, Template: naming(&in.SA)})
		if err := g.db.Bind(id, out); err != nil {
			g.t.Fatal(err)
		}
	}
	return out, in
}

// pair gives g the SA pair of tn.
func (g *gateway) pair(tn tunnel) (out *sad.Outbound, in *sad.Inbound) {
	g.t.Helper()
	a := g.side == 'a'
	out, err := sad.NewOutbound(tn.params(a))
	if err != nil {
		g.t.Fatal(err)
	}
	in, err = sad.NewInbound(tn.params(!a))
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.db.AddOutbound(out); err != nil {
		g.t.Fatal(err)
	}
	if err := g.db.AddInbound(in); err != nil {
		g.t.Fatal(err)
	}
	return out, in
}

func templateOf(src, dst flow.Addr) spd.Template {
	return spd.Template{Proto: 50, Mode: spd.Tunnel, Src: src, Dst: dst, Reqid: 7}
}

// naming returns the template that names sa.
func naming(sa *sad.SA) spd.Template {
	t := spd.Template{Proto: sa.Proto, Mode: spd.Tunnel, Src: sa.Src, Dst: sa.Dst, Reqid: sa.Reqid}
	if !sa.Tunnel {
		t.Mode = spd.Transport
	}
	return t
}

// home fails the test unless every frame is home and every packet was counted once.
func (g *gateway) home() {
	g.t.Helper()
	for range 4 {
		g.w.Turn()
	}
	for _, p := range g.cfg.Ports {
		for _, q := range p.Queues {
			if err := q.Close(); err != nil {
				g.t.Errorf("close: %v", err)
			}
		}
	}
	if g.pool.Len() != g.pool.Cap() || g.pool.Bad() != 0 {
		g.t.Errorf("gateway %c: %d of %d frames are home, %d bad returns", g.side, g.pool.Len(), g.pool.Cap(), g.pool.Bad())
	}
	g.cfg.Counters.Publish()
	if v := g.cfg.Counters.Load(); !v.Balanced() {
		g.t.Errorf("gateway %c: rx %d + injected %d != tx %d + punted %d + drops %d",
			g.side, v.Rx, v.Injected, v.Tx, v.Punted, v.Dropped())
	}
}

func (g *gateway) values() counter.Values {
	g.cfg.Counters.Publish()
	return g.cfg.Counters.Load()
}

// lone is a gateway whose two ports lead to taps.
type lone struct {
	*gateway
	host, wire *memport.Tap
}

func newLone(t testing.TB, side byte) *lone { return newLoneOf(t, side, 512) }

// newLoneOf is newLone with so many frames.
func newLoneOf(t testing.TB, side byte, frames int) *lone {
	t.Helper()
	pool := newPool(t, frames)
	red, host := newTap(t, pool, mac(0xa0))
	black, wire := newTap(t, pool, mac(0xa1))
	l := &lone{newGateway(t, side, pool, queues{red, black}), host, wire}
	t.Cleanup(l.home)
	return l
}

// sibling is a second worker of l's gateway, with a pool and taps of its own.
func (l *lone) sibling() *lone {
	l.t.Helper()
	g := *l.gateway
	g.cpu++
	g.pool = newPool(l.t, 512)
	red, host := newTap(l.t, g.pool, mac(0xa0))
	black, wire := newTap(l.t, g.pool, mac(0xa1))
	g.assemble(queues{red, black})
	s := &lone{&g, host, wire}
	l.t.Cleanup(s.home)
	return s
}

func newTap(t testing.TB, pool *pmd.Pool, mac net.HardwareAddr) (*memport.Port, *memport.Tap) {
	t.Helper()
	p, tap, err := memport.NewTap(256, memport.Options{Pool: pool, MAC: mac})
	if err != nil {
		t.Fatal(err)
	}
	return p, tap
}

// one sends frame in by in and returns what then left by out: one packet, or nil.
func (l *lone) one(in, out *memport.Tap, frame []byte) []byte {
	l.t.Helper()
	if !in.Inject(frame) {
		l.t.Fatal("tap is full")
	}
	l.w.Turn()
	got := out.Take()
	switch len(got) {
	case 0:
		return nil
	case 1:
		return got[0]
	}
	l.t.Fatalf("%d packets left for one", len(got))
	return nil
}

// outOf seals frame on its way from the host to the wire; into is the reverse.
func (l *lone) outOf(frame []byte) []byte { return l.one(l.host, l.wire, frame) }
func (l *lone) into(frame []byte) []byte  { return l.one(l.wire, l.host, retarget(frame)) }

// retarget gives frame, which left for a neighbour, the MAC of a gateway's wire port.
func retarget(frame []byte) []byte {
	f := bytes.Clone(frame)
	if len(f) >= 6 {
		copy(f, mac(0xa1))
	}
	return f
}

// udp4 and udp6 make an Ethernet frame with an IP packet of total length size.
func udp4(src, dst netip.Addr, ttl byte, size int) []byte {
	f := make([]byte, 14+size)
	copy(f, mac(0xa0))
	copy(f[6:], mac(1))
	f[12] = 8
	ip := f[14:]
	ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, ttl, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(size))
	copy(ip[12:], src.AsSlice())
	copy(ip[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip[:20]))
	udpBody(ip[20:])
	return f
}

func udp6(src, dst netip.Addr, hops byte, size int) []byte {
	f := make([]byte, 14+size)
	copy(f, mac(0xa0))
	copy(f[6:], mac(1))
	f[12], f[13] = 0x86, 0xdd
	ip := f[14:]
	ip[0], ip[6], ip[7] = 0x60, 17, hops
	binary.BigEndian.PutUint16(ip[4:], uint16(size-40))
	copy(ip[8:], src.AsSlice())
	copy(ip[24:], dst.AsSlice())
	udpBody(ip[40:])
	return f
}

func udpBody(b []byte) {
	binary.BigEndian.PutUint16(b, 1000)
	binary.BigEndian.PutUint16(b[2:], 2000)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	for i := range b[8:] {
		b[8+i] = "the quick brown fox jumps over the lazy dog. "[i%45]
	}
}

// sum is the Internet checksum, uncomplemented, in the plainest form (RFC 1071).
func sum(b []byte) uint16 {
	var s uint32
	for i, x := range b {
		s += uint32(x) << (8 * (1 - i%2))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// fixSum4 makes the header checksum of an IPv4 frame right again.
func fixSum4(f []byte) []byte {
	ip := f[14:]
	ihl := int(ip[0]&15) * 4
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip[:ihl]))
	return f
}

// onlyDrop fails unless reason is the one drop that g counted since before.
func (g *gateway) onlyDrop(before counter.Values, reason counter.Reason) {
	g.t.Helper()
	now := g.values()
	for r := range counter.NumReasons {
		want := uint64(0)
		if r == reason {
			want = 1
		}
		if got := now.Drops[r] - before.Drops[r]; got != want {
			g.t.Errorf("%d packets dropped as %v, want %d", got, r, want)
		}
	}
}

func (tn tunnel) String() string {
	outer := 4
	if tn.outer6 {
		outer = 6
	}
	if tn.ah {
		return fmt.Sprintf("ah/%s-%d/esn=%t/outer=%d/host=%t/align4=%t", tn.integ, tn.authLen*8, tn.esn, outer, tn.host, tn.align4)
	}
	return fmt.Sprintf("%s-%d%s/esn=%t/outer=%d/udp=%t/host=%t", tn.enc, tn.encLen*8, tn.integ, tn.esn, outer, tn.udp, tn.host)
}
