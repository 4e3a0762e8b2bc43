package asavie

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/asavie/xdp"

	"spigot/pmd"
)

// batch is how many frames Rx takes from the pool at a time.
const batch = 64

// minFrame is the least that can be sent: an Ethernet header.
const minFrame = 14

// quietFlushes is how many calls of Flush do not try to send after the device
// refused: a refusal costs a panic.
const quietFlushes = 1024

// Port is one queue of one interface: a pmd.Port. Rx, Tx, Flush and Close
// belong to the worker; FD, Info and Stats to anyone.
//
// It never holds a frame of the pool across calls: Rx copies packets out of
// the library's memory, Tx copies them into it.
type Port struct {
	xsk       *xdp.Socket
	pool      *pmd.Pool
	completed completions
	size      int  // of a frame of the library's memory
	shift     uint // log2 of size
	ring      int  // entries of a ring

	rxFree []xdp.Desc    // frames to receive into that the kernel does not have
	txFree []xdp.Desc    // frames to send from that the kernel does not have
	away   []bool        // by frame number: the kernel has it, to send
	queued []xdp.Desc    // filled by Tx, for the next Flush
	bases  [batch]uint32 // scratch
	quiet  int           // calls of Flush that will not send
	count  pmd.Counters

	info      pmd.Info
	registrar Registrar  // nil before Open succeeded
	mu        sync.Mutex // held by Stats and Close
	gone      bool       // closed; under mu
	last      pmd.Stats  // what the kernel counted before Close; under mu
}

var _ pmd.Port = (*Port)(nil)

// Rx implements pmd.Port. Packets wait in the ring while the pool is empty.
func (p *Port) Rx(fs []pmd.Frame) int {
	want := min(len(fs), batch, p.xsk.NumReceived())
	if want == 0 {
		return 0
	}
	bases := p.bases[:p.pool.Get(p.bases[:want])]
	room := p.pool.Chunk() - pmd.Headroom
	n := 0
	for _, d := range p.xsk.Receive(len(bases)) {
		if int(d.Len) > room {
			p.count.RxDropped++
		} else {
			f := pmd.Frame{Base: bases[n], Off: pmd.Headroom, Len: uint16(d.Len)}
			copy(p.pool.Bytes(f), p.xsk.GetFrame(d))
			p.count.RxBytes += uint64(f.Len)
			fs[n] = f
			n++
		}
		d.Addr &^= uint64(p.size - 1) // the kernel leaves headroom
		d.Len = uint32(p.size)
		p.rxFree = append(p.rxFree, d)
	}
	for _, base := range bases[n:] {
		p.pool.Put(base)
	}
	p.count.RxPackets += uint64(n)
	return n
}

// Tx implements pmd.Port. A frame that no device can send, as it is shorter
// than an Ethernet header, longer than the library's frames or reaches out of
// its chunk, is taken and counted in TxErrors.
func (p *Port) Tx(fs []pmd.Frame) int {
	n := min(len(fs), len(p.txFree), p.xsk.NumFreeTxSlots()-len(p.queued))
	for _, f := range fs[:n] {
		p.count.TxBytes += uint64(f.Len)
		if f.Len < minFrame || int(f.Len) > p.size || int(f.Off)+int(f.Len) > len(p.pool.ChunkOf(f)) {
			p.count.TxErrors++
		} else {
			last := len(p.txFree) - 1
			d := p.txFree[last]
			p.txFree = p.txFree[:last]
			d.Len = uint32(f.Len)
			copy(p.xsk.GetFrame(d), p.pool.Bytes(f))
			p.away[d.Addr>>p.shift] = true
			p.queued = append(p.queued, d)
		}
		p.pool.Put(f.Base)
	}
	p.count.TxPackets += uint64(n)
	return n
}

// Flush implements pmd.Port.
func (p *Port) Flush() {
	p.send()
	p.reap()
	p.refill()
	p.count.Publish()
}

// waiting returns how many frames in the TX ring the kernel has not taken yet.
func (p *Port) waiting() int { return p.ring - p.xsk.NumFreeTxSlots() }

// send submits what is queued and wakes the device until it has taken all, or
// takes no more. While the device refuses, it tries now and then.
func (p *Port) send() {
	if len(p.queued) == 0 && p.waiting() == 0 {
		return
	}
	if p.quiet > 0 {
		p.quiet--
		return
	}
	sent := p.transmit(p.queued)
	p.queued = p.queued[:0]
	for left := p.waiting(); sent && left > 0; {
		p.reap() // a full completion ring holds the device up
		sent = p.transmit(nil)
		now := p.waiting()
		if now >= left {
			return
		}
		left = now
	}
	if !sent {
		p.quiet = quietFlushes
	}
}

// transmit submits descs, which fit the ring, and wakes the device. It says
// false when the device refused; descs are in the ring even then, to be sent
// by a later call. The library panics at ENETDOWN, ENXIO, ENOBUFS and the like.
func (p *Port) transmit(descs []xdp.Desc) (sent bool) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case runtime.Error: // a bug, here or there
			panic(v)
		default:
			p.count.TxErrors++
			sent = false
		}
	}()
	p.count.Kicks++
	p.xsk.Transmit(descs)
	return true
}

// reap takes back the frames that were sent.
func (p *Port) reap() {
	n := p.xsk.NumCompleted()
	if n == 0 {
		return
	}
	for i := range n {
		addr := p.completed.at(i)
		if frame := addr >> p.shift; frame < uint64(len(p.away)) && p.away[frame] {
			p.away[frame] = false
			p.txFree = append(p.txFree, xdp.Desc{Addr: frame << p.shift, Len: uint32(p.size)})
			p.count.TxDone++
		} else {
			p.count.BadDesc++
		}
	}
	p.xsk.Complete(n)
}

// refill lends the kernel all frames to receive into that the fill ring has
// room for. It can be short of room: packets are seen before the kernel says
// that it took their frames from the fill ring.
func (p *Port) refill() {
	if len(p.rxFree) > 0 {
		n := p.xsk.Fill(p.rxFree)
		p.rxFree = p.rxFree[:copy(p.rxFree, p.rxFree[n:])]
	}
}

// FD implements pmd.Port: the socket itself.
func (p *Port) FD() int { return p.xsk.FD() }

// Info implements pmd.Port.
func (p *Port) Info() pmd.Info { return p.info }

// Stats implements pmd.Port. What the kernel counts is asked of it at each call.
func (p *Port) Stats() pmd.Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		p.ask()
	}
	s := p.count.Load()
	s.RxDropped += p.last.RxDropped
	s.FillEmpty += p.last.FillEmpty
	s.BadDesc += p.last.BadDesc
	return s
}

// ask updates p.last from the kernel.
func (p *Port) ask() {
	if s, err := p.xsk.Stats(); err == nil {
		k := s.KernelStats
		p.last.RxDropped = k.Rx_dropped + k.Rx_ring_full
		p.last.FillEmpty = k.Rx_fill_ring_empty_descs
		p.last.BadDesc = k.Rx_invalid_descs + k.Tx_invalid_descs
	}
}

// Close releases the queue. What the device has not sent yet is lost.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil
	}
	p.ask()
	p.gone = true
	p.count.Publish()
	var err error
	if p.registrar != nil {
		err = p.registrar.Unregister(p.info.Queue, p.xsk.FD())
	}
	if err = errors.Join(err, p.xsk.Close(), unmapOrphans()); err != nil {
		return fmt.Errorf("asavie: close %s queue %d: %w", p.info.Name, p.info.Queue, err)
	}
	return nil
}
