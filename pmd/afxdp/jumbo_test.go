package afxdp

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// jumbo is the jumbo frames of these tests: for packets of 9,000 bytes.
var jumbo = pmd.Jumbo{Size: pmd.JumboSize(9000, 2048), Count: 64}

// buffer is how much of a packet a chunk holds that the kernel fills.
const buffer = 2048 - pmd.Headroom

// newPool returns a pool on the Go heap whose bytes are all canaries.
func newPool(t *testing.T, chunks int, j pmd.Jumbo) *pmd.Pool {
	t.Helper()
	mem := &pmd.Memory{Bytes: bytes.Repeat([]byte{0xc5}, chunks*2048+j.Bytes())}
	pool, err := pmd.NewJumboPool(mem, 2048, j)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

// piece is one descriptor that the kernel gives: n bytes in a chunk that it was lent.
type piece struct {
	n     int
	contd bool
	bad   bool // of a chunk that it was not lent
}

// TestChains: what becomes of packets that come in several buffers.
func TestChains(t *testing.T) {
	const more = true
	for _, c := range []struct {
		name   string
		pieces []piece
		jumbo  int
		want   []int // lengths of the frames
		stats  pmd.Stats
	}{
		{"two buffers", []piece{{buffer, more, false}, {1, false, false}}, 1, []int{buffer + 1}, pmd.Stats{RxJumbo: 1}},
		{"as much as fits", []piece{
			{buffer, more, false}, {buffer, more, false}, {buffer, more, false}, {buffer, more, false}, {buffer, more, false},
			{5*2048 - pmd.Headroom - 5*buffer, false, false},
		}, 1, []int{5*2048 - pmd.Headroom}, pmd.Stats{RxJumbo: 1}},
		{"a byte more", []piece{
			{buffer, more, false}, {buffer, more, false}, {buffer, more, false}, {buffer, more, false}, {buffer, more, false},
			{5*2048 - pmd.Headroom - 5*buffer + 1, false, false}, {60, false, false},
		}, 1, []int{60}, pmd.Stats{RxGiant: 1}},
		{"without end, at first", []piece{
			{buffer, more, false}, {buffer, more, false}, {buffer, more, false}, {buffer, more, false}, {buffer, more, false},
			{buffer, more, false}, {buffer, more, false}, {buffer, more, false}, {1, false, false},
			{buffer, more, false}, {7, false, false},
		}, 1, []int{buffer + 7}, pmd.Stats{RxGiant: 1, RxJumbo: 1}},
		{"empty buffers", []piece{{0, more, false}, {0, false, false}}, 1, []int{0}, pmd.Stats{RxJumbo: 1}},
		{"more packets than jumbo frames", []piece{
			{buffer, more, false}, {3, false, false}, {buffer, more, false}, {4, false, false}, {60, false, false},
		}, 1, []int{buffer + 3, 60}, pmd.Stats{RxJumbo: 1, JumboEmpty: 1}},
		{"no jumbo frames", []piece{{buffer, more, false}, {3, false, false}, {60, false, false}}, 0, []int{60}, pmd.Stats{RxGiant: 1}},
		{"a buffer that reaches out of its chunk", []piece{{buffer + 1, more, false}, {3, false, false}, {60, false, false}},
			1, []int{60}, pmd.Stats{BadDesc: 1}},
		{"a first buffer that is not the port's", []piece{{buffer, more, true}, {3, false, false}, {60, false, false}},
			1, []int{60}, pmd.Stats{BadDesc: 1, RxGiant: 1}},
		{"a last buffer that is not the port's", []piece{{buffer, more, false}, {3, false, true}, {60, false, false}},
			1, []int{60}, pmd.Stats{BadDesc: 1, RxGiant: 1}},
		{"cut off", []piece{{60, false, false}, {buffer, more, false}}, 1, []int{60}, pmd.Stats{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := newPool(t, 64, pmd.Jumbo{Size: min(c.jumbo, 1) * 5 * 2048, Count: c.jumbo})
			u, err := NewUMEM(pool)
			if err != nil {
				t.Fatal(err)
			}
			s, k := newPlay(t, u, ^uint32(0)-3)
			var stream []byte // of the buffers that were lent
			s.refill()
			k.take(16)
			var fs [1]pmd.Frame
			var held []pmd.Frame
			var got []int
			at := 0
			for _, l := range c.pieces {
				d := unix.XDPDesc{Addr: k.has[0] + pmd.Headroom, Len: uint32(l.n)}
				if l.contd {
					d.Options = unix.XDP_PKT_CONTD
				}
				if l.bad {
					d.Addr = 63 * 2048
				} else {
					k.has = k.has[1:]
					for i := range min(l.n, buffer) {
						b := byte(len(stream)*7 + 1)
						pool.Mem()[int(d.Addr)+i] = b
						stream = append(stream, b)
					}
				}
				k.rx.push(d)
				k.rx.commit()
				if s.Rx(fs[:]) == 0 { // chains come in pieces
					continue
				}
				if n := len(got); n < len(c.want) && bytes.Contains(stream[at:], pool.Bytes(fs[0])) && int(fs[0].Off) == pmd.Headroom {
					at = len(stream)
				} else {
					t.Errorf("frame %+v is not what came", fs[0])
				}
				got = append(got, int(fs[0].Len))
				checkCanaries(t, pool, fs[0], c.stats.RxGiant == 0)
				held = append(held, fs[0])
			}
			for _, f := range held {
				pool.Put(f.Base)
			}
			st := s.counters.Stats
			st.RxPackets, st.RxBytes = 0, 0
			if st != c.stats || !equal(got, c.want) {
				t.Errorf("frames of %v bytes, %+v; want %v, %+v", got, st, c.want, c.stats)
			}
			if err := s.release(); err != nil {
				t.Fatal(err)
			}
			if pool.Len() != pool.Cap() || pool.Bad() != 0 {
				t.Errorf("%d of %d frames home, %d returned in error", pool.Len(), pool.Cap(), pool.Bad())
			}
		})
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// checkCanaries fails unless the bytes in front of the jumbo frame f are untouched,
// and if it is fresh, those behind it.
func checkCanaries(t *testing.T, pool *pmd.Pool, f pmd.Frame, fresh bool) {
	t.Helper()
	if f.Base < pool.JumboAt() {
		return
	}
	c := pool.ChunkOf(f)
	for i, b := range c {
		if (i < int(f.Off) || fresh && i >= int(f.Off)+int(f.Len)) && b != 0xc5 {
			t.Fatalf("byte %d around the packet in [%d, %d) was written", i, f.Off, int(f.Off)+int(f.Len))
		}
	}
}

// TestJumboTx: a jumbo frame leaves as a chain whose descriptors stay in their chunks
// and hold the packet in order, whole or not at all, and is home when all of them are.
func TestJumboTx(t *testing.T) {
	for _, c := range []struct {
		name     string
		off, len int
		parts    int // 0: refused and returned
	}{
		{"shorter than a chunk", 256, 60, 1},
		{"to the end of the first chunk", 256, buffer, 1},
		{"a byte more", 256, buffer + 1, 2},
		{"two chunks", 0, 4096, 2},
		{"two chunks and a byte", 0, 4097, 3},
		{"all of it", 0, 5 * 2048, 5},
		{"behind the first chunk", 2048 + 100, 4000, 3},
		{"one chunk behind the first", 4096, 2048, 1},
		{"least headers in the first chunk", 2048 - 14, 100, 2},
		{"a torn Ethernet header", 2048 - 13, 100, 0},
		{"too short", 256, 13, 0},
		{"nothing", 256, 0, 0},
		{"out of the frame", 1, 5 * 2048, 0},
		{"far out of the frame", 65535, 65535, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := newPool(t, 8, pmd.Jumbo{Size: 5 * 2048, Count: 3})
			u, err := NewUMEM(pool)
			if err != nil {
				t.Fatal(err)
			}
			s, k := newPlay(t, u, ^uint32(0)-1)
			s.sg = true
			base, _ := pool.GetJumbo()
			f := pmd.Frame{Base: base, Off: uint16(c.off), Len: uint16(c.len)}
			if s.Tx([]pmd.Frame{f}) != 1 {
				t.Fatal("not taken")
			}
			if c.parts == 0 {
				if s.counters.TxErrors != 1 || s.counters.TxPackets != 0 || pool.JumboLen() != 3 {
					t.Errorf("%+v, %d jumbo frames home", s.counters.Stats, pool.JumboLen())
				}
				return
			}
			if again := s.Tx([]pmd.Frame{f}); again != 1 || s.counters.TxErrors != 1 { // not the worker's any more
				t.Errorf("took %d, %+v", again, s.counters.Stats)
			}
			s.tx.commit()
			n := k.tx.ready(16)
			if int(n) != c.parts || s.counters.TxPackets != 1 || s.counters.TxBytes != uint64(c.len) {
				t.Fatalf("%d descriptors, want %d; %+v", n, c.parts, s.counters.Stats)
			}
			at := uint64(base) + uint64(c.off)
			for i := range n {
				d := k.tx.at(i)
				if d.Addr != at || d.Addr&u.mask+uint64(d.Len) > 2048 || d.Len == 0 || (d.Options == unix.XDP_PKT_CONTD) != (i+1 < n) {
					t.Errorf("descriptor %d of %d is %+v, want one at %d", i, n, d, at)
				}
				at += uint64(d.Len)
			}
			if at != uint64(base)+uint64(c.off)+uint64(c.len) {
				t.Errorf("the chain has %d bytes, want %d", at-uint64(base)-uint64(c.off), c.len)
			}
			for i := range n { // completed one by one
				if done := s.counters.TxDone; done != 0 || pool.JumboLen() != 2 {
					t.Fatalf("%d done, %d jumbo frames home after %d of %d chunks", done, pool.JumboLen(), i, n)
				}
				k.comp.push(k.tx.at(i).Addr)
				k.comp.commit()
				s.reap()
			}
			if s.counters.TxDone != 1 || s.counters.BadDesc != 0 || pool.Len() != pool.Cap() || pool.Bad() != 0 {
				t.Errorf("%+v; %d of %d frames home", s.counters.Stats, pool.Len(), pool.Cap())
			}
		})
	}
}

// TestJumboTxWithoutRoom: a chain is taken whole or not at all, in its turn, and what
// a socket without chains cannot send is lost and counted.
func TestJumboTxWithoutRoom(t *testing.T) {
	pool := newPool(t, 32, pmd.Jumbo{Size: 5 * 2048, Count: 4})
	u, err := NewUMEM(pool)
	if err != nil {
		t.Fatal(err)
	}
	s, k := newPlay(t, u, 0) // rings of 16
	s.sg = true
	var fs []pmd.Frame
	for range 4 {
		jumbo, _ := pool.GetJumbo()
		var small [1]uint32
		pool.Get(small[:])
		fs = append(fs, pmd.Frame{Base: small[0], Off: 256, Len: 60}, pmd.Frame{Base: jumbo, Off: 200, Len: 9000})
	}
	if n := s.Tx(fs); n != 5 || s.counters.TxPackets != 5 { // 1+5+1+5+1, and 3 slots are left
		t.Fatalf("took %d, %+v", n, s.counters.Stats)
	}
	fs = fs[5:]
	s.tx.commit()
	k.take(16)
	if n := s.Tx(fs); n != 3 {
		t.Fatalf("took %d of the rest", n)
	}
	s.tx.commit()
	k.take(16)
	for len(k.sent) > 0 {
		k.give(7, 60, 0)
		s.reap()
	}
	if s.counters.TxDone != 8 || pool.JumboLen() != 4 {
		t.Errorf("%+v, %d jumbo frames home", s.counters.Stats, pool.JumboLen())
	}
	s.sg = false
	jumbo, _ := pool.GetJumbo()
	if s.Tx([]pmd.Frame{{Base: jumbo, Off: 256, Len: buffer + 1}}) != 1 || s.counters.TxErrors != 1 || pool.JumboLen() != 4 {
		t.Errorf("without chains: %+v, %d jumbo frames home", s.counters.Stats, pool.JumboLen())
	}
	jumbo, _ = pool.GetJumbo() // what has become short goes everywhere
	if s.Tx([]pmd.Frame{{Base: jumbo, Off: 256, Len: buffer}}) != 1 || s.counters.TxErrors != 1 || s.counters.TxPackets != 9 {
		t.Errorf("a short packet in a jumbo frame: %+v", s.counters.Stats)
	}
	if err := s.release(); err != nil {
		t.Fatal(err)
	}
	if pool.Len() != pool.Cap() || pool.Bad() != 0 {
		t.Errorf("%d of %d frames home, %d returned in error", pool.Len(), pool.Cap(), pool.Bad())
	}
}

// newJumboRig is newRig with interfaces of MTU 9000, chunks of that size, and jumbo
// frames.
func newJumboRig(t testing.TB, mode Mode, chunk int, j pmd.Jumbo) *rig {
	t.Helper()
	newNS(t)
	for _, names := range [][2]string{{"a", "far_a"}, {"b", "far_b"}} {
		veth(t, names[0], names[1], 1)
		for _, name := range names {
			if err := netlink.LinkSetMTU(linkByName(t, name), 9000); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := &rig{TB: t, umem: newJumboUMEM(t, 8192, chunk, j)}
	r.pool = r.umem.Pool()
	r.sa = newSteering(t, "a", SteeringOptions{Mode: mode, Jumbo: true})
	r.sb = newSteering(t, "b", SteeringOptions{Mode: mode, Jumbo: true})
	r.a = newSocket(t, Options{UMEM: r.umem, Interface: "a", Steering: r.sa})
	r.b = newSocket(t, Options{UMEM: r.umem, Interface: "b", Steering: r.sb})
	r.in, r.out = packetSocket(t, "far_a"), packetSocket(t, "far_b")
	return r
}

// TestJumboFrames: packets of every length up to the MTU cross between real
// interfaces, among short ones, and all frames come home; the same with too few
// jumbo frames, where some are lost and all are counted.
func TestJumboFrames(t *testing.T) {
	for _, row := range []struct {
		mode  Mode
		chunk int
	}{{Auto, 2048}, {Auto, 4096}, {Generic, 2048}} {
		mode := row.mode
		t.Run(fmt.Sprintf("%s/%d", mode, row.chunk), func(t *testing.T) {
			t.Parallel()
			jumbo := pmd.Jumbo{Size: pmd.JumboSize(9000, row.chunk), Count: 64}
			buffer := row.chunk - pmd.Headroom
			r := newJumboRig(t, mode, row.chunk, jumbo)
			if info := r.a.Info(); info.NoJumbo != "" || info.Longest != jumbo.Size-pmd.Headroom {
				t.Fatalf("%+v", info)
			}
			if want := map[Mode]Mode{Auto: Copy, Generic: Generic}[mode]; r.sa.Mode() != want || r.a.Info().Mode != want.String() {
				t.Fatalf("attached %s, socket %s, want %s", r.sa.Mode(), r.a.Info().Mode, want)
			}
			sizes := []int{60, 1514, 9014, 9013}
			for k := 1; k <= 5; k++ {
				sizes = append(sizes, k*buffer-1, k*buffer, k*buffer+1, k*row.chunk-1, k*row.chunk, k*row.chunk+1)
			}
			got, sent := map[uint32]int{}, uint32(0)
			for range 20 {
				for _, size := range sizes {
					if size <= 9014 {
						send(t, r.in, sent, 1, size)
						send(t, r.in, sent+1, 1, 100)
						sent += 2
					}
				}
				r.until(func() bool { collect(t, r.out, got); return len(got) == int(sent) })
			}
			if len(got) != int(sent) {
				t.Errorf("%d of %d packets arrived; %+v; %+v", len(got), sent, r.a.Stats(), r.b.Stats())
			}
			if st := r.a.Stats(); st.RxJumbo == 0 || st.RxPackets != uint64(sent) || st.RxGiant+st.JumboEmpty+st.BadDesc+st.RxDropped != 0 {
				t.Errorf("received: %+v", st)
			}
			if st := r.b.Stats(); st.TxPackets != uint64(sent) || st.TxErrors+st.BadDesc != 0 {
				t.Errorf("sent: %+v", st)
			}
			r.home()
		})
	}
}

// TestJumboFramesRunOut: without a free jumbo frame packets are lost and counted, and
// the port goes on.
func TestJumboFramesRunOut(t *testing.T) {
	t.Parallel()
	r := newJumboRig(t, Auto, 2048, pmd.Jumbo{Size: jumbo.Size, Count: 1})
	kept, _ := r.pool.GetJumbo()
	send(t, r.in, 0, 30, 9000)
	send(t, r.in, 30, 1, 100)
	got := map[uint32]int{}
	if !r.until(func() bool { collect(t, r.out, got); return got[30] == 1 }) || len(got) != 1 {
		t.Errorf("%d packets arrived: %+v", len(got), r.a.Stats())
	}
	if st := r.a.Stats(); st.JumboEmpty != 30 || st.RxJumbo != 0 {
		t.Errorf("%+v", st)
	}
	r.pool.Put(kept)
	send(t, r.in, 31, 1, 9000)
	if !r.until(func() bool { collect(t, r.out, got); return got[31] == 1 }) {
		t.Errorf("nothing arrives with a jumbo frame: %+v", r.a.Stats())
	}
	r.home()
}

// TestNoJumboFrames: a pool without any has ports that drop long packets, counted,
// also where the kernel hands them over.
func TestNoJumboFrames(t *testing.T) {
	t.Parallel()
	r := newJumboRig(t, Auto, 2048, pmd.Jumbo{})
	if info := r.a.Info(); info.NoJumbo != "" || info.Longest != buffer {
		t.Errorf("%+v", info)
	}
	send(t, r.in, 0, 20, 9000)
	send(t, r.in, 20, 1, buffer)
	got := map[uint32]int{}
	if !r.until(func() bool { collect(t, r.out, got); return got[20] == 1 }) || len(got) != 1 {
		t.Errorf("%d packets arrived", len(got))
	}
	if st := r.a.Stats(); st.RxDropped+st.RxGiant != 20 {
		t.Errorf("%+v", st)
	}
	r.home()
}

// TestZeroCopySegments: a device that has no zero-copy takes one buffer a packet, and
// why it gets no jumbo frames that way names both numbers.
func TestZeroCopySegments(t *testing.T) {
	newNS(t)
	veth(t, "a", "far_a", 1)
	n, err := findNIC("a")
	if err != nil {
		t.Fatal(err)
	}
	if segments, err := n.zeroCopySegments(); segments != 1 || err != nil {
		t.Errorf("%d segments (%v)", segments, err)
	}
	u, err := NewUMEM(newPool(t, 8, jumbo))
	if err != nil {
		t.Fatal(err)
	}
	want := "mode not available: no jumbo frames in zero-copy: a takes packets of up to 1 buffers (xdp-zc-max-segs), " +
		"and a jumbo frame may come in 6 of 1792 bytes"
	if err := u.checkSegments(n); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
