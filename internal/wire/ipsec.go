package wire

import "spigot/internal/counter"

// ESP is an ESP packet (RFC 4303, section 2), of which this package knows what
// is not encrypted:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|               Security Parameters Index (SPI)                 |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Sequence Number                          |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|             IV, payload, padding, trailer, ICV                |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ESP []byte

// Offsets and length of ESP.
const (
	espSPI = 0
	espSeq = 4

	// ESPLen is the length of SPI and sequence number in bytes.
	ESPLen = 8
)

// Valid returns BadESP if SPI and sequence number are not all there.
func (h ESP) Valid() counter.Reason {
	if len(h) < ESPLen {
		return counter.BadESP
	}
	return counter.None
}

// SPI returns the security parameters index.
func (h ESP) SPI() uint32 { return be.Uint32(h[espSPI:]) }

// Seq returns the sequence number, of an extended one the low 32 bits.
func (h ESP) Seq() uint32 { return be.Uint32(h[espSeq:]) }

// Put writes SPI and sequence number to the first ESPLen bytes of h.
func (h ESP) Put(spi, seq uint32) {
	_ = h[ESPLen-1]
	be.PutUint32(h[espSPI:], spi)
	be.PutUint32(h[espSeq:], seq)
}

// AH is an authentication header and what follows it (RFC 4302, section 2):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Header   |  Payload Len  |          RESERVED             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                 Security Parameters Index (SPI)               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Sequence Number Field                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                Integrity Check Value-ICV (variable)           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type AH []byte

// Offsets and length of AH.
const (
	ahNext = 0
	ahLen  = 1 // in words of 32 bits, minus 2
	ahSPI  = 4
	ahSeq  = 8

	// AHLen is the length of the fields in front of the ICV in bytes.
	AHLen = 12
)

// Valid returns Runt if the header that the length field announces is shorter
// than its fixed fields or longer than h.
func (h AH) Valid() counter.Reason {
	if len(h) < AHLen {
		return counter.Runt
	}
	if n := h.HeaderLen(); n < AHLen || n > len(h) {
		return counter.Runt
	}
	return counter.None
}

// NextHeader returns the protocol of what follows.
func (h AH) NextHeader() uint8 { return h[ahNext] }

// HeaderLen returns the header's length in bytes, ICV included.
func (h AH) HeaderLen() int { return (int(h[ahLen]) + 2) * 4 }

// SPI returns the security parameters index.
func (h AH) SPI() uint32 { return be.Uint32(h[ahSPI:]) }

// Seq returns the sequence number, of an extended one the low 32 bits.
func (h AH) Seq() uint32 { return be.Uint32(h[ahSeq:]) }

// ICV returns the integrity check value, with the padding that some algorithms
// need behind it; it aliases h.
func (h AH) ICV() []byte { return h[AHLen:h.HeaderLen()] }

// Payload returns what follows the header.
func (h AH) Payload() []byte { return h[h.HeaderLen():] }

// Put writes the fields in front of the ICV to the first AHLen bytes of h. n is
// the header's length in bytes, ICV included: a multiple of 4, at least AHLen.
func (h AH) Put(next uint8, n int, spi, seq uint32) {
	h = h[:AHLen]
	be.PutUint32(h, uint32(next)<<24|uint32(uint8(n/4-2))<<16)
	be.PutUint32(h[ahSPI:], spi)
	be.PutUint32(h[ahSeq:], seq)
}
