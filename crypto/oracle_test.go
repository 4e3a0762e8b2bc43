package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// oracle seals and opens one packet the slow and obvious way: by the suite's
// name alone, with fresh objects and fresh memory each time.
type oracle struct {
	suite     *Suite
	enc, auth []byte
}

func (o oracle) aead() cipher.AEAD {
	key := o.enc[:len(o.enc)-4]
	if strings.HasPrefix(o.suite.String(), "chacha20") {
		return must(chacha20poly1305.New(key))
	}
	return must(cipher.NewGCM(must(aes.NewCipher(key))))
}

func (o oracle) encryption() string {
	name, _, _ := strings.Cut(o.suite.String(), "/")
	return strings.TrimRight(name, "-0123456789")
}

// mac is the whole HMAC of signed and, with ESN, the high half, cut to the ICV.
func (o oracle) mac(signed []byte, hi uint32, esn bool) []byte {
	_, name, _ := strings.Cut(o.suite.String(), "/")
	h := hmac.New(map[string]func() hash.Hash{
		"hmac-sha2-256-128": sha256.New, "hmac-sha2-384-192": sha512.New384, "hmac-sha2-512-256": sha512.New,
	}[name], o.auth)
	h.Write(signed)
	if esn {
		binary.Write(h, binary.BigEndian, hi)
	}
	return h.Sum(nil)[:h.Size()/2]
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
		nonce := append(bytes.Clone(o.enc[len(o.enc)-4:]), seq...)
		return o.aead().Seal(append(pkt, seq...), nonce, body, aadOf(header, hi, esn))
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
		nonce := append(bytes.Clone(o.enc[len(o.enc)-4:]), iv...)
		body, err := o.aead().Open(nil, nonce, text, aadOf(pkt[:8], hi, esn))
		if err != nil {
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
