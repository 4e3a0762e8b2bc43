package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// sink takes probes of one stream from a port and measures what became of them.
type sink struct {
	port  pmd.Port
	pool  *pmd.Pool
	id    uint32
	dport uint16

	anyStream bool // take the probes of any sender: we do not know who it is

	mu   sync.Mutex // once a burst: the reporter reads while the sink counts
	seen seen
	hist *hdrhistogram.Histogram // latency in nanoseconds
	got  received
}

// received counts what the sink saw.
type received struct {
	packets, bytes uint64
	reordered      uint64 // behind a later one
	duplicates     uint64
	foreign        uint64 // not of this stream
	first, last    uint64 // time of the first and the last probe
}

func newSink(port pmd.Port, pool *pmd.Pool, id uint32, dport uint16) *sink {
	return &sink{port: port, pool: pool, id: id, dport: dport,
		hist: hdrhistogram.New(100, 10e9, 3)}
}

// run receives until ctx is done. The caller has locked the thread.
func (s *sink) run(ctx context.Context) {
	var stop atomic.Bool
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()
	var frames [64]pmd.Frame
	polls := []unix.PollFd{{Fd: int32(s.port.FD()), Events: unix.POLLIN}}
	for !stop.Load() {
		n := s.port.Rx(frames[:])
		if n == 0 {
			s.port.Flush()
			if polls[0].Fd < 0 {
				time.Sleep(50 * time.Microsecond)
				continue
			}
			// An error is a wake-up like any other: the loop looks again.
			_, _ = unix.Poll(polls, 20)
			continue
		}
		s.take(frames[:n])
		s.port.Flush()
	}
}

func (s *sink) take(frames []pmd.Frame) {
	t := now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range frames {
		id, seq, sent, ok := readProbe(s.pool.Bytes(f), s.dport)
		s.pool.Put(f.Base)
		if !ok || id != s.id && !s.anyStream {
			s.got.foreign++
			continue
		}
		if s.got.first == 0 {
			s.got.first = t
		}
		s.got.last = t
		s.got.packets++
		s.got.bytes += uint64(f.Len)
		switch s.seen.mark(seq) {
		case late:
			s.got.reordered++
		case again:
			s.got.duplicates++
		}
		if sent <= t {
			// Beyond ten seconds the histogram refuses; such a probe is lost to it.
			_ = s.hist.RecordValue(int64(t - sent))
		}
	}
}

// order is what the sequence number of a probe says.
type order uint8

const (
	inOrder order = iota
	late          // a later one came before
	again         // came before itself
)

// seen remembers which of the last seenBits numbers arrived.
type seen struct {
	next uint64 // one above the highest number seen
	bits [seenBits / 64]uint64
}

const seenBits = 1 << 16

func (s *seen) mark(seq uint64) order {
	if seq >= s.next {
		for k := max(s.next, seq-min(seq, seenBits-1)); k < seq; k++ {
			s.bits[k%seenBits/64] &^= 1 << (k % 64)
		}
		s.next = seq + 1
		s.bits[seq%seenBits/64] |= 1 << (seq % 64)
		return inOrder
	}
	if s.next-seq > seenBits {
		return late
	}
	word, bit := &s.bits[seq%seenBits/64], uint64(1)<<(seq%64)
	if *word&bit != 0 {
		return again
	}
	*word |= bit
	return late
}
