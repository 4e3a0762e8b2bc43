package pmd

import (
	"runtime"
	"sync/atomic"
)

// Counters is how a driver keeps its Stats: the worker adds to the embedded
// Stats without atomics and calls Publish in Flush; Port.Stats is Load. A
// sequence lock keeps what Load returns consistent.
type Counters struct {
	Stats // owned by the worker

	_   [64]byte
	seq atomic.Uint64 // odd while Publish is at work
	pub [numStats]atomic.Uint64
}

const numStats = 13

// fields lists s's counters in one fixed order.
func (s *Stats) fields() [numStats]*uint64 {
	return [numStats]*uint64{
		&s.RxPackets, &s.RxBytes, &s.TxPackets, &s.TxBytes, &s.TxDone,
		&s.TxErrors, &s.Kicks, &s.RxDropped, &s.FillEmpty, &s.BadDesc,
		&s.RxJumbo, &s.RxGiant, &s.JumboEmpty,
	}
}

// Publish makes the counters visible to Load. Worker only.
func (c *Counters) Publish() {
	c.seq.Add(1)
	for i, f := range c.fields() {
		if c.pub[i].Load() != *f {
			c.pub[i].Store(*f)
		}
	}
	c.seq.Add(1)
}

// Load returns the counters as of the last Publish. Any goroutine may call it.
func (c *Counters) Load() Stats {
	for {
		var s Stats
		seq := c.seq.Load()
		for i, f := range s.fields() {
			*f = c.pub[i].Load()
		}
		if seq&1 == 0 && c.seq.Load() == seq {
			return s
		}
		runtime.Gosched() // the worker may need this processor to get on
	}
}
