package pfkey

import (
	"slices"

	"golang.org/x/sys/unix"

	"spigot/crypto"
	"spigot/sad"
)

// algorithm is a number and crypto's name for it. Which of these there are,
// crypto says.
type algorithm struct {
	number uint8
	name   string
	salt   int // bytes after the key
}

// noAuth is the number by which KAME says that there is no authentication
// algorithm; 0 says it too.
const noAuth = 251

var (
	authAlgorithms = []algorithm{
		{number: 3, name: "hmac-sha1-96"},
		{number: 5, name: "hmac-sha2-256-128"}, // 128 bits as RFC 4868 says, where Linux's PF_KEY means 96
		{number: 6, name: "hmac-sha2-384-192"},
		{number: 7, name: "hmac-sha2-512-256"},
		{number: 9, name: "aes-xcbc-96"},
	}
	encAlgorithms = []algorithm{
		{number: 11, name: "null"},
		{number: 12, name: "aes-cbc"},
		{number: 13, name: "aes-ctr", salt: 4},
		{number: 14, name: "aes-ccm-8", salt: 3},
		{number: 15, name: "aes-ccm-12", salt: 3},
		{number: 16, name: "aes-ccm-16", salt: 3},
		{number: 18, name: "aes-gcm-8", salt: 4},
		{number: 19, name: "aes-gcm-12", salt: 4},
		{number: 20, name: "aes-gcm-16", salt: 4},
		{number: 23, name: "null-aes-gmac", salt: 4},
		{number: 31, name: "chacha20-poly1305", salt: 4}, // FreeBSD's number; Linux's PF_KEY has none
	}
)

func numbered(all []algorithm, number uint8) (algorithm, bool) {
	i := slices.IndexFunc(all, func(a algorithm) bool { return a.number == number })
	if i < 0 {
		return algorithm{}, false
	}
	return all[i], true
}

// numberOf returns the number of a name, 0 for one that has none.
func numberOf(all []algorithm, name string) uint8 {
	i := slices.IndexFunc(all, func(a algorithm) bool { return a.name == name })
	if i < 0 {
		return 0
	}
	return all[i].number
}

// algorithms reads the algorithms and keys of an SA into p, which shares the
// keys' memory with m.
func (m *Message) algorithms(p *sad.Params) error {
	if p.Proto == protoAH {
		switch {
		case m.SA.Enc != 0 || m.Has.Has(ExtEncKey):
			return errorf(errInvalid, "AH with an encryption algorithm or a key for one")
		case m.SA.Auth == 0 || m.SA.Auth == noAuth:
			return errorf(errInvalid, "AH without an authentication algorithm")
		}
		return m.integrity(p)
	}
	enc, ok := numbered(encAlgorithms, m.SA.Enc)
	switch {
	case m.SA.Enc == 0:
		return errorf(errInvalid, "ESP without an encryption algorithm: NULL has a number, too")
	case !ok:
		return errorf(unix.ENOSYS, "encryption algorithm %d is not there", m.SA.Enc)
	case enc.name != "null" && !m.Has.Has(ExtEncKey):
		return errorf(errInvalid, "%s without a key", enc.name)
	}
	p.Encryption, p.EncKey = enc.name, m.EncKey
	if m.SA.Auth == 0 || m.SA.Auth == noAuth {
		return nil
	}
	return m.integrity(p)
}

// integrity reads the integrity algorithm, which there is, and its key.
func (m *Message) integrity(p *sad.Params) error {
	auth, ok := numbered(authAlgorithms, m.SA.Auth)
	switch {
	case !ok:
		return errorf(unix.ENOSYS, "authentication algorithm %d is not there", m.SA.Auth)
	case !m.Has.Has(ExtAuthKey):
		return errorf(errInvalid, "%s without a key", auth.name)
	}
	p.Integrity, p.AuthKey = auth.name, m.AuthKey
	return nil
}

// supported is what REGISTER and ACQUIRE tell of the algorithms there are.
type supported struct {
	auth, enc []Algorithm
	combs     []Comb // of ESP, best first
	ah        []Comb // of AH, best first
}

// supports asks crypto what there is.
func supports(legacy bool) (s supported) {
	authLen := map[string]int{}
	for _, enc := range encAlgorithms {
		a := Algorithm{ID: enc.number}
		found := false
		for n := 0; n <= 64; n++ {
			for _, auth := range append([]algorithm{{}}, authAlgorithms...) {
				suite, err := crypto.Lookup(enc.name, auth.name, n)
				if err != nil || crypto.Legacy(auth.name) && !legacy {
					continue
				}
				bits := uint16(8 * (n - enc.salt))
				if !found {
					a.IVLen, a.MinBits, found = uint8(suite.IVLen()), bits, true
				}
				a.MaxBits = bits
				authLen[auth.name] = suite.AuthKeyLen()
				if enc.name != "null" && enc.name != "null-aes-gmac" {
					s.combs = append(s.combs, combOf(enc, auth, bits, suite))
				}
			}
		}
		if found {
			s.enc = append(s.enc, a)
		}
	}
	for _, auth := range authAlgorithms {
		if n, ok := authLen[auth.name]; ok {
			bits := uint16(8 * n)
			s.auth = append(s.auth, Algorithm{ID: auth.number, MinBits: bits, MaxBits: bits})
			s.ah = append(s.ah, Comb{Auth: auth.number, AuthMin: bits, AuthMax: bits, SoftAddTime: proposedSoft, HardAddTime: proposedHard})
		}
	}
	slices.SortStableFunc(s.combs, func(a, b Comb) int { return a.rank() - b.rank() })
	slices.SortStableFunc(s.ah, func(a, b Comb) int { return a.rank() - b.rank() })
	s.combs = s.combs[:min(len(s.combs), maxCombs)]
	return s
}

// maxCombs bounds an ACQUIRE to MaxMessage.
const maxCombs = 48

// The lifetimes in seconds that an ACQUIRE proposes: a day, and renewal after
// 20 hours.
const (
	proposedHard = 24 * 60 * 60
	proposedSoft = 20 * 60 * 60
)

func combOf(enc, auth algorithm, bits uint16, suite *crypto.Suite) Comb {
	authBits := uint16(8 * suite.AuthKeyLen())
	return Comb{
		Auth: auth.number, AuthMin: authBits, AuthMax: authBits,
		Enc: enc.number, EncMin: bits, EncMax: bits,
		SoftAddTime: proposedSoft, HardAddTime: proposedHard,
	}
}

// rank puts AEAD first, where one pass does both, and weak integrity last.
func (c *Comb) rank() int {
	switch {
	case c.Enc == 20:
		return 0
	case c.Enc == 31 || c.Enc == 16:
		return 1
	case c.Auth == 5 || c.Auth == 6 || c.Auth == 7:
		return 2
	case c.Auth == 0: // short ICVs
		return 3
	case c.Auth != 3:
		return 4
	}
	return 5
}
