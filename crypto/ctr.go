package crypto

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
)

// ctrIVLen is the IV's length in bytes (RFC 3686, section 3.1).
const ctrIVLen = 8

// sealCTR takes the sequence number as IV: it never repeats under one key, also
// when several workers seal under it.
func (e *Engine) sealCTR(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		binary.BigEndian.PutUint64(j.Pkt[headerLen:], j.seq())
		e.cryptCTR(j)
	}
	e.forgetCTR()
	e.sign(jobs, group)
}

func (e *Engine) openCTR(jobs []Job, group []uint8) {
	e.verify(jobs, group)
	for _, i := range group {
		if j := &jobs[i]; j.OK {
			e.cryptCTR(j)
		}
	}
	e.forgetCTR()
}

// cryptCTR encrypts or decrypts, which is the same. The counter block is nonce,
// IV and the block's number from 1 on (RFC 3686, section 4).
func (e *Engine) cryptCTR(j *Job) {
	copy(e.counter[:4], j.Key.salt[:])
	copy(e.counter[4:12], j.Pkt[headerLen:])
	binary.BigEndian.PutUint32(e.counter[12:], 1)
	text := j.Pkt[headerLen+ctrIVLen : len(j.Pkt)-j.Key.suite.hash.icv]
	n := len(text) &^ (aes.BlockSize - 1)
	e.xorStream(j.Key, text[:n])
	if n < len(text) {
		binary.BigEndian.PutUint32(e.counter[12:], 1+uint32(n/aes.BlockSize))
		clear(e.stream[:])
		e.xorStream(j.Key, e.stream[:])
		subtle.XORBytes(text[n:], text[n:], e.stream[:])
	}
}

// xorStream XORs whole blocks with the key's stream from e.counter on, which
// it may change.
func (e *Engine) xorStream(k *Key, text []byte) {
	if kernel := k.suite.aesKernel(); kernel.ctr != nil {
		kernel.ctr(&k.aes.encrypt, k.aes.rounds, &e.counter, text)
		return
	}
	for n := binary.BigEndian.Uint32(e.counter[12:]); len(text) > 0; text = text[aes.BlockSize:] {
		binary.BigEndian.PutUint32(e.counter[12:], n)
		k.block.Encrypt(e.sum[:aes.BlockSize], e.counter[:])
		xorBlock(text, e.sum[:])
		n++
	}
}

func (e *Engine) forgetCTR() {
	clear(e.counter[:])
	clear(e.stream[:])
	clear(e.sum[:])
}
