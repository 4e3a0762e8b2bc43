package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/pmd"
	"spigot/sad"
)

// hideLength pads p, about to be sealed under sa, with zeros to the length that
// sa wants of its packets, but not beyond what link and path take (RFC 4303,
// section 2.7). The receiver knows the packet's own length by its header.
func (w *Worker) hideLength(p *packet, sa *sad.Outbound) {
	n := int(p.info.Len)
	to := min(int(sa.Outer.TFC), sa.Geo.MaxInner(p.outerMTU()))
	if start := p.l3 - sa.Geo.Prefix(); start+sa.Geo.Sealed(to) > len(p.chunk) {
		w.widen(p) // if it can: what it is in then ends the padding
		to = min(to, sa.Geo.MaxInner(len(p.chunk)-start))
	}
	if to > n {
		clear(p.chunk[p.l3+n : p.l3+to])
		p.info.Len = uint16(to)
	}
}

// dummy sends, in the chunk at base, a packet with nothing in it under the SA
// that serves the policy of m, if there is one still (RFC 4303, section 2.6).
func (w *Worker) dummy(m *fib.Inject, base uint32) {
	f := pmd.Frame{Base: base, Off: pmd.Headroom, Len: wire.EthernetLen}
	b := &w.burst
	b.load(0, w.cfg.Pool, append(w.frames[:0], f))
	p := &b.pkts[0]
	p.local = true
	p.l3 = l3Off
	if r := w.fillDummy(b, p, m); r != counter.None {
		b.Drop(0, r)
	}
	w.send(b)
	w.finish(b)
}

// fillDummy makes p, the only packet of b, the dummy and seals it.
func (w *Worker) fillDummy(b *Burst, p *packet, m *fib.Inject) counter.Reason {
	sa := w.sad.Outbound(m.Dummy)
	if sa == nil || !sa.Tunnel || sa.Proto != wire.ProtoESP {
		return counter.NoSA
	}
	p.out, p.hop, p.tuple = sa, w.fib.Lookup(&sa.Dst), flow.Tuple{}
	switch p.hop.State {
	case fib.Ready:
	case fib.Group:
		w.toGroup(b, 0, &sa.Dst) // it is local: nothing ends it
	default:
		return counter.NoNeighbour
	}
	n := min(int(m.Len), p.pathMTU())
	if n > len(p.chunk)-p.l3 {
		w.widen(p)
		n = min(n, len(p.chunk)-p.l3)
	}
	if n < wire.IPv4Len {
		return counter.NoRoom
	}
	clear(p.chunk[p.l3 : p.l3+n])
	wire.IPv4(p.chunk[p.l3:]).Fill(0, n, 0, true) // for the outer header's DF, which most packets have
	p.info = wire.IPInfo{Len: uint16(n)}
	w.hideLength(p, sa)
	n = int(p.info.Len)
	seq, granted := sa.Reserve(1)
	if granted == 0 {
		return counter.SeqExhausted
	}
	esp := p.encapsulate(sa, uint32(seq))
	if esp == nil {
		return counter.NoRoom
	}
	esp[len(esp)-int(sa.Geo.ICV)-1] = wire.ProtoNoNext
	jobs := append(w.jobs[:0], sad.Job{Key: sa.Key, Pkt: esp, SeqHi: uint32(seq >> 32), ESN: sa.ESN})
	if w.engine.Seal(jobs); !jobs[0].OK {
		return counter.NoSA
	}
	if p.info.V6 && sa.Geo.UDP != 0 {
		p.udpChecksum()
	}
	sa.Count(1, uint64(n))
	return counter.None
}
