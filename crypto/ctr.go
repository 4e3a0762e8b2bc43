package crypto

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
)

// sealCTR takes the sequence number as IV: it never repeats under one key, also
// when several workers seal under it.
func (e *Engine) sealCTR(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		j.putIV()
		e.cryptESP(j)
	}
	e.forgetCTR()
	e.sign(jobs, group)
}

func (e *Engine) openCTR(jobs []Job, group []uint8) {
	e.verify(jobs, group)
	for _, i := range group {
		if j := &jobs[i]; j.OK {
			e.cryptESP(j)
		}
	}
	e.forgetCTR()
}

// cryptESP encrypts or decrypts, which is the same. The counter block is nonce,
// IV and the block's number from 1 on (RFC 3686, section 4).
func (e *Engine) cryptESP(j *Job) {
	copy(e.counter[:4], j.Key.salt[:])
	copy(e.counter[4:12], j.Pkt[headerLen:])
	binary.BigEndian.PutUint32(e.counter[12:], 1)
	e.cryptCTR(j.Key, j.text())
}

// cryptCTR encrypts or decrypts text by counter mode from the block e.counter on.
func (e *Engine) cryptCTR(k *Key, text []byte) {
	n := len(text) &^ (aes.BlockSize - 1)
	first := e.counter // xorStream may change it
	e.xorStream(k, text[:n])
	if n < len(text) {
		e.counter = first
		binary.BigEndian.PutUint32(e.counter[12:], binary.BigEndian.Uint32(first[12:])+uint32(n/aes.BlockSize))
		clear(e.stream[:])
		e.xorStream(k, e.stream[:])
		subtle.XORBytes(text[n:], text[n:], e.stream[:])
	}
}

// xorStream XORs whole blocks with the key's stream from e.counter on, which
// it may change.
func (e *Engine) xorStream(k *Key, text []byte) {
	if kernel := k.suite.aesKernel(); kernel.ctr != nil {
		schedule, rounds := k.schedule()
		kernel.ctr(schedule, rounds, &e.counter, text)
		return
	}
	for n := binary.BigEndian.Uint32(e.counter[12:]); len(text) > 0; text = text[aes.BlockSize:] {
		binary.BigEndian.PutUint32(e.counter[12:], n)
		k.block.Encrypt(e.block[:], e.counter[:])
		xorBlock(text, e.block[:])
		n++
	}
}

// schedule is the round keys that the kernels encrypt with.
func (k *Key) schedule() (keys *aesSchedule, rounds int) {
	if k.gcm != nil {
		return &k.gcm.rounds, int(k.rounds)
	}
	return &k.aes.encrypt, k.aes.rounds
}

func (e *Engine) forgetCTR() {
	clear(e.counter[:])
	clear(e.stream[:])
	clear(e.block[:])
	clear(e.sum[:])
}
