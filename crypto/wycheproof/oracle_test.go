package wycheproof

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math/big"
	"slices"

	"golang.org/x/crypto/chacha20"
)

// A vector's AAD and length are seldom those of an ESP packet, so its verdict
// is carried over to one: same key and nonce, ciphertext cut to whole words,
// AAD of an ESP header. Both algorithms' tags are a polynomial of AAD and
// ciphertext plus a mask that depends on key and nonce only, so
//
//	new tag = tag - polynomial(old) + polynomial(new)
//
// is right exactly if the vector's tag is. The polynomials are computed here,
// slowly, bit by bit and with big integers.

// carryGCM moves an AES-GCM tag from one (AAD, ciphertext) to another (NIST SP
// 800-38D, section 7: in this field, plus and minus are XOR).
func carryGCM(key, nonce, tag, oldAAD, oldText, newAAD, newText []byte) []byte {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	var h [16]byte
	b.Encrypt(h[:], h[:])
	was, is := ghash(h, oldAAD, oldText), ghash(h, newAAD, newText)
	out := slices.Clone(tag)
	for i := range out {
		out[i] ^= was[i] ^ is[i]
	}
	return out
}

// carryCCM moves an AES-CCM tag (SP 800-38C): it is the CBC-MAC of lengths, AAD
// and plaintext, XORed with what depends on key and nonce only.
func carryCCM(key, nonce, tag, oldAAD, oldText, newAAD, newText []byte) []byte {
	was, is := cbcMAC(key, nonce, oldAAD, oldText, len(tag)), cbcMAC(key, nonce, newAAD, newText, len(tag))
	out := slices.Clone(tag)
	for i := range out {
		out[i] ^= was[i] ^ is[i]
	}
	return out
}

// cbcMAC is the MAC of what the ciphertext is decrypted to. Nonces have 11 bytes.
func cbcMAC(key, nonce, aad, text []byte, tag int) []byte {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	plain := slices.Clone(text)
	cipher.NewCTR(b, slices.Concat([]byte{3}, nonce, []byte{0, 0, 0, 1})).XORKeyStream(plain, plain)
	flags := byte((tag-2)/2<<3 | 3)
	if len(aad) > 0 {
		flags |= 0x40
		aad = slices.Concat([]byte{0, byte(len(aad))}, aad)
	}
	in := binary.BigEndian.AppendUint32(slices.Concat([]byte{flags}, nonce), uint32(len(plain)))
	for _, part := range [][]byte{aad, plain} {
		in = append(in, part...)
		in = append(in, make([]byte, -len(in)&15)...)
	}
	cipher.NewCBCEncrypter(b, make([]byte, 16)).CryptBlocks(in, in)
	return in[len(in)-16:]
}

// ghash is SP 800-38D's algorithm 2 over AAD, text and their lengths in bits.
func ghash(h [16]byte, aad, text []byte) (y [16]byte) {
	for _, block := range blocks(aad, text, binary.BigEndian.AppendUint64) {
		for i := range y {
			y[i] ^= block[i]
		}
		y = multiply(y, h)
	}
	return y
}

// multiply is SP 800-38D's algorithm 1; bit 0 is the leftmost.
func multiply(x, y [16]byte) (z [16]byte) {
	v := y
	for bit := range 128 {
		if x[bit/8]>>(7-bit%8)&1 == 1 {
			for i := range z {
				z[i] ^= v[i]
			}
		}
		carry := byte(0)
		for i := range v {
			v[i], carry = v[i]>>1|carry<<7, v[i]&1
		}
		if carry == 1 {
			v[0] ^= 0xe1
		}
	}
	return z
}

// carryChaCha moves a ChaCha20-Poly1305 tag (RFC 8439, sections 2.5 and 2.8).
func carryChaCha(key, nonce, tag, oldAAD, oldText, newAAD, newText []byte) []byte {
	c, err := chacha20.NewUnauthenticatedCipher(key, nonce)
	if err != nil {
		panic(err)
	}
	r := make([]byte, 16)
	c.XORKeyStream(r, r)
	for _, i := range []int{3, 7, 11, 15} {
		r[i] &= 15
	}
	for _, i := range []int{4, 8, 12} {
		r[i] &= 252
	}
	sum := little(tag)
	sum.Sub(sum, poly1305(little(r), oldAAD, oldText))
	sum.Add(sum, poly1305(little(r), newAAD, newText))
	sum.Mod(sum, new(big.Int).Lsh(big.NewInt(1), 128))
	out := sum.FillBytes(make([]byte, 16))
	slices.Reverse(out)
	return out
}

// poly1305 is the polynomial before the mask is added.
func poly1305(r *big.Int, aad, text []byte) *big.Int {
	p := new(big.Int).Lsh(big.NewInt(1), 130)
	p.Sub(p, big.NewInt(5))
	sum := new(big.Int)
	for _, block := range blocks(aad, text, littleBits) {
		sum.Add(sum, little(append(block, 1)))
		sum.Mul(sum, r).Mod(sum, p)
	}
	return sum
}

func little(b []byte) *big.Int {
	b = slices.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

// littleBits appends a length given in bits as Poly1305 wants it, in bytes.
func littleBits(b []byte, bits uint64) []byte { return binary.LittleEndian.AppendUint64(b, bits/8) }

// blocks is what both algorithms take in: AAD and text, each filled up with
// zeros to 16 bytes, then their lengths in bits as put writes them.
func blocks(aad, text []byte, put func([]byte, uint64) []byte) (all [][]byte) {
	var in []byte
	for _, part := range [][]byte{aad, text} {
		in = append(in, part...)
		in = append(in, make([]byte, -len(part)&15)...)
	}
	in = put(put(in, 8*uint64(len(aad))), 8*uint64(len(text)))
	for block := range slices.Chunk(in, 16) {
		all = append(all, slices.Clone(block))
	}
	return all
}
