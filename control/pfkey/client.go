package pfkey

import (
	"sync"

	"golang.org/x/sys/unix"

	"spigot/control"
)

// The bounds of what a client makes the server keep.
const (
	maxReplies = 1024 // answers that wait, before no more requests are taken
	maxEvents  = 1024 // events that wait, before it loses some
)

// Client is one client of a Server, whatever carries its messages. Handle
// belongs to one goroutine at a time; the other methods may be called by any.
type Client struct {
	s          *Server
	id         uint64
	privileged bool // may see keys

	// Handle's alone.
	registered [maxSAType + 1]bool
	promisc    bool
	interest   bool       // changed in this call of Handle
	walk       walk       // started in this call of Handle; nil if none was
	replies    []*Message // of this call of Handle
	held       *held      // nil: nothing is

	mu     sync.Mutex
	queue  [][]byte // answers that wait
	dump   *dump    // that is being sent; nil if none is
	closed bool

	ready  chan struct{} // has a token when answers may wait
	room   chan struct{} // has a token when there may be room for answers again
	events *control.Subscriber

	// sending is held by whoever takes messages out, and guards what follows.
	sending sync.Mutex
	taken   [16]control.Event
	news    []control.Event // of taken, not sent yet
	next    []byte          // what could not be sent
}

// Connect returns a client whose peer is user uid: only 0 gets to see keys. It
// is ErrTooMany beyond Config.MaxClients.
func (s *Server) Connect(uid uint32) (*Client, error) {
	c := &Client{
		s: s, privileged: uid == 0,
		ready: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	s.mu.Lock()
	if len(s.clients) >= s.max {
		s.mu.Unlock()
		return nil, ErrTooMany
	}
	s.clients[c] = true
	s.mu.Unlock()
	c.id = s.control.NewClient()
	c.events = s.control.Subscribe(control.Interest{}, maxEvents)
	return c, nil
}

// Close forgets the client. What it has made stays.
func (c *Client) Close() {
	c.s.mu.Lock()
	delete(c.s.clients, c)
	c.s.mu.Unlock()
	c.events.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, b := range c.queue {
		clear(b)
	}
	c.queue, c.dump = nil, nil
}

// Handle answers messages that the client has sent, in order. When it returns,
// what they changed is in force, the answers are there for Deliver, and no
// part of msgs is used any more. All that is waiting is best given in one call.
//
// The result is the error with which a kernel would have refused to take the
// last of them at all, 0 if it would have taken it: EMSGSIZE or EINVAL for a
// header that is none, ENOBUFS while too many answers wait. Then there is no
// answer to that message; others' errors are answers.
func (c *Client) Handle(msgs ...[]byte) (errno unix.Errno) {
	if len(msgs) == 0 {
		return 0
	}
	if c.waiting() >= maxReplies {
		return unix.ENOBUFS
	}
	err := c.s.control.Keying(func(k *control.Keying) {
		for _, b := range msgs {
			errno = c.handle(k, b)
		}
	})
	if err != nil {
		return unix.ENETDOWN
	}
	if c.interest {
		c.interest = false
		c.events.Want(c.wants())
	}
	c.flush()
	return errno
}

// waiting returns how many answers wait.
func (c *Client) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

// flush queues the answers of this call of Handle.
func (c *Client) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.replies {
		b := m.Append(make([]byte, 0, m.room()))
		m.Wipe()
		if !c.closed {
			c.queue = append(c.queue, b)
		}
	}
	clear(c.replies)
	c.replies = c.replies[:0]
	if c.walk != nil && !c.closed {
		c.dump = &dump{walk: c.walk}
	}
	c.walk = nil
	wake(c.ready)
}

// room is how much Append may need for m, so that keys are not left behind in
// a slice that was too small.
func (m *Message) room() int {
	if m.Has&keys != 0 {
		return MaxMessage / 4
	}
	return headerLen
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has a token
	}
}

// Wait returns true when messages may be waiting for Deliver, and false when
// done is closed.
func (c *Client) Wait(done <-chan struct{}) bool {
	select {
	case <-done:
		return false
	case <-c.ready:
	case <-c.events.Ready():
	}
	return true
}

// Deliver hands what is waiting for the client to send, one message a call,
// until nothing is left or send returns false, which it does to get the same
// message again next time. Deliver returns whether nothing is left. Answers
// come before events, events before what a DUMP lists: a DUMP goes on only as
// fast as it is sent. send must not keep the slice.
func (c *Client) Deliver(send func(b []byte) bool) bool {
	c.sending.Lock()
	defer c.sending.Unlock()
	for {
		if c.next == nil {
			c.next = c.pull()
		}
		if c.next == nil {
			return true
		}
		if !send(c.next) {
			return false
		}
		clear(c.next) // it may have had keys
		c.next = nil
	}
}

// pull returns the next message to be sent, nil if there is none.
func (c *Client) pull() []byte {
	c.mu.Lock()
	if len(c.queue) > 0 {
		b := c.queue[0]
		if c.queue = c.queue[1:]; len(c.queue) == 0 {
			c.queue = nil
		}
		c.mu.Unlock()
		wake(c.room)
		return b
	}
	d := c.dump
	c.mu.Unlock()
	if b := c.pullEvent(); b != nil || d == nil {
		return b
	}
	b := d.next(c.privileged)
	if d.ahead == nil { // before the client can see the last one and ask for another dump
		c.mu.Lock()
		c.dump = nil
		c.mu.Unlock()
	}
	return b
}

// pullEvent returns the next event, nil if there is none.
func (c *Client) pullEvent() []byte {
	for {
		if len(c.news) == 0 {
			n := c.events.Take(c.taken[:])
			if n == 0 {
				return nil
			}
			c.news = c.taken[:n]
		}
		e := &c.news[0]
		c.news = c.news[1:]
		if e.By.Client == c.id && e.Kind != control.EventLost {
			continue // it has the answer
		}
		if m := c.s.eventMessage(e); m != nil {
			return m.Append(nil)
		}
	}
}
