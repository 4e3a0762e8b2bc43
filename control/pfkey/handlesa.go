package pfkey

import (
	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/internal/flow"
)

// getSPI reserves an SPI. A seq that is an ACQUIRE's from the same peer says
// what it answers.
func (c *Client) getSPI(k *control.Keying, m *Message) error {
	proto, err := m.proto()
	if err != nil {
		return err
	}
	tunnel, err := m.tunnel()
	if err != nil {
		return err
	}
	q := control.GetSPIRequest{
		Proto: proto, Src: flow.FromNetip(m.Src.Addr), Dst: flow.FromNetip(m.Dst.Addr),
		Min: m.SPIRange.Min, Max: m.SPIRange.Max, Reqid: m.SA2.Reqid, Tunnel: tunnel,
	}
	if a, ok := k.Acquire(m.Seq); ok && a.Peer == q.Src {
		q.Acquire = m.Seq
	}
	sa, err := k.GetSPI(c.origin(m), q)
	if err != nil {
		return err
	}
	c.replySA(m, &sa)
	return nil
}

func (c *Client) add(k *control.Keying, m *Message) error {
	p, err := m.saParams()
	if err == nil {
		err = k.AddSA(c.origin(m), p)
	}
	if err != nil {
		return err
	}
	return c.getAgain(k, m)
}

func (c *Client) update(k *control.Keying, m *Message) error {
	p, err := m.saParams()
	if err == nil {
		err = k.UpdateSA(c.origin(m), p)
	}
	if err != nil {
		return err
	}
	return c.getAgain(k, m)
}

// getAgain answers with the SA as it is now, without keys.
func (c *Client) getAgain(k *control.Keying, m *Message) error {
	sa, err := k.SA(m.saID(), false)
	if err != nil {
		return err
	}
	c.replySA(m, &sa)
	return nil
}

func (c *Client) replySA(m *Message, sa *control.SA) {
	answer := m.header()
	answer.describe(sa, lifetimes)
	c.reply(answer)
}

func (c *Client) delete(k *control.Keying, m *Message) error {
	sa, err := k.DeleteSA(c.origin(m), m.saID())
	if err != nil {
		return err
	}
	answer := m.header()
	answer.describe(&sa, lifetimes)
	answer.SA.State = StateDead
	c.reply(answer)
	return nil
}

// get answers with the SA and, to a privileged client, its keys.
func (c *Client) get(k *control.Keying, m *Message) error {
	sa, err := k.SA(m.saID(), c.privileged)
	if err != nil {
		return err
	}
	c.replySA(m, &sa)
	return nil
}

// protoOrAny returns the protocol of m's SA type, 0 for all of them.
func (m *Message) protoOrAny() (uint8, error) {
	if m.SAType == Unspec {
		return 0, nil
	}
	return m.proto()
}

// flushSAs deletes the SAs, but for those of the configuration. Linux answers
// a registered client a second time, as one of those who hear of it.
func (c *Client) flushSAs(k *control.Keying, m *Message) error {
	proto, err := m.protoOrAny()
	if err != nil {
		return err
	}
	c.replyFlush(m, k.FlushSAs(c.origin(m), proto))
	return nil
}

func (c *Client) replyFlush(m *Message, n int) {
	c.reply(m.header())
	if n > 0 && c.wants().Kinds != 0 {
		c.reply(m.header())
	}
}

// dumpSAs starts to list the SAs: Deliver goes on with it.
func (c *Client) dumpSAs(k *control.Keying, m *Message) error {
	proto, err := m.protoOrAny()
	if err == nil {
		err = c.mayDump()
	}
	if err != nil {
		return err
	}
	c.walk = &saWalk{msg: m, asks: k.Acquires(), from: k.DumpSAs(proto)}
	return nil
}

// mayDump says whether a dump can start: one at a time.
func (c *Client) mayDump() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dump != nil || c.walk != nil {
		return errorf(unix.EBUSY, "a dump while another one is not read")
	}
	return nil
}
