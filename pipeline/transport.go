package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/sad"
)

// barePathMTU is pathMTU under an SA that leaves the packet's IP header in front,
// or a bundle.
func (p *packet) barePathMTU() int {
	head := int(p.info.HeaderLen)
	if p.out.Bundle != nil {
		return p.out.MaxInner(int(p.hop.MTU), head)
	}
	return head + p.out.Geo.MaxInner(p.outerMTU()-head)
}

// sealOther is sealRun for all but ESP in tunnel mode.
func (w *Worker) sealOther(b *Burst, row []uint8, sa *sad.Outbound, jobs []sad.Job) []sad.Job {
	switch {
	case sa.Bundle != nil:
		w.sealBundle(b, row, sa, jobs)
	case sa.Proto == wire.ProtoAH:
		w.signRow(b, row, sa)
	default:
		return w.sealTransport(b, row, sa, jobs)
	}
	return jobs
}

// sealTransport is sealRun for a row whose SA is in transport mode.
func (w *Worker) sealTransport(b *Burst, row []uint8, sa *sad.Outbound, jobs []sad.Job) []sad.Job {
	seq, granted := sa.Reserve(len(row))
	var packets, bytes uint64
	for k, i := range row {
		if k >= granted {
			b.Drop(i, counter.SeqExhausted)
			continue
		}
		p := &b.pkts[i]
		payload := uint64(p.info.Len - p.info.HeaderLen)
		n := seq + uint64(k) // a number that a dropped packet had is not used again
		esp, r := p.insertESP(sa, uint32(n))
		if r == counter.NoRoom && w.widen(p) {
			esp, r = p.insertESP(sa, uint32(n))
		}
		if r != counter.None {
			b.Drop(i, r)
			continue
		}
		job := sad.Job{Key: sa.Key, Pkt: esp, Slot: i}
		if sa.ESN {
			job.ESN, job.SeqHi = true, uint32(n>>32)
		}
		jobs = append(jobs, job)
		packets, bytes = packets+1, bytes+payload
	}
	sa.Count(packets, bytes)
	return jobs
}

// insertESP puts the ESP header between p's IP header and its payload, and the
// trailer behind that (RFC 4303, section 3.1.1). It returns the bytes from the
// SPI through the ICV, or a reason; nothing is written then. IPv6's extension
// headers, destination options too, stay in front of ESP.
func (p *packet) insertESP(sa *sad.Outbound, seq uint32) ([]byte, counter.Reason) {
	if r := p.suits(sa); r != counter.None {
		return nil, r
	}
	g := &sa.Geo
	head := int(p.info.HeaderLen)
	n := int(p.info.Len) - head
	start := p.l3 - g.Prefix()
	end := start + head + g.Sealed(n)
	if start < wire.EthernetLen || end > len(p.chunk) || end-start > maxPacket {
		return nil, counter.NoRoom
	}
	g.Trail(p.chunk[p.l3+head+n:end], n, p.info.Proto)
	proto := byte(wire.ProtoESP)
	copy(p.chunk[start:], p.chunk[p.l3:p.l3+head])
	inner := p.chunk[start+head : end : end]
	if g.UDP != 0 {
		proto = wire.ProtoUDP
		copy(inner, sa.Header[:g.UDP])
		wire.UDP(inner).SetLen(uint16(len(inner)))
	}
	wire.SetUpper(p.chunk[start:], head, proto, end-start)
	esp := inner[g.UDP:]
	wire.ESP(esp).Put(sa.SPI, seq)
	p.l3, p.info.Len, p.info.Proto = start, uint16(end-start), proto
	return esp, counter.None
}

// maxPacket is the longest IP packet that wire.IPInfo describes.
const maxPacket = 1<<16 - 1

// suits says whether p may go under sa, which is in transport mode: the
// addresses are the packet's own, so they have to be the SA's, and fragments
// are for tunnels (RFC 4303, section 3.3.4).
func (p *packet) suits(sa *sad.Outbound) counter.Reason {
	switch {
	case p.tuple.Dst != sa.Dst, p.tuple.Src != sa.Src && !sa.Src.IsZero():
		return counter.WrongSAMode
	case p.info.Fragment:
		return counter.Fragment
	}
	return counter.None
}

// join moves p's IP header to the upper-layer packet of protocol next that an SA
// in transport mode carried, and makes the two the packet. upper lies at start
// in the chunk.
func (p *packet) join(start int, upper []byte, next byte) counter.Reason {
	head := int(p.info.HeaderLen)
	l3 := start - head
	copy(p.chunk[l3:start], p.chunk[p.l3:p.l3+head])
	n := head + len(upper)
	ip := p.chunk[l3 : l3+n]
	wire.SetUpper(ip, head, next, n)
	info, r := wire.Classify(ip, &p.tuple)
	if r != counter.None || info.Fragment { // whole datagrams only (RFC 4303, section 3.3.4)
		return counter.BadInner
	}
	p.l3, p.info = l3, info
	if p.in.Geo.UDP == 0 {
		// The source is a selector, which ESP's ICV does not cover.
		if src := &p.in.Src; *src != p.tuple.Src && !src.IsZero() {
			return counter.SelectorMismatch
		}
	} else {
		wire.RenewChecksum(p.tuple.Src, p.tuple.Dst, info.Proto, ip[info.HeaderLen:])
	}
	return counter.None
}
