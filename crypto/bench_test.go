package crypto

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"testing"

	"spigot/internal/tsc"
)

// The benchmarks' names are keys for benchstat: algorithm, bytes between IV
// and ICV, implementation, and how many keys take turns (SAs in use). Batches
// of 32; packets stay in the cache, keys only as far as they fit.
const benchBatch = 32

func BenchmarkSeal(b *testing.B) { benchmark(b, (*Engine).Seal, false) }
func BenchmarkOpen(b *testing.B) { benchmark(b, (*Engine).Open, true) }

func benchmark(b *testing.B, run func(*Engine, []Job), open bool) {
	for _, alg := range []struct{ name, suite string }{
		{"aes128gcm", "aes-gcm-16-128"},
		{"aes256gcm", "aes-gcm-16-256"},
		{"aes256cbc-sha256", "aes-cbc-256/hmac-sha2-256-128"},
		{"aes256cbc-sha384", "aes-cbc-256/hmac-sha2-384-192"},
		{"aes256cbc-sha512", "aes-cbc-256/hmac-sha2-512-256"},
		{"aes256ctr-sha256", "aes-ctr-256/hmac-sha2-256-128"},
		{"chacha20poly1305", "chacha20-poly1305"},
		{"aes128gcm8", "aes-gcm-8-128"},
		{"aes128gcmiiv", "aes-gcm-16-iiv-128"},
		{"aes128gmac", "null-aes-gmac-128"},
		{"aes128ccm", "aes-ccm-16-128"},
		{"aes128cbc-xcbc", "aes-cbc-128/aes-xcbc-96"},
	} {
		for _, size := range []int{48, 64, 128, 256, 512, 1024, 1420, 8192} {
			for _, tier := range Tiers() {
				s := suiteOf(tier, alg.suite)
				for _, keys := range []int{1, 32, 16384} {
					b.Run(fmt.Sprintf("alg=%s/size=%d/tier=%v/keys=%d", alg.name, size, tier, keys), func(b *testing.B) {
						newBench(s, size, keys, open).run(b, run)
					})
				}
			}
		}
	}
}

// BenchmarkManySAs is what a packet costs where its key is in no near cache:
// with so many SAs in use that take turns in random order.
func BenchmarkManySAs(b *testing.B) {
	for _, keys := range []int{1, 1000, 16384, 100000} {
		for _, tier := range Tiers() {
			b.Run(fmt.Sprintf("alg=aes128gcm/size=1420/tier=%v/keys=%d", tier, keys), func(b *testing.B) {
				newBench(suiteOf(tier, "aes-gcm-16-128"), 1420, keys, false).run(b, (*Engine).Seal)
			})
		}
	}
}

// BenchmarkNewKey is key expansion: what an SA costs before its first packet,
// and what it takes of memory.
func BenchmarkNewKey(b *testing.B) {
	for _, name := range []string{"aes-gcm-16-128", "aes-gcm-16-256", "null-aes-gmac-256", "aes-ccm-16-256", "chacha20-poly1305",
		"aes-cbc-256/hmac-sha2-256-128", "aes-cbc-256/hmac-sha2-512-256", "null/aes-cmac-96"} {
		for _, tier := range Tiers() {
			s := suiteOf(tier, name)
			enc, auth := make([]byte, s.EncKeyLen()), make([]byte, s.AuthKeyLen())
			b.Run(fmt.Sprintf("suite=%s/tier=%v", name, tier), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.NewKey(enc, auth); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// bench is a batch of packets and the keys that take turns with it.
type bench struct {
	engine *Engine
	keys   []*Key
	fresh  [][]byte // what each packet is before a run: sealed, if it is to be opened
	jobs   []Job
	next   int
	size   int
}

func newBench(s *Suite, size, keys int, open bool) *bench {
	rng := newRand()
	w := &bench{engine: NewEngine(), size: (size + s.Align() - 1) &^ (s.Align() - 1), jobs: make([]Job, benchBatch)}
	length := 8 + s.IVLen() + w.size + s.ICVLen()
	for i := range w.jobs {
		w.jobs[i].Pkt = make([]byte, length)
	}
	for range keys {
		k, _ := randomKey(s, rng)
		w.keys = append(w.keys, k)
	}
	rng.Shuffle(keys, func(i, j int) { w.keys[i], w.keys[j] = w.keys[j], w.keys[i] })
	kept := 1 // Seal does not mind what it seals
	if open {
		kept = max(keys, benchBatch)
	}
	for i := range kept {
		pkt := make([]byte, length)
		binary.BigEndian.PutUint32(pkt[4:], rng.Uint32())
		if open {
			w.engine.Seal([]Job{{Key: w.keys[i%keys], Pkt: pkt}})
		}
		w.fresh = append(w.fresh, pkt)
	}
	return w
}

// turn makes the next batch ready: other keys, and the packets as they were.
func (w *bench) turn() {
	for i := range w.jobs {
		w.jobs[i].Key = w.keys[w.next%len(w.keys)]
		copy(w.jobs[i].Pkt, w.fresh[w.next%len(w.fresh)])
		w.next++
	}
}

// ticksPerNanosecond is the rate of the counter that run measures with.
var ticksPerNanosecond = sync.OnceValue(func() float64 { return tsc.Calibrate() / 1e9 })

// reading is how many ticks of that counter two readings of it are apart with
// nothing between them: of 32 small packets some per cent, at any tier.
var reading = sync.OnceValue(func() float64 {
	const pairs = 1000
	least := math.Inf(1)
	for range 100 {
		var apart uint64
		for range pairs {
			start := tsc.Now()
			apart += tsc.Now() - start
		}
		least = min(least, float64(apart)/pairs)
	}
	return least
})

// run measures the batches alone, without what makes them ready and without the
// readings of the counter. Cycles are those of the time-stamp counter.
func (w *bench) run(b *testing.B, run func(*Engine, []Job)) {
	var spent uint64
	b.ReportAllocs()
	for b.Loop() {
		w.turn()
		start := tsc.Now()
		run(w.engine, w.jobs)
		spent += tsc.Now() - start
	}
	for i := range w.jobs {
		if !w.jobs[i].OK {
			b.Fatalf("packet %d was refused", i)
		}
	}
	packets := float64(b.N * benchBatch)
	ticks := max(float64(spent)-float64(b.N)*reading(), 0) / packets
	ns := ticks / ticksPerNanosecond()
	b.ReportMetric(0, "ns/op") // would count what makes the batch ready
	b.ReportMetric(ns, "ns/pkt")
	b.ReportMetric(ticks/float64(w.size), "cycles/B")
	b.ReportMetric(float64(8*w.size)/ns, "Gbit/s")
}
