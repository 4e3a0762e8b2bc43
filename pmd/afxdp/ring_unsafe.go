package afxdp

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const needWakeup = unix.XDP_RING_NEED_WAKEUP

// newRing lays a ring of size entries over mem, where off says. mem must be
// aligned for T and stay mapped as long as the ring is used.
func newRing[T uint64 | unix.XDPDesc](mem []byte, off unix.XDPRingOffset, size int) (ring[T], error) {
	var t T
	if want := ringBytes[T](off, size); len(mem) < want {
		return ring[T]{}, fmt.Errorf("ring of %d entries needs %d bytes, the mapping has %d", size, want, len(mem))
	}
	word := func(at uint64) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&mem[at : at+4][0])) }
	last := off.Desc + uint64(size)*uint64(unsafe.Sizeof(t))
	first := (*T)(unsafe.Pointer(&mem[off.Desc:last][0]))
	return ring[T]{
		prod:  word(off.Producer),
		cons:  word(off.Consumer),
		flags: word(off.Flags),
		slots: unsafe.Slice(first, size),
		mask:  uint32(size - 1),
	}, nil
}

// ringBytes returns how many bytes a ring of size entries spans.
func ringBytes[T uint64 | unix.XDPDesc](off unix.XDPRingOffset, size int) int {
	var t T
	return int(max(off.Desc+uint64(size)*uint64(unsafe.Sizeof(t)), off.Producer+4, off.Consumer+4, off.Flags+4))
}
