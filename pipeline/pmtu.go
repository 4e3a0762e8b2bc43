package pipeline

import (
	"encoding/binary"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/wire"
	"spigot/sad"
)

// pathMTU returns the largest packet, as p's sender counts, that can leave whole
// where p does: what the link takes, and the SA's path beyond it (RFC 4301,
// section 8.1).
func (p *packet) pathMTU() int {
	if p.out == nil {
		return int(p.hop.MTU)
	}
	if !p.out.Tunnel {
		return p.barePathMTU()
	}
	return p.out.Geo.MaxInner(p.outerMTU())
}

// outerMTU returns the largest packet of p's SA that fits link and path.
func (p *packet) outerMTU() int { return min(int(p.hop.MTU), p.out.PathMTU()) }

// leastMTU returns what every link of p's family carries (RFC 791; RFC 8200,
// section 5). No sender is told less, and so no such packet is refused.
func (p *packet) leastMTU() int {
	if p.info.V6 {
		return 1280
	}
	return 68
}

// tooBig decides about packet i, which does not fit mtu (RFC 4301, section 8).
// It may be cut up before it is sealed, sealed and cut up then, or be answered;
// it tells whether the packet goes on.
func (w *Worker) tooBig(b *Burst, i uint8, mtu int) bool {
	p := &b.pkts[i]
	least := p.leastMTU()
	switch {
	case p.cut == wasCut && p.out != nil:
		p.cut = cutSealed
	case p.out == nil && (p.cut == wasCut || !p.hasDF()):
		p.cut = cutClear
	case p.out == nil:
	case int(p.info.Len) <= least:
		p.cut = cutSealed // its sender cannot do smaller
	case p.hasDF() && p.out.Outer.DF != sad.DFClear:
	case p.out.Tunnel && !p.hasDF() && (p.out.Outer.SplitFirst || p.out.Outer.DF == sad.DFSet):
		p.cut = cutFirst
	default:
		p.cut = cutSealed
	}
	if p.cut == whole {
		w.punt(b, i, fib.PuntTooBig, max(mtu, least))
		return false
	}
	b.cuts = true
	return true
}

// pathReport hands packet i to the slow path if it is an ICMP error that says
// that a packet of an SA of this gateway does not fit its path. All other ICMP
// goes its way.
func (w *Worker) pathReport(b *Burst, i uint8) {
	p := &b.pkts[i]
	kind := uint16(wire.ICMPUnreachable<<8 | wire.ICMPFragNeeded)
	if p.info.V6 {
		kind = wire.ICMPv6PacketTooBig << 8
	}
	if p.tuple.NoPorts || p.tuple.SrcPort != kind || p.info.V6 != (p.info.Proto == wire.ProtoICMPv6) ||
		!w.isOurs(p) || !p.quotesIPsec() {
		return
	}
	// Anybody can send these: half of the ring is kept for answers.
	if q := w.cfg.Punts; q.Len() < q.Cap()/2 {
		m := &w.puntMsg[0]
		m.Kind, m.Port, m.Secured = fib.PuntPMTU, uint16(b.port), false
		m.Len = uint16(copy(m.Data[:], p.ip()))
		if w.pushPunt() {
			b.end(i, punted, counter.None)
			return
		}
	}
	b.Drop(i, counter.PathReport)
}

// quotesIPsec says whether the ICMP error p quotes ESP, AH, or what has left port
// 4500 and is no IKE, as far as it can be seen.
func (p *packet) quotesIPsec() bool {
	ip := p.ip()
	quote := ip[min(int(p.info.HeaderLen)+wire.ICMPLen, len(ip)):]
	proto, upper, ok := wire.Quoted(quote)
	if !ok {
		return false
	}
	switch proto {
	case wire.ProtoESP, wire.ProtoAH:
		return true
	case wire.ProtoUDP:
		return len(upper) >= wire.UDPLen+4 && wire.UDP(upper).SrcPort() == portNATT &&
			binary.BigEndian.Uint32(upper[wire.UDPLen:]) != 0
	}
	return false
}
