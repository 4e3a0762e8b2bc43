package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/pmd"
	"spigot/spd"
)

// askEvery is how many turns pass before the same question goes to the slow
// path again. The slow path has limits of its own; this keeps its ring free.
const askEvery = 1 << 12

// asked remembers the last questions, so that a flood of packets that all miss
// the same thing does not become a flood of messages.
type asked [64]struct {
	key  uint64
	turn uint64
}

// again says whether key was asked within askEvery turns before turn; if not,
// it is asked now.
func (a *asked) again(key, turn uint64) bool {
	e := &a[(key^key>>17)%uint64(len(a))]
	if e.key == key && turn-e.turn < askEvery && e.turn != 0 {
		return true
	}
	e.key, e.turn = key, turn
	return false
}

// acquire asks the slow path for an SA for pol, on behalf of a packet of the flow t:
// for the worker cpu, if that is not 0.
func (w *Worker) acquire(pol *spd.Policy, t *flow.Tuple, cpu uint16) {
	key := uint64(pol.ID) | uint64(cpu)<<32
	if pol.PFP != 0 {
		key = keyOf(pol.ID, pol.FlowOf(t))
	}
	if w.acquired.again(key, w.c.Turns) {
		return
	}
	// Who scans a network asks for each of its flows: half of the ring is kept for
	// policies that ask once.
	if q := w.cfg.Acquires; pol.PFP != 0 && q.Len() >= q.Cap()/2 {
		w.c.LostMsgs++
		return
	}
	w.acquireMsg[0] = spd.AcquireRequest{Policy: pol.ID, CPU: cpu, Flow: *t}
	if w.cfg.Acquires.Push(w.acquireMsg[:]) == 1 {
		w.c.Acquires++
	} else {
		w.c.LostMsgs++
	}
}

// keyOf returns a number for a flow of a policy. Flows that share one wait for
// one another's questions.
func keyOf(policy uint32, f flow.Tuple) uint64 {
	h := uint64(policy) ^ f.Src.Hi ^ f.Dst.Hi<<1
	for _, part := range [...]uint64{f.Src.Lo, f.Dst.Lo, uint64(f.SrcPort)<<16 | uint64(f.DstPort), uint64(f.Proto)} {
		h = (h ^ part) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}

// resolve asks the slow path to have the neighbour behind hop resolved.
func (w *Worker) resolve(hop *fib.Hop, dst flow.Addr) {
	via := hop.Via
	if via.IsZero() {
		via = dst
	}
	if w.resolved.again(via.Hi^via.Lo, w.c.Turns) {
		return
	}
	// Who scans a network asks for each of its addresses: half of the ring is
	// kept for answers.
	if q := w.cfg.Punts; q.Len() >= q.Cap()/2 {
		w.c.LostMsgs++
		return
	}
	m := &w.puntMsg[0]
	m.Kind, m.Port, m.Via, m.Len = fib.PuntResolve, hop.Port, via, 0
	w.pushPunt()
}

// locate tells the slow path that p, authentic and new, came from elsewhere than
// its SA says: a NAT has moved the peer (RFC 7296, section 2.23). A packet that
// others have overtaken may be from before, and without a replay window, whose
// edge each new packet moves to its own number, nobody knows which are new.
func (w *Worker) locate(p *packet, from flow.Addr, port uint16) {
	if p.seq == 0 || p.seq != p.in.Seq() || w.located.again(from.Hi^from.Lo<<16^uint64(port)^uint64(p.in.SPI)<<32, w.c.Turns) {
		return
	}
	m := &w.puntMsg[0]
	m.Kind, m.Via, m.SrcPort, m.Len = fib.PuntMoved, from, port, 0
	m.SPI, m.Dst = p.in.SPI, p.in.Dst
	w.pushPunt()
}

// punt has the slow path answer packet i's sender and ends the packet. mtu is
// what a packet that is too big should have fitted. Of packets to groups a sender
// hears IPv6's packet too big only (RFC 1122, section 3.2.2; RFC 4443, 2.4 (e)).
func (w *Worker) punt(b *Burst, i uint8, kind fib.PuntKind, mtu int) {
	p := &b.pkts[i]
	reason := counter.TooBig
	if kind == fib.PuntTTL {
		reason = counter.TTLExpired
	}
	if !w.answerable(b, p) || p.tuple.Dst.IsGroup() && !(p.info.V6 && kind == fib.PuntTooBig) {
		b.Drop(i, reason)
		return
	}
	m := &w.puntMsg[0]
	m.Kind, m.Port, m.MTU = kind, uint16(b.port), uint16(max(mtu, 0))
	m.Secured = p.in != nil
	m.Len = uint16(copy(m.Data[:], p.ip()))
	if w.pushPunt() {
		b.end(i, punted, counter.None)
		return
	}
	b.Drop(i, reason)
}

// answerable says whether an answer to p, which quotes it, stays on the side of
// the gateway that p came from. It does not where the source is forged: in clear
// it would carry to the wire what the SPD keeps from it. The answer to a packet
// that came by an SA passes the SPD itself, and the answer to the host's own does
// not leave.
func (w *Worker) answerable(b *Burst, p *packet) bool {
	if p.in != nil || p.local && w.cfg.Host != nil {
		return true
	}
	back := w.fib.Lookup(&p.tuple.Src)
	return back.State >= fib.Unresolved && w.ports[back.Port].side == w.ports[b.port].side
}

func (w *Worker) pushPunt() bool {
	if w.cfg.Punts.Push(w.puntMsg[:]) == 1 {
		return true
	}
	w.c.LostMsgs++
	return false
}

// inject takes the packets that the slow path made through the rest of the
// way: all of outbound where they need the SPD, else straight to the next hop.
func (w *Worker) inject() int {
	n := w.cfg.Injects.Pop(w.injectMsg[:])
	for k := range w.injectMsg[:n] {
		m := &w.injectMsg[k]
		w.c.Injected++
		var base [1]uint32
		if w.cfg.Pool.Get(base[:]) == 0 {
			w.c.Drops[counter.PoolEmpty]++
			continue
		}
		if m.Dummy != 0 {
			w.dummy(m, base[0])
			continue
		}
		w.carry(m, base[0])
	}
	return n
}

// carry sends the packet in m, in the chunk at base.
func (w *Worker) carry(m *fib.Inject, base uint32) {
	f := pmd.Frame{Base: base, Off: pmd.Headroom, Len: wire.EthernetLen}
	b := &w.burst
	b.load(0, w.cfg.Pool, append(w.frames[:0], f))
	if r := b.pkts[0].fill(m.Data[:m.Len]); r != counter.None {
		b.Drop(0, r)
	}
	if m.Policy {
		w.policy(b)
	}
	w.route(b)
	w.seal(b)
	w.send(b)
	w.finish(b)
}
