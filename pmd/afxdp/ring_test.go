package afxdp

import (
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"spigot/pmd"
)

// ringOffset is where the tests' rings keep their parts.
var ringOffset = unix.XDPRingOffset{Producer: 0, Consumer: 64, Flags: 128, Desc: 192}

// newTestRing is a ring in ordinary memory whose indices stand at start.
func newTestRing[T uint64 | unix.XDPDesc](t rapid.TB, size int, start uint32) ring[T] {
	t.Helper()
	r, err := newRing[T](make([]byte, ringBytes[T](ringOffset, size)), ringOffset, size)
	if err != nil {
		t.Fatal(err)
	}
	r.prod.Store(start)
	r.cons.Store(start)
	return r
}

func TestNewRingTooSmall(t *testing.T) {
	need := ringBytes[unix.XDPDesc](ringOffset, 8)
	if need != 192+8*16 {
		t.Errorf("a ring of 8 descriptors spans %d bytes", need)
	}
	if _, err := newRing[unix.XDPDesc](make([]byte, need-1), ringOffset, 8); err == nil {
		t.Error("a ring was laid over too little memory")
	}
}

// TestRingIndices: rings go on through the wrap of their indices, and an index
// that the other side cannot have written is not believed.
func TestRingIndices(t *testing.T) {
	const start = ^uint32(0) - 2
	r := newTestRing[uint64](t, 4, start)
	p := producer[uint64]{ring: r, next: start, seen: start}
	c := consumer[uint64]{ring: r, next: start, seen: start}
	for round := range uint64(10) {
		if room := p.room(9); room != 4 {
			t.Fatalf("round %d: room for %d, want 4", round, room)
		}
		for i := range uint64(4) {
			p.push(10*round + i)
		}
		if n := c.ready(9); n != 0 {
			t.Fatalf("round %d: %d entries visible before commit", round, n)
		}
		p.commit()
		if p.room(1) != 0 || p.pending() != 4 {
			t.Fatalf("round %d: room in a full ring", round)
		}
		if n := c.ready(3); n != 3 {
			t.Fatalf("round %d: %d entries, want the 3 asked for", round, n)
		}
		for i := range uint32(3) {
			if v := c.at(i); v != 10*round+uint64(i) {
				t.Fatalf("round %d: entry %d is %d", round, i, v)
			}
		}
		c.release(3)
		if n := c.ready(9); n != 1 || c.at(0) != 10*round+3 {
			t.Fatalf("round %d: %d entries left, want 1", round, n)
		}
		c.release(1)
	}
	for _, wild := range []uint32{5, 1 << 31, ^uint32(0)} {
		c.prod.Store(c.next + wild)
		if n := c.ready(9); n != 0 {
			t.Errorf("producer index ahead by %d: %d entries", wild, n)
		}
		c.prod.Store(c.next)
		p.cons.Store(p.next + wild)
		if room := p.room(9); room > 4 {
			t.Errorf("consumer index ahead by %d: room for %d", wild, room)
		}
	}
}

// kernel plays the other side of a socket's rings, fairly or not.
type kernel struct {
	rx   producer[unix.XDPDesc]
	fill consumer[uint64]
	tx   consumer[unix.XDPDesc]
	comp producer[uint64]
	has  []uint64 // taken from the fill ring
	sent []uint64 // taken from the TX ring
}

// newPlay makes a socket whose kernel is the test.
func newPlay(t rapid.TB, u *UMEM, start uint32) (*Socket, *kernel) {
	t.Helper()
	const size = 16
	s := &Socket{umem: u, pool: u.pool, fd: -1, steering: &Steering{}}
	if err := u.admit(s); err != nil {
		t.Fatal(err)
	}
	rx, fill := newTestRing[unix.XDPDesc](t, size, start), newTestRing[uint64](t, size, start)
	tx, comp := newTestRing[unix.XDPDesc](t, size, start), newTestRing[uint64](t, size, start)
	s.rx = consumer[unix.XDPDesc]{rx, start, start}
	s.fill = producer[uint64]{fill, start, start}
	s.tx = producer[unix.XDPDesc]{tx, start, start}
	s.comp = consumer[uint64]{comp, start, start}
	return s, &kernel{
		rx:   producer[unix.XDPDesc]{rx, start, start},
		fill: consumer[uint64]{fill, start, start},
		tx:   consumer[unix.XDPDesc]{tx, start, start},
		comp: producer[uint64]{comp, start, start},
	}
}

// take moves up to n entries from the fill and TX rings to the kernel's hands.
func (k *kernel) take(n uint32) {
	f := k.fill.ready(n)
	for i := range f {
		k.has = append(k.has, k.fill.at(i))
	}
	k.fill.release(f)
	x := k.tx.ready(n)
	for i := range x {
		k.sent = append(k.sent, k.tx.at(i).Addr)
	}
	k.tx.release(x)
}

// give receives size bytes into each of up to n frames and completes up to n.
func (k *kernel) give(n int, size, options uint32) {
	for range min(n, len(k.has), int(k.rx.room(uint32(n)))) {
		k.rx.push(unix.XDPDesc{Addr: k.has[0] + pmd.Headroom, Len: size, Options: options})
		k.has = k.has[1:]
	}
	k.rx.commit()
	for range min(n, len(k.sent), int(k.comp.room(uint32(n)))) {
		k.comp.push(k.sent[0])
		k.sent = k.sent[1:]
	}
	k.comp.commit()
}

// TestOwnership: whatever two sockets, their worker and a lying kernel do, a
// frame has one owner, and at the end all are home.
func TestOwnership(t *testing.T) {
	jumbo := pmd.Jumbo{Size: 5 * 2048, Count: 4}
	mem := &pmd.Memory{Bytes: make([]byte, 48*2048+jumbo.Bytes())}
	rapid.Check(t, func(t *rapid.T) {
		pool, err := pmd.NewJumboPool(mem, 2048, jumbo)
		if err != nil {
			t.Fatal(err)
		}
		u, err := NewUMEM(pool)
		if err != nil {
			t.Fatal(err)
		}
		start := rapid.Uint32().Draw(t, "start")
		var ss [2]*Socket
		var ks [2]*kernel
		for i := range ss {
			ss[i], ks[i] = newPlay(t, u, start)
			ss[i].sg = true
		}
		var worker []pmd.Frame
		which := rapid.IntRange(0, 1)
		some := rapid.IntRange(0, 20)
		lies := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				lent := 0
				for i, h := range u.held {
					if h != notLent && uint32(i)<<u.shift < u.jumboAt {
						lent++
					}
				}
				for _, n := range u.away {
					lent += min(int(n), 1)
				}
				for _, s := range ss {
					if s.chain.on && s.chain.lost == nil {
						lent++
					}
				}
				if got := pool.Len() + lent + len(worker); got != pool.Cap() || pool.Bad() != 0 {
					t.Fatalf("%d home, %d lent, %d with the worker: %d of %d", pool.Len(), lent, len(worker), got, pool.Cap())
				}
				if bad := ss[0].counters.BadDesc + ss[1].counters.BadDesc; bad != lies {
					t.Fatalf("%d bad descriptors counted of %d", bad, lies)
				}
			},
			"rx": func(t *rapid.T) {
				fs := make([]pmd.Frame, some.Draw(t, "n"))
				worker = append(worker, fs[:ss[which.Draw(t, "port")].Rx(fs)]...)
			},
			"tx": func(t *rapid.T) {
				n := min(some.Draw(t, "n"), len(worker))
				worker = worker[ss[which.Draw(t, "port")].Tx(worker[:n]):]
			},
			"drop": func(t *rapid.T) {
				n := min(some.Draw(t, "n"), len(worker))
				for _, f := range worker[:n] {
					pool.Put(f.Base)
				}
				worker = worker[n:]
			},
			"flush":       func(t *rapid.T) { ss[which.Draw(t, "port")].Flush() },
			"kernel take": func(t *rapid.T) { ks[which.Draw(t, "port")].take(uint32(some.Draw(t, "n"))) },
			"kernel give": func(t *rapid.T) { ks[which.Draw(t, "port")].give(some.Draw(t, "n"), 60, 0) },
			"kernel give a chain": func(t *rapid.T) {
				k := ks[which.Draw(t, "port")]
				k.give(rapid.IntRange(1, 7).Draw(t, "n"), 1792, unix.XDP_PKT_CONTD)
				if rapid.Bool().Draw(t, "end") {
					k.give(1, rapid.Uint32Range(0, 1792).Draw(t, "last"), 0)
				}
			},
			"kernel lie": func(t *rapid.T) {
				i := which.Draw(t, "port")
				s, k := ss[i], ks[i]
				addr := rapid.Uint64Range(0, 80*2048).Draw(t, "addr")
				if rapid.Bool().Draw(t, "far") {
					addr <<= 40
				}
				if owner := addr >> u.shift; owner < uint64(len(u.held)) && (u.held[owner] == s.rxTag || u.held[owner] == s.txTag) {
					return // that would be the truth
				}
				if k.rx.room(1) == 1 {
					k.rx.push(unix.XDPDesc{Addr: addr, Len: 60})
					k.rx.commit()
					lies += uint64(1)
					drainRx(s, &worker)
				}
				if k.comp.room(1) == 1 {
					k.comp.push(addr)
					k.comp.commit()
					lies++
					s.reap()
				}
			},
		})
		for _, f := range worker {
			pool.Put(f.Base)
		}
		for _, s := range ss {
			if err := s.release(); err != nil {
				t.Fatal(err)
			}
		}
		if pool.Len() != pool.Cap() || pool.Bad() != 0 {
			t.Fatalf("%d of %d frames home, %d returned in error", pool.Len(), pool.Cap(), pool.Bad())
		}
	})
}

func drainRx(s *Socket, worker *[]pmd.Frame) {
	var fs [64]pmd.Frame
	*worker = append(*worker, fs[:s.Rx(fs[:])]...)
}

// TestReceived: what a descriptor may say, and what becomes of its frame.
func TestReceived(t *testing.T) {
	const contd = unix.XDP_PKT_CONTD
	for _, c := range []struct {
		name       string
		ds         []unix.XDPDesc
		got        int
		bad, giant uint64
	}{
		{"a packet", []unix.XDPDesc{{Addr: 256, Len: 60}}, 1, 0, 0},
		{"at an offset", []unix.XDPDesc{{Addr: 2048 + 300, Len: 1748}}, 1, 0, 0},
		{"an empty packet", []unix.XDPDesc{{Addr: 256}}, 1, 0, 0},
		{"out of the chunk", []unix.XDPDesc{{Addr: 256, Len: 1793}}, 0, 1, 0},
		{"a length that wraps", []unix.XDPDesc{{Addr: 256, Len: ^uint32(0)}}, 0, 1, 0},
		{"no headroom", []unix.XDPDesc{{Addr: 255, Len: 60}}, 0, 1, 0},
		{"twice", []unix.XDPDesc{{Addr: 256, Len: 60}, {Addr: 256, Len: 60}}, 1, 1, 0},
		{"out of the memory", []unix.XDPDesc{{Addr: 64 * 2048, Len: 60}, {Addr: ^uint64(0), Len: 60}}, 0, 2, 0},
		{"not lent", []unix.XDPDesc{{Addr: 40*2048 + 256, Len: 60}}, 0, 1, 0},
		{"three buffers and no jumbo frames, then a packet", []unix.XDPDesc{
			{Addr: 256, Len: 1792, Options: contd}, {Addr: 2048 + 256, Len: 1792, Options: contd},
			{Addr: 2*2048 + 256, Len: 9}, {Addr: 3*2048 + 256, Len: 60},
		}, 1, 0, 1},
	} {
		pool, err := pmd.NewPool(&pmd.Memory{Bytes: make([]byte, 64*2048)}, 2048)
		if err != nil {
			t.Fatal(err)
		}
		u, err := NewUMEM(pool)
		if err != nil {
			t.Fatal(err)
		}
		s, k := newPlay(t, u, 0)
		s.refill() // lends chunks 0 to 15
		k.take(16)
		for _, d := range c.ds {
			k.rx.push(d)
		}
		k.rx.commit()
		var fs [16]pmd.Frame
		got := s.Rx(fs[:])
		if st := s.counters.Stats; got != c.got || st.RxPackets != uint64(c.got) || st.BadDesc != c.bad || st.RxGiant != c.giant {
			t.Errorf("%s: %d frames, %+v; want %d, %d bad, %d giant", c.name, got, st, c.got, c.bad, c.giant)
		}
		for _, f := range fs[:got] {
			if len(pool.Bytes(f)) != int(f.Len) {
				t.Errorf("%s: %+v is %d bytes", c.name, f, len(pool.Bytes(f)))
			}
			pool.Put(f.Base)
		}
		u.dismiss(s)
		if pool.Len() != 64 || pool.Bad() != 0 {
			t.Errorf("%s: %d of 64 frames home, %d returned in error", c.name, pool.Len(), pool.Bad())
		}
	}
}

// TestPutOfASentFrame: a worker that returns a frame which the kernel has does
// not make the kernel have it twice.
func TestPutOfASentFrame(t *testing.T) {
	pool, err := pmd.NewPool(&pmd.Memory{Bytes: make([]byte, 64*2048)}, 2048)
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUMEM(pool)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := newPlay(t, u, 0)
	var base [1]uint32
	pool.Get(base[:])
	if s.Tx([]pmd.Frame{{Base: base[0], Off: 256, Len: 60}}) != 1 {
		t.Fatal("not taken")
	}
	pool.Put(base[0])
	s.Flush()
	if u.held[base[0]>>u.shift] != s.txTag || s.counters.BadDesc != 1 {
		t.Errorf("held as %d, %+v", u.held[base[0]>>u.shift], s.counters.Stats)
	}
	u.dismiss(s)
	if pool.Len() != pool.Cap() {
		t.Errorf("%d of %d frames home", pool.Len(), pool.Cap())
	}
}

// TestUMEMSlots: a UMEM has sockets enough, and says when no more.
func TestUMEMSlots(t *testing.T) {
	pool, err := pmd.NewPool(&pmd.Memory{Bytes: make([]byte, 2048)}, 2048)
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUMEM(pool)
	if err != nil {
		t.Fatal(err)
	}
	tags := map[tag]bool{notLent: true}
	var last *Socket
	for range maxSockets {
		last = &Socket{}
		if err := u.admit(last); err != nil {
			t.Fatal(err)
		}
		if tags[last.rxTag] || tags[last.txTag] {
			t.Fatalf("tags %d and %d are taken", last.rxTag, last.txTag)
		}
		tags[last.rxTag], tags[last.txTag] = true, true
	}
	if err := u.admit(&Socket{}); err == nil {
		t.Error("one socket too many")
	}
	u.dismiss(last)
	if err := u.admit(&Socket{}); err != nil {
		t.Errorf("no slot after one was freed: %v", err)
	}
}
