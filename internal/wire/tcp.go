package wire

import "math/bits"

// TCP is a TCP segment (RFC 9293, section 3.1), as far as a gateway looks at it.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	|                        Sequence Number                        |
//	|                    Acknowledgment Number                      |
//	|  Data |       |C|E|U|A|P|R|S|F|                               |
//	| Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
//	|           Checksum            |         Urgent Pointer        |
//	|                           [Options]                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type TCP []byte

// Offsets, lengths and numbers of TCP.
const (
	tcpDataOffset = 12
	tcpFlags      = 13
	tcpChecksum   = 16

	// TCPLen is the length of a header without options in bytes.
	TCPLen = 20

	tcpSYN       = 2
	tcpOptEnd    = 0
	tcpOptNop    = 1
	tcpOptMSS    = 2
	tcpOptMSSLen = 4
)

// SYN says whether the header is all there and has the flag SYN.
func (h TCP) SYN() bool {
	return len(h) >= TCPLen && h[tcpFlags]&tcpSYN != 0 && h.headerLen() >= TCPLen && h.headerLen() <= len(h)
}

func (h TCP) headerLen() int { return int(h[tcpDataOffset]>>4) * 4 }

// ClampMSS lowers the maximum segment size that a segment for which SYN is true
// announces to most, and mends the checksum. It says whether it did. A segment
// without the option is left alone: it stands for the least size already (RFC
// 9293, section 3.7.1).
func (h TCP) ClampMSS(most uint16) bool {
	end := h.headerLen()
	for at := TCPLen; at < end && h[at] != tcpOptEnd; {
		if h[at] == tcpOptNop {
			at++
			continue
		}
		if at+1 >= end || h[at+1] < 2 || at+int(h[at+1]) > end {
			return false
		}
		if h[at] == tcpOptMSS && h[at+1] == tcpOptMSSLen {
			return h.lower(at+2, most)
		}
		at += int(h[at+1])
	}
	return false
}

// lower lowers the number at off to most.
func (h TCP) lower(off int, most uint16) bool {
	old, now := be.Uint16(h[off:]), most
	if old <= now {
		return false
	}
	be.PutUint16(h[off:], now)
	if off%2 != 0 { // its bytes lie in two words of the sum
		old, now = bits.ReverseBytes16(old), bits.ReverseBytes16(now)
	}
	be.PutUint16(h[tcpChecksum:], adjust(be.Uint16(h[tcpChecksum:]), old, now))
	return true
}
