package control

import (
	"fmt"
	"slices"

	"spigot/sad"
)

// maxSAs bounds the SADB.
const maxSAs = 1 << 20

// AddSA adds an SA with its keys. It is ErrExists if there is one of its name,
// larval or not.
func (k *Keying) AddSA(by Origin, p SAParams) error {
	c := k.c
	if err := c.vacant(p.ID()); err != nil {
		return fmt.Errorf("add SA: %w", err)
	}
	return c.addKeyed("add SA", EventSA, by, &p, nil)
}

// vacant says whether an SA of that name may be added.
func (c *Controller) vacant(id SAID) error {
	if len(c.sas.byID) >= maxSAs {
		return fmt.Errorf("%w: there are %d SAs: delete some", ErrLimit, len(c.sas.byID))
	}
	taken := c.sas.byID[id] != nil
	for _, m := range c.pending {
		taken = taken || idOfParams(&m.params) == id
	}
	if taken {
		return fmt.Errorf("%w: %v: delete it first, or choose another SPI", ErrExists, id)
	}
	return nil
}

// addKeyed adds the SA that p describes, in place of larva where that is set.
func (c *Controller) addKeyed(op string, kind EventKind, by Origin, p *SAParams, larva *record) error {
	if err := c.checkLegacy(&p.Params); err != nil {
		if c.oldLog.take(c.clock.now()) {
			c.log.Warn("SA refused", "sa", p.Params, "err", err)
		}
		return refused(op, err)
	}
	q := p.clone()
	c.narrow(by, &q, larva)
	if q.Sel != nil {
		q.Selectors = append(q.Selectors, *q.Sel)
	}
	if larva != nil && q.Direction == DirectionUnknown {
		q.Direction = Inbound
	}
	r := &record{id: q.ID(), keyed: &keyed{params: q, owner: by}, added: c.clock.now()}
	if larva != nil {
		r.keyed.acquire = larva.keyed.acquire
	}
	r.describe(&q.Params)
	if err := c.make(r); err != nil {
		r.keyed.params.wipe()
		return refused(op, err)
	}
	if larva != nil {
		c.remove(larva)
	}
	if err := c.insert(r); err != nil { // nothing of that name is there
		r.keyed.params.wipe()
		r.sa().Key.Zero()
		return refused(op, err)
	}
	if !r.placed() {
		c.waiting++
	}
	c.undoable(func() { c.remove(r) })
	c.tellSA(kind, by, r)
	return nil
}

// make makes the SA that a key daemon described in r. Where the direction is
// not known it only makes sure that it can be made.
func (c *Controller) make(r *record) (err error) {
	q := &r.keyed.params
	dir := q.Direction
	if dir == DirectionUnknown {
		dir = c.directionOf(&q.Params)
	}
	switch dir {
	case Inbound:
		r.in, err = sad.NewInbound(&q.Params)
		r.window = q.Window
	case Outbound:
		r.out, err = sad.NewOutbound(&q.Params)
	default:
		err = tryBoth(&q.Params)
	}
	return err
}

// tryBoth says whether p makes an SA in either direction.
func tryBoth(p *sad.Params) error {
	in, err := sad.NewInbound(p)
	if err != nil {
		return err
	}
	in.Key.Zero()
	out, err := sad.NewOutbound(p)
	if err != nil {
		return err
	}
	out.Key.Zero()
	return nil
}

// clone copies p with all that it points to, but for Opaque.
func (p *SAParams) clone() SAParams {
	q := *p
	q.EncKey, q.AuthKey = slices.Clone(p.EncKey), slices.Clone(p.AuthKey)
	q.Selectors = slices.Clone(p.Selectors)
	q.Replay.Seen = slices.Clone(p.Replay.Seen)
	if p.Sel != nil {
		sel := *p.Sel
		q.Sel = &sel
	}
	return q
}

// wipe zeroes the keys.
func (p *SAParams) wipe() {
	clear(p.EncKey)
	clear(p.AuthKey)
	p.EncKey, p.AuthKey = nil, nil
}

// DeleteSA deletes the SA of that name and returns what it was, without keys. An
// inbound one that a newer SA of the same ends replaces opens for another second
// what is on its way. It is ErrNotFound if there is none and ErrStatic for one of
// the configuration.
func (k *Keying) DeleteSA(by Origin, id SAID) (SA, error) {
	r := k.c.sas.byID[id]
	switch {
	case r == nil:
		return SA{}, fmt.Errorf("delete SA: %w: %v: list the SAs", ErrNotFound, id)
	case r.keyed == nil:
		return SA{}, fmt.Errorf("delete SA: %w: %v (%s): change the configuration", ErrStatic, id, r.name)
	}
	was := k.c.viewOf(r, false)
	k.c.tellSA(EventSADelete, by, r)
	if k.c.mayDrain(r) {
		k.c.leave(r)
		k.c.beginDrain(r, k.c.clock.now())
	} else {
		k.c.remove(r)
	}
	return was, nil
}

// FlushSAs deletes all SAs of proto, or of every protocol if it is 0, but those
// of the configuration, and returns how many it were. Subscribers hear of it
// once.
func (k *Keying) FlushSAs(by Origin, proto uint8) (n int) {
	k.c.endDrains(func(d *drain) bool { return proto == 0 || d.id.Proto == proto })
	for r := k.c.sas.last; r != nil; r = r.prev {
		if r.keyed != nil && (proto == 0 || r.id.Proto == proto) {
			k.c.remove(r)
			n++
		}
	}
	k.c.tellEvent(Event{Kind: EventSAFlush, By: by, Proto: proto})
	return n
}

// SA returns the SA of that name, with its keys if withKeys says so: the caller
// wipes them.
func (k *Keying) SA(id SAID, withKeys bool) (SA, error) {
	r := k.c.sas.byID[id]
	if r == nil {
		return SA{}, fmt.Errorf("get SA: %w: %v: list the SAs", ErrNotFound, id)
	}
	return k.c.viewOf(r, withKeys), nil
}

// SetReplay moves the sequence numbers of an SA on, without a packet. It is
// ErrInvalid if they would go back, and ErrNotFound if there is no mature SA of
// that name.
func (k *Keying) SetReplay(by Origin, id SAID, seq uint64) error {
	r := k.c.sas.byID[id]
	ok := true
	switch {
	case r == nil || !r.placed():
		return fmt.Errorf("set sequence number: %w: %v: list the SAs", ErrNotFound, id)
	case r.in != nil:
		ok = r.in.Advance(seq)
	default:
		ok = r.out.Advance(seq)
	}
	if !ok {
		return fmt.Errorf("set sequence number: %w: %v is at %d and cannot go to %d: numbers only go up, to the last there is",
			ErrInvalid, id, r.seq(), seq)
	}
	k.c.tellSA(EventSAUpdate, by, r)
	return nil
}

// SACount returns how many SAs there are, larval ones and those of the
// configuration included.
func (k *Keying) SACount() int { return len(k.c.sas.byID) }

// DumpSAs starts a walk over the SAs of proto that there are now, or all if it
// is 0, in the order in which they were added.
func (k *Keying) DumpSAs(proto uint8) *SADump {
	d := &SADump{c: k.c}
	for r := range k.c.sas.all {
		if proto == 0 || r.id.Proto == proto {
			d.list = append(d.list, r)
		}
	}
	return d
}

// SADump is a walk over the SADB as it was when the walk began. It costs a
// pointer an SA; its reader goes as slowly as it likes. Its methods belong to
// one goroutine and must not be called in Controller.Keying.
type SADump struct {
	c    *Controller
	list []*record
}

// Len returns how many SAs are still to come.
func (d *SADump) Len() int { return len(d.list) }

// Next returns the next SAs, as many as fit buf, and how many they are: 0 at
// the end. It gives keys if withKeys says so, which the caller wipes. An SA that
// has left since is shown as it was, without keys.
func (d *SADump) Next(buf []SA, withKeys bool) int {
	n := min(len(buf), len(d.list))
	d.c.Do(func() {
		for i, r := range d.list[:n] {
			buf[i] = d.c.viewOf(r, withKeys)
		}
	})
	clear(d.list[:n])
	d.list = d.list[n:]
	return n
}

// viewOf describes r.
func (c *Controller) viewOf(r *record, withKeys bool) SA {
	v := SA{
		State: Mature, Static: r.keyed == nil,
		Created: c.clock.wall(r.added), FirstUse: c.clock.wall(r.used), LastUse: c.clock.wall(r.last),
	}
	if r.keyed == nil {
		v.SAParams = r.manual.describeSA()
	} else {
		v.SAParams, v.Owner, v.Acquire = r.keyed.params.shown(withKeys), r.keyed.owner, r.keyed.acquire
	}
	switch {
	case r.larval:
		v.State = Larval
	case r.soft:
		v.State = Dying
	}
	switch {
	case r.in != nil:
		v.Replay, v.Direction = r.in.Replay(), Inbound
	case r.out != nil:
		v.Replay, v.Direction = sad.Replay{Seq: r.out.Seq()}, Outbound
	}
	v.Packets, v.Bytes = r.carried()
	return v
}

// shown returns a copy of p for others, without keys unless withKeys says so.
func (p *SAParams) shown(withKeys bool) SAParams {
	q := *p
	if !withKeys {
		q.EncKey, q.AuthKey = nil, nil
	}
	q.Selectors, q.Replay = nil, sad.Replay{}
	return q.clone()
}

// describeSA is what key daemons see of an SA of the configuration.
func (m *manual) describeSA() SAParams {
	p := SAParams{Params: m.params}
	return p.shown(false)
}

// placeWaiting makes the daemons' SAs whose direction the host's addresses tell
// now.
func (c *Controller) placeWaiting() {
	if c.waiting == 0 {
		return
	}
	for r := range c.sas.all {
		if r.keyed == nil || r.larval || r.placed() {
			continue
		}
		err := c.make(r)
		if err == nil {
			err = c.place(r)
		}
		if err != nil { // it could be made before; there is nobody to return this to
			c.log.Error("add an SA", "sa", r.id, "err", err)
			r.in, r.out = nil, nil
			c.remove(r)
			continue
		}
		if r.placed() {
			c.waiting--
			c.offer(r)
			c.carries(r)
		}
	}
}
