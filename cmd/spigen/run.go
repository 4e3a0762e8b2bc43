package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"spigot/internal/affinity"
	"spigot/pmd"
)

// run is one measurement.
type run struct {
	o        *options
	stream   stream
	profile  profile
	progress io.Writer

	tx *sender
	rx *sink
}

// measure starts the sink, then the sender, waits, and stops both.
func (r *run) measure(ctx context.Context) (*report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sinkDone, sendDone <-chan error
	var err error
	sinkCtx, stopSink := context.WithCancel(context.Background())
	defer stopSink()
	if r.o.rx != "" {
		if sinkDone, err = r.start(sinkCtx, r.o.rx, r.o.rxCPU, r.openSink); err != nil {
			return nil, fmt.Errorf("--rx %s: %w", r.o.rx, err)
		}
	}
	sendCtx, stopSend := context.WithTimeout(ctx, r.o.duration)
	defer stopSend()
	begin := time.Now()
	if r.o.tx != "" {
		if sendDone, err = r.start(sendCtx, r.o.tx, r.o.txCPU, r.openSender); err != nil {
			stopSink()
			if sinkDone != nil {
				<-sinkDone
			}
			return nil, fmt.Errorf("--tx %s: %w", r.o.tx, err)
		}
		begin = time.Now()
	}
	r.watch(sendCtx)
	elapsed := time.Since(begin)
	if sendDone != nil {
		if err := <-sendDone; err != nil {
			return nil, err
		}
		time.Sleep(r.o.settle)
	}
	stopSink()
	if sinkDone != nil {
		if err := <-sinkDone; err != nil {
			return nil, err
		}
	}
	rep := summarize(r.profile.name, r.stream.flows, elapsed, r.tx, r.rx)
	return &rep, nil
}

// runner is an end of the measurement, opened on its own thread.
type runner struct {
	*end
	run func(ctx context.Context)
}

// start opens an end on a thread of its own, in the namespace that place
// names, and runs it there until ctx is done. It returns once the end is open;
// the channel yields the error of closing it.
func (r *run) start(ctx context.Context, place string, cpu int, open func(p place) (*runner, error)) (<-chan error, error) {
	p, err := parsePlace(place)
	if err != nil {
		return nil, err
	}
	opened, done := make(chan error, 1), make(chan error, 1)
	go func() {
		// Never unlocked: the thread is in another namespace and ends with us.
		runtime.LockOSThread()
		if err := p.enter(); err != nil {
			opened <- err
			return
		}
		if cpu >= 0 {
			if err := affinity.Pin(cpu); err != nil {
				opened <- err
				return
			}
		}
		e, err := open(p)
		opened <- err
		if err != nil {
			return
		}
		e.run(ctx)
		done <- e.close()
	}()
	return done, <-opened
}

func (r *run) openSink(p place) (*runner, error) {
	e, err := openEnd(p, r.o.driver, r.stream.dport)
	if err != nil {
		return nil, err
	}
	r.rx = newSink(e.port, e.pool, r.stream.id, r.stream.dport)
	if r.o.tx == "" {
		r.rx.anyStream = true
	}
	return &runner{e, r.rx.run}, nil
}

func (r *run) openSender(p place) (*runner, error) {
	e, err := openEnd(p, r.o.driver, r.stream.dport)
	if err != nil {
		return nil, err
	}
	s := r.stream
	s.srcMAC = mac6(e.port.Info().MAC)
	if s.dstMAC, err = r.nextHop(p); err != nil {
		_ = e.close() // the first error is the one to tell
		return nil, err
	}
	r.tx = newSender(e.port, e.pool, s, r.profile, r.o.rate)
	return &runner{e, r.tx.run}, nil
}

// watch prints a line a second until ctx is done.
func (r *run) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var sent, got, bytes uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var s, g, b uint64
		if r.tx != nil {
			s = r.tx.packets.Load()
		}
		if r.rx != nil {
			r.rx.mu.Lock()
			g, b = r.rx.got.packets, r.rx.got.bytes
			r.rx.mu.Unlock()
		}
		if !r.o.quiet {
			fmt.Fprintf(r.progress, "sent %.3f Mpps  received %.3f Mpps  %.3f Gbit/s\n",
				float64(s-sent)/1e6, float64(g-got)/1e6, float64(b-bytes)*8/1e9)
		}
		sent, got, bytes = s, g, b
	}
}

// driver names how info's port moves packets.
func driver(info pmd.Info) string { return info.Driver + "/" + info.Mode }
