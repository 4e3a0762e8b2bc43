package ring

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

func TestSizes(t *testing.T) {
	for _, size := range []int{1, 2, 4, 1024} {
		if got := New[int](size).Cap(); got != size {
			t.Errorf("New(%d).Cap() = %d", size, got)
		}
	}
	for _, size := range []int{-1, 0, 3, 12, 1023} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New(%d) does not panic", size)
				}
			}()
			New[int](size)
		}()
	}
}

func TestBatches(t *testing.T) {
	r := New[int](4)
	rows := []struct {
		push   []int
		pushed int
		pop    int
		popped []int
		left   int
	}{
		{nil, 0, 0, nil, 0},
		{nil, 0, 3, nil, 0},
		{[]int{1}, 1, 3, []int{1}, 0},
		{[]int{2, 3, 4}, 3, 2, []int{2, 3}, 1},
		{[]int{5, 6, 7, 8}, 3, 0, nil, 4}, // around the end of the slots, and full
		{[]int{8}, 0, 0, nil, 4},
		{nil, 0, 9, []int{4, 5, 6, 7}, 0}, // around the end, and more than there are
		{[]int{8, 9, 10, 11, 12, 13, 14, 15, 16}, 4, 1, []int{8}, 3},
		{[]int{12}, 1, 4, []int{9, 10, 11, 12}, 0},
	}
	for i, row := range rows {
		if got := r.Push(row.push); got != row.pushed {
			t.Errorf("row %d: Push(%v) = %d, want %d", i, row.push, got, row.pushed)
		}
		vs := make([]int, row.pop)
		if n := r.Pop(vs); !slices.Equal(vs[:n], row.popped) {
			t.Errorf("row %d: Pop of %d gives %v, want %v", i, row.pop, vs[:n], row.popped)
		}
		if r.Len() != row.left {
			t.Errorf("row %d: Len %d, want %d", i, r.Len(), row.left)
		}
	}
}

// A ring equals a slice, whatever the batches, also when the indices wrap
// around their 64 bits.
func TestRingEqualsASlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := 1 << rapid.IntRange(0, 5).Draw(t, "size")
		r := New[*int](size)
		start := rapid.SampledFrom([]uint64{0, 1, 1 << 32, -uint64(size), math.MaxUint64}).Draw(t, "start")
		r.tail.Store(start)
		r.head.Store(start)
		r.headSeen, r.tailSeen = start, start
		var model []*int
		batch := rapid.IntRange(0, size+2)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				vs := make([]*int, batch.Draw(t, "batch"))
				for i := range vs {
					vs[i] = new(int)
				}
				n := r.Push(vs)
				if want := min(len(vs), size-len(model)); n != want {
					t.Fatalf("pushed %d of %d to %d/%d, want %d", n, len(vs), len(model), size, want)
				}
				model = append(model, vs[:n]...)
			},
			"pop": func(t *rapid.T) {
				stay := new(int)
				vs := slices.Repeat([]*int{stay}, batch.Draw(t, "batch"))
				n := r.Pop(vs)
				if want := min(len(vs), len(model)); n != want || !slices.Equal(vs[:n], model[:n]) {
					t.Fatalf("popped %d of %d from %d, want %d, or other values", n, len(vs), len(model), want)
				}
				if slices.ContainsFunc(vs[n:], func(v *int) bool { return v != stay }) {
					t.Fatal("Pop wrote beyond what it returned")
				}
				model = model[n:]
			},
			"": func(t *rapid.T) {
				if r.Len() != len(model) {
					t.Fatalf("Len %d, want %d", r.Len(), len(model))
				}
				held := 0
				for _, v := range r.slots {
					if v != nil {
						held++
					}
				}
				if held != len(model) {
					t.Fatalf("the ring keeps %d values alive, want %d", held, len(model))
				}
			},
		})
	})
}

// Between two goroutines nothing is lost, doubled or reordered; what the
// producer wrote before Push, the consumer sees (the race detector watches).
func TestTwoGoroutines(t *testing.T) {
	const total = 50_000
	for _, size := range []int{1, 8, 256} {
		r := New[*int](size)
		var wg sync.WaitGroup
		wg.Go(func() {
			for next, batch := 0, 1; next < total; batch = batch%13 + 1 {
				vs := make([]*int, min(batch, total-next))
				for i := range vs {
					v := next + i
					vs[i] = &v
				}
				n := r.Push(vs)
				if next += n; n == 0 {
					runtime.Gosched()
				}
				if l := r.Len(); l < 0 || l > size {
					t.Errorf("size %d: Len is %d to the producer", size, l)
				}
			}
		})
		vs := make([]*int, 17)
		for next, batch := 0, 1; next < total; batch = batch%len(vs) + 1 {
			n := r.Pop(vs[:batch])
			for _, v := range vs[:n] {
				if *v != next {
					t.Fatalf("size %d: got %d, want %d", size, *v, next)
				}
				next++
			}
			if n == 0 {
				runtime.Gosched()
			}
			if l := r.Len(); l < 0 || l > size {
				t.Fatalf("size %d: Len is %d to the consumer", size, l)
			}
		}
		wg.Wait()
		if n := r.Pop(vs); n != 0 || r.Len() != 0 {
			t.Errorf("size %d: %d values too many", size, n)
		}
	}
}

// Neither side writes to a cache line that the other one writes to, nor to
// that of slots and mask, wherever the allocator puts the ring.
func TestSidesHaveTheirOwnCacheLines(t *testing.T) {
	var r SPSC[int]
	const word, line = 8, 64
	ends := []uintptr{unsafe.Offsetof(r.mask) + word, unsafe.Offsetof(r.headSeen) + word, unsafe.Offsetof(r.tailSeen) + word}
	starts := []uintptr{unsafe.Offsetof(r.tail), unsafe.Offsetof(r.head), unsafe.Sizeof(r)}
	for i := range ends {
		if starts[i] < ends[i]+line-word {
			t.Errorf("part %d ends at %d, the next starts at %d: less than a cache line apart", i, ends[i], starts[i])
		}
	}
}

func TestNoAllocations(t *testing.T) {
	r := New[[4]uint64](64)
	vs := make([][4]uint64, 48)
	if n := testing.AllocsPerRun(100, func() { r.Push(vs); r.Pop(vs) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPushPop(b *testing.B) {
	for _, batch := range []int{0, 1, 32} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			r := New[uint64](64)
			vs := make([]uint64, batch)
			for b.Loop() {
				r.Push(vs)
				r.Pop(vs)
			}
		})
	}
}
