package spd

import "spigot/internal/flow"

// PFP says which fields of its selector a protect policy takes from the packet
// that has no SA (populate from packet, RFC 4301, section 4.4.1.2): each value of
// them has an SA of its own. It is a set of bits; the zero PFP takes none, and
// one SA serves the whole policy.
type PFP uint8

// The fields.
const (
	PFPSrc PFP = 1 << iota
	PFPDst
	PFPProto
	PFPPorts // both ports, or an ICMP message's type and code
	PFPAll   = PFPSrc | PFPDst | PFPProto | PFPPorts
)

// FlowOf returns what t, a packet of p, has in the fields that p takes from
// packets, and nothing else: two packets with the same FlowOf have one SA.
func (p *Policy) FlowOf(t *flow.Tuple) (f flow.Tuple) {
	if p.PFP&PFPSrc != 0 {
		f.Src = t.Src
	}
	if p.PFP&PFPDst != 0 {
		f.Dst = t.Dst
	}
	if p.PFP&PFPProto != 0 {
		f.Proto = t.Proto
	}
	if p.PFP&PFPPorts != 0 {
		if f.NoPorts = t.NoPorts; !t.NoPorts {
			f.SrcPort, f.DstPort = t.SrcPort, t.DstPort
		}
	}
	return f
}

// Narrowed returns p's selector with the fields that p takes from packets as t
// has them.
func (p *Policy) Narrowed(t *flow.Tuple) flow.Selector {
	s := p.Sel
	if p.PFP&PFPSrc != 0 {
		s.Src = flow.AddrRange{Lo: t.Src, Hi: t.Src}
	}
	if p.PFP&PFPDst != 0 {
		s.Dst = flow.AddrRange{Lo: t.Dst, Hi: t.Dst}
	}
	if p.PFP&PFPProto != 0 {
		s.Proto = t.Proto
	}
	if p.PFP&PFPPorts != 0 && !t.NoPorts {
		s.SrcPort = flow.PortRange{Lo: t.SrcPort, Hi: t.SrcPort}
		if !flow.IsICMP(s.Proto) { // whose type and code are all in the former
			s.DstPort = flow.PortRange{Lo: t.DstPort, Hi: t.DstPort}
		}
	}
	return s
}

// FlowFor returns the FlowOf the packets that an SA with selector s is for. It is
// false if there is no such flow of p: in a field that p takes from packets s has
// more than one value or one that is not p's, or in another one less than p.
func (p *Policy) FlowFor(s *flow.Selector) (f flow.Tuple, ok bool) {
	t := flow.Tuple{Src: s.Src.Lo, Dst: s.Dst.Lo, SrcPort: s.SrcPort.Lo, DstPort: s.DstPort.Lo, Proto: s.Proto}
	t.NoPorts = s.SrcPort == flow.AnyPort && s.DstPort == flow.AnyPort
	n := p.Narrowed(&t)
	one := n
	if p.PFP&PFPSrc != 0 {
		one.Src = s.Src
	}
	if p.PFP&PFPDst != 0 {
		one.Dst = s.Dst
	}
	if p.PFP&PFPPorts != 0 {
		one.SrcPort, one.DstPort = s.SrcPort, s.DstPort
	}
	ok = one == n && s.Covers(&n) && p.Sel.Covers(&n) && (p.PFP&PFPProto == 0 || s.Proto != flow.AnyProto)
	return p.FlowOf(&t), ok
}

// checkPFP judges the fields that p takes from packets.
func (p *Policy) checkPFP() error {
	switch {
	case p.PFP == 0:
		return nil
	case p.PFP > PFPAll:
		return p.bad("its populate-from-packet flags %#x are more than this package has: use its constants", p.PFP)
	case p.Dir != Out || p.Action != Protect:
		return p.bad("it takes its SAs' selectors from packets, which only an outbound policy that protects can")
	case p.Bundle != nil:
		return p.bad("it takes its SAs' selectors from packets and wants several SAs: name one")
	case p.PFP&PFPPorts != 0 && p.Sel.Opaque():
		return p.bad("it takes ports from packets that have none, its own being OPAQUE: leave one of the two out")
	case p.PFP&PFPPorts != 0 && p.PFP&PFPProto == 0 && p.Sel.Proto == flow.AnyProto:
		return p.bad("it takes ports from packets and no protocol, without which they say nothing: take that too, or name one")
	}
	return nil
}
