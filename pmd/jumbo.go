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

// layJumbos puts the jumbo frames on their stack. The chunks inside of one, behind
// its first, are never handed out: Put takes them for chunks that are home.
func (p *Pool) layJumbos() {
	for i := p.from >> p.shift; i < len(p.home); i++ {
		p.home[i] = true
	}
	for at := len(p.mem) - p.jumbo.Size; at >= p.from; at -= p.jumbo.Size {
		p.home[at>>p.shift] = false
		p.Put(uint32(at))
	}
}

// Jumbo returns the jumbo frames that the pool has.
func (p *Pool) Jumbo() Jumbo { return p.jumbo }

// JumboLen returns how many jumbo frames are home.
func (p *Pool) JumboLen() int { return len(p.jumbos) }

// JumboAt returns where the first jumbo frame is in Mem: the frames whose base lies
// before are chunks. Without any it is 1<<32-1, where no frame is.
func (p *Pool) JumboAt() uint32 { return uint32(min(p.from, math.MaxUint32)) }

// GetJumbo takes a jumbo frame and returns its base; the caller owns it.
func (p *Pool) GetJumbo() (base uint32, ok bool) {
	last := len(p.jumbos) - 1
	if last < 0 {
		return 0, false
	}
	base = p.jumbos[last]
	p.jumbos = p.jumbos[:last]
	p.home[base>>p.shift] = false
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
	case size <= p.jumbo.Size-Headroom:
		return p.GetJumbo()
	}
	return 0, false
}

// Longest returns how many bytes the largest frame has, headroom included.
func (p *Pool) Longest() int { return max(int(p.chunk), p.jumbo.Size) }
