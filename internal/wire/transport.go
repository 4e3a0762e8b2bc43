package wire

import "spigot/internal/counter"

// Ports is the start of a TCP, UDP, UDP-Lite, SCTP or DCCP header, in which all
// of them have their ports:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Ports []byte

const portsLen = 4

// Valid returns Runt if the ports are not all there.
func (h Ports) Valid() counter.Reason {
	if len(h) < portsLen {
		return counter.Runt
	}
	return counter.None
}

// Src returns the source port.
func (h Ports) Src() uint16 { return be.Uint16(h) }

// Dst returns the destination port.
func (h Ports) Dst() uint16 { return be.Uint16(h[2:]) }

// UDP is a UDP datagram (RFC 768):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|            Length             |           Checksum            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type UDP []byte

// Offsets and length of UDP.
const (
	udpSrc      = 0
	udpDst      = 2
	udpLen      = 4
	udpChecksum = 6

	// UDPLen is the length of the header in bytes.
	UDPLen = 8
)

// Valid returns Runt if the header is not all there, or if the length field is
// shorter than it or longer than h. The checksum is the receiver's to verify.
func (h UDP) Valid() counter.Reason {
	if len(h) < UDPLen {
		return counter.Runt
	}
	if n := h.Len(); n < UDPLen || n > len(h) {
		return counter.Runt
	}
	return counter.None
}

// SrcPort returns the source port.
func (h UDP) SrcPort() uint16 { return be.Uint16(h[udpSrc:]) }

// DstPort returns the destination port.
func (h UDP) DstPort() uint16 { return be.Uint16(h[udpDst:]) }

// Len returns the datagram's length in bytes, header included.
func (h UDP) Len() int { return int(be.Uint16(h[udpLen:])) }

// Checksum returns the checksum field; 0 means that there is none.
func (h UDP) Checksum() uint16 { return be.Uint16(h[udpChecksum:]) }

// Payload returns what the length field covers behind the header.
func (h UDP) Payload() []byte { return h[UDPLen:h.Len()] }

// SetLen sets the datagram's length in bytes, header included.
func (h UDP) SetLen(n uint16) { be.PutUint16(h[udpLen:], n) }

// SetChecksum sets the checksum field.
func (h UDP) SetChecksum(sum uint16) { be.PutUint16(h[udpChecksum:], sum) }

// Init writes a header without checksum to the first UDPLen bytes of h. n is
// the datagram's length in bytes, header included.
func (h UDP) Init(src, dst uint16, n int) {
	h = h[:UDPLen]
	be.PutUint16(h[udpSrc:], src)
	be.PutUint16(h[udpDst:], dst)
	h.SetLen(uint16(n))
	h.SetChecksum(0)
}
