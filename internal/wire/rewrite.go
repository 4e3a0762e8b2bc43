package wire

import "spigot/internal/flow"

// SetUpper makes proto the upper-layer protocol of the IP packet at the start of
// ip, which Classify found valid and whose upper layer starts at off, and n
// bytes the packet's length. IPv4's header checksum is updated.
func SetUpper(ip []byte, off int, proto uint8, n int) {
	if ip[0]>>4 == 4 {
		h := IPv4(ip)
		h.SetProto(proto)
		h.SetTotalLen(uint16(n))
		return
	}
	IPv6(ip).SetPayloadLen(uint16(n - IPv6Len))
	at := v6NextHeader
	for next := IPv6Len; next < off; {
		kind := ip[at]
		at = next + extNext
		next += extensionLen(kind, ip[next:])
	}
	ip[at] = proto
}

// extensionLen returns the length of the extension header of that kind.
func extensionLen(kind uint8, ext []byte) int {
	if kind == ProtoFragment {
		return FragmentLen
	}
	return (int(ext[extLen]) + 1) * 8
}

// RenewChecksum computes the checksum of the upper-layer packet p anew, which
// covers the addresses: a NAT rewrote those and could not see the checksum (RFC
// 3948, section 3.1.2, b). Protocols without a pseudo header, and packets too
// short for theirs, stay as they are.
func RenewChecksum(src, dst flow.Addr, proto uint8, p []byte) {
	at := checksumAt(proto)
	if at == 0 || len(p) < at+2 || proto == ProtoUDP && be.Uint16(p[at:]) == 0 { // RFC 768: there is none
		return
	}
	be.PutUint16(p[at:], 0)
	sum := UpperChecksum(src, dst, proto, p)
	if sum == 0 && proto == ProtoUDP {
		sum = 0xffff
	}
	be.PutUint16(p[at:], sum)
}

// checksumAt returns where a protocol has its checksum that covers the
// addresses, 0 for one that has none.
func checksumAt(proto uint8) int {
	switch proto {
	case ProtoTCP:
		return 16
	case ProtoUDP:
		return udpChecksum
	case ProtoICMPv6:
		return icmpChecksum
	}
	return 0
}
