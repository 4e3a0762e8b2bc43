package crypto

import (
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
)

// hashSpec is an integrity algorithm as its RFC describes it: HMAC over hash,
// unless it is one of the others.
type hashSpec struct {
	name string
	key  int // bytes, salt included
	iv   int // bytes that the receiver must be told; 0: none
	icv  int // bytes sent, the head of the output

	hash   hashID
	cbcMAC func(key []byte) (cipher.Block, *cbcMACKey, error) // of a MAC made of CBC: expands a key
	gmac   bool
	legacy bool
}

// The integrity algorithms. The first espHashes are also offered with a cipher.
var hashes = [...]hashSpec{
	// RFC 4868: the key is as long as the hash's output, the ICV half of it.
	{name: "hmac-sha2-256-128", key: 32, icv: 16, hash: sha2x256},
	{name: "hmac-sha2-384-192", key: 48, icv: 24, hash: sha2x384},
	{name: "hmac-sha2-512-256", key: 64, icv: 32, hash: sha2x512},

	{name: "hmac-sha1-96", key: 20, icv: 12, hash: sha1x160, legacy: true},             // RFC 2404
	{name: "aes-xcbc-96", key: 16, icv: 12, cbcMAC: newXCBC},                           // RFC 3566
	{name: "aes-cmac-96", key: 16, icv: 12, cbcMAC: newCMAC},                           // RFC 4494
	{name: "aes-gmac", key: 16 + gmacSalt, iv: aeadIVLen, icv: aeadTagLen, gmac: true}, // RFC 4543
	{name: "aes-gmac", key: 24 + gmacSalt, iv: aeadIVLen, icv: aeadTagLen, gmac: true},
	{name: "aes-gmac", key: 32 + gmacSalt, iv: aeadIVLen, icv: aeadTagLen, gmac: true},
}

// GMAC has an IV to send, for which ESP's NULL has no room: see null-aes-gmac.
const espHashes = 6

// hmac tells whether h is HMAC.
func (h *hashSpec) hmac() bool { return h.cbcMAC == nil && !h.gmac }

// alone is the cipher of a suite that is an integrity algorithm alone. It has
// no packets of ESP to run.
var alone = cipherSpec{align: 1, seal: (*Engine).refuse, open: (*Engine).refuse}

func (e *Engine) refuse([]Job, []uint8) {}

var integrities = makeIntegrities()

func makeIntegrities() []*Suite {
	tier, _ := ChosenTier()
	var all []*Suite
	for i := range hashes {
		s := newSuite(&alone, 0, &hashes[i], tier)
		s.name = hashes[i].name
		if hashes[i].gmac {
			s.name = fmt.Sprintf("%s-%d", s.name, 8*(hashes[i].key-gmacSalt))
		}
		all = append(all, s)
	}
	return all
}

// LookupIntegrity finds an integrity algorithm by itself, as AH takes it (RFC
// 4302), by its name and the length of its key in bytes, which counts GMAC's
// salt. Its keys are made by NewKey(nil, key); Engine's Sum and Verify run them,
// while Seal and Open refuse them. Its errors wrap ErrAlgorithm or ErrKeyLength.
func LookupIntegrity(name string, keyLen int) (*Suite, error) {
	var lengths []string
	for i := range hashes {
		switch h := &hashes[i]; {
		case h.name != name:
		case h.key == keyLen:
			return integrities[i], nil
		default:
			lengths = append(lengths, fmt.Sprint(h.key))
		}
	}
	if lengths == nil {
		return nil, fmt.Errorf("%w: integrity %q; there are %s", ErrAlgorithm, name, hashNames(len(hashes)))
	}
	return nil, fmt.Errorf("%w: %s with a key of %d bytes; it takes %s",
		ErrKeyLength, name, keyLen, strings.Join(lengths, ", "))
}

// Integrities lists what LookupIntegrity finds. The slice is the caller's.
func Integrities() []*Suite { return slices.Clone(integrities) }

// Legacy tells whether the integrity algorithm of that name is offered for old
// peers only (RFC 8221, section 6: HMAC-SHA1 is on its way out). Whether it may be
// used is for the operator to say; Lookup and LookupIntegrity find it.
func Legacy(integrity string) bool {
	return slices.ContainsFunc(hashes[:], func(h hashSpec) bool { return h.name == integrity && h.legacy })
}

// hashNames lists the names of the first n algorithms.
func hashNames(n int) string {
	var names []string
	for i := range hashes[:n] {
		names = append(names, hashes[i].name)
	}
	return strings.Join(slices.Compact(names), ", ")
}

// Sum writes the ICV of a message, which is the concatenation of text, under
// k's integrity algorithm. The high half of an extended sequence number is the
// caller's to add (RFC 4302, section 3.3.4: at the end). icv has the suite's
// ICVLen, iv its IVLen; the caller sends both. An IV must not come twice under
// one key. It is false, and nothing is written, if k is no living key with an
// integrity algorithm of its own or if a length is wrong.
//
// Text is only read; icv may lie in none of it.
func (e *Engine) Sum(k *Key, icv, iv []byte, text ...[]byte) bool {
	if !k.sums(icv, iv) {
		return false
	}
	sum := e.mac(k, iv, text)
	if sum != nil {
		copy(icv, sum)
	}
	e.forgetMAC(k.suite.hash)
	return sum != nil
}

// Verify tells, in constant time, whether icv is what Sum would write.
func (e *Engine) Verify(k *Key, icv, iv []byte, text ...[]byte) bool {
	if !k.sums(icv, iv) {
		return false
	}
	sum := e.mac(k, iv, text)
	ok := sum != nil && subtle.ConstantTimeCompare(icv, sum[:len(icv)]) == 1
	e.forgetMAC(k.suite.hash)
	return ok
}

// sums tells whether k is a living key with an integrity algorithm, and the
// lengths are its.
func (k *Key) sums(icv, iv []byte) bool {
	if k == nil || k.live == nil || k.suite.hash == nil {
		return false
	}
	h := k.suite.hash
	return len(icv) == h.icv && len(iv) == h.iv
}

// mac computes the whole output of k's integrity algorithm over the text. The
// result is e's until the next call; nil is a failure.
func (e *Engine) mac(k *Key, iv []byte, text [][]byte) []byte {
	switch h := k.suite.hash; {
	case h.gmac:
		return e.gmac(k, iv, text)
	case h.cbcMAC != nil:
		return e.cbcMAC.sum(k.macBlock, k.cbcMAC, text)
	default:
		return e.hmacSum(k, text)
	}
}
