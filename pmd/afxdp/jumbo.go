package afxdp

import (
	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// A packet that is longer than a chunk goes through the rings as a chain: several
// descriptors in a row, all but the last with XDP_PKT_CONTD. The worker sees none of
// that: Rx copies a chain into one jumbo frame, and Tx makes a chain of the chunks
// that a jumbo frame consists of. The kernel takes chains from a socket that is bound
// with XDP_USE_SG (Linux 6.6), and gives it some; a chunk is never crossed.

// chain is a packet of several buffers that Rx is putting together. It may take
// several calls.
type chain struct {
	on   bool    // in the middle of it
	base uint32  // of its jumbo frame, if lost is nil
	n    int     // bytes that are there
	lost *uint64 // why there will be no frame: what counts it
}

// buffer takes one buffer of a packet that is spread over several: the chunk at base,
// whose frame is not lent any more, or none if ok is false. It returns the packet
// when that is the last one. What does not fit, or finds no frame, is drained to its
// end and counted once.
func (s *Socket) buffer(d unix.XDPDesc, base uint32, ok bool) (pmd.Frame, bool) {
	c := &s.chain
	if !c.on {
		s.beginChain()
	}
	if ok {
		s.gather(d, base)
		s.pool.Put(base)
	} else {
		s.lose(&s.counters.RxGiant) // what the descriptor stands for is missing
	}
	if c.on = d.Options&unix.XDP_PKT_CONTD != 0; c.on {
		return pmd.Frame{}, false
	}
	if c.lost != nil {
		*c.lost++
		return pmd.Frame{}, false
	}
	s.counters.RxJumbo++
	return pmd.Frame{Base: c.base, Off: pmd.Headroom, Len: uint16(c.n)}, true
}

func (s *Socket) beginChain() {
	s.chain = chain{on: true}
	if s.pool.Jumbo().Count == 0 {
		s.chain.lost = &s.counters.RxGiant
		return
	}
	var ok bool
	if s.chain.base, ok = s.pool.GetJumbo(); !ok {
		s.chain.lost = &s.counters.JumboEmpty
	}
}

// gather copies the buffer d, which lies in the chunk at base, behind what is there.
func (s *Socket) gather(d unix.XDPDesc, base uint32) {
	c := &s.chain
	if c.lost != nil {
		return
	}
	off := d.Addr & s.umem.mask
	if off+uint64(d.Len) > s.umem.mask+1 {
		s.lose(&s.counters.BadDesc)
		return
	}
	room := s.pool.ChunkOf(pmd.Frame{Base: c.base})[pmd.Headroom+c.n:]
	if int(d.Len) > len(room) {
		s.lose(&s.counters.RxGiant)
		return
	}
	c.n += copy(room, s.pool.Mem()[base+uint32(off):][:d.Len])
}

// lose gives up the packet that is being put together; its last buffer counts it.
func (s *Socket) lose(why *uint64) {
	if s.chain.lost == nil {
		s.pool.Put(s.chain.base)
		s.chain.lost = why
	}
}

// txJumbo is Tx for one jumbo frame, which becomes a chain of its chunks: all of it,
// or none where the ring has no room. What no device can send is also what is longer
// than a chunk where chains are refused, and what begins so late in a chunk that its
// Ethernet header would be torn.
func (s *Socket) txJumbo(f pmd.Frame) bool {
	size := uint32(s.umem.mask) + 1
	at, left := uint32(f.Off)&(size-1), uint32(f.Len) // it begins in the first chunk of the chain
	parts := (at + left + size - 1) >> s.umem.shift
	n := min(left, size-at)
	switch {
	case !s.umem.isIdle(f.Base):
		s.counters.TxErrors++
		return true
	case n < minFrame, int(f.Off)+int(f.Len) > s.umem.jumboSize, parts > 1 && !s.sg:
		s.counters.TxErrors++
		s.pool.Put(f.Base)
		return true
	case s.tx.room(parts) < parts:
		return false
	}
	s.umem.lendParts(f, parts, s.txTag)
	addr := uint64(f.Base) + uint64(f.Off)
	for n < left {
		s.tx.push(unix.XDPDesc{Addr: addr, Len: n, Options: unix.XDP_PKT_CONTD})
		addr, left = addr+uint64(n), left-n
		n = min(left, size)
	}
	s.tx.push(unix.XDPDesc{Addr: addr, Len: left})
	s.unsent = true
	s.counters.TxPackets++
	s.counters.TxBytes += uint64(f.Len)
	return true
}

// isIdle says whether base is that of a jumbo frame none of whose chunks is lent.
func (u *UMEM) isIdle(base uint32) bool {
	at := int(base - u.jumboAt)
	return at%u.jumboSize == 0 && at/u.jumboSize < len(u.away) && u.away[at/u.jumboSize] == 0
}

// lendParts notes that the ring t has that many chunks of f, an idle jumbo frame.
func (u *UMEM) lendParts(f pmd.Frame, parts uint32, t tag) {
	first := (f.Base + uint32(f.Off)) >> u.shift
	for i := range parts {
		u.held[first+i] = t
	}
	u.away[int(f.Base-u.jumboAt)/u.jumboSize] = uint8(parts)
}

// part notes that one chunk of a jumbo frame is back, that at base. It returns the
// frame's base when that was the last one.
func (u *UMEM) part(base uint32) (frame uint32, whole bool) {
	j := int(base-u.jumboAt) / u.jumboSize
	u.away[j]--
	return u.jumboAt + uint32(j*u.jumboSize), u.away[j] == 0
}
