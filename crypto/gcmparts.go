package crypto

import (
	"crypto/subtle"
	"encoding/binary"
)

// AES-GCM that the stitched kernels do not have: an ICV of 8 or 12 bytes (RFC
// 4106, section 6), or an IV that is not sent (RFC 8750), so that header and IV
// are no block. Stream and hash are two passes here.

// sealGCMParts seals with the head of the tag as ICV.
func (e *Engine) sealGCMParts(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		if j.Key.suite.cipher.iv > 0 {
			j.putIV()
		}
		nonce, aad := e.nonceAAD(j)
		if j.Key.gcm == nil {
			e.text = j.Key.aead.Seal(e.text[:0], nonce, j.text(), aad)
			copy(j.Pkt[j.Key.suite.textAt():], e.text) // the ICV comes right behind the text
		} else {
			e.cryptGCM(j.Key, nonce, j.text())
			copy(j.icv(), e.tagGCM(j.Key, nonce, aad, j.text()))
		}
		j.OK = true
	}
	e.forgetGCM()
}

// openGCMParts decrypts only what is authentic.
func (e *Engine) openGCMParts(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		nonce, aad := e.nonceAAD(j)
		if j.Key.gcm == nil {
			j.OK = e.openGCMStd(j, nonce, aad)
			continue
		}
		j.OK = subtle.ConstantTimeCompare(j.icv(), e.tagGCM(j.Key, nonce, aad, j.text())[:len(j.icv())]) == 1
		if j.OK {
			e.cryptGCM(j.Key, nonce, j.text())
		}
	}
	e.forgetGCM()
}

// cryptGCM encrypts or decrypts the text, which is the same.
func (e *Engine) cryptGCM(k *Key, nonce, text []byte) {
	clear(e.counter[:4]) // the salt is in the round keys
	copy(e.counter[4:], nonce[4:])
	binary.BigEndian.PutUint32(e.counter[12:], 2)
	e.cryptCTR(k, text)
}

// tagGCM computes the tag over the ciphertext. It is e's until the next call.
func (e *Engine) tagGCM(k *Key, nonce, aad, text []byte) []byte {
	e.beginGCM(k, nonce[4:])
	e.ghash.write(aad)
	e.ghash.flush()
	e.ghash.write(text)
	e.ghash.lengths(len(aad), len(text))
	return e.endGCM()
}

// openGCMStd opens on the standard library, which has no tag of 8 bytes. It has
// seal, which decrypts as well as it encrypts and makes the tag of what comes
// out: done twice, that is the right tag of the packet.
func (e *Engine) openGCMStd(j *Job, nonce, aad []byte) bool {
	text, icv := j.text(), j.icv()
	n := len(text)
	if len(icv) == aeadTagLen {
		_, err := j.Key.aead.Open(text[:0], nonce, j.Pkt[j.Key.suite.textAt():], aad)
		return err == nil
	}
	e.text = j.Key.aead.Seal(e.text[:0], nonce, text, aad)
	e.text = j.Key.aead.Seal(e.text, nonce, e.text[:n], aad)
	tag := e.text[n+aeadTagLen+n:]
	if subtle.ConstantTimeCompare(icv, tag[:len(icv)]) != 1 {
		return false
	}
	copy(text, e.text)
	return true
}
