package crypto

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

const guard = 64 // bytes on each side of a packet that must stay

// guarded puts pkt between guards. Its capacity ends with it or reaches over
// the guard behind: an Engine must mind neither.
func guarded(pkt []byte, spare bool) (all, in []byte) {
	all = bytes.Repeat([]byte{0xa5}, guard+len(pkt)+guard)
	copy(all[guard:], pkt)
	if spare {
		return all, all[guard : guard+len(pkt)]
	}
	return all, all[guard : guard+len(pkt) : guard+len(pkt)]
}

func guardsHold(all []byte) bool {
	want := bytes.Repeat([]byte{0xa5}, guard)
	return bytes.Equal(all[:guard], want) && bytes.Equal(all[len(all)-guard:], want)
}

// Packets of every length, also those that no ESP packet can have, against the
// oracle in both directions.
func TestEveryLength(t *testing.T) {
	e := NewEngine()
	for _, s := range Suites() {
		t.Run(s.String(), func(t *testing.T) {
			rng := newRand()
			k, o := randomKey(s, rng)
			sealed := 0
			for n := range 2049 {
				raw := randomBytes(rng, n)
				esn, hi := n&16 != 0, uint32(0)
				if esn {
					hi = rng.Uint32()
				}
				body := n - 8 - s.IVLen() - s.ICVLen()
				fits := body >= s.Align() && body%s.Align() == 0
				var want, plain []byte
				if want = raw; fits {
					plain = raw[8+s.IVLen() : n-s.ICVLen()]
					want = o.seal(raw[:8], plain, hi, esn)
					sealed++
				}
				all, pkt := guarded(raw, n&32 != 0)
				jobs := []Job{{Key: k, Pkt: pkt, SeqHi: hi, ESN: esn, Slot: byte(n), OK: !fits}}
				if e.Seal(jobs); jobs[0].OK != fits || !bytes.Equal(pkt, want) || !guardsHold(all) || jobs[0].Slot != byte(n) {
					t.Fatalf("seal of %d bytes: OK %v, fits %v, guards hold %v\n got %x\nwant %x", n, jobs[0].OK, fits, guardsHold(all), pkt, want)
				}
				jobs[0].OK = !fits
				e.Open(jobs)
				if jobs[0].OK != fits || !guardsHold(all) {
					t.Fatalf("open of %d bytes: OK %v, fits %v, guards hold %v", n, jobs[0].OK, fits, guardsHold(all))
				}
				if fits && !bytes.Equal(pkt[8+s.IVLen():n-s.ICVLen()], plain) {
					t.Fatalf("open of %d bytes did not bring the plaintext back", n)
				}
			}
			if want := (2048 - 8 - s.IVLen() - s.ICVLen()) / s.Align(); sealed != want {
				t.Errorf("%d lengths fitted, want %d", sealed, want)
			}
		})
	}
}

func TestJumboLengths(t *testing.T) {
	e := NewEngine()
	for _, s := range Suites() {
		rng := newRand()
		k, o := randomKey(s, rng)
		for _, n := range []int{4096, 9008, 65456} {
			header, body := randomBytes(rng, 8), randomBytes(rng, n)
			want := o.seal(header, body, 7, true)
			pkt := append(bytes.Clone(header), make([]byte, len(want)-8)...)
			copy(pkt[8+s.IVLen():], body)
			jobs := []Job{{Key: k, Pkt: pkt, SeqHi: 7, ESN: true}}
			if e.Seal(jobs); !jobs[0].OK || !bytes.Equal(pkt, want) {
				t.Errorf("%s: seal of %d bytes", s, n)
			}
			if e.Open(jobs); !jobs[0].OK || !bytes.Equal(pkt[8+s.IVLen():len(pkt)-s.ICVLen()], body) {
				t.Errorf("%s: open of %d bytes", s, n)
			}
		}
	}
}

// One flipped bit anywhere is refused: header, IV, ciphertext, ICV, and the
// high half of the sequence number, which is not sent.
func TestEveryBitCounts(t *testing.T) {
	e := NewEngine()
	for _, s := range Suites() {
		for _, esn := range []bool{false, true} {
			rng := newRand()
			k, o := randomKey(s, rng)
			hi := uint32(0)
			if esn {
				hi = 0x80000001
			}
			sealed := o.seal(randomBytes(rng, 8), randomBytes(rng, 48), hi, esn)
			accepts := func(pkt []byte, hi uint32, esn bool) bool {
				jobs := []Job{{Key: k, Pkt: pkt, SeqHi: hi, ESN: esn}}
				e.Open(jobs)
				return jobs[0].OK
			}
			if !accepts(bytes.Clone(sealed), hi, esn) {
				t.Fatalf("%s, ESN %v: the packet itself is refused", s, esn)
			}
			for bit := range 8 * len(sealed) {
				pkt := bytes.Clone(sealed)
				pkt[bit/8] ^= 1 << (bit % 8)
				if accepts(pkt, hi, esn) {
					t.Errorf("%s, ESN %v: bit %d of byte %d does not count", s, esn, bit%8, bit/8)
				}
			}
			for bit := range 32 {
				if esn && accepts(bytes.Clone(sealed), hi^1<<bit, esn) {
					t.Errorf("%s: bit %d of SeqHi does not count", s, bit)
				}
			}
			if accepts(bytes.Clone(sealed), hi, !esn) {
				t.Errorf("%s: opened with ESN %v, sealed with %v", s, !esn, esn)
			}
			for n := range sealed {
				if accepts(bytes.Clone(sealed[:n]), hi, esn) {
					t.Errorf("%s: cut to %d bytes", s, n)
				}
			}
			if other, _ := randomKey(s, rng); openOne(other, bytes.Clone(sealed), hi, esn) != nil {
				t.Errorf("%s: opened by another key", s)
			}
		}
	}
}

// keyring has keys of every suite, several of each, some of them zeroed.
func keyring(rng *rand.Rand) (keys []*Key, oracles []oracle) {
	for range 3 {
		for _, s := range Suites() {
			k, o := randomKey(s, rng)
			keys, oracles = append(keys, k), append(oracles, o)
		}
	}
	return keys, oracles
}

// A batch of anything equals its packets one at a time, in place and in order.
func TestBatchEqualsOneAtATime(t *testing.T) {
	keys, oracles := keyring(newRand())
	dead, _ := randomKey(must(Lookup("aes-gcm-16", "", 20)), newRand())
	dead.Zero()
	e := NewEngine()
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		n := rapid.IntRange(0, 3*MaxBatch+1).Draw(t, "jobs")
		suites := rapid.IntRange(1, len(keys)).Draw(t, "keys")
		batch, want, seal := make([]Job, n), make([][]byte, n), make([]bool, n)
		for i := range batch {
			at := rng.IntN(suites)
			k, o := keys[at], oracles[at]
			s := k.Suite()
			j := Job{Key: k, Slot: uint8(i), ESN: rng.IntN(2) == 0, OK: rng.IntN(2) == 0}
			if j.ESN {
				j.SeqHi = rng.Uint32()
			}
			header, body := randomBytes(rng, 8), randomBytes(rng, s.Align()*(1+rng.IntN(20)))
			want[i] = o.seal(header, body, j.SeqHi, j.ESN)
			j.Pkt = bytes.Clone(want[i])
			clear(j.Pkt[8 : 8+s.IVLen()])
			clear(j.Pkt[len(j.Pkt)-s.ICVLen():])
			copy(j.Pkt[8+s.IVLen():], body)
			seal[i] = true
			switch rng.IntN(12) { // some that cannot be sealed
			case 0:
				j.Key, seal[i] = nil, false
			case 1:
				j.Key, seal[i] = dead, false
			case 2:
				j.Pkt, seal[i] = j.Pkt[:len(j.Pkt)-1], false
			case 3:
				j.Key, seal[i] = new(Key), false
			}
			if !seal[i] {
				want[i] = bytes.Clone(j.Pkt)
			}
			batch[i] = j
		}
		e.Seal(batch)
		for i := range batch {
			if j := &batch[i]; j.OK != seal[i] || j.Slot != uint8(i) || !bytes.Equal(j.Pkt, want[i]) {
				t.Fatalf("seal, job %d of %d: OK %v, want %v\n got %x\nwant %x", i, n, j.OK, seal[i], j.Pkt, want[i])
			}
		}
		verdicts := make([]bool, n)
		for i := range batch {
			if rng.IntN(4) == 0 {
				batch[i].Pkt[rng.IntN(len(batch[i].Pkt))] ^= 1 << rng.IntN(8)
			}
			one := []Job{batch[i]}
			one[0].Pkt = bytes.Clone(batch[i].Pkt)
			NewEngine().Open(one)
			want[i], verdicts[i] = one[0].Pkt, one[0].OK
		}
		e.Open(batch)
		for i := range batch {
			if j := &batch[i]; j.OK != verdicts[i] || j.OK && !bytes.Equal(j.Pkt, want[i]) {
				t.Fatalf("open, job %d of %d: OK %v, alone %v", i, n, j.OK, verdicts[i])
			}
		}
	})
}

// Each suite's kernel gets its jobs of a piece in one call, in their order.
func TestOneKernelCallASuite(t *testing.T) {
	var calls []string
	spy := func(name string, c *cipherSpec) *Key {
		note := func(_ *Engine, jobs []Job, group []uint8) {
			call := name
			for _, i := range group {
				call += fmt.Sprint(" ", jobs[i].Slot)
			}
			calls = append(calls, call)
		}
		return newKey(&Suite{cipher: c, overhead: 8, seal: note, open: note})
	}
	a, b, c := spy("a", &ciphers[0]), spy("b", &ciphers[1]), spy("c", &ciphers[2])
	var jobs []Job
	for i, k := range []*Key{b, a, nil, b, c, a, a, b} {
		jobs = append(jobs, Job{Key: k, Slot: uint8(i), Pkt: make([]byte, 8+16)})
	}
	e := NewEngine()
	e.Seal(jobs)
	e.Open(jobs[3:])
	want := "[b 0 3 7 a 1 5 6 c 4 b 3 7 c 4 a 5 6]"
	if got := fmt.Sprint(calls); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Two workers under one set of keys, as one SA may run on many cores. The race
// detector is the judge of the keys, the oracle of the packets.
func TestEnginesShareKeys(t *testing.T) {
	keys, oracles := keyring(newRand())
	var workers sync.WaitGroup
	for w := range 2 {
		workers.Go(func() {
			e, rng := NewEngine(), rand.New(rand.NewPCG(uint64(w), 1))
			jobs, bodies := make([]Job, len(keys)), make([][]byte, len(keys))
			for range 20 {
				for i, k := range keys {
					s := k.Suite()
					bodies[i] = randomBytes(rng, 16*(1+rng.IntN(8)))
					pkt := append(randomBytes(rng, 8+s.IVLen()), bodies[i]...)
					jobs[i] = Job{Key: k, Pkt: append(pkt, make([]byte, s.ICVLen())...)}
				}
				e.Seal(jobs)
				for i := range jobs {
					if want := oracles[i].seal(jobs[i].Pkt[:8], bodies[i], 0, false); !bytes.Equal(jobs[i].Pkt, want) {
						t.Errorf("%s: sealed otherwise than alone", keys[i].Suite())
					}
				}
				e.Open(jobs)
				for i := range jobs {
					if !jobs[i].OK || !bytes.Contains(jobs[i].Pkt, bodies[i]) {
						t.Errorf("%s: not opened", keys[i].Suite())
					}
				}
			}
		})
	}
	workers.Wait()
}

func TestNoAllocation(t *testing.T) {
	rng := newRand()
	run := func(name string, jobs []Job, allowed int) {
		e := NewEngine()
		if n := testing.AllocsPerRun(20, func() { e.Seal(jobs); e.Open(jobs) }); n > float64(2*allowed) {
			t.Errorf("%s: %v allocations in %d jobs", name, n, len(jobs))
		}
		for _, j := range jobs {
			if !j.OK {
				t.Fatalf("%s: refused", name)
			}
		}
		if n := testing.AllocsPerRun(20, func() { e.Open(jobs) }); n > float64(allowed) { // not authentic any more
			t.Errorf("%s: %v allocations in %d refused jobs", name, n, len(jobs))
		}
	}
	var mixed []Job
	for _, s := range Suites() {
		var jobs []Job
		for i := range 40 {
			k, _ := randomKey(s, rng)
			jobs = append(jobs, Job{Key: k, Pkt: randomBytes(rng, 8+s.IVLen()+16*(i+1)+s.ICVLen()), ESN: i%2 == 0})
		}
		allowed := 0
		if strings.HasPrefix(s.String(), "chacha20-poly1305") {
			allowed = chachaAllocs * len(jobs)
		}
		run(s.String(), jobs, allowed)
		mixed = append(mixed, jobs[:6]...)
	}
	run("mixed", mixed, 2*chachaAllocs*6)
}

// FuzzOpen gives every suite's Open bytes from the wire; the oracle's verdict counts.
func FuzzOpen(f *testing.F) {
	keys, oracles := keyring(newRand())
	rng := newRand()
	for i, o := range oracles[:len(Suites())] {
		pkt := o.seal(randomBytes(rng, 8), randomBytes(rng, 32), 5, i%2 == 0)
		f.Add(uint8(i), uint32(5), i%2 == 0, pkt)
		f.Add(uint8(i), uint32(5), i%2 == 0, pkt[:len(pkt)-16])
		f.Add(uint8(i), uint32(0), false, pkt[:i])
	}
	e := NewEngine()
	f.Fuzz(func(t *testing.T, which uint8, hi uint32, esn bool, data []byte) {
		at := int(which) % len(keys)
		k, o := keys[at], oracles[at]
		want := o.open(data, hi, esn)
		all, pkt := guarded(data, false)
		jobs := []Job{{Key: k, Pkt: pkt, SeqHi: hi, ESN: esn}}
		e.Open(jobs)
		if jobs[0].OK != (want != nil) || !guardsHold(all) {
			t.Fatalf("%s: OK %v, want %v, guards hold %v", k.Suite(), jobs[0].OK, want != nil, guardsHold(all))
		}
		s := k.Suite()
		if jobs[0].OK && !bytes.Equal(pkt[8+s.IVLen():len(pkt)-s.ICVLen()], want) {
			t.Fatalf("%s: got %x, want %x", s, pkt, want)
		}
	})
}

// The IV of a counter mode is the sequence number, on the wire and unique by that.
func TestCounterModeIV(t *testing.T) {
	e := NewEngine()
	for _, s := range Suites() {
		if !s.CounterMode() {
			continue
		}
		k, _ := randomKey(s, newRand())
		for _, seq := range []uint64{1, 1<<32 - 1, 1 << 32, 1<<64 - 1} {
			pkt := make([]byte, 8+8+4+s.ICVLen())
			binary.BigEndian.PutUint32(pkt[4:], uint32(seq))
			e.Seal([]Job{{Key: k, Pkt: pkt, SeqHi: uint32(seq >> 32), ESN: true}})
			if got := binary.BigEndian.Uint64(pkt[8:]); s.IVLen() > 0 && got != seq {
				t.Errorf("%s: the IV of packet %x is %x", s, seq, got)
			}
		}
	}
}
