package afxdp

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// TestOpenClose: a socket says what it is, holds the frames that it may
// receive into, and gives them back; then the queue can be opened again.
func TestOpenClose(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 2)
	u := newUMEM(t, 1024)
	st := newSteering(t, "p", SteeringOptions{})
	for range 3 {
		for q := range 2 {
			s := newSocket(t, Options{Interface: "p", Queue: q, UMEM: u, Steering: st, FillSize: 256})
			l := linkByName(t, "p").Attrs()
			i := s.Info()
			if i.Name != "p" || i.Index != l.Index || i.Queue != q || i.Driver != "afxdp" || i.Mode != "copy" ||
				i.MAC.String() != l.HardwareAddr.String() || i.Hugetlb != u.pool.Hugetlb() {
				t.Errorf("Info %+v of %d %s", i, l.Index, l.HardwareAddr)
			}
			if got := u.pool.Cap() - u.pool.Len(); got != 256 || u.lent(s.rxTag) != 256 {
				t.Errorf("%d frames left the pool, %d are lent, want 256", got, u.lent(s.rxTag))
			}
			if n := s.Rx(make([]pmd.Frame, 8)); n != 0 {
				t.Errorf("Rx returned %d frames of a silent wire", n)
			}
			for range 2 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if u.pool.Len() != u.pool.Cap() {
				t.Errorf("%d of %d frames home", u.pool.Len(), u.pool.Cap())
			}
			closedPort(t, s)
		}
	}
}

// closedPort checks that a port which was closed does nothing, and takes no harm.
func closedPort(t *testing.T, s *Socket) {
	t.Helper()
	s.Flush()
	fs := []pmd.Frame{{Base: 0, Off: 256, Len: 60}}
	if rx, tx, fd := s.Rx(fs), s.Tx(fs), s.FD(); rx != 0 || tx != 0 || fd != -1 {
		t.Errorf("a closed port: Rx %d, Tx %d, FD %d", rx, tx, fd)
	}
}

// TestForward: what arrives at a leaves by b, in place, in order of arrival,
// byte by byte as it was, and is counted.
func TestForward(t *testing.T) {
	t.Parallel()
	for _, size := range []int{60, 1500} {
		r := newRig(t, 4096, Options{FillSize: 1024, RxSize: 1024, TxSize: 1024, CompSize: 1024})
		const n = 3000
		seen := map[uint32]int{}
		for first := uint32(0); first < n; first += 500 {
			send(t, r.in, first, 500, size)
			if !r.until(func() bool { collect(t, r.out, seen); return len(seen) >= int(first)+500 }) {
				t.Fatalf("%d of %d frames arrived; a: %+v, b: %+v", len(seen), first+500, r.a.Stats(), r.b.Stats())
			}
		}
		for num, times := range seen {
			if times != 1 || num >= n {
				t.Errorf("frame %d arrived %d times", num, times)
			}
		}
		r.turn()
		a, b := r.a.Stats(), r.b.Stats()
		b.Kicks = 0
		if want := (pmd.Stats{RxPackets: n, RxBytes: uint64(n * size)}); a != want {
			t.Errorf("a counted %+v, want %+v", a, want)
		}
		if want := (pmd.Stats{TxPackets: n, TxBytes: uint64(n * size), TxDone: n}); b != want {
			t.Errorf("b counted %+v, want %+v", b, want)
		}
		if vs, err := r.sa.Counters(); err != nil || vs[RedirectTransit] != n {
			t.Errorf("steered %d packets, want %d (%v)", vs[RedirectTransit], n, err)
		}
		r.home()
	}
}

// TestBurstBeyondKick: a burst longer than the 32 frames that the kernel
// sends a call leaves in one Flush.
func TestBurstBeyondKick(t *testing.T) {
	t.Parallel()
	r := newRig(t, 4096, Options{FillSize: 256, TxSize: 1024})
	const n = 1000
	var bases [n]uint32
	if got := r.pool.Get(bases[:]); got != n {
		t.Fatalf("the pool has %d frames", got)
	}
	for i, base := range bases {
		f := pmd.Frame{Base: base, Off: pmd.Headroom, Len: 100}
		copy(r.pool.Bytes(f), numbered(uint32(i), 100))
		if r.b.Tx([]pmd.Frame{f}) != 1 {
			t.Fatalf("frame %d not taken", i)
		}
	}
	seen := map[uint32]int{}
	if collect(t, r.out, seen); len(seen) != 0 {
		t.Errorf("%d frames left before Flush", len(seen))
	}
	r.b.Flush()
	if collect(t, r.out, seen); len(seen) != n {
		t.Errorf("%d frames left in a Flush, want %d; %+v", len(seen), n, r.b.Stats())
	}
	r.home()
}

// TestFlushOnlyWhenNeeded: a turn without traffic makes no system call.
func TestFlushOnlyWhenNeeded(t *testing.T) {
	t.Parallel()
	r := newRig(t, 4096, Options{})
	for range 100 {
		r.turn()
	}
	if k := r.a.Stats().Kicks + r.b.Stats().Kicks; k != 0 {
		t.Errorf("%d kicks in idle turns", k)
	}
	r.home()
}

// TestLinkDownUp: a port that was down and comes back works again by itself,
// and while it is down nothing blocks or gets lost from the books.
func TestLinkDownUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2048, Options{FillSize: 256, RxSize: 256, TxSize: 256, CompSize: 256})
	seen := map[uint32]int{}
	next := uint32(0)
	works := func(when string) {
		t.Helper()
		first := next
		if !r.until(func() bool {
			send(t, r.in, next, 1, 100)
			next++
			collect(t, r.out, seen)
			return next > 300 && seen[next-2] == 1
		}) {
			t.Fatalf("%s: frames %d to %d did not arrive; b: %+v", when, first, next, r.b.Stats())
		}
	}
	works("at first")
	for range 2 {
		setUp(t, "b", false)
		errorsBefore := r.b.Stats().TxErrors
		for range 40 { // more than b's TX ring holds
			send(t, r.in, next, 10, 100)
			next += 10
			r.turn()
		}
		if !r.until(func() bool { return r.refuse > 0 }) {
			t.Errorf("a port that is down took all frames: %+v", r.b.Stats())
		}
		if got := r.b.Stats().TxErrors; got == errorsBefore {
			t.Error("refused sends were not counted")
		}
		r.refuse = 0
		setUp(t, "b", true)
		works("after b was down")
	}
	setUp(t, "a", false)
	r.turn()
	setUp(t, "a", true)
	time.Sleep(10 * time.Millisecond)
	works("after a was down")
	r.home()
}

// TestInterfaceDeleted: a port without its interface receives nothing, takes
// no more than its ring holds, and closes with its frames.
func TestInterfaceDeleted(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2048, Options{FillSize: 256, TxSize: 64})
	send(t, r.in, 0, 10, 100)
	if err := netlink.LinkDel(linkByName(t, "b")); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(50) {
		send(t, r.in, 10+10*i, 10, 100)
		r.turn()
	}
	if !r.until(func() bool { return r.refuse > 0 }) {
		t.Errorf("a deleted port took all frames: %+v", r.b.Stats())
	}
	if n := r.b.Rx(r.fs[:]); n != 0 {
		t.Errorf("a deleted port received %d frames", n)
	}
	if st := r.b.Stats(); st.TxErrors == 0 || st.TxDone != 0 {
		t.Errorf("a deleted port counted %+v", st)
	}
	if err := r.sb.Check(); !errors.Is(err, ErrDetached) {
		t.Errorf("Check of a deleted interface: %v", err)
	}
	if err := r.sb.Reattach(); !errors.Is(err, ErrNoInterface) {
		t.Errorf("Reattach to a deleted interface: %v", err)
	}
	r.home()
}

// TestUMEMOutlivesItsFirstSocket: sockets that share a UMEM do not need the
// one that registered it, nor one whose interface is gone.
func TestUMEMOutlivesItsFirstSocket(t *testing.T) {
	t.Parallel()
	r := newRig(t, 4096, Options{FillSize: 256})
	if err := r.a.Close(); err != nil {
		t.Fatal(err)
	}
	r.a = newSocket(t, Options{Interface: "a", UMEM: r.umem, Steering: r.sa, FillSize: 256})
	works := func(first uint32) {
		t.Helper()
		seen := map[uint32]int{}
		send(t, r.in, first, 100, 200)
		if !r.until(func() bool { collect(t, r.out, seen); return len(seen) == 100 }) {
			t.Fatalf("%d of 100 frames arrived", len(seen))
		}
	}
	works(0)
	if err := netlink.LinkDel(linkByName(t, "a")); err != nil {
		t.Fatal(err)
	}
	veth(t, "a", "far_a", 1)
	dead := r.a // still in the UMEM, bound to nothing
	sa := newSteering(t, "a", SteeringOptions{})
	r.a = newSocket(t, Options{Interface: "a", UMEM: r.umem, Steering: sa, FillSize: 256})
	r.in = packetSocket(t, "far_a")
	works(100)
	if err := dead.Close(); err != nil {
		t.Error(err)
	}
	works(200)
	r.home()
}

// TestGiantAndRunt: a packet that does not fit a frame is lost in the kernel
// and counted, one that is shorter than its headers is the worker's to judge,
// and those around them pass.
func TestGiantAndRunt(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, Options{FillSize: 128})
	for _, name := range []string{"a", "far_a"} {
		if err := netlink.LinkSetMTU(linkByName(t, name), 3000); err != nil {
			t.Fatal(err)
		}
	}
	largest := r.pool.Chunk() - pmd.Headroom
	runt := eth(0x0800, nil)
	send(t, r.in, 0, 1, 60)
	send(t, r.in, 1, 20, largest+1)
	send(t, r.in, 21, 1, largest)
	if _, err := unix.Write(r.in, runt); err != nil {
		t.Fatal(err)
	}
	want := []int{60, largest, len(runt)}
	n := r.a.Rx(r.fs[:])
	if n != len(want) {
		t.Fatalf("received %d frames, want %d", n, len(want))
	}
	for i, f := range r.fs[:n] {
		if int(f.Len) != want[i] {
			t.Errorf("frame %d has %d bytes, want %d", i, f.Len, want[i])
		}
		r.pool.Put(f.Base)
	}
	if st := r.a.Stats(); st.RxDropped != 20 || st.BadDesc != 0 {
		t.Errorf("20 giants counted as %+v", st)
	}
	if vs, err := r.sa.Counters(); err != nil || vs[RedirectShort] != 1 {
		t.Errorf("%d runts steered, want 1 (%v)", vs[RedirectShort], err)
	}
	r.home()
}

// TestFillStarvation: without frames to receive into, packets are lost and
// counted; with frames again, the port receives again.
func TestFillStarvation(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, Options{FillSize: 128, RxSize: 512})
	hoard := make([]uint32, 512)
	hoard = hoard[:r.pool.Get(hoard)]
	send(t, r.in, 0, 300, 100)
	for n := 1; n > 0; {
		n = r.a.Rx(r.fs[:])
		for _, f := range r.fs[:n] {
			hoard = append(hoard, f.Base)
		}
		r.a.Flush()
	}
	st := r.a.Stats()
	if st.RxPackets != 128 || st.FillEmpty == 0 || st.RxPackets+st.RxDropped != 300 {
		t.Errorf("300 packets for 128 frames counted as %+v", st)
	}
	for _, base := range hoard {
		r.pool.Put(base)
	}
	r.a.Flush()
	seen := map[uint32]int{}
	send(t, r.in, 300, 100, 100)
	if !r.until(func() bool { collect(t, r.out, seen); return len(seen) == 100 }) {
		t.Errorf("%d of 100 frames arrived after the famine", len(seen))
	}
	r.home()
}

// TestCloseInFlight: frames in every ring come home, from both ports.
func TestCloseInFlight(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, Options{FillSize: 128, RxSize: 128, TxSize: 128, CompSize: 128})
	send(t, r.in, 0, 100, 100)
	n := r.a.Rx(r.fs[:32]) // 68 stay in the RX ring
	if n != 32 {
		t.Fatalf("received %d frames, want 32", n)
	}
	if took := r.b.Tx(r.fs[:16]); took != 16 { // queued, not flushed
		t.Fatalf("took %d frames, want 16", took)
	}
	setUp(t, "b", false)
	if took := r.b.Tx(r.fs[16:24]); took != 8 { // flushed, not sent
		t.Fatalf("took %d frames, want 8", took)
	}
	r.b.Flush()
	for _, f := range r.fs[24:32] {
		r.pool.Put(f.Base)
	}
	r.home()
}

// TestCloseSends: what was queued when the port closes is still sent.
func TestCloseSends(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, Options{FillSize: 128})
	send(t, r.in, 0, 50, 100)
	n := r.a.Rx(r.fs[:])
	if took := r.b.Tx(r.fs[:n]); n != 50 || took != n {
		t.Fatalf("received %d frames and sent %d, want 50", n, took)
	}
	if err := r.b.Close(); err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]int{}
	if collect(t, r.out, seen); len(seen) != 50 {
		t.Errorf("%d of 50 frames arrived", len(seen))
	}
	if st := r.b.Stats(); st.TxDone != 50 {
		t.Errorf("counted %+v, want 50 done", st)
	}
	r.home()
}

// TestTxRefuses: what no device can send is counted and comes home at once;
// a frame that is not the caller's stays where it is.
func TestTxRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, Options{FillSize: 128})
	home := r.pool.Len()
	var bases [4]uint32
	r.pool.Get(bases[:])
	lent := uint32(0)
	for r.umem.held[lent>>r.umem.shift] == notLent {
		lent += 2048
	}
	fs := []pmd.Frame{
		{Base: bases[0], Off: 256, Len: 13},
		{Base: bases[1], Off: 256, Len: 1793},
		{Base: bases[2], Off: 65535, Len: 65535},
		{Base: bases[3] + 1, Off: 256, Len: 60},
		{Base: lent, Off: 256, Len: 60},
		{Base: 1024 * 2048, Off: 256, Len: 60},
		{Base: 0xfffff800, Off: 256, Len: 60},
	}
	if n := r.b.Tx(fs); n != len(fs) {
		t.Errorf("took %d frames, want %d", n, len(fs))
	}
	r.b.Flush()
	if st := r.b.Stats(); st != (pmd.Stats{TxErrors: uint64(len(fs))}) {
		t.Errorf("counted %+v, want %d TxErrors", st, len(fs))
	}
	if got := r.pool.Len(); got != home-1 {
		t.Errorf("%d frames home, want all %d but the one that no frame named", got, home)
	}
	r.pool.Put(bases[3])
	r.home()
}

// TestNoAllocs: a turn with traffic allocates nothing. It cannot run beside
// others, whose allocations it would count.
func TestNoAllocs(t *testing.T) {
	r := newRig(t, 2048, Options{FillSize: 512})
	send(t, r.in, 0, 400, 100)
	carried := 0
	if avg := testing.AllocsPerRun(100, func() { carried += r.turn() }); avg != 0 {
		t.Errorf("%v allocations a turn", avg)
	}
	if carried != 400 {
		t.Errorf("carried %d of 400 frames", carried)
	}
	r.home()
}

// TestPoll: the descriptor is readable when Rx would return frames.
func TestPoll(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, Options{FillSize: 128})
	readable := func() bool {
		fds := []unix.PollFd{{Fd: int32(r.a.FD()), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, 0)
		return err == nil && fds[0].Revents&unix.POLLIN != 0
	}
	if readable() {
		t.Error("readable on a silent wire")
	}
	send(t, r.in, 0, 1, 100)
	if !readable() {
		t.Error("not readable with a frame in the ring")
	}
	r.turn()
	if readable() {
		t.Error("readable after Rx")
	}
	r.home()
}

// TestGeneric: where the program runs on socket buffers, the same holds.
func TestGeneric(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 1)
	u := newUMEM(t, 512)
	st := newSteering(t, "p", SteeringOptions{Mode: Generic})
	if st.Mode() != Generic || st.Native() != nil {
		t.Errorf("attached %s (%v)", st.Mode(), st.Native())
	}
	for _, m := range []Mode{ZeroCopy, Copy} {
		if _, err := Open(Options{Interface: "p", UMEM: u, Steering: st, Mode: m}); !errors.Is(err, ErrMode) {
			t.Errorf("Open %s under a generic program: %v", m, err)
		}
	}
	s := newSocket(t, Options{Interface: "p", UMEM: u, Steering: st, FillSize: 128})
	if s.Info().Mode != "generic" {
		t.Errorf("mode %s", s.Info().Mode)
	}
	send(t, packetSocket(t, "far"), 0, 10, 100)
	var fs [16]pmd.Frame
	got := 0
	for end := time.Now().Add(time.Second); got < 10 && time.Now().Before(end); {
		n := s.Rx(fs[:])
		for _, f := range fs[:n] {
			if num, ok := number(u.pool.Bytes(f)); !ok || num != uint32(got) || f.Off < pmd.Headroom {
				t.Errorf("frame %d at offset %d, intact %v; want number %d", num, f.Off, ok, got)
			}
			u.pool.Put(f.Base)
			got++
		}
	}
	if got != 10 {
		t.Errorf("received %d of 10", got)
	}
	if err := s.Close(); err != nil || u.pool.Len() != u.pool.Cap() {
		t.Errorf("%d of %d frames home (%v)", u.pool.Len(), u.pool.Cap(), err)
	}
}

// TestOpenErrors: each says what is wrong and how to mend it.
func TestOpenErrors(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 2)
	veth(t, "q", "far_q", 1)
	u, u2 := newUMEM(t, 512), newUMEM(t, 512)
	st, sq := newSteering(t, "p", SteeringOptions{}), newSteering(t, "q", SteeringOptions{})
	newSocket(t, Options{Interface: "p", Queue: 1, UMEM: u, Steering: st, FillSize: 64})
	down := func() { setUp(t, "q", false) }
	for _, c := range []struct {
		name string
		do   func()
		o    Options
		want error
		text string
	}{
		{"no such interface", nil, Options{Interface: "nope", UMEM: u, Steering: st}, ErrNoInterface, `"nope"`},
		{"queue out of range", nil, Options{Interface: "p", Queue: 2, UMEM: u, Steering: st}, ErrNoQueue, "p has 2, 0 to 1"},
		{"negative queue", nil, Options{Interface: "p", Queue: -1, UMEM: u, Steering: st}, ErrNoQueue, "-1"},
		{"queue taken", nil, Options{Interface: "p", Queue: 1, UMEM: u2, Steering: st}, ErrQueueTaken, "queue 1"},
		{"queue taken by a sharer", nil, Options{Interface: "p", Queue: 1, UMEM: u, Steering: st}, ErrQueueTaken, "same UMEM"},
		{"no zero-copy in the device", nil, Options{Interface: "p", UMEM: u2, Steering: st, Mode: ZeroCopy}, ErrMode, "no AF_XDP zero-copy"},
		{"generic under a native program", nil, Options{Interface: "p", UMEM: u, Steering: st, Mode: Generic}, ErrMode, "generic"},
		{"another interface's steering", nil, Options{Interface: "p", UMEM: u, Steering: sq}, ErrOptions, "that of q"},
		{"no UMEM", nil, Options{Interface: "p", Steering: st}, ErrOptions, "UMEM"},
		{"no steering", nil, Options{Interface: "p", UMEM: u}, ErrOptions, "XDP program"},
		{"ring of 100", nil, Options{Interface: "p", UMEM: u, Steering: st, RxSize: 100}, ErrOptions, "RX ring of 100"},
		{"ring of 1", nil, Options{Interface: "p", UMEM: u, Steering: st, FillSize: 1}, ErrOptions, "fill ring of 1"},
		{"negative ring", nil, Options{Interface: "p", UMEM: u, Steering: st, TxSize: -4}, ErrOptions, "TX ring of -4"},
		{"completions smaller than TX", nil, Options{Interface: "p", UMEM: u, Steering: st, TxSize: 64, CompSize: 32}, ErrOptions, "completion ring"},
		{"interface is down", down, Options{Interface: "q", UMEM: u, Steering: sq}, ErrDown, "ip link set q up"},
	} {
		if c.do != nil {
			c.do()
		}
		s, err := Open(c.o)
		if err == nil {
			t.Errorf("%s: opened %+v", c.name, s.Info())
			s.Close()
			continue
		}
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "afxdp: open ") {
			t.Errorf("%s: %q, want %q and %q in it", c.name, err, c.want, c.text)
		}
		if lent := 512 - u2.pool.Len(); lent != 0 {
			t.Errorf("%s: %d frames not home after a failed Open", c.name, lent)
		}
	}
	if _, err := NewUMEM(nil); !errors.Is(err, ErrOptions) {
		t.Errorf("NewUMEM(nil): %v", err)
	}
}

// TestBadMemory: memory of the Go heap or frames that the kernel cannot cut.
func TestBadMemory(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 1)
	st := newSteering(t, "p", SteeringOptions{})
	heap := make([]byte, 64*2048+1)
	for name, m := range map[string]struct {
		mem   *pmd.Memory
		chunk int
	}{
		"not at a page's start": {&pmd.Memory{Bytes: heap[1:]}, 2048},
		"frames above a page":   {&pmd.Memory{Bytes: heap[:64*2048]}, 8192},
	} {
		pool, err := pmd.NewPool(m.mem, m.chunk)
		if err != nil {
			t.Fatal(err)
		}
		u, err := NewUMEM(pool)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Interface: "p", UMEM: u, Steering: st}); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
		if pool.Len() != pool.Cap() {
			t.Errorf("%s: %d of %d frames home", name, pool.Len(), pool.Cap())
		}
	}
}

// TestMemlock: the sockets of a UMEM lock its memory once, and a process that
// may not lock as much is told the limit's name.
func TestMemlock(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 3)
	st := newSteering(t, "p", SteeringOptions{})
	first, second := newUMEM(t, 2048), newUMEM(t, 2048)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &old); err != nil {
		t.Fatal(err)
	}
	size := uint64(len(first.pool.Mem()))
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: size + size/2, Max: max(old.Max, 2*size)}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &old); err != nil {
			t.Error(err)
		}
	}()
	dropCapabilities(t, unix.CAP_IPC_LOCK)
	for q := range 2 {
		newSocket(t, Options{Interface: "p", Queue: q, UMEM: first, Steering: st, FillSize: 64})
	}
	_, err := Open(Options{Interface: "p", Queue: 2, UMEM: second, Steering: st, Mode: Copy})
	if !errors.Is(err, ErrMemlock) || !strings.Contains(err.Error(), "ulimit -l") {
		t.Errorf("Open: %v", err)
	}
}

// TestPermission: without capabilities, Open and Attach name them.
func TestPermission(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 1)
	st := newSteering(t, "p", SteeringOptions{})
	u := newUMEM(t, 64)
	dropCapabilities(t, unix.CAP_NET_RAW, unix.CAP_NET_ADMIN, unix.CAP_BPF, unix.CAP_SYS_ADMIN)
	if _, err := Open(Options{Interface: "p", UMEM: u, Steering: st}); !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_RAW") {
		t.Errorf("Open: %v", err)
	}
	if _, err := Attach("far", SteeringOptions{}); !errors.Is(err, ErrPermission) {
		t.Errorf("Attach: %v", err)
	}
}

// dropCapabilities takes capabilities from the test's thread for good.
func dropCapabilities(t *testing.T, caps ...int) {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	for _, c := range caps {
		data[c/32].Effective &^= 1 << (c % 32)
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
}

func TestBecause(t *testing.T) {
	for errno, want := range map[unix.Errno]error{
		unix.EPERM: ErrPermission, unix.EACCES: ErrPermission, unix.EAFNOSUPPORT: ErrUnsupported,
		unix.ENODEV: ErrNoInterface, unix.ENETDOWN: ErrDown, unix.EIO: unix.EIO,
	} {
		if err := because(errno); !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%s became %q", errno, err)
		}
	}
}
