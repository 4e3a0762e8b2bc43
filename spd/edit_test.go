package spd

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"spigot/internal/flow"
)

// apply does to a list what Edit does to a table.
func apply(policies []*Policy, gone []uint32, add []*Policy) []*Policy {
	policies = slices.Clone(policies)
	var behind []*Policy
	stay := map[uint32]bool{}
	for _, p := range add {
		i := slices.IndexFunc(policies, func(q *Policy) bool { return q.ID == p.ID })
		if i >= 0 && policies[i].Sel == p.Sel && policies[i].Priority == p.Priority {
			policies[i] = p
			stay[p.ID] = true
			continue
		}
		gone = append(gone, p.ID)
		behind = append(behind, p)
	}
	policies = slices.DeleteFunc(policies, func(p *Policy) bool { return slices.Contains(gone, p.ID) && !stay[p.ID] })
	policies = append(policies, behind...)
	slices.SortStableFunc(policies, func(p, q *Policy) int { return cmp.Compare(p.Priority, q.Priority) })
	return policies
}

// change makes one edit: some policies go, some come, some change.
func (e *edit) change() (gone []uint32, add []*Policy) {
	n := len(e.policies)
	some := 1 + e.IntN(3)
	if e.IntN(30) == 0 {
		some = maxAdds + e.IntN(200)
	}
	for _, i := range e.Perm(n)[:min(n, some*e.IntN(2))] {
		p := *e.policies[i]
		switch e.IntN(6) {
		case 0: // another action, in its place
			p.Action = Discard
			add = append(add, &p)
		case 1: // the same, after it was said to go
			gone, add = append(gone, p.ID), append(add, &p)
		case 2:
			p.Sel = e.selector()
			add = append(add, &p)
		case 3:
			p.Priority = uint32(e.IntN(3))
			add = append(add, &p)
		default:
			gone = append(gone, p.ID)
		}
	}
	if e.IntN(12) == 0 { // none of them is there
		gone = append(gone, e.next+1)
	}
	for range some * e.IntN(2) {
		add = append(add, e.fresh())
	}
	return gone, add
}

func TestEditEqualsLinearScan(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := &edit{world: world{rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))}}
		c := NewCache(1<<rapid.IntRange(0, 8).Draw(rt, "entries"), rapid.Uint64().Draw(rt, "hash seed"))
		tuples := make([]*flow.Tuple, 100)
		for i := range tuples {
			tuples[i] = e.tuple()
		}
		tab, old := (*Table)(nil), (*Table)(nil)
		for range 40 {
			gone, add := e.change()
			next, err := Edit(tab, gone, add)
			if err != nil {
				rt.Fatal(err)
			}
			if e.IntN(10) == 0 { // the first one is never published
				next, err = Edit(tab, gone, add)
			}
			e.policies = apply(e.policies, gone, add)
			if e.IntN(10) == 0 { // a configuration is loaded
				e.Shuffle(len(e.policies), func(i, j int) {
					e.policies[i], e.policies[j] = e.policies[j], e.policies[i]
				})
				next, err = Compile(next, e.policies)
				e.policies = apply(e.policies, nil, nil)
			}
			if err != nil {
				rt.Fatal(err)
			}
			tab, old = next, tab
			if got := tab.Policies(); !slices.Equal(got, e.policies) {
				rt.Fatalf("policies %v, want %v", got, e.policies)
			}
			if e.IntN(3) == 0 { // no packet before the next edit
				continue
			}
			for range 40 {
				tu := tuples[e.IntN(len(tuples))]
				if e.IntN(10) == 0 {
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

func TestEditsDoNotEmptyTheCacheEither(t *testing.T) {
	tab := compile(t, nil, network(100)...)
	c := NewCache(4096, 1)
	for i := range 90 {
		c.Lookup(tab, visit(i, 1))
	}
	for i := range uint32(1000) { // a table of its own each
		var err error
		p := policy(1000+i, between("1.0.0.0/8", "1.0.0.0/8"))
		if tab, err = Edit(tab, []uint32{p.ID - 1}, []*Policy{p}); err != nil {
			t.Fatal(err)
		}
		c.Lookup(tab, visit(int(i%90), 1))
	}
	if _, misses, _ := c.Stats(); misses != 90 {
		t.Errorf("%d misses, want those of the first packets only", misses)
	}
	if len(tab.chunks) != 1 {
		t.Errorf("%d chunks of slots for 101 policies", len(tab.chunks))
	}
}

func TestEditRefuses(t *testing.T) {
	tab := compile(t, nil, policy(1, between("10.0.0.0/8", "10.0.0.0/8")))
	bad := policy(2, between("10.0.0.0/8", "::/0"))
	in := policy(2, between("10.0.0.0/8", "10.0.0.0/8"))
	in.Dir = In
	for name, add := range map[string][]*Policy{
		"a bad policy": {bad}, "another direction": {in}, "nil": {nil},
		"one ID twice": {policy(2, tab.Policies()[0].Sel), policy(2, tab.Policies()[0].Sel)},
	} {
		if got, err := Edit(tab, []uint32{1}, add); got != nil || !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// What was refused has changed nothing.
	next, err := Edit(tab, nil, []*Policy{policy(2, between("10.0.0.0/8", "10.0.0.0/8"))})
	if err != nil || next.line != tab.line || len(next.Policies()) != 2 {
		t.Errorf("%v: %v", err, next.Policies())
	}
}

func TestKeysRunOut(t *testing.T) {
	all := between("0.0.0.0/0", "0.0.0.0/0")
	tab := compile(t, nil, policy(1, all))
	tab.line.seq = math.MaxUint32 - 1
	for id := range uint32(4) {
		var err error
		if tab, err = Edit(tab, []uint32{id + 1}, []*Policy{policy(id+2, all), policy(id+100, all)}); err != nil {
			t.Fatal(err)
		}
	}
	var ids []uint32
	for _, p := range tab.Policies() {
		ids = append(ids, p.ID)
	}
	if !slices.Equal(ids, []uint32{100, 101, 102, 5, 103}) {
		t.Errorf("order %v", ids)
	}
}

// TestLayersStayFew: what a lookup asks grows with the logarithm, and policies
// that left go from the layers.
func TestLayersStayFew(t *testing.T) {
	tab := compile(t, nil)
	edit := func(gone []uint32, add ...*Policy) {
		t.Helper()
		var err error
		if tab, err = Edit(tab, gone, add); err != nil {
			t.Fatal(err)
		}
	}
	held := func() (n int) {
		for _, l := range tab.layers {
			n += len(l.refs)
		}
		return n
	}
	policies := network(5000)
	for i, p := range policies {
		edit(nil, p)
		if most := 2 + int(math.Log(float64(i+1))/math.Log(layerRatio)); len(tab.layers) > most {
			t.Fatalf("%d layers of %d policies, want at most %d", len(tab.layers), i+1, most)
		}
	}
	if n := held(); n != 5000 {
		t.Errorf("the layers hold %d", n)
	}
	for i, p := range policies {
		edit([]uint32{p.ID})
		if n, left := held(), 4999-i; n > 2*left+maxLitter {
			t.Fatalf("the layers hold %d of %d policies", n, left)
		}
	}
}

func BenchmarkEdit(b *testing.B) {
	for _, n := range []int{1000, 10000, 60000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			tab := compile(b, nil, network(n)...)
			id := uint32(1 << 20)
			b.ReportAllocs()
			for b.Loop() {
				id++
				lo := flow.V4(172<<24 | id&0xffff)
				p := policy(id, flow.Selector{Src: flow.AddrRange{Lo: lo, Hi: lo}, Dst: flow.AddrRange{Lo: lo, Hi: lo},
					SrcPort: flow.AnyPort, DstPort: flow.AnyPort})
				var err error
				if tab, err = Edit(tab, []uint32{id - 1000}, []*Policy{p}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(tab.layers)), "layers")
		})
	}
}
