package afxdp

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// drainWait is how long Close waits for frames that are being sent.
	drainWait = 100 * time.Millisecond

	// detachWait is how long after a close a device may still write to the frames
	// that it had: the kernel takes them from it in a work item of its own.
	detachWait = 50 * time.Millisecond
)

// Close implements pmd.Port: it stops the steering to the queue, waits a moment
// for what is being sent, releases the queue and returns every frame that the
// kernel had to the pool. A second Close does nothing.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	err := s.steering.Unregister(s.info.Queue, s.fd)
	s.drain()
	if k, e := statistics(s.fd); e == nil {
		s.kernel = k
	}
	s.counters.Publish()
	s.closed = true
	if err = errors.Join(err, s.release()); err != nil {
		return fmt.Errorf("afxdp: close %s queue %d: %w", s.info.Name, s.info.Queue, err)
	}
	return nil
}

// drain sends what is queued and waits until the device has sent it, within
// bounds: a device that is down or gone never does.
func (s *Socket) drain() {
	s.tx.commit()
	for end := time.Now().Add(drainWait); ; time.Sleep(time.Millisecond) {
		refused := s.counters.TxErrors
		s.send()
		s.reap()
		if s.umem.lent(s.txTag) == 0 || s.counters.TxErrors != refused || time.Now().After(end) {
			return
		}
	}
}

// release undoes start, as far as it came: mappings first, as they keep the
// queue bound.
func (s *Socket) release() error {
	var errs []error
	for i, m := range s.maps {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
			s.maps[i] = nil
		}
	}
	s.rx.ring, s.tx.ring, s.fill.ring, s.comp.ring = ring[unix.XDPDesc]{}, ring[unix.XDPDesc]{}, ring[uint64]{}, ring[uint64]{}
	if s.fd >= 0 {
		errs = append(errs, unix.Close(s.fd))
	}
	if s.bound && s.zeroCopy {
		time.Sleep(detachWait)
	}
	s.fd, s.bound = -1, false
	s.umem.dismiss(s)
	if s.chain.on {
		s.lose(nil) // what came of it goes home
	}
	s.chain = chain{}
	return errors.Join(errs...)
}
