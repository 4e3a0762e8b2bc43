package spd

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"spigot/internal/flow"
)

// Table is the compiled SPD of one direction. It is immutable, so any number
// of workers may use it at once. The nil Table holds no policy.
//
// Order is all: the policy that answers is the first one that matches. A
// policy's key is its place in that order: its Priority, and below that a
// number that counts up as policies are added.
//
// The policies lie in layers, the largest first, each with an index of its own;
// an edit adds a small one and joins it with those that are not much larger. A
// lookup asks all of them.
type Table struct {
	dir    Dir
	live   int // policies
	layers []*layer
	ported ported

	history
}

// layer finds some of a table's policies. It is immutable, and one layer is
// part of many tables: policies that have left a table are still in it.
type layer struct {
	refs  []ref    // by rank, which is the place in the layer
	boxes []box    // by rank
	index []level  // cover all ranks together with rest
	rest  []uint32 // ranks that no level holds, ascending
}

// ref is one policy of a layer: what was born in slot then.
type ref struct {
	key  uint64
	born uint64
	slot uint32
}

// Compile builds the table of one direction from its policies, sorted by
// Priority and, among equals, by the order given. It takes the policies as they
// are: they must not change afterwards.
//
// prev, the table that this one replaces, may be nil. With it, caches of
// decisions live on: Compile compares the policies by ID and notes what was
// added and removed. A table is replaced once: a second table compiled from the
// same prev starts anew, and caches that meet it start empty.
//
// The error wraps ErrPolicy, and then there is no table.
func Compile(prev *Table, policies []*Policy) (*Table, error) {
	t := &Table{live: len(policies)}
	if prev != nil {
		t.dir = prev.dir
	}
	if len(policies) > 0 && policies[0] != nil {
		t.dir = policies[0].Dir
	}
	if err := t.check(prev, policies); err != nil {
		return nil, err
	}
	t.ported = portedOf(policies)
	rules := slices.Clone(policies)
	slices.SortStableFunc(rules, func(p, q *Policy) int { return cmp.Compare(p.Priority, q.Priority) })
	t.layers = t.follow(prev, rules)
	return t, nil
}

// check says what is wrong with the policies, each by itself and together.
func (t *Table) check(prev *Table, policies []*Policy) error {
	seen := make(map[uint32]*Policy, len(policies))
	for i, p := range policies {
		if p == nil {
			return fmt.Errorf("%w: policy at place %d is nil: leave it out", ErrPolicy, i)
		}
		if err := p.Check(); err != nil {
			return err
		}
		if p.Dir != t.dir {
			return p.bad("its direction differs from that of policy %s: compile one table a direction", policies[0].Name)
		}
		if q := seen[p.ID]; q != nil {
			return p.bad("policy %s has the same ID: give each its own", q.Name)
		}
		seen[p.ID] = p
	}
	if prev != nil && prev.live > 0 && prev.dir != t.dir {
		return policies[0].bad("the table that it is to replace is of the other direction: compile one table a direction")
	}
	return nil
}

// newLayer returns a layer of these refs, which ascend by key, and their boxes.
func newLayer(refs []ref, boxes []box) *layer {
	l := &layer{refs: refs, boxes: boxes}
	l.index, l.rest = buildIndex(boxes)
	return l
}

// Lookup returns the first policy that matches tu, or nil if none does: the
// implicit discard of RFC 4301, section 4.4.1.
func (t *Table) Lookup(tu *flow.Tuple) *Policy {
	if t == nil || t.live == 0 {
		return nil
	}
	p := makeProbe(tu)
	return t.at(t.find(&p)).policy
}

// find returns the slot of the first policy that contains p, or noMatch.
func (t *Table) find(p *probe) uint32 {
	slot, key := uint32(noMatch), uint64(math.MaxUint64)
	for _, l := range t.layers {
		if r := l.find(t, p); r < len(l.refs) && l.refs[r].key < key {
			slot, key = l.refs[r].slot, l.refs[r].key
		}
	}
	return slot
}

// find returns the rank of the first of the layer's policies that is in t and
// contains p, or their number.
func (l *layer) find(t *Table, p *probe) int {
	best := uint32(len(l.boxes))
	for i := range l.index {
		if v := &l.index[i]; v.least < best {
			best = l.first(t, v.candidates(p), p, best)
		}
	}
	return int(l.first(t, l.rest, p, best))
}

// first returns the first of the ranks that lies before best, is in t and whose
// box contains p, else best.
func (l *layer) first(t *Table, ranks []uint32, p *probe, best uint32) uint32 {
	for _, r := range ranks {
		if r >= best {
			break
		}
		if l.boxes[r].contains(p) && t.holds(&l.refs[r]) {
			return r
		}
	}
	return best
}

// holds says whether the policy that r stands for is in t.
func (t *Table) holds(r *ref) bool { return t.at(r.slot).born == r.born }

// Policies returns the policies in the order in which they are tried.
func (t *Table) Policies() []*Policy {
	if t == nil {
		return nil
	}
	all := t.join(t.layers)
	rules := make([]*Policy, len(all.refs))
	for i := range all.refs {
		rules[i] = t.at(all.refs[i].slot).policy
	}
	return rules
}

// Gen is the table's generation: it grows by one from a table to the one that
// replaces it. The nil Table's is 0.
func (t *Table) Gen() uint64 {
	if t == nil {
		return 0
	}
	return t.gen
}
