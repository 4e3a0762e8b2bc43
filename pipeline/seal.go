package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/sad"
)

// seal wraps each packet that has an outbound SA in ESP or AH, in place: a
// burst's row of packets under one SA takes its sequence numbers with one atomic
// add, then all jobs of ESP run as one batch.
func (w *Worker) seal(b *Burst) {
	if b.cuts {
		b.hideFirst()
	}
	jobs := w.jobs[:0]
	live := b.Live()
	for len(live) > 0 {
		sa := b.pkts[live[0]].out
		run := 1
		for run < len(live) && b.pkts[live[run]].out == sa {
			run++
		}
		if sa != nil {
			jobs = w.sealRun(b, live[:run], sa, jobs)
		}
		live = live[run:]
	}
	if len(jobs) == 0 {
		return
	}
	w.runJobs(b, jobs)
}

// runJobs seals jobs, which are of packets that their SA has been put around.
func (w *Worker) runJobs(b *Burst, jobs []sad.Job) {
	w.engine.Seal(jobs)
	for j := range jobs {
		p := &b.pkts[jobs[j].Slot]
		if !jobs[j].OK { // the key is gone: the SA was deleted under us
			b.Drop(jobs[j].Slot, counter.NoSA)
		} else if p.info.V6 && p.out.Geo.UDP != 0 {
			p.udpChecksum()
		}
	}
}

// sealRun prepares the packets in row, all under sa, and appends their jobs.
func (w *Worker) sealRun(b *Burst, row []uint8, sa *sad.Outbound, jobs []sad.Job) []sad.Job {
	if sa.Proto != wire.ProtoESP || !sa.Tunnel {
		return w.sealOther(b, row, sa, jobs)
	}
	if sa.Outer.MSS != 0 {
		for _, i := range row {
			b.pkts[i].clampOut(sa)
		}
	}
	if sa.Outer.TFC != 0 {
		for _, i := range row {
			w.hideLength(&b.pkts[i], sa)
		}
	}
	seq, granted := sa.Reserve(len(row))
	var packets, bytes uint64
	for k, i := range row {
		if k >= granted {
			b.Drop(i, counter.SeqExhausted)
			continue
		}
		p := &b.pkts[i]
		inner := uint64(p.info.Len)
		esp := p.encapsulate(sa, uint32(seq))
		if esp == nil {
			if esp = w.encapsulateWide(p, sa, uint32(seq)); esp == nil {
				b.Drop(i, counter.NoRoom)
				seq++
				continue
			}
		}
		job := sad.Job{Key: sa.Key, Pkt: esp, Slot: i}
		if sa.ESN {
			job.ESN, job.SeqHi = true, uint32(seq>>32)
		}
		jobs = append(jobs, job)
		packets, bytes, seq = packets+1, bytes+inner, seq+1
	}
	sa.Count(packets, bytes)
	return jobs
}

// encapsulate puts outer header, ESP header and trailer around p's IP packet
// (RFC 4303, section 3.1.2) and returns the bytes from the SPI through the
// ICV, or nil when the frame has no room for them. Nothing is written then.
func (p *packet) encapsulate(sa *sad.Outbound, seq uint32) []byte {
	g := &sa.Geo
	n := int(p.info.Len)
	start := p.l3 - g.Prefix()
	end := start + g.Sealed(n)
	if start < wire.EthernetLen || end > min(len(p.chunk), start+maxPacket) {
		return nil
	}
	next := byte(wire.ProtoIPv4)
	if p.info.V6 {
		next = wire.ProtoIPv6
	}
	g.Trail(p.chunk[p.l3+n:end], n, next)
	p.outerHeader(sa, p.chunk[start:end], seq)
	esp := p.chunk[start+int(g.Outer)+int(g.UDP) : end : end]
	wire.ESP(esp).Put(sa.SPI, seq)
	p.l3 = start
	p.info.Len = uint16(end - start)
	p.info.V6 = g.Outer == wire.IPv6Len
	return esp
}

// outerHeader writes the tunnel header (RFC 4301, section 5.1.2): DSCP and ECN
// are the inner packet's (RFC 6040, section 4.1) and so is DF, unless the SA says
// otherwise, and what may be fragmented on the way carries an ID.
func (p *packet) outerHeader(sa *sad.Outbound, outer []byte, seq uint32) {
	g := &sa.Geo
	if g.UDP != 0 {
		udp := outer[g.Outer:]
		copy(udp, sa.Header[g.Outer:g.Outer+g.UDP])
		wire.UDP(udp).SetLen(uint16(len(udp)))
	}
	if g.Outer == wire.IPv6Len {
		copy(outer, sa.Header[:wire.IPv6Len])
		h := wire.IPv6(outer)
		h.SetTrafficClass(sa.TOS(p.info.TOS))
		if sa.Outer.Label != sad.LabelZero {
			h.SetFlowLabel(p.flowLabel(sa))
		}
		h.SetPayloadLen(uint16(len(outer) - wire.IPv6Len))
		return
	}
	*(*[wire.IPv4Len]byte)(outer) = [wire.IPv4Len]byte(sa.Header[:])
	df := p.outerDF(sa)
	id := uint16(0) // of no use with DF (RFC 6864, section 4.1)
	if !df {
		id = uint16(seq + sa.SPI + sa.SPI>>16) // apart from that of other SAs between these two
	}
	wire.IPv4(outer).Fill(sa.TOS(p.info.TOS), len(outer), id, df)
}

// udpChecksum gives ESP in UDP over IPv6, sealed by now, its checksum: unlike
// over IPv4, receivers want one (RFC 8200, section 8.1).
func (p *packet) udpChecksum() {
	at, src := int(p.out.Geo.Outer), p.out.Src
	if !p.out.Tunnel {
		at, src = int(p.info.HeaderLen), p.tuple.Src
	}
	udp := wire.UDP(p.ip()[at:])
	sum := wire.UpperChecksum(src, p.out.Dst, wire.ProtoUDP, udp)
	if sum == 0 {
		sum = 0xffff // RFC 768: 0 says that there is none
	}
	udp.SetChecksum(sum)
}
