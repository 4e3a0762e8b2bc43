package wire

import (
	"spigot/internal/counter"
	"spigot/internal/flow"
)

// ICMP is an ICMPv4 (RFC 792) or ICMPv6 (RFC 4443, section 2.1) message. The
// two share their first eight bytes; where they differ, the method's name or
// its argument says which is meant.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |     Code      |           Checksum            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   v4: unused, then next-hop MTU; v6: MTU; both: id, sequence  |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   v4: IP header and 8 bytes or more; v6: as much as fits 1280 |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ICMP []byte

// Offsets and length of ICMP.
const (
	icmpType     = 0
	icmpCode     = 1
	icmpChecksum = 2
	icmpRest     = 4

	// ICMPLen is the length of the part in front of the body in bytes.
	ICMPLen = 8
)

// ICMPv4 types and codes (RFC 792, RFC 1191).
const (
	ICMPEchoReply    = 0
	ICMPUnreachable  = 3
	ICMPFragNeeded   = 4 // code of ICMPUnreachable
	ICMPSourceQuench = 4
	ICMPRedirect     = 5
	ICMPEcho         = 8
	ICMPTimeExceeded = 11
	ICMPParamProblem = 12
)

// ICMPv6 types (RFC 4443, RFC 4861).
const (
	ICMPv6Unreachable  = 1
	ICMPv6PacketTooBig = 2
	ICMPv6TimeExceeded = 3
	ICMPv6ParamProblem = 4
	ICMPv6Echo         = 128
	ICMPv6EchoReply    = 129
	ICMPv6Redirect     = 137
)

// Valid returns Runt if the first eight bytes are not all there. Every message
// that this gateway makes or looks into has them.
func (h ICMP) Valid() counter.Reason {
	if len(h) < ICMPLen {
		return counter.Runt
	}
	return counter.None
}

// Type returns the message type.
func (h ICMP) Type() uint8 { return h[icmpType] }

// Code returns the code, whose meaning depends on the type.
func (h ICMP) Code() uint8 { return h[icmpCode] }

// Checksum returns the checksum field.
func (h ICMP) Checksum() uint16 { return be.Uint16(h[icmpChecksum:]) }

// MTU4 returns the next-hop MTU of an ICMPFragNeeded (RFC 1191, section 4).
func (h ICMP) MTU4() int { return int(be.Uint16(h[icmpRest+2:])) }

// MTU6 returns the MTU of an ICMPv6PacketTooBig (RFC 4443, section 3.2).
func (h ICMP) MTU6() int { return int(be.Uint32(h[icmpRest:])) }

// ID returns the identifier of an echo or its reply.
func (h ICMP) ID() uint16 { return be.Uint16(h[icmpRest:]) }

// Seq returns the sequence number of an echo or its reply.
func (h ICMP) Seq() uint16 { return be.Uint16(h[icmpRest+2:]) }

// Body returns what follows the first eight bytes.
func (h ICMP) Body() []byte { return h[ICMPLen:] }

// IsError says whether the message, of ICMPv6 if v6, reports an error or
// redirects: such a message is never answered with an error (RFC 1122, section
// 3.2.2; RFC 4443, section 2.4 (e)).
func (h ICMP) IsError(v6 bool) bool {
	if v6 {
		return h.Type() < 128 || h.Type() == ICMPv6Redirect
	}
	switch h.Type() {
	case ICMPUnreachable, ICMPSourceQuench, ICMPRedirect, ICMPTimeExceeded, ICMPParamProblem:
		return true
	}
	return false
}

// Init writes the first ICMPLen bytes of h, with checksum 0. rest is the word
// behind the checksum: an MTU, or identifier and sequence number.
func (h ICMP) Init(typ, code uint8, rest uint32) {
	h = h[:ICMPLen]
	be.PutUint32(h, uint32(typ)<<24|uint32(code)<<16)
	be.PutUint32(h[icmpRest:], rest)
}

// UpdateChecksum4 computes the checksum of the ICMPv4 message h, which ends
// where the slice does.
func (h ICMP) UpdateChecksum4() {
	be.PutUint16(h[icmpChecksum:], 0)
	be.PutUint16(h[icmpChecksum:], Checksum(h))
}

// UpdateChecksum6 computes the checksum of the ICMPv6 message h, which ends
// where the slice does.
func (h ICMP) UpdateChecksum6(src, dst flow.Addr) {
	be.PutUint16(h[icmpChecksum:], 0)
	be.PutUint16(h[icmpChecksum:], UpperChecksum(src, dst, ProtoICMPv6, h))
}
