package pmd_test

import (
	"errors"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"spigot/pmd"
)

// heap returns memory of size bytes on the Go heap.
func heap(size int) *pmd.Memory { return &pmd.Memory{Bytes: make([]byte, size)} }

// reserve returns size bytes of addresses that nobody may touch.
func reserve(t testing.TB, size int) *pmd.Memory {
	t.Helper()
	b, err := syscall.Mmap(-1, 0, size, syscall.PROT_NONE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	return &pmd.Memory{Bytes: b}
}

func newPool(t testing.TB, mem *pmd.Memory, chunk int) *pmd.Pool {
	t.Helper()
	p, err := pmd.NewPool(mem, chunk)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPoolGeometry(t *testing.T) {
	for _, row := range []struct {
		mem    *pmd.Memory
		chunk  int
		chunks int // 0: refused
	}{
		{heap(2048), 2048, 1},
		{heap(4 * 2048), 2048, 4},
		{heap(3 * 4096), 4096, 3},
		{heap(2 * 32768), 32768, 2},
		{reserve(t, 1<<32), 32768, 1 << 17},

		{heap(0), 2048, 0},
		{heap(4096), 0, 0},
		{heap(4096), -2048, 0},
		{heap(4096), 1024, 0},
		{heap(3000), 3000, 0},
		{heap(65536), 65536, 0},
		{heap(2047), 2048, 0},
		{heap(4097), 2048, 0},
		{heap(2048), 4096, 0},
		{reserve(t, 1<<32+32768), 32768, 0},
	} {
		p, err := pmd.NewPool(row.mem, row.chunk)
		switch {
		case row.chunks == 0 && !errors.Is(err, pmd.ErrPool):
			t.Errorf("%d bytes in chunks of %d: error %v is not ErrPool", len(row.mem.Bytes), row.chunk, err)
		case row.chunks > 0 && err != nil:
			t.Errorf("%d bytes in chunks of %d: %v", len(row.mem.Bytes), row.chunk, err)
		case row.chunks > 0 && (p.Cap() != row.chunks || p.Len() != row.chunks || p.Chunk() != row.chunk || p.Bad() != 0):
			t.Errorf("%d bytes in chunks of %d: %d of %d home, chunk %d, %d refused",
				len(row.mem.Bytes), row.chunk, p.Len(), p.Cap(), p.Chunk(), p.Bad())
		}
	}
}

// The largest pool's last chunk ends with the last address that 32 bits have.
func TestPoolOfFourGigabytes(t *testing.T) {
	p := newPool(t, reserve(t, 1<<32), 32768)
	bases := make([]uint32, p.Cap())
	if n := p.Get(bases); n != 1<<17 {
		t.Fatalf("Get returned %d", n)
	}
	last := uint32(0)
	for _, b := range bases {
		last = max(last, b)
		p.Put(b)
	}
	if last != 1<<32-32768 || p.Len() != p.Cap() || p.Bad() != 0 {
		t.Errorf("last chunk at %#x; %d of %d home, %d refused", last, p.Len(), p.Cap(), p.Bad())
	}
	if c := p.ChunkOf(pmd.Frame{Base: last}); len(c) != 32768 {
		t.Errorf("last chunk has %d bytes", len(c))
	}
}

// Whatever is taken and returned, a chunk has one owner, and a stack decides
// which is next. The oracle knows which chunks are out, and the order of those
// that came back.
func TestPoolAgainstMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const chunk = 2048
		chunks := rapid.IntRange(1, 20).Draw(rt, "chunks")
		p := newPool(t, heap(chunks*chunk), chunk)
		out := map[uint32]bool{}
		var stack []uint32 // of chunks that were returned; below lie those never taken
		bad := uint64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"get": func(rt *rapid.T) {
				bases := make([]uint32, rapid.IntRange(0, 24).Draw(rt, "n"))
				n := p.Get(bases)
				if want := min(len(bases), chunks-len(out)); n != want {
					rt.Fatalf("Get returned %d of %d, %d were home", n, len(bases), want)
				}
				known := min(n, len(stack))
				top := stack[len(stack)-known:]
				for i, b := range bases[:n] {
					if out[b] || b%chunk != 0 || int(b) >= chunks*chunk {
						rt.Fatalf("Get handed out %#x, which is out already or is no chunk", b)
					}
					if at := i - (n - known); at >= 0 && b != top[at] {
						rt.Fatalf("Get handed out %#x as number %d, not %#x that came back last", b, i, top[at])
					}
					out[b] = true
				}
				stack = stack[:len(stack)-known]
				for _, b := range bases[n:] {
					if b != 0 {
						rt.Fatal("Get wrote behind what it returned")
					}
				}
			},
			"put": func(rt *rapid.T) {
				b := rapid.OneOf(
					rapid.Map(rapid.IntRange(0, chunks), func(i int) uint32 { return uint32(i * chunk) }), // one of them is no chunk
					rapid.Uint32Range(0, uint32(chunks*chunk+chunk)),
					rapid.Uint32(),
				).Draw(rt, "base")
				p.Put(b)
				if !out[b] {
					bad++
					return
				}
				delete(out, b)
				stack = append(stack, b)
			},
			"": func(rt *rapid.T) {
				if p.Len() != chunks-len(out) || p.Cap() != chunks || p.Bad() != bad {
					rt.Fatalf("%d of %d home, %d refused; want %d of %d, %d", p.Len(), p.Cap(), p.Bad(), chunks-len(out), chunks, bad)
				}
			},
		})
		for b := range out {
			p.Put(b)
		}
		if p.Len() != p.Cap() {
			rt.Fatalf("%d of %d frames home", p.Len(), p.Cap())
		}
	})
}

func TestPoolRefusesSecondPut(t *testing.T) {
	p := newPool(t, heap(4*2048), 2048)
	var b [1]uint32
	p.Get(b[:])
	for range 3 {
		p.Put(b[0])
	}
	if p.Len() != 4 || p.Bad() != 2 {
		t.Errorf("%d home, %d refused, want 4 and 2", p.Len(), p.Bad())
	}
	var all [5]uint32
	n := p.Get(all[:])
	seen := map[uint32]bool{}
	for _, base := range all[:n] {
		seen[base] = true
		p.Put(base)
	}
	if n != 4 || len(seen) != 4 {
		t.Errorf("%d chunks handed out, %d different, want 4 and 4", n, len(seen))
	}
	if p.Len() != p.Cap() {
		t.Errorf("%d of %d frames home", p.Len(), p.Cap())
	}
}

// A frame's bytes lie where Frame says, and append cannot leave the chunk.
func TestPoolBytes(t *testing.T) {
	const chunk = 2048
	p := newPool(t, heap(3*chunk), chunk)
	for i := range p.Mem() {
		p.Mem()[i] = byte(i / chunk)
	}
	for _, f := range []pmd.Frame{
		{Base: chunk, Off: 0, Len: chunk},
		{Base: chunk, Off: pmd.Headroom, Len: 60},
		{Base: chunk, Off: chunk - 1, Len: 1},
		{Base: chunk, Off: chunk, Len: 0},
		{Base: 2 * chunk, Off: pmd.Headroom, Len: chunk - pmd.Headroom},
	} {
		b := p.Bytes(f)
		if len(b) != int(f.Len) || cap(b) != chunk-int(f.Off) {
			t.Errorf("%+v: length %d, capacity %d", f, len(b), cap(b))
		}
		if len(b) > 0 && &b[0] != &p.Mem()[int(f.Base)+int(f.Off)] {
			t.Errorf("%+v: bytes lie elsewhere", f)
		}
		c := p.ChunkOf(f)
		if len(c) != chunk || cap(c) != chunk || c[0] != byte(f.Base/chunk) || c[chunk-1] != byte(f.Base/chunk) {
			t.Errorf("%+v: chunk has length %d, capacity %d", f, len(c), cap(c))
		}
	}
	for _, f := range []pmd.Frame{
		{Base: 0, Off: chunk - 59, Len: 60},
		{Base: 0, Off: 65535, Len: 65535},
		{Base: 3 * chunk, Len: 1},
	} {
		if !panics(func() { p.Bytes(f) }) {
			t.Errorf("%+v: no panic, though it reaches out of its chunk", f)
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestPoolNoAllocations(t *testing.T) {
	p := newPool(t, heap(128*2048), 2048)
	var bases [64]uint32
	sum := 0
	turn := func() {
		for _, b := range bases[:p.Get(bases[:])] {
			sum += len(p.Bytes(pmd.Frame{Base: b, Off: pmd.Headroom, Len: 60}))
			p.Put(b)
			p.Put(b) // refused
		}
	}
	if n := testing.AllocsPerRun(100, turn); n != 0 {
		t.Errorf("%v allocations a turn", n)
	}
	if sum == 0 || p.Len() != p.Cap() {
		t.Errorf("%d of %d frames home", p.Len(), p.Cap())
	}
}

// BenchmarkPool is the price of taking a chunk and returning it, in bursts.
func BenchmarkPool(b *testing.B) {
	p := newPool(b, heap(4096*2048), 2048)
	var bases [64]uint32
	b.ReportAllocs()
	for n := 0; n < b.N; n += len(bases) {
		for _, base := range bases[:p.Get(bases[:])] {
			p.Put(base)
		}
	}
}
