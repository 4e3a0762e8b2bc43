package afxdp

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// DefaultRing is the size of a ring that Options leaves at 0.
const DefaultRing = 2048

// Options says which queue to open and how.
type Options struct {
	Interface string    // name; the interface must exist and be up
	Queue     int       // from 0
	UMEM      *UMEM     // the worker's
	Steering  *Steering // the program that Attach put on the interface: some devices cannot even send without one
	Mode      Mode      // what to try; Info().Mode says what it became

	// Entries of the rings, each a power of two, 0 for DefaultRing. CompSize must not
	// be below TxSize.
	RxSize, TxSize, FillSize, CompSize int
}

// withRings fills in the sizes of rings that are 0.
func (o Options) withRings() Options {
	for _, n := range []*int{&o.RxSize, &o.TxSize, &o.FillSize} {
		if *n == 0 {
			*n = DefaultRing
		}
	}
	if o.CompSize == 0 {
		o.CompSize = max(DefaultRing, o.TxSize)
	}
	return o
}

// Frames returns how many frames the rings of the socket can hold at most. A
// pool never runs dry if it has that many for each of its sockets, and what
// the worker itself holds.
func (o Options) Frames() int {
	o = o.withRings()
	return o.FillSize + o.RxSize + o.TxSize + o.CompSize
}

func (o Options) check() error {
	switch {
	case o.UMEM == nil:
		return fmt.Errorf("%w: no UMEM", ErrOptions)
	case o.Steering == nil:
		return fmt.Errorf("%w: no Steering: attach the XDP program first", ErrOptions)
	case o.Mode > Generic:
		return fmt.Errorf("%w: mode %d", ErrOptions, o.Mode)
	case o.Queue < 0:
		return fmt.Errorf("%w %d: queues count from 0", ErrNoQueue, o.Queue)
	}
	for _, r := range []struct {
		name string
		n    int
	}{{"RX", o.RxSize}, {"TX", o.TxSize}, {"fill", o.FillSize}, {"completion", o.CompSize}} {
		if r.n < 2 || r.n > 1<<20 || r.n&(r.n-1) != 0 {
			return fmt.Errorf("%w: %s ring of %d entries: want a power of two from 2 to 1048576", ErrOptions, r.name, r.n)
		}
	}
	if chain := o.UMEM.jumboSize / o.UMEM.pool.Chunk(); o.TxSize < chain {
		return fmt.Errorf("%w: TX ring of %d entries: a jumbo frame takes %d", ErrOptions, o.TxSize, chain)
	}
	if o.CompSize < o.TxSize {
		return fmt.Errorf("%w: completion ring of %d entries is smaller than the TX ring of %d", ErrOptions, o.CompSize, o.TxSize)
	}
	return nil
}

// checkNIC holds o against the interface that it names.
func (o Options) checkNIC(n nic) error {
	switch {
	case !n.up:
		return fmt.Errorf("%w: ip link set %s up", ErrDown, n.name)
	case n.queues > 0 && o.Queue >= n.queues:
		return fmt.Errorf("%w: %s has %d, 0 to %d (`ethtool -l %s`)", ErrNoQueue, n.name, n.queues, n.queues-1, n.name)
	case o.Steering.nic.index != n.index:
		return fmt.Errorf("%w: the Steering is that of %s, interface %d, and %s is interface %d",
			ErrOptions, o.Steering.nic.name, o.Steering.nic.index, n.name, n.index)
	}
	return nil
}

// modes lists what to try, best first, under the program as it is attached.
func (o Options) modes() ([]Mode, error) {
	generic := o.Steering.Mode() == Generic
	switch {
	case generic && (o.Mode == Auto || o.Mode == Generic):
		return []Mode{Generic}, nil
	case generic:
		return nil, fmt.Errorf("%w: %s needs the XDP program in the driver and it is attached generic", ErrMode, o.Mode)
	case o.Mode == Auto:
		return []Mode{ZeroCopy, Copy}, nil
	case o.Mode == Generic:
		return nil, fmt.Errorf("%w: generic needs the XDP program attached generic and it is in the driver", ErrMode)
	}
	return []Mode{o.Mode}, nil
}

// Open opens a queue for the worker that owns o.UMEM and lets o.Steering
// redirect to it. Errors wrap one of this package's sentinels where they know
// what is wrong. A queue that was just closed may stay taken for a moment;
// Open waits for it up to a second.
func Open(o Options) (*Socket, error) {
	s, err := open(o.withRings())
	if err != nil {
		return nil, fmt.Errorf("afxdp: open %s queue %d: %w", o.Interface, o.Queue, err)
	}
	return s, nil
}

func open(o Options) (*Socket, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	n, err := findNIC(o.Interface)
	if err != nil {
		return nil, err
	}
	if err := o.checkNIC(n); err != nil {
		return nil, err
	}
	if o.UMEM.has(n.index, o.Queue) {
		return nil, fmt.Errorf("%w: it is one of the same UMEM", ErrQueueTaken)
	}
	modes, err := o.modes()
	if err != nil {
		return nil, err
	}
	if o.UMEM.jumboSize > 0 {
		s, err := openFirst(o, n, modes, true)
		if err == nil || isFinal(err) {
			return s, err
		}
		plain, plainErr := openFirst(o, n, modes, false)
		if plainErr == nil {
			plain.info.NoJumbo = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		return plain, plainErr
	}
	return openFirst(o, n, modes, false)
}

// openFirst opens the queue in the first of modes that works, with chains for the
// pool's jumbo frames or without.
func openFirst(o Options, n nic, modes []Mode, sg bool) (*Socket, error) {
	var errs []error
	for _, m := range modes {
		s, err := openMode(o, n, m, sg)
		if err == nil || isFinal(err) {
			return s, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", m, err))
	}
	return nil, errors.Join(errs...)
}

// isFinal says whether no other mode can do better than err.
func isFinal(err error) bool {
	return errors.Is(err, ErrQueueTaken) || errors.Is(err, ErrPermission) || errors.Is(err, ErrUnsupported)
}

// openMode opens the queue in one mode: as a sharer of a socket that the UMEM
// has, else with a registration of its own.
func openMode(o Options, n nic, m Mode, sg bool) (*Socket, error) {
	zeroCopy := m == ZeroCopy
	if sg && zeroCopy {
		if err := o.UMEM.checkSegments(n); err != nil {
			return nil, err
		}
	}
	for _, owner := range append(o.UMEM.sharers(zeroCopy, sg), nil) {
		s := &Socket{umem: o.UMEM, pool: o.UMEM.pool, fd: -1, steering: o.Steering, zeroCopy: zeroCopy, sg: sg}
		s.info = pmd.Info{
			Name: n.name, Index: n.index, Queue: o.Queue, Driver: "afxdp", Mode: m.String(),
			MAC: n.mac, Hugetlb: s.pool.Hugetlb(), Longest: s.pool.Chunk() - pmd.Headroom,
		}
		if sg {
			s.info.Longest = s.pool.Longest() - pmd.Headroom
		}
		err := s.start(o, owner)
		if err == nil {
			return s, nil
		}
		if owner == nil || errors.Is(err, ErrQueueTaken) || errors.Is(err, ErrMode) {
			return nil, err
		}
	}
	panic("unreachable: the last owner is nil")
}

// start takes s from nothing to receiving. On an error nothing of it is left.
func (s *Socket) start(o Options, owner *Socket) (err error) {
	if err := s.umem.admit(s); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	s.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.fd = -1
		return fmt.Errorf("AF_XDP socket: %w", because(err))
	}
	if owner == nil {
		err := patiently(unix.ENOBUFS, func() error { return registerMemory(s.fd, s.pool.Mem(), s.pool.Chunk()) })
		if err != nil {
			return s.memoryError(err)
		}
	}
	if err := s.mapRings(o); err != nil {
		return err
	}
	s.refill() // some devices look at the fill ring once, at bind
	if err := s.bind(o, owner); err != nil {
		return err
	}
	s.bound = true
	zc, err := isZeroCopy(s.fd)
	if err != nil {
		return fmt.Errorf("ask for the mode: %w", err)
	}
	if zc != s.zeroCopy {
		return fmt.Errorf("%w: the kernel answered with another", ErrMode)
	}
	return o.Steering.Register(o.Queue, s.fd)
}

// memoryError says what a refused XDP_UMEM_REG is about.
func (s *Socket) memoryError(err error) error {
	switch {
	case errors.Is(err, unix.ENOBUFS):
		err = fmt.Errorf("%w (%w)", ErrMemlock, err)
	case errors.Is(err, unix.EINVAL):
		err = fmt.Errorf("%w: frames of %d bytes (2048 or a page, more on huge pages only), memory at a page's start: %w",
			ErrOptions, s.pool.Chunk(), err)
	default:
		err = because(err)
	}
	return fmt.Errorf("register %d bytes of packet memory: %w", len(s.pool.Mem()), err)
}

// mapRings makes the four rings and maps them.
func (s *Socket) mapRings(o Options) error {
	for _, r := range []struct{ opt, n int }{
		{unix.XDP_UMEM_FILL_RING, o.FillSize},
		{unix.XDP_UMEM_COMPLETION_RING, o.CompSize},
		{unix.XDP_RX_RING, o.RxSize},
		{unix.XDP_TX_RING, o.TxSize},
	} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, r.opt, r.n); err != nil {
			return fmt.Errorf("ring of %d entries: %w", r.n, because(err))
		}
	}
	off, err := ringOffsets(s.fd)
	if err != nil {
		return fmt.Errorf("ring offsets: %w", err)
	}
	if s.rx.ring, s.maps[0], err = mapRing[unix.XDPDesc](s.fd, unix.XDP_PGOFF_RX_RING, off.Rx, o.RxSize); err != nil {
		return err
	}
	if s.tx.ring, s.maps[1], err = mapRing[unix.XDPDesc](s.fd, unix.XDP_PGOFF_TX_RING, off.Tx, o.TxSize); err != nil {
		return err
	}
	if s.fill.ring, s.maps[2], err = mapRing[uint64](s.fd, unix.XDP_UMEM_PGOFF_FILL_RING, off.Fr, o.FillSize); err != nil {
		return err
	}
	s.comp.ring, s.maps[3], err = mapRing[uint64](s.fd, unix.XDP_UMEM_PGOFF_COMPLETION_RING, off.Cr, o.CompSize)
	return err
}

// mapRing maps the ring of fd that lies at pgoff.
func mapRing[T uint64 | unix.XDPDesc](fd int, pgoff int64, off unix.XDPRingOffset, size int) (ring[T], []byte, error) {
	mem, err := unix.Mmap(fd, pgoff, ringBytes[T](off, size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return ring[T]{}, nil, fmt.Errorf("map ring of %d entries: %w", size, because(err))
	}
	r, err := newRing[T](mem, off, size)
	return r, mem, err
}

// The kernel releases the queue and the locked memory of a closed socket some
// time after close. What fails for that reason is tried again, so long and so
// often.
const (
	patience = time.Second
	pause    = 5 * time.Millisecond
)

// patiently calls do again while it fails with errno, within bounds.
func patiently(errno unix.Errno, do func() error) error {
	end := time.Now().Add(patience)
	for {
		err := do()
		if !errors.Is(err, errno) || time.Now().After(end) {
			return err
		}
		time.Sleep(pause)
	}
}

// bind takes the queue. A sharer may name no mode, nor ask for chains: it gets its
// owner's.
func (s *Socket) bind(o Options, owner *Socket) error {
	sa := unix.SockaddrXDP{Ifindex: uint32(s.info.Index), QueueID: uint32(o.Queue)}
	switch {
	case owner != nil:
		sa.Flags, sa.SharedUmemFD = unix.XDP_SHARED_UMEM, uint32(owner.fd)
	case s.zeroCopy:
		sa.Flags = unix.XDP_USE_NEED_WAKEUP | unix.XDP_ZEROCOPY
	default:
		sa.Flags = unix.XDP_USE_NEED_WAKEUP | unix.XDP_COPY
	}
	if s.sg && owner == nil {
		sa.Flags |= unix.XDP_USE_SG
	}
	err := patiently(unix.EBUSY, func() error { return unix.Bind(s.fd, &sa) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: end that process, or use another queue (%w)", ErrQueueTaken, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: the device has no AF_XDP zero-copy (%w)", ErrMode, err)
	case errors.Is(err, unix.EINVAL) && s.sg:
		return fmt.Errorf("%w, or the kernel has no multi-buffer, as Linux has from 6.6 on (%w)", ErrNoQueue, err)
	case errors.Is(err, unix.EINVAL) && owner == nil:
		return fmt.Errorf("%w, or the device refuses the mode or the frame size (%w)", ErrNoQueue, err)
	}
	return fmt.Errorf("bind: %w", because(err))
}
