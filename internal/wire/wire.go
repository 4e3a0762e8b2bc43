// Package wire gives the headers of packets names: each header is a byte slice
// with accessors over a table of offsets, in network byte order.
//
// A view has one validity check, Valid, which runs once and names the drop
// reason. After it said None no accessor panics. A setter never checks: who
// writes a header makes the slice long enough first. Views alias the packet;
// none of them copies or allocates.
//
// Classify is the check and the tuple in one pass, once a packet.
package wire

import "encoding/binary"

// be is how every header orders its bytes.
var be = binary.BigEndian

// IP protocol numbers (the IANA registry "Assigned Internet Protocol Numbers").
const (
	ProtoHopByHop = 0 // IPv6 hop-by-hop options
	ProtoICMP     = 1
	ProtoIPv4     = 4 // IPv4 in IP
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoDCCP     = 33
	ProtoIPv6     = 41 // IPv6 in IP
	ProtoRouting  = 43 // IPv6 routing header
	ProtoFragment = 44 // IPv6 fragment header
	ProtoESP      = 50
	ProtoAH       = 51
	ProtoICMPv6   = 58
	ProtoNoNext   = 59 // IPv6 no next header; in ESP a dummy packet
	ProtoDstOpts  = 60 // IPv6 destination options
	ProtoSCTP     = 132
	ProtoUDPLite  = 136
)

// The codepoints of the ECN field (RFC 3168, section 5), the low two bits of
// IPv4's TOS and of IPv6's traffic class.
const (
	NotECT = 0
	ECT1   = 1
	ECT0   = 2
	CE     = 3

	ecnMask = 3
)
