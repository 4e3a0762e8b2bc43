package control

import (
	"bytes"
	"fmt"

	"spigot/sad"
)

// UpdateSA gives the larval SA of p's name its keys, by which it becomes a
// mature inbound one, unless p.Direction says otherwise.
//
// Of an SA that is mature already it changes the lifetimes, the encapsulation
// and, outbound, the source; keys, if p has any, must be those that it has, and
// all else is left as it is. It is ErrNotFound if there is no SA of that name,
// and ErrStatic for one of the configuration.
func (k *Keying) UpdateSA(by Origin, p SAParams) error {
	c := k.c
	r := c.sas.byID[p.ID()]
	switch {
	case r == nil:
		return fmt.Errorf("update SA: %w: %v: add it", ErrNotFound, p.ID())
	case r.keyed == nil:
		return fmt.Errorf("update SA: %w: %v (%s): change the configuration", ErrStatic, p.ID(), r.name)
	case r.larval:
		return c.addKeyed("update SA", EventSAUpdate, by, &p, r)
	}
	q := r.keyed.params
	if err := r.allows(&p); err != nil {
		return fmt.Errorf("update SA: %w", err)
	}
	if q.Soft, q.Hard = p.Soft, p.Hard; p.Opaque != nil {
		q.Opaque = p.Opaque
	}
	if q.Src != p.Src || q.Encap != p.Encap {
		q.Src, q.Encap = p.Src, p.Encap
		if err := c.move(r, &q); err != nil {
			return refused("update SA", err)
		}
	}
	r.keyed.params = q
	r.describe(&q.Params)
	c.sas.bound(r)
	r.soft = false
	c.tellSA(EventSAUpdate, by, r)
	return nil
}

// allows says whether r may become p while it is in use.
func (r *record) allows(p *SAParams) error {
	q := &r.keyed.params
	switch {
	case len(p.EncKey) != 0 && !bytes.Equal(p.EncKey, q.EncKey), len(p.AuthKey) != 0 && !bytes.Equal(p.AuthKey, q.AuthKey):
		return fmt.Errorf("%w: %v: a mature SA keeps its keys: delete it and add another", ErrInvalid, r.id)
	case p.Src != q.Src && r.in != nil:
		return fmt.Errorf("%w: %v: an inbound SA keeps its source, for its replay window's sake: delete it and add another",
			ErrUnsupported, r.id)
	}
	return nil
}

// moveGap is how many sequence numbers are given up when an outbound SA moves:
// more than workers can still take from the old one in the turn in which they
// lose sight of it.
const moveGap = 1 << 14

// move gives r an SA with the outer header of q in place of its own, under the
// same keys and without using a sequence number twice. The IVs of counter modes
// are made from it.
func (c *Controller) move(r *record, q *SAParams) error {
	if r.out == nil { // inbound, the outer header decides nothing
		in, err := sad.NewInbound(&q.Params) // is it good?
		if err == nil {
			in.Key.Zero()
		}
		return err
	}
	packets, bytes := r.carried()
	next := q.Params
	if next.Replay.Seq = r.out.Seq() + moveGap; next.Replay.Seq < moveGap {
		return fmt.Errorf("%w: its sequence numbers are used up", sad.ErrParams)
	}
	out, err := sad.NewOutbound(&next)
	if err != nil {
		return err
	}
	c.withdraw(r)
	if err := c.db.Remove(r.id.SPI, r.id.Dst, r.id.Proto); err != nil {
		c.log.Error("remove an SA", "sa", r.id, "err", err)
	}
	if err := c.db.AddOutbound(out); err != nil { // its place is free
		c.log.Error("add an SA", "sa", r.id, "err", err)
	}
	r.out, r.seen = out, 0
	q.Carried.Packets, q.Carried.Bytes = packets, bytes
	c.offer(r)
	return nil
}
