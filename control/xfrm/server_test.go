package xfrm

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
	"spigot/spd"
)

// events waits for n datagrams and hands them to see.
func events(t testing.TB, c *Client, n int, see func([]byte)) {
	t.Helper()
	for deadline := time.After(10 * time.Second); n > 0; {
		b := c.Next()
		if b == nil {
			select {
			case <-c.Ready():
				continue
			case <-deadline:
				t.Fatalf("%d datagrams are missing", n)
			}
		}
		see(b)
		n--
	}
}

// event waits for one message.
func (r *rig) event(t testing.TB, c *Client) (m msg) {
	t.Helper()
	events(t, c, 1, func(b []byte) { m = split(t, b)[0] })
	return m
}

// What lies is refused as by Linux, and the client is served on.
func TestHostileMessages(t *testing.T) {
	for _, row := range hostile() {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			c := r.client(t, 0)
			all := r.ask(t, c, row.b)
			switch {
			case row.errno == noAnswer && len(all) > 0:
				t.Errorf("answered: %+v", all)
			case row.errno != noAnswer && len(all) != 1:
				t.Errorf("%d answers", len(all))
			case row.errno != noAnswer && all[0].errno(t) != row.errno:
				t.Errorf("errno %v, want %v", all[0].errno(t), row.errno)
			}
			r.do(t, c, 0, r.req(msgFlushSA, syscall.NLM_F_ACK, new(octet)))
		})
	}
}

// Several messages in a datagram are served in order, also behind a bad one.
func TestManyMessagesInADatagram(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	add := r.req(msgNewPolicy, syscall.NLM_F_ACK, charonPolicy(dirOut))
	b := append(append(append([]byte(nil), add...), add...), r.req(msgFlushPolicy, syscall.NLM_F_ACK, nil)...)
	all := r.ask(t, c, b)
	if len(all) != 3 || all[0].errno(t) != 0 || all[1].errno(t) != syscall.EEXIST || all[2].errno(t) != 0 {
		t.Errorf("%+v", all)
	}
}

// Netlink is for the privileged: all of it.
func TestUnprivileged(t *testing.T) {
	r := newRig(t)
	c := r.NewClient(false)
	defer c.Close()
	c.SetPort(4711)
	c.SetGroups(0xff)
	if c.groups.Load() != 0 {
		t.Error("it hears of events")
	}
	for _, typ := range []uint16{msgNewSA, msgGetSA, msgFlushSA, msgGetSPDInfo} {
		r.do(t, c, syscall.EPERM, r.req(typ, 0, new(word)))
	}
	r.do(t, c, syscall.EPERM, r.req(msgGetSA, syscall.NLM_F_DUMP, nil))
}

// A control message is acknowledged, as by a kernel: a way to wait for all that
// went before.
func TestNoop(t *testing.T) {
	r := newRig(t)
	r.do(t, r.client(t, 0), 0, r.req(syscall.NLMSG_NOOP, syscall.NLM_F_ACK, nil))
}

// An error quotes no more of a request than its header, and says why to who
// asks for that.
func TestErrors(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	m := r.one(t, c, r.req(msgMigrate, 0, &userpolicyID{}))
	if m.flags != flagCapped || len(m.body) != 20 {
		t.Errorf("flags %#x, % x", m.flags, m.body)
	}
	var quoted header
	if err := decode(m.body[4:], &quoted); err != nil || quoted.typ != msgMigrate || quoted.seq != r.seq || quoted.length != 80 {
		t.Errorf("quoted %+v, %v", quoted, err)
	}
	c.SetExtendedAcks(true)
	m = r.one(t, c, r.req(msgMigrate, 0, &userpolicyID{}))
	if why := string(m.attr(t, 20, 1)); m.flags != flagCapped|flagAckTLVs || why != "MIGRATE is not there: delete the SA and add another\x00" {
		t.Errorf("flags %#x, %q", m.flags, why)
	}
}

// Counts, and the thresholds of a hash that is not there.
func TestInfo(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	r.do(t, c, 0, r.req(msgNewSA, syscall.NLM_F_ACK, outboundSA(0x1000), with(nl.XFRMA_ALG_AEAD, gcm()), window(1)))
	for _, dir := range []uint8{dirIn, dirFwd, dirOut} {
		r.do(t, c, 0, r.req(msgNewPolicy, syscall.NLM_F_ACK, charonPolicy(dir), charonTmpl(dir, 0)))
	}
	flags := word(0xffff)
	m := r.one(t, c, r.req(msgGetSADInfo, 0, &flags))
	if b := m.attr(t, 4, 1); m.typ != msgNewSADInfo || len(b) != 4 || b[0] != 1 {
		t.Errorf("SADINFO % x", m.body)
	}
	r.do(t, c, 0, r.req(msgNewSPDInfo, syscall.NLM_F_ACK, &flags, with(spdThreshold4, &threshold{24, 16})))
	m = r.one(t, c, r.req(msgGetSPDInfo, 0, &flags))
	var counts spdInfo
	if err := decode(m.attr(t, 4, spdCounts), &counts); err != nil || m.typ != msgNewSPDInfo || counts != (spdInfo{1, 1, 1}) {
		t.Errorf("SPDINFO %v, %v", counts, err)
	}
	if b := m.attr(t, 4, spdThreshold4); len(b) != 2 || b[0] != 24 || b[1] != 16 {
		t.Errorf("IPv4 threshold % x", b)
	}
	if b := m.attr(t, 4, spdThreshold6); len(b) != 2 || b[0] != 128 || b[1] != 128 {
		t.Errorf("IPv6 threshold % x", b)
	}
}

// A dump is made while it is read: its reader goes as slowly as it likes, and
// others are served meanwhile.
func TestDumpIsPaced(t *testing.T) {
	t.Parallel()
	const n = 2000
	r := newRig(t)
	c := r.client(t, 0)
	var batch [][]byte
	for i := range uint32(n) {
		batch = append(batch, r.req(msgNewSA, 0, outboundSA(0x1000+i), with(nl.XFRMA_ALG_AEAD, gcm()), window(1)))
	}
	if err := c.Handle(batch...); err != nil {
		t.Fatal(err)
	}
	if m := drain(t, c); len(m) != 0 {
		t.Fatalf("%d answers, and nobody asked for an acknowledgement", len(m))
	}
	if err := c.Handle(r.req(msgGetSA, syscall.NLM_F_DUMP, nil)); err != nil {
		t.Fatal(err)
	}
	first := split(t, c.Next())
	c.mu.Lock()
	queued := c.queued
	c.mu.Unlock()
	if queued > 0 || len(first) > 20 {
		t.Errorf("%d messages, %d bytes behind them, at the first read", len(first), queued)
	}
	r.do(t, r.client(t, 0), 0, r.req(msgFlushPolicy, syscall.NLM_F_ACK, nil))

	if err := c.Handle(r.req(msgGetSA, syscall.NLM_F_DUMP, nil)); err != nil {
		t.Fatal(err)
	}
	if m := split(t, c.Next())[0]; m.errno(t) != syscall.EBUSY {
		t.Errorf("a second dump: %v", m.errno(t))
	}
	all := append(first, drain(t, c)...)
	seen := map[uint32]bool{}
	for _, m := range all[:len(all)-1] {
		var info usersaInfo
		if err := decode(m.body, &info); err != nil || m.typ != msgNewSA || m.flags != syscall.NLM_F_MULTI || m.port != 4711 || m.seq != r.seq-2 {
			t.Fatalf("%+v, %v", m.header, err)
		}
		seen[info.id.spi] = true
	}
	if last := all[len(all)-1]; last.typ != syscall.NLMSG_DONE || len(last.body) != 4 || len(seen) != n {
		t.Errorf("%d SAs, and type %#x at the end", len(seen), last.typ)
	}
	if m := r.ask(t, c, r.req(msgGetPolicy, syscall.NLM_F_DUMP, nil)); len(m) != 1 || m[0].typ != syscall.NLMSG_DONE {
		t.Errorf("a dump of nothing: %+v", m)
	}
}

// A slow reader loses events, hears of it where it happened, and nobody else
// does.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const n = 1500
	r := newRig(t)
	slow, quick, writer := r.client(t, 0xff), r.client(t, 0xff), r.client(t, 0)
	heard := make(chan int)
	go func() {
		got := 0
		events(t, quick, n, func(b []byte) {
			if m := split(t, b)[0]; m.typ == msgNewPolicy {
				got++
			}
		})
		heard <- got
	}()
	for i := range n {
		p := charonPolicy(dirOut)
		p.sel.src[2], p.sel.src[3], p.sel.plenSrc = byte(i>>8), byte(i), 32
		if err := writer.Handle(r.req(msgNewPolicy, 0, p, charonTmpl(dirOut, 0))); err != nil {
			t.Fatal(err)
		}
		if i%250 == 249 { // the control's own queue is not in question here
			time.Sleep(20 * time.Millisecond)
		}
	}
	if got := <-heard; got != n {
		t.Errorf("the quick reader heard of %d policies, of %d", got, n)
	}
	got, overruns := 0, 0
	for _, m := range drain(t, slow) {
		if m.typ == syscall.NLMSG_OVERRUN {
			overruns++
		} else {
			got++
		}
	}
	if got == 0 || got >= n || overruns != 1 {
		t.Errorf("the slow reader heard of %d policies of %d, and %d times of a loss", got, n, overruns)
	}
	slow.SetGroups(0)
	r.do(t, slow, 0, r.req(msgFlushPolicy, syscall.NLM_F_ACK, nil))
}

// A client that does not read its answers is not served any more.
func TestFull(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	r.do(t, c, 0, r.req(msgNewSA, syscall.NLM_F_ACK, inboundSA(0x1000), with(nl.XFRMA_ALG_AEAD, gcm()), window(4096)))
	get := r.req(msgGetSA, 0, &usersaID{dst: addr("192.0.2.1"), spi: 0x1000, family: afInet, proto: 50})
	var err error
	n := 0
	for ; err == nil && n < 10000; n++ {
		err = c.Handle(get)
	}
	if !errors.Is(err, ErrFull) || n > maxQueue/512 {
		t.Fatalf("after %d requests: %v", n, err)
	}
	if m := drain(t, c); len(m) != n-1 {
		t.Errorf("%d answers to %d requests", len(m), n-1)
	}
	if err := c.Handle(get); err != nil {
		t.Error(err)
	}
}

// Events go to their groups, written as a kernel does.
func TestEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(t, 1<<(nl.XFRMNLGRP_EXPIRE-1)|1<<(nl.XFRMNLGRP_ACQUIRE-1))
	writer := r.client(t, 0)
	r.Ask(t)
	m := r.event(t, c)
	var a userAcquire
	if err := decode(m.body, &a); err != nil || m.typ != msgAcquire || m.port != 0 {
		t.Fatalf("%+v, %v", m.header, err)
	}
	if a.id.dst != addr("192.0.2.2") || a.id.proto != 50 || a.src != addr("192.0.2.1") || a.seq == 0 || a.policy.dir != dirOut ||
		a.policy.index&7 != dirOut || a.sel.plenDst != 32 || a.sel.dport != 80 || a.sel.dportMask != 0xffff || a.aalgos != ^uint32(0) {
		t.Errorf("%+v", a)
	}
	if u := nl.DeserializeXfrmUserTmpl(m.attr(t, userAcquireLen, nl.XFRMA_TMPL)); u.Reqid != 7 {
		t.Errorf("template %+v", u)
	}

	sa := outboundSA(0x1000)
	sa.lft.softAdd, sa.lft.hardAdd = 1, 2
	r.do(t, writer, 0, r.req(msgNewSA, syscall.NLM_F_ACK, sa, with(nl.XFRMA_ALG_AEAD, gcm()), window(1)))
	p := charonPolicy(dirIn)
	p.lft.hardAdd = 1
	r.do(t, writer, 0, r.req(msgNewPolicy, syscall.NLM_F_ACK, p, charonTmpl(dirIn, 0)))
	var hard []uint8 // of the SA's expiries
	for range 3 {
		switch m := r.event(t, c); m.typ {
		case msgExpire:
			var e userExpire
			if err := decode(m.body, &e); err != nil || e.state.id.spi != 0x1000 || e.state.reqid != 7 {
				t.Errorf("%+v, %v", e, err)
			}
			hard = append(hard, e.hard)
		case msgPolExpire:
			var e userPolExpire
			if err := decode(m.body, &e); err != nil || e.hard != 1 || e.policy.dir != dirIn {
				t.Errorf("%+v, %v", e, err)
			}
		default:
			t.Errorf("type %#x", m.typ)
		}
	}
	if len(hard) != 2 || hard[0] != 0 || hard[1] != 1 {
		t.Errorf("the SA expired %v: want soft, then hard", hard)
	}
}

// A NAT that moves the peer is told by MAPPING.
func TestMapping(t *testing.T) {
	sa := &control.SA{}
	sa.SPI, sa.Proto, sa.Reqid, sa.Src, sa.Dst = 0x1000, 50, 7, host("192.0.2.2"), host("192.0.2.1")
	sa.Encap.SrcPort = 4500
	b := event(&control.Event{Kind: control.EventMapping, SA: sa, Peer: host("192.0.2.9"), Port: 1024})
	m := split(t, b)[0]
	var u userMapping
	if err := decode(m.body, &u); err != nil || m.typ != msgMapping || len(m.body) != 64 {
		t.Fatal(err)
	}
	want := userMapping{
		id:    usersaID{dst: addr("192.0.2.1"), spi: 0x1000, family: afInet, proto: 50},
		reqid: 7, oldSrc: addr("192.0.2.2"), newSrc: addr("192.0.2.9"), oldPort: 4500, newPort: 1024,
	}
	if u != want {
		t.Errorf("%+v, want %+v", u, want)
	}
}

// SAs and policies that PF_KEY or the configuration made are shown too.
func TestOthersEntries(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	sel := must(charonPolicy(dirOut).sel.flow())
	err := r.ctl.Keying(func(k *control.Keying) {
		var p control.SAParams
		p.SPI, p.Proto, p.Tunnel, p.Src, p.Dst, p.Window = 0x1000, 50, true, host("192.0.2.2"), host("192.0.2.1"), 64
		p.Encryption, p.EncKey, p.Sel = "aes-gcm-16", make([]byte, 20), &sel
		if err := k.AddSA(control.Origin{}, p); err != nil {
			t.Error(err)
		}
		q := control.PolicyParams{Soft: 5, Hard: 10}
		q.Dir, q.Sel, q.Action, q.Level = spd.Out, sel, spd.Protect, spd.Use
		q.Template = spd.Template{Proto: 50, Dst: host("192.0.2.2"), Reqid: 3}
		if _, err := k.AddPolicy(control.Origin{}, q); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	all := r.ask(t, c, r.req(msgGetSA, syscall.NLM_F_DUMP, nil))
	var info usersaInfo
	if err := decode(all[0].body, &info); err != nil || info.sel != charonPolicy(dirOut).sel || info.window != 0 || info.mode != modeTunnel || info.flags != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if b := all[0].attr(t, usersaInfoLen, nl.XFRMA_REPLAY_ESN_VAL); len(b) != replayESNLen+8 {
		t.Errorf("window % x", b)
	}
	all = r.ask(t, c, r.req(msgGetPolicy, syscall.NLM_F_DUMP, nil))
	var p userpolicyInfo
	if err := decode(all[0].body, &p); err != nil || p.lft.softAdd != 5 || p.lft.hardAdd != 10 || p.sel != charonPolicy(dirOut).sel {
		t.Errorf("%+v, %v", p, err)
	}
	if u := nl.DeserializeXfrmUserTmpl(all[0].attr(t, userpolicyInfoLen, nl.XFRMA_TMPL)); u.Reqid != 3 || u.Optional != 1 || u.Family != afInet || u.Mode != modeTunnel {
		t.Errorf("%+v", u)
	}
}

// listen starts Serve on a socket.
func (r *rig) listen(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "xfrm.sock")
	ln, err := control.ListenPacket(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func dial(t testing.TB, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// The socket carries what a netlink socket would, after a Binding.
func TestSocket(t *testing.T) {
	r := newRig(t)
	conn := dial(t, r.listen(t))
	ask := func(b []byte) msg {
		t.Helper()
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 8192)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return split(t, buf[:n])[0]
	}
	if m := ask(r.req(msgFlushSA, syscall.NLM_F_ACK, new(octet))); m.errno(t) != 0 || m.port != 0 {
		t.Errorf("%+v", m)
	}
	if _, err := conn.Write(Binding{Port: 4711, Groups: 1 << (nl.XFRMNLGRP_POLICY - 1), ExtendedAcks: true}.Message()); err != nil {
		t.Fatal(err)
	}
	if m := ask(r.req(msgMigrate, 0, &userpolicyID{})); m.port != 4711 || m.attr(t, 20, 1) == nil {
		t.Errorf("%+v", m)
	}
	if m := ask(r.req(msgNewPolicy, 0, charonPolicy(dirOut))); m.typ != msgNewPolicy || m.seq != r.seq {
		t.Errorf("%+v", m)
	}
	named := r.req(syscall.NLMSG_NOOP, syscall.NLM_F_ACK, nil)
	named[12] = 99 // the port that the client says it has
	if m := ask(named); m.port != 99 {
		t.Errorf("%+v", m)
	}
}

// A client too many is told so and closed; others stay, and when one of them
// leaves there is room.
func TestTooManyClients(t *testing.T) {
	r := makeRig(t, func(c *Config) { c.MaxClients = 2 })
	path := r.listen(t)
	ping := func(conn *net.UnixConn) (errno syscall.Errno, err error) {
		buf := make([]byte, 8192)
		_, _ = conn.Write(r.req(syscall.NLMSG_NOOP, syscall.NLM_F_ACK, nil))
		n, err := conn.Read(buf)
		if err != nil {
			return 0, err
		}
		return split(t, buf[:n])[0].errno(t), nil
	}
	first, second := dial(t, path), dial(t, path)
	for _, conn := range []*net.UnixConn{first, second} {
		if errno, err := ping(conn); errno != 0 || err != nil {
			t.Fatal(errno, err)
		}
	}
	for i := range 10_000 {
		third := dial(t, path)
		if i%100 != 0 { // few wait for the answer
			third.Close()
			continue
		}
		buf := make([]byte, 8192)
		n, err := third.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if errno := split(t, buf[:n])[0].errno(t); errno != syscall.ENFILE {
			t.Fatal(errno)
		}
		if _, err := third.Read(buf); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		third.Close()
	}
	first.Close()
	for deadline := time.Now().Add(60 * time.Second); ; {
		if errno, err := ping(dial(t, path)); errno == 0 && err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no room again")
		}
	}
	if errno, err := ping(second); errno != 0 || err != nil {
		t.Error(errno, err)
	}
}

// Clients that vanish in the middle of things leave nothing behind: one with
// answers that nobody reads, one in a dump, one with a request half sent.
func TestClientsVanish(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := r.listen(t)
	owner := r.client(t, 0)
	for i := range uint32(100) {
		r.do(t, owner, 0, r.req(msgNewSA, syscall.NLM_F_ACK, outboundSA(0x1000+i), with(nl.XFRMA_ALG_AEAD, gcm()), window(4096)))
	}
	get := r.req(msgGetSA, 0, &usersaID{dst: addr("192.0.2.2"), spi: 0x1000, family: afInet, proto: 50})
	for _, requests := range [][]byte{get, r.req(msgGetSA, syscall.NLM_F_DUMP, nil), get[:20]} {
		conn := dial(t, path)
		if err := conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for range 5000 {
			if _, err := conn.Write(requests); err != nil {
				break // the server does not read what nobody reads the answers to
			}
		}
		conn.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		n := len(r.clients)
		r.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d clients are left", n)
		}
	}
	r.do(t, owner, 0, r.req(msgFlushSA, syscall.NLM_F_ACK, new(octet)))
}

// A controller that has closed answers nobody.
func TestClosed(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	var wait sync.WaitGroup
	wait.Go(r.ctl.Close)
	wait.Wait()
	if err := c.Handle(r.req(msgFlushSA, 0, new(octet))); !errors.Is(err, control.ErrClosed) {
		t.Error(err)
	}
}

// The cost of a request, one after another, as a daemon sends them, and many at
// once, as one who restores a state does. An acknowledgement says that all
// before it is in force.
func BenchmarkRequests(b *testing.B) {
	sa := func(r *rig, i int) []byte {
		return r.req(msgNewSA, syscall.NLM_F_ACK, outboundSA(0x1000+uint32(i)), with(nl.XFRMA_ALG_AEAD, gcm()), window(1))
	}
	policy := func(r *rig, i int) []byte {
		p := charonPolicy(dirOut)
		p.sel.src[1], p.sel.src[2], p.sel.src[3], p.sel.plenSrc = byte(i>>16), byte(i>>8), byte(i), 32
		return r.req(msgNewPolicy, syscall.NLM_F_ACK, p, charonTmpl(dirOut, 0))
	}
	for _, row := range []struct {
		name  string
		make  func(*rig, int) []byte
		batch int
	}{{"SA/one", sa, 1}, {"SA/64", sa, 64}, {"policy/one", policy, 1}, {"policy/64", policy, 64}} {
		b.Run(row.name, func(b *testing.B) {
			r := newRig(b)
			c := r.client(b, 0)
			b.ResetTimer()
			for i := 0; i < b.N; {
				var batch [][]byte
				for ; i < b.N && len(batch) < row.batch; i++ {
					batch = append(batch, row.make(r, i))
				}
				if err := c.Handle(batch...); err != nil {
					b.Fatal(err)
				}
				for range batch {
					if m := split(b, c.Next()); m[0].errno(b) != 0 {
						b.Fatal(m[0].errno(b))
					}
				}
			}
		})
	}
}
