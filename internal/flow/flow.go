// Package flow names traffic: an address, the tuple of a packet, and the
// selector that matches tuples (RFC 4301, section 4.4.1.1).
package flow

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Addr is an IPv4 or IPv6 address as two big-endian words. IPv4 addresses lie
// in ::ffff:0:0/96, so that one comparison serves both families and a range
// never spans them. The zero Addr is "::" and stands for "none".
type Addr struct{ Hi, Lo uint64 }

const v4Prefix = 0xffff << 32

// V4 returns the Addr of an IPv4 address in host byte order.
func V4(a uint32) Addr { return Addr{0, v4Prefix | uint64(a)} }

// From4 returns the Addr in the first four bytes of b.
func From4(b []byte) Addr { return V4(binary.BigEndian.Uint32(b)) }

// From16 returns the Addr in the first sixteen bytes of b.
func From16(b []byte) Addr {
	_ = b[15]
	return Addr{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// FromNetip converts a, without its zone; the zero netip.Addr becomes the zero Addr.
func FromNetip(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	b := a.As16()
	return From16(b[:])
}

// Netip converts a; IPv4 addresses come back unmapped.
func (a Addr) Netip() netip.Addr {
	var b [16]byte
	a.Put16(b[:])
	return netip.AddrFrom16(b).Unmap()
}

// Is4 says whether a is an IPv4 address.
func (a Addr) Is4() bool { return a.Hi == 0 && a.Lo>>32 == 0xffff }

// IsZero says whether a is the zero Addr.
func (a Addr) IsZero() bool { return a == Addr{} }

// Put4 writes the IPv4 address a to the first four bytes of b.
func (a Addr) Put4(b []byte) { binary.BigEndian.PutUint32(b, uint32(a.Lo)) }

// Put16 writes a to the first sixteen bytes of b.
func (a Addr) Put16(b []byte) {
	_ = b[15]
	binary.BigEndian.PutUint64(b, a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
}

// Compare orders addresses by value.
func (a Addr) Compare(b Addr) int {
	if c := cmp.Compare(a.Hi, b.Hi); c != 0 {
		return c
	}
	return cmp.Compare(a.Lo, b.Lo)
}

// Less says whether a sorts before b.
func (a Addr) Less(b Addr) bool { return a.Hi < b.Hi || a.Hi == b.Hi && a.Lo < b.Lo }

// String formats a as netip does.
func (a Addr) String() string { return a.Netip().String() }

// Tuple is what policies see of a packet. ICMP keeps type and code in the
// bytes of SrcPort: type<<8 | code, with DstPort 0.
type Tuple struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8
	// NoPorts says that the packet carries no ports that can be seen: a
	// non-initial fragment, or a protocol without ports.
	NoPorts bool
}

// String formats t as "proto src[port] -> dst[port]".
func (t Tuple) String() string {
	if t.NoPorts {
		return fmt.Sprintf("proto %d %v -> %v", t.Proto, t.Src, t.Dst)
	}
	return fmt.Sprintf("proto %d %v[%d] -> %v[%d]", t.Proto, t.Src, t.SrcPort, t.Dst, t.DstPort)
}

// AddrRange is the addresses from Lo to Hi, both included, of one family.
type AddrRange struct{ Lo, Hi Addr }

// RangeOf returns the addresses of p. If p is not valid it returns a range that
// contains nothing and that an SPD entry or SA with it is refused for.
func RangeOf(p netip.Prefix) AddrRange {
	if !p.IsValid() {
		return AddrRange{Lo: Addr{Lo: 1}}
	}
	lo := FromNetip(p.Masked().Addr())
	host := 128 - p.Bits()
	if p.Addr().Is4() { // not Is4In6, whose prefix length counts all 128 bits
		host = 32 - p.Bits()
	}
	hi := lo
	if host >= 64 {
		hi.Lo = ^uint64(0)
		hi.Hi |= 1<<(host-64) - 1
	} else {
		hi.Lo |= 1<<host - 1
	}
	return AddrRange{lo, hi}
}

// Contains says whether a lies in r. The families are compared too: ::/0, read
// as numbers, has the IPv4 addresses in its middle.
func (r AddrRange) Contains(a Addr) bool {
	return !a.Less(r.Lo) && !r.Hi.Less(a) && a.Is4() == r.Lo.Is4()
}

// String formats r as a prefix when it is one, else as "lo-hi".
func (r AddrRange) String() string {
	lo, hi := r.Lo.Netip(), r.Hi.Netip()
	for bits := lo.BitLen(); bits >= 0; bits-- {
		if p := netip.PrefixFrom(lo, bits); RangeOf(p) == r {
			return p.String()
		}
	}
	return fmt.Sprintf("%v-%v", lo, hi)
}

// PortRange is the ports from Lo to Hi, both included. A tuple without ports
// matches AnyPort and OpaquePort only.
type PortRange struct{ Lo, Hi uint16 }

// AnyPort matches every port, and packets without ports.
var AnyPort = PortRange{0, 65535}

// OpaquePort is OPAQUE of RFC 4301, section 4.4.1.1: it matches packets without
// ports, and no others. IKEv2 writes it so, too (RFC 7296, section 3.13.1).
var OpaquePort = PortRange{65535, 0}

// AnyProto in a Selector matches every protocol. Its number belongs to IPv6's
// hop-by-hop header, which is never an upper-layer protocol.
const AnyProto = 0

// Selector matches tuples: the box of RFC 4301, section 4.4.1.1.
type Selector struct {
	Src, Dst         AddrRange
	SrcPort, DstPort PortRange
	Proto            uint8 // AnyProto, or an IP protocol number
}

// HasPorts says whether s matches some ports, or ICMP types and codes, only, or
// only packets without.
func (s *Selector) HasPorts() bool { return s.SrcPort != AnyPort || s.DstPort != AnyPort }

// Opaque says whether s matches only packets without ports.
func (s *Selector) Opaque() bool { return s.SrcPort == OpaquePort || s.DstPort == OpaquePort }

// PortsFault says what is wrong with the ports of s, "" if nothing is.
func (s *Selector) PortsFault() string {
	switch {
	case s.SrcPort.upsideDown():
		return fmt.Sprintf("source port range %d-%d is upside down: swap its ends", s.SrcPort.Lo, s.SrcPort.Hi)
	case s.DstPort.upsideDown():
		return fmt.Sprintf("destination port range %d-%d is upside down: swap its ends", s.DstPort.Lo, s.DstPort.Hi)
	case !s.Opaque():
		return ""
	case !s.SrcPort.unseen() || !s.DstPort.unseen():
		return "port is OPAQUE at one end and a number at the other, which no packet has: make both OPAQUE"
	case s.Proto == AnyProto:
		return "port is OPAQUE, of any protocol: name the protocol (RFC 4301, section 7.2)"
	}
	return ""
}

// Matches says whether t lies in s.
func (s *Selector) Matches(t *Tuple) bool {
	if s.Proto != AnyProto && s.Proto != t.Proto {
		return false
	}
	if t.NoPorts {
		return s.SrcPort.unseen() && s.DstPort.unseen() && s.Src.Contains(t.Src) && s.Dst.Contains(t.Dst)
	}
	return s.Src.Contains(t.Src) && s.Dst.Contains(t.Dst) &&
		s.SrcPort.Lo <= t.SrcPort && t.SrcPort <= s.SrcPort.Hi && // none in OPAQUE, which is upside down
		s.DstPort.Lo <= t.DstPort && t.DstPort <= s.DstPort.Hi
}

// Covers says whether all that t selects lies in s.
func (s *Selector) Covers(t *Selector) bool {
	return s.Src.covers(t.Src) && s.Dst.covers(t.Dst) && s.SrcPort.covers(t.SrcPort) && s.DstPort.covers(t.DstPort) &&
		(s.Proto == AnyProto || s.Proto == t.Proto)
}

func (r AddrRange) covers(q AddrRange) bool { return r.Contains(q.Lo) && r.Contains(q.Hi) }

func (r PortRange) covers(q PortRange) bool {
	if q == OpaquePort {
		return r.unseen()
	}
	return r.Lo <= q.Lo && q.Hi <= r.Hi
}

// unseen says whether packets without ports match r.
func (r PortRange) unseen() bool { return r == AnyPort || r == OpaquePort }

func (r PortRange) upsideDown() bool { return r.Hi < r.Lo && r != OpaquePort }

// The protocols whose selectors have a message type and code for ports.
const (
	protoICMP   = 1
	protoICMPv6 = 58
)

// IsICMP says whether tuples of the protocol have a message type and code in
// SrcPort, and nothing in DstPort.
func IsICMP(proto uint8) bool { return proto == protoICMP || proto == protoICMPv6 }

// Mirrored returns s for the opposite direction. ICMP's type and code belong
// to no end (RFC 4301, section 4.4.1.1) and stay where they are.
func (s Selector) Mirrored() Selector {
	s.Src, s.Dst = s.Dst, s.Src
	if !IsICMP(s.Proto) {
		s.SrcPort, s.DstPort = s.DstPort, s.SrcPort
	}
	return s
}
