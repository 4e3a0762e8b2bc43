package pipeline

import (
	"spigot/internal/fib"
	"spigot/internal/wire"
	"spigot/sad"
	"spigot/spd"
)

// tcpHeaders is what a segment of the announced size has in front of it: the
// least headers of TCP and IP (RFC 6691).
const (
	tcpHeaders4 = wire.IPv4Len + wire.TCPLen
	tcpHeaders6 = wire.IPv6Len + wire.TCPLen
)

// clampOut holds the segment size that p announces, about to be sealed under sa,
// to what sa allows. The answers come the other way, by a path that is taken to
// be as wide.
func (p *packet) clampOut(sa *sad.Outbound) {
	if p.isSYN() {
		p.clamp(sa.Outer.MSS, p.pathMTU())
	}
}

// clampIn holds the segment size that p announces, which came by an SA, to what
// that SA allows. Its answers take the SA that their policy has.
func (w *Worker) clampIn(p *packet) {
	if !p.isSYN() {
		return
	}
	mtu := 0
	if p.in.Outer.MSS == sad.MSSPath {
		back := p.tuple
		back.Src, back.Dst = back.Dst, back.Src
		back.SrcPort, back.DstPort = back.DstPort, back.SrcPort
		pol := w.outCache.Lookup(w.spd.Out, &back)
		if pol == nil || pol.Action != spd.Protect {
			return
		}
		by := w.bindingOf(pol)
		sa := by.of(p.info.TOS) // the answers are taken to have the same codepoint
		if sa == nil {
			return
		}
		answer := packet{out: sa, hop: w.fib.Lookup(&sa.Dst)}
		if answer.hop.State < fib.Unresolved {
			return
		}
		mtu = answer.pathMTU()
	}
	p.clamp(p.in.Outer.MSS, mtu)
}

// isSYN says whether p opens a TCP connection, or accepts one.
func (p *packet) isSYN() bool {
	return p.info.Proto == wire.ProtoTCP && !p.info.Fragment && wire.TCP(p.upper()).SYN()
}

// upper returns what lies behind p's IP headers.
func (p *packet) upper() []byte { return p.ip()[p.info.HeaderLen:] }

// clamp lowers the segment size in p, a SYN, to most, or where that is MSSPath to
// what fits mtu.
func (p *packet) clamp(most uint16, mtu int) {
	if most == sad.MSSPath {
		headers := tcpHeaders4
		if p.info.V6 {
			headers = tcpHeaders6
		}
		most = uint16(max(mtu, p.leastMTU()) - headers)
	}
	wire.TCP(p.upper()).ClampMSS(most)
}
