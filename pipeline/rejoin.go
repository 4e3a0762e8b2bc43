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
	if !w.isOurs(p) {
		return
	}
	f := p.fragment()
	switch p.info.Proto {
	case wire.ProtoESP, wire.ProtoAH:
	case wire.ProtoUDP:
		// The host's own datagrams are for its kernel to put together. Whose a later
		// fragment is the first one tells, so that one has to come first.
		if f.at == 0 && !f.isNATT() || f.at != 0 && !w.reassembler.has(&f.key) {
			return
		}
	default:
		return
	}
	const l3 = pmd.Headroom + wire.EthernetLen
	n, r := w.reassembler.add(&f, time.Since(w.born), p.chunk[l3:])
	switch {
	case r != counter.None:
		b.Drop(i, r)
		return
	case n == 0:
		b.end(i, parted, counter.None)
		return
	}
	copy(p.chunk[pmd.Headroom:l3], p.chunk[p.l2:p.l2+wire.EthernetLen])
	p.l2, p.l3, p.size = pmd.Headroom, l3, wire.EthernetLen+n
	if p.info, r = wire.Classify(p.chunk[l3:l3+n], &p.tuple); r != counter.None {
		b.Drop(i, r)
	}
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
