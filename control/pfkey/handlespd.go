package pfkey

import (
	"errors"

	"golang.org/x/sys/unix"

	"spigot/control"
)

func (c *Client) spdAdd(k *control.Keying, m *Message) error {
	return c.setPolicy(k, m, k.AddPolicy)
}

func (c *Client) spdUpdate(k *control.Keying, m *Message) error {
	return c.setPolicy(k, m, k.UpdatePolicy)
}

// setPolicy answers with the policy as it is then: charon needs its ID.
func (c *Client) setPolicy(k *control.Keying, m *Message,
	set func(control.Origin, control.PolicyParams) (uint32, error)) error {
	p, err := m.policyParams(c.s.freshReqid)
	if err != nil {
		return err
	}
	id, err := set(c.origin(m), p)
	if err != nil {
		return err
	}
	now, err := k.PolicyID(id)
	if err != nil {
		return err
	}
	c.replyPolicy(m, &now)
	return nil
}

func (c *Client) replyPolicy(m *Message, p *control.Policy) {
	answer := m.header()
	answer.describePolicy(p)
	c.reply(answer)
}

func (c *Client) spdDelete(k *control.Keying, m *Message) error {
	name, err := m.policyName()
	if err != nil {
		return err
	}
	p, err := k.DeletePolicy(c.origin(m), name)
	if err != nil {
		return noEntry(err)
	}
	c.replyPolicy(m, &p)
	return nil
}

func (c *Client) spdDelete2(k *control.Keying, m *Message) error {
	p, err := k.DeletePolicyID(c.origin(m), m.Policy.ID)
	if err != nil {
		return noEntry(err)
	}
	c.replyPolicy(m, &p)
	return nil
}

func (c *Client) spdGet(k *control.Keying, m *Message) error {
	p, err := k.PolicyID(m.Policy.ID)
	if err != nil {
		return noEntry(err)
	}
	c.replyPolicy(m, &p)
	return nil
}

// noEntry gives a policy that is not there Linux's errno: it is ESRCH for SAs
// only.
func noEntry(err error) error {
	if errors.Is(err, control.ErrNotFound) {
		return errorf(unix.ENOENT, "%v", err)
	}
	return err
}

// spdFlush deletes the policies, but for those of the configuration.
func (c *Client) spdFlush(k *control.Keying, m *Message) error {
	c.replyFlush(m, k.FlushPolicies(c.origin(m)))
	return nil
}

// spdDump starts to list the policies: Deliver goes on with it.
func (c *Client) spdDump(k *control.Keying, m *Message) error {
	if err := c.mayDump(); err != nil {
		return err
	}
	c.walk = &policyWalk{msg: m, from: k.DumpPolicies()}
	return nil
}
