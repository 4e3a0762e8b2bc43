package afxdp

import "sync/atomic"

// ring is one of the four rings that the kernel and a socket share. The
// indices run freely and wrap at 2^32; an entry's slot is its index masked.
type ring[T any] struct {
	prod  *atomic.Uint32 // written by the producing side
	cons  *atomic.Uint32 // written by the consuming side
	flags *atomic.Uint32 // written by the kernel
	slots []T
	mask  uint32
}

func (r *ring[T]) size() uint32 { return r.mask + 1 }

// wantsWakeup says whether the kernel waits for a system call before it looks
// at the ring again (XDP_USE_NEED_WAKEUP).
func (r *ring[T]) wantsWakeup() bool { return r.flags.Load()&needWakeup != 0 }

// producer is a ring that the driver fills and the kernel empties: fill, TX.
type producer[T any] struct {
	ring[T]
	next uint32 // index of the next entry; the kernel sees it after commit
	seen uint32 // the kernel's index when last looked at
}

// room returns how many entries can be pushed, up to want. It looks at the
// kernel's index only when the one that it knows does not allow want.
func (r *producer[T]) room(want uint32) uint32 {
	free := r.size() - (r.next - r.seen)
	if free < want {
		if seen := r.cons.Load(); r.next-seen <= r.size() { // else the kernel did not write it
			r.seen = seen
		}
		free = r.size() - (r.next - r.seen)
	}
	return min(free, want)
}

// push appends v; there must be room.
func (r *producer[T]) push(v T) {
	r.slots[r.next&r.mask] = v
	r.next++
}

// commit hands to the kernel what was pushed.
func (r *producer[T]) commit() { r.prod.Store(r.next) }

// pending returns how many committed entries the kernel has not taken.
func (r *producer[T]) pending() uint32 { return r.prod.Load() - r.cons.Load() }

// consumer is a ring that the kernel fills and the driver empties: RX,
// completion.
type consumer[T any] struct {
	ring[T]
	next uint32 // index of the next entry to read
	seen uint32 // the kernel's index when last looked at
}

// ready returns how many entries can be read, up to want.
func (r *consumer[T]) ready(want uint32) uint32 {
	n := r.seen - r.next
	if n < want {
		if seen := r.prod.Load(); seen-r.next <= r.size() { // else the kernel did not write it
			r.seen = seen
		}
		n = r.seen - r.next
	}
	return min(n, want)
}

// at returns the i-th of the ready entries.
func (r *consumer[T]) at(i uint32) T { return r.slots[(r.next+i)&r.mask] }

// release gives the slots of the first n ready entries back to the kernel.
func (r *consumer[T]) release(n uint32) {
	r.next += n
	r.cons.Store(r.next)
}
