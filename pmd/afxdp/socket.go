package afxdp

import (
	"sync"

	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// batch is how many frames the refill takes from the pool at a time, and the
// least that it is worth refilling for.
const batch = 64

// Socket is one queue of one interface: a pmd.Port. Rx, Tx, Flush, FD and Close
// belong to the worker; Info and Stats to anyone. A closed Socket receives
// nothing and takes nothing.
type Socket struct {
	umem  *UMEM
	pool  *pmd.Pool
	fd    int
	rxTag tag
	txTag tag

	rx   consumer[unix.XDPDesc]
	fill producer[uint64]
	tx   producer[unix.XDPDesc]
	comp consumer[uint64]

	counters  pmd.Counters
	published pmd.Stats
	unsent    bool // Tx queued frames since the last Flush
	chain     chain
	bases     [batch]uint32

	// Of no concern to a turn.
	slot     int
	bound    bool
	zeroCopy bool
	sg       bool // chains of several buffers go both ways
	info     pmd.Info
	steering *Steering
	maps     [4][]byte // the rings' mappings

	mu     sync.Mutex         // held by Stats and Close
	closed bool               // under mu
	kernel unix.XDPStatistics // as last read, under mu
}

var _ pmd.Port = (*Socket)(nil)

// Rx implements pmd.Port.
func (s *Socket) Rx(fs []pmd.Frame) int {
	if s.gone() {
		return 0
	}
	n := s.rx.ready(uint32(len(fs)))
	if n == 0 {
		return 0
	}
	got := 0
	bytes := uint64(0)
	for i := range n {
		d := s.rx.at(i)
		if f, ok := s.received(d); ok {
			fs[got] = f
			got++
			bytes += uint64(f.Len)
		}
	}
	s.rx.release(n)
	s.counters.RxPackets += uint64(got)
	s.counters.RxBytes += bytes
	return got
}

// received turns a descriptor into a frame of the caller's. It trusts nothing:
// the ring lies in memory that the kernel shares.
func (s *Socket) received(d unix.XDPDesc) (pmd.Frame, bool) {
	base, ok := s.umem.giveBack(d.Addr, s.rxTag)
	if !ok {
		s.counters.BadDesc++
	}
	if d.Options&unix.XDP_PKT_CONTD != 0 || s.chain.on {
		return s.buffer(d, base, ok)
	}
	if !ok {
		return pmd.Frame{}, false
	}
	off := d.Addr & s.umem.mask
	if off < pmd.Headroom || off+uint64(d.Len) > s.umem.mask+1 {
		s.counters.BadDesc++
		s.pool.Put(base)
		return pmd.Frame{}, false
	}
	return pmd.Frame{Base: base, Off: uint16(off), Len: uint16(d.Len)}, true
}

// minFrame is the least that can be sent: an Ethernet header.
const minFrame = 14

// Tx implements pmd.Port. A frame that no device can send, as it is shorter
// than an Ethernet header or reaches out of its chunk or jumbo frame, is taken,
// counted in TxErrors and returned to the pool: the kernel would neither send nor
// complete it. So is a frame that is not the caller's, but not returned.
func (s *Socket) Tx(fs []pmd.Frame) int {
	if s.gone() {
		return 0
	}
	n := s.txChunks(fs)
	for n < len(fs) && fs[n].Base >= s.umem.jumboAt && s.txJumbo(fs[n]) {
		n++
		n += s.txChunks(fs[n:])
	}
	return n
}

// txChunks is Tx for frames up to the first jumbo frame.
func (s *Socket) txChunks(fs []pmd.Frame) int {
	n := int(s.tx.room(uint32(len(fs))))
	sent, bytes := uint64(0), uint64(0)
	for i, f := range fs[:n] {
		if f.Base >= s.umem.jumboAt {
			n = i
			break
		}
		if !s.umem.lend(f.Base, s.txTag) {
			s.counters.TxErrors++
			continue
		}
		if f.Len < minFrame || uint64(f.Off)+uint64(f.Len) > s.umem.mask+1 {
			s.counters.TxErrors++
			s.umem.giveBack(uint64(f.Base), s.txTag)
			s.pool.Put(f.Base)
			continue
		}
		s.tx.push(unix.XDPDesc{Addr: uint64(f.Base) + uint64(f.Off), Len: uint32(f.Len)})
		sent++
		bytes += uint64(f.Len)
	}
	s.unsent = s.unsent || sent > 0
	s.counters.TxPackets += sent
	s.counters.TxBytes += bytes
	return n
}

// Flush implements pmd.Port.
func (s *Socket) Flush() {
	if s.gone() {
		return
	}
	if s.unsent {
		s.unsent = false
		s.tx.commit()
	}
	s.send()
	s.reap()
	s.refill()
	if s.counters.Stats != s.published {
		s.published = s.counters.Stats
		s.counters.Publish()
	}
}

// send wakes the device until the TX ring is drained or does not get shorter.
// A copying socket sends 32 frames a call and answers EAGAIN when there are
// more, or when the completion ring is full.
func (s *Socket) send() {
	for left := s.tx.pending(); left > 0 && s.tx.wantsWakeup(); {
		errno := wakeTx(s.fd)
		s.counters.Kicks++
		switch errno {
		case 0, unix.EAGAIN, unix.EBUSY, unix.EINTR:
		default: // ENETDOWN, ENXIO, ENOBUFS, EINVAL: the frames wait for a better turn
			s.counters.TxErrors++
			return
		}
		if s.zeroCopy { // sends on its own time
			return
		}
		s.reap()
		now := s.tx.pending()
		if now >= left {
			return
		}
		left = now
	}
}

// reap returns the frames that were sent to the pool.
func (s *Socket) reap() {
	n := s.comp.ready(s.comp.size())
	if n == 0 {
		return
	}
	for i := range n {
		base, ok := s.umem.giveBack(s.comp.at(i), s.txTag)
		if !ok {
			s.counters.BadDesc++
			continue
		}
		if s.umem.takeBack(base) {
			s.counters.TxDone++
		}
	}
	s.comp.release(n)
}

// refill lends the kernel as many frames to receive into as the fill ring has
// room for and the pool has. It never takes more from the pool than fits: RX
// entries can appear before the kernel publishes that it took their frames
// from the fill ring.
func (s *Socket) refill() {
	pushed := false
	for {
		room := s.fill.room(batch)
		if room < min(batch, s.fill.size()/2) {
			break
		}
		n := s.pool.Get(s.bases[:room])
		for _, base := range s.bases[:n] {
			if !s.umem.lend(base, s.rxTag) { // put back by somebody who had sent it
				s.counters.BadDesc++
				continue
			}
			s.fill.push(uint64(base))
		}
		pushed = pushed || n > 0
		if uint32(n) < room { // the pool is empty
			break
		}
	}
	if pushed {
		s.fill.commit()
	}
	if s.fill.wantsWakeup() && s.fill.pending() > 0 {
		wakeRx(s.fd)
		s.counters.Kicks++
	}
}

// gone says whether the rings are unmapped.
func (s *Socket) gone() bool { return s.rx.slots == nil }

// FD implements pmd.Port: the socket itself, -1 once it is closed.
func (s *Socket) FD() int { return s.fd }

// Info implements pmd.Port.
func (s *Socket) Info() pmd.Info { return s.info }

// Stats implements pmd.Port. What the kernel counts (RxDropped, FillEmpty, a
// part of BadDesc) is asked of it at each call, at no cost to the worker. A
// copying socket counts a packet that found the fill ring empty in both
// RxDropped and FillEmpty. TxErrors counts refused system calls, whose frames
// wait for the next Flush, and frames that Tx refused, which are gone.
func (s *Socket) Stats() pmd.Stats {
	st := s.counters.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		if k, err := statistics(s.fd); err == nil {
			s.kernel = k
		}
	}
	st.RxDropped += s.kernel.Rx_dropped + s.kernel.Rx_ring_full
	st.FillEmpty += s.kernel.Rx_fill_ring_empty_descs
	st.BadDesc += s.kernel.Rx_invalid_descs + s.kernel.Tx_invalid_descs
	return st
}
