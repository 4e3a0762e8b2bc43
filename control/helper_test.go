package control

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spigot/control/ipsecconf"
	"spigot/control/kernel"
	"spigot/internal/counter"
	"spigot/internal/epoch"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/tables"
	"spigot/ring"
	"spigot/sad"
	"spigot/spd"
)

// gateway is a controller with everything around it faked: port 0, in0, is on
// the protected side (10.1.0.1, fd01::1), port 1, out0, on the wire side
// (192.0.2.1, 2001:db8::1). The peer is 192.0.2.2, 2001:db8::2.
type gateway struct {
	*Controller
	ipsec    tables.Published
	spd      spdView
	sad      sadView
	fib      atomic.Pointer[fib.Table]
	mirror   *fakeMirror
	worker   Worker
	log      *logBuffer
	locals   [][]netip.Addr // what SetLocal was told
	steering error          // what Check says
	events   *Subscriber
	news     []Event // taken from events
}

// spdView and sadView are one half of what is published.
type (
	spdView struct{ *tables.Published }
	sadView struct{ *tables.Published }
)

func (v spdView) Load() *spd.Snapshot { return &v.Published.Load().SPD }
func (v sadView) Load() *sad.Snapshot { return v.Published.Load().SAD }

type fakeMirror struct {
	updates  chan *kernel.View
	resolved []resolveCall
}

type resolveCall struct {
	link int
	addr flow.Addr
}

func (m *fakeMirror) Updates() <-chan *kernel.View { return m.updates }
func (m *fakeMirror) Resolve(link int, addr flow.Addr) {
	m.resolved = append(m.resolved, resolveCall{link, addr})
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// count returns how many lines hold text.
func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func newGateway(t testing.TB, edit ...func(*Config)) *gateway {
	t.Helper()
	g := &gateway{mirror: &fakeMirror{updates: make(chan *kernel.View, 1)}, log: &logBuffer{}}
	g.spd, g.sad = spdView{&g.ipsec}, sadView{&g.ipsec}
	g.worker = Worker{
		Core:     1,
		Counters: new(counter.Worker),
		Acquires: ring.New[spd.AcquireRequest](256),
		Punts:    ring.New[fib.Punt](256),
		Injects:  ring.New[fib.Inject](256),
	}
	cfg := Config{
		Log:   slog.New(slog.NewTextHandler(g.log, nil)),
		IPsec: &g.ipsec, FIB: &g.fib,
		Epochs:  new(epoch.Domain),
		Workers: []Worker{g.worker},
		Ports: []Port{
			{Name: "in0", Side: SideProtected,
				Check:    func() error { return g.steering },
				SetLocal: func(a []netip.Addr) error { g.locals = append(g.locals, a); return nil }},
			{Name: "out0", Side: SideWire},
		},
		Mirror: g.mirror,
	}
	for _, f := range edit {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.Controller = c
	g.events = c.Subscribe(Interest{Kinds: AllKinds}, maxQueue)
	t.Cleanup(c.Close)
	return g
}

// see has the controller adopt the usual view with extra addresses of the host.
func (g *gateway) see(extra ...string) {
	v := &kernel.View{
		FIB: fib.Config{
			Links: []fib.Link{
				{Index: 11, Port: 0, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1500},
				{Index: 12, Port: 1, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, MTU: 1500},
			},
			Routes: []fib.Route{{Dst: prefix("0.0.0.0/0"), Gateway: addr("192.0.2.2"), Link: 12}},
		},
		Ports: []kernel.PortState{
			{Name: "in0", Index: 11, Up: true, Carrier: true, MTU: 1500, Addrs: addrs("10.1.0.1", "fe80::1", "fd01::1")},
			{Name: "out0", Index: 12, Up: true, Carrier: true, MTU: 1500, Addrs: addrs("192.0.2.1", "2001:db8::1")},
		},
	}
	for _, a := range append([]string{"10.1.0.1", "fd01::1", "192.0.2.1", "2001:db8::1"}, extra...) {
		v.FIB.Local = append(v.FIB.Local, addr(a))
	}
	g.Do(func() { g.adopt(v) })
}

func addrs(ss ...string) (all []netip.Addr) {
	for _, s := range ss {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func prefix(s string) flow.AddrRange { return flow.RangeOf(netip.MustParsePrefix(s)) }

// sa is an SA from src to dst under a key that belongs to its SPI alone.
func sa(spi uint32, src, dst string, edit ...func(*sad.Params)) *sad.Params {
	p := &sad.Params{
		SPI: spi, Proto: 50, Tunnel: true, Src: addr(src), Dst: addr(dst),
		Encryption: "aes-cbc", Integrity: "hmac-sha2-256-128",
		EncKey: bytes.Repeat([]byte{byte(spi)}, 16), AuthKey: bytes.Repeat([]byte{byte(spi)}, 32),
		Window: 64, Name: "test",
	}
	for _, f := range edit {
		f(p)
	}
	return p
}

func gcm(p *sad.Params) {
	p.Encryption, p.Integrity, p.AuthKey = "aes-gcm-16", "", nil
	p.EncKey = bytes.Repeat([]byte{byte(p.SPI)}, 20)
}

func reqid(n uint32) func(*sad.Params) { return func(p *sad.Params) { p.Reqid = n } }

// protect is an outbound policy for traffic to dst by the tunnel to the peer.
func protect(dst string, edit ...func(*spd.Policy)) *spd.Policy {
	p := &spd.Policy{
		Dir:    spd.Out,
		Sel:    selector("10.1.0.0/16", dst),
		Action: spd.Protect,
		Template: spd.Template{
			Proto: 50, Mode: spd.Tunnel, Src: addr("192.0.2.1"), Dst: addr("192.0.2.2"),
		},
		Name: "to " + dst,
	}
	for _, f := range edit {
		f(p)
	}
	return p
}

func selector(src, dst string) flow.Selector {
	return flow.Selector{Src: prefix(src), Dst: prefix(dst), SrcPort: flow.AnyPort, DstPort: flow.AnyPort}
}

func conf(parts ...any) *ipsecconf.Config {
	c := new(ipsecconf.Config)
	for _, p := range parts {
		switch p := p.(type) {
		case *sad.Params:
			c.SAs = append(c.SAs, p)
		case *spd.Policy:
			c.Policies = append(c.Policies, p)
		}
	}
	return c
}

func (g *gateway) load(t *testing.T, parts ...any) {
	t.Helper()
	if err := g.Load(conf(parts...)); err != nil {
		t.Fatal(err)
	}
}

// boundTo returns the SPI that the policy of that name seals with, 0 if none.
func (g *gateway) boundTo(t *testing.T, name string) uint32 {
	t.Helper()
	for _, p := range g.spd.Load().Out.Policies() {
		if p.Name == name {
			if o := g.sad.Load().Outbound(p.ID); o != nil {
				return o.SPI
			}
			return 0
		}
	}
	t.Fatalf("no policy %q", name)
	return 0
}

// alive says whether the SA still has its key.
func alive(k *sad.SA) bool {
	job := sad.Job{Key: k.Key, Pkt: make([]byte, int(k.Geo.Head)+32+int(k.Geo.ICV))}
	jobs := []sad.Job{job}
	sad.NewEngine().Seal(jobs)
	return jobs[0].OK
}

// hear returns the events of that kind so far.
func (g *gateway) hear(kind EventKind) (all []Event) {
	var buf [64]Event
	for n := g.events.Take(buf[:]); n > 0; n = g.events.Take(buf[:]) {
		g.news = append(g.news, buf[:n]...)
	}
	for _, e := range g.news {
		if e.Kind == kind {
			all = append(all, e)
		}
	}
	return all
}

// list returns all SAs in order.
func (g *gateway) list() []*record { return slices.Collect(g.sas.all) }

// round judges all SAs, as many polls as that takes, and returns how many.
func (g *gateway) round(now time.Time) (polls int) {
	g.Do(func() { g.chores(now) })
	for ; g.sas.cursor != nil; polls++ {
		g.Do(func() { g.poll(now) })
	}
	return polls
}
