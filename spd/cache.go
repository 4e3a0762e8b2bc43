package spd

import (
	"math"
	"math/bits"

	"spigot/internal/flow"
)

// ways is how many tuples share a set.
const ways = 4

// Cache remembers which policy answered for which tuple, "none" included. It
// belongs to one worker. One Cache serves the tables of both directions, each
// by what that table says: an edit of the SPD does not empty it, but has each
// entry judged again when it is next used (see history).
type Cache struct {
	sets  []set // a power of two
	seed  [5]uint64
	table [2]*Table // by direction; the tables last used

	hits, misses, revalidated uint64
}

// set holds up to four decisions. What every lookup reads is in its first 64
// bytes; a tag in key tells ways apart before their addresses are read.
type set struct {
	key   [ways]uint64 // source port, destination port, protocol, flags, tag; 0: empty
	value [ways]uint64 // generation's low half << 32 | slot
	addr  [ways]pair
}

type pair struct{ src, dst flow.Addr }

// The parts of a key beside the ports.
const (
	keyUsed    = 1 << 16
	keyNoPorts = 1 << 17
	keyDir     = 18 // shift of the direction
	keyProto   = 24
)

// NewCache returns a cache for at least that many tuples, at 48 bytes each.
// The seed keeps senders from choosing tuples that collide: make it random and
// different for each worker.
func NewCache(entries int, seed uint64) *Cache {
	n := 1
	for n*ways < entries {
		n *= 2
	}
	c := &Cache{sets: make([]set, n)}
	for i := range c.seed { // splitmix64
		seed += 0x9e3779b97f4a7c15
		z := (seed ^ seed>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		c.seed[i] = z ^ z>>31
	}
	return c
}

// Lookup returns what t.Lookup returns.
func (c *Cache) Lookup(t *Table, tu *flow.Tuple) *Policy {
	if t == nil || t.live == 0 {
		return nil
	}
	if c.table[t.dir&1] != t {
		c.adopt(t)
	}
	key, hash := c.keyOf(t, tu)
	s := &c.sets[hash&uint64(len(c.sets)-1)]
	for i := range s.key {
		if s.key[i] == key && s.addr[i].src == tu.Src && s.addr[i].dst == tu.Dst {
			if uint32(s.value[i]>>32) == uint32(t.gen) {
				c.hits++
				return t.at(uint32(s.value[i])).policy
			}
			return c.judge(t, tu, s, i)
		}
	}
	i := s.victim(c.misses)
	s.key[i], s.addr[i] = key, pair{tu.Src, tu.Dst}
	return c.fill(t, tu, s, i)
}

// Stats returns how many lookups the cache answered, how many it passed on to
// the table, and how many of the former it had to judge against edits first.
func (c *Cache) Stats() (hits, misses, revalidated uint64) {
	return c.hits, c.misses, c.revalidated
}

// judge answers from entry i of s, which is of another generation.
func (c *Cache) judge(t *Table, tu *flow.Tuple, s *set, i int) *Policy {
	slot := uint32(s.value[i])
	gen := t.gen&^math.MaxUint32 | s.value[i]>>32
	if !t.stands(slot, gen, tu) {
		return c.fill(t, tu, s, i)
	}
	c.hits++
	c.revalidated++
	s.value[i] = t.gen<<32 | uint64(slot)
	return t.at(slot).policy
}

// fill answers from t and notes the answer in entry i of s.
func (c *Cache) fill(t *Table, tu *flow.Tuple, s *set, i int) *Policy {
	c.misses++
	p := makeProbe(tu)
	slot := t.find(&p)
	s.value[i] = t.gen<<32 | uint64(slot)
	return t.at(slot).policy
}

// victim returns the way to be overwritten: an empty one, or by turns.
func (s *set) victim(turn uint64) int {
	for i, k := range s.key {
		if k == 0 {
			return i
		}
	}
	return int(turn % ways)
}

// adopt makes t the table of its direction. What an older table of t's lineage
// decided stays; what another lineage did, or t's own so long ago that the low
// half of the generation came round, goes.
func (c *Cache) adopt(t *Table) {
	old := c.table[t.dir&1]
	c.table[t.dir&1] = t
	if old == nil || old.line == t.line && old.gen>>32 == t.gen>>32 {
		return
	}
	for i := range c.sets {
		for w, k := range c.sets[i].key {
			if k>>keyDir&1 == uint64(t.dir&1) {
				c.sets[i].key[w] = 0
			}
		}
	}
}

// keyOf returns the tuple's key for t's direction, and its hash.
func (c *Cache) keyOf(t *Table, tu *flow.Tuple) (key, hash uint64) {
	key = uint64(tu.SrcPort)<<48 | uint64(tu.DstPort)<<32 | uint64(tu.Proto)<<keyProto |
		uint64(t.dir&1)<<keyDir | keyUsed
	if tu.NoPorts {
		key |= keyNoPorts
	}
	// Each product is folded: of the low half alone, low bits depend on low bits
	// only, and prefixes have those in common.
	hash = mix(mix(tu.Src.Lo^c.seed[0], tu.Dst.Lo^c.seed[1])^key,
		mix(tu.Src.Hi^c.seed[2], tu.Dst.Hi^c.seed[3])^c.seed[4])
	return key | hash>>48, hash
}

// mix multiplies and folds the product.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
