package sad

import "spigot/crypto"

// What ESP has in every packet (RFC 4303, section 2): SPI and sequence number
// in front, pad length and next header behind. Of AH (RFC 4302, section 2), all
// but the ICV.
const (
	espHeaderLen  = 8
	espTrailerLen = 2
	ahFixedLen    = 12
)

// Geometry is what ESP or AH adds to a packet, in bytes.
type Geometry struct {
	Outer   uint8 // the outer IP header; 0 in transport mode
	UDP     uint8 // the UDP header in front of ESP (RFC 3948); 0 without
	Head    uint8 // ESP: SPI, sequence number and IV; AH: all of it, with ICV and padding
	ICV     uint8 // behind the payload; 0 of AH
	Align   uint8 // payload, padding and trailer fill a multiple of it; a power of two, of ESP 4 or above
	Trailer uint8 // pad length and next header; 0 of AH
}

func geometry(p *Params, s *crypto.Suite) Geometry {
	// ESP's trailer ends on a 4-byte boundary whatever the cipher (RFC 4303, 2.4).
	g := Geometry{
		Head: espHeaderLen + uint8(s.IVLen()), ICV: uint8(s.ICVLen()),
		Align: uint8(max(s.Align(), 4)), Trailer: espTrailerLen,
	}
	if p.Proto == protoAH {
		g = Geometry{Head: uint8(ahLen(p, s)), Align: 1}
	}
	if p.Tunnel {
		g.Outer = ipv6HeaderLen
		if p.Dst.Is4() {
			g.Outer = ipv4HeaderLen
		}
	}
	if p.Encap.Type == EncapUDP {
		g.UDP = udpHeaderLen
	}
	return g
}

// Prefix returns how many bytes lie in front of the payload: outer header, UDP
// header, and ESP header with IV, or AH.
func (g Geometry) Prefix() int { return int(g.Outer) + int(g.UDP) + int(g.Head) }

// Pad returns how much padding follows a payload of n bytes, without pad
// length and next header (RFC 4303, section 2.4).
func (g Geometry) Pad(n int) int { return -(n + int(g.Trailer)) & (int(g.Align) - 1) }

// Trail writes ESP's padding, pad length and next header behind a payload of n bytes
// (RFC 4303, sections 2.4 to 2.6). b starts there and has room for them.
func (g Geometry) Trail(b []byte, n int, next byte) {
	pad := g.Pad(n)
	for i := range b[:pad] {
		b[i] = byte(i + 1)
	}
	b[pad] = byte(pad)
	b[pad+1] = next
}

// Sealed returns the length of the outer IP packet that carries a payload of
// n bytes. In transport mode the IP header, which the packet brings along, is
// not in it.
func (g Geometry) Sealed(n int) int {
	return g.Prefix() + n + g.Pad(n) + int(g.Trailer) + int(g.ICV)
}

// MaxInner returns the largest payload whose Sealed length is at most mtu, or
// 0 if there is none.
func (g Geometry) MaxInner(mtu int) int {
	room := mtu - g.Prefix() - int(g.ICV)
	return max(0, room&-int(g.Align)-int(g.Trailer))
}
