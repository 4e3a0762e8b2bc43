package sad

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// A table equals a map under any edits, and every copy stays what it was.
func TestTableEqualsAMap(t *testing.T) {
	type snapshot struct {
		table table[uint32, int]
		model map[uint32]*int
	}
	rapid.Check(t, func(t *rapid.T) {
		// A poor hash: few shards, long chains that wrap around.
		spread := rapid.SampledFrom([]uint64{0, 1, 1 << 55, 0x9e3779b97f4a7c15}).Draw(t, "spread")
		hash := func(k *uint32) uint64 { return uint64(*k)*spread - 2 }
		var now table[uint32, int]
		model := map[uint32]*int{}
		var kept []snapshot
		gen := uint64(1)

		equal := func(s snapshot) {
			if s.table.len != len(s.model) {
				t.Fatalf("%d entries, want %d", s.table.len, len(s.model))
			}
			for k := range uint32(64) {
				if got := s.table.get(hash(&k), &k); got != s.model[k] {
					t.Fatalf("key %d: %p, want %p", k, got, s.model[k])
				}
			}
		}
		key := rapid.Uint32Range(0, 60)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), new(int)
				now.set(gen, k, v, hash)
				model[k] = v
			},
			"remove": func(t *rapid.T) {
				k := key.Draw(t, "key")
				now.set(gen, k, nil, hash)
				delete(model, k)
			},
			"copy": func(*rapid.T) {
				kept = append(kept, snapshot{now, maps.Clone(model)})
				gen++
			},
			"": func(*rapid.T) {
				equal(snapshot{now, model})
				for _, s := range kept {
					equal(s)
				}
			},
		})
	})
}

// Shards stay between an eighth and a half full, so that neither a hit nor a
// miss probes for long and removed entries give their memory back.
func TestTableLoad(t *testing.T) {
	s := seed{1, 2, 3, 4}
	var now table[uint32, int]
	v := new(int)
	check := func() {
		var shards []*shard[uint32, int]
		for _, b := range now.root {
			if b != nil {
				shards = append(shards, b.shards[:]...)
			}
		}
		for _, sh := range shards {
			if sh == nil {
				continue
			}
			used := 0
			for i := range sh.slots {
				if sh.slots[i].val != nil {
					used++
				}
			}
			if used != sh.used || 2*used > len(sh.slots) || used == 0 || len(sh.slots) > max(minSlots, 8*used) {
				t.Fatalf("%d of %d slots used, counted as %d", used, len(sh.slots), sh.used)
			}
		}
	}
	const n = 200_000
	for k := range uint32(n) {
		now.set(1, k, v, s.policy)
	}
	check()
	for k := range uint32(n - 100) {
		now.set(1, k, nil, s.policy)
	}
	check()
	if now.len != 100 {
		t.Errorf("%d entries left, want 100", now.len)
	}
}
