package crypto

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"hash"
)

// hashID names a hash function and indexes an Engine's digests.
type hashID uint8

const (
	sha2x256 hashID = iota
	sha2x384
	sha2x512
	numHashes
)

// digest is a hash whose state can be saved and restored, which package hash
// promises of the standard library's.
type digest interface {
	hash.Hash
	encoding.BinaryAppender
	encoding.BinaryUnmarshaler
}

// newDigests makes one digest of each hash, by hashID.
func newDigests() [numHashes]digest {
	return [numHashes]digest{
		sha2x256: sha256.New().(digest),
		sha2x384: sha512.New384().(digest),
		sha2x512: sha512.New().(digest),
	}
}

// hmacKey is HMAC's two hashes after they have taken in the key's block, saved
// (RFC 2104, section 4). They are as secret as the key.
type hmacKey struct {
	inner, outer []byte
}

// newHMACKey takes a key no longer than the hash's block, as all of RFC 4868's are.
func newHMACKey(id hashID, key []byte) (k hmacKey, err error) {
	d := newDigests()[id]
	block := make([]byte, d.BlockSize())
	defer clear(block)
	defer d.Reset()
	if k.inner, err = hashPad(d, block, key, 0x36); err != nil {
		return hmacKey{}, err
	}
	k.outer, err = hashPad(d, block, key, 0x5c)
	return k, err
}

// hashPad returns d's state after the block key XOR pad.
func hashPad(d digest, block, key []byte, pad byte) ([]byte, error) {
	for i := range block {
		block[i] = pad
	}
	subtle.XORBytes(block, block, key)
	d.Reset()
	d.Write(block)
	return d.AppendBinary(make([]byte, 0, 256)) // room for any, so that no copy stays behind
}

func (k *hmacKey) zero() {
	clear(k.inner)
	clear(k.outer)
	k.inner, k.outer = nil, nil
}

// icv computes the job's ICV: HMAC over SPI through next header and, with ESN,
// the high half of the sequence number, which is not sent (RFC 4303, section
// 2.2.1). The result is e's until the next call; nil is a failure.
func (e *Engine) icv(j *Job) []byte {
	h := j.Key.suite.hash
	d := e.digests[h.hash]
	if d.UnmarshalBinary(j.Key.hmac.inner) != nil {
		return nil
	}
	d.Write(j.Pkt[:len(j.Pkt)-h.icv])
	if j.ESN {
		binary.BigEndian.PutUint32(e.seqHi[:], j.SeqHi)
		d.Write(e.seqHi[:])
	}
	sum := d.Sum(e.sum[:0])
	if d.UnmarshalBinary(j.Key.hmac.outer) != nil {
		return nil
	}
	d.Write(sum)
	return d.Sum(e.sum[:0])[:h.icv]
}

// sign writes the ICV of each job of the group and sets its verdict.
func (e *Engine) sign(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		icv := e.icv(j)
		j.OK = icv != nil && copy(j.Pkt[len(j.Pkt)-len(icv):], icv) == len(icv)
	}
	e.forgetHMAC()
}

// verify tells in each job's verdict, in constant time, whether its ICV is right.
func (e *Engine) verify(jobs []Job, group []uint8) {
	for _, i := range group {
		j := &jobs[i]
		icv := e.icv(j)
		j.OK = icv != nil && subtle.ConstantTimeCompare(j.Pkt[len(j.Pkt)-len(icv):], icv) == 1
	}
	e.forgetHMAC()
}

// forgetHMAC takes what the last packets' keys left in the digests out of
// them, so that no key outlives its Zero in an Engine.
func (e *Engine) forgetHMAC() {
	for _, d := range e.digests {
		d.Reset()
	}
	clear(e.sum[:])
}
