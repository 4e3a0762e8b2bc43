package crypto

// gmacSalt is how many bytes of a GMAC key are the nonce's head (RFC 4543, section 3.1).
const gmacSalt = 4

// gmac computes AES-GMAC over the text: GCM of nothing, with the text as AAD
// (RFC 4543, section 3). The result is e's until the next call.
func (e *Engine) gmac(k *Key, iv []byte, text [][]byte) []byte {
	copy(e.nonce[:gmacSalt], k.salt[:])
	copy(e.nonce[gmacSalt:], iv)
	e.text = e.text[:0]
	for _, t := range text {
		e.text = append(e.text, t...)
	}
	return k.aead.Seal(e.sum[:0], e.nonce[:], nil, e.text)
}
