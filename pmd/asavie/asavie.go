// Package asavie is a driver over github.com/asavie/xdp, the older AF_XDP
// library for Go. It is there to be compared with: pmd/afxdp is faster and
// does more.
//
// The library keeps a memory of its own for each socket, so that this driver
// copies every packet between it and the worker's Pool, in both directions.
//
// # What it guards against
//
// Version 0.3.3, the last one, has faults that this package works around:
//
//   - Close leaves the rings mapped, and so does NewSocket when bind fails; the
//     kernel then keeps the socket, its memory and its queue until the process
//     ends. See orphans.go.
//   - Transmit panics when the device refuses to send. See Port.transmit.
//   - Transmit wakes a copying device once, which then sends 32 frames. The
//     driver wakes it until the ring is empty.
//   - GetDescs scans all frames for free ones, and Complete does not say which
//     frames it completed. The driver keeps stacks of free frames and reads the
//     completion ring itself. See ring_unsafe.go.
//   - Program.Attach and Detach wait for ever where a generic-mode program is
//     attached. The driver calls neither: a Registrar owns the program.
//   - Its sockets are inherited by processes that this one starts, which then
//     keep the queue. See newSocket.
//   - Its errors do not wrap the errno. See because.
//   - The defaults (128 frames, 64 ring entries) lose packets. See Options.
//   - Ring indices are read and written without atomics or barriers. On amd64
//     that is sound for one goroutine; elsewhere Open refuses.
//
// It has no huge pages, no need_wakeup and no jumbo frames (multi-buffer, XDP_USE_SG):
// packets of more than a frame of the library's are dropped. And the mode (zero-copy if the
// device has it, else copy) is the kernel's choice.
package asavie

import (
	"errors"
	"fmt"
	"math/bits"
	"net"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/asavie/xdp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// The errors that Open wraps.
var (
	ErrOptions     = errors.New("bad options")
	ErrNoInterface = errors.New("no such interface")
	ErrDown        = errors.New("interface is down: `ip link set up` it")
	ErrNoQueue     = errors.New("no such queue (`ethtool -l` tells how many there are)")
	ErrQueueTaken  = errors.New("another AF_XDP socket owns the queue")
	ErrPermission  = errors.New("not permitted: run as root, or with CAP_NET_ADMIN and CAP_NET_RAW")
	ErrMemlock     = errors.New("too little memory may be locked: raise `ulimit -l`, or run with CAP_IPC_LOCK")
	ErrUnsupported = errors.New("not supported: the driver needs amd64 and a kernel with AF_XDP (CONFIG_XDP_SOCKETS)")
)

// Registrar is the XDP program on an interface, which redirects packets of a
// queue to the socket that was registered for it, until that is unregistered.
// The Steering of pmd/afxdp is one.
type Registrar interface {
	Register(queue, fd int) error
	Unregister(queue, fd int) error
}

// Options describes a port to be opened.
type Options struct {
	Interface string
	Queue     int
	Pool      *pmd.Pool // all frames of the port are of this pool
	Registrar Registrar // the program on Interface, attached already

	// Frames is how many frames the library's own memory has: half of them to
	// receive into, half to send from. Default 4096.
	Frames int
	// Ring is the entries of each of the four rings, a power of two. Default 2048.
	Ring int
}

// bindPatience is how long Open waits for the last owner of a queue, whom the
// kernel releases some time after it has closed.
const bindPatience = time.Second

func (o *Options) check() error {
	if o.Frames == 0 {
		o.Frames = 4096
	}
	if o.Ring == 0 {
		o.Ring = 2048
	}
	switch {
	case o.Pool == nil:
		return fmt.Errorf("%w: no pool", ErrOptions)
	case o.Registrar == nil:
		return fmt.Errorf("%w: no XDP program to register with", ErrOptions)
	case o.Queue < 0:
		return fmt.Errorf("%w: queue %d", ErrOptions, o.Queue)
	case o.Frames < 2 || o.Frames > 1<<20:
		return fmt.Errorf("%w: %d frames are not from 2 to %d", ErrOptions, o.Frames, 1<<20)
	case o.Ring < 1 || o.Ring > 1<<16 || o.Ring&(o.Ring-1) != 0:
		return fmt.Errorf("%w: %d ring entries are not a power of two up to %d", ErrOptions, o.Ring, 1<<16)
	case runtime.GOARCH != "amd64":
		return ErrUnsupported
	}
	return nil
}

// Open binds a port to a queue of an interface, which it looks up in the
// network namespace of the calling thread, and registers it with the program.
func Open(o Options) (*Port, error) {
	p, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("asavie: open %s queue %d: %w", o.Interface, o.Queue, err)
	}
	return p, nil
}

func open(o Options) (*Port, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	ifi, err := net.InterfaceByName(o.Interface)
	if err != nil {
		return nil, fmt.Errorf("%w (`ip link` lists them): %w", ErrNoInterface, err)
	}
	if ifi.Flags&net.FlagUp == 0 { // the kernel would bind a copying socket, which then receives nothing
		return nil, ErrDown
	}
	size := min(o.Pool.Chunk(), unix.Getpagesize()) // the kernel's limit
	xsk, err := bind(ifi.Index, o.Queue, &xdp.SocketOptions{
		NumFrames:              o.Frames,
		FrameSize:              size,
		FillRingNumDescs:       o.Ring,
		CompletionRingNumDescs: o.Ring,
		RxRingNumDescs:         o.Ring,
		TxRingNumDescs:         o.Ring,
	})
	if err != nil {
		return nil, err
	}
	p := newPort(xsk, o, size)
	p.info = pmd.Info{
		Name: o.Interface, Index: ifi.Index, Queue: o.Queue,
		Driver: "asavie", Mode: mode(xsk.FD(), ifi.Index), MAC: ifi.HardwareAddr,
		Longest: size - pmd.Headroom,
	}
	if o.Pool.Jumbo().Count > 0 {
		p.info.NoJumbo = "the driver asavie has no multi-buffer"
	}
	if p.completed, err = completionsOf(xsk); err == nil {
		p.refill() // before the first packet can come
		err = o.Registrar.Register(o.Queue, xsk.FD())
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.registrar = o.Registrar
	return p, nil
}

// bind makes the library's socket. While the queue is taken it tries again.
func bind(index, queue int, so *xdp.SocketOptions) (*xdp.Socket, error) {
	pause := 5 * time.Millisecond
	for end := time.Now().Add(bindPatience); ; pause *= 2 {
		xsk, err := newSocket(index, queue, so)
		if err == nil {
			return xsk, nil
		}
		err = because(err)
		if lost := unmapOrphans(); lost != nil {
			return nil, errors.Join(err, lost)
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().Add(pause).After(end) {
			return nil, err
		}
		time.Sleep(pause)
	}
}

// newSocket makes a socket that children do not inherit: none is started
// between the two calls.
func newSocket(index, queue int, so *xdp.SocketOptions) (*xdp.Socket, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	xsk, err := xdp.NewSocket(index, queue, so)
	if err == nil {
		unix.CloseOnExec(xsk.FD())
	}
	return xsk, err
}

// because finds the errno in the text of a NewSocket error, which does not
// wrap it, and puts in front what it means.
func because(err error) error {
	for _, known := range []struct {
		errno   unix.Errno
		meaning error
	}{
		{unix.EBUSY, ErrQueueTaken},
		{unix.ENETDOWN, ErrDown},
		{unix.EINVAL, ErrNoQueue},
		{unix.ENODEV, ErrNoInterface},
		{unix.EPERM, ErrPermission},
		{unix.EACCES, ErrPermission},
		{unix.ENOBUFS, ErrMemlock},
		{unix.ENOMEM, ErrMemlock},
		{unix.EAFNOSUPPORT, ErrUnsupported},
	} {
		if strings.HasSuffix(err.Error(), known.errno.Error()) {
			return fmt.Errorf("%w (%w)", known.meaning, known.errno)
		}
	}
	return err
}

// mode asks the kernel how frames get to the socket fd of an interface.
func mode(fd, index int) string {
	if v, err := unix.GetsockoptInt(fd, unix.SOL_XDP, unix.XDP_OPTIONS); err == nil && v&unix.XDP_OPTIONS_ZEROCOPY != 0 {
		return "zerocopy"
	}
	const generic = 2 // XDP_ATTACHED_SKB
	if l, err := netlink.LinkByIndex(index); err == nil && l.Attrs().Xdp != nil && l.Attrs().Xdp.AttachMode == generic {
		return "generic"
	}
	return "copy"
}

func newPort(xsk *xdp.Socket, o Options, size int) *Port {
	p := &Port{
		xsk:    xsk,
		pool:   o.Pool,
		size:   size,
		shift:  uint(bits.TrailingZeros(uint(size))),
		ring:   o.Ring,
		rxFree: make([]xdp.Desc, 0, o.Frames/2),
		txFree: make([]xdp.Desc, 0, o.Frames-o.Frames/2),
		away:   make([]bool, o.Frames),
		queued: make([]xdp.Desc, 0, o.Ring),
	}
	for i := range o.Frames {
		d := xdp.Desc{Addr: uint64(i) << p.shift, Len: uint32(size)}
		if i < o.Frames/2 {
			p.rxFree = append(p.rxFree, d)
		} else {
			p.txFree = append(p.txFree, d)
		}
	}
	return p
}
