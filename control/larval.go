package control

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/sad"
)

const (
	minSPI     = 256              // RFC 4303, section 2.1
	larvalLife = 60 * time.Second // OpenBSD's
	maxLarval  = 1 << 14
	spiTries   = 64 // random draws before the range is walked
	maxWalk    = 1 << 12
)

// GetSPI reserves an SPI for an inbound SA (RFC 2367, section 3.1.1): a random
// one in the range, never one of the reserved 0 to 255. UpdateSA with the keys
// has to follow within 60 seconds, or it is silently given up.
func (k *Keying) GetSPI(by Origin, q GetSPIRequest) (SA, error) {
	c := k.c
	switch {
	case q.Proto != wire.ProtoESP && q.Proto != wire.ProtoAH:
		return SA{}, fmt.Errorf("get SPI: %w: protocol %d: ask for ESP, 50, or AH, 51", ErrUnsupported, q.Proto)
	case q.Dst.IsZero() || q.Dst == flow.V4(0):
		return SA{}, fmt.Errorf("get SPI: %w: no destination: give an address of the gateway", ErrInvalid)
	case c.larvals >= maxLarval:
		return SA{}, fmt.Errorf("get SPI: %w: %d SAs wait for their keys: wait a minute", ErrLimit, c.larvals)
	}
	if q.Min == 0 && q.Max == 0 {
		q.Max = math.MaxUint32
	}
	if q.Max < minSPI || q.Max < q.Min {
		return SA{}, fmt.Errorf("get SPI: %w: range %#x to %#x: give one above 255, low end first", ErrInvalid, q.Min, q.Max)
	}
	id, err := c.drawSPI(&q)
	if err != nil {
		return SA{}, fmt.Errorf("get SPI: %w", err)
	}
	p := SAParams{
		Params: sad.Params{SPI: id.SPI, Proto: q.Proto, Src: q.Src, Dst: q.Dst, Reqid: q.Reqid, Tunnel: q.Tunnel},
		Opaque: q.Opaque,
	}
	c.narrow(Origin{Seq: cmp.Or(q.Acquire, by.Seq)}, &p, nil)
	r := &record{
		id: id, larval: true, added: c.clock.now(),
		keyed: &keyed{params: p, owner: by, acquire: q.Acquire},
	}
	c.sas.add(r)
	c.larvals++
	c.db.Expect(id.SPI, id.Dst, id.Proto)
	c.tellSA(EventSPI, by, r)
	return c.viewOf(r, false), nil
}

// drawSPI finds an SPI that no SA has.
func (c *Controller) drawSPI(q *GetSPIRequest) (SAID, error) {
	lo := max(q.Min, minSPI)
	size := uint64(q.Max) - uint64(lo) + 1
	id := SAID{Dst: q.Dst, Proto: q.Proto}
	var err error
	for range spiTries {
		id.SPI = lo + uint32(rand.Uint64N(size))
		if err = c.vacant(id); err == nil {
			return id, nil
		}
	}
	start := rand.Uint64N(size)
	for i := range min(size, maxWalk) {
		id.SPI = lo + uint32((start+i)%size)
		if err = c.vacant(id); err == nil {
			return id, nil
		}
	}
	return SAID{}, err
}
