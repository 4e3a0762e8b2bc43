package crypto

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"
)

// The benchmarks' names are keys for benchstat: algorithm, bytes between IV
// and ICV, implementation, and how many keys take turns (SAs in use). Batches
// of 32; packets stay in the cache, keys only as far as they fit.
const benchBatch = 32

func BenchmarkSeal(b *testing.B) { benchmark(b, (*Engine).Seal, false) }
func BenchmarkOpen(b *testing.B) { benchmark(b, (*Engine).Open, true) }

func benchmark(b *testing.B, run func(*Engine, []Job), open bool) {
	for _, alg := range []struct {
		name, encryption, integrity string
		encKeyLen                   int
	}{
		{"aes128gcm", "aes-gcm-16", "", 20},
		{"aes256gcm", "aes-gcm-16", "", 36},
		{"aes256cbc-sha256", "aes-cbc", "hmac-sha2-256-128", 32},
		{"aes256cbc-sha384", "aes-cbc", "hmac-sha2-384-192", 32},
		{"chacha20poly1305", "chacha20-poly1305", "", 36},
	} {
		s := must(Lookup(alg.encryption, alg.integrity, alg.encKeyLen))
		for _, size := range []int{48, 64, 128, 256, 512, 1024, 1420, 8192} {
			for _, keys := range []int{1, 32, 16384} {
				if keys*size > 16384*1420 {
					continue // the packets kept for Open would fill the memory
				}
				b.Run(fmt.Sprintf("alg=%s/size=%d/tier=std/keys=%d", alg.name, size, keys), func(b *testing.B) {
					newBench(s, size, keys, open).run(b, run)
				})
			}
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

// run measures the batches alone, without what makes them ready.
func (w *bench) run(b *testing.B, run func(*Engine, []Job)) {
	var spent time.Duration
	b.ReportAllocs()
	for b.Loop() {
		w.turn()
		start := time.Now()
		run(w.engine, w.jobs)
		spent += time.Since(start)
	}
	for i := range w.jobs {
		if !w.jobs[i].OK {
			b.Fatalf("packet %d was refused", i)
		}
	}
	perPacket := float64(spent.Nanoseconds()) / float64(b.N*benchBatch)
	b.ReportMetric(0, "ns/op") // would count what makes the batch ready
	b.ReportMetric(perPacket, "ns/pkt")
	b.ReportMetric(float64(8*w.size)/perPacket, "Gbit/s")
}
