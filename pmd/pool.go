package pmd

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// Memory is the bytes behind a Pool. A driver that registers them with the
// kernel (a UMEM) needs them page-aligned and outside the Go heap: see Map.
type Memory struct {
	Bytes   []byte
	Hugetlb bool
	unmap   func() error
}

// Close releases the memory; no frame of it may be used after. It is a no-op
// for memory of the Go heap.
func (m *Memory) Close() error {
	if m.unmap == nil {
		return nil
	}
	unmap := m.unmap
	m.unmap, m.Bytes = nil, nil
	return unmap()
}

// Pool is a stack of free chunks of one Memory, and behind these, if it was asked
// for them, one of jumbo frames. It belongs to one worker and has no lock. The last
// chunk returned is the first handed out: it is warm.
type Pool struct {
	mem    []byte
	from   int // where jumbo frames begin in mem; beyond it without any
	chunk  uint32
	shift  uint8
	home   []bool   // by chunk number: lies on a stack, or is inside a jumbo frame
	free   []uint32 // stack of chunk bases
	jumbos []uint32 // stack of the bases of jumbo frames
	jumbo  Jumbo
	bad    uint64
	huge   bool
}

// ErrPool is wrapped by the errors of NewPool.
var ErrPool = errors.New("pmd: bad pool geometry")

// NewPool cuts mem into chunks of chunk bytes, a power of two from 2048 to
// 32768 that divides len(mem), which is at most 4 GiB. It owns mem's bytes
// until Memory.Close.
func NewPool(mem *Memory, chunk int) (*Pool, error) { return NewJumboPool(mem, chunk, Jumbo{}) }

// NewJumboPool is NewPool with jumbo frames at the end of mem. What is in front of
// them is chunks, at least one.
func NewJumboPool(mem *Memory, chunk int, j Jumbo) (*Pool, error) {
	if chunk < 2048 || chunk > 32768 || chunk&(chunk-1) != 0 {
		return nil, fmt.Errorf("%w: frame size %d is not a power of two from 2048 to 32768", ErrPool, chunk)
	}
	if len(mem.Bytes) == 0 || len(mem.Bytes)%chunk != 0 || uint64(len(mem.Bytes)) > 1<<32 {
		return nil, fmt.Errorf("%w: %d bytes of memory are not a multiple of the frame size %d, up to 4 GiB", ErrPool, len(mem.Bytes), chunk)
	}
	if err := j.check(len(mem.Bytes), chunk); err != nil {
		return nil, err
	}
	n := len(mem.Bytes) / chunk
	p := &Pool{
		mem:    mem.Bytes,
		from:   math.MaxInt,
		chunk:  uint32(chunk),
		shift:  uint8(bits.TrailingZeros(uint(chunk))),
		home:   make([]bool, n),
		free:   make([]uint32, 0, n-j.Bytes()/chunk),
		jumbos: make([]uint32, 0, j.Count),
		jumbo:  j,
		huge:   mem.Hugetlb,
	}
	if j.Count > 0 {
		p.from = len(mem.Bytes) - j.Bytes()
		p.layJumbos()
	}
	for i := cap(p.free) - 1; i >= 0; i-- {
		p.Put(uint32(i) << p.shift)
	}
	return p, nil
}

// Mem returns all the memory, chunk after chunk; jumbo frames are whole chunks, too.
func (p *Pool) Mem() []byte { return p.mem }

// Hugetlb says whether the memory lies on huge pages.
func (p *Pool) Hugetlb() bool { return p.huge }

// Chunk returns the size of a chunk in bytes.
func (p *Pool) Chunk() int { return int(p.chunk) }

// Cap returns how many frames there are, chunks and jumbo frames, and Len how many
// are home. The two are equal when nothing is in flight.
func (p *Pool) Cap() int { return cap(p.free) + cap(p.jumbos) }

// Len returns how many frames are home.
func (p *Pool) Len() int { return len(p.free) + len(p.jumbos) }

// Bad returns how many times Put refused a frame.
func (p *Pool) Bad() uint64 { return p.bad }

// Get takes up to len(bases) chunks, stores their bases and returns how many;
// the caller owns them.
func (p *Pool) Get(bases []uint32) int {
	n := min(len(bases), len(p.free))
	left := len(p.free) - n
	copy(bases, p.free[left:])
	for _, b := range p.free[left:] {
		p.home[b>>p.shift] = false
	}
	p.free = p.free[:left]
	return n
}

// Put returns the chunk, or the jumbo frame, at base to the pool. A base that is
// none, or that is home already, is counted and ignored: it would hand one frame to
// two owners.
func (p *Pool) Put(base uint32) {
	i := base >> p.shift
	if int(i) >= len(p.home) || base&(p.chunk-1) != 0 || p.home[i] {
		p.bad++
		return
	}
	p.home[i] = true
	if int(base) >= p.from {
		p.jumbos = append(p.jumbos, base)
		return
	}
	p.free = append(p.free, base)
}

// Bytes returns the packet in f; its capacity ends with the frame, so that append
// cannot reach another one. It panics when f does not lie in a chunk, or jumbo frame.
func (p *Pool) Bytes(f Frame) []byte {
	c := p.ChunkOf(f)
	return c[f.Off : uint32(f.Off)+uint32(f.Len)]
}

// ChunkOf returns all bytes of f's chunk, or jumbo frame, headroom and tailroom
// included.
func (p *Pool) ChunkOf(f Frame) []byte {
	start, end := int(f.Base), int(f.Base)+int(p.chunk)
	if start >= p.from {
		end = start + p.jumbo.Size
	}
	return p.mem[start:end:end]
}
