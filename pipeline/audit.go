package pipeline

import (
	"encoding/binary"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/wire"
)

// auditable is the drops that RFC 4301, sections 4.4.2 and 5.2, and RFC 4303,
// section 4, want to be events that can be audited, as bits by reason.
const auditable uint64 = 1<<counter.Fragment | 1<<counter.SeqExhausted | 1<<counter.UnknownSPI | 1<<counter.ReservedSPI |
	1<<counter.WrongSAMode | 1<<counter.ReplayOld | 1<<counter.ReplaySeen | 1<<counter.AuthFailed | 1<<counter.BadPadding |
	1<<counter.BadInner | 1<<counter.SelectorMismatch | 1<<counter.BadQuote | 1<<counter.InPolicyClear | 1<<counter.InPolicyMismatch

// Reasons beyond 63 would need another word.
const _ = uint(64 - counter.NumReasons)

// auditsOf is how many drops may become events in askEvery turns, or between two
// sleeps: an attacker must not be able to keep the gateway busy with them.
const auditsOf = 8

// audit tells the slow path that packet i was dropped, for the log. Who is attacked
// loses some: the counters lose none.
func (w *Worker) audit(b *Burst, i uint8) {
	if w.c.Turns-w.audited.since >= askEvery {
		w.audited.since, w.audited.n = w.c.Turns, 0
	}
	if q := w.cfg.Punts; w.audited.n == auditsOf || q.Len() >= q.Cap()/2 {
		return
	}
	w.audited.n++
	p, in := &b.pkts[i], w.innermost(b, i)
	m := &w.puntMsg[0]
	m.Kind, m.Reason, m.Len = fib.PuntAudit, p.reason, 0
	m.Via, m.Dst, m.Flow = p.tuple.Src, p.tuple.Dst, p.tuple
	m.SPI, m.Seq, m.Label = 0, 0, p.receivedLabel()
	switch {
	case in != nil:
		m.SPI, m.Seq, m.Via, m.Dst = in.SPI, p.seq, in.Src, in.Dst
	case p.out != nil:
		m.SPI, m.Seq, m.Via, m.Dst = p.out.SPI, p.out.Seq(), p.out.Src, p.out.Dst
	default:
		m.SPI, m.Seq = p.claims()
	}
	w.pushPunt()
}

// claims returns SPI and sequence number as a packet without an SA has them, 0
// where it is too short.
func (p *packet) claims() (spi uint32, seq uint64) {
	h := p.ip()[p.info.HeaderLen:]
	switch {
	case p.info.Fragment:
		return 0, 0
	case p.info.Proto == wire.ProtoUDP && p.tuple.DstPort == portNATT && len(h) > wire.UDPLen:
		h = h[wire.UDPLen:]
	case p.info.Proto == wire.ProtoAH && len(h) > 4:
		h = h[4:]
	case p.info.Proto != wire.ProtoESP:
		return 0, 0
	}
	if len(h) < wire.ESPLen {
		return 0, 0
	}
	return wire.ESP(h).SPI(), uint64(wire.ESP(h).Seq())
}

// receivedLabel returns the flow label of the IPv6 packet that was received, else 0.
func (p *packet) receivedLabel() uint32 {
	if f := p.chunk[p.l2 : p.l2+p.size]; len(f) >= wire.EthernetLen+wire.IPv6Len &&
		binary.BigEndian.Uint16(f[12:]) == wire.EtherTypeIPv6 {
		return binary.BigEndian.Uint32(f[wire.EthernetLen:]) & 0xfffff
	}
	return 0
}
