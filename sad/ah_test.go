package sad

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"spigot/crypto"
)

// ahParams makes p an SA of AH.
func ahParams(p *Params) {
	p.Proto, p.Encryption, p.EncKey = 51, "", nil
	p.Integrity, p.AuthKey = "hmac-sha2-256-128", make([]byte, 32)
}

// The header's length: 12 bytes and the ICV, filled up to 8 bytes, or to 4 over
// IPv4 for those who say so. The rows are what Linux sends, but for GMAC, which
// it does not have.
func TestLengthOfAH(t *testing.T) {
	for _, r := range []struct {
		name              string
		key               int
		v4, align4, other int // other is a length that is none of it
	}{
		{"hmac-sha1-96", 20, 24, 24, 28},
		{"hmac-sha2-256-128", 32, 32, 28, 24},
		{"hmac-sha2-384-192", 48, 40, 36, 32},
		{"hmac-sha2-512-256", 64, 48, 44, 40},
		{"aes-xcbc-96", 16, 24, 24, 20},
		{"aes-cmac-96", 16, 24, 24, 32},
		{"aes-gmac", 20, 40, 36, 32},
		{"aes-gmac", 36, 40, 36, 44},
	} {
		for _, v6 := range []bool{false, true} {
			for _, align4 := range []bool{false, true} {
				if v6 && align4 {
					continue
				}
				p := params(ahParams)
				p.Integrity, p.AuthKey, p.Align4 = r.name, make([]byte, r.key), align4
				outer, want := 20, r.v4
				if v6 {
					p.Src, p.Dst, outer = addr("2001:db8::1"), addr("2001:db8::2"), 40
				}
				if align4 {
					want = r.align4
				}
				in, err := NewInbound(p)
				if err != nil {
					t.Fatal(err)
				}
				g := in.Geo
				if int(g.Head) != want || g.Prefix() != outer+want || g.Sealed(101) != outer+want+101 || g.MaxInner(1500) != 1500-outer-want {
					t.Errorf("%s v6=%t align4=%t: %+v, want a header of %d", r.name, v6, align4, g, want)
				}
				for n, fits := range map[int]bool{r.v4: true, r.align4: !v6 || r.align4 == r.v4, r.other: false, 8: false, 1028: false} {
					if in.FitsAH(n) != fits {
						t.Errorf("%s v6=%t: a header of %d bytes fits: %t", r.name, v6, n, !fits)
					}
				}
			}
		}
	}
}

// Every algorithm: what one side signs the other verifies; any flipped bit, and
// with ESN another high half, is refused; without ESN the high half is no part.
func TestSignAndVerify(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 302))
	e := NewEngine()
	for _, s := range crypto.Integrities() {
		for _, esn := range []bool{false, true} {
			p := params(ahParams)
			p.ESN, p.Window = esn, 64
			p.AuthKey = make([]byte, s.AuthKeyLen())
			for i := range p.AuthKey {
				p.AuthKey[i] = byte(rng.Uint32())
			}
			p.Integrity = s.String()
			if s.IVLen() > 0 {
				p.Integrity = "aes-gmac"
			}
			out, err := NewOutbound(p)
			if err != nil {
				t.Fatal(err)
			}
			in, err := NewInbound(p)
			if err != nil {
				t.Fatal(err)
			}
			ah, job := make([]byte, out.Geo.Head), Signed{Head: []byte("headers"), Payload: []byte("payload"), Seq: 7<<32 | 9}
			if !out.Sign(e, ah, &job) || !in.Verify(e, ah, &job) {
				t.Fatalf("%v esn=%t: not what was signed", s, esn)
			}
			if field := in.ICVField(ah); len(field) != s.IVLen()+s.ICVLen() || bytes.Equal(field, make([]byte, len(field))) {
				t.Errorf("%v: ICV field %x", s, field)
			}
			for bit := range 8 * (s.IVLen() + s.ICVLen()) {
				forged := bytes.Clone(ah)
				forged[12+bit/8] ^= 1 << (bit % 8)
				if in.Verify(e, forged, &job) {
					t.Errorf("%v: bit %d of the ICV field does not matter", s, bit)
				}
			}
			job.Seq = 8<<32 | 9
			if in.Verify(e, ah, &job) == esn {
				t.Errorf("%v esn=%t: with another high half: %t", s, esn, !esn)
			}
			job.Seq, job.Payload = 7<<32|9, []byte("paymoad")
			if in.Verify(e, ah, &job) {
				t.Errorf("%v: another payload is accepted", s)
			}
			out.Key.Zero()
			if out.Sign(e, ah, &job) {
				t.Errorf("%v: signed with a key that is gone", s)
			}
			if n := testing.AllocsPerRun(10, func() { in.Verify(e, ah, &job) }); n != 0 {
				t.Errorf("%v esn=%t: %v allocations", s, esn, n)
			}
		}
	}
}

func TestCounterKey(t *testing.T) {
	for _, r := range []struct {
		name string
		edit func(*Params)
		want byte // 'e': the encryption key, 'a': the integrity key, 0: none
	}{
		{"AES-GCM", func(*Params) {}, 'e'},
		{"AES-CBC", func(p *Params) {
			p.Encryption, p.EncKey, p.Integrity, p.AuthKey = "aes-cbc", make([]byte, 16), "hmac-sha2-256-128", make([]byte, 32)
		}, 0},
		{"AH with HMAC", ahParams, 0},
		{"AH with GMAC", func(p *Params) { ahParams(p); p.Integrity, p.AuthKey = "aes-gmac", make([]byte, 20) }, 'a'},
		{"no such cipher", func(p *Params) { p.Encryption = "rot13" }, 0},
	} {
		p := params(r.edit)
		for i := range p.EncKey {
			p.EncKey[i] = 'e'
		}
		for i := range p.AuthKey {
			p.AuthKey[i] = 'a'
		}
		if k := p.CounterKey(); (k == nil) != (r.want == 0) || k != nil && k[0] != r.want {
			t.Errorf("%s: %q, want that of %c's", r.name, k, r.want)
		}
	}
}
