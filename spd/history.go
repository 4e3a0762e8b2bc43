package spd

import (
	"cmp"
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
//	(2) no policy born after g both comes before s and contains the tuple.
//
// Proof. By (1) the policy in s is the one of generation g, with the same
// selector, so it still matches. Were another policy q the answer now, it would
// match and come before s; by (2) it was not born after g, so at g it stood with
// the same selector and, as policies that are not born again keep their order,
// before s. Then q, and not s, was the answer at g. The same holds for "nothing
// matches", which is slot 0: a policy that matches everything and comes last,
// always. The actions of policies do not matter: a slot leads to the policy as
// it is in the table at hand.
type history struct {
	line   *lineage
	gen    uint64   // grows by one a table
	chunks []*chunk // by slot; most are those of the table before
	adds   []add    // the last births, oldest first, those alive only
	floor  uint64   // adds holds every birth after this generation
}

// chunk is some of the slots.
type chunk [chunkLen]entry

// entry is what is in a slot.
type entry struct {
	policy *Policy // nil in a free one
	born   uint64  // never for a free one
	key    uint64
}

// lineage is one line of tables, each replacing the one before. All but tip is
// the newest table's, for the table that will replace it.
type lineage struct {
	tip    atomic.Uint64     // the newest table's generation
	slotOf map[uint32]uint32 // by ID
	free   []uint32          // slots without a policy
	slots  uint32            // how many there are
	seq    uint32            // the low half of the next key
}

// advance makes whoever asks the one who replaces the table of generation gen.
func (l *lineage) advance(gen uint64) bool { return l.tip.CompareAndSwap(gen, gen+1) }

// add is the birth of a policy.
type add struct {
	ref
	box box
}

const (
	maxAdds  = 64 // births remembered
	chunkLen = 256
	noMatch  = 0 // the slot of "nothing matches"
	never    = math.MaxUint64
)

// at returns what is in slot s.
func (h *history) at(s uint32) *entry { return &h.chunks[s/chunkLen][s%chunkLen] }

// follow fills t's history from prev's and what differs, and returns the layer
// of all rules, which are sorted.
func (t *Table) follow(prev *Table, rules []*Policy) []*layer {
	h := &t.history
	var kept map[uint32]keep
	var old []add
	if prev != nil && prev.line.advance(prev.gen) {
		h.line, h.gen, h.floor = prev.line, prev.gen+1, prev.floor
		kept, old = prev.kept(rules), prev.adds
	} else {
		h.line, h.gen = new(lineage), 1
		h.line.tip.Store(h.gen)
		h.line.slots = noMatch + 1
	}
	refs, boxes := make([]ref, len(rules)), make([]box, len(rules))
	for rank, p := range rules {
		boxes[rank] = makeBox(&p.Sel)
		refs[rank] = ref{key: uint64(p.Priority)<<32 | uint64(rank), born: h.gen}
		if k := kept[p.ID]; k.ok {
			refs[rank].slot, refs[rank].born = k.slot, k.born
		}
	}
	h.assign(rules, refs)
	var fresh []ref
	var births []box
	for i := range refs {
		if refs[i].born == h.gen {
			fresh, births = append(fresh, refs[i]), append(births, boxes[i])
		}
	}
	h.remember(old, fresh, births)
	if len(rules) == 0 {
		return nil
	}
	return []*layer{newLayer(refs, boxes)}
}

// assign puts each rule into the slot that it keeps, or into a free one.
func (h *history) assign(rules []*Policy, refs []ref) {
	line := h.line
	taken := make([]bool, line.slots, int(line.slots)+len(rules))
	for i := range refs {
		taken[refs[i].slot] = true
	}
	taken[noMatch] = true
	next := uint32(0)
	for i := range refs {
		if refs[i].slot != noMatch {
			continue
		}
		for int(next) < len(taken) && taken[next] {
			next++
		}
		if int(next) == len(taken) {
			taken = append(taken, false)
		}
		refs[i].slot, taken[next] = next, true
	}
	line.slots, line.seq = uint32(len(taken)), uint32(len(rules))
	line.slotOf, line.free = make(map[uint32]uint32, len(rules)), nil
	h.chunks = make([]*chunk, (len(taken)+chunkLen-1)/chunkLen)
	for i := range h.chunks {
		h.chunks[i] = new(chunk)
	}
	for s, used := range taken {
		if *h.at(uint32(s)) = (entry{born: never}); !used {
			line.free = append(line.free, uint32(s))
		}
	}
	*h.at(noMatch) = entry{key: math.MaxUint64}
	for i, p := range rules {
		r := &refs[i]
		*h.at(r.slot) = entry{policy: p, born: r.born, key: r.key}
		line.slotOf[p.ID] = r.slot
	}
}

// keep is the slot that a policy keeps.
type keep struct {
	slot uint32
	born uint64
	ok   bool
}

// kept returns, by ID, which of rules stood in prev with the same selector and
// in the same order: as many as can be.
func (prev *Table) kept(rules []*Policy) map[uint32]keep {
	var same []uint32 // slots in the new order
	var keys []uint64 // what they were sorted by
	for _, p := range rules {
		if s, ok := prev.line.slotOf[p.ID]; ok && prev.at(s).policy.Sel == p.Sel {
			same, keys = append(same, s), append(keys, prev.at(s).key)
		}
	}
	kept := make(map[uint32]keep, len(same))
	for _, i := range longestAscent(keys) {
		e := prev.at(same[i])
		kept[e.policy.ID] = keep{same[i], e.born, true}
	}
	return kept
}

// longestAscent returns the places of a longest ascending subsequence of v,
// whose members are distinct (patience sorting).
func longestAscent[T cmp.Ordered](v []T) []int {
	var ends []int // ends[n]: place of the least member that ends an ascent of length n+1
	before := make([]int, len(v))
	for i, x := range v {
		n, _ := slices.BinarySearchFunc(ends, x, func(e int, x T) int { return cmp.Compare(v[e], x) })
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

// remember carries on the births of the table before, without those of policies
// that left or were born again, and adds the fresh ones. What does not fit
// raises the floor.
func (h *history) remember(old []add, fresh []ref, boxes []box) {
	h.adds = nil
	for _, a := range old {
		if e := h.at(a.slot); e.born == a.born {
			a.key = e.key
			h.adds = append(h.adds, a)
		}
	}
	if n := len(fresh) - maxAdds; n > 0 {
		h.floor, h.adds, fresh, boxes = h.gen, nil, fresh[n:], boxes[n:]
	}
	for i := range fresh {
		h.adds = append(h.adds, add{fresh[i], boxes[i]})
	}
	if n := len(h.adds) - maxAdds; n > 0 {
		h.floor = max(h.floor, h.adds[n-1].born)
		h.adds = slices.Clone(h.adds[n:])
	}
}

// stands says whether slot, the answer for tu at generation gen, is the answer
// still. False may also mean that the history does not reach back that far.
func (h *history) stands(slot uint32, gen uint64, tu *flow.Tuple) bool {
	if gen > h.gen || gen < h.floor || slot >= uint32(len(h.chunks)*chunkLen) {
		return false
	}
	e := h.at(slot)
	if e.born > gen {
		return false
	}
	p := makeProbe(tu)
	for i := len(h.adds) - 1; i >= 0 && h.adds[i].born > gen; i-- {
		if a := &h.adds[i]; a.key < e.key && a.box.contains(&p) {
			return false
		}
	}
	return true
}
