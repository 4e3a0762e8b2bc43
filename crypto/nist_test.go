package crypto

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Where Debian's package of vectors puts NIST's files and RFCs' in their format.
const (
	nistFolder  = "/usr/lib/python3/dist-packages/cryptography_vectors"
	nistPackage = "apt-get install python3-cryptography-vectors"
)

// nistVector is a vector's fields by lower-case name, those of its group
// included.
type nistVector map[string]string

func (v nistVector) bytes(t *testing.T, name string) []byte {
	t.Helper()
	b, err := hex.DecodeString(v[name])
	if err != nil {
		t.Fatalf("%s = %q: %v", name, v[name], err)
	}
	return b
}

func (v nistVector) number(t *testing.T, name string) int {
	t.Helper()
	n, err := strconv.Atoi(v[name])
	if err != nil {
		t.Fatalf("%s = %q: %v", name, v[name], err)
	}
	return n
}

// nistFile reads the vectors of the files that match pattern. Paragraphs are
// vectors; what stands in brackets, and a paragraph that is no vector, holds for
// those behind it.
func nistFile(t *testing.T, pattern string) (all []nistVector) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(nistFolder, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: no such files, whose vectors this test needs\nDebian: %s", filepath.Join(nistFolder, pattern), nistPackage)
	}
	for _, name := range names {
		group := nistVector{}
		text := strings.ReplaceAll(string(must(os.ReadFile(name))), "\r", "")
		for paragraph := range strings.SplitSeq(text, "\n\n") {
			v := nistVector{"file": filepath.Base(name)}
			for line := range strings.Lines(paragraph) {
				line = strings.TrimSpace(line)
				into := v
				if strings.HasPrefix(line, "[") {
					line, into = strings.Trim(line, "[]"), group
				}
				if strings.HasPrefix(line, "#") {
					continue
				}
				for field := range strings.SplitSeq(line, ", ") {
					key, value, _ := strings.Cut(field, "=")
					into[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
				}
			}
			isVector := v["count"] != "" || v["msg"] != "" || v["message"] != ""
			for key, value := range group {
				if _, ok := v[key]; !ok && isVector {
					v[key] = value
				}
			}
			if isVector {
				all = append(all, v)
				continue
			}
			for key, value := range v {
				group[key] = value
			}
		}
	}
	return all
}

// ran tells how many vectors ran; none is a failure.
func ran(t *testing.T, what string, n, of int) {
	t.Helper()
	t.Logf("%s: ran %d of %d vectors", what, n, of)
	if n == 0 {
		t.Errorf("%s: no vector ran", what)
	}
}

// AES-GCM where NIST's nonces and tags are those of ESP: the two passes as the
// vector stands, whatever its AAD; GMAC where there is no text; and the
// stitched kernels with the AAD of a packet. For them the tag is carried over:
// the mask is the same, so that the tags differ by what the two passes, which
// have just been judged, hash differently.
func TestNISTGCM(t *testing.T) {
	e := NewEngine()
	for _, bits := range []string{"128", "192", "256"} {
		all := nistFile(t, "ciphers/AES/GCM/gcmEncryptExtIV"+bits+".rsp")
		two, alone, stitched := 0, 0, 0
		for _, v := range all {
			tag := v.bytes(t, "tag")
			icv := len(tag)
			if v["ivlen"] != "96" || icv != 8 && icv != 12 && icv != 16 {
				continue
			}
			key, iv, aad, plain, ct := v.bytes(t, "key"), v.bytes(t, "iv"), v.bytes(t, "aad"), v.bytes(t, "pt"), v.bytes(t, "ct")
			full := slices.Concat(key, iv[:4])
			k := must(must(Lookup("aes-gcm-"+strconv.Itoa(icv), "", len(full))).NewKey(full, nil))
			parts := func(aad, ct []byte) []byte { // the whole tag
				if k.gcm == nil {
					return stdTag(k, iv, aad, ct)
				}
				return bytes.Clone(e.tagGCM(k, iv, aad, ct))
			}
			if got := parts(aad, ct); !bytes.Equal(got[:icv], tag) {
				t.Errorf("%s, count %s: tag %x, want %x", v["file"], v["count"], got, tag)
			}
			if k.gcm != nil {
				text := bytes.Clone(plain)
				if e.cryptGCM(k, iv, text); !bytes.Equal(text, ct) {
					t.Errorf("%s, count %s: encrypted to %x, want %x", v["file"], v["count"], text, ct)
				}
			}
			two++
			if len(ct) == 0 && icv == 16 {
				a := must(must(LookupIntegrity("aes-gmac", len(full))).NewKey(nil, full))
				if !e.Verify(a, tag, iv[4:], aad) {
					t.Errorf("%s, count %s: GMAC refuses", v["file"], v["count"])
				}
				alone++
			}
			if n := len(ct) &^ 3; n > 0 && icv == 16 {
				header := slices.Concat(key[:4], iv[8:])
				carried := parts(header, ct[:n])
				xorBlock(carried, parts(aad, ct))
				xorBlock(carried, tag)
				pkt := slices.Concat(header, iv[4:], ct[:n], carried)
				if got := openOne(k, pkt, 0, false); !bytes.Equal(got, plain[:n]) {
					t.Errorf("%s, count %s: opened to %x, want %x", v["file"], v["count"], got, plain[:n])
				}
				stitched++
			}
		}
		ran(t, "gcmEncryptExtIV"+bits+", two passes", two, len(all))
		ran(t, "gcmEncryptExtIV"+bits+", GMAC", alone, len(all))
		ran(t, "gcmEncryptExtIV"+bits+", as packets", stitched, len(all))
	}
}

// stdTag is the tag of a ciphertext on the standard library, which makes it of
// a plaintext: that is what the ciphertext encrypts to.
func stdTag(k *Key, nonce, aad, ct []byte) []byte {
	plain := k.aead.Seal(nil, nonce, ct, aad)[:len(ct)]
	return k.aead.Seal(nil, nonce, plain, aad)[len(ct):]
}

// AES-CCM of all of NIST's lengths of nonces, AAD and tags.
func TestNISTCCM(t *testing.T) {
	e := NewEngine()
	for _, name := range []string{"DVPT", "VADT", "VNT", "VPT", "VTT"} {
		all, n, refused := nistFile(t, "ciphers/AES/CCM/"+name+"???.rsp"), 0, 0
		for _, v := range all {
			key, nonce, ct := v.bytes(t, "key"), v.bytes(t, "nonce"), v.bytes(t, "ct")
			aad, tag := v.bytes(t, "adata")[:v.number(t, "alen")], v.number(t, "tlen")
			full := append(key, 0, 0, 0)
			k := must(must(Lookup("aes-ccm-16", "", len(full))).NewKey(full, nil))
			text, icv := bytes.Clone(ct[:len(ct)-tag]), ct[len(ct)-tag:]
			e.cryptCCM(k, nonce, text)
			ok := bytes.Equal(e.tagCCM(k, nonce, aad, text, tag), icv)
			if want := v["result"] != "Fail"; ok != want {
				t.Errorf("%s, count %s: opened %v, want %v", v["file"], v["count"], ok, want)
			}
			n++
			if !ok {
				refused++
				continue
			}
			if plain := v.bytes(t, "payload")[:v.number(t, "plen")]; !bytes.Equal(text, plain) {
				t.Errorf("%s, count %s: opened to %x, want %x", v["file"], v["count"], text, plain)
			}
		}
		ran(t, "CCM "+name, n, len(all))
		if (refused > 0) != (name == "DVPT") {
			t.Errorf("%s: %d refused", name, refused)
		}
	}
}

// AES-CBC and AES-CTR as packets with HMAC-SHA2-256.
func TestNISTCiphers(t *testing.T) {
	auth := make([]byte, 32)
	for _, c := range []struct{ pattern, encryption string }{
		{"ciphers/AES/CBC/CBC*.rsp", "aes-cbc"}, {"ciphers/AES/CTR/aes-*-ctr.txt", "aes-ctr"},
	} {
		all := nistFile(t, c.pattern)
		for _, v := range all {
			key, iv := v.bytes(t, "key"), v.bytes(t, "iv")
			if c.encryption == "aes-ctr" {
				key, iv = append(key, iv[:4]...), iv[4:12]
			}
			k := must(must(Lookup(c.encryption, "hmac-sha2-256-128", len(key))).NewKey(key, auth))
			pkt := slices.Concat(make([]byte, 8), iv, v.bytes(t, "ciphertext"))
			h := hmac.New(sha256.New, auth)
			h.Write(pkt)
			if got, want := openOne(k, h.Sum(pkt)[:len(pkt)+16], 0, false), v.bytes(t, "plaintext"); !bytes.Equal(got, want) {
				t.Errorf("%s, count %s: opened to %x, want %x", v["file"], v["count"], got, want)
			}
		}
		ran(t, c.pattern, len(all), len(all))
	}
}

// AES-CMAC and HMAC with keys of the lengths that the RFCs for ESP name. The
// files for HMAC-SHA2 (RFC 4231) have none.
func TestNISTIntegrity(t *testing.T) {
	e := NewEngine()
	for _, c := range []struct{ file, integrity, message, sum string }{
		{"CMAC/nist-800-38b-aes128.txt", "aes-cmac-96", "message", "output"},
		{"HMAC/rfc-2202-sha1.txt", "hmac-sha1-96", "msg", "md"},
	} {
		all, n := nistFile(t, c.file), 0
		for _, v := range all {
			key := v.bytes(t, "key")
			s, err := LookupIntegrity(c.integrity, len(key))
			if err != nil { // a key of another length
				continue
			}
			if !e.Verify(must(s.NewKey(nil, key)), v.bytes(t, c.sum)[:s.ICVLen()], nil, v.bytes(t, c.message)) {
				t.Errorf("%s: %x is refused", c.file, v.bytes(t, c.message))
			}
			n++
		}
		ran(t, c.file, n, len(all))
	}
}
