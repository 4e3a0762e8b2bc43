package pmd_test

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"spigot/pmd"
)

func TestJumboGeometry(t *testing.T) {
	for _, row := range []struct {
		mem, chunk int
		jumbo      pmd.Jumbo
		chunks     int // 0: refused
	}{
		{16 * 2048, 2048, pmd.Jumbo{}, 16},
		{16 * 2048, 2048, pmd.Jumbo{Size: 5 * 2048, Count: 3}, 1},
		{16 * 2048, 2048, pmd.Jumbo{Size: 8 * 2048, Count: 1}, 8},
		{7 * 4096, 4096, pmd.Jumbo{Size: 3 * 4096, Count: 2}, 1},

		{15 * 2048, 2048, pmd.Jumbo{Size: 5 * 2048, Count: 3}, 0}, // no chunk is left
		{16 * 2048, 2048, pmd.Jumbo{Size: 9 * 2048, Count: 1}, 0}, // above MaxJumbo
		{16 * 2048, 2048, pmd.Jumbo{Size: 2048, Count: 1}, 0},
		{16 * 2048, 2048, pmd.Jumbo{Size: 5000, Count: 1}, 0},
		{16 * 2048, 2048, pmd.Jumbo{Size: 4096}, 0},
		{16 * 2048, 2048, pmd.Jumbo{Count: 1}, 0},
		{16 * 2048, 2048, pmd.Jumbo{Size: 4096, Count: -1}, 0},
		{16 * 2048, 2048, pmd.Jumbo{Size: 4096, Count: 1 << 62}, 0},
	} {
		p, err := pmd.NewJumboPool(heap(row.mem), row.chunk, row.jumbo)
		switch {
		case row.chunks == 0 && !errors.Is(err, pmd.ErrPool):
			t.Errorf("%+v: error %v is not ErrPool", row, err)
		case row.chunks > 0 && err != nil:
			t.Errorf("%+v: %v", row, err)
		case row.chunks > 0 && (p.Cap() != row.chunks+row.jumbo.Count || p.Len() != p.Cap() || p.Jumbo() != row.jumbo ||
			p.JumboLen() != row.jumbo.Count || p.Longest() != max(row.chunk, row.jumbo.Size) || p.Bad() != 0):
			t.Errorf("%+v: %d of %d frames home, %d of %+v", row, p.Len(), p.Cap(), p.JumboLen(), p.Jumbo())
		}
	}
}

func TestJumboSize(t *testing.T) {
	for _, row := range []struct{ mtu, chunk, size int }{
		{1500, 2048, 0},
		{1774, 2048, 0},
		{1775, 2048, 2 * 2048},
		{3822, 4096, 0},
		{3823, 4096, 2 * 4096},
		{9000, 2048, 5 * 2048},
		{9000, 4096, 3 * 4096},
		{9216, 2048, 5 * 2048},
		{16046, 2048, pmd.MaxJumbo},
		{65535, 4096, pmd.MaxJumbo},
	} {
		got := pmd.JumboSize(row.mtu, row.chunk)
		if got != row.size {
			t.Errorf("packets of %d bytes in chunks of %d: jumbo frames of %d bytes, want %d", row.mtu, row.chunk, got, row.size)
		}
		if row.mtu <= 16046 && pmd.Room(max(got, row.chunk)) < row.mtu {
			t.Errorf("packets of %d bytes do not fit frames of %d", row.mtu, got)
		}
	}
}

// Whatever is taken and returned, a jumbo frame has one owner, shares no byte with a
// chunk or with another one, and is home in the end.
func TestJumbosAgainstMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const chunk = 2048
		j := pmd.Jumbo{Size: chunk * rapid.IntRange(2, 8).Draw(rt, "run"), Count: rapid.IntRange(1, 6).Draw(rt, "count")}
		chunks := rapid.IntRange(1, 6).Draw(rt, "chunks")
		p, err := pmd.NewJumboPool(heap(chunks*chunk+j.Bytes()), chunk, j)
		if err != nil {
			rt.Fatal(err)
		}
		out := map[uint32]bool{} // frames that are away, by base
		bad := uint64(0)
		take := func(rt *rapid.T, base uint32, size int) {
			if c := p.ChunkOf(pmd.Frame{Base: base}); len(c) != size || cap(c) != size {
				rt.Fatalf("the frame at %d has %d bytes, capacity %d, want %d", base, len(c), cap(c), size)
			}
			for other := range out {
				if lo, hi := min(base, other), max(base, other); int(lo)+len(p.ChunkOf(pmd.Frame{Base: lo})) > int(hi) {
					rt.Fatalf("the frames at %d and %d overlap", lo, hi)
				}
			}
			if (base >= p.JumboAt()) != (size == j.Size) {
				rt.Fatalf("a frame of %d bytes at %d, and jumbo frames begin at %d", size, base, p.JumboAt())
			}
			out[base] = true
		}
		rt.Repeat(map[string]func(*rapid.T){
			"chunk": func(rt *rapid.T) {
				var b [1]uint32
				if p.Get(b[:]) == 1 {
					take(rt, b[0], chunk)
				}
			},
			"jumbo": func(rt *rapid.T) {
				home := p.JumboLen()
				base, ok := p.GetJumbo()
				if ok != (home > 0) {
					rt.Fatalf("GetJumbo is %v with %d home", ok, home)
				}
				if ok {
					take(rt, base, j.Size)
				}
			},
			"for": func(rt *rapid.T) {
				size := rapid.IntRange(0, j.Size).Draw(rt, "size")
				if base, ok := p.GetFor(size); ok {
					take(rt, base, len(p.ChunkOf(pmd.Frame{Base: base})))
					if room := len(p.ChunkOf(pmd.Frame{Base: base})) - pmd.Headroom; room < size || base >= p.JumboAt() && size <= chunk-pmd.Headroom {
						rt.Fatalf("a frame with room for %d bytes for one of %d", room, size)
					}
				}
			},
			"put": func(rt *rapid.T) {
				base := rapid.Uint32Range(0, uint32(len(p.Mem())+chunk)).Draw(rt, "base")
				if len(out) > 0 && rapid.Bool().Draw(rt, "own") {
					var bases []uint32
					for b := range out {
						bases = append(bases, b)
					}
					slices.Sort(bases)
					base = rapid.SampledFrom(bases).Draw(rt, "which")
				}
				if !out[base] {
					bad++
				}
				p.Put(base)
				delete(out, base)
			},
			"": func(rt *rapid.T) {
				if p.Len()+len(out) != p.Cap() || p.Bad() != bad {
					rt.Fatalf("%d home and %d away of %d; %d refused, want %d", p.Len(), len(out), p.Cap(), p.Bad(), bad)
				}
			},
		})
	})
}
