package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/sad"
)

// maxSigned is how long the headers in front of an AH's payload may be: enough
// for what is sent, and a bound on what a stranger makes us copy.
const maxSigned = 512

// signing is the scratch of AH.
type signing struct {
	text [maxSigned]byte
	job  sad.Signed
}

// prepare fills w's job for the packet ip, whose AH of n bytes lies at off.
func (w *Worker) prepare(ip []byte, off, n int, seq uint64, sa *sad.SA, final bool) counter.Reason {
	s := &w.signing
	if off+n > maxSigned {
		return counter.BadExtension
	}
	if r := wire.Immutable(s.text[:], ip[:off], final); r != counter.None {
		return r
	}
	ah := s.text[off : off+n]
	copy(ah, ip[off:])
	clear(sa.ICVField(ah))
	s.job.Head, s.job.Payload, s.job.Seq = s.text[:off+n], ip[off+n:], seq
	return counter.None
}

// signRow authenticates the packets in row with AH, one by one.
func (w *Worker) signRow(b *Burst, row []uint8, sa *sad.Outbound) {
	for _, i := range row {
		p := &b.pkts[i]
		r := counter.SeqExhausted
		if seq, n := sa.Reserve(1); n == 1 {
			r = w.sign(p, sa, seq)
		}
		if r != counter.None {
			b.Drop(i, r)
		}
	}
}

// sign puts AH in front of p, or in transport mode between its IP header and its
// payload (RFC 4302, section 3.1), and writes the ICV.
func (w *Worker) sign(p *packet, sa *sad.Outbound, seq uint64) counter.Reason {
	n, count := int(sa.Geo.Head), p.info.Len
	var off int
	var next byte
	if sa.Tunnel {
		next, off = p.version(), int(sa.Geo.Outer)
		if !p.fits(sa.Geo.Prefix()) {
			return counter.NoRoom
		}
		p.wrap(sa, uint32(seq))
	} else {
		if r := p.suits(sa); r != counter.None {
			return r
		}
		next, off = p.info.Proto, int(p.info.HeaderLen)
		if !p.fits(n) {
			return counter.NoRoom
		}
		count -= p.info.HeaderLen
		p.part(n)
	}
	ip := p.ip()
	ah := ip[off : off+n]
	clear(ah)
	wire.AH(ah).Put(next, n, sa.SPI, uint32(seq))
	if r := w.prepare(ip, off, n, seq, &sa.SA, false); r != counter.None {
		return r
	}
	if !sa.Sign(w.engine, ah, &w.signing.job) {
		return counter.NoSA // the key is gone: the SA was deleted under us
	}
	sa.Count(1, uint64(count))
	return counter.None
}

// version returns the protocol number of p as the payload of a tunnel.
func (p *packet) version() byte {
	if p.info.V6 {
		return wire.ProtoIPv6
	}
	return wire.ProtoIPv4
}

// fits says whether the frame has room for n bytes more in front of p.
func (p *packet) fits(n int) bool {
	return p.l3-n >= wire.EthernetLen && int(p.info.Len)+n <= maxPacket
}

// wrap puts the tunnel header of sa, an SA of AH, around p, with room for AH.
func (p *packet) wrap(sa *sad.Outbound, seq uint32) {
	start, end := p.l3-sa.Geo.Prefix(), p.l3+int(p.info.Len)
	p.outerHeader(sa, p.chunk[start:end], seq)
	p.l3 = start
	p.info.Len = uint16(end - start)
	p.info.V6 = sa.Geo.Outer == wire.IPv6Len
	p.info.HeaderLen = uint16(sa.Geo.Outer)
	p.info.Proto = wire.ProtoAH
}

// part makes room for n bytes of AH between p's IP header and its payload.
func (p *packet) part(n int) {
	start, head := p.l3-n, int(p.info.HeaderLen)
	copy(p.chunk[start:], p.chunk[p.l3:p.l3+head])
	p.l3 = start
	p.info.Len += uint16(n)
	p.info.Proto = wire.ProtoAH
	wire.SetUpper(p.chunk[start:], head, wire.ProtoAH, int(p.info.Len))
}

// verify finds p's SA, checks its sequence number and its ICV, and makes what AH
// protects the packet (RFC 4302, section 3.4).
func (w *Worker) verify(p *packet) counter.Reason {
	if p.info.Fragment {
		return counter.Fragment
	}
	off := int(p.info.HeaderLen)
	ip := p.ip()
	ah := wire.AH(ip[off:])
	if ah.Valid() != counter.None {
		return counter.BadAH
	}
	spi, n := ah.SPI(), ah.HeaderLen()
	if spi < 256 {
		return counter.ReservedSPI
	}
	sa, _ := w.sad.Find(spi, &p.tuple.Dst, &p.tuple.Src, wire.ProtoAH)
	if sa == nil {
		return counter.UnknownSPI
	}
	p.in = sa
	if !sa.FitsAH(n) {
		return counter.BadAH
	}
	seq, r := sa.Check(ah.Seq())
	if p.seq = seq; r != counter.None {
		return r
	}
	if r = w.prepare(ip, off, n, seq, &sa.SA, true); r != counter.None {
		return r
	}
	if !sa.Verify(w.engine, ah[:n], &w.signing.job) {
		return counter.AuthFailed
	}
	if r = sa.Mark(seq); r != counter.None {
		return r
	}
	payload := ah[n:]
	sa.Count(1, uint64(len(payload)))
	switch next := ah.NextHeader(); {
	case next == wire.ProtoNoNext:
		return counter.DummyPacket
	case sa.Tunnel:
		return p.unwrap(p.l3+off+n, payload, next)
	default:
		return p.join(p.l3+off+n, payload, next)
	}
}
