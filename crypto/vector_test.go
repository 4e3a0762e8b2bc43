package crypto

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// hexBytes is a JSON string of hex digits.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// load reads testdata/name into v, which must know all of its fields.
func load(t *testing.T, name string, v any) {
	t.Helper()
	f := must(os.Open("testdata/" + name))
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// openOne opens pkt in place and returns its body, or nil.
func openOne(k *Key, pkt []byte, hi uint32, esn bool) []byte {
	jobs := []Job{{Key: k, Pkt: pkt, SeqHi: hi, ESN: esn}}
	if NewEngine().Open(jobs); !jobs[0].OK {
		return nil
	}
	s := k.Suite()
	return pkt[8+s.IVLen() : len(pkt)-s.ICVLen()]
}

// The drafts' and RFCs' AEAD packets have IVs that are not their sequence
// numbers, so they are opened only; esp.json is for Seal.
func TestAEADVectors(t *testing.T) {
	for file, encryption := range map[string]string{
		"mcgrew_gcm_test_01.json": "aes-gcm-16", "rfc7634_a.json": "chacha20-poly1305",
	} {
		var v struct {
			Source string
			Tests  []struct{ Key, Salt, IV, AAD, Plaintext, Ciphertext, ICV hexBytes }
		}
		load(t, file, &v)
		if len(v.Tests) == 0 {
			t.Fatalf("%s: no vectors", file)
		}
		for i, c := range v.Tests {
			k := must(must(Lookup(encryption, "", len(c.Key)+4)).NewKey(append(c.Key, c.Salt...), nil))
			esn := len(c.AAD) == 12
			hi := uint32(0)
			if esn {
				hi = binary.BigEndian.Uint32(c.AAD[4:])
			}
			header := append(bytes.Clone(c.AAD[:4]), c.AAD[len(c.AAD)-4:]...)
			pkt := bytes.Join([][]byte{header, c.IV, c.Ciphertext, c.ICV}, nil)
			if got := openOne(k, pkt, hi, esn); !bytes.Equal(got, c.Plaintext) {
				t.Errorf("%s %d: got %x, want %x", file, i, got, []byte(c.Plaintext))
			}
		}
		t.Logf("%s: %d vectors", file, len(v.Tests))
	}
}

func TestRFCVectors(t *testing.T) {
	var v struct {
		Source string
		CBC    []struct {
			Case, Encryption, Integrity        string
			EncKey, AuthKey, Packet, ICV, Body hexBytes
		}
		CTR []struct {
			Case                         string
			EncKey, IV, Ciphertext, Body hexBytes
		}
		HMAC []struct {
			Case, Integrity, Data string
			AuthKey, ICV          hexBytes
		}
	}
	load(t, "rfc.json", &v)
	if len(v.CBC) != 4 || len(v.CTR) != 9 || len(v.HMAC) != 3 {
		t.Fatalf("%d, %d and %d vectors", len(v.CBC), len(v.CTR), len(v.HMAC))
	}
	for _, c := range v.CBC {
		k := must(must(Lookup(c.Encryption, c.Integrity, len(c.EncKey))).NewKey(c.EncKey, c.AuthKey))
		if got := openOne(k, append(c.Packet, c.ICV...), 0, false); !bytes.Equal(got, c.Body) {
			t.Errorf("RFC 3602 case %s: got %x, want %x", c.Case, got, []byte(c.Body))
		}
	}
	// The RFC has no packets: one of any header and integrity.
	for _, c := range v.CTR {
		s := must(Lookup("aes-ctr", "hmac-sha2-256-128", len(c.EncKey)))
		k, o := must(s.NewKey(c.EncKey, make([]byte, 32))), oracle{s, c.EncKey, make([]byte, 32)}
		pkt := bytes.Join([][]byte{make([]byte, 8), c.IV, c.Ciphertext}, nil)
		if got := openOne(k, append(pkt, o.mac(pkt, 0, false)...), 0, false); !bytes.Equal(got, c.Body) {
			t.Errorf("RFC 3686 case %s: got %x, want %x", c.Case, got, []byte(c.Body))
		}
	}
	// The text stands for a whole packet; with ESN its last 4 bytes for what is not sent.
	for _, c := range v.HMAC {
		k := must(must(Lookup("null", c.Integrity, 0)).NewKey(nil, c.AuthKey))
		for _, esn := range []bool{false, true} {
			signed, hi := []byte(c.Data), uint32(0)
			if esn {
				hi = binary.BigEndian.Uint32(signed[len(signed)-4:])
				signed = signed[:len(signed)-4]
			}
			jobs := []Job{{Key: k, Pkt: append(bytes.Clone(signed), make([]byte, len(c.ICV))...), SeqHi: hi, ESN: esn}}
			NewEngine().Seal(jobs)
			if want := append(bytes.Clone(signed), c.ICV...); !jobs[0].OK || !bytes.Equal(jobs[0].Pkt, want) {
				t.Errorf("RFC 4868 case %s, ESN %v: got %x, want %x", c.Case, esn, jobs[0].Pkt, want)
			}
		}
	}
}

// Every suite against OpenSSL, byte by byte, in both directions.
func TestOpenSSLVectors(t *testing.T) {
	var v struct {
		Source string
		Tests  []struct {
			Encryption, Integrity         string
			EncKey, AuthKey, Body, Packet hexBytes
			ESN                           bool
			SeqHi                         uint32
		}
	}
	load(t, "esp.json", &v)
	ran := map[*Suite]int{}
	for _, c := range v.Tests {
		s := must(Lookup(c.Encryption, c.Integrity, len(c.EncKey)))
		k := must(s.NewKey(c.EncKey, c.AuthKey))
		pkt := make([]byte, len(c.Packet))
		copy(pkt, c.Packet[:8])
		copy(pkt[8+s.IVLen():], c.Body)
		jobs := []Job{{Key: k, Pkt: pkt, SeqHi: c.SeqHi, ESN: c.ESN}}
		if NewEngine().Seal(jobs); !jobs[0].OK || !bytes.Equal(pkt, c.Packet) {
			t.Errorf("%s, ESN %v: seal\n got %x\nwant %x", s, c.ESN, pkt, []byte(c.Packet))
		}
		if got := openOne(k, c.Packet, c.SeqHi, c.ESN); !bytes.Equal(got, c.Body) {
			t.Errorf("%s, ESN %v: open\n got %x\nwant %x", s, c.ESN, got, []byte(c.Body))
		}
		ran[s]++
	}
	for _, s := range Suites() {
		if ran[s] != 6 {
			t.Errorf("%s: %d vectors", s, ran[s])
		}
	}
}
