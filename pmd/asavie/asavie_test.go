package asavie

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/asavie/xdp"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// Packets of all sizes cross, both ways, in order and whole; more of them than
// the 32 that a wakeup sends.
func TestForward(t *testing.T) {
	g := newGateway(t, 512, Options{})
	if got, want := g.red.Info(), "copy"; got.Mode != want || got.Driver != "asavie" || got.Name != "red0" || len(got.MAC) != 6 || got.Index == 0 {
		t.Errorf("info %+v", got)
	}
	number := 0
	for _, size := range []int{18, 60, 1514} {
		g.hostR.send(number, 400, size)
		g.hostB.send(number, 300, size)
		var atB, atR [][]byte
		g.until("forward", func() bool {
			atB, atR = append(atB, g.hostB.receive()...), append(atR, g.hostR.receive()...)
			return len(atB) >= 400 && len(atR) >= 300
		})
		for i, p := range atB {
			if !bytes.Equal(p, packet(uint32(number+i), size)) {
				t.Fatalf("size %d: packet %d differs: %x", size, i, p)
			}
		}
		for i, p := range atR {
			if !bytes.Equal(p, packet(uint32(number+i), size)) {
				t.Fatalf("size %d: packet %d back differs: %x", size, i, p)
			}
		}
		number += 400
	}
	g.until("complete", func() bool { return g.blue.count.TxDone == 1200 && g.red.count.TxDone == 900 })
	closeAll(t, g.pool, g.red, g.blue)
	octets := uint64(18 + 60 + 1514)
	want := pmd.Stats{RxPackets: 1200, RxBytes: 400 * octets, TxPackets: 900, TxBytes: 300 * octets, TxDone: 900}
	got := g.red.Stats()
	if got.Kicks == 0 {
		t.Error("no kicks counted")
	}
	if got.Kicks = 0; got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

// The kernel's receive ring keeps what finds no frame in the pool.
func TestEmptyPool(t *testing.T) {
	g := newGateway(t, 8, Options{})
	g.hostR.send(0, 100, 60)
	g.until("forward", func() bool { return g.blue.count.TxDone == 100 })
	got := g.hostB.receive()
	for i, p := range got {
		if !bytes.Equal(p, packet(uint32(i), 60)) {
			t.Fatalf("packet %d differs: %x", i, p)
		}
	}
	if len(got) != 100 {
		t.Errorf("%d packets arrived", len(got))
	}
	closeAll(t, g.pool, g.red, g.blue)
}

// With few frames and short rings, what Tx does not take stays the worker's,
// and what arrives too fast is lost and counted; nothing is stuck.
func TestSmallRings(t *testing.T) {
	g := newGateway(t, 512, Options{Frames: 32, Ring: 16})
	bases := make([]uint32, 64)
	for round := range 5 {
		fs := make([]pmd.Frame, g.pool.Get(bases))
		for i := range fs {
			p := packet(uint32(i), 100)
			fs[i] = pmd.Frame{Base: bases[i], Off: pmd.Headroom, Len: uint16(len(p))}
			copy(g.pool.Bytes(fs[i]), p)
		}
		n := g.blue.Tx(fs)
		if n != 16 {
			t.Errorf("round %d: Tx took %d of 64 with a ring of 16", round, n)
		}
		for _, f := range fs[n:] {
			g.pool.Put(f.Base)
		}
		g.until("complete", func() bool { return g.blue.count.TxDone == uint64(16*(round+1)) })
	}
	if got := g.hostB.receive(); len(got) != 80 {
		t.Errorf("%d packets arrived, want 80", len(got))
	}
	g.hostR.send(0, 200, 60)
	got := 0
	g.until("receive", func() bool {
		got += len(g.hostB.receive())
		s := g.red.Stats()
		return uint64(got)+s.RxDropped == 200 && g.blue.count.TxDone == uint64(80+got)
	})
	if got == 0 || g.red.Stats().RxDropped == 0 {
		t.Errorf("%d packets arrived, stats %+v", got, g.red.Stats())
	}
	closeAll(t, g.pool, g.red, g.blue)
}

// Frames that no device can send are taken, counted and sent home.
func TestBadFrames(t *testing.T) {
	g := newGateway(t, 16, Options{})
	for _, f := range []pmd.Frame{
		{Off: pmd.Headroom, Len: 0},
		{Off: pmd.Headroom, Len: minFrame - 1},
		{Off: 2000, Len: 60},
		{Off: 65535, Len: 65535},
	} {
		var base [1]uint32
		g.pool.Get(base[:])
		f.Base = base[0]
		if n := g.red.Tx([]pmd.Frame{f}); n != 1 {
			t.Errorf("Tx of %+v took %d", f, n)
		}
	}
	g.red.Flush()
	if s := g.red.Stats(); s.TxErrors != 4 || s.TxPackets != 4 || s.TxDone != 0 {
		t.Errorf("stats %+v", s)
	}
	closeAll(t, g.pool, g.red, g.blue)
}

// A link that goes down costs no panic and no frame, and works again when it
// comes back.
func TestLinkDown(t *testing.T) {
	g := newGateway(t, 512, Options{Ring: 64})
	setLink(t, "blue0", netlink.LinkSetDown)
	for round := range 20 {
		g.hostR.send(round*10, 10, 60)
		for range 50 {
			g.turn()
		}
	}
	s := g.blue.Stats()
	if s.TxErrors == 0 || s.TxErrors > 20 || s.TxDone != 0 {
		t.Errorf("while down: stats %+v, and each of the %d TxErrors is a panic", s, s.TxErrors)
	}
	if s.TxPackets != 64 {
		t.Errorf("while down: %d frames taken with a ring of 64", s.TxPackets)
	}
	setLink(t, "blue0", netlink.LinkSetUp)
	g.until("send what waits", func() bool { return g.blue.count.TxDone == 64 })
	g.hostB.receive()
	g.hostR.send(1000, 50, 60)
	arrived := 0
	g.until("forward again", func() bool { arrived += len(g.hostB.receive()); return arrived >= 50 })
	closeAll(t, g.pool, g.red, g.blue)
}

// A device that is deleted under the port costs no panic and no frame.
func TestDeviceDeleted(t *testing.T) {
	g := newGateway(t, 512, Options{Ring: 64})
	g.hostR.send(0, 50, 60)
	g.until("forward", func() bool { return g.blue.count.TxDone == 50 })
	setLink(t, "blue0", netlink.LinkDel)
	g.hostR.send(0, 500, 60)
	for range 2 * quietFlushes {
		g.turn()
	}
	if s := g.blue.Stats(); s.TxErrors == 0 {
		t.Errorf("stats %+v", s)
	}
	closeAll(t, g.pool, g.red, g.blue)
}

// The library alone keeps a queue after Close; Open frees it.
func TestQueueIsFreeAfterClose(t *testing.T) {
	newNamespace(t)
	addVeth(t, "red0", "host-r")
	index := findLink(t, "red0").Attrs().Index
	xsk, err := xdp.NewSocket(index, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := xsk.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // time enough for the kernel
	if again, err := xdp.NewSocket(index, 0, nil); err == nil {
		again.Close()
		t.Error("the library frees its queue: this package's detour can go")
	}
	pool, prog := newPool(t, 64), attach(t, "red0", link.XDPDriverMode)
	h := newHost(t, "host-r")
	for round := range 5 {
		port := mustOpen(t, Options{Interface: "red0", Pool: pool, Registrar: prog})
		h.send(0, 10, 60)
		var fs [16]pmd.Frame
		n := 0
		for end := time.Now().Add(time.Second); n < 10 && time.Now().Before(end); n += port.Rx(fs[n:]) {
			port.Flush()
		}
		if n != 10 {
			t.Errorf("round %d: received %d of 10", round, n)
		}
		for _, f := range fs[:n] {
			pool.Put(f.Base)
		}
		closeAll(t, pool, port)
		if err := port.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	}
}

// A program in generic mode works, too, and is named.
func TestGenericMode(t *testing.T) {
	newNamespace(t)
	addVeth(t, "red0", "host-r")
	pool := newPool(t, 64)
	port := mustOpen(t, Options{Interface: "red0", Pool: pool, Registrar: attach(t, "red0", link.XDPGenericMode)})
	if mode := port.Info().Mode; mode != "generic" {
		t.Errorf("mode %q", mode)
	}
	newHost(t, "host-r").send(7, 1, 60)
	var fs [1]pmd.Frame
	for end := time.Now().Add(time.Second); port.Rx(fs[:]) == 0; {
		if time.Now().After(end) {
			t.Fatal("nothing received")
		}
	}
	if got := pool.Bytes(fs[0]); !bytes.Equal(got, packet(7, 60)) {
		t.Errorf("received %x", got)
	}
	pool.Put(fs[0].Base)
	closeAll(t, pool, port)
}

// FD is readable when there is something to receive.
func TestPoll(t *testing.T) {
	g := newGateway(t, 64, Options{})
	fds := []unix.PollFd{{Fd: int32(g.red.FD()), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
		t.Errorf("readable (%d, %v) before a packet came", n, err)
	}
	g.hostR.send(0, 1, 60)
	if n, err := unix.Poll(fds, 1000); n != 1 || err != nil {
		t.Errorf("not readable (%d, %v) after a packet came", n, err)
	}
	g.until("forward", func() bool { return g.blue.count.TxDone == 1 })
	closeAll(t, g.pool, g.red, g.blue)
}

var errRefused = errors.New("refused")

// refusal is a Registrar that refuses.
type refusal struct{}

func (refusal) Register(int, int) error   { return errRefused }
func (refusal) Unregister(int, int) error { return errors.New("was never registered") }

// Others may ask for Stats while the worker works, and after Close.
func TestStatsFromElsewhere(t *testing.T) {
	g := newGateway(t, 512, Options{})
	stop, stopped := make(chan struct{}), make(chan struct{})
	var seen pmd.Stats
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				seen = g.blue.Stats()
			}
		}
	}()
	for i := range 50 {
		g.hostR.send(i*20, 20, 60)
		g.until("forward", func() bool { return g.blue.count.TxDone == uint64(i+1)*20 })
	}
	closeAll(t, g.pool, g.red, g.blue)
	close(stop)
	<-stopped
	if last := g.blue.Stats(); last.TxDone != 1000 || seen.TxDone > 1000 {
		t.Errorf("after Close: %+v; seen last: %+v", last, seen)
	}
}

func TestOpenErrors(t *testing.T) {
	newNamespace(t)
	addVeth(t, "red0", "host-r")
	addVeth(t, "down0", "host-d")
	setLink(t, "down0", netlink.LinkSetDown)
	pool, prog := newPool(t, 4), attach(t, "red0", link.XDPDriverMode)
	good := Options{Interface: "red0", Pool: pool, Registrar: prog}
	with := func(change func(*Options)) Options { o := good; change(&o); return o }
	for _, row := range []struct {
		name string
		opts Options
		want error
	}{
		{"no pool", with(func(o *Options) { o.Pool = nil }), ErrOptions},
		{"no program", with(func(o *Options) { o.Registrar = nil }), ErrOptions},
		{"queue below zero", with(func(o *Options) { o.Queue = -1 }), ErrOptions},
		{"one frame", with(func(o *Options) { o.Frames = 1 }), ErrOptions},
		{"too many frames", with(func(o *Options) { o.Frames = 1 << 30 }), ErrOptions},
		{"odd ring", with(func(o *Options) { o.Ring = 12 }), ErrOptions},
		{"ring below zero", with(func(o *Options) { o.Ring = -2048 }), ErrOptions},
		{"huge ring", with(func(o *Options) { o.Ring = 1 << 30 }), ErrOptions},
		{"no such interface", with(func(o *Options) { o.Interface = "none0" }), ErrNoInterface},
		{"no interface", with(func(o *Options) { o.Interface = "" }), ErrNoInterface},
		{"no such queue", with(func(o *Options) { o.Queue = 99 }), ErrNoQueue},
		{"down", with(func(o *Options) { o.Interface = "down0" }), ErrDown},
		{"refused", with(func(o *Options) { o.Registrar = refusal{} }), errRefused},
	} {
		p, err := Open(row.opts)
		if !errors.Is(err, row.want) || p != nil {
			t.Errorf("%s: port %t, error %v", row.name, p != nil, err)
		}
		if err != nil && strings.Contains(err.Error(), "never registered") {
			t.Errorf("%s: unregistered all the same: %v", row.name, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "asavie: open ") {
			t.Errorf("%s: error %q does not say where", row.name, err)
		}
	}
	closeAll(t, pool, mustOpen(t, good))
}

// A queue with an owner is refused, after some patience, and nothing of the
// attempts is left; a child process does not become an owner.
func TestQueueTaken(t *testing.T) {
	newNamespace(t)
	addVeth(t, "red0", "host-r")
	pool, prog := newPool(t, 4), attach(t, "red0", link.XDPDriverMode)
	o := Options{Interface: "red0", Pool: pool, Registrar: prog}
	port := mustOpen(t, o)
	if _, err := Open(o); !errors.Is(err, ErrQueueTaken) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("second Open: %v", err)
	}
	if rings, err := mappings(); len(rings) != 4 {
		t.Errorf("%d rings mapped, want the first port's 4 (%v)", len(rings), err)
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = child.Process.Kill(), child.Wait() }()
	closeAll(t, pool, port)
	closeAll(t, pool, mustOpen(t, o))
}

func TestNoAllocations(t *testing.T) {
	g := newGateway(t, 512, Options{})
	moved, sample := 0, packet(0, 60)
	turn := func() {
		if _, err := unix.Write(g.hostR.fd, sample); err != nil {
			t.Fatal(err)
		}
		moved += g.turn()
	}
	if n := testing.AllocsPerRun(500, turn); n != 0 {
		t.Errorf("%v allocations a turn", n)
	}
	if moved < 400 {
		t.Errorf("%d packets moved", moved)
	}
	g.until("complete", func() bool { return g.blue.count.TxDone == g.blue.count.TxPackets })
	closeAll(t, g.pool, g.red, g.blue)
}
