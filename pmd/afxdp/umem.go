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

	// The pool's jumbo frames: a run of chunks each, which come back one by one.
	jumboAt   uint32  // where the first one is; no chunk lies there without any
	jumboSize int     // bytes of one
	away      []uint8 // by jumbo frame: how many of its chunks are lent
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
	jumbo := pool.Jumbo()
	return &UMEM{
		pool:      pool,
		mask:      uint64(pool.Chunk() - 1),
		shift:     uint8(bits.TrailingZeros(uint(pool.Chunk()))),
		held:      make([]tag, len(pool.Mem())/pool.Chunk()),
		jumboAt:   pool.JumboAt(),
		jumboSize: jumbo.Size,
		away:      make([]uint8, jumbo.Count),
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

// takeBack returns the chunk at base, which is not lent any more, to the pool, or the
// jumbo frame of which it was the last part that was lent. It says whether a frame
// came home.
func (u *UMEM) takeBack(base uint32) bool {
	if base >= u.jumboAt {
		frame, whole := u.part(base)
		if !whole {
			return false
		}
		base = frame
	}
	u.pool.Put(base)
	return true
}

// recall returns everything lent to the two rings of slot to the pool.
func (u *UMEM) recall(slot int) {
	for i, t := range u.held {
		if t == rxTag(slot) || t == txTag(slot) {
			u.held[i] = notLent
			u.takeBack(uint32(i) << u.shift)
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
// share. Zero-copy and copying sockets cannot share one, nor can sockets with and
// without chains: the kernel makes a sharer's mode that of the owner. A mixed set of
// devices registers the memory several times, which changes nothing for the frames.
func (u *UMEM) sharers(zeroCopy, sg bool) []*Socket {
	var ss []*Socket
	for _, s := range u.sockets {
		if s != nil && s.bound && s.zeroCopy == zeroCopy && s.sg == sg {
			ss = append(ss, s)
		}
	}
	return ss
}
