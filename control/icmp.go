package control

import (
	"slices"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/wire"
)

// The lengths of ICMP errors. An ICMPv4 error quotes as much as fits 576 bytes
// (RFC 1812, section 4.3.2.3), an ICMPv6 error as much as fits IPv6's least MTU
// (RFC 4443, section 2.4 (c)).
const (
	maxError4 = 576
	maxError6 = 1280
	minMTU4   = 68   // RFC 791
	minMTU6   = 1280 // RFC 8200, section 5
)

const (
	icmpTTL = 64
	icmpTOS = 0xc0 // precedence 6, internetwork control (RFC 1812, section 4.3.2.5)
)

// answerable says whether an ICMP error about the packet, which may be cut off
// at its end, is allowed, and to whom it goes: never about an ICMP error or
// redirect, a fragment but the first, or a packet to or from other than one
// host (RFC 1122, section 3.2.2; RFC 1812, section 4.3.2.7; RFC 4443, section
// 2.4 (e)). That a packet to an IPv6 group is too big its sender may hear.
func answerable(packet []byte, kind fib.PuntKind) (to flow.Addr, ok bool) {
	ip := whole(packet)
	var t flow.Tuple
	info, r := wire.Classify(ip, &t)
	toGroup := kind == fib.PuntTooBig && info.V6 && t.Dst.IsGroup()
	if r != counter.None || !isHost(t.Src) || !isHost(t.Dst) && !toGroup {
		return flow.Addr{}, false
	}
	if info.Fragment && laterFragment(ip, info.V6) {
		return flow.Addr{}, false
	}
	if v6 := info.Proto == wire.ProtoICMPv6; v6 || info.Proto == wire.ProtoICMP {
		m := wire.ICMP(ip[info.HeaderLen:info.Len])
		if v6 != info.V6 || m.Valid() != counter.None || m.IsError(v6) {
			return flow.Addr{}, false
		}
	}
	return t.Src, true
}

// destination returns the address that an answerable packet is for.
func destination(packet []byte) flow.Addr {
	if packet[0]>>4 == 4 {
		return flow.From4(packet[16:])
	}
	return flow.From16(packet[24:])
}

// whole returns a copy of packet whose length fields end where the bytes do.
func whole(packet []byte) []byte {
	ip := slices.Clone(packet)
	switch {
	case len(ip) >= wire.IPv4Len && ip[0]>>4 == 4:
		if h := wire.IPv4(ip); h.TotalLen() > len(ip) {
			h.SetTotalLen(uint16(len(ip)))
		}
	case len(ip) >= wire.IPv6Len && ip[0]>>4 == 6:
		if h := wire.IPv6(ip); h.TotalLen() > len(ip) {
			h.SetPayloadLen(uint16(len(ip) - wire.IPv6Len))
		}
	}
	return ip
}

// laterFragment says whether the classified packet is a fragment but the first.
func laterFragment(ip []byte, v6 bool) bool {
	if !v6 {
		return wire.IPv4(ip).FragmentOffset() != 0
	}
	u, _ := wire.IPv6(ip).Upper()
	return u.FragHeader != 0 && wire.FragmentHeader(ip[u.FragHeader:]).Offset() != 0
}

// isHost says whether a names one host: it is not zero, loopback, multicast,
// or of IPv4's class E, to which the broadcast address belongs. A subnet's
// broadcast address is held back by the route to it.
func isHost(a flow.Addr) bool {
	ip := a.Netip()
	if ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() {
		return false
	}
	return !a.Is4() || uint8(a.Lo>>24) != 0 && uint8(a.Lo>>24) < 240
}

// icmpError writes the answer to an answerable packet to buf, which has room
// for maxError6 bytes, and returns its length: time exceeded for fib.PuntTTL,
// else packet too big naming mtu. src is of the packet's family; id tells
// IPv4's fragments apart.
func icmpError(buf []byte, kind fib.PuntKind, mtu int, id uint16, src flow.Addr, packet []byte) int {
	if packet[0]>>4 == 4 {
		return icmpError4(buf, kind, mtu, id, src, packet)
	}
	return icmpError6(buf, kind, mtu, src, packet)
}

func icmpError4(buf []byte, kind fib.PuntKind, mtu int, id uint16, src flow.Addr, packet []byte) int {
	quote := packet[:min(len(packet), wire.IPv4(packet).TotalLen(), maxError4-wire.IPv4Len-wire.ICMPLen)]
	total := wire.IPv4Len + wire.ICMPLen + len(quote)
	ip := wire.IPv4(buf[:total])
	ip.Init(src, wire.IPv4(packet).Src(), wire.ProtoICMP, icmpTTL, total)
	ip.SetTOS(icmpTOS)
	ip.SetID(id)
	m := wire.ICMP(buf[wire.IPv4Len:total])
	copy(m.Body(), quote)
	if kind == fib.PuntTTL {
		m.Init(wire.ICMPTimeExceeded, 0, 0)
	} else { // RFC 1191, section 4
		m.Init(wire.ICMPUnreachable, wire.ICMPFragNeeded, uint32(max(mtu, minMTU4)))
	}
	m.UpdateChecksum4()
	return total
}

func icmpError6(buf []byte, kind fib.PuntKind, mtu int, src flow.Addr, packet []byte) int {
	dst := wire.IPv6(packet).Src()
	quote := packet[:min(len(packet), wire.IPv6(packet).TotalLen(), maxError6-wire.IPv6Len-wire.ICMPLen)]
	length := wire.ICMPLen + len(quote)
	wire.IPv6(buf).Init(src, dst, wire.ProtoICMPv6, icmpTTL, length)
	m := wire.ICMP(buf[wire.IPv6Len : wire.IPv6Len+length])
	copy(m.Body(), quote)
	if kind == fib.PuntTTL {
		m.Init(wire.ICMPv6TimeExceeded, 0, 0)
	} else {
		m.Init(wire.ICMPv6PacketTooBig, 0, uint32(max(mtu, minMTU6)))
	}
	m.UpdateChecksum6(src, dst)
	return wire.IPv6Len + length
}
