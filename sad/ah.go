package sad

import (
	"encoding/binary"

	"spigot/crypto"
)

const protoAH = 51

// suite finds p's algorithms.
func (p *Params) suite() (*crypto.Suite, error) {
	if p.Proto == protoAH {
		return crypto.LookupIntegrity(p.Integrity, len(p.AuthKey))
	}
	return crypto.Lookup(p.Encryption, p.Integrity, len(p.EncKey))
}

// CounterKey returns the key of p that must never meet the same IV twice: that
// of a cipher in counter mode, or of GMAC. It is p's; nil if there is none, or
// no such algorithm.
func (p *Params) CounterKey() []byte {
	s, err := p.suite()
	switch {
	case err != nil:
		return nil
	case p.Proto == protoAH && s.IVLen() > 0:
		return p.AuthKey
	case s.CounterMode():
		return p.EncKey
	}
	return nil
}

// ahLen returns the length of an authentication header under p with a suite's
// ICV. It is a multiple of 8 bytes over IPv6, and of 4 over IPv4 (RFC 4302,
// section 2.2), where Linux makes it one of 8 unless its SA says align4.
func ahLen(p *Params, s *crypto.Suite) int {
	n := ahFixedLen + s.IVLen() + s.ICVLen()
	if p.Dst.Is4() && p.Align4 {
		return roundUp(n, 4)
	}
	return roundUp(n, 8)
}

func roundUp(n, unit int) int { return (n + unit - 1) &^ (unit - 1) }

// Signed is one packet as AH authenticates it (RFC 4302, section 3.3.3).
type Signed struct {
	Head    []byte // IP header, extension headers and AH, with mutable fields and the ICV field zero
	Payload []byte // what follows AH
	Seq     uint64

	hi [4]byte // the high half of an extended sequence number, signed and not sent
}

// ahField returns of ah, a packet's authentication header, the IV that GMAC
// puts first in the ICV field (RFC 4543, section 4), and the ICV. The header is
// long enough.
func (sa *SA) ahField(ah []byte) (iv, icv []byte) {
	s := sa.Key.Suite()
	iv = ah[ahFixedLen : ahFixedLen+s.IVLen()]
	return iv, ah[ahFixedLen+len(iv) : ahFixedLen+len(iv)+s.ICVLen()]
}

// ICVField returns the part of ah, an authentication header of an SA of AH, that
// its ICV is computed with as zeros.
func (sa *SA) ICVField(ah []byte) []byte {
	s := sa.Key.Suite()
	return ah[ahFixedLen : ahFixedLen+s.IVLen()+s.ICVLen()]
}

// FitsAH says whether an authentication header of n bytes can be of the SA: over
// IPv4 both ways of padding are accepted.
func (sa *SA) FitsAH(n int) bool {
	s := sa.Key.Suite()
	icv := ahFixedLen + s.IVLen() + s.ICVLen()
	return n == roundUp(icv, 8) || n == roundUp(icv, 4) && sa.Dst.Is4()
}

// Sign writes the ICV field of ah, the authentication header in p's packet. It
// is false if the SA's key is gone.
func (sa *Outbound) Sign(e *Engine, ah []byte, p *Signed) bool {
	iv, icv := sa.ahField(ah)
	if len(iv) == 8 {
		binary.BigEndian.PutUint64(iv, p.Seq)
	}
	return e.Sum(sa.Key, icv, iv, p.Head, p.Payload, p.high(sa.ESN))
}

// Verify says whether the ICV in ah, the authentication header in p's packet,
// is right.
func (sa *Inbound) Verify(e *Engine, ah []byte, p *Signed) bool {
	iv, icv := sa.ahField(ah)
	return e.Verify(sa.Key, icv, iv, p.Head, p.Payload, p.high(sa.ESN))
}

// high returns what is signed behind the packet: nothing without ESN.
func (p *Signed) high(esn bool) []byte {
	if !esn {
		return nil
	}
	binary.BigEndian.PutUint32(p.hi[:], uint32(p.Seq>>32))
	return p.hi[:]
}
