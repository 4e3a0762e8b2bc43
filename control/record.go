package control

import (
	"time"

	"spigot/internal/flow"
	"spigot/sad"
)

// record is what the slow path knows of an SA beyond the SA itself. Exactly one
// of in and out is set.
type record struct {
	in     *sad.Inbound
	out    *sad.Outbound
	manual *manual   // the entry of the configuration that it was made from
	added  time.Time // made usable
	used   time.Time // when the first packet was seen, within a second; zero: none yet
	soft   bool      // its soft lifetime has been announced
	window int       // replay window in packets as it was asked for

	// What a reload may change of an SA that stays.
	name                 string
	softLimit, hardLimit sad.Lifetime
}

// identity is what names an SA (RFC 4301, section 4.1).
type identity struct {
	spi   uint32
	dst   flow.Addr
	proto uint8
}

// sa returns what both directions have in common.
func (r *record) sa() *sad.SA {
	if r.in != nil {
		return &r.in.SA
	}
	return &r.out.SA
}

func (r *record) id() identity {
	sa := r.sa()
	return identity{sa.SPI, sa.Dst, sa.Proto}
}

// describe takes over what a reload may change.
func (r *record) describe(p *sad.Params) {
	r.name, r.softLimit, r.hardLimit = p.Name, p.Soft, p.Hard
}

// carried returns packets and bytes so far.
func (r *record) carried() (packets, bytes uint64) {
	if r.in != nil {
		return r.in.Used()
	}
	return r.out.Used()
}

// seq returns the last sequence number: given out, or received and accepted.
func (r *record) seq() uint64 {
	if r.in != nil {
		return r.in.Seq()
	}
	return r.out.Seq()
}

// insert adds r to the SADB. The caller rebinds afterwards.
func (c *Controller) insert(r *record) error {
	var err error
	if r.in != nil {
		err = c.db.AddInbound(r.in)
	} else {
		err = c.db.AddOutbound(r.out)
	}
	if err != nil {
		return err
	}
	c.sas = append(c.sas, r)
	if r.manual != nil && r.manual.key != (digest{}) {
		c.usedKeys[r.manual.key] = true
	}
	return nil
}

// remove takes from the SADB what drop names. The caller rebinds afterwards.
func (c *Controller) remove(drop func(*record) bool) {
	kept := c.sas[:0]
	for _, r := range c.sas {
		if !drop(r) {
			kept = append(kept, r)
			continue
		}
		if err := c.db.Remove(r.sa().SPI, r.sa().Dst, r.sa().Proto); err != nil {
			c.log.Error("remove an SA", "sa", r.sa(), "err", err)
		}
	}
	clear(c.sas[len(kept):])
	c.sas = kept
}
