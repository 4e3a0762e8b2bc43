package control

import (
	"time"

	"spigot/sad"
)

// record is what the slow path knows of an SA beyond the SA itself. At most one
// of in and out is set: neither while the SA is larval or its direction is not
// known.
type record struct {
	id         SAID
	prev, next *record // in the order in which they were added
	order      uint64  // counts up along it

	in     *sad.Inbound
	out    *sad.Outbound
	manual *manual // the entry of the configuration that it was made from; else nil
	keyed  *keyed  // what a key daemon has said of it; nil for the configuration's
	larval bool
	added  time.Time // made usable, or reserved
	used   time.Time // when the first packet was seen, within a second; zero: none yet
	last   time.Time // the same of the latest
	seen   uint64    // packets, when last was set
	soft   bool      // its soft lifetime has been announced
	warned time.Time // when
	watch  int       // its place in records.watched, counted from 1; 0: it is not there
	window int       // replay window in packets as it was asked for
	moved  mapping   // where the peer was seen last, if not where the SA says

	// What a reload or an update may change of an SA that stays.
	name                 string
	softLimit, hardLimit sad.Lifetime
}

// keyed is the part of a record that belongs to a key daemon. It keeps the keys
// for daemons that ask for them.
type keyed struct {
	params  SAParams
	owner   Origin
	acquire uint32 // that it answers
}

// sa returns what both directions have in common, nil if the SA is not placed.
func (r *record) sa() *sad.SA {
	switch {
	case r.in != nil:
		return &r.in.SA
	case r.out != nil:
		return &r.out.SA
	}
	return nil
}

// placed says whether workers may know the SA.
func (r *record) placed() bool { return r.in != nil || r.out != nil }

// describe takes over what a reload may change.
func (r *record) describe(p *sad.Params) {
	r.name, r.softLimit, r.hardLimit = p.Name, p.Soft, p.Hard
}

// carried returns packets and bytes so far.
func (r *record) carried() (packets, bytes uint64) {
	switch {
	case r.in != nil:
		packets, bytes = r.in.Used()
	case r.out != nil:
		packets, bytes = r.out.Used()
	}
	if r.keyed != nil {
		packets += r.keyed.params.Carried.Packets
		bytes += r.keyed.params.Carried.Bytes
	}
	return packets, bytes
}

// seq returns the last sequence number: given out, or received and accepted.
func (r *record) seq() uint64 {
	switch {
	case r.in != nil:
		return r.in.Seq()
	case r.out != nil:
		return r.out.Seq()
	}
	return 0
}

// records holds all SAs by name and in the order in which they were added.
type records struct {
	byID        map[SAID]*record
	first, last *record
	cursor      *record // the next to be judged; nil: no round is under way
	added       uint64

	// Those with a lifetime in bytes or packets, in no order.
	watched []*record
	turn    int       // the next to be looked at
	looked  time.Time // when that was
	due     []*record // scratch
}

// all yields the records in order. The loop may remove the one that it has.
func (s *records) all(yield func(*record) bool) {
	for r := s.first; r != nil; {
		next := r.next
		if !yield(r) {
			return
		}
		r = next
	}
}

func (s *records) add(r *record) {
	s.added++
	r.order, r.prev, r.next = s.added, s.last, nil
	if s.last != nil {
		s.last.next = r
	} else {
		s.first = r
	}
	s.last = r
	s.byID[r.id] = r
	s.bound(r)
}

// bound notes whether r, which is there, has a lifetime in bytes or packets.
func (s *records) bound(r *record) {
	limits := r.softLimit.Bytes | r.softLimit.Packets | r.hardLimit.Bytes | r.hardLimit.Packets
	switch {
	case limits != 0 && r.watch == 0:
		s.watched = append(s.watched, r)
		r.watch = len(s.watched)
	case limits == 0 && r.watch != 0:
		s.unwatch(r)
	}
}

// unwatch puts the last of those that are watched in r's place.
func (s *records) unwatch(r *record) {
	end := len(s.watched) - 1
	last := s.watched[end]
	s.watched[r.watch-1], last.watch = last, r.watch
	s.watched[end], r.watch = nil, 0
	s.watched = s.watched[:end]
}

// remove forgets r, whose next stays for a loop that is at r.
func (s *records) remove(r *record) {
	if s.cursor == r {
		s.cursor = r.next
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		s.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		s.last = r.prev
	}
	delete(s.byID, r.id)
	if r.watch != 0 {
		s.unwatch(r)
	}
}

// insert adds r to the SADB, and binds policies to it.
func (c *Controller) insert(r *record) error {
	if err := c.place(r); err != nil {
		return err
	}
	c.sas.add(r)
	c.offer(r)
	c.carries(r)
	if r.manual != nil && r.manual.key != (digest{}) {
		c.usedKeys[r.manual.key] = true
	}
	return nil
}

// place shows r's SA, if it has one, to workers. A name that drains is free.
func (c *Controller) place(r *record) error {
	c.endDrains(func(d *drain) bool { return d.id == r.id })
	switch {
	case r.in != nil:
		err := c.db.AddInbound(r.in)
		if err == nil {
			c.groups.receives(r, 1)
		}
		return err
	case r.out != nil:
		c.notesCover(r.out)
		c.notesWorker(r)
		return c.db.AddOutbound(r.out)
	}
	return nil
}

// remove takes r from the SADB, and from workers; policies that it served look
// for another SA.
func (c *Controller) remove(r *record) {
	c.leave(r)
	var err error
	switch {
	case r.in != nil:
		err = c.db.RemoveInbound(r.in)
	case r.out != nil:
		err = c.db.Remove(r.out.SPI, r.out.Dst, r.out.Proto)
	}
	if err != nil {
		c.log.Error("remove an SA", "sa", r.id, "err", err)
	}
}

// leave is remove, but for the workers.
func (c *Controller) leave(r *record) {
	c.withdraw(r)
	c.sas.remove(r)
	if r.out != nil {
		delete(c.paths, pathOf(r.out))
	}
	c.carriesNot(r)
	c.groups.receives(r, -1)
	if r.keyed != nil {
		r.keyed.params.wipe()
	}
	if r.manual != nil {
		r.manual.wipe()
	}
	switch {
	case r.larval:
		c.larvals--
		c.db.Forget(r.id.SPI, r.id.Dst, r.id.Proto)
	case !r.placed():
		c.waiting--
	}
}
