package sad

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spigot/internal/counter"
)

const (
	none = counter.None
	old  = counter.ReplayOld
	seen = counter.ReplaySeen
)

func windowed(size int, esn bool) func(*Params) {
	return func(p *Params) { p.Window, p.ESN = size, esn }
}

// step is a packet that arrives: its low 32 bits, the number that they stand
// for, and what becomes of it.
type step struct {
	seq  uint32
	full uint64
	want counter.Reason
}

// receive runs the two steps that a packet goes through.
func receive(sa *Inbound, seq uint32) (uint64, counter.Reason) {
	full, r := sa.Check(seq)
	if r == none {
		r = sa.Mark(full)
	}
	return full, r
}

func TestWindowWithoutESN(t *testing.T) {
	const last = math.MaxUint32
	rows := []struct {
		name   string
		window int
		steps  []step
	}{
		{"0 is never sent", 64, []step{{0, 0, old}, {1, 1, none}, {0, 0, old}}},
		{"in order", 64, []step{{1, 1, none}, {2, 2, none}, {3, 3, none}}},
		{"twice", 64, []step{{1, 1, none}, {1, 1, seen}, {2, 2, none}, {1, 1, seen}, {2, 2, seen}}},
		{"out of order", 64, []step{{9, 9, none}, {7, 7, none}, {8, 8, none}, {7, 7, seen}, {1, 1, none}}},
		{"left edge", 64, []step{{64, 64, none}, {1, 1, none}, {66, 66, none}, {2, 2, old}, {3, 3, none}, {3, 3, seen}}},
		{"just inside and just outside", 64, []step{{1000, 1000, none}, {937, 937, none}, {936, 936, old}, {937, 937, seen}}},
		{"rounded up to 96", 65, []step{{1000, 1000, none}, {905, 905, none}, {904, 904, old}}},
		{"raised to 64", 1, []step{{1000, 1000, none}, {937, 937, none}, {936, 936, old}}},
		{"raised to 64 from 32", 32, []step{{1000, 1000, none}, {937, 937, none}, {936, 936, old}}},
		{"1024", 1024, []step{{5000, 5000, none}, {3977, 3977, none}, {3976, 3976, old}}},
		{"131072", 131072, []step{{200000, 200000, none}, {68929, 68929, none}, {68928, 68928, old}, {199999, 199999, none}}},
		{"131072 from the start", 131072, []step{{131072, 131072, none}, {1, 1, none}, {131073, 131073, none}, {1, 1, old}, {2, 2, none}}},
		{"a jump leaves nothing behind", 64, []step{{5, 5, none}, {5 + 128, 133, none}, {5 + 128*100, 12805, none}, {5, 5, old},
			{133, 133, old}, {12804, 12804, none}, {12741, 12741, old}, {12742, 12742, none}}},
		{"a jump by a whole ring", 64, []step{{16, 16, none}, {16 + 128, 144, none}, {144, 144, seen}, {145, 145, none}, {143, 143, none}}},
		{"up to the last, which does not wrap", 64, []step{{last - 1, last - 1, none}, {last, last, none}, {last, last, seen},
			{1, 1, old}, {0, 0, old}, {last - 63, last - 63, none}, {last - 64, last - 64, old}}},
	}
	for _, r := range rows {
		sa := inbound(t, windowed(r.window, false))
		for i, s := range r.steps {
			if full, got := receive(sa, s.seq); full != s.full || got != s.want {
				t.Errorf("%s, step %d: %d is %d, %v; want %d, %v", r.name, i, s.seq, full, got, s.full, s.want)
			}
		}
	}
}

// RFC 4303, appendix A2.2: case A, the window lies in one 2^32 subspace; case
// B, it spans two. Both sides of each comparison.
func TestWindowWithESN(t *testing.T) {
	const sub = 1 << 32
	rows := []struct {
		name   string
		window int
		top    uint64 // received before
		steps  []step
	}{
		{"A: Seql >= Tl-W+1 is in Th", 64, 5*sub + 1000, []step{
			{937, 5*sub + 937, none}, {937, 5*sub + 937, seen}, {1000, 5*sub + 1000, seen}, {1001, 5*sub + 1001, none}}},
		{"A: Seql < Tl-W+1 is in Th+1", 64, 5*sub + 1000, []step{
			{936, 6*sub + 936, none}, {936, 6*sub + 936, seen}, {937, 6*sub + 937, none}}},
		{"A: the left edge at 0", 64, 5*sub + 63, []step{
			{0, 5 * sub, none}, {0, 5 * sub, seen}, {sub - 1, 6*sub - 1, none}}},
		{"A: over the edge", 64, 6*sub - 1, []step{
			{0, 6 * sub, none}, {sub - 1, 6*sub - 1, seen}, {sub - 2, 6*sub - 2, none}, {1, 6*sub + 1, none}, {0, 6 * sub, seen}}},
		{"A: from 0 to 1", 64, sub - 1, []step{
			{0, sub, none}, {sub - 63, sub - 63, none}, {sub - 64, 2*sub - 64, none}}},
		{"B: Seql >= Tl-W+1 is in Th-1", 64, 5*sub + 62, []step{
			{sub - 1, 5*sub - 1, none}, {sub - 1, 5*sub - 1, seen}}},
		{"B: Seql < Tl-W+1 is in Th", 64, 5*sub + 62, []step{
			{sub - 2, 6*sub - 2, none}}},
		{"B: at the beginning of a subspace", 64, 5 * sub, []step{
			{sub - 63, 5*sub - 63, none}, {sub - 1, 5*sub - 1, none}, {sub - 64, 6*sub - 64, none}}},
		{"B: before the first subspace there is nothing", 64, 1, []step{
			{sub - 1, math.MaxUint64, old}, {sub - 62, math.MaxUint64 - 61, old}, {sub - 63, sub - 63, none}}},
		{"0 is never sent", 64, 1, []step{{0, 0, old}, {2, 2, none}}},
		{"the largest window, B", 131072, 5*sub + 131070, []step{
			{sub - 1, 5*sub - 1, none}, {0, 5 * sub, none}, {sub - 2, 6*sub - 2, none}}},
		{"the largest window, A", 131072, 5*sub + 131071, []step{
			{0, 5 * sub, none}, {0, 5 * sub, seen}, {sub - 1, 6*sub - 1, none}}},
		{"the last number of all", 64, math.MaxUint64 - 1, []step{
			{sub - 1, math.MaxUint64, none}, {sub - 1, math.MaxUint64, seen}, {sub - 64, math.MaxUint64 - 63, none},
			{sub - 65, sub - 65, old}, {0, 0, old}, {1, 1, old}}},
	}
	for _, r := range rows {
		sa := inbound(t, windowed(r.window, true))
		if got := sa.Mark(r.top); got != none {
			t.Errorf("%s: the first packet is %v", r.name, got)
		}
		for i, s := range r.steps {
			full, got := receive(sa, s.seq)
			if got != s.want || got != old && full != s.full {
				t.Errorf("%s, step %d: %#x is %#x, %v; want %#x, %v", r.name, i, s.seq, full, got, s.full, s.want)
			}
		}
	}
}

// RFC 4303, appendix A2.1 and A2.2, for a window of any size: the two cases, both
// sides of each comparison, and what lies at the edges of a subspace. W is the
// size, T the right edge; numbers are T's 2^32 subspace (5) and an offset.
func TestWindowOfAnySizeWithESN(t *testing.T) {
	const sub = uint64(1) << 32
	for _, w := range []uint64{64, 1024, 131072} {
		rows := []struct {
			name string
			top  uint64
			full uint64 // what a packet with its low half stands for
			want counter.Reason
		}{
			{"A: T itself", 5*sub + 2*w, 5*sub + 2*w, seen},
			{"A: Seql = Tl-W+1, the left edge, is in Th", 5*sub + 2*w, 5*sub + w + 1, none},
			{"A: Seql = Tl-W, left of it, is in Th+1", 5*sub + 2*w, 6*sub + w, none},
			{"A: Seql = Tl+1", 5*sub + 2*w, 5*sub + 2*w + 1, none},
			{"A: Seql = 2^32-1", 5*sub + 2*w, 6*sub - 1, none},
			{"A: Seql = 0 is in Th+1", 5*sub + 2*w, 6 * sub, none},
			{"A, Tl = W-1: Seql = 0 is the left edge, in Th", 5*sub + w - 1, 5 * sub, none},
			{"A, Tl = W-1: Seql = 2^32-1 is in Th", 5*sub + w - 1, 6*sub - 1, none},
			{"A, Tl = 2^32-1: Seql = 0 is in Th+1", 6*sub - 1, 6 * sub, none},
			{"A, Tl = 2^32-1: the left edge", 6*sub - 1, 6*sub - w, none},
			{"A, Tl = 2^32-1: left of it is in Th+1", 6*sub - 1, 7*sub - w - 1, none},
			{"B: Seql = Tl-W+1, the left edge, is in Th-1", 5*sub + w/2, 5*sub + w/2 - w + 1, none},
			{"B: Seql = Tl-W, left of it, is in Th", 5*sub + w/2, 6*sub + w/2 - w, none},
			{"B: Seql = 2^32-1 is in Th-1", 5*sub + w/2, 5*sub - 1, none},
			{"B: Seql = 0 is in Th", 5*sub + w/2, 5 * sub, none},
			{"B: Seql = Tl+1 is in Th", 5*sub + w/2, 5*sub + w/2 + 1, none},
			{"B, Tl = W-2, the last of it: Seql = 2^32-1 is the left edge", 5*sub + w - 2, 5*sub - 1, none},
			{"B, Tl = W-2: Seql = 2^32-2 is in Th", 5*sub + w - 2, 6*sub - 2, none},
			{"B, Tl = 0: the left edge is in Th-1", 5 * sub, 5*sub - w + 1, none},
			{"B, Tl = 0: left of it is in Th", 5 * sub, 6*sub - w, none},
			{"B, Th = 0: there is no subspace before", w / 2, w/2 - w + 1, old},
		}
		for _, r := range rows {
			sa := inbound(t, windowed(int(w), true))
			if got := sa.Mark(r.top); got != none {
				t.Fatalf("W = %d: %s: T is %v", w, r.name, got)
			}
			full, got := receive(sa, uint32(r.full))
			if got != r.want || got != old && full != r.full {
				t.Errorf("W = %d: %s: %#x is %#x, %v; want %#x, %v", w, r.name, uint32(r.full), full, got, r.full, r.want)
			}
			if top := max(r.top, r.full); got == none && sa.Seq() != top {
				t.Errorf("W = %d: %s: the right edge is at %#x, want %#x", w, r.name, sa.Seq(), top)
			}
			if full, again := receive(sa, uint32(r.full)); got == none && (full != r.full || again != seen) {
				t.Errorf("W = %d: %s: again, %#x is %#x, %v", w, r.name, uint32(r.full), full, again)
			}
		}
	}
}

// Blocks whose numbers agree in their low bits are still different blocks: a
// word that was not touched for long says nothing about the present.
func TestWindowDoesNotConfuseDistantBlocks(t *testing.T) {
	for shift := 7; shift < 52; shift++ {
		sa := inbound(t, windowed(64, true))
		first := uint64(1000)
		far := first + 1<<shift
		for _, n := range []uint64{first, far + 32, far} {
			if r := sa.Mark(n); r != none {
				t.Errorf("2^%d on: %d is %v", shift, n, r)
			}
		}
		if r := sa.Mark(far); r != seen {
			t.Errorf("2^%d on: %d again is %v", shift, far, r)
		}
		if r := sa.Mark(first); r != old {
			t.Errorf("2^%d back: %d again is %v", shift, first, r)
		}
	}
}

func TestCheckChangesNothing(t *testing.T) {
	for _, esn := range []bool{false, true} {
		sa := inbound(t, windowed(128, esn))
		for n := uint64(1); n <= 500; n += 3 {
			sa.Mark(n)
		}
		top := sa.Seq()
		words := make([]uint64, len(sa.window.words))
		for i := range words {
			words[i] = sa.window.words[i].Load()
		}
		for range 10_000 { // a flood of forged packets, far ahead and all over
			sa.Check(rand.Uint32())
		}
		if sa.Seq() != top {
			t.Errorf("ESN %v: Check moved the window from %d to %d", esn, top, sa.Seq())
		}
		for i := range words {
			if sa.window.words[i].Load() != words[i] {
				t.Errorf("ESN %v: Check changed word %d", esn, i)
			}
		}
	}
}

func TestNoReplayCheck(t *testing.T) {
	sa := inbound(t, windowed(0, false))
	for _, seq := range []uint32{5, 5, 1, 0, math.MaxUint32, 1} {
		if full, r := receive(sa, seq); full != uint64(seq) || r != none {
			t.Errorf("window 0: %d is %d, %v", seq, full, r)
		}
	}
}

// set is the window as RFC 4303 words it: a set of numbers, a right edge and a size.
type set struct {
	size, top uint64
	seen      map[uint64]bool
}

func (s *set) receive(n uint64) counter.Reason {
	switch {
	case n == 0 || n <= s.top && s.top-n >= s.size:
		return old
	case s.seen[n]:
		return seen
	}
	s.seen[n] = true
	s.top = max(s.top, n)
	return none
}

// extend tries the three subspaces around the window's right edge for the one
// number that lies between the left edge and 2^32 on.
func (s *set) extend(low uint32) (uint64, bool) {
	for d := int64(-1); d <= 1; d++ {
		ahead := d<<32 + int64(low) - int64(uint32(s.top))
		if -int64(s.size) < ahead && ahead <= 1<<32-int64(s.size) {
			n := s.top + uint64(ahead)
			return n, (n > s.top) == (ahead > 0)
		}
	}
	return 0, false
}

func TestWindowEqualsASet(t *testing.T) {
	const sub = 1 << 32
	sizes := []int{64, 96, 128, 1024, 4096, 131072}
	starts := []uint64{1, sub / 2, sub - 10_000, 2*sub - 1, 77*sub + 500, math.MaxUint64 - 10_000}
	const steps = 10_000_000
	total, accepted := 0, 0
	for _, size := range sizes {
		for _, start := range starts {
			for _, esn := range []bool{false, true} {
				start := start
				if !esn {
					start = uint64(uint32(start))
				}
				rnd := rand.New(rand.NewPCG(start, uint64(size)))
				a, n := againstSet(t, rnd, size, esn, start, steps/60)
				total, accepted = total+n, accepted+a
			}
		}
	}
	if total < steps {
		t.Errorf("only %d packets sent", total)
	}
	if accepted < total/4 || accepted > total*3/4 {
		t.Errorf("%d of %d packets accepted: the traffic is not telling", accepted, total)
	}
}

// againstSet sends n packets to a window and to a set.
func againstSet(t *testing.T, rnd *rand.Rand, size int, esn bool, start uint64, n int) (accepted, sent int) {
	sa := inbound(t, windowed(size, esn))
	oracle := &set{size: uint64(size), seen: map[uint64]bool{}}
	if sa.Mark(start) != oracle.receive(start) {
		t.Fatalf("window %d: first packet %d", size, start)
	}
	for range n {
		seq := nextSeq(rnd, oracle)
		want, ok := uint64(seq), true
		if esn {
			want, ok = oracle.extend(seq)
		}
		if rnd.IntN(8) == 0 { // forged: checked, never marked
			sa.Check(seq)
			continue
		}
		sent++
		wanted := old
		top := oracle.top
		if ok {
			wanted = oracle.receive(want)
		}
		full, got := receive(sa, seq)
		if got != wanted || ok && full != want {
			t.Fatalf("window %d, ESN %v, top %#x: %#x is %#x, %v; want %#x, %v", size, esn, top, seq, full, got, want, wanted)
		}
		if got == none {
			accepted++
		}
		if sa.Seq() != oracle.top {
			t.Fatalf("window %d, ESN %v: top %#x, want %#x", size, esn, sa.Seq(), oracle.top)
		}
	}
	return accepted, sent
}

// nextSeq draws a packet: the next one, one within or about the window, one a
// little or far ahead, or any.
func nextSeq(rnd *rand.Rand, s *set) uint32 {
	top := uint32(s.top)
	switch k := rnd.IntN(1000); {
	case k < 450:
		return top + 1
	case k < 700:
		return top - rnd.Uint32N(uint32(s.size)+3)
	case k < 850:
		return top - rnd.Uint32N(20)
	case k < 990:
		return top + rnd.Uint32N(uint32(s.size)/8)
	case k < 996:
		return top + rnd.Uint32N(4*uint32(s.size))
	case k < 998:
		return rnd.Uint32N(3)
	case s.top>>32 == 0 && top > 1<<31: // without ESN the numbers must last
		return top
	default:
		return top + rnd.Uint32N(1<<25)
	}
}

// lockstep runs round after round of f on several workers that start each
// round at the same moment, then check on one of them. Half a second is
// enough, however many rounds that makes on a busy machine.
func lockstep(workers, rounds int, f func(worker, round int), check func(round int)) {
	var arrived atomic.Int64
	meet := func(n int64) {
		arrived.Add(1)
		for spin := 1; arrived.Load() < n*int64(workers); spin++ {
			if spin%1000 == 0 {
				runtime.Gosched()
			}
		}
	}
	end := time.Now().Add(500 * time.Millisecond)
	var late atomic.Bool
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for r := 0; r < rounds && !late.Load(); r++ {
				meet(3*int64(r) + 1)
				f(w, r)
				meet(3*int64(r) + 2)
				if w == 0 {
					check(r)
					late.Store(time.Now().After(end))
				}
				meet(3*int64(r) + 3)
			}
		})
	}
	wg.Wait()
}

// Two workers that receive the same packets at the same moment accept each
// exactly once, also when the numbers lie in one word and when the word is
// still that of an older block.
func TestMarkBySeveralExactlyOnce(t *testing.T) {
	const rounds, burst = 10_000, 12
	for _, r := range []struct {
		name  string
		esn   bool
		start uint64
	}{
		{"from the start", false, 0},
		{"over 2^32", true, 1<<32 - rounds*burst/2},
	} {
		sa := inbound(t, windowed(64, r.esn))
		if r.start > 0 {
			sa.Mark(r.start)
		}
		var accepted [burst]atomic.Int32
		lockstep(2, rounds, func(worker, round int) {
			for i := range burst {
				if worker == 1 { // the other way round, or in the same order
					i ^= round % 4
				}
				full, reason := sa.Check(uint32(r.start) + uint32(round*burst+i+1))
				if full != r.start+uint64(round*burst+i+1) {
					t.Errorf("%s: packet %d is %d", r.name, i, full)
				}
				if reason == none {
					reason = sa.Mark(full)
				}
				if reason == none {
					accepted[i].Add(1)
				} else if reason != seen {
					t.Errorf("%s: packet %d is %v", r.name, i, reason)
				}
			}
		}, func(round int) {
			for i := range accepted {
				if n := accepted[i].Swap(0); n != 1 {
					t.Errorf("%s, round %d: packet %d accepted %d times", r.name, round, i, n)
				}
			}
			if want := r.start + uint64((round+1)*burst); sa.Seq() != want {
				t.Errorf("%s, round %d: right edge %d, want %d", r.name, round, sa.Seq(), want)
			}
		})
	}
}

// Two workers with packets of one block, each packet at one of them only: no
// mark of the one wipes out one of the other, and the window does not go back.
func TestMarkBySeveralLosesNothing(t *testing.T) {
	sa := inbound(t, windowed(64, true))
	lockstep(2, 20_000, func(worker, round int) {
		base := uint64(round+1) * 160 // the same word again every fourth round
		for i := range uint64(8) {
			if r := sa.Mark(base + 2*i + uint64(worker)); r != none {
				t.Errorf("round %d: %d is %v", round, i, r)
			}
		}
	}, func(round int) {
		base := uint64(round+1) * 160
		if sa.Seq() != base+15 {
			t.Errorf("round %d: right edge %d, want %d", round, sa.Seq(), base+15)
		}
		for i := range uint64(16) {
			if r := sa.Mark(base + i); r != seen {
				t.Errorf("round %d: %d again is %v", round, i, r)
			}
		}
	})
}

// Workers that race each other through a small window accept nothing twice,
// although each leaves the others' numbers behind all the time.
func TestMarkBySeveralAtMostOnce(t *testing.T) {
	const workers, packets = 4, 60_000
	for _, esn := range []bool{false, true} {
		start := uint64(0)
		if esn {
			start = 1<<33 - packets/2
		}
		sa := inbound(t, windowed(64, esn))
		if esn {
			sa.Mark(start)
		}
		var accepted [packets]atomic.Int32
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(7, uint64(w)))
				for range packets {
					// About the right edge, where all the others are.
					n := sa.Seq() - start + uint64(rnd.IntN(30))
					n -= min(n, uint64(rnd.IntN(25)))
					if n >= packets {
						return
					}
					if sa.Mark(start+n) == none {
						accepted[n].Add(1)
					}
				}
			})
		}
		wg.Wait()
		distinct := 0
		for i := range accepted {
			switch n := accepted[i].Load(); {
			case n > 1:
				t.Fatalf("ESN %v: packet %d accepted %d times", esn, i, n)
			case n == 1:
				distinct++
			}
		}
		if distinct < packets/10 {
			t.Errorf("ESN %v: only %d packets accepted", esn, distinct)
		}
	}
}

func TestWindowAllocatesNothing(t *testing.T) {
	sa := inbound(t, windowed(1024, true))
	seq := uint32(0)
	if n := testing.AllocsPerRun(1000, func() { seq += 3; receive(sa, seq) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReceive(b *testing.B) {
	sa := inbound(b, windowed(1024, true))
	for i := range b.N {
		if _, r := receive(sa, uint32(i+1)); r != none {
			b.Fatal(r)
		}
	}
}
