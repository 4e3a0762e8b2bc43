package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
	"slices"
	"strings"
	"testing"
)

// integrityKey makes a key of s; the bytes are for the oracle.
func integrityKey(s *Suite) (*Key, []byte) {
	key := randomBytes(newRand(), s.AuthKeyLen())
	return must(s.NewKey(nil, key)), key
}

// oracleSum is the whole output over msg, by name, the slow and obvious way.
func oracleSum(name string, key, iv, msg []byte) []byte {
	hashOf := map[string]func() hash.Hash{
		"hmac-sha1-96": sha1.New, "hmac-sha2-256-128": sha256.New,
		"hmac-sha2-384-192": sha512.New384, "hmac-sha2-512-256": sha512.New,
	}
	switch {
	case hashOf[name] != nil:
		h := hmac.New(hashOf[name], key)
		h.Write(msg)
		return h.Sum(nil)
	case strings.HasPrefix(name, "aes-gmac"):
		n := len(key) - 4
		gcm := must(cipher.NewGCM(must(aes.NewCipher(key[:n]))))
		return gcm.Seal(nil, slices.Concat(key[n:], iv), nil, msg)
	case name == "aes-xcbc-96": // RFC 3566, section 4
		outer := must(aes.NewCipher(key))
		var keys [3][]byte
		for i := range keys {
			keys[i] = bytes.Repeat([]byte{byte(i + 1)}, 16)
			outer.Encrypt(keys[i], keys[i])
		}
		return oracleCBCMAC(keys[0], keys[1], keys[2], msg)
	default: // RFC 4493, section 2.4
		l := make([]byte, 16)
		must(aes.NewCipher(key)).Encrypt(l, l)
		k1 := oracleDouble(l)
		return oracleCBCMAC(key, k1, oracleDouble(k1), msg)
	}
}

// oracleCBCMAC takes CBC's last block of ciphertext.
func oracleCBCMAC(key, whole, padded, msg []byte) []byte {
	text, mask := bytes.Clone(msg), whole
	if len(msg) == 0 || len(msg)%16 != 0 {
		text, mask = append(text, 0x80), padded
		text = append(text, make([]byte, -len(text)&15)...)
	}
	last := text[len(text)-16:]
	for i := range last {
		last[i] ^= mask[i]
	}
	cipher.NewCBCEncrypter(must(aes.NewCipher(key)), make([]byte, 16)).CryptBlocks(text, text)
	return last
}

func oracleDouble(in []byte) []byte {
	out, carry := make([]byte, 16), byte(0)
	for i := 15; i >= 0; i-- {
		out[i], carry = in[i]<<1|carry, in[i]>>7
	}
	if carry == 1 {
		out[15] ^= 0x87
	}
	return out
}

func TestLookupIntegrity(t *testing.T) {
	for _, c := range []struct {
		name   string
		keyLen int
		full   string
		iv, ic int
	}{
		{"hmac-sha1-96", 20, "hmac-sha1-96", 0, 12},
		{"hmac-sha2-256-128", 32, "hmac-sha2-256-128", 0, 16},
		{"hmac-sha2-384-192", 48, "hmac-sha2-384-192", 0, 24},
		{"hmac-sha2-512-256", 64, "hmac-sha2-512-256", 0, 32},
		{"aes-xcbc-96", 16, "aes-xcbc-96", 0, 12},
		{"aes-cmac-96", 16, "aes-cmac-96", 0, 12},
		{"aes-gmac", 20, "aes-gmac-128", 8, 16},
		{"aes-gmac", 28, "aes-gmac-192", 8, 16},
		{"aes-gmac", 36, "aes-gmac-256", 8, 16},
	} {
		s := must(LookupIntegrity(c.name, c.keyLen))
		if s.String() != c.full || s.EncKeyLen() != 0 || s.AuthKeyLen() != c.keyLen || s.IVLen() != c.iv || s.ICVLen() != c.ic {
			t.Errorf("%s with %d bytes: got %s: keys %d and %d, IV %d, ICV %d", c.name, c.keyLen, s,
				s.EncKeyLen(), s.AuthKeyLen(), s.IVLen(), s.ICVLen())
		}
	}
	for _, c := range []struct {
		name   string
		keyLen int
		want   error
		tells  string
	}{
		{"hmac-md5-96", 16, ErrAlgorithm, "hmac-sha2-256-128, "},
		{"", 0, ErrAlgorithm, "aes-gmac"},
		{"aes-gmac", 16, ErrKeyLength, "20, 28, 36"},
		{"hmac-sha1-96", 16, ErrKeyLength, "it takes 20"},
	} {
		if s, err := LookupIntegrity(c.name, c.keyLen); s != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.tells) {
			t.Errorf("%q with %d bytes: %v, %v", c.name, c.keyLen, s, err)
		}
	}
}

// Every algorithm at every length, whole and in parts, against the oracle; and
// no bit may be wrong.
func TestSum(t *testing.T) {
	e := NewEngine()
	for _, s := range Integrities() {
		t.Run(s.String(), func(t *testing.T) {
			rng := newRand()
			k, key := integrityKey(s)
			for n := range 300 {
				msg, iv := randomBytes(rng, n), randomBytes(rng, s.IVLen())
				want := oracleSum(s.String(), key, iv, msg)[:s.ICVLen()]
				icv, at, then := make([]byte, s.ICVLen()), rng.IntN(n+1), 0
				then = at + rng.IntN(n-at+1)
				if !e.Sum(k, icv, iv, msg[:at], msg[at:then], msg[then:]) || !bytes.Equal(icv, want) {
					t.Fatalf("%d bytes in parts at %d and %d: got %x, want %x", n, at, then, icv, want)
				}
				if !e.Verify(k, want, iv, msg) {
					t.Fatalf("%d bytes: refused", n)
				}
				if n == 0 {
					continue
				}
				for _, part := range [][]byte{msg, want, iv} {
					if len(part) == 0 {
						continue
					}
					bit := rng.IntN(8 * len(part))
					part[bit/8] ^= 1 << (bit % 8)
					if e.Verify(k, want, iv, msg) {
						t.Fatalf("%d bytes: bit %d does not count", n, bit)
					}
					part[bit/8] ^= 1 << (bit % 8)
				}
			}
			big := randomBytes(rng, 66000)
			if icv, iv := make([]byte, s.ICVLen()), make([]byte, s.IVLen()); !e.Sum(k, icv, iv, big) ||
				!bytes.Equal(icv, oracleSum(s.String(), key, iv, big)[:len(icv)]) {
				t.Error("wrong over 66000 bytes")
			}
		})
	}
}

// The RFCs' own examples, of which the ICV is the head.
func TestIntegrityVectors(t *testing.T) {
	var v struct {
		Source string
		Tests  []struct {
			Case, Integrity   string
			Key, Message, Sum hexBytes
			Repeat            int
		}
	}
	load(t, "integrity.json", &v)
	if len(v.Tests) != 14 {
		t.Fatalf("%d vectors", len(v.Tests))
	}
	e := NewEngine()
	for _, c := range v.Tests {
		s := must(LookupIntegrity(c.Integrity, len(c.Key)))
		k := must(s.NewKey(nil, c.Key))
		icv := make([]byte, s.ICVLen())
		msg := bytes.Repeat(c.Message, max(c.Repeat, 1))
		if !e.Sum(k, icv, nil, msg) || !bytes.Equal(icv, c.Sum[:len(icv)]) {
			t.Errorf("%s: got %x, want %x", c.Case, icv, []byte(c.Sum))
		}
	}
	t.Logf("integrity.json: %d vectors", len(v.Tests))
}

// What Sum cannot do it refuses and leaves alone; and a job of ESP has no use
// for a key of integrity alone.
func TestSumRefuses(t *testing.T) {
	e := NewEngine()
	gcm, _ := randomKey(must(Lookup("aes-gcm-16", "", 20)), newRand())
	for _, s := range Integrities() {
		k, _ := integrityKey(s)
		n, iv := s.ICVLen(), make([]byte, s.IVLen())
		icv := bytes.Repeat([]byte{0xa5}, n+1)
		dead, _ := integrityKey(s)
		dead.Zero()
		for what, ok := range map[string]bool{
			"no key": e.Sum(nil, icv[:n], iv), "a dead key": e.Sum(dead, icv[:n], iv), "an AEAD": e.Sum(gcm, icv[:n], iv),
			"a long ICV": e.Sum(k, icv, iv), "a short ICV": e.Verify(k, icv[:n-1], iv), "no ICV": e.Verify(k, nil, iv),
			"a long IV": e.Sum(k, icv[:n], append(iv, 0)), "a dead key's verdict": e.Verify(dead, icv[:n], iv),
		} {
			if ok || !bytes.Equal(icv, bytes.Repeat([]byte{0xa5}, n+1)) {
				t.Errorf("%s: %s is taken", s, what)
			}
		}
		pkt := make([]byte, 64)
		jobs := []Job{{Key: k, Pkt: pkt, OK: true}}
		if e.Seal(jobs); jobs[0].OK || !bytes.Equal(pkt, make([]byte, 64)) {
			t.Errorf("%s: seals", s)
		}
		if e.Open(jobs); jobs[0].OK {
			t.Errorf("%s: opens", s)
		}
	}
}

func TestSumDoesNotAllocateOrRemember(t *testing.T) {
	for _, s := range Integrities() {
		e := NewEngine()
		k, _ := integrityKey(s)
		pkt, icv, iv := randomBytes(newRand(), 1500), make([]byte, s.ICVLen()), make([]byte, s.IVLen())
		if n := testing.AllocsPerRun(20, func() {
			e.Sum(k, icv, iv, pkt[:20], pkt[20:])
			e.Verify(k, icv, iv, pkt[:20], pkt[20:])
		}); n != 0 {
			t.Errorf("%s: %v allocations", s, n)
		}
		if e.nonce != [12]byte{} || e.sum != [64]byte{} || e.cbcMAC != (cbcMAC{}) {
			t.Errorf("%s: the Engine keeps something of the key", s)
		}
		for id, fresh := range newDigests() {
			if !bytes.Equal(must(e.digests[id].AppendBinary(nil)), must(fresh.AppendBinary(nil))) {
				t.Errorf("%s: the Engine keeps a hash's state", s)
			}
		}
	}
}
