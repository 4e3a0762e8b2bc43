// Package fault wraps a port and does to its frames what a bad line does:
// it loses, corrupts, truncates, duplicates and reorders what comes in, and
// takes less than it is offered, or loses it, on the way out. A seed makes a
// run repeatable, and every fault is counted.
package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"spigot/pmd"
)

// ErrOptions is wrapped by the errors of New.
var ErrOptions = errors.New("fault: bad options")

// Options says what goes wrong, and how often. The zero Options do no harm.
// Rates are probabilities from 0 to 1, drawn independently: a frame a draw for
// all but TxShort, for which it is a call of Tx.
type Options struct {
	Seed uint64

	RxLose      float64 // the frame goes back to the pool
	RxCorrupt   float64 // one to eight bits of the packet flip
	RxTruncate  float64 // the packet loses one or more bytes at its end, at most all
	RxDuplicate float64 // a copy of the packet follows later
	RxReorder   float64 // the frame is held back for later ones to overtake it

	TxShort float64 // Tx offers the device fewer frames than it was offered, at least one fewer
	TxLose  float64 // Tx takes the frame and returns it to the pool

	// Hold bounds how many frames are held back at a time; a frame that would
	// be one more is not reordered or duplicated. Default 16.
	Hold int
	// HoldFrames is how many received frames may overtake one that is held
	// back, at most. Default 8.
	HoldFrames int
	// HoldPolls is how many calls of Rx in a row that bring nothing end all
	// waiting, so that the last frame of a transfer is not held for ever. Default 64.
	HoldPolls int
}

// Port is a port with faults. It implements pmd.Port.
//
// At any moment between two calls of the worker, for the frames of the wrapped
// port and of this one,
//
//	wrapped RxPackets + RxDuplicated = RxPackets + RxLost + RxHeld
//	TxPackets = wrapped TxPackets + TxLost
type Port struct {
	inner pmd.Port
	pool  *pmd.Pool
	opts  Options
	src   *rand.PCG
	rng   *rand.Rand // over src

	lose, corrupt, truncate, duplicate, reorder, txShort, txLose threshold

	held  []held // cap is opts.Hold
	seen  uint64 // frames received from inner
	idle  int    // calls of Rx in a row that received nothing
	count pmd.Counters
	done  counts
}

// held is a frame that waits.
type held struct {
	frame pmd.Frame
	until uint64 // value of Port.seen at which it may go on
}

// threshold is a probability in units of 2^-53.
type threshold uint64

// New wraps inner, whose frames are of pool. From here on inner belongs to the
// new port, which closes it.
func New(inner pmd.Port, pool *pmd.Pool, o Options) (*Port, error) {
	if inner == nil || pool == nil {
		return nil, fmt.Errorf("%w: a port and its pool are needed", ErrOptions)
	}
	for _, d := range []struct {
		field *int
		value int
		name  string
	}{{&o.Hold, 16, "Hold"}, {&o.HoldFrames, 8, "HoldFrames"}, {&o.HoldPolls, 64, "HoldPolls"}} {
		if *d.field < 0 {
			return nil, fmt.Errorf("%w: %s is %d, and may not be below 0", ErrOptions, d.name, *d.field)
		}
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	src := rand.NewPCG(o.Seed, 0)
	p := &Port{inner: inner, pool: pool, opts: o, src: src, rng: rand.New(src), held: make([]held, 0, o.Hold)}
	for _, r := range []struct {
		rate float64
		to   *threshold
		name string
	}{
		{o.RxLose, &p.lose, "RxLose"}, {o.RxCorrupt, &p.corrupt, "RxCorrupt"},
		{o.RxTruncate, &p.truncate, "RxTruncate"}, {o.RxDuplicate, &p.duplicate, "RxDuplicate"},
		{o.RxReorder, &p.reorder, "RxReorder"}, {o.TxShort, &p.txShort, "TxShort"}, {o.TxLose, &p.txLose, "TxLose"},
	} {
		if !(r.rate >= 0 && r.rate <= 1) { // so that NaN is refused, too
			return nil, fmt.Errorf("%w: %s is %v, and must be from 0 to 1", ErrOptions, r.name, r.rate)
		}
		*r.to = threshold(r.rate * (1 << 53))
	}
	return p, nil
}

// hit draws whether a fault of probability t happens.
func (p *Port) hit(t threshold) bool {
	return t != 0 && threshold(p.src.Uint64()>>11) < t
}

// Rx returns frames that were held long enough, then what the wrapped port
// received, less what is lost or held back.
func (p *Port) Rx(fs []pmd.Frame) int {
	n := p.release(fs)
	if n < len(fs) {
		fresh := fs[n : n+p.inner.Rx(fs[n:])]
		p.idle++
		if len(fresh) > 0 {
			p.idle = 0
		}
		for _, f := range fresh {
			if f, ok := p.receive(f); ok {
				fs[n] = f
				n++
			}
		}
	}
	p.done.rxHeld.Store(uint64(len(p.held)))
	for _, f := range fs[:n] {
		p.count.RxBytes += uint64(f.Len)
	}
	p.count.RxPackets += uint64(n)
	return n
}

// release moves held frames whose time has come to fs, as far as they fit, and
// returns how many.
func (p *Port) release(fs []pmd.Frame) int {
	n, kept := 0, 0
	for _, h := range p.held {
		if n < len(fs) && (h.until <= p.seen || p.idle >= p.opts.HoldPolls) {
			fs[n] = h.frame
			n++
		} else {
			p.held[kept] = h
			kept++
		}
	}
	p.held = p.held[:kept]
	return n
}

// receive does to f what the rates say, and says whether f is to be handed out now.
func (p *Port) receive(f pmd.Frame) (pmd.Frame, bool) {
	p.seen++
	if p.hit(p.lose) {
		p.pool.Put(f.Base)
		p.done.rxLost.Add(1)
		return f, false
	}
	if p.hit(p.corrupt) && f.Len > 0 {
		p.flip(p.pool.Bytes(f))
		p.done.rxCorrupted.Add(1)
	}
	if p.hit(p.truncate) && f.Len > 0 {
		f.Len = uint16(p.rng.IntN(int(f.Len)))
		p.done.rxTruncated.Add(1)
	}
	if p.hit(p.duplicate) {
		p.copyOf(f)
	}
	if p.hit(p.reorder) && p.hold(f) {
		p.done.rxReordered.Add(1)
		return f, false
	}
	return f, true
}

// flip changes one to eight bits of b, in steps that go round the packet less
// than once, so that no bit flips back.
func (p *Port) flip(b []byte) {
	size := len(b) * 8
	bit, n := p.rng.IntN(size), 1+p.rng.IntN(8)
	step := 1 + p.rng.IntN((size+7)/8)
	for i := 0; i < n && i*step < size; i++ {
		at := (bit + i*step) % size
		b[at/8] ^= 1 << (at % 8)
	}
}

// copyOf holds a copy of f, if there is a frame and room for it.
func (p *Port) copyOf(f pmd.Frame) {
	if len(p.held) == cap(p.held) {
		return
	}
	base, ok := p.pool.GetFor(int(f.Off) + int(f.Len) - pmd.Headroom)
	if !ok {
		return
	}
	twin := pmd.Frame{Base: base, Off: f.Off, Len: f.Len}
	copy(p.pool.Bytes(twin), p.pool.Bytes(f))
	p.hold(twin)
	p.done.rxDuplicated.Add(1)
}

// hold keeps f for later, if there is room.
func (p *Port) hold(f pmd.Frame) bool {
	if len(p.held) == cap(p.held) {
		return false
	}
	p.held = append(p.held, held{f, p.seen + 1 + uint64(p.rng.IntN(p.opts.HoldFrames))})
	return true
}

// Tx offers frames to the wrapped port, or fewer, or none; those that the
// rates lose it takes itself.
func (p *Port) Tx(fs []pmd.Frame) int {
	if len(fs) > 0 && p.hit(p.txShort) {
		p.done.txShort.Add(1)
		fs = fs[:p.rng.IntN(len(fs))]
	}
	n := p.transmit(fs)
	for _, f := range fs[:n] {
		p.count.TxBytes += uint64(f.Len)
	}
	p.count.TxPackets += uint64(n)
	return n
}

func (p *Port) transmit(fs []pmd.Frame) int {
	for i := 0; i < len(fs); {
		end := i // of the run of frames that are not lost
		for end < len(fs) && !p.hit(p.txLose) {
			end++
		}
		if n := i + p.inner.Tx(fs[i:end]); n < end {
			return n
		}
		if end < len(fs) {
			p.pool.Put(fs[end].Base)
			p.done.txLost.Add(1)
			end++
		}
		i = end
	}
	return len(fs)
}

// Flush flushes the wrapped port.
func (p *Port) Flush() {
	p.inner.Flush()
	p.count.Publish()
}

// FD returns the wrapped port's descriptor. It does not tell of frames that
// are held back.
func (p *Port) FD() int { return p.inner.FD() }

// Info describes the wrapped port.
func (p *Port) Info() pmd.Info { return p.inner.Info() }

// Close sends held frames home, counts them as lost, and closes the wrapped port.
func (p *Port) Close() error {
	for _, h := range p.held {
		p.pool.Put(h.frame.Base)
	}
	p.done.rxLost.Add(uint64(len(p.held)))
	p.held = p.held[:0]
	p.done.rxHeld.Store(0)
	p.count.Publish()
	if err := p.inner.Close(); err != nil {
		return fmt.Errorf("fault: close wrapped port: %w", err)
	}
	return nil
}

var _ pmd.Port = (*Port)(nil)
