package ring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Bell wakes the consumer of a ring that sleeps, at the cost of one load while
// it is awake. The consumer says Sleep, looks at its ring once more, and then
// Waits, or polls FD; the producer pushes, and then Rings.
type Bell struct {
	fd     int
	file   *os.File // owns fd
	asleep atomic.Bool
	one    [8]byte // what Ring writes: not changed
	n      [8]byte // what the consumer reads
}

// NewBell returns a bell whose consumer is awake. Close it.
func NewBell() (*Bell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("ring: make an eventfd: %w", err)
	}
	// One as a number of the machine, which is little-endian, or very large.
	return &Bell{fd: fd, file: os.NewFile(uintptr(fd), "bell"), one: [8]byte{1}}, nil
}

// Ring wakes the consumer if it sleeps. Anyone may call it.
func (b *Bell) Ring() {
	if b.asleep.Load() && b.asleep.CompareAndSwap(true, false) {
		_, _ = unix.Write(b.fd, b.one[:])
	}
}

// Sleep says that the consumer goes to sleep unless its ring has something.
func (b *Bell) Sleep() { b.asleep.Store(true) }

// Wake says that the consumer is awake, whoever woke it. Consumer only, where it
// polls instead of waiting.
func (b *Bell) Wake() {
	b.asleep.Store(false)
	_, _ = unix.Read(b.fd, b.n[:]) // somebody may have rung
}

// Wait returns when somebody has rung since Sleep, or with false when the bell
// is closed. Consumer only.
func (b *Bell) Wait() bool {
	_, err := b.file.Read(b.n[:])
	return !errors.Is(err, os.ErrClosed)
}

// FD returns what poll(2) reports readable when the bell has rung.
func (b *Bell) FD() int { return b.fd }

// Close ends Wait. Nobody must call anything else any more.
func (b *Bell) Close() error { return b.file.Close() }
