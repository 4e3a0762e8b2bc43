package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// ccmSalt is how many bytes of a CCM key are the nonce's head (RFC 4309, section 4).
const ccmSalt = 3

// sealCCM signs the text with a CBC-MAC, then encrypts both by counter mode
// (RFC 4309; NIST SP 800-38C).
func (e *Engine) sealCCM(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		if j.Key.suite.cipher.iv > 0 {
			j.putIV()
		}
		nonce, aad := e.nonceAAD(j)
		copy(j.icv(), e.tagCCM(j.Key, nonce, aad, j.text(), len(j.icv())))
		e.cryptCCM(j.Key, nonce, j.text())
		j.OK = true
	}
	e.forgetCCM()
}

// openCCM has to decrypt before it can tell. What it refuses it encrypts again.
func (e *Engine) openCCM(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		nonce, aad := e.nonceAAD(j)
		e.cryptCCM(j.Key, nonce, j.text())
		tag := e.tagCCM(j.Key, nonce, aad, j.text(), len(j.icv()))
		if j.OK = subtle.ConstantTimeCompare(j.icv(), tag) == 1; !j.OK {
			e.cryptCCM(j.Key, nonce, j.text())
		}
	}
	e.forgetCCM()
}

// tagCCM is the tag of n bytes of nonce, AAD and text. It is e's until the next
// call. The nonce has 7 to 13 bytes, the AAD less than 2^16-2^8.
func (e *Engine) tagCCM(k *Key, nonce, aad, text []byte, n int) []byte {
	m := &e.cbcMAC
	*m = cbcMAC{}
	m.ccmStart(k.macBlock, nonce, aad, len(text), n)
	m.write(k.macBlock, text)
	m.fill()
	m.absorb(k.macBlock)
	e.ccmCounter(nonce)
	copy(e.sum[:], m.chain[:])
	e.xorStream(k, e.sum[:aes.BlockSize])
	return e.sum[:n]
}

// ccmStart takes in the block that tells all lengths, and the AAD with its own
// in front (SP 800-38C, appendix A.2).
func (m *cbcMAC) ccmStart(b cipher.Block, nonce, aad []byte, text, tag int) {
	binary.BigEndian.PutUint64(m.last[8:], uint64(text))
	copy(m.last[1:], nonce)
	m.last[0] = byte((tag-2)/2<<3 | (15 - len(nonce) - 1))
	m.n = aes.BlockSize
	if len(aad) > 0 {
		m.last[0] |= 0x40
		m.absorb(b)
		binary.BigEndian.PutUint16(m.last[:], uint16(len(aad)))
		m.n = 2
		m.write(b, aad)
		m.fill()
	}
}

// fill makes the block that waits a whole one.
func (m *cbcMAC) fill() {
	clear(m.last[m.n:])
	m.n = aes.BlockSize
}

// cryptCCM encrypts or decrypts the text, which is the same.
func (e *Engine) cryptCCM(k *Key, nonce, text []byte) {
	e.ccmCounter(nonce)
	e.counter[aes.BlockSize-1] = 1
	e.cryptCTR(k, text)
}

// ccmCounter makes counter block 0 (SP 800-38C, appendix A.3).
func (e *Engine) ccmCounter(nonce []byte) {
	clear(e.counter[:])
	e.counter[0] = byte(15 - len(nonce) - 1)
	copy(e.counter[1:], nonce)
}

// forgetCCM takes what the last packets' keys left in e out of it.
func (e *Engine) forgetCCM() {
	e.cbcMAC = cbcMAC{}
	e.forgetCTR()
	clear(e.nonce[:])
}
