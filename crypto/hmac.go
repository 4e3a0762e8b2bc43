package crypto

import (
	"crypto/sha1"
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
	sha1x160
	numHashes
)

// digest is a hash whose state can be saved and restored, which package hash
// promises of the standard library's.
type digest interface {
	hash.Hash
	encoding.BinaryAppender
	encoding.BinaryUnmarshaler
}

var newHash = [numHashes]func() hash.Hash{
	sha2x256: sha256.New,
	sha2x384: sha512.New384,
	sha2x512: sha512.New,
	sha1x160: sha1.New,
}

// newDigests makes one digest of each hash, by hashID.
func newDigests() (all [numHashes]digest) {
	for id, f := range newHash {
		all[id] = f().(digest)
	}
	return all
}

// hmacKey is HMAC's two hashes after they have taken in the key's block, saved
// (RFC 2104, section 4). They are as secret as the key.
type hmacKey struct {
	inner, outer []byte
	states       *hmacStates // the same for the suite's kernel; nil if there is none
}

// newHMACKey takes a key no longer than the hash's block, as all of RFC 2404's and RFC 4868's are.
func (s *Suite) newHMACKey(key []byte) (k hmacKey, err error) {
	d := newHash[s.hash.hash]().(digest)
	block := make([]byte, d.BlockSize())
	defer clear(block)
	defer d.Reset()
	if k.inner, err = hashPad(d, block, key, 0x36); err != nil {
		return hmacKey{}, err
	}
	if k.outer, err = hashPad(d, block, key, 0x5c); err != nil {
		return hmacKey{}, err
	}
	if kernel := s.shaKernel(); kernel.run != nil {
		k.states = newHMACStates(kernel, &shas[s.hash.hash], key)
	}
	return k, nil
}

// shaKernel is for HMAC; it is empty if there is none, or for another algorithm.
func (s *Suite) shaKernel() *shaKernel {
	if !s.hash.hmac() {
		return &shaKernel{}
	}
	return &shaKernels[s.tier][s.hash.hash]
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
	wipe(k.states)
	*k = hmacKey{}
}

// signed is what of the packet the ICV is over: SPI through next header.
func (j *Job) signed() []byte { return j.Pkt[:len(j.Pkt)-j.Key.suite.hash.icv] }

// conclude writes the ICV, the head of sum, or tells in constant time whether
// the packet has it.
func (j *Job) conclude(sum []byte, seal bool) {
	n := j.Key.suite.hash.icv
	icv := j.Pkt[len(j.Pkt)-n:]
	if seal {
		copy(icv, sum[:n])
	}
	j.OK = seal || subtle.ConstantTimeCompare(icv, sum[:n]) == 1
}

// sign writes the ICV of each job of the group and sets its verdict.
func (e *Engine) sign(jobs []Job, group []uint8) { e.authenticate(jobs, group, true) }

// verify sets each job's verdict: whether its ICV is right.
func (e *Engine) verify(jobs []Job, group []uint8) { e.authenticate(jobs, group, false) }

func (e *Engine) authenticate(jobs []Job, group []uint8, seal bool) {
	s := jobs[group[0]].Key.suite
	if k := s.shaKernel(); k.run != nil && len(group) >= k.least {
		e.hmac.run(k, jobs, group, seal)
		return
	}
	for _, i := range group {
		if sum := e.sumOf(&jobs[i]); sum != nil {
			jobs[i].conclude(sum, seal)
		}
	}
	e.forgetMAC(s.hash)
}

// sumOf computes the integrity algorithm over the packet and, with ESN, the high
// half of the sequence number, which is not sent (RFC 4303, section 2.2.1). The
// result is e's until the next call; nil is a failure.
func (e *Engine) sumOf(j *Job) []byte {
	e.parts[0] = j.signed()
	text := e.parts[:1]
	if j.ESN {
		binary.BigEndian.PutUint32(e.seqHi[:], j.SeqHi)
		e.parts[1] = e.seqHi[:]
		text = e.parts[:]
	}
	return e.mac(j.Key, nil, text)
}

// hmacSum computes HMAC over the text on the standard library. The result is
// e's until the next call; nil is a failure.
func (e *Engine) hmacSum(k *Key, text [][]byte) []byte {
	d := e.digests[k.suite.hash.hash]
	if d.UnmarshalBinary(k.hmac.inner) != nil {
		return nil
	}
	for _, t := range text {
		d.Write(t)
	}
	sum := d.Sum(e.sum[:0])
	if d.UnmarshalBinary(k.hmac.outer) != nil {
		return nil
	}
	d.Write(sum)
	return d.Sum(e.sum[:0])
}

// forgetMAC takes what h's keys left in the Engine out of it, so that no key
// outlives its Zero there.
func (e *Engine) forgetMAC(h *hashSpec) {
	e.digests[h.hash].Reset()
	e.cbcMAC = cbcMAC{}
	e.forgetGCM()
}
