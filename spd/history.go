package spd

import (
	"math"
	"slices"
	"sync/atomic"

	"spigot/internal/flow"
)

// history is what a Table knows about the tables that it replaced, so that a
// cached decision of one of them can be told right or wrong without a lookup.
//
// A policy lives in a slot, which it keeps from table to table; a slot is used
// again after its policy has left. born says since which generation the slot's
// policy stands: a policy whose selector changed, or which moved among the
// others, is born again.
//
// The rule: let the answer for a tuple have been slot s at generation g. It is
// s now if
//
//	(1) s was not born after g, and
//	(2) no policy born after g both ranks before s and contains the tuple.
//
// Proof. By (1) the policy in s is the one of generation g, with the same
// selector, so it still matches. Were another policy q the answer now, it would
// match and rank before s; by (2) it was not born after g, so at g it stood with
// the same selector and, as policies that are not born again keep their order,
// before s. Then q, and not s, was the answer at g. The same holds for "nothing
// matches", which is slot 0: a policy that matches everything and ranks last,
// always. The actions of policies do not matter: a slot leads to the policy as
// it is in the table at hand.
type history struct {
	line   *lineage
	gen    uint64    // grows by one a table
	slots  []*Policy // by slot
	rank   []uint32  // by slot
	born   []uint64  // by slot; never for a free one
	free   []uint32  // slots without a policy
	slotOf []uint32  // by rank; noMatch behind the last
	adds   []add     // the last births, oldest first, those alive only
	floor  uint64    // adds holds every birth after this generation
}

// lineage is one line of tables, each replacing the one before.
type lineage struct {
	tip atomic.Uint64 // the newest table's generation
}

// add is the birth of a policy.
type add struct {
	gen  uint64
	slot uint32
	rank uint32
	box  box
}

const (
	maxAdds = 64 // births remembered
	noMatch = 0  // the slot of "nothing matches"
	never   = math.MaxUint64
)

// follow fills t's history from prev's and what differs.
func (t *Table) follow(prev *Table) {
	h := &t.history
	if prev != nil && prev.line.tip.CompareAndSwap(prev.gen, prev.gen+1) {
		h.line, h.gen, h.floor = prev.line, prev.gen+1, prev.floor
		h.born, h.free = slices.Clone(prev.born), slices.Clone(prev.free)
	} else {
		prev = nil
		h.line, h.gen = new(lineage), 1
		h.line.tip.Store(h.gen)
		h.born = []uint64{0}
	}
	fresh := t.assignSlots(prev)
	h.slots = make([]*Policy, len(h.born))
	h.rank = make([]uint32, len(h.born))
	h.rank[noMatch] = math.MaxUint32
	for rank, s := range h.slotOf[:len(t.rules)] {
		h.slots[s], h.rank[s] = t.rules[rank], uint32(rank)
	}
	h.remember(prev, t.boxes, fresh)
}

// assignSlots gives each rank a slot, kept or new, and returns the new ones.
func (t *Table) assignSlots(prev *Table) (fresh []uint32) {
	h := &t.history
	h.slotOf = make([]uint32, len(t.rules)+1)
	if prev != nil {
		kept := prev.kept(t.rules)
		for s := noMatch + 1; s < len(prev.slots); s++ {
			if p := prev.slots[s]; p != nil && !kept[p.ID].ok {
				h.born[s] = never
				h.free = append(h.free, uint32(s))
			}
		}
		for rank, p := range t.rules {
			if k := kept[p.ID]; k.ok {
				h.slotOf[rank] = k.slot
			}
		}
	}
	for rank := range t.rules {
		if h.slotOf[rank] != noMatch {
			continue
		}
		s := uint32(len(h.born))
		if n := len(h.free); n > 0 {
			s, h.free = h.free[n-1], h.free[:n-1]
			h.born[s] = h.gen
		} else {
			h.born = append(h.born, h.gen)
		}
		h.slotOf[rank] = s
		fresh = append(fresh, s)
	}
	return fresh
}

// keep is the slot that a policy keeps.
type keep struct {
	slot uint32
	ok   bool
}

// kept returns, by ID, which of rules stood in prev with the same selector and
// in the same order: as many as can be.
func (prev *Table) kept(rules []*Policy) map[uint32]keep {
	was := make(map[uint32]uint32, len(prev.rules)) // slot by ID
	for s, p := range prev.slots {
		if p != nil {
			was[p.ID] = uint32(s)
		}
	}
	var same, ranks []uint32 // slots in the new order, and their old ranks
	for _, p := range rules {
		if s, ok := was[p.ID]; ok && prev.slots[s].Sel == p.Sel {
			same, ranks = append(same, s), append(ranks, prev.rank[s])
		}
	}
	kept := make(map[uint32]keep, len(same))
	for _, i := range longestAscent(ranks) {
		kept[prev.slots[same[i]].ID] = keep{same[i], true}
	}
	return kept
}

// longestAscent returns the places of a longest ascending subsequence of v,
// whose members are distinct (patience sorting).
func longestAscent(v []uint32) []int {
	var ends []int // ends[n]: place of the least member that ends an ascent of length n+1
	before := make([]int, len(v))
	for i, x := range v {
		n, _ := slices.BinarySearchFunc(ends, x, func(e int, x uint32) int { return int(v[e]) - int(x) })
		before[i] = -1
		if n > 0 {
			before[i] = ends[n-1]
		}
		if n == len(ends) {
			ends = append(ends, i)
		} else {
			ends[n] = i
		}
	}
	if len(ends) == 0 {
		return nil
	}
	places := make([]int, len(ends))
	for i, n := ends[len(ends)-1], len(ends)-1; n >= 0; i, n = before[i], n-1 {
		places[n] = i
	}
	return places
}

// remember carries on prev's births, without those of policies that left or
// were born again, and adds the fresh ones. What does not fit raises the floor.
func (h *history) remember(prev *Table, boxes []box, fresh []uint32) {
	if prev != nil {
		for _, a := range prev.adds {
			if h.born[a.slot] == a.gen {
				a.rank = h.rank[a.slot]
				h.adds = append(h.adds, a)
			}
		}
	}
	if n := len(fresh) - maxAdds; n > 0 {
		h.floor, h.adds, fresh = h.gen, nil, fresh[n:]
	}
	for _, s := range fresh {
		h.adds = append(h.adds, add{h.gen, s, h.rank[s], boxes[h.rank[s]]})
	}
	if n := len(h.adds) - maxAdds; n > 0 {
		h.floor = max(h.floor, h.adds[n-1].gen)
		h.adds = slices.Clone(h.adds[n:])
	}
}

// stands says whether slot, the answer for tu at generation gen, is the answer
// still. False may also mean that the history does not reach back that far.
func (h *history) stands(slot uint32, gen uint64, tu *flow.Tuple) bool {
	if gen > h.gen || gen < h.floor || h.born[slot] > gen {
		return false
	}
	p, rank := makeProbe(tu), h.rank[slot]
	for i := len(h.adds) - 1; i >= 0 && h.adds[i].gen > gen; i-- {
		if a := &h.adds[i]; a.rank < rank && a.box.contains(&p) {
			return false
		}
	}
	return true
}
