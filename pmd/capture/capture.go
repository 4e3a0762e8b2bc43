// Package capture wraps ports and writes the frames that pass them to a pcapng
// file. The worker copies packets into buffers of a bounded ring, which a
// goroutine empties: a slow disk loses records, which are counted, and never
// holds up a packet.
package capture

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"spigot/pmd"
	"spigot/ring"
)

// ErrOptions is wrapped by the errors of NewRecorder and Wrap.
var ErrOptions = errors.New("capture: bad options")

// ErrWrite is wrapped by the error of Close when the file could not be written.
var ErrWrite = errors.New("capture: write failed")

// Options says what a Recorder keeps.
type Options struct {
	Rx, Tx bool // frames that the worker receives, and that the port takes; at least one
	Snap   int  // bytes kept of each packet; 0: all
	Depth  int  // packets of a port that wait to be written, a power of two; default 4096
}

// idleSleep is how long the writing goroutine rests when the rings are empty.
const idleSleep = time.Millisecond

// Recorder writes what its ports see to one file. Records of one port are in
// order, those of several only by their timestamps. Its methods may be called
// by any goroutine.
type Recorder struct {
	opts Options
	w    io.Writer

	mu    sync.Mutex
	lanes []*lane
	stop  chan struct{} // closed by the first Close
	ended chan struct{} // closed when the writing goroutine has returned
	once  sync.Once

	off     atomic.Bool // nothing more is to be recorded: closed, or failed
	written atomic.Uint64
	err     error  // of the writer; read by others after ended
	buf     []byte // scratch
}

// lane carries the records of one port, like a bucket chain: full ones to the
// recorder, empty ones back. There are as many records as a ring has slots.
type lane struct {
	name        string
	snap        int
	described   bool // recorder only
	full, empty *ring.SPSC[record]
	dropped     atomic.Uint64
}

// record is a packet on its way to the file.
type record struct {
	nanos  int64 // since 1970
	length uint32
	dir    direction
	data   []byte
}

// NewRecorder starts a Recorder that writes to w, which it does not close.
func NewRecorder(w io.Writer, o Options) (*Recorder, error) {
	if !o.Rx && !o.Tx {
		return nil, fmt.Errorf("%w: neither Rx nor Tx is to be recorded", ErrOptions)
	}
	if o.Depth == 0 {
		o.Depth = 4096
	}
	if o.Depth < 0 || o.Depth&(o.Depth-1) != 0 {
		return nil, fmt.Errorf("%w: depth %d is not a power of two", ErrOptions, o.Depth)
	}
	if o.Snap < 0 {
		return nil, fmt.Errorf("%w: snap is %d bytes", ErrOptions, o.Snap)
	}
	r := &Recorder{opts: o, w: w, stop: make(chan struct{}), ended: make(chan struct{})}
	go r.run()
	return r, nil
}

// Wrap returns a port that records what inner, whose frames are of pool,
// receives and sends. From here on inner belongs to the new port, which closes it.
func (r *Recorder) Wrap(inner pmd.Port, pool *pmd.Pool) (*Port, error) {
	if inner == nil || pool == nil {
		return nil, fmt.Errorf("%w: a port and its pool are needed", ErrOptions)
	}
	info := inner.Info()
	l := &lane{
		name:  fmt.Sprintf("%s/%d", info.Name, info.Queue),
		snap:  pool.Longest(),
		full:  ring.New[record](r.opts.Depth),
		empty: ring.New[record](r.opts.Depth),
	}
	if r.opts.Snap > 0 {
		l.snap = min(l.snap, r.opts.Snap)
	}
	spare := make([]record, r.opts.Depth)
	for i := range spare {
		spare[i].data = make([]byte, 0, min(l.snap, pool.Chunk())) // grows when a jumbo frame comes
	}
	r.mu.Lock()
	r.lanes = append(r.lanes, l)
	r.mu.Unlock()
	return &Port{inner: inner, pool: pool, rec: r, lane: l, spare: spare}, nil
}

// Written returns how many packets were written, and Dropped how many of all
// ports were not, for want of room in a ring.
func (r *Recorder) Written() uint64 { return r.written.Load() }

// Dropped: see Written.
func (r *Recorder) Dropped() uint64 {
	var n uint64
	for _, l := range r.snapshot() {
		n += l.dropped.Load()
	}
	return n
}

func (r *Recorder) snapshot() []*lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lanes[:len(r.lanes):len(r.lanes)]
}

// Close writes what was recorded, stops, and returns the first error of the
// writer. The ports go on without being recorded.
func (r *Recorder) Close() error {
	r.off.Store(true)
	r.once.Do(func() { close(r.stop) })
	<-r.ended
	return r.err
}

// run is the writing goroutine.
func (r *Recorder) run() {
	defer close(r.ended)
	batch := make([]record, 64)
	r.write(appendSection(nil))
	for {
		stopping := false
		select {
		case <-r.stop:
			stopping = true // once more, for what came before
		default:
		}
		if r.drain(batch) == 0 {
			if stopping {
				return
			}
			time.Sleep(idleSleep)
		}
	}
}

// drain writes up to len(batch) records of each lane and returns how many.
func (r *Recorder) drain(batch []record) int {
	out, total := r.buf[:0], 0
	for id, l := range r.snapshot() {
		if !l.described {
			l.described = true
			out = appendInterface(out, l.name, uint32(l.snap))
		}
		got := batch[:l.full.Pop(batch)]
		for i := range got {
			out = appendPacket(out, uint32(id), &got[i])
		}
		l.empty.Push(got)
		total += len(got)
	}
	r.buf = out
	if len(out) > 0 && r.write(out) {
		r.written.Add(uint64(total))
	}
	return total
}

// write says whether b was written. After an error nothing is.
func (r *Recorder) write(b []byte) bool {
	if r.err != nil {
		return false
	}
	if _, err := r.w.Write(b); err != nil {
		r.err = fmt.Errorf("%w: %w", ErrWrite, err)
		r.off.Store(true)
		return false
	}
	return true
}
