package crypto

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"regexp"
	"runtime/debug"
	"sync"
	"testing"
)

// The kernels find their way through these structs by number: _asm/gcm/layout.go.
func TestKernelsKnowTheLayout(t *testing.T) {
	for _, c := range []struct {
		of   reflect.Type
		name string
		want uintptr
	}{
		{reflect.TypeFor[Job](), "Key", 0},
		{reflect.TypeFor[Job](), "Pkt", 8},
		{reflect.TypeFor[Job](), "SeqHi", 32},
		{reflect.TypeFor[Job](), "OK", 36},
		{reflect.TypeFor[Job](), "ESN", 38},
		{reflect.TypeFor[Key](), "live", 0},
		{reflect.TypeFor[Key](), "gcm", 8},
		{reflect.TypeFor[gcmWithin](), "gcm", 184},
		{reflect.TypeFor[gcmKey](), "counters", 0},
		{reflect.TypeFor[gcmKey](), "esn", 64},
		{reflect.TypeFor[gcmKey](), "powers", 80},
		{reflect.TypeFor[gcmKey](), "rounds", 656},
		{reflect.TypeFor[gcmKey](), "lengths", 896},
	} {
		if f, ok := c.of.FieldByName(c.name); reflect.TypeFor[uintptr]().Size() == 8 && (!ok || f.Offset != c.want) {
			t.Errorf("%v.%s is at %d, want %d", c.of, c.name, f.Offset, c.want)
		}
	}
	if n := reflect.TypeFor[Job]().Size(); reflect.TypeFor[uintptr]().Size() == 8 && n != 40 {
		t.Errorf("a Job has %d bytes, want 40", n)
	}
	if n := reflect.TypeFor[gcmKey]().Size(); n != 896+28*16 { // gcmSetup writes up to there
		t.Errorf("a gcmKey has %d bytes, want %d", n, 896+28*16)
	}
}

// eachTier runs f for every suite whose name matches pattern, on each tier that
// can run here.
func eachTier(t *testing.T, pattern string, f func(t *testing.T, s *Suite)) {
	for _, tier := range Tiers() {
		for _, s := range makeSuites(tier) {
			if regexp.MustCompile(pattern).MatchString(s.name) {
				t.Run(tier.String()+"/"+s.name, func(t *testing.T) { f(t, s) })
			}
		}
	}
}

// aesAEAD are the suites of GCM, stitched or not, GMAC and CCM.
const aesAEAD = "gcm|gmac|ccm"

// gcmLengths are the payloads at which a kernel may go wrong: every length of
// few registers, the lengths about which a counter's low byte runs over, and
// some of any size that an IP packet can have.
func gcmLengths() (all []int) {
	for n := 4; n <= 2048; n += 4 {
		all = append(all, n)
	}
	for n := 3900; n <= 4200; n += 4 {
		all = append(all, n)
	}
	rng := newRand()
	for range 20 {
		all = append(all, 4+rng.IntN(65500)&^3)
	}
	return append(all, 65532)
}

// Every tier's AES-GCM equals the oracle at every length, with and without ESN.
func TestGCMLengths(t *testing.T) {
	eachTier(t, aesAEAD, func(t *testing.T, s *Suite) {
		e, rng, at, icv := NewEngine(), newRand(), s.textAt(), s.ICVLen()
		k, o := randomKey(s, rng)
		for i, n := range gcmLengths() {
			if s.cipher.kernels == nil && i%5 != 0 { // plain loops have fewer ways to go wrong
				continue
			}
			for _, esn := range []bool{false, true} {
				raw := randomBytes(rng, at+n+icv)
				hi := uint32(i * 0x9e3779b1)
				body := raw[at : at+n]
				want := o.seal(raw[:8], body, hi, esn)
				all, pkt := guarded(raw, esn)
				jobs := []Job{{Key: k, Pkt: pkt, SeqHi: hi, ESN: esn}}
				if e.Seal(jobs); !jobs[0].OK || !bytes.Equal(pkt, want) || !guardsHold(all) {
					t.Fatalf("seal of %d bytes, ESN %v: OK %v, guards hold %v", n, esn, jobs[0].OK, guardsHold(all))
				}
				if e.Open(jobs); !jobs[0].OK || !bytes.Equal(pkt[at:at+n], body) || !guardsHold(all) {
					t.Fatalf("open of %d bytes, ESN %v: OK %v, guards hold %v", n, esn, jobs[0].OK, guardsHold(all))
				}
				if !bytes.Equal(pkt[:at], want[:at]) || !bytes.Equal(pkt[at+n:], want[at+n:]) {
					t.Fatalf("open of %d bytes, ESN %v changed header, IV or ICV", n, esn)
				}
			}
		}
	})
}

// Batches of mixed lengths and keys equal the oracle, on every tier.
func TestGCMBatches(t *testing.T) {
	eachTier(t, aesAEAD, func(t *testing.T, s *Suite) {
		e, rng, at, icv := NewEngine(), newRand(), s.textAt(), s.ICVLen()
		var keys [MaxBatch]*Key
		var oracles [MaxBatch]oracle
		for i := range keys {
			keys[i], oracles[i] = randomKey(s, rng)
		}
		for size := 1; size <= MaxBatch; size++ {
			limit := []int{48, 112, 240, 1500}[size%4]
			jobs, want, bodies := make([]Job, size), make([][]byte, size), make([][]byte, size)
			for i := range jobs {
				n := 4 + rng.IntN(limit)&^3
				raw := randomBytes(rng, at+n+icv)
				jobs[i] = Job{Key: keys[i], Pkt: raw, SeqHi: rng.Uint32(), ESN: rng.IntN(2) == 0}
				bodies[i] = bytes.Clone(raw[at : at+n])
				want[i] = oracles[i].seal(raw[:8], bodies[i], jobs[i].SeqHi, jobs[i].ESN)
			}
			e.Seal(jobs)
			for i := range jobs {
				if !jobs[i].OK || !bytes.Equal(jobs[i].Pkt, want[i]) {
					t.Fatalf("seal, job %d of %d, %d bytes: OK %v", i, size, len(bodies[i]), jobs[i].OK)
				}
			}
			bad := rng.IntN(2 * size) // often one of them is forged
			if bad < size {
				jobs[bad].Pkt[rng.IntN(len(jobs[bad].Pkt))] ^= 1 << rng.IntN(8)
			}
			e.Open(jobs)
			for i := range jobs {
				if jobs[i].OK == (i == bad) || i != bad && !bytes.Equal(jobs[i].Pkt[at:at+len(bodies[i])], bodies[i]) {
					t.Fatalf("open, job %d of %d, %d bytes, forged %d: OK %v", i, size, len(bodies[i]), bad, jobs[i].OK)
				}
			}
		}
	})
}

// A kernel works at a packet's end and at the next one's start at once: packets of
// every length equal the oracle behind a long one and before one, each with a key
// of its own, and in whatever order the three are.
func TestGCMNeighbours(t *testing.T) {
	eachTier(t, `^aes-gcm-16-\d+$`, func(t *testing.T, s *Suite) {
		e, rng := NewEngine(), newRand()
		var keys [3]*Key
		var oracles [len(keys)]oracle
		for i := range keys {
			keys[i], oracles[i] = randomKey(s, rng)
		}
		for n := 4; n <= 2200; n += 4 {
			lengths := [...]int{4 + rng.IntN(4200)&^3, n, 132 + rng.IntN(1500)&^3}
			rng.Shuffle(len(lengths), func(i, j int) { lengths[i], lengths[j] = lengths[j], lengths[i] })
			jobs, want, bodies := make([]Job, len(keys)), make([][]byte, len(keys)), make([][]byte, len(keys))
			for i, length := range lengths {
				raw := randomBytes(rng, 8+8+length+16)
				jobs[i] = Job{Key: keys[i], Pkt: raw, SeqHi: rng.Uint32(), ESN: rng.IntN(2) == 0}
				bodies[i] = bytes.Clone(raw[16 : 16+length])
				want[i] = oracles[i].seal(raw[:8], bodies[i], jobs[i].SeqHi, jobs[i].ESN)
			}
			e.Seal(jobs)
			for i, j := range jobs {
				if !j.OK || !bytes.Equal(j.Pkt, want[i]) {
					t.Fatalf("seal of %v bytes: packet %d is wrong, OK %v", lengths, i, j.OK)
				}
			}
			bad := rng.IntN(2 * len(jobs)) // one of them is forged, or none
			if bad < len(jobs) {
				jobs[bad].Pkt[rng.IntN(len(jobs[bad].Pkt))] ^= 1 << rng.IntN(8)
			}
			e.Open(jobs)
			for i, j := range jobs {
				if j.OK == (i == bad) || i != bad && !bytes.Equal(j.Pkt[16:16+lengths[i]], bodies[i]) {
					t.Fatalf("open of %v bytes, forged %d: packet %d is wrong, OK %v", lengths, bad, i, j.OK)
				}
			}
		}
	})
}

// A batch of small packets of one size is what a kernel takes without a look
// from Go: at each size it equals the oracle, and where one job of it is unfit in
// any way, that one is refused and left as it is, and no other.
func TestGCMUniformBatches(t *testing.T) {
	eachTier(t, `^aes-gcm-16-\d+$`, func(t *testing.T, s *Suite) {
		e, rng := NewEngine(), newRand()
		dead, _ := randomKey(s, rng)
		dead.Zero()
		stranger, _ := randomKey(suiteOf(s.tier, "chacha20-poly1305"), rng)
		var keys [3 * gcmFours]*Key
		var oracles [len(keys)]oracle
		for i := range keys {
			keys[i], oracles[i] = randomKey(s, rng)
		}
		unfit := []func(j *Job){
			func(*Job) {},
			func(j *Job) { j.Key = nil },
			func(j *Job) { j.Key = dead },
			func(j *Job) { j.Key = &Key{} },
			func(j *Job) { j.Pkt = nil },
			func(j *Job) { j.Pkt = j.Pkt[:32] },
			func(j *Job) { j.Pkt = j.Pkt[:len(j.Pkt)-1-rng.IntN(3)] },
			func(j *Job) { j.Key = stranger }, // is not refused: its suite seals and opens
		}
		withESN := []func(i int) bool{
			func(int) bool { return false },
			func(int) bool { return true },
			func(i int) bool { return i/gcmFours%2 == 0 }, // what one four leaves must not matter to the next
			func(int) bool { return rng.IntN(2) == 0 },
		}
		for n := 4; n <= 132; n += 4 {
			for kind, spoil := range unfit {
				jobs, want, bodies := make([]Job, len(keys)), make([][]byte, len(keys)), make([][]byte, len(keys))
				bad, esn := rng.IntN(len(jobs)), withESN[rng.IntN(len(withESN))]
				for i := range jobs {
					raw := randomBytes(rng, 8+8+n+16)
					jobs[i] = Job{Key: keys[i], Pkt: bytes.Clone(raw), SeqHi: rng.Uint32(), ESN: esn(i)}
					bodies[i] = bytes.Clone(raw[16 : 16+n])
					want[i] = oracles[i].seal(raw[:8], bodies[i], jobs[i].SeqHi, jobs[i].ESN)
				}
				before := bytes.Clone(jobs[bad].Pkt)
				spoil(&jobs[bad])
				refused := kind > 0 && jobs[bad].Key != stranger
				e.Seal(jobs)
				for i, j := range jobs {
					switch {
					case i == bad && refused:
						if j.OK || !bytes.Equal(j.Pkt, before[:len(j.Pkt)]) {
							t.Fatalf("seal of %d bytes, kind %d: an unfit job was run or changed", n, kind)
						}
					case i == bad && kind > 0:
						if !j.OK {
							t.Fatalf("seal of %d bytes: a job of another suite was refused", n)
						}
					case !j.OK || !bytes.Equal(j.Pkt, want[i]):
						t.Fatalf("seal of %d bytes, kind %d at %d: job %d is wrong, OK %v", n, kind, bad, i, j.OK)
					}
				}
				e.Open(jobs)
				for i, j := range jobs {
					if j.OK == (i == bad && refused) || i != bad && !bytes.Equal(j.Pkt[16:16+n], bodies[i]) {
						t.Fatalf("open of %d bytes, kind %d at %d: job %d is wrong, OK %v", n, kind, bad, i, j.OK)
					}
				}
			}
		}
	})
}

// Two workers under one key of each suite, while the collector runs all the time
// and moves stacks: a kernel must hold nothing that it loses.
func TestUnderCollection(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	eachTier(t, "", func(t *testing.T, s *Suite) {
		k, o := randomKey(s, newRand())
		at, icv := s.textAt(), s.ICVLen()
		var workers sync.WaitGroup
		for w := range 2 {
			workers.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(w), 2))
				for range 20 {
					e, jobs := NewEngine(), make([]Job, 1+rng.IntN(8))
					for i := range jobs {
						jobs[i] = Job{Key: k, Pkt: randomBytes(rng, at+s.Align()*(1+rng.IntN(400/s.Align()))+icv)}
					}
					want := make([][]byte, len(jobs))
					for i, j := range jobs {
						want[i] = o.seal(j.Pkt[:8], j.Pkt[at:len(j.Pkt)-icv], 0, false)
					}
					e.Seal(jobs)
					for i, j := range jobs {
						if !j.OK || !bytes.Equal(j.Pkt, want[i]) {
							t.Errorf("worker %d: sealed otherwise than alone", w)
						}
					}
				}
			})
		}
		workers.Wait()
	})
}

// FuzzGCMTiers gives all tiers the same packet to seal, alone or four times over,
// the outcome to open, and the raw packet to open.
func FuzzGCMTiers(f *testing.F) {
	for _, n := range []int{0, 31, 36, 80, 84, 96, 100, 144, 148, 272, 276, 1500, 4100} {
		f.Add(uint8(n), uint32(n), n%3 == 0, bytes.Repeat([]byte{byte(n)}, n))
		f.Add(uint8(n)^1, uint32(n), n%3 == 1, bytes.Repeat([]byte{byte(n)}, n))
	}
	const names = 3
	f.Fuzz(func(t *testing.T, which uint8, hi uint32, esn bool, data []byte) {
		name := []string{"aes-gcm-16-128", "aes-gcm-16-192", "aes-gcm-16-256"}[which/2%names]
		var first []byte // what the first tier made
		var verdict bool
		for i, tier := range Tiers() {
			s := suiteOf(tier, name)
			k, _ := randomKey(s, newRand())
			e := NewEngine()
			raw, jobs := []Job{{Key: k, Pkt: bytes.Clone(data), SeqHi: hi, ESN: esn}}, make([]Job, 1)
			if which%2 != 0 {
				jobs = make([]Job, gcmFours)
			}
			e.Open(raw)
			all, pkt := guarded(data, which%4 < 2)
			for i := range jobs {
				jobs[i] = Job{Key: k, Pkt: bytes.Clone(data), SeqHi: hi, ESN: esn}
			}
			jobs[len(jobs)-1].Pkt = pkt
			e.Seal(jobs)
			if i == 0 {
				first, verdict = bytes.Clone(pkt), jobs[0].OK
			}
			for _, j := range jobs {
				if !bytes.Equal(j.Pkt, first) || j.OK != verdict || !guardsHold(all) || raw[0].OK {
					t.Fatalf("%s: %v and %v differ, or an unsealed packet was opened", name, tier, Tiers()[0])
				}
			}
			e.Open(jobs)
			for _, j := range jobs {
				if j.OK != verdict || verdict && !bytes.Equal(j.Pkt[16:len(j.Pkt)-16], data[16:len(data)-16]) {
					t.Fatalf("%s: %v does not open what it sealed", name, tier)
				}
			}
		}
	})
}

// A kernel touches no byte outside a packet, even to read it: packets begin
// where memory begins, or end where it ends, one alone and four together.
func TestGCMStaysInside(t *testing.T) {
	var memory [gcmFours][]byte
	for i := range memory {
		memory[i] = fenced(t, 9000)
	}
	eachTier(t, aesAEAD, func(t *testing.T, s *Suite) {
		e, rng, at, icv := NewEngine(), newRand(), s.textAt(), s.ICVLen()
		k, o := randomKey(s, rng)
		lengths := []int{1420, 2048, 4092, 8192, 8956}
		for n := 4; n <= 640; n += 4 {
			lengths = append(lengths, n)
		}
		for _, n := range lengths {
			raw := randomBytes(rng, at+n+icv)
			want := o.seal(raw[:8], raw[at:at+n], 0, false)
			for _, atEnd := range []bool{false, true} {
				for _, jobs := range [][]Job{make([]Job, 1), make([]Job, gcmFours)} {
					for i := range jobs {
						pkt := memory[i][:len(raw)]
						if atEnd {
							pkt = memory[i][len(memory[i])-len(raw):]
						}
						copy(pkt, raw)
						jobs[i] = Job{Key: k, Pkt: pkt}
					}
					e.Seal(jobs)
					for _, j := range jobs {
						if !j.OK || !bytes.Equal(j.Pkt, want) {
							t.Fatalf("seal of %d bytes, %d together: OK %v", n, len(jobs), j.OK)
						}
					}
					e.Open(jobs)
					for _, j := range jobs {
						if !j.OK || !bytes.Equal(j.Pkt[at:at+n], raw[at:at+n]) {
							t.Fatalf("open of %d bytes, %d together: OK %v", n, len(jobs), j.OK)
						}
					}
				}
			}
		}
	})
}
