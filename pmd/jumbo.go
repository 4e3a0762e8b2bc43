package pmd

import (
	"fmt"
	"math"
)

// Jumbo says how many jumbo frames a Pool has, and of what size. The zero Jumbo is
// none.
//
// A jumbo frame is a run of chunks, one behind the other, that holds one packet with
// Headroom in front, as a chunk does: nobody but a driver needs to know the
// difference. A driver whose device takes no more than a chunk at a time copies what
// comes in several into one jumbo frame, and sends one as a chain of its chunks.
type Jumbo struct {
	Size  int // bytes of one, a multiple of the chunk size of at least two chunks; at most MaxJumbo
	Count int
}

// MaxJumbo bounds a jumbo frame: packets of 16,046 bytes, and what goes around them.
const MaxJumbo = 16384

// Bytes returns how much memory the jumbo frames of j take.
func (j Jumbo) Bytes() int { return j.Size * j.Count }

func (j Jumbo) check(mem, chunk int) error {
	if j == (Jumbo{}) {
		return nil
	}
	if j.Size > MaxJumbo || j.Size < 2*chunk || j.Size%chunk != 0 || j.Count < 1 {
		return fmt.Errorf("%w: %d jumbo frames of %d bytes are not one at least, of two frames of %d bytes at least, up to %d bytes",
			ErrPool, j.Count, j.Size, chunk, MaxJumbo)
	}
	if j.Count > (mem-chunk)/j.Size {
		return fmt.Errorf("%w: %d jumbo frames of %d bytes leave nothing of %d bytes of memory", ErrPool, j.Count, j.Size, mem)
	}
	return nil
}

// What lies around an IP packet in a frame: a tagged Ethernet header, and what ESP
// appends to a packet that is sealed to be cut up then.
const (
	framing = 18
	trailer = 64
)

// Room returns how long an IP packet may be that a frame of size bytes holds as it
// is received.
func Room(size int) int { return size - Headroom - framing }

// JumboSize returns the size of jumbo frames, out of chunks of chunk bytes, for
// packets of mtu bytes: 0 if a chunk is enough, and MaxJumbo if nothing is.
func JumboSize(mtu, chunk int) int {
	if mtu <= Room(chunk) {
		return 0
	}
	return min((Headroom+framing+mtu+trailer+chunk-1)/chunk*chunk, MaxJumbo)
}

// jumbos is a Pool's stack of jumbo frames.
type jumbos struct {
	at   int // where the first one is in Pool.Mem; beyond it without any
	size int
	home []bool   // by number: lies on the stack
	free []uint32 // stack of bases
}

// open makes the stack of the jumbo frames that lie at at.
func (s *jumbos) open(at int, j Jumbo) {
	s.at, s.size = math.MaxInt, j.Size
	if j.Count == 0 {
		return
	}
	s.at = at
	s.home, s.free = make([]bool, j.Count), make([]uint32, 0, j.Count)
	for i := j.Count - 1; i >= 0; i-- {
		s.put(uint32(at + i*j.Size))
	}
}

// put takes back the frame at base; it is false if that is none that is away.
func (s *jumbos) put(base uint32) bool {
	at := int(base) - s.at
	if at < 0 || at%s.size != 0 || at/s.size >= len(s.home) || s.home[at/s.size] {
		return false
	}
	s.home[at/s.size] = true
	s.free = append(s.free, base)
	return true
}

// Jumbo returns the jumbo frames that the pool has, and JumboLen how many are home.
func (p *Pool) Jumbo() Jumbo { return Jumbo{p.jumbos.size, len(p.jumbos.home)} }

// JumboLen returns how many jumbo frames are home.
func (p *Pool) JumboLen() int { return len(p.jumbos.free) }

// JumboAt returns where the first jumbo frame is in Mem: the frames whose base lies
// before are chunks. Without any it is 1<<32-1, where no frame is.
func (p *Pool) JumboAt() uint32 { return uint32(min(p.jumbos.at, math.MaxUint32)) }

// GetJumbo takes a jumbo frame and returns its base; the caller owns it.
func (p *Pool) GetJumbo() (base uint32, ok bool) {
	s := &p.jumbos
	if len(s.free) == 0 {
		return 0, false
	}
	base = s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.home[(int(base)-s.at)/s.size] = false
	return base, true
}

// GetFor takes a frame that has room for size bytes behind the headroom: a chunk
// where that is enough, else a jumbo frame. It is false when there is none.
func (p *Pool) GetFor(size int) (base uint32, ok bool) {
	switch {
	case size <= int(p.chunk)-Headroom:
		var one [1]uint32
		ok = p.Get(one[:]) == 1
		return one[0], ok
	case size <= p.jumbos.size-Headroom:
		return p.GetJumbo()
	}
	return 0, false
}

// Longest returns how many bytes the largest frame has, headroom included.
func (p *Pool) Longest() int { return max(int(p.chunk), p.jumbos.size) }
