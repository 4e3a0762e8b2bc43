package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"slices"
	"strings"
)

// The ESP header that every suite authenticates: SPI and sequence number, 4
// bytes each (RFC 4303, section 2).
const headerLen = 8

// Suite is an encryption algorithm of one key size with its integrity
// algorithm. Suites are made by this package only, one of each, and do not
// change: comparing pointers compares suites.
type Suite struct {
	name   string
	cipher *cipherSpec
	hash   *hashSpec // nil for an AEAD
	keyLen int       // encryption key in bytes, salt included
	tier   Tier      // the best that its kernels may use

	overhead  int // header, IV and ICV in bytes
	unaligned int // the bits that a length of text must not have

	seal, open kernel
}

// kernel runs the jobs of one suite, jobs[i] for each i of group. Their keys
// are alive and their lengths fit; it sets OK where it succeeds.
type kernel func(e *Engine, jobs []Job, group []uint8)

var suites = chosenSuites()

func chosenSuites() []*Suite {
	tier, _ := ChosenTier() // its error is for the program to tell
	return makeSuites(tier)
}

// makeSuites joins each cipher and key size with each hash that fits it.
func makeSuites(tier Tier) []*Suite {
	var all []*Suite
	for i := range ciphers {
		c := &ciphers[i]
		for _, n := range c.keys {
			if c.tag > 0 {
				all = append(all, newSuite(c, n, nil, tier))
				continue
			}
			for j := range hashes[:espHashes] {
				all = append(all, newSuite(c, n, &hashes[j], tier))
			}
		}
	}
	return all
}

func newSuite(c *cipherSpec, key int, h *hashSpec, tier Tier) *Suite {
	s := &Suite{name: c.name, cipher: c, hash: h, keyLen: key + c.salt, tier: tier, seal: c.seal, open: c.open}
	if len(c.keys) > 1 {
		s.name = fmt.Sprintf("%s-%d", c.name, 8*key)
	}
	if h != nil {
		s.name += "/" + h.name
	}
	s.unaligned = c.align - 1
	s.overhead = headerLen + s.IVLen() + s.ICVLen()
	return s
}

func newGCM(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	defer wipe(b) // NewGCM keeps its own copy of the schedule
	return cipher.NewGCM(b)
}

// Lookup finds the suite of an encryption algorithm, an integrity algorithm
// ("" for an AEAD) and the encryption key's length in bytes, which counts the
// salt where the algorithm has one. Its errors wrap ErrAlgorithm or
// ErrKeyLength and list what there is.
func Lookup(encryption, integrity string, encKeyLen int) (*Suite, error) {
	ci := slices.IndexFunc(ciphers[:], func(c cipherSpec) bool { return c.name == encryption })
	if ci < 0 {
		return nil, fmt.Errorf("%w: encryption %q; there are %s", ErrAlgorithm, encryption, cipherNames())
	}
	c := &ciphers[ci]
	hi := slices.IndexFunc(hashes[:espHashes], func(h hashSpec) bool { return h.name == integrity })
	switch {
	case c.tag > 0 && integrity != "":
		return nil, fmt.Errorf("%w: integrity %q with %s, which authenticates by itself; leave the integrity out",
			ErrAlgorithm, integrity, encryption)
	case c.tag == 0 && integrity == "":
		// RFC 4303, section 2.7 and RFC 8221, section 4: confidentiality alone is not offered, and NULL
		// with no integrity is forbidden.
		return nil, fmt.Errorf("%w: %s with no integrity; add one of %s", ErrAlgorithm, encryption, hashNames(espHashes))
	case c.tag == 0 && hi < 0:
		return nil, fmt.Errorf("%w: integrity %q; there are %s", ErrAlgorithm, integrity, hashNames(espHashes))
	}
	for _, s := range suites {
		if s.cipher == c && s.keyLen == encKeyLen && (s.hash == nil || s.hash == &hashes[hi]) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: %s with a key of %d bytes; it takes %s", ErrKeyLength, encryption, encKeyLen, c.keyLengths())
}

func cipherNames() string {
	var names []string
	for i := range ciphers {
		names = append(names, ciphers[i].name)
	}
	return strings.Join(names, ", ")
}

// keyLengths tells the key lengths in bytes, salt included.
func (c *cipherSpec) keyLengths() string {
	var lengths []string
	for _, n := range c.keys {
		lengths = append(lengths, fmt.Sprint(n+c.salt))
	}
	text := strings.Join(lengths, ", ") + " bytes"
	if c.salt > 0 {
		text += fmt.Sprintf(" (the last %d are the salt)", c.salt)
	}
	return text
}

// Suites lists all suites. The slice is the caller's.
func Suites() []*Suite { return slices.Clone(suites) }

// String is the suite's name, for example "aes-gcm-16-128" or
// "aes-cbc-256/hmac-sha2-256-128".
func (s *Suite) String() string { return s.name }

// IVLen is the length in bytes of the IV that each packet carries.
func (s *Suite) IVLen() int {
	if s.hash != nil {
		return s.cipher.iv + s.hash.iv
	}
	return s.cipher.iv
}

// ICVLen is the length in bytes of the integrity check value.
func (s *Suite) ICVLen() int {
	if s.hash != nil {
		return s.hash.icv
	}
	return s.cipher.tag
}

// Align is what payload, padding, pad length and next header together fill a
// multiple of, in bytes (RFC 4303, section 2.4).
func (s *Suite) Align() int { return s.cipher.align }

// CounterMode tells that two packets under one key with one IV would betray
// their plaintexts and the authentication key. As the IV is the sequence
// number, such a key must not be used again after a restart.
func (s *Suite) CounterMode() bool { return s.cipher.counter }

// EncKeyLen is the length in bytes of the encryption key, salt included.
func (s *Suite) EncKeyLen() int { return s.keyLen }

// AuthKeyLen is the length in bytes of the integrity key; 0 for an AEAD.
func (s *Suite) AuthKeyLen() int {
	if s.hash != nil {
		return s.hash.key
	}
	return 0
}
