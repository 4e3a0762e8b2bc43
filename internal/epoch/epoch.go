// Package epoch tells the slow path when no worker can still hold what it took
// out of a published snapshot (quiescent-state-based reclamation).
package epoch

import "sync/atomic"

// Domain is a set of readers and the work that waits for them. Its methods
// belong to one goroutine, the writer.
type Domain struct {
	readers []*Reader
	waiting []retired
}

type retired struct {
	seen []uint64 // each reader's count when the object was retired
	free func()
}

// Reader is a worker's side. Its methods belong to that worker.
type Reader struct {
	_     [64]byte
	turns atomic.Uint64 // even: the reader holds no reference
	_     [56]byte
}

// Register adds a reader, which starts offline. It must not be called while
// workers run.
func (d *Domain) Register() *Reader {
	r := new(Reader)
	d.readers = append(d.readers, r)
	return r
}

// Online says that the reader may take references from now on.
func (r *Reader) Online() { r.step(1) }

// Quiesce says that the reader, which is online, holds none at this moment:
// the end of a turn.
func (r *Reader) Quiesce() { r.step(2) }

// Offline says that the reader holds none until its next Online: it sleeps or ended.
func (r *Reader) Offline() { r.step(1) }

func (r *Reader) step(n uint64) { r.turns.Store(r.turns.Load() + n) }

// Retire has free called by a later Reap, once every reader has been without
// references since this call. What is retired must be unreachable from the
// published snapshots already.
func (d *Domain) Retire(free func()) {
	seen := make([]uint64, len(d.readers))
	for i, r := range d.readers {
		seen[i] = r.turns.Load()
	}
	d.waiting = append(d.waiting, retired{seen, free})
}

// Reap frees what no reader can hold any more and returns how much still
// waits. What is freed may itself retire something.
func (d *Domain) Reap() int {
	waiting := d.waiting
	d.waiting = nil
	kept := waiting[:0]
	for _, w := range waiting {
		if d.passed(w.seen) {
			w.free()
		} else {
			kept = append(kept, w)
		}
	}
	clear(waiting[len(kept):])
	d.waiting = append(kept, d.waiting...)
	return len(d.waiting)
}

func (d *Domain) passed(seen []uint64) bool {
	for i, r := range d.readers {
		if i < len(seen) && seen[i]&1 == 1 && r.turns.Load() == seen[i] {
			return false
		}
	}
	return true
}
