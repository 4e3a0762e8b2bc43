package crypto

import "encoding/binary"

// Most AEADs have the same shape: a nonce of 4 bytes of salt and the 8 bytes of
// IV that are in the packet, an ICV of 16 bytes, and SPI and sequence number as
// AAD (RFC 4106, sections 3 to 5; RFC 7634, section 2). CCM's salt has 3 bytes.
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
		if j.Key.suite.cipher.iv > 0 {
			j.putIV()
		}
		nonce, aad := e.nonceAAD(j)
		text := j.text()
		j.Key.aead.Seal(text[:0], nonce, text, aad)
		j.OK = true
	}
	clear(e.nonce[:])
}

func (e *Engine) openAEAD(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		nonce, aad := e.nonceAAD(j)
		text := j.Pkt[j.Key.suite.textAt():]
		_, err := j.Key.aead.Open(text[:0], nonce, text, aad)
		j.OK = err == nil
	}
	clear(e.nonce[:])
}

// nonceAAD returns the packet's nonce, of salt and IV, and its AAD: SPI |
// sequence number, or with ESN SPI | high half | low half (RFC 4106, section 5).
// An IV that is not sent is the sequence number, with zeros for the high half
// where there is none (RFC 8750, section 4). Both are good until the next call.
func (e *Engine) nonceAAD(j *Job) (nonce, aad []byte) {
	c := j.Key.suite.cipher
	nonce = e.nonce[:c.salt+aeadIVLen]
	copy(nonce, j.Key.salt[:c.salt])
	if c.iv > 0 {
		copy(nonce[c.salt:], j.Pkt[headerLen:])
	} else {
		binary.BigEndian.PutUint64(nonce[c.salt:], j.seq())
	}
	if !j.ESN {
		return nonce, j.Pkt[:headerLen]
	}
	copy(e.aad[:4], j.Pkt)
	binary.BigEndian.PutUint32(e.aad[4:], j.SeqHi)
	copy(e.aad[8:], j.Pkt[4:headerLen])
	return nonce, e.aad[:]
}
