package fault

import (
	"sync/atomic"

	"spigot/pmd"
)

// Stats counts the faults that a Port made: frames, but for TxShort, which
// counts calls.
type Stats struct {
	RxLost       uint64 // returned to the pool, those held at Close included
	RxCorrupted  uint64
	RxTruncated  uint64
	RxDuplicated uint64 // copies made
	RxReordered  uint64 // held back; overtaken, unless the line fell silent
	RxHeld       uint64 // held back or copied and not handed out yet: a level, not a count
	TxShort      uint64 // calls of Tx cut short
	TxLost       uint64
}

// counts is Stats where the worker keeps it. Faults are rare enough for an
// atomic addition each.
type counts struct {
	rxLost, rxCorrupted, rxTruncated, rxDuplicated, rxReordered, rxHeld, txShort, txLost atomic.Uint64
}

// Faults returns what the port did so far. Any goroutine may call it; once the
// worker stands still, the equations of Port hold.
func (p *Port) Faults() Stats {
	c := &p.done
	return Stats{
		RxLost:       c.rxLost.Load(),
		RxCorrupted:  c.rxCorrupted.Load(),
		RxTruncated:  c.rxTruncated.Load(),
		RxDuplicated: c.rxDuplicated.Load(),
		RxReordered:  c.rxReordered.Load(),
		RxHeld:       c.rxHeld.Load(),
		TxShort:      c.txShort.Load(),
		TxLost:       c.txLost.Load(),
	}
}

// Stats returns the wrapped port's counters, with what the worker saw in place
// of packets and bytes. Frames lost on the way out count as done.
func (p *Port) Stats() pmd.Stats {
	s, own := p.inner.Stats(), p.count.Load()
	s.RxPackets, s.RxBytes = own.RxPackets, own.RxBytes
	s.TxPackets, s.TxBytes = own.TxPackets, own.TxBytes
	s.TxDone += p.done.txLost.Load()
	return s
}
