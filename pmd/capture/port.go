package capture

import (
	"time"

	"spigot/pmd"
)

// Port is a port that is recorded. It implements pmd.Port.
type Port struct {
	inner pmd.Port
	pool  *pmd.Pool
	rec   *Recorder
	lane  *lane
	spare []record // empty records; cap is the lane's depth
}

// Rx receives from the wrapped port and records what came.
func (p *Port) Rx(fs []pmd.Frame) int {
	n := p.inner.Rx(fs)
	if n > 0 && p.rec.opts.Rx && !p.rec.off.Load() {
		p.commit(p.fill(fs[:n], inbound), n)
	}
	return n
}

// Tx sends by the wrapped port and records what that took. The packets are
// copied before, while they are the worker's.
func (p *Port) Tx(fs []pmd.Frame) int {
	if len(fs) == 0 || !p.rec.opts.Tx || p.rec.off.Load() {
		return p.inner.Tx(fs)
	}
	filled := p.fill(fs, outbound)
	n := p.inner.Tx(fs)
	p.commit(filled, n)
	return n
}

// fill copies packets into the last of the spare records, in order, and
// returns how many.
func (p *Port) fill(fs []pmd.Frame, dir direction) int {
	if have := len(p.spare); have < len(fs) {
		p.spare = p.spare[:have+p.lane.empty.Pop(p.spare[have:cap(p.spare)])]
	}
	n := min(len(fs), len(p.spare))
	now := time.Now().UnixNano()
	last := p.spare[len(p.spare)-n:]
	for i, f := range fs[:n] {
		packet := p.pool.Bytes(f)
		last[i] = record{
			nanos:  now,
			length: uint32(f.Len),
			dir:    dir,
			data:   append(last[i].data[:0], packet[:min(len(packet), p.lane.snap)]...),
		}
	}
	return n
}

// commit hands the recorder the records of the first took packets; filled is
// what fill returned for them and those behind. Packets without a record are
// counted as dropped.
func (p *Port) commit(filled, took int) {
	last := p.spare[len(p.spare)-filled:]
	n := min(filled, took)
	p.lane.full.Push(last[:n])
	copy(last, last[n:])
	p.spare = p.spare[:len(p.spare)-n]
	if took > n {
		p.lane.dropped.Add(uint64(took - n))
	}
}

// Flush flushes the wrapped port.
func (p *Port) Flush() { p.inner.Flush() }

// FD returns the wrapped port's descriptor.
func (p *Port) FD() int { return p.inner.FD() }

// Info describes the wrapped port.
func (p *Port) Info() pmd.Info { return p.inner.Info() }

// Stats returns the wrapped port's counters.
func (p *Port) Stats() pmd.Stats { return p.inner.Stats() }

// Close closes the wrapped port; the Recorder goes on.
func (p *Port) Close() error { return p.inner.Close() }

var _ pmd.Port = (*Port)(nil)
