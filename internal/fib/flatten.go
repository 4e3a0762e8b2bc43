package fib

import (
	"slices"

	"spigot/internal/flow"
)

// newTable cuts both families' address spaces where entries say so. It leaves
// entries as they are.
func newTable(entries []entry) *Table {
	t := new(Table)
	v4, v6 := prefixes("0.0.0.0/0")[0], prefixes("::/0")[0]
	starts, hops := t.cut(v4, neverForwarded4(), entries)
	t.hops4 = hops
	t.starts4 = make([]uint32, len(starts))
	for i, a := range starts {
		t.starts4[i] = uint32(a.Lo)
	}
	t.starts6, t.hops6 = t.cut(v6, neverForwarded6(), entries)
	return t
}

// cut cuts the family whose addresses are all, and lists its entries in t.views.
// (By number IPv4 lies inside IPv6; nobody looks there for an IPv6 address.)
func (t *Table) cut(all flow.AddrRange, nowhere []flow.AddrRange, entries []entry) ([]flow.Addr, []*Hop) {
	es := []entry{{dst: all, hop: &t.noRoute, class: fallback}}
	for _, r := range nowhere {
		es = append(es, entry{dst: r, hop: &t.noRoute, class: never})
	}
	for _, r := range allGroups() {
		if r.Lo.Is4() == all.Lo.Is4() {
			es = append(es, entry{dst: r, hop: &t.noRoute, class: fallback})
		}
	}
	for _, e := range entries {
		if e.dst.Lo.Is4() == all.Lo.Is4() {
			es = append(es, e)
		}
	}
	slices.SortStableFunc(es, before)
	for i, e := range es {
		hidden := i+1 < len(es) && es[i+1].dst == e.dst
		if !hidden && e.class != fallback && e.class != never {
			t.views = append(t.views, RouteView{Dst: e.dst, Hop: *e.hop})
		}
	}
	var c cutter
	for _, e := range es {
		c.leave(e.dst.Lo)
		c.enter(e)
	}
	c.leave(all.Hi)
	return c.starts, c.hops
}

// cutter walks over sorted prefixes, which nest: those that hold the point
// where it stands form a stack, and the innermost one answers.
type cutter struct {
	open   []entry
	starts []flow.Addr
	hops   []*Hop
}

// enter opens e, which starts at or behind all that was opened before.
func (c *cutter) enter(e entry) {
	c.open = append(c.open, e)
	c.from(e.dst.Lo, e.hop)
}

// leave closes the prefixes that end before at.
func (c *cutter) leave(at flow.Addr) {
	for n := len(c.open) - 1; n >= 0 && c.open[n].dst.Hi.Less(at); n-- {
		end := c.open[n].dst.Hi
		c.open = c.open[:n]
		next := flow.Addr{Hi: end.Hi, Lo: end.Lo + 1}
		if next.Lo == 0 {
			next.Hi++
		}
		c.from(next, c.open[n-1].hop)
	}
}

// from says that hop answers from at on.
func (c *cutter) from(at flow.Addr, hop *Hop) {
	n := len(c.starts)
	if n > 0 && c.starts[n-1] == at {
		n-- // an inner prefix, or a better one, starts at the same address
	}
	c.starts, c.hops = c.starts[:n], c.hops[:n]
	if n > 0 && c.hops[n-1] == hop {
		return
	}
	c.starts, c.hops = append(c.starts, at), append(c.hops, hop)
}
