package control

import (
	"slices"
	"sync"

	"spigot/internal/flow"
)

// EventKind tells what an Event is about.
type EventKind uint8

// The kinds, and the fields of Event that go with each beside By.
const (
	EventLost         EventKind = iota // Lost: events that the subscriber was too slow for
	EventAcquire                       // Acquire
	EventExpire                        // SA, Hard, Reason; a hard one is the SA's end
	EventPolicyExpire                  // Policy, Hard
	EventMapping                       // SA; Peer, Port: where its authentic packets come from, other than it says
	EventSPI                           // SA: GetSPI made it
	EventSA                            // SA: added
	EventSAUpdate                      // SA: updated, or grown from a larval one
	EventSADelete                      // SA: deleted on demand
	EventSAFlush                       // Proto; 0: all
	EventPolicy                        // Policy: added
	EventPolicyUpdate                  // Policy: updated, or added by an update
	EventPolicyDelete                  // Policy: deleted on demand
	EventPolicyFlush                   // all but those of the configuration
	numEventKinds
)

// Event is news of the SADB and SPD. It is shared: receivers must not change
// what it points to. It never holds keys.
type Event struct {
	Kind    EventKind
	By      Origin
	SA      *SA
	Policy  *Policy
	Acquire *Acquire
	Hard    bool
	Reason  string // "time", "use time", "bytes", "packets" or "sequence"
	Proto   uint8
	Peer    flow.Addr
	Port    uint16
	Lost    uint64
}

// Interest is a set of events.
type Interest struct {
	Kinds uint32 // bits by EventKind, see KindSet; EventLost comes anyway
	// Protos limits EventAcquire and EventExpire to SAs of these protocols, as
	// PF_KEY's REGISTER does; nil: all.
	Protos []uint8
}

// KindSet returns the set of these kinds.
func KindSet(kinds ...EventKind) (set uint32) {
	for _, k := range kinds {
		set |= 1 << k
	}
	return set
}

// AllKinds is every event.
const AllKinds = 1<<numEventKinds - 1

// maxQueue is the longest queue of a Subscriber.
const maxQueue = 1 << 14

// Subscriber is a front end's queue of events. Whoever reads it too slowly
// loses the latest events and is told so; nobody else waits. Its methods may be
// called by any goroutine.
type Subscriber struct {
	c     *Controller
	ready chan struct{}

	mu       sync.Mutex
	interest Interest
	queue    []Event // of at most size, but for one EventLost at its end
	size     int
	lost     uint64
}

// Subscribe returns a queue for up to size events that interest says. Close it.
func (c *Controller) Subscribe(interest Interest, size int) *Subscriber {
	s := &Subscriber{c: c, ready: make(chan struct{}, 1), size: min(max(size, 1), maxQueue), interest: interest}
	c.Do(func() {
		if c.closed {
			return
		}
		c.subscribers[s] = true
		c.forgetUnheard(&interest)
	})
	return s
}

// Want changes what the subscriber hears of from now on.
func (s *Subscriber) Want(interest Interest) {
	s.c.Do(func() {
		s.mu.Lock()
		s.interest = interest
		s.mu.Unlock()
		s.c.forgetUnheard(&interest)
	})
}

// Ready has a token whenever events may be waiting.
func (s *Subscriber) Ready() <-chan struct{} { return s.ready }

// Take moves events that wait, the oldest first, to buf, and returns how many.
func (s *Subscriber) Take(buf []Event) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(buf, s.queue)
	clear(s.queue[:n])
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil
	}
	if s.lost > 0 && n < len(buf) {
		buf[n] = Event{Kind: EventLost, Lost: s.lost}
		s.lost = 0
		n++
	}
	if len(s.queue) > 0 || s.lost > 0 {
		s.wake()
	}
	return n
}

// Close ends the subscription. What waits can still be taken.
func (s *Subscriber) Close() {
	s.c.Do(func() { delete(s.c.subscribers, s) })
}

func (s *Subscriber) wake() {
	select {
	case s.ready <- struct{}{}:
	default: // it has one
	}
}

// put queues e. While events are lost none is queued, so that the loss stands
// where it happened.
func (s *Subscriber) put(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 || len(s.queue) >= s.size {
		s.lost++
	} else {
		s.queue = append(s.queue, e)
	}
	s.wake()
}

// wants says whether s is to hear of an event of that kind and protocol, 0 for
// an event without one.
func (s *Subscriber) wants(kind EventKind, proto uint8) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.interest.wants(kind, proto)
}

func (i *Interest) wants(kind EventKind, proto uint8) bool {
	if i.Kinds>>kind&1 == 0 {
		return false
	}
	if kind != EventAcquire && kind != EventExpire || i.Protos == nil {
		return true
	}
	return slices.Contains(i.Protos, proto)
}

// heard says whether anybody wants such an event.
func (c *Controller) heard(kind EventKind, proto uint8) bool {
	for s := range c.subscribers {
		if s.wants(kind, proto) {
			return true
		}
	}
	return false
}

// tellEvent has subscribers hear of e once the edit in progress is in force.
func (c *Controller) tellEvent(e Event) { c.news = append(c.news, e) }

// tellSA tells of r as it is now.
func (c *Controller) tellSA(kind EventKind, by Origin, r *record) {
	if !c.heard(kind, r.id.Proto) {
		return
	}
	v := c.viewOf(r, false)
	c.tellEvent(Event{Kind: kind, By: by, SA: &v})
}

// tellPolicy tells of p as it is now.
func (c *Controller) tellPolicy(kind EventKind, by Origin, p *policy) {
	if !c.heard(kind, 0) {
		return
	}
	v := c.policyOf(p)
	c.tellEvent(Event{Kind: kind, By: by, Policy: &v})
}

// proto is the protocol of the SA that e is about, 0 if it is about none.
func (e *Event) proto() uint8 {
	switch {
	case e.SA != nil:
		return e.SA.Proto
	case e.Acquire != nil:
		return e.Acquire.Template.Proto
	}
	return 0
}

// deliver hands the news to subscribers.
func (c *Controller) deliver() {
	for _, e := range c.news {
		for s := range c.subscribers {
			if s.wants(e.Kind, e.proto()) {
				s.put(e)
			}
		}
	}
	clear(c.news)
	c.news = c.news[:0]
}
