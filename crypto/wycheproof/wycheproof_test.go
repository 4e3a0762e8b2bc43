// Package wycheproof runs Project Wycheproof's vectors through the batch
// interface of package crypto, as ESP packets.
package wycheproof

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"spigot/crypto"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// file is what the AEAD and MAC schemas have in common.
type file struct {
	NumberOfTests int
	TestGroups    []struct {
		IVSize, KeySize, TagSize int // bits
		Tests                    []vector
	}
}

type vector struct {
	ID                         int `json:"tcId"`
	Key, IV, AAD, Msg, Ct, Tag hexBytes
	Result                     string
}

func load(t *testing.T, name string) (f file) {
	t.Helper()
	text, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return f
}

// count tells how many of a file's vectors became packets, by verdict.
type count struct{ all, valid, invalid, otherSizes, tooShort int }

func (c *count) report(t *testing.T, name string, f file) {
	t.Helper()
	t.Logf("%s: %d vectors: ran %d valid and %d invalid; not for ESP: %d of other key, nonce or tag sizes, %d of unfit length",
		name, c.all, c.valid, c.invalid, c.otherSizes, c.tooShort)
	if c.valid == 0 || c.invalid == 0 && !strings.HasPrefix(name, "aes_ccm") || c.all != f.NumberOfTests || c.all != c.valid+c.invalid+c.otherSizes+c.tooShort {
		t.Errorf("%s: %+v of %d: vectors are missing", name, *c, f.NumberOfTests)
	}
}

func newKey(t *testing.T, encryption, integrity string, encKey, authKey []byte) *crypto.Key {
	t.Helper()
	s, err := crypto.Lookup(encryption, integrity, len(encKey))
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.NewKey(encKey, authKey)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAEAD(t *testing.T) {
	for _, c := range []struct {
		file, encryption string
		carry            func(key, nonce, tag, oldAAD, oldText, newAAD, newText []byte) []byte
		direct           int // vectors that are ESP packets as they stand
	}{
		{"aes_gcm_test.json", "aes-gcm-16", carryGCM, 4},
		{"chacha20_poly1305_test.json", "chacha20-poly1305", carryChaCha, 13},
		{"aes_ccm_test.json", "aes-ccm-16", carryCCM, 3},
	} {
		f, n, direct := load(t, c.file), count{}, 0
		salt := 4
		if c.encryption == "aes-ccm-16" {
			salt = 3
		}
		for _, g := range f.TestGroups {
			for _, v := range g.Tests {
				n.all++
				switch text := v.Ct[:len(v.Ct)&^3]; {
				case g.IVSize != 8*(salt+8) || g.TagSize != 128:
					n.otherSizes++
					continue
				case len(text) == 0:
					n.tooShort++
					continue
				case v.Result == "valid":
					n.valid++
				default:
					n.invalid++
				}
				k := newKey(t, c.encryption, "", slices.Concat(v.Key, v.IV[:salt]), nil)
				nonce := v.IV
				v.IV = v.IV[salt:] // what a packet carries
				carry := func(aad, text []byte) []byte { return c.carry(v.Key, nonce, v.Tag, v.AAD, v.Ct, aad, text) }
				if ok := openDirect(k, v); ok != nil {
					direct++
					if *ok != (v.Result == "valid") {
						t.Errorf("%s %d: as it stands: accepted %v, is %s", c.file, v.ID, *ok, v.Result)
					}
				}
				for _, esn := range []bool{false, true} {
					runCarried(t, k, v, esn, carry)
				}
			}
		}
		n.report(t, c.file, f)
		t.Logf("%s: %d of them as they stand, the others carried over to an ESP header", c.file, direct)
		if direct != c.direct {
			t.Errorf("%s: %d vectors ran as they stand, want %d", c.file, direct, c.direct)
		}
	}
}

// openDirect opens a vector whose AAD and length are an ESP packet's; nil if they are not.
func openDirect(k *crypto.Key, v vector) *bool {
	if len(v.AAD) != 8 && len(v.AAD) != 12 || len(v.Ct)%4 != 0 {
		return nil
	}
	job := crypto.Job{Key: k, ESN: len(v.AAD) == 12}
	if job.ESN {
		job.SeqHi = binary.BigEndian.Uint32(v.AAD[4:])
	}
	job.Pkt = slices.Concat(v.AAD[:4], v.AAD[len(v.AAD)-4:], v.IV, v.Ct, v.Tag)
	jobs := []crypto.Job{job}
	crypto.NewEngine().Open(jobs)
	ok := jobs[0].OK && bytes.Equal(jobs[0].Pkt[16:16+len(v.Msg)], v.Msg)
	return &ok
}

// runCarried opens the vector as an ESP packet whose sequence number is its
// IV, and seals a valid one again, which must give the same packet.
func runCarried(t *testing.T, k *crypto.Key, v vector, esn bool, carry func(aad, text []byte) []byte) {
	t.Helper()
	spi := []byte{0x12, 0x34, 0x56, 0x78}
	hi, lo := v.IV[:4], v.IV[4:]
	aad := slices.Concat(spi, lo)
	if esn {
		aad = slices.Concat(spi, hi, lo)
	}
	text := v.Ct[:len(v.Ct)&^3]
	pkt := slices.Concat(spi, lo, hi, lo, text, carry(aad, text))
	jobs := []crypto.Job{{Key: k, Pkt: slices.Clone(pkt), SeqHi: binary.BigEndian.Uint32(hi), ESN: esn}}
	e := crypto.NewEngine()
	e.Open(jobs)
	if jobs[0].OK != (v.Result == "valid") {
		t.Errorf("%s %d, ESN %v: accepted %v, is %s", k.Suite(), v.ID, esn, jobs[0].OK, v.Result)
	}
	if v.Result != "valid" {
		return
	}
	if got := jobs[0].Pkt[16 : 16+len(text)]; !bytes.Equal(got, v.Msg[:len(text)]) {
		t.Errorf("%s %d, ESN %v: opened to %x, want %x", k.Suite(), v.ID, esn, got, v.Msg)
	}
	clear(jobs[0].Pkt[8:16])
	clear(jobs[0].Pkt[16+len(text):])
	copy(jobs[0].Pkt[16:], v.Msg[:len(text)])
	if e.Seal(jobs); !jobs[0].OK || !bytes.Equal(jobs[0].Pkt, pkt) {
		t.Errorf("%s %d, ESN %v: sealed to %x, want %x", k.Suite(), v.ID, esn, jobs[0].Pkt, pkt)
	}
}

// The integrity algorithms by themselves, over messages of any length. An
// invalid vector counts where the part of its tag that is sent is wrong.
func TestIntegrity(t *testing.T) {
	e := crypto.NewEngine()
	for name, integrity := range map[string]string{
		"aes_gmac_test.json":    "aes-gmac",
		"aes_cmac_test.json":    "aes-cmac-96",
		"hmac_sha1_test.json":   "hmac-sha1-96",
		"hmac_sha256_test.json": "hmac-sha2-256-128",
		"hmac_sha384_test.json": "hmac-sha2-384-192",
		"hmac_sha512_test.json": "hmac-sha2-512-256",
	} {
		f, n := load(t, name), count{}
		for _, g := range f.TestGroups {
			for _, v := range g.Tests {
				n.all++
				key, iv := slices.Concat(v.Key), v.IV
				if integrity == "aes-gmac" && len(iv) == 12 {
					key, iv = slices.Concat(key, iv[:4]), iv[4:]
				}
				suite, err := crypto.LookupIntegrity(integrity, len(key))
				if err != nil || len(iv) != suite.IVLen() || len(v.Tag) < suite.ICVLen() {
					n.otherSizes++
					continue
				}
				k, err := suite.NewKey(nil, key)
				if err != nil {
					t.Fatal(err)
				}
				icv := make([]byte, suite.ICVLen())
				ok := e.Sum(k, icv, iv, v.Msg)
				right := bytes.Equal(icv, v.Tag[:len(icv)])
				switch {
				case v.Result == "valid":
					n.valid++
				case right: // what is wrong with it is not sent
					n.otherSizes++
					continue
				default:
					n.invalid++
				}
				if verdict := e.Verify(k, v.Tag[:len(icv)], iv, v.Msg); !ok || right != (v.Result == "valid") || verdict != right {
					t.Errorf("%s %d: accepted %v, is %s", integrity, v.ID, verdict, v.Result)
				}
			}
		}
		n.report(t, name, f)
	}
}

// A message is a whole ESP packet without its ICV; with ESN its last four
// bytes are the high half of the sequence number.
func TestHMAC(t *testing.T) {
	for name, integrity := range map[string]string{
		"hmac_sha256_test.json": "hmac-sha2-256-128",
		"hmac_sha384_test.json": "hmac-sha2-384-192",
		"hmac_sha512_test.json": "hmac-sha2-512-256",
	} {
		suite, err := crypto.Lookup("null", integrity, 0)
		if err != nil {
			t.Fatal(err)
		}
		f, n := load(t, name), count{}
		for _, g := range f.TestGroups {
			for _, v := range g.Tests {
				n.all++
				switch {
				case g.KeySize != 8*suite.AuthKeyLen() || g.TagSize != 8*suite.ICVLen():
					n.otherSizes++
					continue
				case len(v.Msg) < 12 || len(v.Msg)%4 != 0:
					n.tooShort++
					continue
				case v.Result == "valid":
					n.valid++
				default:
					n.invalid++
				}
				k := newKey(t, "null", integrity, nil, v.Key)
				runHMAC(t, k, v, v.Msg, 0, false)
				if end := len(v.Msg) - 4; end >= 12 {
					runHMAC(t, k, v, v.Msg[:end], binary.BigEndian.Uint32(v.Msg[end:]), true)
				}
			}
		}
		n.report(t, name, f)
	}
}

func runHMAC(t *testing.T, k *crypto.Key, v vector, sent []byte, hi uint32, esn bool) {
	t.Helper()
	jobs := []crypto.Job{{Key: k, Pkt: slices.Concat(sent, v.Tag), SeqHi: hi, ESN: esn}}
	e := crypto.NewEngine()
	if e.Open(jobs); jobs[0].OK != (v.Result == "valid") {
		t.Errorf("%s %d, ESN %v: accepted %v, is %s", k.Suite(), v.ID, esn, jobs[0].OK, v.Result)
	}
	jobs[0].Pkt = slices.Concat(sent, make([]byte, len(v.Tag)))
	e.Seal(jobs)
	if got := bytes.Equal(jobs[0].Pkt[len(sent):], v.Tag); !jobs[0].OK || got != (v.Result == "valid") {
		t.Errorf("%s %d, ESN %v: sealed to the vector's tag: %v, is %s", k.Suite(), v.ID, esn, got, v.Result)
	}
}
