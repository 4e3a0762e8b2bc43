package xfrm

import (
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"

	"spigot/sad"
)

// algorithm is one of the kernel's names, with the length of the ICV in bits,
// and crypto's name for it.
type algorithm struct {
	name  string
	alias string // an older name of the same, "" if none
	bits  uint32 // of the ICV; 0: it has none
	to    string
}

// Which of these there are, crypto says: a name that it does not know is
// ENOSYS, as of a kernel that was built without.
var (
	aeads = []algorithm{
		{name: "rfc4106(gcm(aes))", bits: 128, to: "aes-gcm-16"},
		{name: "rfc4106(gcm(aes))", bits: 96, to: "aes-gcm-12"},
		{name: "rfc4106(gcm(aes))", bits: 64, to: "aes-gcm-8"},
		{name: "rfc4309(ccm(aes))", bits: 128, to: "aes-ccm-16"},
		{name: "rfc4309(ccm(aes))", bits: 96, to: "aes-ccm-12"},
		{name: "rfc4309(ccm(aes))", bits: 64, to: "aes-ccm-8"},
		{name: "rfc4543(gcm(aes))", bits: 128, to: "null-aes-gmac"},
		{name: "rfc7539esp(chacha20,poly1305)", bits: 128, to: "chacha20-poly1305"},
	}
	ciphers = []algorithm{
		{name: "cbc(aes)", alias: "aes", to: "aes-cbc"},
		{name: "rfc3686(ctr(aes))", to: "aes-ctr"},
		{name: "ecb(cipher_null)", alias: "cipher_null", to: "null"},
	}
	// The first length of a hash is what an ALG_AUTH, which has none, means: RFC
	// 4868's. (Linux takes 96 bits of SHA-256 then, which no RFC has and no peer
	// agrees to; key daemons always say the length.)
	hashes = []algorithm{
		{name: "hmac(sha256)", alias: "sha256", bits: 128, to: "hmac-sha2-256-128"},
		{name: "hmac(sha384)", alias: "sha384", bits: 192, to: "hmac-sha2-384-192"},
		{name: "hmac(sha512)", alias: "sha512", bits: 256, to: "hmac-sha2-512-256"},
		{name: "hmac(sha1)", alias: "sha1", bits: 96, to: "hmac-sha1-96"},
		{name: "xcbc(aes)", bits: 96, to: "aes-xcbc-96"},
		{name: "cmac(aes)", bits: 96, to: "aes-cmac-96"},
	}
)

// find returns the algorithm of a name in all. 0 bits are the first's.
func find(all []algorithm, a *algo) (*algorithm, error) {
	i := slices.IndexFunc(all, func(x algorithm) bool {
		return (x.name == a.name || x.alias != "" && x.alias == a.name) && (x.bits == a.bits || a.bits == 0)
	})
	if i < 0 {
		return nil, refuse(syscall.ENOSYS, "algorithm %q with an ICV of %d bits is not there", a.name, a.bits)
	}
	return &all[i], nil
}

// algorithms reads the algorithms and keys of an SA into p; the keys alias a.
func (a *attrs) algorithms(p *sad.Params) error {
	switch {
	case p.Proto == protoAH && (a[nl.XFRMA_ALG_AEAD] != nil || a[nl.XFRMA_ALG_CRYPT] != nil || a[nl.XFRMA_ALG_COMP] != nil):
		return refuse(eINVAL, "an SA of AH that encrypts or compresses: give it a hash alone")
	case p.Proto == protoAH && a[nl.XFRMA_ALG_AUTH_TRUNC] == nil && a[nl.XFRMA_ALG_AUTH] == nil:
		return refuse(eINVAL, "no hash: AH needs one")
	case p.Proto == protoAH:
		return a.hash(p)
	case a[nl.XFRMA_ALG_COMP] != nil:
		return refuse(eINVAL, "compression in an ESP SA: it is an SA of its own")
	case a[nl.XFRMA_ALG_AEAD] != nil && (a[nl.XFRMA_ALG_CRYPT] != nil || a[nl.XFRMA_ALG_AUTH] != nil || a[nl.XFRMA_ALG_AUTH_TRUNC] != nil):
		return refuse(eINVAL, "an AEAD together with a cipher or a hash: give one or the other")
	case a[nl.XFRMA_ALG_AEAD] != nil:
		return pick(aeads, a[nl.XFRMA_ALG_AEAD], true, &p.Encryption, &p.EncKey)
	case a[nl.XFRMA_ALG_CRYPT] == nil:
		return refuse(eINVAL, "no cipher: give an AEAD, or a cipher (ecb(cipher_null) for none) and a hash")
	}
	if err := pick(ciphers, a[nl.XFRMA_ALG_CRYPT], false, &p.Encryption, &p.EncKey); err != nil {
		return err
	}
	return a.hash(p)
}

// hash reads the integrity algorithm and its key, if there is one.
func (a *attrs) hash(p *sad.Params) error {
	if b := a[nl.XFRMA_ALG_AUTH_TRUNC]; b != nil {
		return pick(hashes, b, true, &p.Integrity, &p.AuthKey)
	}
	if b := a[nl.XFRMA_ALG_AUTH]; b != nil {
		return pick(hashes, b, false, &p.Integrity, &p.AuthKey)
	}
	return nil
}

// pick reads an algorithm of all and its key from b.
func pick(all []algorithm, b []byte, sized bool, name *string, key *[]byte) error {
	a := algo{sized: sized}
	if err := decode(b, &a); err != nil {
		return err
	}
	x, err := find(all, &a)
	if err != nil {
		return err
	}
	*name, *key = x.to, a.key
	return nil
}

// algorithms appends the algorithms of an SA and the keys that p has: none,
// where the SADB was not asked for them.
func (m *message) algorithms(p *sad.Params) {
	put := func(all []algorithm, to string, typ int, sized bool, key []byte) bool {
		i := slices.IndexFunc(all, func(x algorithm) bool { return x.to == to })
		if i >= 0 {
			m.attr(typ, &algo{name: all[i].name, sized: sized, bits: all[i].bits, key: key})
		}
		return i >= 0
	}
	if put(aeads, p.Encryption, nl.XFRMA_ALG_AEAD, true, p.EncKey) {
		return
	}
	if put(hashes, p.Integrity, nl.XFRMA_ALG_AUTH, false, p.AuthKey) {
		put(hashes, p.Integrity, nl.XFRMA_ALG_AUTH_TRUNC, true, p.AuthKey)
	}
	put(ciphers, p.Encryption, nl.XFRMA_ALG_CRYPT, false, p.EncKey)
}
