package crypto

import (
	"crypto/cipher"
	"fmt"
	"reflect"
)

// Key is a Suite with expanded key material. It does not change, so any
// number of Engines may use one Key at once, until Zero. It must not be copied:
// kernels find its material behind it.
type Key struct {
	_     notCopied
	live  *Suite  // nil: no key material, by Zero or from the start
	gcm   *gcmKey // here for the kernels, which know where: see _asm/gcm/layout.go
	suite *Suite  // also after Zero
	salt  [4]byte
	// rounds is how many gcm has.
	rounds uint8

	// What the suite's kernels need; the rest is nil. Both are safe for concurrent use.
	aead  cipher.AEAD
	block cipher.Block
	aes   *aesKey

	// Of the integrity algorithm.
	hmac     hmacKey
	macBlock cipher.Block
	cbcMAC   *cbcMACKey
}

// gcmWithin is a Key of AES-GCM with its gcmKey. To find that, a kernel needs
// nothing from memory but the Key's address, so it can be fetched beforehand. The
// gap puts what a small packet takes of it in as few cache lines as there can be:
// the allocator puts 8 bytes before what has pointers.
type gcmWithin struct {
	Key
	_   [32]byte
	gcm gcmKey
}

// notCopied has go vet tell of copies of what has it.
type notCopied struct{}

func (*notCopied) Lock()   {}
func (*notCopied) Unlock() {}

// newKey makes a Key of s that is alive.
func newKey(s *Suite) *Key {
	if s.cipher.gcm && gcmKernels[s.tier].expand != nil {
		k := &gcmWithin{Key: Key{live: s, suite: s}}
		k.Key.gcm = &k.gcm
		return &k.Key
	}
	return &Key{live: s, suite: s}
}

// NewKey expands keys of EncKeyLen and AuthKeyLen bytes; the salt, where the
// algorithm has one, is the end of encKey. Both are copied. Its errors wrap
// ErrKeyLength.
func (s *Suite) NewKey(encKey, authKey []byte) (*Key, error) {
	if s == nil || s.cipher == nil {
		return nil, fmt.Errorf("%w: a Suite that Lookup did not return has no keys; call Lookup", ErrAlgorithm)
	}
	if len(encKey) != s.EncKeyLen() {
		return nil, fmt.Errorf("%w: %s with an encryption key of %d bytes; it takes %d, of which %d are the salt",
			ErrKeyLength, s, len(encKey), s.EncKeyLen(), s.cipher.salt)
	}
	if len(authKey) != s.AuthKeyLen() {
		return nil, fmt.Errorf("%w: %s with an integrity key of %d bytes; it takes %d",
			ErrKeyLength, s, len(authKey), s.AuthKeyLen())
	}
	k := newKey(s)
	if err := k.expand(encKey, authKey); err != nil {
		k.Zero()
		return nil, fmt.Errorf("crypto: new key: %s: %w", s, err)
	}
	return k, nil
}

func (k *Key) expand(encKey, authKey []byte) (err error) {
	c := k.suite.cipher
	n := len(encKey) - c.salt
	copy(k.salt[:], encKey[n:])
	switch {
	case c.gcm:
		err = k.expandGCM(encKey[:n], encKey[n:])
	case c.aead != nil:
		k.aead, err = c.aead(encKey[:n])
	case c.block != nil:
		err = k.expandBlock(encKey[:n])
	}
	if err != nil {
		return err
	}
	return k.expandMAC(authKey)
}

// expandGCM makes a key of AES-GCM, or of GMAC.
func (k *Key) expandGCM(key, salt []byte) (err error) {
	if expand := gcmKernels[k.suite.tier].expand; expand != nil {
		if k.gcm == nil {
			k.gcm = new(gcmKey)
		}
		k.rounds = uint8(len(key)/4 + 6)
		expand(k.gcm, key, salt)
		return nil
	}
	k.aead, err = newGCM(key)
	return err
}

// expandBlock makes a key of AES, and CCM's second one.
func (k *Key) expandBlock(key []byte) (err error) {
	c := k.suite.cipher
	if kernel := k.suite.aesKernel(); kernel.expand != nil {
		k.aes = &aesKey{}
		k.aes.rounds = kernel.expand(&k.aes.encrypt, &k.aes.decrypt, key)
	} else if k.block, err = c.block(key); err != nil {
		return err
	}
	if c.ccm {
		k.macBlock, err = c.block(key)
	}
	return err
}

// expandMAC makes what the integrity algorithm needs, if there is one.
func (k *Key) expandMAC(key []byte) (err error) {
	switch h := k.suite.hash; {
	case h == nil:
	case h.gmac:
		n := len(key) - gmacSalt
		copy(k.salt[:], key[n:])
		err = k.expandGCM(key[:n], key[n:])
	case h.cbcMAC != nil:
		k.macBlock, k.cbcMAC, err = h.cbcMAC(key)
	default:
		k.hmac, err = k.suite.newHMACKey(key)
	}
	return err
}

// Suite tells the key's suite, also after Zero.
func (k *Key) Suite() *Suite { return k.suite }

// Zero wipes the key material, expanded schedules included. No Engine may run
// a job of k meanwhile; afterwards a job of k fails.
func (k *Key) Zero() {
	k.live = nil
	wipe(k.gcm)
	wipe(k.aead)
	wipe(k.block)
	wipe(k.aes)
	wipe(k.macBlock)
	wipe(k.cbcMAC)
	k.hmac.zero()
	clear(k.salt[:])
	k.rounds = 0
	k.gcm, k.aead, k.block, k.aes, k.macBlock, k.cbcMAC = nil, nil, nil, nil, nil, nil
}

// wipe zeroes the value that p points to, of whatever type; nil is left alone.
// The standard library's ciphers hold their schedules by value and offer no
// way to clear them.
func wipe(p any) {
	if v := reflect.ValueOf(p); v.Kind() == reflect.Pointer && !v.IsNil() {
		v.Elem().SetZero()
	}
}
