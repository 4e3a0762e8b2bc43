package afxdp

import (
	"fmt"
	"math/bits"

	"spigot/pmd"
)

// UMEM is a worker's pool of frames as the kernel knows it. The first socket
// opened on it registers the memory, the further ones share it
// (XDP_SHARED_UMEM). It belongs to the worker that the pool belongs to and
// needs no Close: it ends with its sockets.
type UMEM struct {
	pool  *pmd.Pool
	mask  uint64 // chunk size - 1
	shift uint8

	// held says by chunk number which ring the chunk is lent to, as a tag of one
	// of the sockets; 0 is not lent.
	held    []tag
	sockets [maxSockets]*Socket
}

// tag names a ring that chunks are lent to: a socket's receive side (fill ring
// and RX ring) or its transmit side (TX ring and completion ring).
type tag uint8

const notLent tag = 0

// maxSockets is how many sockets' tags fit; a worker has one a port.
const maxSockets = 127

func rxTag(slot int) tag { return tag(2*slot + 1) }
func txTag(slot int) tag { return tag(2*slot + 2) }

// NewUMEM prepares pool for sockets. The pool's memory must come from pmd.Map.
func NewUMEM(pool *pmd.Pool) (*UMEM, error) {
	if pool == nil {
		return nil, fmt.Errorf("afxdp: new UMEM: %w: no pool", ErrOptions)
	}
	return &UMEM{
		pool:  pool,
		mask:  uint64(pool.Chunk() - 1),
		shift: uint8(bits.TrailingZeros(uint(pool.Chunk()))),
		held:  make([]tag, pool.Cap()),
	}, nil
}

// Pool returns the pool that the UMEM was made of.
func (u *UMEM) Pool() *pmd.Pool { return u.pool }

// lend notes that the ring t has the chunk at base. It refuses a base that is
// no chunk and a chunk that is lent already.
func (u *UMEM) lend(base uint32, t tag) bool {
	i := int(base >> u.shift)
	if i >= len(u.held) || uint64(base)&u.mask != 0 || u.held[i] != notLent {
		return false
	}
	u.held[i] = t
	return true
}

// giveBack notes that the ring t returned the chunk that addr lies in, and
// returns the chunk's base. It refuses an address of a chunk that t was not
// lent.
func (u *UMEM) giveBack(addr uint64, t tag) (base uint32, ok bool) {
	i := addr >> u.shift
	if i >= uint64(len(u.held)) || u.held[i] != t {
		return 0, false
	}
	u.held[i] = notLent
	return uint32(addr &^ u.mask), true
}

// recall returns everything lent to the two rings of slot to the pool.
func (u *UMEM) recall(slot int) {
	for i, t := range u.held {
		if t == rxTag(slot) || t == txTag(slot) {
			u.held[i] = notLent
			u.pool.Put(uint32(i) << u.shift)
		}
	}
}

// lent returns how many chunks the ring t has.
func (u *UMEM) lent(t tag) int {
	n := 0
	for _, h := range u.held {
		if h == t {
			n++
		}
	}
	return n
}

// admit gives s a slot.
func (u *UMEM) admit(s *Socket) error {
	for i, other := range u.sockets {
		if other == nil {
			u.sockets[i] = s
			s.slot, s.rxTag, s.txTag = i, rxTag(i), txTag(i)
			return nil
		}
	}
	return fmt.Errorf("%w: more than %d sockets on one UMEM", ErrOptions, maxSockets)
}

// dismiss takes s's slot away, with all frames that are lent to it.
func (u *UMEM) dismiss(s *Socket) {
	u.recall(s.slot)
	u.sockets[s.slot] = nil
}

// has says whether one of the sockets is bound to that queue already.
func (u *UMEM) has(index, queue int) bool {
	for _, s := range u.sockets {
		if s != nil && s.info.Index == index && s.info.Queue == queue {
			return true
		}
	}
	return false
}

// sharers lists the sockets whose registration of the memory a new socket can
// share. Zero-copy and copying sockets cannot share one: the kernel makes a
// sharer's mode that of the owner. A mixed set of devices registers the memory
// twice, which changes nothing for the frames.
func (u *UMEM) sharers(zeroCopy bool) []*Socket {
	var ss []*Socket
	for _, s := range u.sockets {
		if s != nil && s.bound && s.zeroCopy == zeroCopy {
			ss = append(ss, s)
		}
	}
	return ss
}
