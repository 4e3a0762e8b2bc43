package wire

import (
	"spigot/internal/counter"
	"spigot/internal/flow"
)

// IPv6 is a packet that starts with an IPv6 header (RFC 8200, section 3); more
// bytes, such as Ethernet's padding, may follow the packet.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version| Traffic Class |           Flow Label                  |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Payload Length        |  Next Header  |   Hop Limit   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                         Source Address                        +
//	|                          (16 bytes)                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                      Destination Address                      +
//	|                          (16 bytes)                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type IPv6 []byte

// Offsets, lengths and bits of IPv6.
const (
	v6VersionTC  = 0 // version, traffic class and flow label share four bytes
	v6PayloadLen = 4
	v6NextHeader = 6
	v6HopLimit   = 7
	v6Src        = 8
	v6Dst        = 24

	// IPv6Len is the length of the fixed header in bytes.
	IPv6Len = 40

	flowLabelMask = 0xfffff
)

// Valid checks version, payload length and addresses: Runt or BadIPHeader if
// they are wrong. A payload length of 0 is refused: it announces a jumbogram
// (RFC 2675), or a packet that says nothing.
//
// Refused are also the addresses that flow.Addr uses for something else: "::",
// which no router forwards (RFC 4291, section 2.5.2), and ::ffff:0:0/96, which
// never belongs on the wire and would pass policies and routes as IPv4.
func (h IPv6) Valid() counter.Reason {
	if len(h) < IPv6Len {
		return counter.Runt
	}
	n := int(be.Uint16(h[v6PayloadLen:]))
	if h[v6VersionTC]>>4 != 6 || n == 0 || IPv6Len+n > len(h) {
		return counter.BadIPHeader
	}
	if be.Uint64(h[v6Src:]) == 0 && ambiguous(be.Uint64(h[v6Src+8:])) ||
		be.Uint64(h[v6Dst:]) == 0 && ambiguous(be.Uint64(h[v6Dst+8:])) {
		return counter.BadIPHeader
	}
	return counter.None
}

// ambiguous says whether the address with the high word 0 and this low word is
// "::" or an IPv4-mapped one.
func ambiguous(lo uint64) bool { return lo == 0 || lo>>32 == 0xffff }

// Version returns the version field, 6 in a valid header.
func (h IPv6) Version() uint8 { return h[v6VersionTC] >> 4 }

// TrafficClass returns the DSCP and ECN fields as one byte (RFC 2474, RFC 3168).
func (h IPv6) TrafficClass() uint8 { return uint8(be.Uint16(h[v6VersionTC:]) >> 4) }

// DSCP returns the differentiated services codepoint, 0 to 63.
func (h IPv6) DSCP() uint8 { return h.TrafficClass() >> 2 }

// ECN returns the ECN codepoint.
func (h IPv6) ECN() uint8 { return h.TrafficClass() & ecnMask }

// FlowLabel returns the flow label, 20 bits.
func (h IPv6) FlowLabel() uint32 { return be.Uint32(h[v6VersionTC:]) & flowLabelMask }

// PayloadLen returns how many bytes follow the fixed header.
func (h IPv6) PayloadLen() int { return int(be.Uint16(h[v6PayloadLen:])) }

// TotalLen returns the packet's length in bytes, header included.
func (h IPv6) TotalLen() int { return IPv6Len + h.PayloadLen() }

// NextHeader returns the type of what follows the fixed header; Upper finds
// the upper-layer protocol.
func (h IPv6) NextHeader() uint8 { return h[v6NextHeader] }

// HopLimit returns the hop limit.
func (h IPv6) HopLimit() uint8 { return h[v6HopLimit] }

// Src returns the source address.
func (h IPv6) Src() flow.Addr { return flow.From16(h[v6Src:]) }

// Dst returns the destination address.
func (h IPv6) Dst() flow.Addr { return flow.From16(h[v6Dst:]) }

// Payload returns what the payload length covers, extension headers included.
func (h IPv6) Payload() []byte { return h[IPv6Len:h.TotalLen()] }

// SetHopLimit sets the hop limit.
func (h IPv6) SetHopLimit(n uint8) { h[v6HopLimit] = n }

// SetNextHeader sets the type of what follows the fixed header.
func (h IPv6) SetNextHeader(proto uint8) { h[v6NextHeader] = proto }

// SetPayloadLen sets how many bytes follow the fixed header.
func (h IPv6) SetPayloadLen(n uint16) { be.PutUint16(h[v6PayloadLen:], n) }

// SetTrafficClass sets the DSCP and ECN fields as one byte.
func (h IPv6) SetTrafficClass(tc uint8) {
	be.PutUint16(h[v6VersionTC:], be.Uint16(h[v6VersionTC:])&^0xff0|uint16(tc)<<4)
}

// SetDSCP sets the differentiated services codepoint, 0 to 63, and keeps ECN.
func (h IPv6) SetDSCP(dscp uint8) { h.SetTrafficClass(dscp<<2 | h.ECN()) }

// SetECN sets the ECN codepoint and keeps the DSCP.
func (h IPv6) SetECN(ecn uint8) { h.SetTrafficClass(h.TrafficClass()&^ecnMask | ecn&ecnMask) }

// SetFlowLabel sets the flow label, 20 bits.
func (h IPv6) SetFlowLabel(label uint32) {
	be.PutUint32(h[v6VersionTC:], be.Uint32(h[v6VersionTC:])&^flowLabelMask|label&flowLabelMask)
}

// Init writes a header to the first IPv6Len bytes of h, with traffic class and
// flow label zero. payload is how many bytes follow it.
func (h IPv6) Init(src, dst flow.Addr, next, hopLimit uint8, payload int) {
	h = h[:IPv6Len]
	be.PutUint32(h[v6VersionTC:], 6<<28)
	h.SetPayloadLen(uint16(payload))
	h[v6NextHeader] = next
	h[v6HopLimit] = hopLimit
	src.Put16(h[v6Src:])
	dst.Put16(h[v6Dst:])
}
