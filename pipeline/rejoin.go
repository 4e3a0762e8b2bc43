package pipeline

import (
	"encoding/binary"
	"time"

	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/pmd"
)

// rejoin makes of packet i, a fragment, the datagram that it completes. Others
// wait for the rest, and end here; what is not for the gateway's own IPsec goes
// its way as it is.
func (w *Worker) rejoin(b *Burst, i uint8) {
	p := &b.pkts[i]
	group := p.tuple.Dst.IsGroup()
	if !group && !w.isOurs(p) {
		return
	}
	f := p.fragment()
	switch p.info.Proto {
	case wire.ProtoESP, wire.ProtoAH:
	case wire.ProtoUDP:
		if group { // nothing is in UDP there: a group has no NAT in front
			return
		}
		// The host's own datagrams are for its kernel to put together. Whose a later
		// fragment is the first one tells, so that one has to come first.
		if f.at == 0 && !f.isNATT() || f.at != 0 && !w.reassembler.has(&f.key) {
			return
		}
	default:
		return
	}
	w.together(b, i, &f)
}

// together makes of packet i, which is f, the datagram that it completes and is true
// then. Else it has ended the packet.
func (w *Worker) together(b *Burst, i uint8, f *fragment) bool {
	done, r := w.reassembler.add(f, time.Since(w.born))
	if r == counter.None && done == 0 {
		b.end(i, parted, counter.None)
		return false
	}
	if r == counter.None {
		r = w.whole(b, &b.pkts[i], done)
	}
	if r != counter.None {
		b.Drop(i, r)
	}
	return r == counter.None
}

// whole makes the datagram done the packet p, its last fragment, in that one's
// frame or, where it is too long for that, in a jumbo frame or a buffer of the
// worker's.
func (w *Worker) whole(b *Burst, p *packet, done uint16) counter.Reason {
	size := l3Off + w.reassembler.length(done)
	if size > len(p.chunk) && size <= w.cfg.Pool.Longest() {
		w.widen(p)
	}
	chunk := p.chunk
	if size > len(chunk) && b.giants < maxGiants {
		chunk = w.giant(b)
		p.giant, b.cuts = true, true
	}
	copy(chunk[pmd.Headroom:l3Off], p.chunk[p.l2:p.l2+wire.EthernetLen])
	n, r := w.reassembler.join(done, chunk[l3Off:])
	if r != counter.None {
		return r
	}
	p.chunk, p.l2, p.l3, p.size = chunk, pmd.Headroom, l3Off, wire.EthernetLen+n
	p.info, r = wire.Classify(chunk[l3Off:l3Off+n], &p.tuple)
	return r
}

// A packet that is too long for a frame lies in one of the worker's buffers while
// its burst lasts. What is in it has to be small, or to be cut, to leave.
const (
	maxGiants = MaxBurst / 2 // at once: each is two fragments at least
	giantSize = l3Off + maxPacket + sealTail
)

// giant returns a free buffer. It is taken from the heap once.
func (w *Worker) giant(b *Burst) []byte {
	buf := &w.giants[b.giants]
	if *buf == nil {
		*buf = make([]byte, giantSize)
	}
	b.giants++
	return *buf
}

// shrink moves p, which lies in a buffer, to its frame, if it fits there.
func (w *Worker) shrink(p *packet) counter.Reason {
	chunk := w.cfg.Pool.ChunkOf(pmd.Frame{Base: p.base})
	ip := p.ip()
	if len(ip) > len(chunk)-l3Off {
		return counter.NoRoom
	}
	copy(chunk[l3Off:], ip)
	p.chunk, p.l3, p.giant = chunk, l3Off, false
	return counter.None
}

// isNATT says whether f, a first fragment of UDP, is of ESP in UDP.
func (f *fragment) isNATT() bool {
	udp := f.ip[f.head:]
	return len(udp) >= wire.UDPLen+4 && wire.UDP(udp).DstPort() == portNATT && binary.BigEndian.Uint32(udp[wire.UDPLen:]) != 0
}

// fragment describes p, which is one.
func (p *packet) fragment() fragment {
	ip := p.ip()
	f := fragment{
		key: datagramKey{src: p.tuple.Src, dst: p.tuple.Dst, proto: p.info.Proto},
		ip:  ip, head: int(p.info.HeaderLen), ecn: p.info.TOS & ecnMask,
	}
	if !p.info.V6 {
		h := wire.IPv4(ip)
		f.key.id, f.at, f.more = uint32(h.ID()), h.FragmentOffset(), h.MoreFragments()
		return f
	}
	u, _ := wire.IPv6(ip).Upper() // classify has found it good
	h := wire.FragmentHeader(ip[u.FragHeader:])
	f.key.id, f.key.proto, f.at, f.more = h.ID(), 0, h.Offset(), h.More()
	return f
}
