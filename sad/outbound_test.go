package sad

import (
	"math"
	"math/bits"
	"sync"
	"testing"
)

func TestReserve(t *testing.T) {
	const end32, end64 = math.MaxUint32, math.MaxUint64
	rows := []struct {
		name    string
		esn     bool
		seq     uint64 // given out before
		n       int
		first   uint64
		granted int
		after   uint64
	}{
		{"the first number is 1", false, 0, 1, 1, 1, 1},
		{"a run", false, 0, 64, 1, 64, 64},
		{"the next run", false, 64, 32, 65, 32, 96},
		{"none", false, 5, 0, 0, 0, 5},
		{"less than none", false, 5, -3, 0, 0, 5},
		{"beyond the middle", false, 1 << 31, 64, 1<<31 + 1, 64, 1<<31 + 64},
		{"up to the last", false, end32 - 64, 64, end32 - 63, 64, end32},
		{"what is left", false, end32 - 10, 64, end32 - 9, 10, end32},
		{"the last", false, end32 - 1, 1, end32, 1, end32},
		{"after the last", false, end32, 1, 0, 0, end32},
		{"after the last, by a late add", false, end32 + 100, 1, 0, 0, end32},
		{"more than there are", false, 0, math.MaxInt, 1, end32, end32},
		{"as many as fit the fast way", false, 1<<31 - 2, math.MaxInt32, 1<<31 - 1, math.MaxInt32, end32 - 2},
		{"ESN goes on at 2^32", true, end32 - 10, 64, end32 - 9, 64, end32 + 54},
		{"ESN beyond the middle", true, 1 << 63, 64, 1<<63 + 1, 64, 1<<63 + 64},
		{"ESN, what is left", true, end64 - 10, 64, end64 - 9, 10, end64},
		{"ESN, after the last", true, end64, 64, 0, 0, end64},
	}
	for _, r := range rows {
		sa := outbound(t, func(p *Params) { p.ESN = r.esn })
		sa.seq.Store(r.seq)
		first, granted := sa.Reserve(r.n)
		if first != r.first || granted != r.granted || sa.Seq() != r.after {
			t.Errorf("%s: Reserve(%d) = %d, %d and Seq %d; want %d, %d and %d",
				r.name, r.n, first, granted, sa.Seq(), r.first, r.granted, r.after)
		}
	}
}

// An add that was decided on long ago arrives when the numbers are used up.
func TestReserveLateAdd(t *testing.T) {
	sa := outbound(t)
	for _, r := range []struct {
		first, n uint64
		want     uint64
		granted  int
	}{
		{math.MaxUint32 - 1, 64, math.MaxUint32 - 1, 2},
		{math.MaxUint32, 64, math.MaxUint32, 1},
		{math.MaxUint32 + 1, 64, 0, 0},
		{math.MaxUint32 - 63, 64, math.MaxUint32 - 63, 64},
	} {
		if first, granted := sa.grant(r.first, r.n); first != r.want || granted != r.granted {
			t.Errorf("grant(%d, %d) = %d, %d; want %d, %d", r.first, r.n, first, granted, r.want, r.granted)
		}
	}
}

// Workers that share an SA get every number once, up to the last, and none after.
func TestReserveBySeveral(t *testing.T) {
	const workers, left = 4, 100_003
	for _, r := range []struct {
		name string
		esn  bool
		from uint64
	}{
		{"from the start", false, 0},
		{"over the middle", false, math.MaxUint32/2 - left/2},
		{"to the end", false, math.MaxUint32 - left},
		{"ESN over 2^32", true, math.MaxUint32 - left/2},
		{"ESN to the end", true, math.MaxUint64 - left},
	} {
		sa := outbound(t, func(p *Params) { p.ESN = r.esn })
		sa.seq.Store(r.from)
		given := make([][]uint64, workers) // bit sets
		var wg sync.WaitGroup
		for w := range given {
			given[w] = make([]uint64, left/64+2)
			wg.Go(func() {
				for n := 1; ; n = n%64 + 1 {
					first, granted := sa.Reserve(n)
					if granted > 0 && (first <= r.from || granted > n) {
						t.Errorf("%s: Reserve(%d) = %d, %d", r.name, n, first, granted)
						return
					}
					at := first - r.from - 1
					for i := at; i < at+uint64(granted) && i < left; i++ {
						given[w][i/64] |= 1 << (i % 64)
					}
					if granted == 0 || at >= left {
						return
					}
				}
			})
		}
		wg.Wait()

		total := 0
		for i := range given[0] {
			var all uint64
			for w := range given {
				if all&given[w][i] != 0 {
					t.Fatalf("%s: numbers given out twice", r.name)
				}
				all |= given[w][i]
			}
			total += bits.OnesCount64(all)
		}
		if total != left {
			t.Errorf("%s: %d of %d numbers given out", r.name, total, left)
		}
	}
}

// A sender that goes on for years after the end must not start again at 1.
func TestReserveStaysExhausted(t *testing.T) {
	for _, esn := range []bool{false, true} {
		sa := outbound(t, func(p *Params) { p.ESN = esn })
		sa.seq.Store(sa.last)
		for range 1000 {
			if _, granted := sa.Reserve(math.MaxInt); granted != 0 {
				t.Fatalf("ESN %v: granted %d after the last", esn, granted)
			}
		}
		if got := sa.seq.Load(); got != sa.last {
			t.Errorf("ESN %v: the counter moved on to %d", esn, got)
		}
	}
}

func TestReserveAllocatesNothing(t *testing.T) {
	sa := outbound(t)
	if n := testing.AllocsPerRun(100, func() { sa.Reserve(64); sa.Count(64, 6400); sa.Seq() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReserve(b *testing.B) {
	sa := outbound(b, func(p *Params) { p.ESN = true })
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			sa.Reserve(32)
		}
	})
}
