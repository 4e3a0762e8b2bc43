package crypto

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
)

// Zero is followed into memory: what a Key held is looked at afterwards.
func TestZeroWipesMemory(t *testing.T) {
	for _, s := range append(Suites(), Integrities()...) {
		k, _ := randomKey(s, newRand())
		var objects []reflect.Value
		for _, object := range []any{k.gcm, k.aead, k.block, k.aes, k.hmac.states, k.macBlock, k.cbcMAC} {
			p := reflect.ValueOf(object)
			if !p.IsValid() || p.IsNil() {
				continue
			}
			v := p.Elem()
			if path := indirection(v.Type()); path != "" {
				t.Errorf("%s: %s refers to other memory, which Zero would not reach", v.Type(), path)
			}
			objects = append(objects, v)
		}
		states := [][]byte{k.hmac.inner, k.hmac.outer}
		if len(objects) == 0 && len(k.hmac.inner) == 0 {
			t.Fatalf("%s: a key that holds nothing", s)
		}
		if k.aead != nil && k.salt == [4]byte{} {
			t.Errorf("%s: no salt before Zero", s)
		}
		k.Zero()
		for _, v := range objects {
			if !v.IsZero() {
				t.Errorf("%s: %s still holds something", s, v.Type())
			}
		}
		for _, state := range states {
			if !bytes.Equal(state, make([]byte, len(state))) {
				t.Errorf("%s: HMAC's state is still there", s)
			}
		}
		if k.salt != [4]byte{} {
			t.Errorf("%s: the salt is still there", s)
		}
		if k.Suite() != s {
			t.Errorf("%s: Suite after Zero is %v", s, k.Suite())
		}
		k.Zero() // again: no harm
	}
}

// indirection names a part of t that lies elsewhere in memory, "" if none.
func indirection(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if path := indirection(t.Field(i).Type); path != "" {
				return t.Field(i).Name + "." + path
			}
		}
	case reflect.Array:
		return indirection(t.Elem())
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.String, reflect.UnsafePointer,
		reflect.Chan, reflect.Func:
		return t.String()
	}
	return ""
}

func TestZeroedKeyFails(t *testing.T) {
	e, rng := NewEngine(), newRand()
	for _, s := range Suites() {
		k, o := randomKey(s, rng)
		sealed := o.seal(randomBytes(rng, 8), randomBytes(rng, 4*s.Align()), 0, false)
		k.Zero()
		for name, run := range map[string]func([]Job){"Seal": e.Seal, "Open": e.Open} {
			pkt := bytes.Clone(sealed)
			jobs := []Job{{Key: k, Pkt: pkt, OK: true}}
			if run(jobs); jobs[0].OK || !bytes.Equal(pkt, sealed) {
				t.Errorf("%s: %s under a zeroed key: OK %v, packet touched %v", s, name, jobs[0].OK, !bytes.Equal(pkt, sealed))
			}
		}
	}
}

func TestNewKeyCopies(t *testing.T) {
	e, rng := NewEngine(), newRand()
	for _, s := range Suites() {
		o := oracle{s, randomBytes(rng, s.EncKeyLen()), randomBytes(rng, s.AuthKeyLen())}
		body := randomBytes(rng, 3*s.Align())
		want := o.seal(randomBytes(rng, 8), body, 0, false)
		k := must(s.NewKey(o.enc, o.auth))
		clear(o.enc)
		clear(o.auth)
		jobs := []Job{{Key: k, Pkt: bytes.Clone(want)}}
		if e.Open(jobs); !jobs[0].OK || !bytes.Contains(jobs[0].Pkt, body) {
			t.Errorf("%s: the key changed with its caller's bytes", s)
		}
	}
}

// A worker's Engine outlives the SAs, so it must not keep what it had of them.
func TestEngineForgetsKeys(t *testing.T) {
	rng := newRand()
	for _, s := range Suites() {
		e := NewEngine()
		k, o := randomKey(s, rng)
		body := randomBytes(rng, 4*s.Align())
		jobs := []Job{{Key: k, Pkt: o.seal(randomBytes(rng, 8), body, 1, true), SeqHi: 1, ESN: true}}
		for _, run := range []func([]Job){e.Open, e.Seal} {
			run(jobs)
			if !jobs[0].OK {
				t.Fatalf("%s: refused", s)
			}
			if e.nonce != [12]byte{} || e.sum != [64]byte{} || e.counter != [16]byte{} || e.stream != [16]byte{} {
				t.Errorf("%s: the Engine keeps nonce, key stream or HMAC", s)
			}
			for id, fresh := range newDigests() {
				got, want := must(e.digests[id].AppendBinary(nil)), must(fresh.AppendBinary(nil))
				if !bytes.Equal(got, want) {
					t.Errorf("%s: the Engine keeps a hash's state", s)
				}
			}
		}
	}
}

// CBC's IV must not be the sequence number itself, nor the same for two of them.
func TestCBCIVIsUnpredictable(t *testing.T) {
	e, s := NewEngine(), must(Lookup("aes-cbc", "hmac-sha2-256-128", 32))
	k, _ := randomKey(s, newRand())
	seen := map[[16]byte]bool{}
	for seq := range uint32(2000) {
		pkt := make([]byte, 8+16+16+16)
		binary.BigEndian.PutUint32(pkt[4:], seq>>1)
		e.Seal([]Job{{Key: k, Pkt: pkt, SeqHi: seq & 1, ESN: true}})
		iv := [16]byte(pkt[8:])
		if seen[iv] || bytes.Contains(iv[:], []byte{0, 0, 0, 0}) {
			t.Fatalf("IV %x of %d.%d", iv, seq&1, seq>>1)
		}
		seen[iv] = true
	}
}
