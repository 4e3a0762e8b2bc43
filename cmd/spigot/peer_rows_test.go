package main

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
)

// transform is a row of the matrix: what protects a packet, in the kernel's
// words.
type transform struct {
	name string
	// parts are an AEAD, or a cipher and a hash, each with a key of so many bytes,
	// the salt included.
	parts []part
}

type part struct {
	kind, name string // aead, enc or auth-trunc; the kernel's name
	key        int    // bytes
	bits       int    // of the ICV; 0 for a cipher
}

// aeads, ciphers and hashes make the rows. A new algorithm is a line here.
var (
	aeads = []struct {
		name, kernel string
		salt         int   // bytes
		keys         []int // bits
		icvs         []int // bits
	}{
		{"aes-gcm", "rfc4106(gcm(aes))", 4, aesKeys, []int{64, 96, 128}},
		{"aes-ccm", "rfc4309(ccm(aes))", 3, aesKeys, []int{64, 96, 128}},
		{"aes-gmac", "rfc4543(gcm(aes))", 4, aesKeys, []int{128}},
		{"chacha20-poly1305", "rfc7539esp(chacha20,poly1305)", 4, []int{256}, []int{128}},
	}
	ciphers = []struct {
		name, kernel string
		salt         int   // bytes
		keys         []int // bits
	}{
		{"aes-cbc", "cbc(aes)", 0, aesKeys},
		{"aes-ctr", "rfc3686(ctr(aes))", 4, aesKeys},
		{"null", "ecb(cipher_null)", 0, []int{0}},
	}
	hashes = []struct {
		name, kernel string
		key, icv     int // bits
	}{
		{"hmac-sha1", "hmac(sha1)", 160, 96},
		{"hmac-sha2-256", "hmac(sha256)", 256, 128},
		{"hmac-sha2-384", "hmac(sha384)", 384, 192},
		{"hmac-sha2-512", "hmac(sha512)", 512, 256},
		{"aes-xcbc", "xcbc(aes)", 128, 96},
		{"aes-cmac", "cmac(aes)", 128, 96},
	}
	aesKeys = []int{128, 192, 256}
)

// espTransforms lists all rows of ESP.
func espTransforms() (all []transform) {
	for _, a := range aeads {
		for _, key := range a.keys {
			for _, icv := range a.icvs {
				name := fmt.Sprintf("%s-%d, %d bytes", a.name, key, icv/8)
				all = append(all, transform{name, []part{{"aead", a.kernel, key/8 + a.salt, icv}}})
			}
		}
	}
	for _, c := range ciphers {
		for _, key := range c.keys {
			for _, h := range hashes {
				name := fmt.Sprintf("%s-%d/%s-%d", c.name, key, h.name, h.icv)
				all = append(all, transform{name, []part{
					{"auth-trunc", h.kernel, h.key / 8, h.icv}, {"enc", c.kernel, key/8 + c.salt, 0},
				}})
			}
		}
	}
	return all
}

// ahTransforms lists all rows of AH.
func ahTransforms() (all []transform) {
	for _, h := range hashes {
		all = append(all, transform{fmt.Sprintf("%s-%d", h.name, h.icv), []part{{"auth-trunc", h.kernel, h.key / 8, h.icv}}})
	}
	return all
}

// short leaves out of the rows those that say little new: with a cipher and a
// key each hash, and the other keys with one hash; of the AEADs with ICVs cut
// short, one key each. All integrity algorithms of AH stay.
func short(rows []transform) []transform {
	return slices.DeleteFunc(slices.Clone(rows), func(t transform) bool {
		if len(t.parts) == 1 {
			return t.parts[0].kind == "aead" && t.parts[0].bits < 128 && t.parts[0].key > 20
		}
		hash, cipher := t.parts[0], t.parts[1]
		return hash.name != "hmac(sha256)" && cipher.key > 20
	})
}

// line is what `ip xfrm state add` says of t, with keys of its own for each seed.
func (t transform) line(seed string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(seed)) // never fails
	noise := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%032x", h.Sum64()))))
	var b strings.Builder
	for _, p := range t.parts {
		key := make([]byte, p.key)
		_, _ = noise.Read(key) // never fails
		text := "''"
		if p.key > 0 {
			text = "0x" + hex.EncodeToString(key)
		}
		fmt.Fprintf(&b, " %s '%s' %s", p.kind, p.name, text)
		if p.bits > 0 {
			fmt.Fprintf(&b, " %d", p.bits)
		}
	}
	return b.String()
}

// shape is how packets are wrapped, whatever protects them: columns of the
// matrix, one for each family of the inner packets.
type shape struct {
	name   string
	proto  string
	mode   string
	outer  int    // index into the addresses: 0 for v4, 1 for v6
	inners []int  // families
	extra  string // what else `ip xfrm state add` is told
	least  int    // the smallest payload that Linux takes
}

const (
	// espInUDP is what RFC 3948 does, from port 4500 to port 4500.
	espInUDP = " encap espinudp 4500 4500 0.0.0.0"
	// leastInUDP6 is the payload that makes 40 bytes of ESP with the shortest IV
	// and ICV. Linux drops fewer in UDP over IPv6: xfrm6_udp_encap_rcv wants room for
	// an IPv6 header behind that of UDP.
	leastInUDP6 = 7
	// align4 has Linux make AH as long as RFC 4302 wants it over IPv4. Else it
	// makes it a multiple of 8 bytes long, as over IPv6.
	align4 = " flag align4"
)

// matrix is a table of cases: each row in each shape.
type matrix struct {
	name   string
	rows   []transform
	shapes []shape
}

// matrices are all there is to judge.
func matrices() []matrix {
	v4, v6, any := []int{0}, []int{1}, []int{0, 1}
	return []matrix{
		{"ESP", espTransforms(), []shape{
			{"tunnel", "esp", "tunnel", 0, any, "", 0},
			{"tunnel", "esp", "tunnel", 1, any, "", 0},
			{"UDP tunnel", "esp", "tunnel", 0, any, espInUDP, 0},
			{"UDP tunnel", "esp", "tunnel", 1, any, espInUDP, 0},
			{"transport", "esp", "transport", 0, v4, "", 0},
			{"transport", "esp", "transport", 1, v6, "", 0},
			{"UDP transport", "esp", "transport", 0, v4, espInUDP, 0},
			{"UDP transport", "esp", "transport", 1, v6, espInUDP, leastInUDP6},
		}},
		{"AH", ahTransforms(), []shape{
			{"tunnel", "ah", "tunnel", 0, any, "", 0},
			{"tunnel", "ah", "tunnel", 1, any, "", 0},
			{"tunnel align4", "ah", "tunnel", 0, any, align4, 0},
			{"transport", "ah", "transport", 0, v4, "", 0},
			{"transport", "ah", "transport", 1, v6, "", 0},
			{"transport align4", "ah", "transport", 0, v4, align4, 0},
		}},
	}
}

// skips says whether make test leaves a case out: each row meets ESN and its
// absence about equally often, and of the shapes of ESP but the plain tunnels one
// of two.
func (m *matrix) skips(row, shape int, esn bool) bool {
	if esn != ((row+shape)%2 == 0) {
		return true
	}
	return m.name == "ESP" && shape >= 2 && (row+shape/2)%2 == 0
}

// column names a column of the table.
func (s shape) column(inner int) string {
	if s.mode == "transport" {
		return fmt.Sprintf("%s %d", s.name, 4+2*inner)
	}
	return fmt.Sprintf("%s %d in %d", s.name, 4+2*inner, 4+2*s.outer)
}

// ends are the addresses between which packets go: in a tunnel, of the host and
// behind the guest; in transport mode, the gateway's own and the guest's own.
func (s shape) ends() (near, far [2]string) {
	if s.mode == "transport" {
		return nearAddr, farAddr
	}
	return hostAddr, innerAddr
}

// policies is a batch that makes the policies of the gateway, or of the guest.
func (s shape) policies(guest bool) string {
	var b strings.Builder
	b.WriteString("xfrm policy flush\n")
	mine, others := s.ends()
	near, far := nearAddr[s.outer], farAddr[s.outer]
	if guest {
		mine, others, near, far = others, mine, far, near
	}
	for _, f := range s.inners {
		fmt.Fprintf(&b, "xfrm policy add src %s dst %s dir out tmpl src %s dst %s proto %s reqid 1 mode %s\n",
			mine[f], others[f], near, far, s.proto, s.mode)
		fmt.Fprintf(&b, "xfrm policy add src %s dst %s dir in tmpl src %s dst %s proto %s reqid 1 mode %s\n",
			others[f], mine[f], far, near, s.proto, s.mode)
	}
	return b.String()
}
