package pfkey

import (
	"golang.org/x/sys/unix"

	"spigot/control"
)

// more is what stands in the reserved field of a message with More.
const more = 0x5350

// maxHeld bounds what all clients together can make the server hold, in bytes.
const maxHeld = 64 << 20

// heldSlot is what a message takes beside its bytes: its place in a list that
// grows, and what an allocator rounds up.
const heldSlot = 64

// held is the messages with More so far, to be handled with the one that follows.
type held struct {
	msgs  [][]byte
	bytes int64      // of msgs, with their slots
	spilt unix.Errno // why nothing will come of them; 0: nothing is wrong yet
}

// hold keeps b for later.
func (c *Client) hold(b []byte) {
	if c.held == nil {
		c.held = new(held)
	}
	h, n := c.held, int64(len(b)+heldSlot)
	if h.spilt != 0 {
		return
	}
	h.bytes += n
	if c.s.holding.Add(n) > maxHeld {
		c.spoil(unix.ENOBUFS)
		return
	}
	h.msgs = append(h.msgs, append([]byte(nil), b...))
}

// spoil has nothing come of what is held.
func (c *Client) spoil(why unix.Errno) {
	if c.held != nil {
		c.spill(c.held)
		c.held.spilt = why
	}
}

// spill forgets the messages, which may have keys.
func (c *Client) spill(h *held) {
	for _, b := range h.msgs {
		clear(b)
	}
	c.s.holding.Add(-h.bytes)
	h.msgs, h.bytes = nil, 0
}

// together handles the messages that are held and last, all of them or none.
// One of them is answered: the last, or the first that is refused.
func (c *Client) together(k *control.Keying, last []byte) {
	h := c.held
	c.held = nil
	defer c.spill(h)
	if h.spilt != 0 {
		c.answerError(last, errorf(h.spilt, "one of the messages before it is none, or too many are held"))
		return
	}
	at, from := last, len(c.replies)
	err := k.Atomic(func() error {
		for _, b := range append(h.msgs, last) {
			at = b
			c.forget(from)
			if err := c.handleOne(k, b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.forget(from)
		c.answerError(at, err)
	}
}

// forget takes back the replies after the first n.
func (c *Client) forget(n int) {
	for _, m := range c.replies[n:] {
		m.Wipe()
	}
	clear(c.replies[n:])
	c.replies = c.replies[:n]
}

// handleOne handles one message of many, which is one that can be undone.
func (c *Client) handleOne(k *control.Keying, b []byte) error {
	m, err := Decode(b)
	defer m.Wipe()
	if err != nil {
		return err
	}
	if m.Type != Add && m.Type != SPDAdd && m.Type != SPDUpdate {
		return errorf(unix.EOPNOTSUPP, "%v among messages that stand or fall together: only what adds or updates can", m.Type)
	}
	return c.act(k, m)
}
