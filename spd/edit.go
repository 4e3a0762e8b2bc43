package spd

import (
	"cmp"
	"math"
	"slices"
)

// Bounds of the layers.
const (
	layerRatio = 4  // a layer is more than that many times as large as the next one
	maxLitter  = 64 // beyond as many as there are policies: refs of policies that left
)

// Edit builds the table that replaces prev: without the policies whose IDs are
// in gone, and with those in add, which have IDs that differ. An added policy
// comes after all of its Priority; but one whose ID, selector and Priority are a
// policy's of prev takes the place of that, whether gone names it or not.
//
// It costs what changes, not what there is, so that a key daemon can add a
// policy to a hundred thousand. The rules of Compile hold.
func Edit(prev *Table, gone []uint32, add []*Policy) (*Table, error) {
	if prev == nil {
		return Compile(nil, add)
	}
	t := &Table{dir: prev.dir}
	if prev.live == 0 && len(add) > 0 && add[0] != nil {
		t.dir = add[0].Dir
	}
	if err := t.check(prev, add); err != nil {
		return nil, err
	}
	line := prev.line
	if uint64(line.seq)+uint64(len(add)) > math.MaxUint32 || !line.advance(prev.gen) {
		return Compile(prev, prev.edited(gone, add))
	}
	t.live, t.layers = prev.live, prev.layers
	t.history = history{line: line, gen: prev.gen + 1, adds: prev.adds, floor: prev.floor}
	t.chunks, t.ported = slices.Clone(prev.chunks), prev.ported.edited(gone, add)
	w := &writer{t: t, own: map[uint32]bool{}}
	fresh := w.replace(gone, add)
	slices.SortStableFunc(fresh, func(p, q *Policy) int { return cmp.Compare(p.Priority, q.Priority) })
	refs, boxes := make([]ref, len(fresh)), make([]box, len(fresh))
	for i, p := range fresh {
		boxes[i] = makeBox(&p.Sel)
		refs[i] = w.settle(p, uint64(p.Priority)<<32|uint64(line.seq))
		line.seq++
	}
	t.remember(prev.adds, refs, boxes)
	t.stack(refs, boxes)
	return t, nil
}

// edited returns the policies that Edit is to make a table of.
func (t *Table) edited(gone []uint32, add []*Policy) []*Policy {
	change := make(map[uint32]*Policy, len(gone)+len(add))
	for _, id := range gone {
		change[id] = nil
	}
	for _, p := range add {
		change[p.ID] = p
	}
	var rules []*Policy
	placed := map[*Policy]bool{}
	for _, p := range t.Policies() {
		q, changes := change[p.ID]
		switch {
		case !changes:
			rules = append(rules, p)
		case q != nil && q.inPlaceOf(p):
			rules = append(rules, q)
			placed[q] = true
		}
	}
	for _, p := range add {
		if !placed[p] {
			rules = append(rules, p)
		}
	}
	return rules
}

// inPlaceOf says whether p differs from q in nothing that a lookup is about.
func (p *Policy) inPlaceOf(q *Policy) bool { return p.Sel == q.Sel && p.Priority == q.Priority }

// writer changes the slots of a table that nobody has seen yet.
type writer struct {
	t   *Table
	own map[uint32]bool // chunks that are the table's alone
}

// entry returns slot s to be changed.
func (w *writer) entry(s uint32) *entry {
	c := s / chunkLen
	if int(c) == len(w.t.chunks) {
		w.t.chunks = append(w.t.chunks, new(chunk))
		w.own[c] = true
	}
	if !w.own[c] {
		mine := *w.t.chunks[c]
		w.t.chunks[c], w.own[c] = &mine, true
	}
	return &w.t.chunks[c][s%chunkLen]
}

// replace takes away what is gone, and of add what has been there already; it
// returns those that need a place.
func (w *writer) replace(gone []uint32, add []*Policy) (fresh []*Policy) {
	stay := make(map[uint32]bool, len(add))
	for _, p := range add {
		s, there := w.t.line.slotOf[p.ID]
		if there && p.inPlaceOf(w.t.at(s).policy) {
			w.entry(s).policy = p
			stay[p.ID] = true
			continue
		}
		if there {
			w.vacate(p.ID, s)
		}
		fresh = append(fresh, p)
	}
	for _, id := range gone {
		if s, there := w.t.line.slotOf[id]; there && !stay[id] {
			w.vacate(id, s)
		}
	}
	return fresh
}

// vacate takes the policy with that ID from slot s.
func (w *writer) vacate(id, s uint32) {
	*w.entry(s) = entry{born: never}
	delete(w.t.line.slotOf, id)
	w.t.line.free = append(w.t.line.free, s)
	w.t.live--
}

// settle gives p a slot.
func (w *writer) settle(p *Policy, key uint64) ref {
	line := w.t.line
	s := line.slots
	if n := len(line.free); n > 0 {
		s, line.free = line.free[n-1], line.free[:n-1]
	} else {
		line.slots++
	}
	r := ref{key: key, born: w.t.gen, slot: s}
	*w.entry(s) = entry{policy: p, born: r.born, key: key}
	line.slotOf[p.ID] = s
	w.t.live++
	return r
}

// stack puts a layer of these refs, which may be none, on the others. Each
// policy is in one layer after the other, each several times as large as the
// one before, so that it is indexed a few times only however many follow it.
func (t *Table) stack(refs []ref, boxes []box) {
	n, from := len(refs), len(t.layers)
	for from > 0 && n > 0 && len(t.layers[from-1].refs) <= layerRatio*n {
		from--
		n += len(t.layers[from].refs)
	}
	total := n
	for _, l := range t.layers[:from] {
		total += len(l.refs)
	}
	if total > 2*t.live+maxLitter { // mostly of policies that have left
		from, n = 0, total
	} else if len(refs) == 0 {
		return
	}
	parts := append(slices.Clone(t.layers[from:]), &layer{refs: refs, boxes: boxes})
	joined := t.join(parts)
	t.layers = slices.Clone(t.layers[:from])
	if len(joined.refs) > 0 {
		t.layers = append(t.layers, newLayer(joined.refs, joined.boxes))
	}
}

// join returns one layer, without an index, of what the layers hold of t.
func (t *Table) join(layers []*layer) *layer {
	all := new(layer)
	for _, l := range slices.Backward(layers) { // the small ones first
		all = t.merge(all, l)
	}
	return all
}

// merge joins two layers, by key.
func (t *Table) merge(a, b *layer) *layer {
	m := &layer{refs: make([]ref, 0, len(a.refs)+len(b.refs)), boxes: make([]box, 0, len(a.refs)+len(b.refs))}
	for i, j := 0, 0; i < len(a.refs) || j < len(b.refs); {
		l, at := a, &i
		if i == len(a.refs) || j < len(b.refs) && b.refs[j].key < a.refs[i].key {
			l, at = b, &j
		}
		if t.holds(&l.refs[*at]) {
			m.refs, m.boxes = append(m.refs, l.refs[*at]), append(m.boxes, l.boxes[*at])
		}
		*at++
	}
	return m
}
