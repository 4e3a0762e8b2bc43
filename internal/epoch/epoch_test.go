package epoch

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// The life of one retired object: what the readers do before and after Retire,
// and whether Reap frees it.
func TestRetire(t *testing.T) {
	online, offline, quiesce := (*Reader).Online, (*Reader).Offline, (*Reader).Quiesce
	type steps = []func(*Reader)
	rows := []struct {
		name          string
		before, after steps // of the one reader
		freed         bool
	}{
		{"a reader that never went online", nil, nil, true},
		{"a reader that is offline", steps{online, quiesce, offline}, nil, true},
		{"a reader that goes online later takes nothing old", nil, steps{online}, true},
		{"a reader in its turn", steps{online}, nil, false},
		{"a reader in a later turn of its", steps{online, quiesce, quiesce}, nil, false},
		{"a reader that ends its turn", steps{online}, steps{quiesce}, true},
		{"a reader that ends several", steps{online, quiesce}, steps{quiesce, quiesce}, true},
		{"a reader that goes offline", steps{online}, steps{offline}, true},
		{"a reader that sleeps and comes back", steps{online}, steps{offline, online}, true},
	}
	for _, r := range rows {
		var d Domain
		reader, freed := d.Register(), 0
		for _, step := range r.before {
			step(reader)
		}
		d.Retire(func() { freed++ })
		if freed != 0 {
			t.Errorf("%s: Retire itself frees", r.name)
		}
		for _, step := range r.after {
			step(reader)
		}
		left := d.Reap()
		if (freed == 1) != r.freed || (left == 0) != r.freed {
			t.Errorf("%s: freed %d times, %d left; want freed: %v", r.name, freed, left, r.freed)
		}
		reader.Quiesce()
		reader.Quiesce()
		if d.Reap(); freed > 1 {
			t.Errorf("%s: freed %d times", r.name, freed)
		}
	}
}

func TestWithoutReaders(t *testing.T) {
	var d Domain
	freed := false
	d.Retire(func() { freed = true })
	if left := d.Reap(); left != 0 || !freed {
		t.Errorf("%d left", left)
	}
}

// One reader that never passes holds back what was retired while it ran, and
// nothing that was retired when it was offline.
func TestStuckReader(t *testing.T) {
	var d Domain
	stuck, other := d.Register(), d.Register()
	other.Online()
	var freed []string
	d.Retire(func() { freed = append(freed, "before") })
	stuck.Online()
	d.Retire(func() { freed = append(freed, "during") })
	for range 1000 {
		other.Quiesce()
		d.Reap()
	}
	if !slices.Equal(freed, []string{"before"}) {
		t.Errorf("freed %v under a reader that is stuck", freed)
	}
	stuck.Offline()
	if left := d.Reap(); left != 0 || !slices.Equal(freed, []string{"before", "during"}) {
		t.Errorf("freed %v, %d left", freed, left)
	}
}

func TestFreeMayRetire(t *testing.T) {
	var d Domain
	r := d.Register()
	r.Online()
	var freed []int
	d.Retire(func() {
		freed = append(freed, 1)
		d.Retire(func() { freed = append(freed, 3) })
	})
	d.Retire(func() { freed = append(freed, 2) })
	r.Quiesce()
	if left := d.Reap(); left != 1 || !slices.Equal(freed, []int{1, 2}) {
		t.Errorf("freed %v, %d left; want 1 2, and 1 left", freed, left)
	}
	r.Quiesce()
	if left := d.Reap(); left != 0 || !slices.Equal(freed, []int{1, 2, 3}) {
		t.Errorf("freed %v, %d left; want 1 2 3", freed, left)
	}
}

// The rule itself is the oracle: an object is free once each reader that was
// online when it was retired has been without references at some moment since.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d Domain
		readers := make([]*Reader, rapid.IntRange(0, 3).Draw(t, "readers"))
		online := make([]bool, len(readers))
		for i := range readers {
			readers[i] = d.Register()
		}
		type object struct {
			holders map[int]bool
			freed   int
		}
		var objects []*object
		pass := func(i int) {
			for _, o := range objects {
				delete(o.holders, i)
			}
		}
		// step has one of the readers that are in the state do f.
		step := func(t *rapid.T, state bool, f func(i int)) {
			var fit []int
			for i := range readers {
				if online[i] == state {
					fit = append(fit, i)
				}
			}
			if len(fit) > 0 {
				f(rapid.SampledFrom(fit).Draw(t, "reader"))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"online": func(t *rapid.T) {
				step(t, false, func(i int) {
					readers[i].Online()
					online[i] = true
				})
			},
			"quiesce": func(t *rapid.T) {
				step(t, true, func(i int) {
					readers[i].Quiesce()
					pass(i)
				})
			},
			"offline": func(t *rapid.T) {
				step(t, true, func(i int) {
					readers[i].Offline()
					online[i] = false
					pass(i)
				})
			},
			"retire": func(*rapid.T) {
				o := &object{holders: map[int]bool{}}
				for i := range readers {
					if online[i] {
						o.holders[i] = true
					}
				}
				objects = append(objects, o)
				d.Retire(func() { o.freed++ })
			},
			"reap": func(t *rapid.T) {
				waiting := 0
				left := d.Reap()
				for i, o := range objects {
					if len(o.holders) > 0 {
						waiting++
					}
					if (o.freed == 1) != (len(o.holders) == 0) || o.freed > 1 {
						t.Fatalf("object %d: freed %d times, held by %v", i, o.freed, o.holders)
					}
				}
				if left != waiting {
					t.Fatalf("%d left, want %d", left, waiting)
				}
			},
		})
	})
}

// Readers use what they find published; the writer spoils what is freed, and
// the race detector watches.
func TestReadersNeverSeeFreed(t *testing.T) {
	const versions = 3000
	type object struct{ alive bool }
	var d Domain
	var now atomic.Pointer[object]
	now.Store(&object{true})
	var stop atomic.Bool
	var wg sync.WaitGroup
	readers := []*Reader{d.Register(), d.Register(), d.Register()}
	for _, r := range readers {
		wg.Go(func() {
			for !stop.Load() {
				r.Online()
				for range 16 {
					if !now.Load().alive {
						t.Error("a reader holds a freed object")
					}
					r.Quiesce()
				}
				r.Offline()
				runtime.Gosched()
			}
		})
	}
	for range versions {
		old := now.Swap(&object{true})
		d.Retire(func() { old.alive = false })
		if d.Reap() > 100 {
			runtime.Gosched()
		}
	}
	stop.Store(true)
	wg.Wait()
	if left := d.Reap(); left != 0 {
		t.Errorf("%d objects left", left)
	}
}

func TestReadersAllocateAndShareNothing(t *testing.T) {
	var d Domain
	r := d.Register()
	if n := testing.AllocsPerRun(100, func() { r.Online(); r.Quiesce(); r.Offline() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	const line = 64
	if before, after := unsafe.Offsetof(r.turns), unsafe.Sizeof(*r)-unsafe.Offsetof(r.turns); before < line || after < line {
		t.Errorf("%d bytes before and %d from the counter on: it may share its cache line", before, after)
	}
}
