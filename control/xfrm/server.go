package xfrm

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"spigot/control"
)

// ErrFull says that a client has not read what is there for it already.
var ErrFull = errors.New("xfrm: answers wait to be read")

// The bounds of a client's queue, in bytes. Answers may exceed the first by
// those to one datagram.
const (
	maxQueue  = 256 << 10
	maxEvents = 192 << 10 // so that there is room for answers
)

// eventQueue is how many events may wait to be told to clients.
const eventQueue = 1 << 12

// DefaultClients is how many clients a Server takes unless it is told otherwise.
const DefaultClients = 256

// Config is what a Server is made of.
type Config struct {
	Control    *control.Controller
	Log        *slog.Logger // nil: discard
	MaxClients int          // of Serve; 0: DefaultClients
}

// Server answers netlink XFRM. Make one with New.
type Server struct {
	max        int
	ctl        *control.Controller
	log        *slog.Logger
	news       *control.Subscriber
	thresholds [2]atomic.Uint32 // of IPv4 and IPv6, local << 8 | remote

	mu      sync.Mutex
	clients map[*Client]bool

	// Serve's alone.
	refused  int       // since it was logged last
	loggedAt time.Time // the last refusal
}

// New returns a server. Close it.
func New(cfg Config) *Server {
	s := &Server{
		ctl: cfg.Control, log: cfg.Log, max: cfg.MaxClients, clients: map[*Client]bool{},
		news: cfg.Control.Subscribe(control.Interest{}, eventQueue),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.max <= 0 {
		s.max = DefaultClients
	}
	s.thresholds[0].Store(32<<8 | 32)
	s.thresholds[1].Store(128<<8 | 128)
	return s
}

// Close ends the server's subscription to events.
func (s *Server) Close() { s.news.Close() }

// Client is one netlink socket. Its methods may be called by any goroutine, but
// Handle and Next by one at a time each.
type Client struct {
	s          *Server
	id         uint64
	privileged bool
	ready      chan struct{} // has a token whenever Next may have something
	room       chan struct{} // has a token whenever Handle may have room

	port     atomic.Uint32
	groups   atomic.Uint32 // bit n-1 is group n
	extended atomic.Bool

	mu     sync.Mutex
	queue  [][]byte
	queued int    // bytes
	lost   uint64 // events since the last that was queued
	dump   dump
}

// NewClient returns a client. One that is not privileged (netlink asks for
// CAP_NET_ADMIN) is refused everything. Close it.
func (s *Server) NewClient(privileged bool) *Client {
	c := &Client{
		s: s, id: s.ctl.NewClient(), privileged: privileged,
		ready: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c] = true
	return c
}

// Close ends the client: no more news for it.
func (c *Client) Close() {
	c.s.mu.Lock()
	delete(c.s.clients, c)
	c.s.mu.Unlock()
	c.s.want()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.queue {
		clear(b)
	}
	c.queue, c.queued, c.dump = nil, 0, nil
}

// Port is the port ID of answers and events: what bind or the kernel's autobind
// gave the socket, as getsockname tells it. An answer to a request that names
// its port has that.
func (c *Client) Port() uint32 { return c.port.Load() }

// SetPort sets Port.
func (c *Client) SetPort(port uint32) { c.port.Store(port) }

// SetGroups joins the multicast groups in the set, of which group n is bit n-1,
// and leaves the others: nl_groups of bind.
func (c *Client) SetGroups(groups uint32) {
	if c.privileged {
		c.groups.Store(groups)
		c.s.want()
	}
}

// SetExtendedAcks has errors come with a text (NETLINK_EXT_ACK).
func (c *Client) SetExtendedAcks(on bool) { c.extended.Store(on) }

func (c *Client) extendedAcks() bool { return c.extended.Load() }

// Handle serves datagrams of the client, in order and in one step of the
// control: when it returns, the answers can be had from Next, and what they
// confirm is in force. It is ErrFull, and does nothing, if the client has not
// read what is there.
func (c *Client) Handle(datagrams ...[]byte) error {
	c.mu.Lock()
	full := c.queued >= maxQueue
	c.mu.Unlock()
	if full {
		return fmt.Errorf("handle a request: %w", ErrFull)
	}
	x := exchange{c: c, dumping: c.dumping()}
	if err := c.s.ctl.Keying(func(k *control.Keying) {
		for _, d := range datagrams {
			x.serve(k, d)
		}
	}); err != nil {
		return fmt.Errorf("handle a request: %w", err)
	}
	if x.joins != nil {
		c.SetGroups(*x.joins)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range x.out {
		c.enqueue(b)
	}
	if x.begun != nil {
		c.dump = x.begun
		signal(c.ready)
	}
	return nil
}

func (c *Client) enqueue(b []byte) {
	c.queue = append(c.queue, b)
	c.queued += len(b)
	signal(c.ready)
}

// signal puts a token into ch if there is none.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Ready has a token whenever Next may have something.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// Next returns the next datagram for the client, nil if there is none now. It
// is the caller's, who wipes it: it may hold keys. A dump goes on as it is
// read, after what is queued.
func (c *Client) Next() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.queue) > 0:
		b := c.queue[0]
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.queued -= len(b)
		if len(c.queue) == 0 {
			c.queue = nil
		}
		if c.queued < maxQueue/2 {
			signal(c.room)
		}
		return b
	case c.lost > 0:
		// What recvmsg would say as ENOBUFS.
		c.s.log.Warn("XFRM client reads too slowly: events are lost", "client", c.id, "port", c.Port(), "lost", c.lost)
		c.lost = 0
		return newMessage(nil, header{typ: syscall.NLMSG_OVERRUN, port: c.Port()}, nil).end()
	case c.dump != nil:
		return c.more()
	}
	return nil
}

// more returns the next datagram of the dump that is under way.
func (c *Client) more() []byte {
	b := make([]byte, 0, 2*dumpFill)
	for len(b) < dumpFill {
		var ok bool
		if b, ok = c.dump.next(b); ok {
			continue
		}
		if len(b) == 0 {
			b = c.dump.done()
			c.dump = nil
		}
		break
	}
	return b
}

// dumping says whether a dump is under way.
func (c *Client) dumping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dump != nil
}

// tell queues an event, or counts it as lost. Nothing is queued while events
// are lost, so that the client hears of the loss where it happened.
func (c *Client) tell(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost > 0 || c.queued+len(b) > maxEvents {
		c.lose(1)
		return
	}
	c.enqueue(append([]byte(nil), b...))
}

// lose counts lost events. c.mu is held.
func (c *Client) lose(n uint64) {
	c.lost += n
	signal(c.ready)
}
