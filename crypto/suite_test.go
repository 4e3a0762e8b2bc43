package crypto

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

func TestLookup(t *testing.T) {
	for _, c := range []struct {
		encryption, integrity string
		encKeyLen             int
		name                  string
		authKeyLen            int
		iv, icv, align        int
		counter               bool
	}{
		{"aes-gcm-16", "", 20, "aes-gcm-16-128", 0, 8, 16, 4, true},
		{"aes-gcm-16", "", 28, "aes-gcm-16-192", 0, 8, 16, 4, true},
		{"aes-gcm-16", "", 36, "aes-gcm-16-256", 0, 8, 16, 4, true},
		{"chacha20-poly1305", "", 36, "chacha20-poly1305", 0, 8, 16, 4, true},
		{"aes-gcm-12", "", 28, "aes-gcm-12-192", 0, 8, 12, 4, true},
		{"aes-gcm-8", "", 36, "aes-gcm-8-256", 0, 8, 8, 4, true},
		{"aes-gcm-16-iiv", "", 20, "aes-gcm-16-iiv-128", 0, 0, 16, 4, true},
		{"chacha20-poly1305-iiv", "", 36, "chacha20-poly1305-iiv", 0, 0, 16, 4, true},
		{"aes-ccm-16", "", 19, "aes-ccm-16-128", 0, 8, 16, 4, true},
		{"aes-ccm-12", "", 27, "aes-ccm-12-192", 0, 8, 12, 4, true},
		{"aes-ccm-8", "", 35, "aes-ccm-8-256", 0, 8, 8, 4, true},
		{"aes-ccm-8-iiv", "", 19, "aes-ccm-8-iiv-128", 0, 0, 8, 4, true},
		{"null-aes-gmac", "", 20, "null-aes-gmac-128", 0, 8, 16, 4, true},
		{"aes-cbc", "hmac-sha1-96", 16, "aes-cbc-128/hmac-sha1-96", 20, 16, 12, 16, false},
		{"aes-ctr", "aes-xcbc-96", 28, "aes-ctr-192/aes-xcbc-96", 16, 8, 12, 4, true},
		{"null", "aes-cmac-96", 0, "null/aes-cmac-96", 16, 0, 12, 4, false},
		{"null", "hmac-sha2-256-128", 0, "null/hmac-sha2-256-128", 32, 0, 16, 4, false},
		{"null", "hmac-sha2-384-192", 0, "null/hmac-sha2-384-192", 48, 0, 24, 4, false},
		{"null", "hmac-sha2-512-256", 0, "null/hmac-sha2-512-256", 64, 0, 32, 4, false},
		{"aes-ctr", "hmac-sha2-256-128", 20, "aes-ctr-128/hmac-sha2-256-128", 32, 8, 16, 4, true},
		{"aes-ctr", "hmac-sha2-384-192", 28, "aes-ctr-192/hmac-sha2-384-192", 48, 8, 24, 4, true},
		{"aes-ctr", "hmac-sha2-512-256", 36, "aes-ctr-256/hmac-sha2-512-256", 64, 8, 32, 4, true},
		{"aes-cbc", "hmac-sha2-256-128", 16, "aes-cbc-128/hmac-sha2-256-128", 32, 16, 16, 16, false},
		{"aes-cbc", "hmac-sha2-256-128", 24, "aes-cbc-192/hmac-sha2-256-128", 32, 16, 16, 16, false},
		{"aes-cbc", "hmac-sha2-256-128", 32, "aes-cbc-256/hmac-sha2-256-128", 32, 16, 16, 16, false},
		{"aes-cbc", "hmac-sha2-384-192", 32, "aes-cbc-256/hmac-sha2-384-192", 48, 16, 24, 16, false},
		{"aes-cbc", "hmac-sha2-512-256", 16, "aes-cbc-128/hmac-sha2-512-256", 64, 16, 32, 16, false},
	} {
		s, err := Lookup(c.encryption, c.integrity, c.encKeyLen)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if s.String() != c.name || s.EncKeyLen() != c.encKeyLen || s.AuthKeyLen() != c.authKeyLen ||
			s.IVLen() != c.iv || s.ICVLen() != c.icv || s.Align() != c.align || s.CounterMode() != c.counter {
			t.Errorf("%s: got %s: keys %d and %d, IV %d, ICV %d, align %d, counter %v", c.name, s,
				s.EncKeyLen(), s.AuthKeyLen(), s.IVLen(), s.ICVLen(), s.Align(), s.CounterMode())
		}
		if again := must(Lookup(c.encryption, c.integrity, c.encKeyLen)); again != s {
			t.Errorf("%s: two lookups gave two suites", c.name)
		}
	}
}

// What is refused, and what the message must tell so that it can be mended.
func TestLookupRefuses(t *testing.T) {
	for _, c := range []struct {
		encryption, integrity string
		encKeyLen             int
		want                  error
		tells                 []string
	}{
		{"des-cbc", "hmac-sha2-256-128", 8, ErrAlgorithm, []string{`"des-cbc"`, "aes-gcm-16", "chacha20-poly1305", "aes-cbc", "null"}},
		{"", "", 0, ErrAlgorithm, []string{"aes-gcm-16"}},
		{"aes-ctr", "", 20, ErrAlgorithm, []string{"no integrity", "hmac-sha2-256-128"}},
		{"aes-ctr", "hmac-sha2-256-128", 16, ErrKeyLength, []string{"16 bytes", "20, 28, 36", "last 4", "salt"}},
		{"null", "", 0, ErrAlgorithm, []string{"no integrity", "hmac-sha2-256-128"}},
		{"aes-cbc", "", 16, ErrAlgorithm, []string{"no integrity", "hmac-sha2-512-256"}},
		{"aes-cbc", "hmac-md5", 16, ErrAlgorithm, []string{`"hmac-md5"`, "hmac-sha2-256-128", "hmac-sha2-384-192"}},
		{"aes-cbc", "aes-gmac", 16, ErrAlgorithm, []string{`"aes-gmac"`, "hmac-sha2-256-128"}},
		{"aes-gcm-4", "", 20, ErrAlgorithm, []string{"aes-gcm-8"}},
		{"aes-ccm-16", "", 20, ErrKeyLength, []string{"19, 27, 35", "last 3"}},
		{"null-aes-gmac", "hmac-sha2-256-128", 20, ErrAlgorithm, []string{"leave the integrity out"}},
		{"aes-gcm-16", "hmac-sha2-256-128", 20, ErrAlgorithm, []string{"leave the integrity out"}},
		{"aes-gcm-16", "hmac-md5", 20, ErrAlgorithm, []string{"leave the integrity out"}},
		{"aes-gcm-16", "", 16, ErrKeyLength, []string{"16 bytes", "20, 28, 36", "last 4", "salt"}},
		{"chacha20-poly1305", "", 32, ErrKeyLength, []string{"32 bytes", "36"}},
		{"aes-cbc", "hmac-sha2-256-128", 20, ErrKeyLength, []string{"20 bytes", "16, 24, 32"}},
		{"null", "hmac-sha2-256-128", 16, ErrKeyLength, []string{"16 bytes", "takes 0"}},
		{"aes-cbc", "hmac-sha2-256-128", -1, ErrKeyLength, []string{"-1"}},
	} {
		s, err := Lookup(c.encryption, c.integrity, c.encKeyLen)
		if s != nil || !errors.Is(err, c.want) {
			t.Errorf("Lookup(%q, %q, %d) = %v, %v; want %v", c.encryption, c.integrity, c.encKeyLen, s, err, c.want)
			continue
		}
		for _, part := range c.tells {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("Lookup(%q, %q, %d) does not tell %q: %v", c.encryption, c.integrity, c.encKeyLen, part, err)
			}
		}
	}
}

func TestSuitesAreAllDifferent(t *testing.T) {
	all := Suites()
	if len(all) != 4*3+2*1+4*3+3+(3+3+1)*6 {
		t.Errorf("%d suites", len(all))
	}
	names := map[string]bool{}
	for _, s := range all {
		if names[s.String()] {
			t.Errorf("%s: twice", s)
		}
		names[s.String()] = true
	}
	all[0] = nil
	if Suites()[0] == nil {
		t.Error("Suites gave its own table away")
	}
}

func TestNewKeyRefusesWrongLengths(t *testing.T) {
	for _, s := range Suites() {
		for _, d := range [][2]int{{-1, 0}, {1, 0}, {0, -1}, {0, 1}, {4, 0}, {-4, 0}} {
			enc, auth := s.EncKeyLen()+d[0], s.AuthKeyLen()+d[1]
			if enc < 0 || auth < 0 {
				continue
			}
			if k, err := s.NewKey(make([]byte, enc), make([]byte, auth)); k != nil || !errors.Is(err, ErrKeyLength) {
				t.Errorf("%s: keys of %d and %d bytes: %v, %v", s, enc, auth, k, err)
			}
		}
	}
	if k, err := new(Suite).NewKey(nil, nil); k != nil || !errors.Is(err, ErrAlgorithm) {
		t.Errorf("a Suite from nowhere: %v, %v", k, err)
	}
}

func TestJobFitsACacheLine(t *testing.T) {
	if n := reflect.TypeFor[Job]().Size(); n > 64 {
		t.Errorf("a Job is %d bytes", n)
	}
}

// suiteOf finds a tier's suite by its name. It is not the one that Lookup
// returns, unless that has the same tier.
func suiteOf(tier Tier, name string) *Suite {
	for _, s := range makeSuites(tier) {
		if s.name == name {
			return s
		}
	}
	panic(name)
}

// randomKey makes a key of s and an oracle that knows it.
func randomKey(s *Suite, rng *rand.Rand) (*Key, oracle) {
	o := oracle{s, randomBytes(rng, s.EncKeyLen()), randomBytes(rng, s.AuthKeyLen())}
	return must(s.NewKey(o.enc, o.auth)), o
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(4303, 4106)) }
