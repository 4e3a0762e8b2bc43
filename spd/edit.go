package spd

import "slices"

// Edit builds the table that replaces prev: without the policies whose IDs are
// in gone, and with those in add. An added policy comes after all of its
// Priority; but one whose ID, selector and Priority are a policy's of prev takes
// the place of that, whether gone names it or not.
//
// The rules of Compile hold.
func Edit(prev *Table, gone []uint32, add []*Policy) (*Table, error) {
	if prev == nil {
		prev = &Table{}
	}
	drop := make(map[uint32]*Policy, len(gone)+len(add))
	for _, id := range gone {
		drop[id] = nil
	}
	for _, p := range add {
		drop[p.ID] = p
	}
	rules := make([]*Policy, 0, len(prev.rules)+len(add))
	placed := map[*Policy]bool{}
	for _, p := range prev.rules {
		q, changes := drop[p.ID]
		switch {
		case !changes:
			rules = append(rules, p)
		case q != nil && q.Sel == p.Sel && q.Priority == p.Priority:
			rules = append(rules, q)
			placed[q] = true
		}
	}
	rules = append(rules, slices.DeleteFunc(slices.Clone(add), func(p *Policy) bool { return placed[p] })...)
	if prev.line == nil {
		prev = nil
	}
	return Compile(prev, rules)
}
