package pfkey

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spigot/control"
)

// serve serves r on a socket and returns its path.
func (r *rig) serve(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pfkey.sock")
	ln, err := control.ListenPacket(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Serve(ctx, ln) }()
	t.Cleanup(func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := r.count(); n != 0 {
			t.Errorf("%d clients are left", n)
		}
	})
	return path
}

func (r *rig) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.clients)
}

// wire is a client with a socket.
type wire struct {
	t testing.TB
	*net.UnixConn
}

func dial(t testing.TB, path string) *wire {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	return &wire{t, conn}
}

func (w *wire) send(b []byte) {
	w.t.Helper()
	if _, err := w.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) receive() *Message {
	w.t.Helper()
	var b [MaxMessage]byte
	n, err := w.Read(b[:])
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := Decode(b[:n])
	if err != nil {
		w.t.Fatalf("%v: %x", err, b[:n])
	}
	return m
}

func (w *wire) ask(m *Message) *Message {
	w.t.Helper()
	w.send(m.Append(nil))
	return w.receive()
}

func TestSocketIsForRootAlone(t *testing.T) {
	info, err := os.Stat(newRig(t).serve(t))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestServeAnswers(t *testing.T) {
	w := dial(t, newRig(t).serve(t))
	if m := w.ask(addSA(0x1000)); m.Errno != 0 || m.Seq != 100 {
		t.Errorf("ADD: %+v", m)
	}
	get := with(addSA(0x1000), func(m *Message) { m.Type = Get; m.Has = 1<<ExtSA | addresses })
	if m := w.ask(get); m.Errno != 0 || (m.Has&keys == keys) != (os.Geteuid() == 0) {
		t.Errorf("GET by uid %d: %+v", os.Geteuid(), m)
	}
}

// TestServeAnswersWhatHasNoHeader: what a kernel's write would return comes as
// an answer, and the next message as if nothing had been.
func TestServeAnswersWhatHasNoHeader(t *testing.T) {
	w := dial(t, newRig(t).serve(t))
	for _, row := range []struct {
		b     []byte
		errno unix.Errno
	}{
		{[]byte{1}, unix.EMSGSIZE},
		{make([]byte, 16), unix.EINVAL},
		{make([]byte, 60000), unix.EMSGSIZE},
	} {
		w.send(row.b)
		w.send((&Message{Type: SPDDump, Seq: 5}).Append(nil))
		if m := w.receiveAny(); m.Errno != row.errno {
			t.Errorf("%d bytes: %v, want %v", len(row.b), m.Errno, row.errno)
		}
		if m := w.receive(); m.Errno != unix.ENOENT || m.Seq != 5 {
			t.Errorf("the message after it: %+v", m)
		}
	}
}

// receiveAny is receive for answers to what had no type.
func (w *wire) receiveAny() *Message {
	w.t.Helper()
	var b [MaxMessage]byte
	n, err := w.Read(b[:])
	if err != nil || n != headerLen {
		w.t.Fatalf("%d bytes, %v", n, err)
	}
	m := &Message{}
	_ = m.decodeHeader(b[:n])
	return m
}

// TestDumpIsPacedByItsReader: a DUMP is not made before it is read, other
// clients are served meanwhile, and nothing of it is lost.
func TestDumpIsPacedByItsReader(t *testing.T) {
	const n = 3000
	r := newRig(t)
	path := r.serve(t)
	slow, other := dial(t, path), dial(t, path)
	if err := r.control.Keying(func(k *control.Keying) {
		for i := range uint32(n) {
			p, _ := addSA(0x1000 + i).saParams()
			if err := k.AddSA(control.Origin{}, p); err != nil {
				t.Fatal(err)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if m := slow.ask(&Message{Type: Dump, Seq: 1}); m.Type != Dump || m.Seq != n-1 {
		t.Fatalf("the first of %d: %+v", n, m)
	}
	for i := range uint32(100) {
		if m := other.ask(addSA(0x9000 + i)); m.Errno != 0 {
			t.Fatalf("the other client: %+v", m)
		}
	}
	slow.send((&Message{Type: Dump, Seq: 2}).Append(nil))
	busy := false
	for want := n - 2; want >= 0; {
		m := slow.receive()
		if m.Errno == unix.EBUSY && !busy {
			busy = true
			continue
		}
		if m.Type != Dump || m.Errno != 0 || int(m.Seq) != want {
			t.Fatalf("%v errno %v seq %d, want seq %d", m.Type, m.Errno, m.Seq, want)
		}
		want--
	}
	if !busy {
		t.Error("the second DUMP was not refused with EBUSY")
	}
}

// TestSlowReaderLosesItsOwnEvents: and is told how many.
func TestSlowReaderLosesItsOwnEvents(t *testing.T) {
	const n = 2000
	path := newRig(t).serve(t)
	slow, fast, other := dial(t, path), dial(t, path), dial(t, path)
	for _, w := range []*wire{slow, fast} {
		if m := w.ask(register(ESP)); m.Errno != 0 {
			t.Fatal(m.Errno)
		}
	}
	for i := range n {
		if m := other.ask(spdUpdate()); m.Errno != 0 {
			t.Fatalf("the other client: %+v", m)
		}
		if m := fast.receive(); m.Type != SPDUpdate {
			t.Fatalf("event %d: %+v", i, m)
		}
	}
	events, lost := 0, 0
	for events+lost < n {
		switch m := slow.receive(); {
		case m.Type == Register && m.Errno == unix.ENOBUFS && m.PID == 0:
			lost += int(m.Seq)
		case m.Type == SPDUpdate:
			events++
		default:
			t.Fatalf("%+v", m)
		}
	}
	if events < maxEvents || lost == 0 || events+lost != n {
		t.Errorf("%d events and %d lost, of %d", events, lost, n)
	}
}

// TestClientThatDoesNotReadItsAnswers is not read from any more, and harms
// nobody.
func TestClientThatDoesNotReadItsAnswers(t *testing.T) {
	r := newRig(t)
	path := r.serve(t)
	mute, other := dial(t, path), dial(t, path)
	_ = mute.SetDeadline(time.Now().Add(300 * time.Millisecond))
	b := register(Unspec).Append(nil)
	sent := 0
	for ; sent < 100_000; sent++ {
		if _, err := mute.Write(b); err != nil {
			break
		}
	}
	if sent == 100_000 {
		t.Error("100,000 requests were taken without an answer read")
	}
	if m := other.ask(register(ESP)); m.Errno != 0 {
		t.Errorf("the other client: %+v", m)
	}
	_ = mute.SetDeadline(time.Now().Add(60 * time.Second))
	for range sent {
		if m := mute.receive(); m.Type != Register || m.Errno != 0 {
			t.Fatalf("%+v", m)
		}
	}
}

func TestTenThousandClientsAreRefusedPolitely(t *testing.T) {
	const most = 8
	r := newRig(t, func(c *Config) { c.MaxClients = most })
	path := r.serve(t)
	var in []*wire
	for range most {
		w := dial(t, path)
		if m := w.ask(register(ESP)); m.Errno != 0 {
			t.Fatal(m.Errno)
		}
		in = append(in, w)
	}
	before := runtime.NumGoroutine()
	for i := range 10_000 {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			w := &wire{t, conn}
			_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
			if i%200 == 0 { // one that does not wait before it asks
				_, _ = conn.Write(register(ESP).Append(nil))
			}
			if m := w.receive(); m.Errno != unix.ENFILE {
				t.Fatalf("client %d: %+v", i, m)
			}
			if n, _ := conn.Read(make([]byte, 16)); n != 0 {
				t.Fatalf("client %d is still connected", i)
			}
		}
		conn.Close()
	}
	if after := runtime.NumGoroutine(); after > before+most {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
	if n := strings.Count(r.log.String(), "refuse PF_KEY clients"); n == 0 || n > 100 {
		t.Errorf("%d lines in the log about it", n)
	}
	if m := in[0].ask(register(AH)); m.Errno != 0 {
		t.Errorf("a client of before: %+v", m)
	}
	in[1].Close()
	// Clients that are gone may still wait to be accepted, before this one.
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(time.Millisecond) {
		w := dial(t, path)
		_, _ = w.Write(register(ESP).Append(nil))
		m := w.receive()
		if m.Errno == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a client after another left: %+v", m)
		}
	}
}

// TestClientsThatVanish: with requests that are not read, answers that are not,
// a DUMP on its way.
func TestClientsThatVanish(t *testing.T) {
	r := newRig(t)
	path := r.serve(t)
	if err := r.control.Keying(func(k *control.Keying) {
		for i := range uint32(2000) {
			p, _ := addSA(0x1000 + i).saParams()
			_ = k.AddSA(control.Origin{}, p)
		}
	}); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		w := dial(t, path)
		for j := range i {
			w.send(register(SAType(j)).Append(nil))
		}
		w.send((&Message{Type: Dump}).Append(nil))
		w.send([]byte{Version, byte(Add), 0, byte(ESP), 99})
		w.Close()
	}
	if m := dial(t, path).ask(register(ESP)); m.Errno != 0 {
		t.Errorf("the next client: %+v", m)
	}
	for deadline := time.Now().Add(60 * time.Second); r.count() > 1 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := r.count(); n != 1 {
		t.Errorf("%d clients are left, want 1", n)
	}
}

// BenchmarkOperations measures adds through a socket with 64 requests on their
// way, as a daemon's restart makes them.
func BenchmarkOperations(b *testing.B) {
	policy := func(i uint32) *Message {
		return with(spdUpdate(), func(m *Message) {
			m.Type = SPDAdd
			m.Dst = host(fmt.Sprintf("10.%d.%d.%d", 2+i>>16, i>>8&255, i&255))
			m.Dst.Proto = anyProto
		})
	}
	for name, make := range map[string]func(i uint32) *Message{
		"SA":     func(i uint32) *Message { return addSA(0x1000 + i) },
		"policy": policy,
	} {
		b.Run(name, func(b *testing.B) {
			w := dial(b, newRig(b).serve(b))
			_ = w.SetDeadline(time.Time{})
			go func() {
				for i := range uint32(b.N) {
					_, _ = w.Write(make(i).Append(nil))
				}
			}()
			for range b.N {
				if m := w.receive(); m.Errno != 0 {
					b.Fatal(m.Errno)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}

// TestOneDumpAfterAnother: who has read the last message may ask again.
func TestOneDumpAfterAnother(t *testing.T) {
	w := dial(t, newRig(t).serve(t))
	w.ask(addSA(0x1000))
	for range 500 {
		if m := w.ask(&Message{Type: Dump}); m.Errno != 0 || m.Seq != 0 {
			t.Fatalf("DUMP: %+v", m)
		}
		if m := w.ask(&Message{Type: SPDDump}); m.Errno != unix.ENOENT {
			t.Fatalf("X_SPDDUMP: %+v", m)
		}
	}
}
