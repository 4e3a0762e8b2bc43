package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/sad"
	"spigot/spd"
)

// sealBundle puts the SAs of bundle around the packets in row, one after the
// other, the innermost first (RFC 4301, section 4.1). Its jobs run at once, in
// the room behind jobs, which wait for the rest of the burst.
func (w *Worker) sealBundle(b *Burst, row []uint8, bundle *sad.Outbound, jobs []sad.Job) {
	var left [MaxBurst]uint8
	row = left[:copy(left[:], row)]
	for k, sa := range bundle.Bundle {
		if k > 0 {
			row = b.again(row)
		}
		for _, i := range row {
			b.pkts[i].out = sa
		}
		if mine := w.sealRun(b, row, sa, jobs)[len(jobs):]; len(mine) > 0 {
			w.runJobs(b, mine)
		}
	}
}

// again makes what the SA before has made of the packets in row the packets that
// the next one is for, and returns those that are alive.
func (b *Burst) again(row []uint8) []uint8 {
	n := 0
	for _, i := range row {
		p := &b.pkts[i]
		if p.fate != alive {
			continue
		}
		var r counter.Reason
		if p.info, r = wire.Classify(p.ip(), &p.tuple); r != counter.None {
			b.Drop(i, r)
			continue
		}
		row[n] = i
		n++
	}
	return row[:n]
}

// path is the SAs by which a packet has come, the outermost first.
type path struct {
	sas [spd.MaxBundle]*sad.Inbound
	n   int
}

// unwrapMore opens what is under AH, and what has come out of an SA and is under
// another one: seldom anything, so one packet at a time. A packet that came by
// several SAs has w.several for its SA, which no template names, and its path
// beside it.
func (w *Worker) unwrapMore(b *Burst) {
	for _, i := range b.Live() {
		p := &b.pkts[i]
		s := &w.paths[i]
		s.n = 0
		if p.in != nil {
			s.sas[0], s.n = p.in, 1
		}
		for w.unwrapOne(b, i, s) {
		}
		if s.n > 1 && p.fate == alive {
			w.arrive(b, i, s)
		}
	}
}

// unwrapOne takes one SA off packet i, which has come by s. It is false when
// there is none of ours left, or when the packet is dropped.
func (w *Worker) unwrapOne(b *Burst, i uint8, s *path) bool {
	p := &b.pkts[i]
	if p.info.Proto != wire.ProtoAH && (p.info.Proto != wire.ProtoESP || s.n == 0) {
		return false // in clear, or ESP that sa has left to the SPD
	}
	last := p.in
	// What is in a tunnel has to lie in its SA's selectors (RFC 4301, section 5.2,
	// step 4). Those of a transport SA are about the packet in the end: what the
	// SAs inside hide of it is no reason to refuse it.
	fits := last == nil || !last.Tunnel || last.Admits(&p.tuple)
	p.in = nil
	r := counter.None
	if p.info.Proto == wire.ProtoAH {
		r = w.verify(p)
	} else {
		r = w.openOne(p)
	}
	switch {
	case r != counter.None && p.in == nil && !w.isOurs(p) && (s.n > 0 || !p.tuple.Dst.IsGroup()): // between other hosts
		p.in = last
		return false
	case r != counter.None:
		b.Drop(i, r)
		return false
	case s.n == len(s.sas):
		b.Drop(i, counter.NestedSAs)
		return false
	case !fits:
		b.Drop(i, counter.SelectorMismatch)
		return false
	}
	s.sas[s.n] = p.in
	s.n++
	return true
}

// openOne is sa and open for one packet of ESP.
func (w *Worker) openOne(p *packet) counter.Reason {
	if p.info.Fragment { // in a tunnel nobody puts it together, and alone it is refused (RFC 4303, section 3.4.1)
		return counter.Fragment
	}
	if r := w.findSA(p, 0); r != counter.None {
		return r
	}
	jobs := w.jobs[:1]
	jobs[0] = sad.Job{Key: p.in.Key, Pkt: p.chunk[p.esp:p.espEnd:p.espEnd], ESN: p.in.ESN}
	if p.in.ESN {
		jobs[0].SeqHi = uint32(p.seq >> 32)
	}
	if w.engine.Open(jobs); !jobs[0].OK {
		return counter.AuthFailed
	}
	return p.decapsulate()
}

// arrive ends the way of packet i, which came by several SAs.
func (w *Worker) arrive(b *Burst, i uint8, s *path) {
	p := &b.pkts[i]
	for k, sa := range s.sas[:s.n] {
		if (k == s.n-1 || !sa.Tunnel) && !sa.Admits(&p.tuple) {
			b.Drop(i, counter.SelectorMismatch)
			return
		}
	}
	p.in = &w.several
}

// innermost returns the SA by which packet i of b has come, of several the last one.
func (w *Worker) innermost(b *Burst, i uint8) *sad.Inbound {
	if in := b.pkts[i].in; in != &w.several {
		return in
	}
	s := &w.paths[i]
	return s.sas[s.n-1]
}

// cameByAll says whether packet i came by the SAs that pol names, all of them
// and no other.
func (w *Worker) cameByAll(pol *spd.Policy, i uint8, in *sad.Inbound) bool {
	s := &w.paths[i]
	if pol.Bundle == nil || in != &w.several || pol.Bundle.Len() != s.n {
		return false
	}
	for k, sa := range s.sas[:s.n] {
		if !cameBy(&pol.Bundle[s.n-1-k], sa) {
			return false
		}
	}
	return true
}
