package crypto

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hmacSuites lists the suites with HMAC-SHA2, for each tier that can run here; of
// the others, whose integrity has no lanes, those of one cipher.
func hmacSuites() (all []*Suite) {
	for _, tier := range Tiers() {
		for _, s := range makeSuites(tier) {
			if s.hash != nil && (s.hash.hmac() && !s.hash.legacy || strings.HasPrefix(s.name, "aes-cbc-128")) {
				all = append(all, s)
			}
		}
	}
	return all
}

// lanesJob is a job of its own key, with what the oracle makes of its packet.
func lanesJob(s *Suite, rng *rand.Rand, body int) (job Job, want []byte) {
	k, o := randomKey(s, rng)
	j := Job{Key: k, ESN: rng.IntN(2) == 0}
	if j.ESN {
		j.SeqHi = rng.Uint32()
	}
	header, plain := randomBytes(rng, 8), randomBytes(rng, body)
	want = o.seal(header, plain, j.SeqHi, j.ESN)
	j.Pkt = bytes.Clone(want)
	copy(j.Pkt[8+s.IVLen():], plain)
	clear(j.Pkt[8 : 8+s.IVLen()])
	clear(j.Pkt[len(j.Pkt)-s.ICVLen():])
	return j, want
}

// Every length of body between IV and ICV that counts, in batches of 1 to 64
// in which lengths and keys differ, on each tier.
func TestLanesOfMixedLengths(t *testing.T) {
	for _, s := range hmacSuites() {
		t.Run(s.tier.String()+"/"+s.String(), func(t *testing.T) {
			rng, e := newRand(), NewEngine()
			lengths := []int{8192, 16384, 65520 - 16*rng.IntN(100), 65520}
			for n := 16; n <= 2048; n += 16 {
				lengths = append(lengths, n)
			}
			for n := 3904; n <= 4208; n += 16 {
				lengths = append(lengths, n)
			}
			rng.Shuffle(len(lengths), func(i, j int) { lengths[i], lengths[j] = lengths[j], lengths[i] })
			for len(lengths) > 0 {
				n := min(1+rng.IntN(MaxBatch), len(lengths))
				jobs, want, plain := make([]Job, n), make([][]byte, n), make([][]byte, n)
				for i, length := range lengths[:n] {
					jobs[i], want[i] = lanesJob(s, rng, length)
					plain[i] = bytes.Clone(jobs[i].Pkt[8+s.IVLen() : len(want[i])-s.ICVLen()])
				}
				lengths = lengths[n:]
				e.Seal(jobs)
				for i, j := range jobs {
					if !j.OK || !bytes.Equal(j.Pkt, want[i]) {
						t.Fatalf("seal, job %d of %d, %d bytes: OK %v", i, n, len(j.Pkt), j.OK)
					}
				}
				e.Open(jobs)
				for i, j := range jobs {
					if !j.OK || !bytes.Equal(j.Pkt[8+s.IVLen():len(j.Pkt)-s.ICVLen()], plain[i]) {
						t.Fatalf("open, job %d of %d, %d bytes: OK %v", i, n, len(j.Pkt), j.OK)
					}
				}
			}
		})
	}
}

// Batches of one length, as a flow of one application makes, of sizes around
// those at which kernels change.
func TestLanesOfOneLength(t *testing.T) {
	for _, s := range hmacSuites() {
		rng, e := newRand(), NewEngine()
		for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, MaxBatch} {
			jobs, want := make([]Job, n), make([][]byte, n)
			for i := range jobs {
				jobs[i], want[i] = lanesJob(s, rng, 16*(n%9+1))
			}
			e.Seal(jobs)
			for i, j := range jobs {
				if !j.OK || !bytes.Equal(j.Pkt, want[i]) {
					t.Fatalf("%v: %s: seal, job %d of %d", s.tier, s, i, n)
				}
			}
			if e.Open(jobs); slices.ContainsFunc(jobs, func(j Job) bool { return !j.OK }) {
				t.Fatalf("%v: %s: open, batch of %d", s.tier, s, n)
			}
		}
	}
}

// FuzzLanes seals and opens, on each tier, a batch in which each byte of sizes is a
// packet of that many blocks; the oracle's packets count.
func FuzzLanes(f *testing.F) {
	suites := hmacSuites()
	for i := range suites {
		f.Add(uint8(i), uint64(i), []byte{3, 90, 1})
		f.Add(uint8(i), uint64(i), bytes.Repeat([]byte{1, 6, 2, 40}, 9))
		f.Add(uint8(i), uint64(i), append(bytes.Repeat([]byte{4}, 20), 255))
	}
	e := NewEngine()
	f.Fuzz(func(t *testing.T, which uint8, seed uint64, sizes []byte) {
		s := suites[int(which)%len(suites)]
		rng := rand.New(rand.NewPCG(seed, 0))
		sizes = sizes[:min(len(sizes), 2*MaxBatch)]
		jobs, want := make([]Job, len(sizes)), make([][]byte, len(sizes))
		for i, n := range sizes {
			jobs[i], want[i] = lanesJob(s, rng, 16*max(1, int(n)))
		}
		e.Seal(jobs)
		flipped := make([]bool, len(jobs))
		for i, j := range jobs {
			if !j.OK || !bytes.Equal(j.Pkt, want[i]) {
				t.Fatalf("%v: %s: seal, job %d of %d", s.tier, s, i, len(jobs))
			}
			if flipped[i] = rng.IntN(3) == 0; flipped[i] {
				j.Pkt[rng.IntN(len(j.Pkt))] ^= 1 << rng.IntN(8)
			}
		}
		e.Open(jobs)
		for i, j := range jobs {
			if j.OK == flipped[i] {
				t.Fatalf("%v: %s: open, job %d of %d, flipped %v: OK %v", s.tier, s, i, len(jobs), flipped[i], j.OK)
			}
		}
		e.Seal(jobs)
		for i, j := range jobs {
			if !flipped[i] && !bytes.Equal(j.Pkt, want[i]) {
				t.Fatalf("%v: %s: job %d of %d did not open to what was sealed", s.tier, s, i, len(jobs))
			}
		}
	})
}

// One flipped bit refuses its packet, whatever lane it has, and no other one.
// A refused packet is not decrypted.
func TestLanesRefuseEveryBit(t *testing.T) {
	for _, s := range hmacSuites() {
		rng, e := newRand(), NewEngine()
		good, want := lanesJob(s, rng, 32)
		good.Pkt = want
		jobs := make([]Job, MaxBatch)
		for bit := 0; bit < 8*len(want); {
			genuine := rng.IntN(MaxBatch)
			flipped := make([][]byte, MaxBatch)
			for i := range jobs {
				jobs[i] = good
				jobs[i].Pkt = bytes.Clone(want)
				if i != genuine {
					jobs[i].Pkt[bit/8%len(want)] ^= 1 << (bit % 8)
					bit++
				}
				flipped[i] = bytes.Clone(jobs[i].Pkt)
			}
			e.Open(jobs)
			for i, j := range jobs {
				if j.OK != (i == genuine) {
					t.Fatalf("%v: %s: job %d: OK %v", s.tier, s, i, j.OK)
				}
				if i != genuine && !bytes.Equal(j.Pkt, flipped[i]) {
					t.Fatalf("%v: %s: a refused packet was touched", s.tier, s)
				}
			}
		}
	}
}

// fenced maps size bytes between pages that fault on any access.
func fenced(t *testing.T, size int) []byte {
	t.Helper()
	page := unix.Getpagesize()
	size = (size + page - 1) &^ (page - 1)
	all := must(unix.Mmap(-1, 0, page+size+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON))
	t.Cleanup(func() { unix.Munmap(all) })
	for _, fence := range [][]byte{all[:page], all[page+size:]} {
		if err := unix.Mprotect(fence, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return all[page : page+size]
}

// A kernel reads and writes no byte in front of the packet and none behind it:
// those belong to a page that is not there, or keep their value.
func TestLanesStayInside(t *testing.T) {
	const room = 4096
	memory := fenced(t, room)
	for _, s := range hmacSuites() {
		rng, e := newRand(), NewEngine()
		for body := 16; body <= 640; body += 16 {
			job, want := lanesJob(s, rng, body)
			n := len(job.Pkt)
			for _, at := range []int{0, room - n} {
				for i := range memory {
					memory[i] = 0xa5
				}
				pkt := memory[at : at+n]
				copy(pkt, job.Pkt)
				jobs := []Job{job}
				jobs[0].Pkt = pkt
				if e.Seal(jobs); !jobs[0].OK || !bytes.Equal(pkt, want) {
					t.Fatalf("%v: %s: seal of %d bytes at %d", s.tier, s, body, at)
				}
				if e.Open(jobs); !jobs[0].OK {
					t.Fatalf("%v: %s: open of %d bytes at %d", s.tier, s, body, at)
				}
				if bytes.Count(memory, []byte{0xa5})-bytes.Count(pkt, []byte{0xa5}) != room-n {
					t.Fatalf("%v: %s: %d bytes at %d: bytes outside changed", s.tier, s, body, at)
				}
			}
		}
	}
}

// What worked on secrets is empty afterwards.
func TestLanesForget(t *testing.T) {
	rng, e := newRand(), NewEngine()
	for _, s := range hmacSuites() {
		jobs := make([]Job, 20)
		for i := range jobs {
			jobs[i], _ = lanesJob(s, rng, 16*(i+1))
		}
		e.Seal(jobs)
		e.Open(jobs)
		if *e.cbc.rows != (cbcRows{}) || e.cbc.text[0] != nil {
			t.Errorf("%v: %s: the Engine keeps round keys or text", s.tier, s)
		}
		if e.hmac.state != (hmacLanes{}).state || e.hmac.end != (hmacLanes{}).end || e.hmac.sum != (shaState{}) || e.hmac.text[0] != nil {
			t.Errorf("%v: %s: the Engine keeps a hash's state or text", s.tier, s)
		}
	}
}

// Only speed depends on it, but half of that.
func TestRowsDoNotStraddleCacheLines(t *testing.T) {
	for range 100 {
		if at := reflect.ValueOf(NewEngine().cbc.rows).Pointer(); at%64 != 0 {
			t.Fatalf("rows at %#x", at)
		}
	}
}

// FIPS 197, appendix A: the last round key of each of its three expansions.
func TestExpandAES(t *testing.T) {
	for _, tier := range Tiers() {
		if aesKernels[tier].expand == nil {
			continue
		}
		for _, c := range []struct {
			key, last hexBytes
		}{
			{unhex("2b7e151628aed2a6abf7158809cf4f3c"), unhex("d014f9a8c9ee2589e13f0cc8b6630ca6")},
			{unhex("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b"), unhex("e98ba06f448c773c8ecc720401002202")},
			{unhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"), unhex("fe4890d1e6188d0b046df344706c631e")},
		} {
			var encrypt, decrypt aesSchedule
			rounds := aesKernels[tier].expand(&encrypt, &decrypt, c.key)
			if rounds != len(c.key)/4+6 || !bytes.Equal(encrypt[rounds][:], c.last) || !bytes.Equal(decrypt[0][:], c.last) ||
				!bytes.Equal(decrypt[rounds][:], c.key[:16]) {
				t.Errorf("%v: key of %d bytes: %d rounds, last %x", tier, len(c.key), rounds, encrypt[rounds])
			}
		}
	}
}

func unhex(text string) (h hexBytes) {
	if err := h.UnmarshalText([]byte(text)); err != nil {
		panic(err)
	}
	return h
}
