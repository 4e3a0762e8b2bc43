package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/sad"
)

// outerDF says whether the outer IPv4 header around p, still clear, has
// don't-fragment (RFC 4301, section 8.1).
// A packet that is to be cut has none, and none is lost to a path that is narrower
// than can be told.
func (p *packet) outerDF(sa *sad.Outbound) bool {
	if p.cut == cutSealed || sa.PathFragments() {
		return false
	}
	if sa.Outer.DF != sad.DFCopy {
		return sa.Outer.DF == sad.DFSet
	}
	return p.hasDF()
}

// hasDF says whether p may not be fragmented: IPv6 never may, on the way.
func (p *packet) hasDF() bool {
	return p.info.V6 || wire.IPv4(p.chunk[p.l3:]).DontFragment()
}

// flowLabel returns the flow label of the outer IPv6 header around p, still
// clear, where it is not zero.
func (p *packet) flowLabel(sa *sad.Outbound) uint32 {
	switch {
	case sa.Outer.Label == sad.LabelHash:
		return sa.HashLabel(&p.tuple)
	case p.info.V6:
		return wire.IPv6(p.chunk[p.l3:]).FlowLabel()
	}
	return 0
}

// mergeTOS carries over to the inner packet, p, what the SA wants of the tunnel
// header's type of service: the congestion marks (RFC 6040, section 4.2), and
// the codepoint where it says so.
func (p *packet) mergeTOS(outer uint8) counter.Reason {
	o := &p.in.Outer
	if o.DecapDSCP {
		p.setTOS(outer&^ecnMask | p.info.TOS&ecnMask)
	}
	if o.NoECN {
		return counter.None
	}
	in := p.info.TOS & ecnMask
	switch out := outer & ecnMask; {
	case out == wire.CE && in == wire.NotECT:
		return counter.BadECN
	case out == wire.CE && in != wire.CE:
		p.setTOS(p.info.TOS | wire.CE)
	case out == wire.ECT1 && in == wire.ECT0:
		p.setTOS(p.info.TOS&^ecnMask | wire.ECT1)
	}
	return counter.None
}

const ecnMask = 3 // the ECN field in the type of service or traffic class

func (p *packet) setTOS(tos uint8) {
	p.info.TOS = tos
	wire.SetTOS(p.ip(), tos)
}
