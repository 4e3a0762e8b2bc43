// Package ring is a bounded queue between exactly two goroutines.
//
// It is Lamport's single-producer single-consumer ring with the cached
// indices of FastForward and MCRingBuffer: each side keeps the last index that
// it saw of the other side and looks at the shared one only when the cached
// one says full (or empty). A batch costs at most one load of the other side's
// cache line and one store of one's own.
package ring

import (
	"fmt"
	"sync/atomic"
)

// SPSC is a bounded queue of T for one producer goroutine and one consumer
// goroutine. Push belongs to the producer, Pop to the consumer; Len and Cap
// may be called by anyone. Values are copied in and out, and a slot is zeroed
// when its value leaves, so that the ring keeps nothing alive.
type SPSC[T any] struct {
	slots []T
	mask  uint64
	_     [64]byte

	// The producer's cache line.
	tail     atomic.Uint64 // next slot to fill; written by the producer
	headSeen uint64        // the producer's last view of head
	_        [56]byte

	// The consumer's cache line.
	head     atomic.Uint64 // next slot to empty; written by the consumer
	tailSeen uint64        // the consumer's last view of tail
	_        [56]byte
}

// New returns an empty ring that holds up to size values. It panics unless
// size is a power of two above zero: ring sizes are constants of the program.
func New[T any](size int) *SPSC[T] {
	if size <= 0 || size&(size-1) != 0 {
		panic(fmt.Sprintf("ring: size %d is not a power of two", size))
	}
	return &SPSC[T]{slots: make([]T, size), mask: uint64(size - 1)}
}

// Cap returns how many values the ring can hold.
func (r *SPSC[T]) Cap() int { return len(r.slots) }

// Len returns how many values the ring holds. Only the two owners may rely on
// it: to the producer it is an upper bound, to the consumer a lower one.
func (r *SPSC[T]) Len() int {
	head := r.head.Load() // before tail, which can only grow meanwhile
	return int(r.tail.Load() - head)
}

// Push copies the first n of vs into the ring and returns n, which is less
// than len(vs) when the ring is full. Producer only.
func (r *SPSC[T]) Push(vs []T) int {
	tail := r.tail.Load()
	free := uint64(len(r.slots)) - (tail - r.headSeen)
	if free < uint64(len(vs)) {
		r.headSeen = r.head.Load()
		free = uint64(len(r.slots)) - (tail - r.headSeen)
	}
	n := min(uint64(len(vs)), free)
	if n == 0 { // keep the consumer's copy of the line valid
		return 0
	}
	first := copy(r.slots[tail&r.mask:], vs[:n])
	copy(r.slots, vs[first:n])
	r.tail.Store(tail + n)
	return int(n)
}

// Pop moves up to len(vs) values, oldest first, from the ring to vs and
// returns how many. Consumer only.
func (r *SPSC[T]) Pop(vs []T) int {
	head := r.head.Load()
	used := r.tailSeen - head
	if used < uint64(len(vs)) {
		r.tailSeen = r.tail.Load()
		used = r.tailSeen - head
	}
	n := min(uint64(len(vs)), used)
	if n == 0 { // polled in vain: keep the producer's copy of the line valid
		return 0
	}
	at := head & r.mask
	first := copy(vs[:n], r.slots[at:])
	copy(vs[first:n], r.slots)
	clear(r.slots[at : at+uint64(first)])
	clear(r.slots[:n-uint64(first)])
	r.head.Store(head + n)
	return int(n)
}
