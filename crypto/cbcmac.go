package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
)

// cbcMACKey is what AES-XCBC-MAC (RFC 3566, section 4) and AES-CMAC (RFC 4493,
// section 2.4) add to a message's last block before it is encrypted. The two
// differ in how they come by it, and by the key of AES.
type cbcMACKey struct {
	whole  [aes.BlockSize]byte // for a last block that is full
	padded [aes.BlockSize]byte // for one that had to be padded
}

// newXCBC makes three keys: that of AES and the two to add.
func newXCBC(key []byte) (cipher.Block, *cbcMACKey, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	defer wipe(b)
	var keys [3][aes.BlockSize]byte
	defer clear(keys[:])
	for i := range keys {
		b.Encrypt(keys[i][:], bytes.Repeat([]byte{byte(i + 1)}, aes.BlockSize))
	}
	block, err := aes.NewCipher(keys[0][:])
	return block, &cbcMACKey{whole: keys[1], padded: keys[2]}, err
}

// newCMAC doubles the encrypted block of zeros once and twice.
func newCMAC(key []byte) (cipher.Block, *cbcMACKey, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	k := &cbcMACKey{}
	b.Encrypt(k.whole[:], k.whole[:])
	double(&k.whole, &k.whole)
	double(&k.padded, &k.whole)
	return b, k, nil
}

// double multiplies by x in the field of 2^128 elements, without a branch on x.
func double(out, in *[aes.BlockSize]byte) {
	carry := in[0] >> 7 * 0x87
	for i := range aes.BlockSize - 1 {
		out[i] = in[i]<<1 | in[i+1]>>7
	}
	out[aes.BlockSize-1] = in[aes.BlockSize-1]<<1 ^ carry
}

// cbcMAC is a CBC-MAC at work: what it has taken in, and up to a block that
// waits for what comes behind it.
type cbcMAC struct {
	chain, last [aes.BlockSize]byte
	n           int // bytes of last
}

// write takes text in, but keeps back its last block.
func (m *cbcMAC) write(b cipher.Block, text []byte) {
	for len(text) > 0 {
		if m.n == len(m.last) {
			m.absorb(b)
		}
		n := copy(m.last[m.n:], text)
		m.n += n
		text = text[n:]
	}
}

// absorb takes in the block that waits.
func (m *cbcMAC) absorb(b cipher.Block) {
	xorBlock(m.chain[:], m.last[:])
	b.Encrypt(m.chain[:], m.chain[:])
	m.n = 0
}

// sum computes XCBC or CMAC over the text. The result is m's until the next call.
func (m *cbcMAC) sum(b cipher.Block, k *cbcMACKey, text [][]byte) []byte {
	*m = cbcMAC{}
	for _, t := range text {
		m.write(b, t)
	}
	mask := &k.whole
	if m.n < len(m.last) {
		m.last[m.n] = 0x80
		clear(m.last[m.n+1:])
		mask = &k.padded
	}
	subtle.XORBytes(m.last[:], m.last[:], mask[:])
	m.absorb(b)
	return m.chain[:]
}
