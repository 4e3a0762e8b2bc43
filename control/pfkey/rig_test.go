package pfkey

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/control/kernel"
	"spigot/internal/counter"
	"spigot/internal/epoch"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/tables"
	"spigot/ring"
	"spigot/spd"
)

// rig is a Server over a controller with one worker that is not there. The
// gateway is 192.0.2.1; its peer, 192.0.2.2.
type rig struct {
	*Server
	control  *control.Controller
	acquires *ring.SPSC[spd.AcquireRequest]
	tables   *tables.Published
	log      *logBuffer
}

// silent is a kernel that says at the start what the gateway's address is.
type silent struct{ updates chan *kernel.View }

func (s *silent) Updates() <-chan *kernel.View { return s.updates }
func (s *silent) Resolve(int, flow.Addr)       {}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newRig(t testing.TB, edit ...func(*Config)) *rig {
	t.Helper()
	return newRigOver(t, func(*control.Config) {}, edit...)
}

func newRigOver(t testing.TB, editControl func(*control.Config), edit ...func(*Config)) *rig {
	t.Helper()
	r := &rig{acquires: ring.New[spd.AcquireRequest](256), tables: new(tables.Published), log: &logBuffer{}}
	mirror := &silent{updates: make(chan *kernel.View)}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	over := control.Config{
		Log:   log,
		IPsec: r.tables, FIB: new(atomic.Pointer[fib.Table]),
		Epochs: new(epoch.Domain), Mirror: mirror,
		Workers: []control.Worker{{
			Counters: new(counter.Worker), Acquires: r.acquires,
			Punts: ring.New[fib.Punt](16), Injects: ring.New[fib.Inject](16),
		}},
	}
	editControl(&over)
	var err error
	r.control, err = control.New(over)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.control.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { end(); running.Wait(); r.control.Close() })
	for range 2 { // the second is taken when the first is in force
		mirror.updates <- &kernel.View{FIB: fib.Config{Local: []flow.Addr{flow.FromNetip(netip.MustParseAddr("192.0.2.1"))}}}
	}
	cfg := Config{Control: r.control, Log: log}
	for _, f := range edit {
		f(&cfg)
	}
	r.Server = New(cfg)
	return r
}

// need has the worker meet policy id without an SA, on a packet to dst.
func (r *rig) need(id uint32, dst string) {
	r.acquires.Push([]spd.AcquireRequest{{Policy: id, Flow: flow.Tuple{
		Src: flow.FromNetip(netip.MustParseAddr("10.1.0.1")), Dst: flow.FromNetip(netip.MustParseAddr(dst)), Proto: 17, SrcPort: 1000, DstPort: 53,
	}}})
}

// peer is a client without a socket.
type peer struct {
	t testing.TB
	*Client
}

func (r *rig) connect(t testing.TB, uid uint32) *peer {
	t.Helper()
	c, err := r.Connect(uid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &peer{t, c}
}

// received returns what the server has for the client now.
func (p *peer) received() (all []*Message) {
	p.t.Helper()
	p.Deliver(func(b []byte) bool {
		m, err := Decode(b)
		if err != nil {
			p.t.Errorf("the server sent what Decode refuses: %v: %x", err, b)
		}
		if len(b) >= MaxMessage {
			p.t.Errorf("%v of %d bytes: clients read less than %d", m.Type, len(b), MaxMessage)
		}
		all = append(all, m)
		return true
	})
	return all
}

// ask sends m and returns all that comes at once.
func (p *peer) ask(m *Message) []*Message {
	p.t.Helper()
	if errno := p.Handle(m.Append(nil)); errno != 0 {
		p.t.Fatalf("%v: Handle returns %v", m.Type, errno)
	}
	return p.received()
}

// one sends m and returns its answer, of which there is one.
func (p *peer) one(m *Message) *Message {
	p.t.Helper()
	all := p.ask(m)
	if len(all) != 1 {
		p.t.Fatalf("%v: %d answers, want 1: %+v", m.Type, len(all), all)
	}
	a := all[0]
	if a.Type != m.Type || a.Seq != m.Seq || a.PID != m.PID {
		p.t.Errorf("answer to %v seq %d pid %d: %v seq %d pid %d", m.Type, m.Seq, m.PID, a.Type, a.Seq, a.PID)
	}
	if a.Errno != 0 && a.Has != 0 {
		p.t.Errorf("%v: an error with extensions %v", m.Type, a.Has)
	}
	return a
}

// ok sends m, which must succeed.
func (p *peer) ok(m *Message) *Message {
	p.t.Helper()
	a := p.one(m)
	if a.Errno != 0 {
		p.t.Fatalf("%v: %v, want success", m.Type, a.Errno)
	}
	return a
}

// fails sends m, which must fail so.
func (p *peer) fails(m *Message, errno unix.Errno) {
	p.t.Helper()
	if a := p.one(m); a.Errno != errno {
		p.t.Errorf("%v: %v, want %v", m.Type, a.Errno, errno)
	}
}

func host(a string) Address {
	ip := netip.MustParseAddr(a)
	return Address{Addr: ip, Prefix: uint8(ip.BitLen())}
}

func net4(p string) Address {
	q := netip.MustParsePrefix(p)
	return Address{Addr: q.Addr(), Prefix: uint8(q.Bits()), Proto: anyProto}
}

func pattern(n int, first byte) Key {
	k := make(Key, n)
	for i := range k {
		k[i] = first + byte(i)
	}
	return k
}

// addSA is an ADD as iked sends it: AES-CBC-256 with HMAC-SHA2-384, from the
// gateway to the peer.
func addSA(spi uint32) *Message {
	return &Message{
		Type: Add, SAType: ESP, Seq: 100, PID: 4711,
		Has: 1<<ExtSA | 1<<ExtSA2 | addresses | keys | 1<<ExtHard | 1<<ExtSoft,
		SA:  SA{SPI: spi, Replay: 64, State: StateMature, Auth: 6, Enc: 12},
		SA2: SA2{Mode: ModeTunnel}, Src: host("192.0.2.1"), Dst: host("192.0.2.2"),
		Hard: Lifetime{AddTime: 3600, Bytes: 1 << 30}, Soft: Lifetime{AddTime: 3000},
		AuthKey: pattern(48, 0x40), EncKey: pattern(32, 0x80),
	}
}

// spdUpdate is an X_SPDUPDATE as iked sends it, outbound.
func spdUpdate() *Message {
	return &Message{
		Type: SPDUpdate, Seq: 101, PID: 4711, Has: addresses | 1<<ExtPolicy | 1<<ExtSA2, SA2: SA2{Mode: ModeTunnel},
		Src: net4("10.1.0.0/16"), Dst: net4("10.2.0.0/16"),
		Policy: Policy{Kind: PolicyIPsec, Dir: DirOut, Requests: []Request{{
			Proto: protoESP, Mode: ModeTunnel, Level: LevelRequire,
			Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"),
		}}},
	}
}

func register(t SAType) *Message { return &Message{Type: Register, SAType: t, Seq: 1, PID: 4711} }
