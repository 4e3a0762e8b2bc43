package spd

import (
	"cmp"
	"slices"

	"spigot/internal/flow"
)

// Bounds of the index. A lookup compares with at most maxList boxes a level
// and with all of the rest.
const (
	maxLinear = 12 // so few boxes are faster compared than indexed
	maxLevels = 8
	maxList   = 16 // boxes a list
	maxCopies = 2  // lists a box is copied to, on average of a level
	maxSpan   = 64 // lists a single box is copied to; bounds the work of Compile
)

// level finds candidates by one address of the tuple. The cuts part the
// addresses into intervals in which the set of boxes is the same; each interval
// has the list of their ranks.
//
// A box that spans too many intervals is left to a later level, whose boxes
// are all wide and so have few cuts: prefixes fall apart by length, as they
// would in a table a length, but ranges need no expansion.
type level struct {
	byDst bool
	least uint32      // the least rank in ranks
	cuts  []flow.Addr // where intervals start, ascending; below the first there is nothing
	start []uint32    // interval i has ranks[start[i]:start[i+1]]
	ranks []uint32    // ascending in each list
}

// candidates returns the ranks of the level's boxes around p's address.
func (l *level) candidates(p *probe) []uint32 {
	a := p.src
	if l.byDst {
		a = p.dst
	}
	i := upperBound(l.cuts, a)
	if i == 0 {
		return nil
	}
	return l.ranks[l.start[i-1]:l.start[i]]
}

// longest returns the length of the longest list.
func (l *level) longest() int {
	n := uint32(0)
	for i := range l.cuts {
		n = max(n, l.start[i+1]-l.start[i])
	}
	return int(n)
}

// upperBound returns how many of the ascending cuts are not above a. It
// selects by arithmetic: a branch would be mispredicted every other step.
func upperBound(cuts []flow.Addr, a flow.Addr) int {
	base := 0
	for n := len(cuts); n > 0; {
		half := (n + 1) / 2
		base += half &^ -int(below(a, cuts[base+half-1]))
		n -= half
	}
	return base
}

// buildIndex puts the boxes into levels and returns the ranks that are left.
func buildIndex(boxes []box) (levels []level, rest []uint32) {
	rest = make([]uint32, len(boxes))
	for i := range rest {
		rest[i] = uint32(i)
	}
	for len(rest) > maxLinear && len(levels) < maxLevels {
		dst, dstRest := buildLevel(boxes, rest, true)
		src, srcRest := buildLevel(boxes, rest, false)
		l, left := dst, dstRest
		saved := len(rest) - len(dstRest) - dst.longest()
		if s := len(rest) - len(srcRest) - src.longest(); s > saved {
			l, left, saved = src, srcRest, s
		}
		if saved <= maxLinear { // less than the search costs
			break
		}
		levels, rest = append(levels, l), left
	}
	return levels, rest
}

// buildLevel makes a level of those ranks whose boxes are narrow enough, and
// returns the others.
func buildLevel(boxes []box, ranks []uint32, byDst bool) (level, []uint32) {
	side := func(r uint32) flow.AddrRange {
		if byDst {
			return boxes[r].dst
		}
		return boxes[r].src
	}
	narrow, rest := chooseNarrow(ranks, side)
	l := level{byDst: byDst, cuts: cutsOf(narrow, side)}
	if len(narrow) == 0 {
		return l, rest
	}
	l.least = narrow[0]
	l.start = make([]uint32, len(l.cuts)+1)
	for _, r := range narrow {
		lo, hi := spanOf(l.cuts, side(r))
		for i := lo; i < hi; i++ {
			l.start[i+1]++
		}
	}
	for i := range l.cuts {
		l.start[i+1] += l.start[i]
	}
	l.ranks = make([]uint32, l.start[len(l.cuts)])
	next := slices.Clone(l.start)
	for _, r := range narrow {
		lo, hi := spanOf(l.cuts, side(r))
		for i := lo; i < hi; i++ {
			l.ranks[next[i]] = r
			next[i]++
		}
	}
	return l, rest
}

// chooseNarrow parts the ranks, taking those that span the fewest intervals
// first, as long as lists and copies stay within bounds. Both parts ascend.
func chooseNarrow(ranks []uint32, side func(uint32) flow.AddrRange) (narrow, rest []uint32) {
	type span struct {
		rank   uint32
		lo, hi int
	}
	cuts := cutsOf(ranks, side)
	spans := make([]span, len(ranks))
	for i, r := range ranks {
		lo, hi := spanOf(cuts, side(r))
		spans[i] = span{r, lo, hi}
	}
	slices.SortStableFunc(spans, func(a, b span) int { return cmp.Compare(a.hi-a.lo, b.hi-b.lo) })
	length := make([]uint8, len(cuts))
	budget := maxCopies*len(ranks) + maxLinear
	for _, s := range spans {
		if n := s.hi - s.lo; n > budget || n > maxSpan || slices.Max(length[s.lo:s.hi]) >= maxList {
			rest = append(rest, s.rank)
			continue
		}
		budget -= s.hi - s.lo
		for i := s.lo; i < s.hi; i++ {
			length[i]++
		}
		narrow = append(narrow, s.rank)
	}
	slices.Sort(narrow)
	slices.Sort(rest)
	return narrow, rest
}

// cutsOf returns where the ranges of the ranks start, and where they have
// ended, ascending.
func cutsOf(ranks []uint32, side func(uint32) flow.AddrRange) []flow.Addr {
	cuts := make([]flow.Addr, 0, 2*len(ranks))
	for _, r := range ranks {
		a := side(r)
		cuts = append(cuts, a.Lo, after(a.Hi))
	}
	slices.SortFunc(cuts, flow.Addr.Compare)
	return slices.Compact(cuts)
}

// spanOf returns the intervals lo to hi-1 that r covers; its ends are cuts.
func spanOf(cuts []flow.Addr, r flow.AddrRange) (lo, hi int) {
	return upperBound(cuts, r.Lo) - 1, upperBound(cuts, r.Hi)
}

// after returns the address that follows a. Behind the last comes the first,
// where a cut does no harm.
func after(a flow.Addr) flow.Addr {
	if a.Lo++; a.Lo == 0 {
		a.Hi++
	}
	return a
}
