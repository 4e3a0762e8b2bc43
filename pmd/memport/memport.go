// Package memport holds ports without a kernel behind them: Pair, two ports
// joined by a cable in memory; Tap, a cable with a test at its far end; and
// Generator, an endless source and sink for benchmarks.
package memport

import (
	"errors"
	"fmt"
	"net"

	"spigot/pmd"
)

// ErrOptions is wrapped by the errors of NewPair, NewTap and NewGenerator.
var ErrOptions = errors.New("memport: bad options")

// Options describes one port.
type Options struct {
	Pool  *pmd.Pool        // all frames of the port are of this pool
	Name  string           // for Info; default "mem0"
	Index int              // for Info; as a kernel would number it
	Queue int              // for Info
	MAC   net.HardwareAddr // for Info
}

func (o *Options) check() error {
	if o.Pool == nil {
		return fmt.Errorf("%w: port %q has no pool", ErrOptions, o.Name)
	}
	if o.Name == "" {
		o.Name = "mem0"
	}
	return nil
}

func (o *Options) info() pmd.Info {
	return pmd.Info{Name: o.Name, Index: o.Index, Queue: o.Queue, Driver: "memport", Mode: "memory", MAC: o.MAC,
		Longest: o.Pool.Longest() - pmd.Headroom}
}

// Port is one end of a cable. It implements pmd.Port and loses nothing but
// packets too long for its pool's frames: when the far end does not read, the
// cable fills, and Tx takes less than it is offered.
type Port struct {
	info pmd.Info
	pool *pmd.Pool
	in   *cable
	out  *cable

	queued []pmd.Frame // taken by Tx and not yet on the cable
	bufs   [][]byte    // scratch
	bases  []uint32    // scratch
	count  pmd.Counters
}

// NewPair returns two connected ports: what one sends, the other receives. Up
// to depth packets, a power of two, are on the way in each direction. The
// ports may be of different pools and belong to different goroutines.
func NewPair(depth int, a, b Options) (*Port, *Port, error) {
	for _, o := range []*Options{&a, &b} {
		if err := o.check(); err != nil {
			return nil, nil, err
		}
	}
	there, err := newCable(depth, a.Pool.Chunk())
	if err != nil {
		return nil, nil, err
	}
	back, err := newCable(depth, b.Pool.Chunk())
	if err != nil {
		return nil, nil, err
	}
	return newPort(a, back, there), newPort(b, there, back), nil
}

func newPort(o Options, in, out *cable) *Port {
	depth := out.depth()
	return &Port{
		info:   o.info(),
		pool:   o.Pool,
		in:     in,
		out:    out,
		queued: make([]pmd.Frame, 0, depth),
		bufs:   make([][]byte, depth),
		bases:  make([]uint32, depth),
	}
}

// Rx copies waiting packets into frames of the pool, as pmd.Port says. A packet
// that no frame can hold is counted in RxDropped, and one that wants a jumbo frame
// when none is free in JumboEmpty.
func (p *Port) Rx(fs []pmd.Frame) int {
	want := min(len(fs), p.in.waiting())
	if want == 0 {
		return 0
	}
	got := p.pool.Get(p.bases[:want])
	bufs := p.bufs[:p.in.full.Pop(p.bufs[:got])]
	room := p.pool.Chunk() - pmd.Headroom
	n := 0
	for i, buf := range bufs {
		if len(buf) > room && !p.enlarge(&p.bases[i], len(buf)) {
			continue
		}
		f := pmd.Frame{Base: p.bases[i], Off: pmd.Headroom, Len: uint16(len(buf))}
		copy(p.pool.Bytes(f), buf)
		p.count.RxBytes += uint64(len(buf))
		fs[n] = f
		n++
	}
	p.count.RxPackets += uint64(n)
	p.in.empty.Push(bufs)
	return n
}

// enlarge trades the chunk at base for a jumbo frame with room for size bytes. It is
// false, and the chunk goes home, when there is none.
func (p *Port) enlarge(base *uint32, size int) bool {
	p.pool.Put(*base)
	if size > p.pool.Longest()-pmd.Headroom {
		p.count.RxDropped++
		return false
	}
	jumbo, ok := p.pool.GetJumbo()
	if !ok {
		p.count.JumboEmpty++
		return false
	}
	*base = jumbo
	p.count.RxJumbo++
	return true
}

// Tx queues frames, at most the depth of the cable, as pmd.Port says.
func (p *Port) Tx(fs []pmd.Frame) int {
	n := min(len(fs), cap(p.queued)-len(p.queued))
	p.queued = append(p.queued, fs[:n]...)
	for _, f := range fs[:n] {
		p.count.TxBytes += uint64(f.Len)
	}
	p.count.TxPackets += uint64(n)
	return n
}

// Flush copies queued frames to the cable, as far as it has room, and returns
// them to the pool.
func (p *Port) Flush() {
	if len(p.queued) > 0 {
		bufs := p.bufs[:p.out.empty.Pop(p.bufs[:len(p.queued)])]
		for i, f := range p.queued[:len(bufs)] {
			bufs[i] = append(bufs[i][:0], p.pool.Bytes(f)...)
			p.pool.Put(f.Base)
		}
		p.out.full.Push(bufs)
		p.count.TxDone += uint64(len(bufs))
		p.queued = p.queued[:copy(p.queued, p.queued[len(bufs):])]
	}
	p.count.Publish()
}

// FD returns -1: there is nothing to poll.
func (p *Port) FD() int { return -1 }

// Info describes the port.
func (p *Port) Info() pmd.Info { return p.info }

// Stats returns the counters as of the last Flush.
func (p *Port) Stats() pmd.Stats { return p.count.Load() }

// Close returns queued frames to the pool unsent.
func (p *Port) Close() error {
	for _, f := range p.queued {
		p.pool.Put(f.Base)
	}
	p.queued = p.queued[:0]
	p.count.Publish()
	return nil
}

var _ pmd.Port = (*Port)(nil)
