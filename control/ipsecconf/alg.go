package ipsecconf

import (
	"slices"
	"strconv"
	"strings"
)

// algorithm is one of OpenBSD's names and what it stands for.
type algorithm struct {
	name   string
	to     string // crypto's name
	keys   []int  // lengths of keys in bytes, salt included
	salt   int    // bytes of salt at the key's end
	aead   bool   // authenticates by itself
	refuse string // why there is none, and what to take
}

// Why some of OpenBSD's algorithms are not offered (RFC 8221).
const (
	smallBlock = "its 64-bit blocks leak plaintext after a few gigabytes (RFC 8221): use aes or aes-gcm"
	weakDES    = "its 56-bit keys can be found by trying (RFC 8221 says MUST NOT): use aes or aes-gcm"
	weakHash   = "its hash is broken (RFC 8221): use hmac-sha2-256"
	noMAC      = "it is not offered: use hmac-sha2-256"
)

var encryptions = []algorithm{
	{name: "aes", to: "aes-cbc", keys: []int{16, 24, 32}},
	{name: "aes-128", to: "aes-cbc", keys: []int{16}},
	{name: "aes-192", to: "aes-cbc", keys: []int{24}},
	{name: "aes-256", to: "aes-cbc", keys: []int{32}},
	{name: "aesctr", to: "aes-ctr", keys: []int{20, 28, 36}, salt: 4},
	{name: "aes-128-ctr", to: "aes-ctr", keys: []int{20}, salt: 4},
	{name: "aes-192-ctr", to: "aes-ctr", keys: []int{28}, salt: 4},
	{name: "aes-256-ctr", to: "aes-ctr", keys: []int{36}, salt: 4},
	{name: "aes-gcm", to: "aes-gcm-16", keys: []int{20, 28, 36}, salt: 4, aead: true},
	{name: "aes-128-gcm", to: "aes-gcm-16", keys: []int{20}, salt: 4, aead: true},
	{name: "aes-192-gcm", to: "aes-gcm-16", keys: []int{28}, salt: 4, aead: true},
	{name: "aes-256-gcm", to: "aes-gcm-16", keys: []int{36}, salt: 4, aead: true},
	{name: "aes-gmac", to: "null-aes-gmac", keys: []int{20, 28, 36}, salt: 4, aead: true},
	{name: "aes-128-gmac", to: "null-aes-gmac", keys: []int{20}, salt: 4, aead: true},
	{name: "aes-192-gmac", to: "null-aes-gmac", keys: []int{28}, salt: 4, aead: true},
	{name: "aes-256-gmac", to: "null-aes-gmac", keys: []int{36}, salt: 4, aead: true},
	{name: "chacha20-poly1305", to: "chacha20-poly1305", keys: []int{36}, salt: 4, aead: true},
	// OpenBSD has none of these.
	{name: "aes-gcm-12", to: "aes-gcm-12", keys: []int{20, 28, 36}, salt: 4, aead: true},
	{name: "aes-gcm-8", to: "aes-gcm-8", keys: []int{20, 28, 36}, salt: 4, aead: true},
	{name: "aes-gcm-iiv", to: "aes-gcm-16-iiv", keys: []int{20, 28, 36}, salt: 4, aead: true},
	{name: "aes-ccm", to: "aes-ccm-16", keys: []int{19, 27, 35}, salt: 3, aead: true},
	{name: "aes-ccm-12", to: "aes-ccm-12", keys: []int{19, 27, 35}, salt: 3, aead: true},
	{name: "aes-ccm-8", to: "aes-ccm-8", keys: []int{19, 27, 35}, salt: 3, aead: true},
	{name: "aes-ccm-8-iiv", to: "aes-ccm-8-iiv", keys: []int{19, 27, 35}, salt: 3, aead: true},
	{name: "chacha20-poly1305-iiv", to: "chacha20-poly1305-iiv", keys: []int{36}, salt: 4, aead: true},
	{name: "null", to: "null", keys: []int{0}},

	{name: "des", refuse: weakDES},
	{name: "des-cbc", refuse: weakDES},
	{name: "3des", refuse: smallBlock},
	{name: "3des-cbc", refuse: smallBlock},
	{name: "blowfish", refuse: smallBlock},
	{name: "cast", refuse: smallBlock},
	{name: "cast128", refuse: smallBlock},
	{name: "skipjack", refuse: smallBlock},
}

var integrities = []algorithm{
	{name: "hmac-sha2-256", to: "hmac-sha2-256-128", keys: []int{32}},
	{name: "hmac-sha2-384", to: "hmac-sha2-384-192", keys: []int{48}},
	{name: "hmac-sha2-512", to: "hmac-sha2-512-256", keys: []int{64}},

	{name: "hmac-sha1", to: "hmac-sha1-96", keys: []int{20}}, // whether it is allowed, the gateway says
	{name: "aes-xcbc", to: "aes-xcbc-96", keys: []int{16}},
	{name: "aes-cmac", to: "aes-cmac-96", keys: []int{16}},

	{name: "aes-gmac", to: "aes-gmac", keys: []int{20, 28, 36}, salt: 4}, // of AH alone

	{name: "hmac-md5", refuse: weakHash},
	{name: "hmac-ripemd160", refuse: noMAC},
}

// nothing is the encryption of AH.
var nothing = algorithm{name: "ah", keys: []int{0}}

// OpenBSD's defaults.
const (
	defaultEncryption = "aes"
	defaultIntegrity  = "hmac-sha2-256"
)

func named(all []algorithm, name string) *algorithm {
	if i := slices.IndexFunc(all, func(a algorithm) bool { return a.name == name }); i >= 0 {
		return &all[i]
	}
	return nil
}

// choose reads the name of one of the algorithms.
func (c *cursor) choose(all []algorithm) (*algorithm, *Error) {
	t, err := c.text("the name of an algorithm")
	if err != nil {
		return nil, err
	}
	a := named(all, t.text)
	if a == nil {
		var names []string
		for _, a := range all {
			if a.refuse == "" {
				names = append(names, a.name)
			}
		}
		return nil, errorAt(t.pos, "unknown algorithm %v: %s", t, oneOf(names))
	}
	if a.refuse != "" {
		return nil, errorAt(t.pos, "algorithm %s is refused: %s", a.name, a.refuse)
	}
	return a, nil
}

// lengths tells the lengths of a's keys.
func (a *algorithm) lengths() string {
	var s []string
	for _, n := range a.keys {
		s = append(s, strconv.Itoa(n))
	}
	text := strings.Join(s, " or ") + " bytes"
	if a.salt > 0 {
		text += ", the last " + strconv.Itoa(a.salt) + " of which are the salt"
	}
	return text
}
