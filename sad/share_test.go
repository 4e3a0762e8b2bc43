package sad

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"sync"
	"testing"
)

// Two workers seal under one SA while the collector runs all the time. Every
// number is used once, so every IV is; and a third opens all that they made,
// across 2^32 with ESN.
func TestTwoWorkersSealUnderOneKey(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	const workers, bursts, text = 2, 60, 64
	for _, c := range []struct {
		enc, integ  string
		encLen, mac int
	}{
		{"aes-gcm-16", "", 20, 0}, {"aes-gcm-8", "", 36, 0}, {"null-aes-gmac", "", 20, 0}, {"aes-ccm-16", "", 35, 0},
		{"chacha20-poly1305", "", 36, 0}, {"aes-cbc", "hmac-sha2-384-192", 32, 48}, {"aes-ctr", "aes-xcbc-96", 20, 16},
	} {
		t.Run(c.enc+c.integ, func(t *testing.T) {
			const start = 1<<32 - workers*bursts*4 // somewhat more than half comes before 2^32
			edit := func(p *Params) {
				p.Encryption, p.Integrity, p.EncKey, p.AuthKey = c.enc, c.integ, make([]byte, c.encLen), make([]byte, c.mac)
				p.ESN, p.Window, p.Replay = true, 4096, Replay{Seq: start}
			}
			out, in := outbound(t, edit), inbound(t, edit)
			front, icv := int(out.Geo.Head), int(out.Geo.ICV)
			var sealed [workers][]Job
			var running sync.WaitGroup
			for w := range workers {
				running.Go(func() {
					e := NewEngine()
					for b := range bursts {
						first, n := out.Reserve(1 + (b+w)%16)
						jobs := make([]Job, n)
						for i := range jobs {
							seq := first + uint64(i)
							pkt := make([]byte, front+text+icv)
							binary.BigEndian.PutUint32(pkt, out.SPI)
							binary.BigEndian.PutUint32(pkt[4:], uint32(seq))
							copy(pkt[front:], fmt.Sprint("packet ", seq))
							jobs[i] = Job{Key: out.Key, Pkt: pkt, SeqHi: uint32(seq >> 32), ESN: true}
						}
						e.Seal(jobs)
						sealed[w] = append(sealed[w], jobs...)
					}
				})
			}
			running.Wait()
			seen, e := map[uint64]bool{}, NewEngine()
			for _, jobs := range sealed {
				for _, j := range jobs {
					seq := uint64(j.SeqHi)<<32 | uint64(binary.BigEndian.Uint32(j.Pkt[4:]))
					if !j.OK || seen[seq] {
						t.Fatalf("number %#x: sealed %v, used before %v", seq, j.OK, seen[seq])
					}
					seen[seq] = true
					open := []Job{{Key: in.Key, Pkt: j.Pkt, SeqHi: j.SeqHi, ESN: true}}
					if e.Open(open); !open[0].OK || string(j.Pkt[front:front+7]) != "packet " {
						t.Fatalf("number %#x is not opened", seq)
					}
				}
			}
			if last := out.Seq(); uint64(len(seen)) != last-start || last < 1<<32 {
				t.Errorf("%d numbers used up to %#x from %#x", len(seen), last, uint64(start))
			}
		})
	}
}
