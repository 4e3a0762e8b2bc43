package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/pmd"
)

// maxEarly is how many packets a worker keeps for SAs that are being negotiated.
const maxEarly = MaxBurst

// early keeps packets that came before the keys of their SA. The peer that
// answers IKE's CREATE_CHILD_SA may send by the new SA as soon as its answer is
// on the way (RFC 7296, section 2.8); packets overtake the key daemon, which has
// to read that answer and to install what it says. Only an SPI that the daemon
// has reserved is worth waiting for.
type early struct {
	n      int
	gen    uint64 // of the SAD snapshot that had no SA for any of them
	frames [maxEarly]pmd.Frame
	port   [maxEarly]int // that it came in by
}

// hold keeps packet i of b, whose SPI is unknown, if its SA is expected and there
// is room. The packet counts as received when it goes on.
func (w *Worker) hold(b *Burst, i uint8) bool {
	p := &b.pkts[i]
	esp := wire.ESP(p.chunk[p.esp:p.espEnd])
	if !w.sad.Expected(esp.SPI(), &p.tuple.Dst, wire.ProtoESP) || w.early.n == maxEarly || p.giant {
		return false
	}
	e := &w.early
	e.frames[e.n] = pmd.Frame{Base: p.base, Off: uint16(p.l2), Len: uint16(p.size)}
	e.port[e.n] = b.port
	e.gen = w.sad.Gen
	e.n++
	w.c.Rx--
	w.c.RxBytes -= uint64(p.size)
	b.end(i, held, counter.None)
	return true
}

// release takes the packets that wait through inbound once the SAD has changed;
// those that are still early come back to wait. It returns how many it took.
func (w *Worker) release() int {
	e := &w.early
	if e.gen == w.sad.Gen {
		return 0
	}
	e.gen = w.sad.Gen
	waiting := *e
	e.n = 0
	for port := range w.ports {
		n := 0
		for i, f := range waiting.frames[:waiting.n] {
			if waiting.port[i] == port {
				w.frames[n] = f
				n++
			}
		}
		if n > 0 {
			w.carryBack(port, n)
		}
	}
	return waiting.n
}

// carryBack carries the first n of w.frames, which port received before.
func (w *Worker) carryBack(port, n int) {
	w.c.Rx += uint64(n)
	w.lap(counter.NumStages, 0)
	b := &w.burst
	b.load(port, w.cfg.Pool, w.frames[:n])
	w.inbound(b)
	w.finish(b)
}

// abandon drops the packets that still wait when the worker ends.
func (w *Worker) abandon() {
	for _, f := range w.early.frames[:w.early.n] {
		w.c.Rx++
		w.c.Drops[counter.UnknownSPI]++
		w.cfg.Pool.Put(f.Base)
	}
	w.early.n = 0
}
