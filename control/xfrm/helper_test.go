package xfrm

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
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

// Rig is what tests outside of the package see of a rig.
type Rig struct{ *rig }

// NewRig returns a rig on a host with these addresses.
func NewRig(t testing.TB, locals ...string) *Rig {
	t.Helper()
	return &Rig{makeRig(t, func(*Config) {}, locals...)}
}

// Control is what the server works on.
func (r *Rig) Control() *control.Controller { return r.ctl }

// Bound returns the SA that a policy has, nil if none.
func (r *Rig) Bound(policy uint32) *sad.Outbound { return r.ipsec.Load().SAD.Outbound(policy) }

// Acquire has a worker ask for the SA of a policy.
func (r *Rig) Acquire(policy uint32, f flow.Tuple) {
	r.acquires.Push([]spd.AcquireRequest{{Policy: policy, Flow: f}})
}

// AwaitListener waits for a client that hears of acquires.
func (r *Rig) AwaitListener(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		for c := range r.clients {
			if c.groups.Load()&1 != 0 {
				r.mu.Unlock()
				return
			}
		}
		r.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("nobody listens")
		}
	}
}

// Ask adds a policy without an SA and has a worker ask for one.
func (r *rig) Ask(t testing.TB) {
	t.Helper()
	c := r.client(t, 0)
	r.do(t, c, 0, r.req(msgNewPolicy, syscall.NLM_F_ACK, charonPolicy(dirOut), charonTmpl(dirOut, 0)))
	var id uint32
	if err := r.ctl.Keying(func(k *control.Keying) {
		id = must(k.Policy(control.PolicyName{Dir: spd.Out, Sel: must(charonPolicy(dirOut).sel.flow())})).ID
	}); err != nil {
		t.Fatal(err)
	}
	r.acquires.Push([]spd.AcquireRequest{{Policy: id, Flow: flow.Tuple{
		Src: host("10.1.0.5"), Dst: host("10.2.0.6"), SrcPort: 1234, DstPort: 80, Proto: 6,
	}}})
}

// rig is a server on a whole control with nothing around it. The host is
// 192.0.2.1 and 2001:db8::1, unless a test says otherwise.
type rig struct {
	*Server
	ctl      *control.Controller
	acquires *ring.SPSC[spd.AcquireRequest]
	ipsec    tables.Published
	log      logBuffer
	seq      uint32
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type fakeMirror chan *kernel.View

func (m fakeMirror) Updates() <-chan *kernel.View { return m }
func (m fakeMirror) Resolve(int, flow.Addr)       {}

func newRig(t testing.TB) *rig {
	t.Helper()
	return makeRig(t, func(*Config) {}, "192.0.2.1", "2001:db8::1")
}

func makeRig(t testing.TB, edit func(*Config), locals ...string) *rig {
	t.Helper()
	return makeRigOver(t, func(*control.Config) {}, edit, locals...)
}

func makeRigOver(t testing.TB, editControl func(*control.Config), edit func(*Config), locals ...string) *rig {
	t.Helper()
	r := &rig{acquires: ring.New[spd.AcquireRequest](64)}
	mirror := make(fakeMirror)
	log := slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	over := control.Config{
		Log:   log,
		IPsec: &r.ipsec, FIB: new(atomic.Pointer[fib.Table]),
		Epochs: new(epoch.Domain), Mirror: mirror,
		Workers: []control.Worker{{
			Counters: new(counter.Worker), Acquires: r.acquires,
			Punts: ring.New[fib.Punt](16), Injects: ring.New[fib.Inject](16),
		}},
	}
	editControl(&over)
	var err error
	r.ctl, err = control.New(over)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Control: r.ctl, Log: log}
	edit(&cfg)
	r.Server = New(cfg)
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = r.ctl.Run(ctx) })
	work.Go(func() { r.Run(ctx) })
	t.Cleanup(func() {
		stop()
		work.Wait()
		r.Server.Close()
		r.ctl.Close()
	})
	v := &kernel.View{}
	for _, a := range locals {
		v.FIB.Local = append(v.FIB.Local, host(a))
	}
	mirror <- v
	mirror <- v // Run has adopted the first when it takes the second
	return r
}

func host(s string) flow.Addr { return flow.FromNetip(netip.MustParseAddr(s)) }

// msg is a message that came from the server.
type msg struct {
	header
	body []byte
}

// errno of an NLMSG_ERROR.
func (m msg) errno(t testing.TB) syscall.Errno {
	t.Helper()
	if m.typ != syscall.NLMSG_ERROR || len(m.body) < 20 {
		t.Fatalf("message type %#x of %d bytes is no NLMSG_ERROR", m.typ, len(m.body))
	}
	return syscall.Errno(-int32(binary.NativeEndian.Uint32(m.body)))
}

// attr returns an attribute behind a structure of size bytes, nil if there is
// none, by the parser of vishvananda/netlink.
func (m msg) attr(t testing.TB, size, typ int) []byte {
	t.Helper()
	all, err := nl.ParseRouteAttr(m.body[size:])
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if int(a.Attr.Type) == typ {
			return a.Value
		}
	}
	return nil
}

// split reads the messages of a datagram, by the parser of package syscall.
func split(t testing.TB, b []byte) (all []msg) {
	t.Helper()
	parsed, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		t.Fatalf("%v: % x", err, b)
	}
	for _, p := range parsed {
		h := p.Header
		all = append(all, msg{header{h.Len, h.Type, h.Flags, h.Seq, h.Pid}, p.Data})
	}
	return all
}

// drain returns all that there is for c.
func drain(t testing.TB, c *Client) (all []msg) {
	t.Helper()
	for b := c.Next(); b != nil; b = c.Next() {
		if len(b) > 8192 {
			t.Errorf("a datagram of %d bytes: clients receive into 8192", len(b))
		}
		all = append(all, split(t, b)...)
	}
	return all
}

// req builds a request.
func (r *rig) req(typ uint16, flags uint16, body layout, attrs ...func(*message)) []byte {
	r.seq++
	m := newMessage(nil, header{typ: typ, flags: flags | syscall.NLM_F_REQUEST, seq: r.seq}, body)
	for _, f := range attrs {
		f(m)
	}
	return m.end()
}

func with(typ int, v layout) func(*message) { return func(m *message) { m.attr(typ, v) } }

// ask sends one datagram and returns the answers.
func (r *rig) ask(t testing.TB, c *Client, b []byte) []msg {
	t.Helper()
	if err := c.Handle(b); err != nil {
		t.Fatal(err)
	}
	return drain(t, c)
}

// one sends a request that has one answer.
func (r *rig) one(t testing.TB, c *Client, b []byte) msg {
	t.Helper()
	all := r.ask(t, c, b)
	if len(all) != 1 {
		t.Fatalf("%d answers, want 1: %+v", len(all), all)
	}
	if all[0].seq != r.seq || all[0].port != c.Port() {
		t.Errorf("answer to port %d seq %d, want port %d seq %d", all[0].port, all[0].seq, c.Port(), r.seq)
	}
	return all[0]
}

// do sends a request that is to be acknowledged with errno.
func (r *rig) do(t testing.TB, c *Client, want syscall.Errno, b []byte) {
	t.Helper()
	m := r.one(t, c, b)
	if got := m.errno(t); got != want {
		t.Errorf("errno %d (%v), want %d (%v)", int(got), got, int(want), want)
	}
}

// client returns a client as charon's, with a port and all groups.
func (r *rig) client(t testing.TB, groups uint32) *Client {
	c := r.NewClient(true)
	c.SetPort(4711)
	c.SetGroups(groups)
	t.Cleanup(c.Close)
	return c
}

func addr(s string) (a address) {
	p := netip.MustParseAddr(s)
	copy(a[:], p.AsSlice())
	return a
}

var noLimits = lifetimeCfg{softBytes: infinite, hardBytes: infinite, softPackets: infinite, hardPackets: infinite}

// gcm is AES-256-GCM, key and salt.
func gcm() *algo {
	key := make([]byte, 36)
	for i := range key {
		key[i] = 0xa0 + byte(i)
	}
	return &algo{name: "rfc4106(gcm(aes))", sized: true, bits: 128, key: key}
}

// inbound is an SA as charon adds it: AES-256-GCM, tunnel, ESN, window 1024.
func inboundSA(spi uint32) *usersaInfo {
	return &usersaInfo{
		id: id{dst: addr("192.0.2.1"), spi: spi, proto: 50}, src: addr("192.0.2.2"),
		lft: noLimits, reqid: 7, family: afInet, mode: modeTunnel, flags: flagAnyFamily | flagESN,
	}
}

func outboundSA(spi uint32) *usersaInfo {
	s := inboundSA(spi)
	s.id.dst, s.src = addr("192.0.2.2"), addr("192.0.2.1")
	return s
}

func window(n uint32) func(*message) {
	return with(nl.XFRMA_REPLAY_ESN_VAL, &replayESN{window: n, bitmap: make([]uint32, (n+31)/32)})
}
