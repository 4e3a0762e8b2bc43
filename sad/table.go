package sad

import (
	"math/bits"
	"slices"
)

const (
	fanBits  = 6
	fan      = 1 << fanBits
	minSlots = 4
)

// table is a hash table that readers share and one writer edits: 64 branches of
// 64 shards, each open-addressed with linear probing and at most half full. A
// copy of a table is a snapshot of it, and costs nothing: an edit leaves what a
// copy can see alone and copies the root, one branch and one shard instead, the
// first time after the copy was made. The zero table is empty.
//
// The caller hashes. The top bits choose branch and shard, the low ones the slot.
type table[K comparable, V any] struct {
	root *[fan]*branch[K, V]
	gen  uint64 // generation of root: edits of the same one may change it in place
	len  int
}

type branch[K comparable, V any] struct {
	shards [fan]*shard[K, V]
	gen    uint64
}

type shard[K comparable, V any] struct {
	slots []slot[K, V] // a power of two
	used  int
	gen   uint64
}

type slot[K comparable, V any] struct {
	key K
	val *V // nil: empty
}

// get returns the value of k, whose hash is h, or nil.
func (t *table[K, V]) get(h uint64, k *K) *V {
	if t.root == nil {
		return nil
	}
	b := t.root[h>>(64-fanBits)]
	if b == nil {
		return nil
	}
	s := b.shards[h>>(64-2*fanBits)%fan]
	if s == nil {
		return nil
	}
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		e := &s.slots[i]
		if e.val == nil || e.key == *k {
			return e.val
		}
	}
}

// set gives k the value v; nil removes it. gen must be above that of every
// copy of t that is still to be kept as it is. hash is that of the table.
func (t *table[K, V]) set(gen uint64, k K, v *V, hash func(*K) uint64) {
	h := hash(&k)
	was := t.get(h, &k)
	if was == nil && v == nil {
		return
	}
	switch at := t.own(gen, h); {
	case v == nil:
		t.len--
		*at = (*at).without(h, k, hash)
	case was == nil:
		t.len++
		*at = (*at).grown(hash)
		(*at).used++
		(*at).put(h, k, v)
	default:
		(*at).put(h, k, v)
	}
}

// own returns where h's shard is kept, both fit to be changed in place.
func (t *table[K, V]) own(gen, h uint64) **shard[K, V] {
	switch {
	case t.root == nil:
		t.root = new([fan]*branch[K, V])
	case t.gen != gen:
		root := *t.root
		t.root = &root
	}
	t.gen = gen
	b := &t.root[h>>(64-fanBits)]
	switch {
	case *b == nil:
		*b = &branch[K, V]{gen: gen}
	case (*b).gen != gen:
		*b = &branch[K, V]{(*b).shards, gen}
	}
	at := &(*b).shards[h>>(64-2*fanBits)%fan]
	switch s := *at; {
	case s == nil:
		*at = &shard[K, V]{slots: make([]slot[K, V], minSlots), gen: gen}
	case s.gen != gen:
		*at = &shard[K, V]{slots: slices.Clone(s.slots), used: s.used, gen: gen}
	}
	return at
}

// put stores (k, v) in k's slot or in the first empty one.
func (s *shard[K, V]) put(h uint64, k K, v *V) {
	mask := uint64(len(s.slots) - 1)
	i := h & mask
	for s.slots[i].val != nil && s.slots[i].key != k {
		i = (i + 1) & mask
	}
	s.slots[i] = slot[K, V]{k, v}
}

// grown returns s if it has room for one more, else twice s.
func (s *shard[K, V]) grown(hash func(*K) uint64) *shard[K, V] {
	if 2*(s.used+1) <= len(s.slots) {
		return s
	}
	return s.rebuilt(2*len(s.slots), hash)
}

// without takes k, which is there, out of s and returns what is left: nil for
// nothing, or a smaller shard. Probing stops at an empty slot, so entries that
// lie behind k only because k was in their way move up (Knuth's algorithm R).
func (s *shard[K, V]) without(h uint64, k K, hash func(*K) uint64) *shard[K, V] {
	if s.used--; s.used == 0 {
		return nil
	}
	mask := uint64(len(s.slots) - 1)
	hole := h & mask
	for s.slots[hole].key != k || s.slots[hole].val == nil {
		hole = (hole + 1) & mask
	}
	for i := (hole + 1) & mask; s.slots[i].val != nil; i = (i + 1) & mask {
		if home := hash(&s.slots[i].key); (i-home)&mask >= (i-hole)&mask {
			s.slots[hole] = s.slots[i]
			hole = i
		}
	}
	s.slots[hole] = slot[K, V]{}
	if n := len(s.slots); n > minSlots && 8*s.used < n {
		return s.rebuilt(n/2, hash)
	}
	return s
}

// rebuilt returns s with n slots.
func (s *shard[K, V]) rebuilt(n int, hash func(*K) uint64) *shard[K, V] {
	r := &shard[K, V]{slots: make([]slot[K, V], n), used: s.used, gen: s.gen}
	for i := range s.slots {
		if e := &s.slots[i]; e.val != nil {
			r.put(hash(&e.key), e.key, e.val)
		}
	}
	return r
}

// seed makes the hash of a DB its own, so that nobody can choose keys that
// collide.
type seed [4]uint64

// mix folds the 128-bit product of a and b.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
