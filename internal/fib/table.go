package fib

import (
	"math/bits"
	"slices"

	"spigot/internal/flow"
)

// Table answers where packets go next. It is immutable: any number of
// goroutines may use it. The zero Table knows no route.
//
// The address space of each family is cut where the answer changes; a lookup
// is one binary search for the interval that an address lies in.
type Table struct {
	starts4 []uint32    // first address of each interval, ascending; the first is 0
	hops4   []*Hop      // the answer in each interval
	starts6 []flow.Addr // as starts4, of IPv6
	hops6   []*Hop

	views   []RouteView
	noRoute Hop
}

// Lookup returns the way to dst. The Hop is never nil, must not be changed, and
// lives as long as t.
func (t *Table) Lookup(dst *flow.Addr) *Hop {
	if dst.Is4() {
		return t.lookup4(uint32(dst.Lo))
	}
	return t.lookup6(dst)
}

// lookup4 narrows starts4[at:at+n], which holds the last start that is not
// above a: by three starts a step, so that their loads and compares overlap,
// and by masks instead of branches, because where an address falls is nothing
// that a processor could guess.
func (t *Table) lookup4(a uint32) *Hop {
	starts := t.starts4
	if len(starts) == 0 {
		return &t.noRoute
	}
	at, n := 0, len(starts)
	for n > 3 {
		q := n / 4
		at += q&reaches4(a, starts[at+q]) + q&reaches4(a, starts[at+2*q]) + q&reaches4(a, starts[at+3*q])
		n -= 3 * q
	}
	for n > 1 {
		at -= reaches4(a, starts[at+1])
		n--
	}
	return t.hops4[at]
}

// lookup6 is lookup4 for IPv6.
func (t *Table) lookup6(a *flow.Addr) *Hop {
	starts := t.starts6
	if len(starts) == 0 {
		return &t.noRoute
	}
	at, n := 0, len(starts)
	for n > 3 {
		q := n / 4
		at += q&reaches6(a, &starts[at+q]) + q&reaches6(a, &starts[at+2*q]) + q&reaches6(a, &starts[at+3*q])
		n -= 3 * q
	}
	for n > 1 {
		at -= reaches6(a, &starts[at+1])
		n--
	}
	return t.hops6[at]
}

// reaches4 returns -1, all bits set, if start <= a, and 0 if not.
func reaches4(a, start uint32) int {
	_, below := bits.Sub64(uint64(a), uint64(start), 0)
	return int(below) - 1
}

// reaches6 is reaches4 for IPv6.
func reaches6(a, start *flow.Addr) int {
	_, below := bits.Sub64(a.Lo, start.Lo, 0)
	_, below = bits.Sub64(a.Hi, start.Hi, below)
	return int(below) - 1
}

// RouteView is an entry of a Table for people: a route, a neighbour on the
// link, or an address of the host.
type RouteView struct {
	Dst flow.AddrRange
	Hop Hop
}

// Routes lists what t was built from, by address and then from the widest to
// the narrowest. The slice is the caller's.
func (t *Table) Routes() []RouteView { return slices.Clone(t.views) }

// String returns the state's name as reports show it.
func (s State) String() string {
	switch s {
	case NoRoute:
		return "no_route"
	case Local:
		return "local"
	case Unresolved:
		return "unresolved"
	case Ready:
		return "ready"
	case Group:
		return "group"
	}
	return "unknown"
}
