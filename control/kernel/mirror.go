package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"spigot/internal/flow"
)

// Config says what to mirror.
type Config struct {
	Ports    []string      // interface names, in the order of the gateway's list of ports
	Interval time.Duration // least time between two reads; 0: 20 ms
	Refresh  time.Duration // how often stale neighbours are asked for again; 0: 30 s
	Log      *slog.Logger  // nil: discard
}

const (
	queueLen      = 256              // resolve requests that may wait
	resolveGap    = time.Second      // least time between two requests for one neighbour: the kernel's own retry
	maxAsked      = 4096             // neighbours whose last request is remembered
	maxRefresh    = 1024             // neighbours asked for again in one round
	socketTimeout = 10 * time.Second // of one request to the kernel
	notifyBuffer  = 4 << 20          // bytes of notifications that may wait
	warnGap       = 10 * time.Second // between complaints about requests
	readRetry     = 100 * time.Millisecond
	readShare     = 4 // reading takes at most one part in this many of the time
)

// Mirror follows the kernel of one network namespace. Updates and Resolve may
// be used by any goroutine.
type Mirror struct {
	cfg     Config
	handle  *netlink.Handle
	notify  *nl.NetlinkSocket
	closing sync.Once

	pending atomic.Uint32 // tables to read again
	wake    chan struct{} // holds a value while pending may be set
	queue   chan neighbour
	updates chan *View

	// Owned by Run.
	state  state
	last   *View
	asked  map[neighbour]time.Time // last request
	warned time.Time               // last complaint about a request
}

type neighbour struct {
	link int
	addr flow.Addr
}

// New opens the mirror on the network namespace of the calling thread: a caller
// that switched namespaces holds it with runtime.LockOSThread. Close it after
// Run has returned; if Run is never called, too.
func New(cfg Config) (*Mirror, error) {
	if cfg.Interval == 0 {
		cfg.Interval = 20 * time.Millisecond
	}
	if cfg.Refresh == 0 {
		cfg.Refresh = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	// Notifications first: what changes while the tables are read is read again.
	notify, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("kernel: subscribe to rtnetlink: %w", err)
	}
	// Beyond rmem_max this needs CAP_NET_ADMIN; a smaller buffer only means more overruns.
	if err := notify.SetReceiveBufferSize(notifyBuffer, true); err != nil {
		cfg.Log.Warn("kernel: notification buffer stays small", "err", err)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		notify.Close()
		return nil, fmt.Errorf("kernel: open rtnetlink: %w", err)
	}
	if err := handle.SetSocketTimeout(socketTimeout); err != nil {
		notify.Close()
		handle.Close()
		return nil, fmt.Errorf("kernel: set a timeout on rtnetlink: %w", err)
	}
	m := &Mirror{
		cfg:     cfg,
		handle:  handle,
		notify:  notify,
		wake:    make(chan struct{}, 1),
		queue:   make(chan neighbour, queueLen),
		updates: make(chan *View, 1),
		asked:   make(map[neighbour]time.Time),
	}
	m.touch(everything)
	return m, nil
}

// Close releases the sockets.
func (m *Mirror) Close() {
	m.closing.Do(func() {
		m.notify.Close()
		m.handle.Close()
	})
}

// Updates delivers a View whenever one differs from the last, starting with
// the first. A View that nobody took is replaced by the next.
func (m *Mirror) Updates() <-chan *View { return m.updates }

// Run follows the kernel until ctx ends. It returns nil then.
func (m *Mirror) Run(ctx context.Context) error {
	var listener sync.WaitGroup
	listener.Go(func() { m.listen(ctx) })
	defer listener.Wait()
	defer m.notify.Close() // ends listen

	refresh := time.NewTicker(m.cfg.Refresh)
	defer refresh.Stop()
	for {
		var rest time.Duration
		select {
		case <-ctx.Done():
			return nil
		case n := <-m.queue:
			m.resolve(n, time.Now())
		case <-refresh.C:
			m.refresh()
		case <-m.wake:
			rest = m.follow()
		}
		// Changes come in crowds; and reading a million routes takes long. Requests
		// to resolve are not kept waiting.
		for pause := time.After(rest); rest > 0; {
			select {
			case <-ctx.Done():
				return nil
			case n := <-m.queue:
				m.resolve(n, time.Now())
			case <-pause:
				rest = 0
			}
		}
	}
}

// touch notes that the tables in set are to be read again.
func (m *Mirror) touch(set tables) {
	if set == 0 {
		return
	}
	m.pending.Or(uint32(set))
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// listen turns notifications into pending tables until the socket is closed.
func (m *Mirror) listen(ctx context.Context) {
	for {
		msgs, _, err := m.notify.Receive()
		switch {
		case err == nil:
			for i := range msgs {
				m.touch(touched(msgs[i].Header.Type))
			}
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		case errors.Is(err, unix.ENOBUFS): // overrun: the subscription lives on
			m.touch(everything)
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrClosed), errors.Is(err, io.EOF):
			return
		default: // without notifications there is still polling
			m.cfg.Log.Warn("kernel: receive a notification", "err", err)
			m.touch(everything)
			select {
			case <-ctx.Done():
				return
			case <-time.After(readRetry):
			}
		}
	}
}

// follow reads what is pending, delivers the View if it is new, and returns how
// long to wait before the next read.
func (m *Mirror) follow() time.Duration {
	set := tables(m.pending.Swap(0))
	start := time.Now()
	if err := m.state.read(m.handle, m.cfg.Ports, set); err != nil {
		// A dump that changes interrupted is read again; so is everything else.
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			m.cfg.Log.Warn("kernel: mirror is late", "err", err)
		}
		m.touch(set)
		return max(readRetry, m.cfg.Interval)
	}
	if v := m.state.view(); m.last == nil || !m.last.Equal(v) {
		m.last = v
		m.deliver(v)
	}
	return max(m.cfg.Interval, (readShare-1)*time.Since(start))
}

// deliver puts v in the place of a View that nobody took yet.
func (m *Mirror) deliver(v *View) {
	select {
	case <-m.updates:
	default:
	}
	m.updates <- v // has room: nobody else sends
}
