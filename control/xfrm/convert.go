package xfrm

import (
	"math/bits"
	"net/netip"
	"syscall"
	"time"

	"spigot/internal/flow"
	"spigot/sad"
)

// The numbers that the dialect names by constants of the kernel.
const (
	eINVAL      = syscall.EINVAL
	eOPNOTSUPP  = syscall.EOPNOTSUPP
	afUnspec    = syscall.AF_UNSPEC
	afInet      = syscall.AF_INET
	afInet6     = syscall.AF_INET6
	protoICMP   = 1
	protoICMPv6 = 58

	modeTransport = 0
	modeTunnel    = 1
)

// addr reads a as an address of the family.
func (a *address) addr(family uint16) (flow.Addr, error) {
	switch family {
	case afInet:
		return flow.From4(a[:]), nil
	case afInet6:
		return flow.From16(a[:]), nil
	}
	return flow.Addr{}, refuse(eINVAL, "address family %d: it is neither IPv4 (%d) nor IPv6 (%d)", family, afInet, afInet6)
}

// host reads a, where no address means any.
func (a *address) host(family uint16) (flow.Addr, error) {
	if *a == (address{}) {
		return flow.Addr{}, nil
	}
	return a.addr(family)
}

// addressOf writes x, whose family familyOf tells. The zero Addr has zeros.
func addressOf(x flow.Addr) (a address) {
	if x.Is4() {
		x.Put4(a[:])
	} else {
		x.Put16(a[:])
	}
	return a
}

func familyOf(x flow.Addr) uint16 {
	if x.Is4() {
		return afInet
	}
	return afInet6
}

// flow reads s, whose family has to be there.
func (s *selector) flow() (f flow.Selector, err error) {
	if s.ifindex != 0 {
		return f, refuse(eOPNOTSUPP, "selector for interface %d: interfaces are not selected by; leave it out", s.ifindex)
	}
	if f.Src, err = prefix(&s.src, s.plenSrc, s.family); err != nil {
		return f, err
	}
	if f.Dst, err = prefix(&s.dst, s.plenDst, s.family); err != nil {
		return f, err
	}
	f.Proto = s.proto
	if s.proto == protoICMP || s.proto == protoICMPv6 {
		f.DstPort = flow.AnyPort
		f.SrcPort, err = icmpRange(s)
		return f, err
	}
	if f.SrcPort, err = ports(s.sport, s.sportMask); err != nil {
		return f, err
	}
	f.DstPort, err = ports(s.dport, s.dportMask)
	return f, err
}

func prefix(a *address, plen uint8, family uint16) (flow.AddrRange, error) {
	x, err := a.addr(family)
	if err != nil {
		return flow.AddrRange{}, err
	}
	most := 128
	n := netip.AddrFrom16(*a)
	if family == afInet {
		most, n = 32, x.Netip()
	}
	if int(plen) > most {
		return flow.AddrRange{}, refuse(eINVAL, "prefix length %d: at most %d", plen, most)
	}
	return flow.RangeOf(netip.PrefixFrom(n, int(plen))), nil
}

// ports reads a port and its mask, which selects a range if it is a prefix.
func ports(port, mask uint16) (flow.PortRange, error) {
	if bits.LeadingZeros16(^mask) != bits.OnesCount16(mask) {
		return flow.PortRange{}, refuse(eOPNOTSUPP, "port mask %#x: it makes no range; use ones followed by zeros", mask)
	}
	return flow.PortRange{Lo: port & mask, Hi: port | ^mask}, nil
}

// icmpRange reads an ICMP type, which stands for the source port, and a code,
// which stands for the destination port.
func icmpRange(s *selector) (flow.PortRange, error) {
	typ, code := s.sport<<8, s.dport&0xff
	switch {
	case s.sportMask == 0 && s.dportMask == 0:
		return flow.AnyPort, nil
	case s.sportMask == 0xffff && s.sport < 256 && s.dportMask == 0:
		return flow.PortRange{Lo: typ, Hi: typ | 0xff}, nil
	case s.sportMask == 0xffff && s.dportMask == 0xffff && s.sport < 256 && s.dport < 256:
		return flow.PortRange{Lo: typ | code, Hi: typ | code}, nil
	}
	return flow.PortRange{}, refuse(eOPNOTSUPP, "ICMP type %d mask %#x, code %d mask %#x: select a type, or a type and a code, "+
		"by whole masks", s.sport, s.sportMask, s.dport, s.dportMask)
}

// selectorOf writes f. A range that is no prefix, which the dialect has no way
// to say, becomes the smallest prefix around it, and OPAQUE ports any.
func selectorOf(f *flow.Selector) (s selector) {
	s.family = familyOf(f.Src.Lo)
	s.src, s.plenSrc = prefixAround(f.Src)
	s.dst, s.plenDst = prefixAround(f.Dst)
	s.proto = f.Proto
	if f.Proto == protoICMP || f.Proto == protoICMPv6 {
		if r := f.SrcPort; r.Lo>>8 == r.Hi>>8 {
			s.sport, s.sportMask = r.Lo>>8, 0xffff
			if r.Lo == r.Hi {
				s.dport, s.dportMask = r.Lo&0xff, 0xffff
			}
		}
		return s
	}
	s.sport, s.sportMask = maskAround(f.SrcPort)
	s.dport, s.dportMask = maskAround(f.DstPort)
	return s
}

func prefixAround(r flow.AddrRange) (a address, plen uint8) {
	n := bits.LeadingZeros64(r.Lo.Hi ^ r.Hi.Hi)
	if n == 64 {
		n += bits.LeadingZeros64(r.Lo.Lo ^ r.Hi.Lo)
	}
	if r.Lo.Is4() {
		n -= 96
	}
	p := netip.PrefixFrom(r.Lo.Netip(), n)
	return addressOf(flow.RangeOf(p).Lo), uint8(n)
}

func maskAround(r flow.PortRange) (port, mask uint16) {
	mask = ^uint16(1<<bits.Len16(r.Lo^r.Hi) - 1)
	return r.Lo & mask, mask
}

// lifetimes reads l.
func (l *lifetimeCfg) lifetimes() (soft, hard sad.Lifetime) {
	finite := func(n uint64) uint64 {
		if n == infinite {
			return 0
		}
		return n
	}
	soft = sad.Lifetime{Packets: finite(l.softPackets), Bytes: finite(l.softBytes), Seconds: l.softAdd, UseSeconds: l.softUse}
	hard = sad.Lifetime{Packets: finite(l.hardPackets), Bytes: finite(l.hardBytes), Seconds: l.hardAdd, UseSeconds: l.hardUse}
	return soft, hard
}

// lifetimesOf writes soft and hard.
func lifetimesOf(soft, hard sad.Lifetime) lifetimeCfg {
	bound := func(n uint64) uint64 {
		if n == 0 {
			return infinite
		}
		return n
	}
	return lifetimeCfg{
		softBytes: bound(soft.Bytes), hardBytes: bound(hard.Bytes),
		softPackets: bound(soft.Packets), hardPackets: bound(hard.Packets),
		softAdd: soft.Seconds, hardAdd: hard.Seconds,
		softUse: soft.UseSeconds, hardUse: hard.UseSeconds,
	}
}

// since1970 returns t in seconds since 1970, 0 for no time.
func since1970(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.Unix(), 0))
}

// replay returns where the SA stands that r tells of. One of the two counters
// has to be 0: an SA goes one way.
func (r *replayState) replay() (sad.Replay, error) {
	return restore(uint64(r.oseq), uint64(r.seq), 32, []uint32{r.bitmap}, false)
}

// replay returns where the SA stands that r tells of.
func (r *replayESN) replay() (sad.Replay, error) {
	if r.window > uint32(len(r.bitmap))*32 {
		return sad.Replay{}, refuse(eINVAL, "replay window of %d packets with a bitmap of %d words: make it %d words",
			r.window, len(r.bitmap), (uint64(r.window)+31)/32)
	}
	return restore(uint64(r.oseqHi)<<32|uint64(r.oseq), uint64(r.seqHi)<<32|uint64(r.seq), r.window, r.bitmap, true)
}

// restore makes a Replay. A plain bitmap has in bit k whether number seq-k was
// received; a ring has number n in bit (n-1) mod window.
func restore(oseq, seq uint64, window uint32, bitmap []uint32, ring bool) (sad.Replay, error) {
	switch {
	case oseq != 0 && seq != 0:
		return sad.Replay{}, refuse(eINVAL, "an SA that has sent up to %d and received up to %d: it goes one way only", oseq, seq)
	case oseq != 0 || seq == 0 || window == 0:
		return sad.Replay{Seq: oseq + seq}, nil
	}
	r := sad.Replay{Seq: seq, Seen: make([]uint64, (window+63)/64)}
	for k := range uint64(len(r.Seen)) * 64 {
		at := uint32(k)
		if ring && k < uint64(window) {
			at = ringBit(seq, uint32(k), window)
		}
		// What lies behind the window is as good as received.
		if k >= uint64(window) || bitmap[at/32]>>(at%32)&1 != 0 {
			r.Seen[k/64] |= 1 << (k % 64)
		}
	}
	return r, nil
}

// ringBit returns the place of number seq-k in a ring of window bits.
func ringBit(seq uint64, k, window uint32) uint32 {
	top := (uint32(seq) - 1) % window
	return (top + window - k) % window
}

// seen says whether r has number r.Seq-k.
func seen(r *sad.Replay, k uint64) bool {
	return k/64 < uint64(len(r.Seen)) && r.Seen[k/64]>>(k%64)&1 != 0
}
