package memport

import (
	"fmt"

	"spigot/ring"
)

// cable carries packets one way between two goroutines. A fixed set of buffers
// goes round: full ones to the receiver, empty ones back to the sender. There
// are as many as a ring has slots, so that a push of what was popped never
// falls short.
type cable struct {
	full  *ring.SPSC[[]byte] // the sender pushes
	empty *ring.SPSC[[]byte] // the receiver pushes
}

// newCable returns a cable for depth packets, a power of two; buffers start
// with size bytes and grow when a packet is longer.
func newCable(depth, size int) (*cable, error) {
	if depth <= 0 || depth&(depth-1) != 0 {
		return nil, fmt.Errorf("%w: depth %d is not a power of two", ErrOptions, depth)
	}
	c := &cable{full: ring.New[[]byte](depth), empty: ring.New[[]byte](depth)}
	bufs := make([][]byte, depth)
	for i := range bufs {
		bufs[i] = make([]byte, 0, size)
	}
	c.empty.Push(bufs)
	return c, nil
}

// depth returns how many packets fit.
func (c *cable) depth() int { return c.full.Cap() }

// waiting returns how many packets the receiver can take.
func (c *cable) waiting() int { return c.full.Len() }
