package spd

import (
	"slices"

	"spigot/internal/flow"
)

// maxPorted is how many policies a table remembers that select by ports.
const maxPorted = 64

// ported is the policies of a table that select by ports, so that a fragment
// which has none of its own can be told from one for which that does not matter.
type ported struct {
	list []*Policy
	many bool // there are, or were, more of them
}

// portedOf returns those among the policies.
func portedOf(policies []*Policy) (all ported) { return all.edited(nil, policies) }

// edited returns a without the policies whose IDs are in gone or among add's, and
// with those of add.
func (a ported) edited(gone []uint32, add []*Policy) ported {
	if a.many || len(a.list) == 0 && !slices.ContainsFunc(add, (*Policy).selectsPorts) {
		return a
	}
	b := ported{}
	for _, p := range a.list {
		if !slices.Contains(gone, p.ID) && !slices.ContainsFunc(add, func(q *Policy) bool { return q.ID == p.ID }) {
			b.list = append(b.list, p)
		}
	}
	for _, p := range add {
		if p.selectsPorts() {
			if len(b.list) == maxPorted {
				return ported{many: true}
			}
			b.list = append(b.list, p)
		}
	}
	return b
}

func (p *Policy) selectsPorts() bool { return p.Sel.HasPorts() || p.PFP&PFPPorts != 0 }

// NeedsPorts says whether the answer for tu, a fragment's, may depend on the ports
// of its datagram, which tu lacks: whether a policy that selects by ports would
// match it but for them. With very many such policies it always may.
func (t *Table) NeedsPorts(tu *flow.Tuple) bool {
	if t == nil {
		return false
	}
	for _, p := range t.ported.list {
		s := p.Sel
		s.SrcPort, s.DstPort = flow.AnyPort, flow.AnyPort
		if s.Matches(tu) {
			return true
		}
	}
	return t.ported.many
}
