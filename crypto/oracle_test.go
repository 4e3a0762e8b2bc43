package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// oracle seals and opens one packet the slow and obvious way: by the suite's
// name alone, with fresh objects and fresh memory each time.
type oracle struct {
	suite     *Suite
	enc, auth []byte
}

// sealAEAD returns ciphertext and ICV; none of the algorithms chains its blocks,
// so the ciphertext of a ciphertext is the plaintext.
func (o oracle) sealAEAD(iv, body, aad []byte) []byte {
	salt, name := 4, o.suite.String()
	if strings.HasPrefix(name, "aes-ccm") {
		salt = 3
	}
	end := len(o.enc) - salt
	key, nonce := o.enc[:end], append(bytes.Clone(o.enc[end:]), iv...)
	switch {
	case salt == 3:
		return oracleCCM(key, nonce, body, aad, o.suite.ICVLen())
	case strings.HasPrefix(name, "chacha20"):
		return must(chacha20poly1305.New(key)).Seal(nil, nonce, body, aad)
	}
	gcm := must(cipher.NewGCM(must(aes.NewCipher(key))))
	if strings.HasPrefix(name, "null-aes-gmac") { // RFC 4543, section 3
		return gcm.Seal(bytes.Clone(body), nonce, nil, slices.Concat(aad, iv, body))
	}
	return gcm.Seal(nil, nonce, body, aad)[:len(body)+o.suite.ICVLen()]
}

// oracleCCM is RFC 3610, section 2, for AAD that is short and there.
func oracleCCM(key, nonce, body, aad []byte, tag int) []byte {
	b, l := must(aes.NewCipher(key)), 15-len(nonce)
	counter := append([]byte{byte(l - 1)}, nonce...)
	counter = append(counter, make([]byte, l)...)
	first := bytes.Clone(counter)
	first[0] |= byte(0x40 | (tag-2)/2<<3)
	binary.BigEndian.PutUint32(first[12:], uint32(len(body)))
	text := append(first, 0, byte(len(aad)))
	for _, part := range [][]byte{aad, body} {
		text = append(text, part...)
		text = append(text, make([]byte, -len(text)&15)...)
	}
	cipher.NewCBCEncrypter(b, make([]byte, 16)).CryptBlocks(text, text)
	out := append(bytes.Clone(text[len(text)-16:]), body...)
	cipher.NewCTR(b, counter).XORKeyStream(out, out) // block 0 is the tag's
	return append(out[16:], out[:tag]...)
}

func (o oracle) encryption() string {
	name, _, _ := strings.Cut(o.suite.String(), "/")
	return strings.TrimRight(name, "-0123456789")
}

// mac is the whole MAC of signed and, with ESN, the high half, cut to the ICV.
func (o oracle) mac(signed []byte, hi uint32, esn bool) []byte {
	_, name, _ := strings.Cut(o.suite.String(), "/")
	msg := bytes.Clone(signed)
	if esn {
		msg = binary.BigEndian.AppendUint32(msg, hi)
	}
	return oracleSum(name, o.auth, nil, msg)[:o.suite.ICVLen()]
}

func aadOf(header []byte, hi uint32, esn bool) []byte {
	if !esn {
		return bytes.Clone(header)
	}
	aad := binary.BigEndian.AppendUint32(bytes.Clone(header[:4]), hi)
	return append(aad, header[4:8]...)
}

// seal returns the packet with this header (SPI and sequence number) and body.
func (o oracle) seal(header, body []byte, hi uint32, esn bool) []byte {
	seq := append(binary.BigEndian.AppendUint32(nil, hi), header[4:8]...)
	switch pkt := bytes.Clone(header); o.encryption() {
	case "null":
		pkt = append(pkt, body...)
		return append(pkt, o.mac(pkt, hi, esn)...)
	case "aes-cbc":
		b := must(aes.NewCipher(o.enc))
		iv := make([]byte, 16)
		b.Encrypt(iv, append(make([]byte, 8), seq...))
		text := bytes.Clone(body)
		cipher.NewCBCEncrypter(b, iv).CryptBlocks(text, text)
		pkt = append(append(pkt, iv...), text...)
		return append(pkt, o.mac(pkt, hi, esn)...)
	case "aes-ctr":
		pkt = append(append(pkt, seq...), o.ctr(seq, body)...)
		return append(pkt, o.mac(pkt, hi, esn)...)
	default:
		if !strings.Contains(o.suite.String(), "-iiv") {
			pkt = append(pkt, seq...)
		}
		return append(pkt, o.sealAEAD(seq, body, aadOf(header, hi, esn))...)
	}
}

// ctr is RFC 3686, section 4.
func (o oracle) ctr(iv, text []byte) []byte {
	key, nonce := o.enc[:len(o.enc)-4], o.enc[len(o.enc)-4:]
	block := append(append(bytes.Clone(nonce), iv...), 0, 0, 0, 1)
	out := make([]byte, len(text))
	cipher.NewCTR(must(aes.NewCipher(key)), block).XORKeyStream(out, text)
	return out
}

// open returns the body; nil is a refusal.
func (o oracle) open(pkt []byte, hi uint32, esn bool) []byte {
	s := o.suite
	n := len(pkt) - 8 - s.IVLen() - s.ICVLen()
	if n < s.Align() || n%s.Align() != 0 {
		return nil
	}
	iv, text := pkt[8:8+s.IVLen()], pkt[8+s.IVLen():]
	if s.AuthKeyLen() == 0 {
		if len(iv) == 0 {
			iv = append(binary.BigEndian.AppendUint32(nil, hi), pkt[4:8]...)
		}
		body, aad := bytes.Clone(text[:n]), aadOf(pkt[:8], hi, esn)
		if o.encryption() != "null-aes-gmac" {
			body = o.sealAEAD(iv, body, aad)[:n]
		}
		if !bytes.Equal(o.sealAEAD(iv, body, aad), text) {
			return nil
		}
		return body
	}
	if !hmac.Equal(o.mac(pkt[:len(pkt)-s.ICVLen()], hi, esn), pkt[len(pkt)-s.ICVLen():]) {
		return nil
	}
	body := bytes.Clone(text[:n])
	switch o.encryption() {
	case "aes-ctr":
		body = o.ctr(iv, body)
	case "aes-cbc":
		cipher.NewCBCDecrypter(must(aes.NewCipher(o.enc)), iv).CryptBlocks(body, body)
	}
	return body
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
