package spd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"spigot/internal/flow"
)

// edit is a list of policies that changes as operators change it.
type edit struct {
	world
	next     uint32
	policies []*Policy
}

func (e *edit) fresh() *Policy {
	e.next++
	p := policy(e.next, e.selector())
	p.Priority = uint32(e.IntN(3))
	return p
}

// step makes one change, or many at once.
func (e *edit) step() {
	n := len(e.policies)
	if n == 0 {
		e.policies = append(e.policies, e.fresh())
		return
	}
	i := e.IntN(n)
	switch e.IntN(12) {
	case 0, 1, 2: // at a random place
		e.policies = slices.Insert(e.policies, i, e.fresh())
	case 3, 4, 5:
		e.policies = slices.Delete(e.policies, i, i+1)
	case 6: // another policy in its place
		e.policies[i] = e.fresh()
	case 7: // the same ID, another selector
		p := *e.policies[i]
		p.Sel = e.selector()
		e.policies[i] = &p
	case 8: // the same ID and selector, another action
		p := *e.policies[i]
		p.Action = Discard
		e.policies[i] = &p
	case 9: // moved by priority
		p := *e.policies[i]
		p.Priority = uint32(e.IntN(3))
		e.policies[i] = &p
	case 10: // moved by place
		j := e.IntN(n)
		e.policies[i], e.policies[j] = e.policies[j], e.policies[i]
	case 11:
		if e.IntN(8) == 0 { // more at once than the history holds
			for range maxAdds + e.IntN(10) {
				e.policies = append(e.policies, e.fresh())
			}
		} else if n > 60 {
			e.policies = slices.Delete(e.policies, 20, n-10)
		}
	}
}

func TestCacheEqualsLinearScanUnderEdits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := &edit{world: world{rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))}}
		c := NewCache(1<<rapid.IntRange(0, 8).Draw(rt, "entries"), rapid.Uint64().Draw(rt, "hash seed"))
		tuples := make([]*flow.Tuple, 100)
		for i := range tuples {
			tuples[i] = e.tuple()
		}
		tab, old := (*Table)(nil), (*Table)(nil)
		for range 40 {
			for range 1 + e.IntN(4) {
				e.step()
			}
			next, err := Compile(tab, e.policies)
			if err != nil {
				rt.Fatal(err)
			}
			if e.IntN(10) == 0 { // an edit that was compiled and never published
				e.step()
				if next, err = Compile(tab, e.policies); err != nil {
					rt.Fatal(err)
				}
			}
			tab, old = next, tab
			if e.IntN(3) == 0 { // no packet before the next edit
				continue
			}
			for range 60 {
				tu := tuples[e.IntN(len(tuples))]
				if e.IntN(10) == 0 { // a table that was replaced
					if got, want := c.Lookup(old, tu), linear(old.Policies(), tu); got != want {
						rt.Fatalf("%v in the old table: got %v, want %v", tu, got, want)
					}
				}
				if got, want := c.Lookup(tab, tu), linear(e.policies, tu); got != want {
					rt.Fatalf("%v at generation %d: got %v, want %v", tu, tab.Gen(), got, want)
				}
			}
		}
	})
}

func TestManyPacketsAfterManyEdits(t *testing.T) {
	e := &edit{world: world{rand.New(rand.NewPCG(3, 4))}}
	c := NewCache(4096, 5)
	var tab *Table
	for range 300 {
		e.step()
		tab = compile(t, tab, e.policies...)
		for range 20 {
			c.Lookup(tab, e.tuple())
		}
	}
	rules := tab.Policies()
	for range 200_000 {
		tu := e.tuple()
		want := linear(rules, tu)
		if got := tab.Lookup(tu); got != want {
			t.Fatalf("table: %v: got %v, want %v", tu, got, want)
		}
		if got := c.Lookup(tab, tu); got != want {
			t.Fatalf("cache: %v: got %v, want %v", tu, got, want)
		}
	}
	hits, misses, revalidated := c.Stats()
	if hits == 0 || misses == 0 || revalidated == 0 {
		t.Errorf("hits %d, misses %d, revalidated %d: the test missed one", hits, misses, revalidated)
	}
}

func TestEditsDoNotEmptyTheCache(t *testing.T) {
	policies := network(100)
	c := NewCache(4096, 1)
	tab := compile(t, nil, policies...)
	pass := func(what string, wantMisses, wantRevalidated uint64) {
		t.Helper()
		_, m0, r0 := c.Stats()
		for i := range 90 {
			tu := visit(i, 1)
			if got, want := c.Lookup(tab, tu), linear(policies, tu); got != want {
				t.Fatalf("%s: %v: got %v, want %v", what, tu, got, want)
			}
		}
		if _, m, r := c.Stats(); m-m0 != wantMisses || r-r0 != wantRevalidated {
			t.Errorf("%s: %d misses, %d revalidated; want %d, %d", what, m-m0, r-r0, wantMisses, wantRevalidated)
		}
	}
	replace := func(p ...*Policy) { policies = p; tab = compile(t, tab, p...) }

	pass("first packets", 90, 0)
	pass("second packets", 0, 0)
	replace(policies...)
	pass("no change", 0, 90)
	replace(slices.Insert(slices.Clone(policies), 0, policy(1000, between("10.0.0.0/8", "172.16.0.0/12")))...)
	pass("an add elsewhere", 0, 90)
	replace(append(slices.Clone(policies), policy(1001, between("0.0.0.0/0", "0.0.0.0/0")))...)
	pass("an add behind", 0, 90)
	replace(slices.Insert(slices.Clone(policies), 0, policy(1002, between("0.0.0.0/0", "10.0.5.0/24")))...)
	pass("an add before one", 1, 89)
	replace(policies[1:]...)
	pass("its removal", 1, 89)
	replace(append([]*Policy{policy(1003, between("0.0.0.0/0", "10.0.0.0/8"))}, policies...)...)
	replace(policies[1:]...)
	pass("an add before all and its removal", 0, 90)
	p := *policies[10]
	p.Action = Discard
	replace(slices.Replace(slices.Clone(policies), 10, 11, &p)...)
	pass("another action", 0, 90)
	replace(slices.Replace(slices.Clone(policies), 0, 2, policies[1], policies[0])...)
	pass("two that swap", 1, 89) // one of them keeps its slot
	for i := range maxAdds {
		replace(append(slices.Clone(policies), policy(uint32(2000+i), between("1.0.0.0/8", "1.0.0.0/8")))...)
	}
	pass("as many adds as are remembered, one of them before", 0, 90)
	for i := range maxAdds + 1 {
		replace(append(slices.Clone(policies), policy(uint32(3000+i), between("1.0.0.0/8", "1.0.0.0/8")))...)
	}
	pass("more adds than are remembered", 90, 0)
	replace()
	pass("none left", 0, 0)
	replace(network(100)...)
	pass("all back", 90, 0)
}

// Ranks shift with every edit; what was added is compared by its rank of today.
func TestAddsAreComparedByPresentRank(t *testing.T) {
	elsewhere := func(id uint32) *Policy { return policy(id, between("1.0.0.0/8", "1.0.0.0/8")) }
	all := between("0.0.0.0/0", "0.0.0.0/0")
	last, added := policy(9, all), policy(10, all)
	c, tu := NewCache(64, 1), visit(0, 1)
	tab := compile(t, nil, elsewhere(1), elsewhere(2), elsewhere(3), last)
	if got := c.Lookup(tab, tu); got != last {
		t.Fatalf("got %v", got)
	}
	tab = compile(t, tab, elsewhere(1), elsewhere(2), elsewhere(3), added, last) // ranks 3, 4
	tab = compile(t, tab, added, last)                                           // ranks 0, 1
	if got := c.Lookup(tab, tu); got != added {
		t.Errorf("got %v, want the one added before it", got)
	}
}

// Two tables compiled from one do not know each other's edits.
func TestSiblingsDoNotShareDecisions(t *testing.T) {
	a, b := policy(1, between("10.0.0.0/8", "10.0.0.0/8")), policy(2, between("0.0.0.0/0", "0.0.0.0/0"))
	a.Sel.Src = b.Sel.Src
	prev := compile(t, nil, a, b)
	without, with := compile(t, prev, b), compile(t, prev, a, b)
	c, tu := NewCache(64, 1), visit(0, 1)
	for range 2 {
		for _, step := range []struct {
			tab  *Table
			want *Policy
		}{{prev, a}, {without, b}, {with, a}} {
			if got := c.Lookup(step.tab, tu); got != step.want {
				t.Errorf("got %v, want %v", got, step.want)
			}
		}
	}
}

func TestNothingMatchesIsCached(t *testing.T) {
	c, tu := NewCache(64, 1), visit(0, 1)
	tab := compile(t, nil, policy(1, between("1.0.0.0/8", "1.0.0.0/8")))
	for range 3 {
		if got := c.Lookup(tab, tu); got != nil {
			t.Fatalf("got %v", got)
		}
	}
	if hits, misses, _ := c.Stats(); hits != 2 || misses != 1 {
		t.Errorf("hits %d, misses %d; want 2, 1", hits, misses)
	}
	tab = compile(t, tab, tab.Policies()[0], policy(2, between("192.168.0.0/16", "10.0.0.0/8")))
	if got := c.Lookup(tab, tu); got == nil || got.ID != 2 {
		t.Errorf("after the add: got %v", got)
	}
	tab = compile(t, tab, tab.Policies()[0])
	if got := c.Lookup(tab, tu); got != nil {
		t.Errorf("after the removal: got %v", got)
	}
}

// Out and In tables may share a cache, also while their policies differ.
func TestOneCacheServesBothDirections(t *testing.T) {
	out := policy(1, between("0.0.0.0/0", "0.0.0.0/0"))
	in := policy(2, between("0.0.0.0/0", "0.0.0.0/0"))
	in.Dir = In
	outs, ins := compile(t, nil, out), compile(t, nil, in)
	c := NewCache(64, 1)
	for range 3 {
		if got := c.Lookup(outs, visit(0, 1)); got != out {
			t.Errorf("out: got %v", got)
		}
		if got := c.Lookup(ins, visit(0, 1)); got != in {
			t.Errorf("in: got %v", got)
		}
	}
	if hits, misses, _ := c.Stats(); hits != 4 || misses != 2 {
		t.Errorf("hits %d, misses %d; want 4, 2", hits, misses)
	}
	// A table of another lineage takes its own direction's entries only.
	c.Lookup(compile(t, nil, policy(3, out.Sel)), visit(0, 1))
	c.Lookup(ins, visit(0, 1))
	if hits, misses, _ := c.Stats(); hits != 5 || misses != 3 {
		t.Errorf("another lineage: hits %d, misses %d; want 5, 3", hits, misses)
	}
}

// An entry keeps the low half of its generation only.
func TestGenerationComesRound(t *testing.T) {
	a, b := policy(1, between("10.0.0.0/8", "10.0.0.0/8")), policy(2, between("0.0.0.0/0", "0.0.0.0/0"))
	c, tu := NewCache(64, 1), visit(0, 1)
	tab := compile(t, nil, a, b)
	c.Lookup(tab, tu)
	first := policy(3, between("0.0.0.0/0", "0.0.0.0/0"))
	tab.gen = math.MaxUint32
	tab.line.tip.Store(tab.gen)
	tab = compile(t, tab, first, a, b)
	if tab.gen != 1<<32 {
		t.Fatalf("generation %d", tab.gen)
	}
	tab = compile(t, tab, first, a, b) // its low half is the entry's
	if got := c.Lookup(tab, tu); got != first {
		t.Errorf("got %v, want the policy added since", got)
	}
}

// Each tuple's own fields make its own entry.
func TestTuplesAreTold(t *testing.T) {
	s := between("0.0.0.0/0", "0.0.0.0/0")
	var policies []*Policy
	add := func(edit func(*flow.Selector)) {
		p := policy(uint32(len(policies)+1), s)
		edit(&p.Sel)
		policies = append(policies, p)
	}
	add(func(s *flow.Selector) { s.SrcPort = flow.PortRange{Lo: 7, Hi: 7} })
	add(func(s *flow.Selector) { s.DstPort = flow.PortRange{Lo: 7, Hi: 7} })
	add(func(s *flow.Selector) { s.Proto = 17 })
	add(func(s *flow.Selector) { s.Src = prefix("10.0.0.7/32") })
	add(func(s *flow.Selector) { s.Dst = prefix("10.0.0.7/32") })
	tab := compile(t, nil, policies...)
	base := flow.Tuple{Src: addr("10.0.0.1"), Dst: addr("10.0.0.1"), Proto: 6}
	tuples := []flow.Tuple{base, base, base, base, base, base, base}
	tuples[0].SrcPort = 7
	tuples[1].DstPort = 7
	tuples[2].Proto = 17
	tuples[3].Src = addr("10.0.0.7")
	tuples[4].Dst = addr("10.0.0.7")
	tuples[5].SrcPort, tuples[5].NoPorts = 7, true
	c := NewCache(1, 9) // all in one set
	for range 3 {
		for i, tu := range tuples {
			if got, want := c.Lookup(tab, &tu), linear(policies, &tu); got != want {
				t.Errorf("tuple %d: got %v, want %v", i, got, want)
			}
		}
	}
}

// Prefixes, strides and ports, the patterns that addresses really have, must
// spread over the sets.
func TestHashSpreads(t *testing.T) {
	tab := compile(t, nil, network(20)...)
	for name, tuple := range map[string]func(i int) *flow.Tuple{
		"ports":     func(i int) *flow.Tuple { return visit(0, uint16(i)) },
		"networks":  func(i int) *flow.Tuple { return visit(i, 1) },
		"low bytes": func(i int) *flow.Tuple { return &flow.Tuple{Src: flow.V4(uint32(i)), Dst: flow.V4(uint32(i))} },
		"v6 networks": func(i int) *flow.Tuple {
			return &flow.Tuple{Src: flow.Addr{Hi: 0x20010db8<<32 | uint64(i)<<16, Lo: 1}, Dst: flow.Addr{Hi: 0x20010db8 << 32, Lo: 1}}
		},
	} {
		c := NewCache(4*8192, 42)
		const n = 8192 // one a set on average
		for i := range n {
			c.Lookup(tab, tuple(i))
		}
		for i := range n {
			c.Lookup(tab, tuple(i))
		}
		// Poisson: a set holds more than four in 0.4 % of cases.
		if hits, _, _ := c.Stats(); hits < n*98/100 {
			t.Errorf("%s: %d of %d stayed", name, hits, n)
		}
	}
}

func TestLongestAscent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := rapid.SliceOfNDistinct(rapid.Uint32Range(0, 30), 0, 12, rapid.ID).Draw(rt, "v")
		best := 0
		for set := range 1 << len(v) {
			last, n := -1, 0
			for i, x := range v {
				if set>>i&1 == 1 {
					if int(x) < last {
						n = -1
						break
					}
					last, n = int(x), n+1
				}
			}
			best = max(best, n)
		}
		got := longestAscent(v)
		if len(got) != best {
			rt.Fatalf("%v: length %d, want %d", v, len(got), best)
		}
		for i := range got[:max(0, len(got)-1)] {
			if got[i] >= got[i+1] || v[got[i]] >= v[got[i+1]] {
				rt.Fatalf("%v: places %v do not ascend", v, got)
			}
		}
	})
}

func TestLookupsDoNotAllocate(t *testing.T) {
	policies := network(10000)
	tab := compile(t, nil, policies...)
	c := NewCache(1024, 1)
	i := 0
	check := func(what string, f func()) {
		t.Helper()
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	tu := visit(0, 1)
	check("Table.Lookup", func() { tu.Dst.Lo += 256; tab.Lookup(tu) })
	check("a hit", func() { c.Lookup(tab, tu) })
	check("a miss", func() { tu.Dst.Lo += 256; c.Lookup(tab, tu) })
	next := compile(t, tab, append(policies, policy(20000, between("1.0.0.0/8", "1.0.0.0/8")))...)
	check("a hit that is judged", func() { i++; c.Lookup([]*Table{tab, next}[i&1], tu) })
}

// A worker's memory must give the collector nothing to scan.
func TestSetHoldsNoPointers(t *testing.T) {
	if s := unsafe.Sizeof(set{}); s != 192 {
		t.Errorf("a set is %d bytes, want three cache lines", s)
	}
	if o := unsafe.Offsetof(set{}.addr); o != 64 {
		t.Errorf("addresses start at %d, want behind the first cache line", o)
	}
}

func TestWorkersLookUpWhileTablesChange(t *testing.T) {
	e := &edit{world: world{rand.New(rand.NewPCG(6, 7))}}
	e.step()
	var current atomic.Pointer[Table]
	current.Store(compile(t, nil, e.policies...))
	var wg sync.WaitGroup
	var done atomic.Bool
	for id := range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w := world{rand.New(rand.NewPCG(8, uint64(id)))}
			c := NewCache(256, uint64(id))
			for !done.Load() {
				tab, tu := current.Load(), w.tuple()
				if got, want := c.Lookup(tab, tu), linear(tab.Policies(), tu); got != want {
					t.Errorf("worker %d: %v: got %v, want %v", id, tu, got, want)
					return
				}
			}
		}()
	}
	for range 300 {
		e.step()
		current.Store(compile(t, current.Load(), e.policies...))
	}
	done.Store(true)
	wg.Wait()
}

func BenchmarkTableLookup(b *testing.B) {
	for _, n := range []int{12, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			tab := compile(b, nil, network(n)...)
			tuples := make([]*flow.Tuple, 4096)
			r := rand.New(rand.NewPCG(1, 1))
			for i := range tuples {
				tuples[i] = visit(r.IntN(n), uint16(i))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				tab.Lookup(tuples[i&4095])
			}
		})
	}
}

func BenchmarkCacheLookup(b *testing.B) {
	tab := compile(b, nil, network(10000)...)
	for _, flows := range []int{1, 1024, 16384, 131072} {
		b.Run(fmt.Sprintf("flows=%d", flows), func(b *testing.B) {
			c := NewCache(2*flows, 1)
			r := rand.New(rand.NewPCG(1, 1))
			tuples := make([]flow.Tuple, flows)
			for i := range tuples {
				tuples[i] = *visit(r.IntN(9000), uint16(i))
				c.Lookup(tab, &tuples[i])
			}
			h0, m0, _ := c.Stats()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Lookup(tab, &tuples[i&(flows-1)])
			}
			h, m, _ := c.Stats()
			b.ReportMetric(float64(h-h0)/float64(h-h0+m-m0), "hit-ratio")
		})
	}
}

func BenchmarkCacheJudge(b *testing.B) {
	for _, adds := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("adds=%d", adds), func(b *testing.B) {
			policies := network(100)
			first := compile(b, nil, policies...)
			tab := first
			for i := range adds {
				policies = slices.Insert(policies, 0, policy(uint32(1000+i), between("10.0.0.0/8", "172.16.0.0/12")))
				tab = compile(b, tab, policies...)
			}
			tu := visit(7, 1)
			p := makeProbe(tu)
			slot, gen := first.find(&p), first.gen
			for b.Loop() {
				if !tab.stands(slot, gen, tu) {
					b.Fatal("does not stand")
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	policies := network(10000)
	tab := compile(b, nil, policies...)
	for b.Loop() {
		tab = compile(b, tab, policies...)
	}
}
