package wire

import (
	"encoding/binary"
	"math/bits"

	"spigot/internal/flow"
)

// Sum adds the 16-bit words of b to the partial Internet checksum part and
// returns the new partial one (RFC 1071). A byte left over counts as if a zero
// followed, so only the last piece of a chain may have an odd length. Start
// with 0, or with PseudoSum; end with Finish.
func Sum(b []byte, part uint16) uint16 {
	// Words are added in the order of the machine: the one's complement sum
	// comes out byte-swapped and is swapped back once (RFC 1071, section 2 (B)).
	acc, carry := uint64(bits.ReverseBytes16(part)), uint64(0)
	for len(b) >= 32 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), carry)
		b = b[32:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail uint64
	for i := len(b) - 1; i >= 0; i-- {
		tail = tail<<8 | uint64(b[i])
	}
	acc, carry = bits.Add64(acc, tail, carry)
	acc, carry = bits.Add64(acc, 0, carry)
	return bits.ReverseBytes16(fold(acc + carry))
}

// fold brings a one's complement sum down to 16 bits.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// Finish turns a partial sum into the checksum that a header carries.
func Finish(part uint16) uint16 { return ^part }

// Checksum returns the Internet checksum of b (RFC 1071). Over bytes that hold
// their own right checksum it returns 0.
func Checksum(b []byte) uint16 { return Finish(Sum(b, 0)) }

// PseudoSum returns the partial sum of the pseudo header that TCP, UDP and
// ICMPv6 put in front of themselves: RFC 9293, section 3.1 for IPv4, RFC 8200,
// section 8.1 for IPv6. length is that of the upper-layer packet in bytes; src
// and dst are of one family.
func PseudoSum(src, dst flow.Addr, proto uint8, length int) uint16 {
	acc := uint64(proto) + uint64(uint32(length))
	if src.Is4() {
		return fold(acc + src.Lo&0xffffffff + dst.Lo&0xffffffff)
	}
	acc, carry := bits.Add64(acc, src.Hi, 0)
	acc, carry = bits.Add64(acc, src.Lo, carry)
	acc, carry = bits.Add64(acc, dst.Hi, carry)
	acc, carry = bits.Add64(acc, dst.Lo, carry)
	acc, carry = bits.Add64(acc, 0, carry)
	return fold(acc + carry)
}

// UpperChecksum returns the checksum of the upper-layer packet p, pseudo header
// included. A right checksum already in p makes it 0. For UDP a result of 0 is
// sent as 0xffff (RFC 768). ICMPv4 has no pseudo header: use Checksum.
func UpperChecksum(src, dst flow.Addr, proto uint8, p []byte) uint16 {
	return Finish(Sum(p, PseudoSum(src, dst, proto, len(p))))
}

// adjust returns the checksum sum after the word old became new: equation 3 of
// RFC 1624.
func adjust(sum, old, new uint16) uint16 {
	s := uint32(^sum) + uint32(^old) + uint32(new)
	s = s>>16 + s&0xffff
	s += s >> 16
	return ^uint16(s)
}
