package spd

import (
	"math/bits"

	"spigot/internal/flow"
)

// box is a flow.Selector packed for comparing: ranges as low end and span, and
// everything that is compared for equality in one word. OPAQUE ports have the
// range of all of them: what sets them apart is in the word.
type box struct {
	src, dst     flow.AddrRange
	sport, dport uint16 // low ends
	sspan, dspan uint16 // high end less low end
	word, mask   uint32 // a tuple's word must equal word where mask has ones
}

// The bits of a word: the protocol, the address families, and whether the
// packet carries no ports.
const (
	wordProto   = 0xff
	wordSrc4    = 1 << 8
	wordDst4    = 1 << 9
	wordNoPorts = 1 << 10
)

// probe is a flow.Tuple made ready to be compared with boxes.
type probe struct {
	src, dst     flow.Addr
	sport, dport uint16
	word         uint32
}

func makeProbe(t *flow.Tuple) probe {
	w := uint32(t.Proto)
	if t.Src.Is4() {
		w |= wordSrc4
	}
	if t.Dst.Is4() {
		w |= wordDst4
	}
	if t.NoPorts {
		w |= wordNoPorts
	}
	return probe{t.Src, t.Dst, t.SrcPort, t.DstPort, w}
}

// makeBox packs s. The families are compared apart from the ranges because
// ::/0, read as numbers, has the IPv4 addresses in its middle.
func makeBox(s *flow.Selector) box {
	opaque, sport, dport := s.Opaque(), s.SrcPort, s.DstPort
	if opaque { // then the other end is OPAQUE or any
		sport, dport = flow.AnyPort, flow.AnyPort
	}
	b := box{
		src: s.Src, dst: s.Dst,
		sport: sport.Lo, sspan: sport.Hi - sport.Lo,
		dport: dport.Lo, dspan: dport.Hi - dport.Lo,
		mask: wordSrc4 | wordDst4,
	}
	if s.Src.Lo.Is4() {
		b.word |= wordSrc4
	}
	if s.Dst.Lo.Is4() {
		b.word |= wordDst4
	}
	if s.Proto != flow.AnyProto {
		b.word |= uint32(s.Proto)
		b.mask |= wordProto
	}
	if s.HasPorts() {
		b.mask |= wordNoPorts
	}
	if opaque {
		b.word |= wordNoPorts
	}
	return b
}

// contains says whether p lies in b.
func (b *box) contains(p *probe) bool {
	return (p.word^b.word)&b.mask == 0 &&
		below(p.dst, b.dst.Lo)|below(b.dst.Hi, p.dst) == 0 &&
		below(p.src, b.src.Lo)|below(b.src.Hi, p.src) == 0 &&
		p.sport-b.sport <= b.sspan && p.dport-b.dport <= b.dspan
}

// below is 1 if a < b, else 0: the borrow of a - b.
func below(a, b flow.Addr) uint64 {
	_, c := bits.Sub64(a.Lo, b.Lo, 0)
	_, c = bits.Sub64(a.Hi, b.Hi, c)
	return c
}
