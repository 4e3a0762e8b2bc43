package crypto

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
)

// gmacSalt is how many bytes of a GMAC key are the nonce's head (RFC 4543, section 3.1).
const gmacSalt = 4

// sealGMAC authenticates only: header, IV and payload (RFC 4543, section 3).
func (e *Engine) sealGMAC(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		j.putIV()
		copy(j.icv(), e.gmacOf(j))
		j.OK = true
	}
	e.forgetGCM()
}

func (e *Engine) openGMAC(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		j.OK = subtle.ConstantTimeCompare(j.icv(), e.gmacOf(j)) == 1
	}
	e.forgetGCM()
}

// gmacOf computes the packet's ICV: over all before it, with the high half of the
// sequence number in its place. The result is e's until the next call.
func (e *Engine) gmacOf(j *Job) []byte {
	nonce, aad := e.nonceAAD(j)
	e.parts[0], e.parts[1] = aad, j.Pkt[headerLen:len(j.Pkt)-aeadTagLen]
	return e.gmac(j.Key, nonce[gmacSalt:], e.parts[:])
}

// gmac computes AES-GMAC over the text: GCM of nothing, with the text as AAD
// (RFC 4543, section 3). The result is e's until the next call.
func (e *Engine) gmac(k *Key, iv []byte, text [][]byte) []byte {
	if k.gcm == nil {
		return e.gmacStd(k, iv, text)
	}
	e.beginGCM(k, iv)
	n := 0
	for _, t := range text {
		e.ghash.write(t)
		n += len(t)
	}
	e.ghash.lengths(n, 0)
	return e.endGCM()
}

// gmacStd is gmac on the standard library, which takes AAD in one piece.
func (e *Engine) gmacStd(k *Key, iv []byte, text [][]byte) []byte {
	copy(e.nonce[:gmacSalt], k.salt[:])
	copy(e.nonce[gmacSalt:], iv)
	e.text = e.text[:0]
	for _, t := range text {
		e.text = append(e.text, t...)
	}
	return k.aead.Seal(e.sum[:0], e.nonce[:], nil, e.text)
}

// beginGCM begins a packet's GCM under a key of the kernels: it makes J0, whose
// encryption masks the sum (SP 800-38D, section 7.1). Round keys have the salt
// in them, so it is not in e.counter.
func (e *Engine) beginGCM(k *Key, iv []byte) {
	e.ghash = ghash{kernel: ghashKernels[k.suite.tier], key: k.gcm}
	clear(e.counter[:4])
	copy(e.counter[4:12], iv)
	binary.BigEndian.PutUint32(e.counter[12:], 1)
	clear(e.sum[:aes.BlockSize])
	e.xorStream(k, e.sum[:aes.BlockSize])
}

// endGCM returns the tag, which is e's until the next call.
func (e *Engine) endGCM() []byte {
	subtle.XORBytes(e.sum[:], e.sum[:aes.BlockSize], e.ghash.sum[:])
	return e.sum[:aes.BlockSize]
}

// forgetGCM takes what the last packets' keys left in e out of it.
func (e *Engine) forgetGCM() {
	e.ghash = ghash{}
	e.forgetCTR()
	clear(e.nonce[:])
	clear(e.parts[:])
}
