package crypto

import (
	"crypto/aes"
	"encoding/binary"
)

// sealCBC encrypts, then authenticates header, IV and ciphertext.
//
// CBC's IV must be unpredictable, unlike a counter mode's. It is the sequence
// number encrypted under the packet's key: the first method of NIST SP
// 800-38A, appendix C. That needs no randomness, and does not repeat. So the
// IV is a block like the others, chained to zero.
func (e *Engine) sealCBC(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		iv := j.Pkt[headerLen : headerLen+aes.BlockSize]
		binary.BigEndian.PutUint64(iv, 0)
		binary.BigEndian.PutUint64(iv[8:], j.seq())
	}
	if k := jobs[group[0]].Key.suite.aesKernel(); k.encrypt != nil {
		e.cbc.encrypt(k, jobs, group)
	} else {
		encryptCBC(jobs, group)
	}
	e.sign(jobs, group)
}

// openCBC decrypts only what is authentic, so that padding cannot be probed.
func (e *Engine) openCBC(jobs []Job, group []uint8) {
	e.verify(jobs, group)
	if k := jobs[group[0]].Key.suite.aesKernel(); k.decrypt != nil {
		for _, i := range group {
			if j := &jobs[i]; j.OK {
				k.decrypt(&j.Key.aes.decrypt, j.Key.aes.rounds, j.cbcText())
			}
		}
	} else {
		decryptCBC(jobs, group)
	}
}

// cbcText is the packet's IV and ciphertext, whole blocks.
func (j *Job) cbcText() []byte { return j.Pkt[headerLen : len(j.Pkt)-j.Key.suite.hash.icv] }

// encryptCBC encrypts each packet, its IV included, on the standard library.
func encryptCBC(jobs []Job, group []uint8) {
	for _, i := range group {
		b, text := jobs[i].Key.block, jobs[i].cbcText()
		b.Encrypt(text, text)
		for at := aes.BlockSize; at < len(text); at += aes.BlockSize {
			block := text[at : at+aes.BlockSize]
			xorBlock(block, text[at-aes.BlockSize:])
			b.Encrypt(block, block)
		}
	}
}

// decryptCBC decrypts the authentic packets on the standard library. From the
// last block to the first, the ciphertext that a block was chained to is still
// there.
func decryptCBC(jobs []Job, group []uint8) {
	for _, i := range group {
		if !jobs[i].OK {
			continue
		}
		b, text := jobs[i].Key.block, jobs[i].cbcText()
		for at := len(text) - aes.BlockSize; at > 0; at -= aes.BlockSize {
			block := text[at : at+aes.BlockSize]
			b.Decrypt(block, block)
			xorBlock(block, text[at-aes.BlockSize:])
		}
	}
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
func (e *Engine) sealNull(jobs []Job, group []uint8) { e.sign(jobs, group) }

func (e *Engine) openNull(jobs []Job, group []uint8) { e.verify(jobs, group) }
