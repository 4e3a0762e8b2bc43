package crypto

import (
	"crypto/aes"
	"encoding/binary"
)

// sealCBC encrypts, then authenticates header, IV and ciphertext.
//
// CBC's IV must be unpredictable, unlike a counter mode's. It is the sequence
// number encrypted under the packet's key: the first method of NIST SP
// 800-38A, appendix C. That needs no randomness, and does not repeat.
func (e *Engine) sealCBC(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		iv := j.Pkt[headerLen : headerLen+aes.BlockSize]
		binary.BigEndian.PutUint64(iv, 0)
		binary.BigEndian.PutUint64(iv[8:], j.seq())
		b := j.Key.block
		b.Encrypt(iv, iv)
		text := j.Pkt[headerLen : len(j.Pkt)-j.Key.suite.hash.icv] // the IV is block 0
		for at := aes.BlockSize; at < len(text); at += aes.BlockSize {
			block := text[at : at+aes.BlockSize]
			xorBlock(block, text[at-aes.BlockSize:])
			b.Encrypt(block, block)
		}
		j.OK = e.signHMAC(j)
	}
	e.forgetHMAC()
}

// openCBC decrypts only what is authentic, so that padding cannot be probed.
// From the last block to the first, the ciphertext that a block was chained to
// is still there.
func (e *Engine) openCBC(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		if j.OK = e.verifyHMAC(j); !j.OK {
			continue
		}
		b := j.Key.block
		text := j.Pkt[headerLen : len(j.Pkt)-j.Key.suite.hash.icv]
		for at := len(text) - aes.BlockSize; at > 0; at -= aes.BlockSize {
			block := text[at : at+aes.BlockSize]
			b.Decrypt(block, block)
			xorBlock(block, text[at-aes.BlockSize:])
		}
	}
	e.forgetHMAC()
}

// xorBlock sets x to x XOR y in its first 16 bytes.
func xorBlock(x, y []byte) {
	le := binary.LittleEndian
	a := le.Uint64(x) ^ le.Uint64(y)
	b := le.Uint64(x[8:]) ^ le.Uint64(y[8:])
	le.PutUint64(x, a)
	le.PutUint64(x[8:], b)
}

// sealNull authenticates only (RFC 2410).
func (e *Engine) sealNull(jobs []Job, group []uint8) {
	for _, i := range group {
		jobs[i].OK = e.signHMAC(&jobs[i])
	}
	e.forgetHMAC()
}

func (e *Engine) openNull(jobs []Job, group []uint8) {
	for _, i := range group {
		jobs[i].OK = e.verifyHMAC(&jobs[i])
	}
	e.forgetHMAC()
}
