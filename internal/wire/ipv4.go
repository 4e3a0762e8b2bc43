package wire

import (
	"encoding/binary"
	"math/bits"

	"spigot/internal/counter"
	"spigot/internal/flow"
)

// IPv4 is a packet that starts with an IPv4 header (RFC 791, section 3.1); more
// bytes, such as Ethernet's padding, may follow the packet.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version|  IHL  |Type of Service|          Total Length         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Identification        |Flags|      Fragment Offset    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Time to Live |    Protocol   |         Header Checksum       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       Source Address                          |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Destination Address                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Options                    |    Padding    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// Every setter but Init, Fill and UpdateChecksum updates the header checksum by the
// difference (RFC 1624): a right checksum stays right, a wrong one wrong.
type IPv4 []byte

// Offsets, lengths and bits of IPv4.
const (
	v4VersionIHL = 0
	v4TOS        = 1
	v4TotalLen   = 2
	v4ID         = 4
	v4Fragment   = 6
	v4TTL        = 8
	v4Proto      = 9
	v4Checksum   = 10
	v4Src        = 12
	v4Dst        = 16

	// IPv4Len is the length of a header without options in bytes.
	IPv4Len = 20

	flagDF     = 0x4000
	flagMF     = 0x2000
	offsetMask = 0x1fff
)

// Valid checks version, header length, total length and header checksum
// (RFC 1812, section 5.2.2): Runt or BadIPHeader if they are wrong.
func (h IPv4) Valid() counter.Reason {
	if len(h) < IPv4Len {
		return counter.Runt
	}
	total := int(be.Uint16(h[v4TotalLen:]))
	if h[v4VersionIHL] != 4<<4|IPv4Len/4 {
		return h.validOptions(total)
	}
	if total < IPv4Len || total > len(h) {
		return counter.BadIPHeader
	}
	// The header's words and their checksum sum up to 0xffff, a zero of one's
	// complement in any byte order; 2^64 = 1 modulo 0xffff makes the carry a 1.
	acc, carry := bits.Add64(binary.LittleEndian.Uint64(h), binary.LittleEndian.Uint64(h[8:]), 0)
	acc, carry = bits.Add64(acc, uint64(binary.LittleEndian.Uint32(h[16:])), carry)
	if (acc+carry)%0xffff != 0 {
		return counter.BadIPHeader
	}
	return counter.None
}

// validOptions is Valid for a header that is not the common one of 20 bytes.
func (h IPv4) validOptions(total int) counter.Reason {
	n := h.HeaderLen()
	if h.Version() != 4 || n < IPv4Len || n > total || total > len(h) || Checksum(h[:n]) != 0 {
		return counter.BadIPHeader
	}
	return counter.None
}

// Version returns the version field, 4 in a valid header.
func (h IPv4) Version() uint8 { return h[v4VersionIHL] >> 4 }

// HeaderLen returns the header's length in bytes, options included.
func (h IPv4) HeaderLen() int { return int(h[v4VersionIHL]&0xf) * 4 }

// TOS returns the DSCP and ECN fields as one byte (RFC 2474, RFC 3168).
func (h IPv4) TOS() uint8 { return h[v4TOS] }

// DSCP returns the differentiated services codepoint, 0 to 63.
func (h IPv4) DSCP() uint8 { return h[v4TOS] >> 2 }

// ECN returns the ECN codepoint.
func (h IPv4) ECN() uint8 { return h[v4TOS] & ecnMask }

// TotalLen returns the packet's length in bytes, header included.
func (h IPv4) TotalLen() int { return int(be.Uint16(h[v4TotalLen:])) }

// ID returns the identification field.
func (h IPv4) ID() uint16 { return be.Uint16(h[v4ID:]) }

// DontFragment returns the don't-fragment flag, DF.
func (h IPv4) DontFragment() bool { return be.Uint16(h[v4Fragment:])&flagDF != 0 }

// MoreFragments returns the more-fragments flag, MF.
func (h IPv4) MoreFragments() bool { return be.Uint16(h[v4Fragment:])&flagMF != 0 }

// FragmentOffset returns where the payload lies in the datagram, in bytes.
func (h IPv4) FragmentOffset() int { return int(be.Uint16(h[v4Fragment:])&offsetMask) * 8 }

// IsFragment says whether the packet is a part of a datagram, the first
// included.
func (h IPv4) IsFragment() bool { return be.Uint16(h[v4Fragment:])&(flagMF|offsetMask) != 0 }

// TTL returns the time to live.
func (h IPv4) TTL() uint8 { return h[v4TTL] }

// Proto returns the protocol number.
func (h IPv4) Proto() uint8 { return h[v4Proto] }

// Checksum returns the header checksum field.
func (h IPv4) Checksum() uint16 { return be.Uint16(h[v4Checksum:]) }

// Src returns the source address.
func (h IPv4) Src() flow.Addr { return flow.From4(h[v4Src:]) }

// Dst returns the destination address.
func (h IPv4) Dst() flow.Addr { return flow.From4(h[v4Dst:]) }

// Payload returns what lies between the header and the total length.
func (h IPv4) Payload() []byte { return h[h.HeaderLen():h.TotalLen()] }

// SetTTL sets the time to live.
func (h IPv4) SetTTL(ttl uint8) { h.set16(v4TTL, uint16(ttl)<<8|uint16(h[v4Proto])) }

// SetProto sets the protocol number.
func (h IPv4) SetProto(proto uint8) { h.set16(v4TTL, uint16(h[v4TTL])<<8|uint16(proto)) }

// SetTOS sets the DSCP and ECN fields as one byte.
func (h IPv4) SetTOS(tos uint8) { h.set16(v4VersionIHL, uint16(h[v4VersionIHL])<<8|uint16(tos)) }

// SetDSCP sets the differentiated services codepoint, 0 to 63, and keeps ECN.
func (h IPv4) SetDSCP(dscp uint8) { h.SetTOS(dscp<<2 | h.ECN()) }

// SetECN sets the ECN codepoint and keeps the DSCP.
func (h IPv4) SetECN(ecn uint8) { h.SetTOS(h.TOS()&^ecnMask | ecn&ecnMask) }

// SetTotalLen sets the packet's length in bytes, header included.
func (h IPv4) SetTotalLen(n uint16) { h.set16(v4TotalLen, n) }

// SetID sets the identification field.
func (h IPv4) SetID(id uint16) { h.set16(v4ID, id) }

// SetDontFragment sets the don't-fragment flag, DF.
func (h IPv4) SetDontFragment() { h.set16(v4Fragment, be.Uint16(h[v4Fragment:])|flagDF) }

// SetFragment sets the fragment offset in bytes, a multiple of 8, and the
// more-fragments flag. DF stays as it is.
func (h IPv4) SetFragment(offset int, more bool) {
	v := be.Uint16(h[v4Fragment:])&flagDF | uint16(offset/8)&offsetMask
	if more {
		v |= flagMF
	}
	h.set16(v4Fragment, v)
}

// set16 writes the word at off and updates the checksum.
func (h IPv4) set16(off int, v uint16) {
	old := be.Uint16(h[off:])
	be.PutUint16(h[off:], v)
	be.PutUint16(h[v4Checksum:], adjust(be.Uint16(h[v4Checksum:]), old, v))
}

// Fill completes a header without options that was copied from a template: it
// sets what varies from packet to packet, zero in the template (TOS, total
// length, ID, flags, checksum). total is the packet's length in bytes, header
// included.
func (h IPv4) Fill(tos uint8, total int, id uint16, df bool) {
	_ = h[IPv4Len-1]
	flags := uint16(0)
	if df {
		flags = flagDF
	}
	// One's complement sums do not mind the byte order (RFC 1071, section 2 (B)).
	// The words are read before the fields are written: a wide load of what was
	// just stored in pieces would wait for the stores.
	sum, carry := bits.Add64(binary.LittleEndian.Uint64(h), binary.LittleEndian.Uint64(h[8:]), 0)
	sum, carry = bits.Add64(sum, uint64(binary.LittleEndian.Uint32(h[16:])), carry)
	sum = sum>>32 + sum&0xffffffff + carry
	sum += uint64(tos)<<8 + uint64(bits.ReverseBytes16(uint16(total)))
	sum += uint64(bits.ReverseBytes16(id)) + uint64(bits.ReverseBytes16(flags))
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff

	h[v4TOS] = tos
	be.PutUint16(h[v4TotalLen:], uint16(total))
	be.PutUint16(h[v4ID:], id)
	be.PutUint16(h[v4Fragment:], flags)
	binary.LittleEndian.PutUint16(h[v4Checksum:], ^uint16(sum))
}

// UpdateChecksum computes the header checksum from scratch.
func (h IPv4) UpdateChecksum() {
	be.PutUint16(h[v4Checksum:], 0)
	be.PutUint16(h[v4Checksum:], Checksum(h[:h.HeaderLen()]))
}

// Init writes a header without options to the first IPv4Len bytes of h: TOS,
// identification and flags are zero, the checksum is right. total is the
// packet's length in bytes, header included.
func (h IPv4) Init(src, dst flow.Addr, proto, ttl uint8, total int) {
	h = h[:IPv4Len]
	clear(h)
	h[v4VersionIHL] = 4<<4 | IPv4Len/4
	be.PutUint16(h[v4TotalLen:], uint16(total))
	h[v4TTL] = ttl
	h[v4Proto] = proto
	src.Put4(h[v4Src:])
	dst.Put4(h[v4Dst:])
	h.UpdateChecksum()
}
