package spd

import (
	"cmp"
	"fmt"
	"slices"

	"spigot/internal/flow"
)

// Table is the compiled SPD of one direction. It is immutable, so any number
// of workers may use it at once. The nil Table holds no policy.
//
// Order is all: the policy that answers is the first one that matches. A
// policy's rank is its place in that order, 0 first.
type Table struct {
	dir   Dir
	rules []*Policy // by rank
	boxes []box     // by rank
	index []level   // cover all ranks together with rest
	rest  []uint32  // ranks that no level holds, ascending

	history
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
	t := &Table{rules: slices.Clone(policies)}
	if prev != nil {
		t.dir = prev.dir
	}
	if len(policies) > 0 && policies[0] != nil {
		t.dir = policies[0].Dir
	}
	if err := t.check(prev); err != nil {
		return nil, err
	}
	slices.SortStableFunc(t.rules, func(p, q *Policy) int { return cmp.Compare(p.Priority, q.Priority) })
	t.boxes = make([]box, len(t.rules))
	for i, p := range t.rules {
		t.boxes[i] = makeBox(&p.Sel)
	}
	t.index, t.rest = buildIndex(t.boxes)
	t.follow(prev)
	return t, nil
}

// check says what is wrong with the policies, each by itself and together.
func (t *Table) check(prev *Table) error {
	seen := make(map[uint32]*Policy, len(t.rules))
	for i, p := range t.rules {
		if p == nil {
			return fmt.Errorf("%w: policy at place %d is nil: leave it out", ErrPolicy, i)
		}
		if err := p.Check(); err != nil {
			return err
		}
		if p.Dir != t.dir {
			return p.bad("its direction differs from that of policy %s: compile one table a direction", t.rules[0].Name)
		}
		if q := seen[p.ID]; q != nil {
			return p.bad("policy %s has the same ID: give each its own", q.Name)
		}
		seen[p.ID] = p
	}
	if prev != nil && len(prev.rules) > 0 && prev.dir != t.dir {
		return t.rules[0].bad("the table that it is to replace is of the other direction: compile one table a direction")
	}
	return nil
}

// Lookup returns the first policy that matches tu, or nil if none does: the
// implicit discard of RFC 4301, section 4.4.1.
func (t *Table) Lookup(tu *flow.Tuple) *Policy {
	if t == nil {
		return nil
	}
	p := makeProbe(tu)
	if r := t.find(&p); r < len(t.rules) {
		return t.rules[r]
	}
	return nil
}

// find returns the rank of the first policy that contains p, or their number.
func (t *Table) find(p *probe) int {
	best := uint32(len(t.boxes))
	for i := range t.index {
		if l := &t.index[i]; l.least < best {
			best = t.first(l.candidates(p), p, best)
		}
	}
	return int(t.first(t.rest, p, best))
}

// first returns the first of the ranks that lies before best and whose box
// contains p, else best.
func (t *Table) first(ranks []uint32, p *probe, best uint32) uint32 {
	for _, r := range ranks {
		if r >= best {
			break
		}
		if t.boxes[r].contains(p) {
			return r
		}
	}
	return best
}

// Policies returns the policies in the order in which they are tried.
func (t *Table) Policies() []*Policy {
	if t == nil {
		return nil
	}
	return slices.Clone(t.rules)
}

// Gen is the table's generation: it grows by one from a table to the one that
// replaces it. The nil Table's is 0.
func (t *Table) Gen() uint64 {
	if t == nil {
		return 0
	}
	return t.gen
}
