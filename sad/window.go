package sad

import (
	"math"
	"math/bits"
	"sync/atomic"

	"spigot/internal/counter"
)

// window is the replay window of one SA (RFC 4303, section 3.4.3 and appendix
// A2), shared by all workers without a lock.
//
// It is a ring of words, as in RFC 6479, but a word carries the number of the
// block that it stands for, so that nothing has to be cleared when the window
// moves on:
//
//	sequence number:  block (60 bits) | bit in the block (4 bits)
//	word:             block's low 48 bits | 16 bits, one for each number seen
//
// The word of a block is words[block % len(words)]. A packet of the block that
// the word stands for sets its bit; one of a newer block replaces the word;
// both by compare-and-swap.
//
// Why it is right, all workers at once:
//
//  1. mark raises top first. So if a word stands for a block, top is at least
//     that block's first number.
//  2. mark loads the word and then top. If the word stands for a newer block
//     than the packet's, that one is len(words) or more blocks on, so by (1)
//     top is at least 16*len(words)-15 >= size beyond the packet, and the
//     packet is found to be old. Therefore a packet that is not old meets its
//     own block, or an older one that it may replace: a word only moves on to
//     newer blocks, and no packet in the window is refused that was not seen.
//  3. A bit that is set stays until its block is replaced by a newer one; then
//     by (2) each of its numbers is old. And the compare-and-swap succeeds
//     only on the word that was judged. So of several marks of one number
//     exactly one is accepted, also if a worker sleeps anywhere between two
//     steps: it finds another word and judges again.
//  4. The zero word of words[0] stands for block 0 with nothing seen. That of
//     words[i] stands for block 0 as well, which is not one of its blocks, so
//     the first packet replaces it.
//
// Two blocks of one word are told apart by 48 bits. Without ESN a block number
// has 28. With ESN two would look alike if they were 2^52 numbers apart. For
// that a word has to be left untouched, or a worker to sleep between load and
// compare-and-swap, while the peer sends 2^52 packets: 520 days at 10^8
// packets a second. (With 32 and 32 bits, which reads nicer, it would be 22
// minutes.) A forged packet does not help: only authentic numbers get here.
type window struct {
	size  uint64 // in numbers; 0: no replay check
	mask  uint64 // len(words) - 1
	words []atomic.Uint64

	_   [64]byte
	top atomic.Uint64 // the highest number marked, the window's right edge
	_   [56]byte
}

const (
	blockShift = 4 // 16 numbers a word
	blockMask  = 1<<blockShift - 1
	tagShift   = 1 << blockShift
)

// init gives w room for size numbers; 0 leaves it without a replay check.
func (w *window) init(size int) {
	if size == 0 {
		return
	}
	w.size = uint64(max(MinWindow, (size+31)&^31))
	blocks := (w.size + 2*blockMask) >> blockShift // 16*blocks >= size+15
	w.words = make([]atomic.Uint64, 1<<bits.Len64(blocks-1))
	w.mask = uint64(len(w.words) - 1)
}

// slot returns n's word, what the word holds when it stands for n's block with
// nothing seen, and n's bit.
func (w *window) slot(n uint64) (word *atomic.Uint64, empty, bit uint64) {
	block := n >> blockShift
	return &w.words[block&w.mask], block << tagShift, 1 << (n & blockMask)
}

// old says whether n lies left of a window that ends at top. 0 is never sent.
func (w *window) old(n, top uint64) bool { return n == 0 || n <= top && top-n >= w.size }

// check judges n without changing anything.
func (w *window) check(n uint64) counter.Reason {
	if w.old(n, w.top.Load()) {
		return counter.ReplayOld
	}
	word, empty, bit := w.slot(n)
	if v := word.Load(); v>>tagShift == empty>>tagShift && v&bit != 0 {
		return counter.ReplaySeen
	}
	return counter.None
}

// mark records that n was received.
func (w *window) mark(n uint64) counter.Reason {
	for top := w.top.Load(); top < n; top = w.top.Load() {
		if w.top.CompareAndSwap(top, n) {
			break
		}
	}
	word, empty, bit := w.slot(n)
	for {
		v := word.Load()
		if w.old(n, w.top.Load()) { // top after the word: see (2)
			return counter.ReplayOld
		}
		next := empty | bit
		if v>>tagShift == empty>>tagShift {
			if v&bit != 0 {
				return counter.ReplaySeen
			}
			next = v | bit
		}
		if word.CompareAndSwap(v, next) {
			return counter.None
		}
	}
}

// extend recovers the sequence number of which a packet carries the low half,
// by RFC 4303, appendix A2.2: the one in the 2^32 numbers that begin at the
// window's left edge. It fails where that number would be negative or above
// 64 bits.
func (w *window) extend(low uint32) (n uint64, ok bool) {
	top := w.top.Load()
	edge := uint32(top) - uint32(w.size) + 1
	high := top >> 32
	if uint64(uint32(top)) >= w.size-1 { // case A: the window lies in one subspace
		if low < edge {
			high++
		}
	} else if low >= edge { // case B: it spans two, and low is in the one before
		high--
	}
	return high<<32 | uint64(low), high <= 1<<32-1
}

// Check judges the sequence number of a packet before it is authenticated and
// changes nothing. With ESN it recovers the high half; full is the number to
// authenticate with and to Mark. r is None, ReplayOld or ReplaySeen. Any
// worker may call it.
func (sa *Inbound) Check(seq uint32) (full uint64, r counter.Reason) {
	w := &sa.window
	full = uint64(seq)
	if w.size == 0 {
		return full, counter.None
	}
	if sa.ESN {
		var ok bool
		if full, ok = w.extend(seq); !ok {
			return full, counter.ReplayOld
		}
	}
	return full, w.check(full)
}

// Mark records the number full, which Check gave, after its packet was found
// authentic. It moves the window. r is None for exactly one of all packets
// with that number; the others must be dropped: ReplaySeen, or ReplayOld when
// the window has left the number behind. Any worker may call it.
func (sa *Inbound) Mark(full uint64) counter.Reason {
	if sa.window.size == 0 {
		return counter.None
	}
	return sa.window.mark(full)
}

// Seq returns the highest sequence number marked, 0 if none was.
func (sa *Inbound) Seq() uint64 { return sa.window.top.Load() }

// restore gives a window that is not in use yet the state r.
func (w *window) restore(r *Replay) {
	w.top.Store(r.Seq)
	for k := uint64(0); k < min(w.size, r.Seq); k++ {
		if r.has(k) {
			w.mark(r.Seq - k)
		}
	}
}

// Advance raises the highest number received to seq, so that the window moves
// on without a packet; the numbers skipped are still accepted as far as they
// lie in the window. It is false, and nothing changes, if seq lies behind or
// beyond the last number there is. Anyone may call it.
func (sa *Inbound) Advance(seq uint64) bool {
	for {
		top := sa.window.top.Load()
		if seq < top || !sa.ESN && seq > math.MaxUint32 {
			return false
		}
		if sa.window.top.CompareAndSwap(top, seq) {
			return true
		}
	}
}

// Replay returns the window as it is: all of it while no worker marks, else a
// moment's view in which numbers received meanwhile may be missing.
func (sa *Inbound) Replay() Replay {
	w := &sa.window
	r := Replay{Seq: w.top.Load(), Seen: make([]uint64, (w.size+63)/64)}
	for k := uint64(0); k < min(w.size, r.Seq); k++ {
		word, empty, bit := w.slot(r.Seq - k)
		if v := word.Load(); v>>tagShift == empty>>tagShift && v&bit != 0 {
			r.Seen[k/64] |= 1 << (k % 64)
		}
	}
	return r
}
