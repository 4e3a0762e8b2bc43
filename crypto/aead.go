package crypto

import "encoding/binary"

// The AEADs have the same shape: a nonce of 4 bytes of salt and the 8 bytes of
// IV that are in the packet, an ICV of 16 bytes, and SPI and sequence number as
// AAD (RFC 4106, sections 3 to 5; RFC 7634, section 2).
const (
	aeadIVLen  = 8
	aeadTagLen = 16
)

// sealAEAD takes the sequence number as IV (RFC 4106, section 3.1 and RFC
// 7634, section 2 name it as a way): it never repeats under one key, also when
// several workers seal under it.
func (e *Engine) sealAEAD(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		binary.BigEndian.PutUint64(j.Pkt[headerLen:], j.seq())
		nonce, aad := e.nonceAAD(j)
		text := j.Pkt[headerLen+aeadIVLen : len(j.Pkt)-j.Key.suite.cipher.tag]
		j.Key.aead.Seal(text[:0], nonce, text, aad)
		j.OK = true
	}
	clear(e.nonce[:])
}

func (e *Engine) openAEAD(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		nonce, aad := e.nonceAAD(j)
		text := j.Pkt[headerLen+aeadIVLen:]
		_, err := j.Key.aead.Open(text[:0], nonce, text, aad)
		j.OK = err == nil
	}
	clear(e.nonce[:])
}

// nonceAAD returns the packet's nonce and AAD: SPI | sequence number, or with
// ESN SPI | high half | low half (RFC 4106, section 5). They are good until
// the next call.
func (e *Engine) nonceAAD(j *Job) (nonce, aad []byte) {
	copy(e.nonce[:4], j.Key.salt[:])
	copy(e.nonce[4:], j.Pkt[headerLen:])
	if !j.ESN {
		return e.nonce[:], j.Pkt[:headerLen]
	}
	copy(e.aad[:4], j.Pkt)
	binary.BigEndian.PutUint32(e.aad[4:], j.SeqHi)
	copy(e.aad[8:], j.Pkt[4:headerLen])
	return e.nonce[:], e.aad[:]
}
