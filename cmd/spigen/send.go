package main

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"spigot/pmd"
)

const burst = 32

// sender fills a port with probes at a given rate.
type sender struct {
	port      pmd.Port
	pool      *pmd.Pool
	stream    stream
	templates []template
	rate      float64 // packets a second, 0: as fast as the port takes them

	packets atomic.Uint64 // taken by the port
	bytes   atomic.Uint64
}

func newSender(port pmd.Port, pool *pmd.Pool, s stream, p profile, rate float64) *sender {
	tx := &sender{port: port, pool: pool, stream: s, rate: rate}
	for _, size := range p.sizes {
		tx.templates = append(tx.templates, s.template(size))
	}
	return tx
}

// run sends until ctx is done. The caller has locked the thread.
func (s *sender) run(ctx context.Context) {
	var stop atomic.Bool
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()
	var seq uint64
	start := now()
	for !stop.Load() {
		n := burst
		if s.rate > 0 {
			due := uint64(float64(now()-start) * s.rate / 1e9)
			n = int(min(due-min(due, seq), burst))
		}
		sent := s.batch(seq, n)
		seq += uint64(sent)
		s.port.Flush()
		if sent == 0 && s.rate > 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// batch sends up to n probes from number seq on and returns how many the port took.
func (s *sender) batch(seq uint64, n int) int {
	var bases [burst]uint32
	var frames [burst]pmd.Frame
	n = s.pool.Get(bases[:n])
	t := now()
	bytes := 0
	for i := range bases[:n] {
		k := seq + uint64(i)
		tpl := &s.templates[k%uint64(len(s.templates))]
		f := pmd.Frame{Base: bases[i], Off: pmd.Headroom, Len: uint16(len(tpl.bytes))}
		tpl.fill(s.pool.Bytes(f), firstPort+uint16(k%uint64(s.stream.flows)), k, t)
		frames[i] = f
		bytes += len(tpl.bytes)
	}
	took := s.port.Tx(frames[:n])
	for _, f := range frames[took:n] {
		s.pool.Put(f.Base)
		bytes -= int(f.Len)
	}
	s.packets.Add(uint64(took))
	s.bytes.Add(uint64(bytes))
	return took
}

// now returns CLOCK_MONOTONIC in nanoseconds, which all namespaces share.
func now() uint64 {
	var ts unix.Timespec
	// It cannot fail: the clock exists and ts is ours.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}
