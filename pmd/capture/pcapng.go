package capture

import "encoding/binary"

// The blocks of a pcapng file (draft-ietf-opsawg-pcapng), in little-endian
// order. Every block is
//
//	type (4) | total length (4) | body, padded to 32 bits | total length (4)
//
// and an option in a body is code (2) | length (2) | value, padded to 32 bits.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6

	byteOrderMagic = 0x1a2b3c4d
	linkEthernet   = 1

	optEnd          = 0
	optIfName       = 2
	optIfResolution = 9 // if_tsresol
	optPacketFlags  = 2 // epb_flags
	resolutionNanos = 9 // 10^-9 s
	unknownSize     = ^uint64(0)
)

// direction is the value of epb_flags.
type direction uint32

const (
	inbound  direction = 1
	outbound direction = 2
)

// appendBlock appends a block whose body is what body appends.
func appendBlock(b []byte, kind uint32, body func([]byte) []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = append(b, 0, 0, 0, 0)
	b = body(b)
	total := uint32(len(b) - start + 4)
	binary.LittleEndian.PutUint32(b[start+4:], total)
	return binary.LittleEndian.AppendUint32(b, total)
}

func appendOption(b []byte, code uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return pad(append(b, value...))
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// appendSection appends the section header, with which a file begins.
func appendSection(b []byte) []byte {
	return appendBlock(b, blockSection, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint32(b, byteOrderMagic)
		b = binary.LittleEndian.AppendUint16(b, 1) // version 1.0
		b = binary.LittleEndian.AppendUint16(b, 0)
		return binary.LittleEndian.AppendUint64(b, unknownSize)
	})
}

// appendInterface appends the description of an Ethernet interface. Packets
// name it by its place among the descriptions.
func appendInterface(b []byte, name string, snap uint32) []byte {
	return appendBlock(b, blockInterface, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint16(b, linkEthernet)
		b = binary.LittleEndian.AppendUint16(b, 0)
		b = binary.LittleEndian.AppendUint32(b, snap)
		b = appendOption(b, optIfName, []byte(name))
		b = appendOption(b, optIfResolution, []byte{resolutionNanos})
		return appendOption(b, optEnd, nil)
	})
}

// appendPacket appends a packet that the interface of number id saw.
func appendPacket(b []byte, id uint32, r *record) []byte {
	return appendBlock(b, blockPacket, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint32(b, id)
		b = binary.LittleEndian.AppendUint32(b, uint32(uint64(r.nanos)>>32))
		b = binary.LittleEndian.AppendUint32(b, uint32(r.nanos))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(r.data)))
		b = binary.LittleEndian.AppendUint32(b, r.length)
		b = pad(append(b, r.data...))
		b = appendOption(b, optPacketFlags, binary.LittleEndian.AppendUint32(nil, uint32(r.dir)))
		return appendOption(b, optEnd, nil)
	})
}
