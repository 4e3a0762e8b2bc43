package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/wire"
	"spigot/sad"
)

// sa finds the SA of each ESP packet from its own header (RFC 4301, section
// 5.2, step 3a) and checks its sequence number. Other packets pass (AH is for
// unwrapMore), and so does ESP that two other hosts exchange: the SPD judges it
// like all that is clear.
func (w *Worker) sa(b *Burst) {
	for _, i := range b.Live() {
		p := &b.pkts[i]
		if p.info.Fragment {
			if w.rejoin(b, i); p.info.Fragment || p.fate != alive {
				continue
			}
		}
		udp := 0
		switch {
		case p.info.Proto == wire.ProtoESP:
		case p.info.Proto == wire.ProtoUDP && p.tuple.DstPort == portNATT && !p.tuple.NoPorts:
			udp = wire.UDPLen
		case p.info.Proto == wire.ProtoICMP || p.info.Proto == wire.ProtoICMPv6:
			w.pathReport(b, i)
			continue
		case p.info.Proto == wire.ProtoAH:
			b.more = true
			continue
		default:
			continue
		}
		r := w.findSA(p, udp)
		if r == counter.UnknownSPI && w.hold(b, i) {
			continue
		}
		if r != counter.None && (p.in != nil || w.isOurs(p) || udp == 0 && p.tuple.Dst.IsGroup()) {
			b.Drop(i, r)
		}
	}
}

// portNATT is where ESP in UDP arrives (RFC 3948, section 2.1), and NAT
// keepalives. IKE, which comes there too, went to the kernel before.
const portNATT = 4500

// isOurs says whether p is addressed to the gateway.
func (w *Worker) isOurs(p *packet) bool { return w.fib.Lookup(&p.tuple.Dst).State == fib.Local }

// findSA finds p's SA; udp is the length of the UDP header in front of ESP.
func (w *Worker) findSA(p *packet, udp int) (r counter.Reason) {
	if r := p.locateESP(udp); r != counter.None {
		return r
	}
	esp := wire.ESP(p.chunk[p.esp:p.espEnd])
	spi := esp.SPI()
	if spi < 256 {
		return counter.ReservedSPI
	}
	sa := w.saCache.lookup(w.sad, spi, &p.tuple)
	if sa == nil {
		return counter.UnknownSPI
	}
	if int(sa.Geo.UDP) != udp {
		return counter.WrongSAMode
	}
	if n := len(esp) - int(sa.Geo.Head) - int(sa.Geo.ICV); n < 2 || n%int(sa.Geo.Align) != 0 {
		return counter.BadESP
	}
	p.in = sa
	p.seq, r = sa.Check(esp.Seq())
	return r
}

// locateESP finds where the ESP packet lies behind udp bytes of UDP header,
// whose checksum does not matter: ESP has its own (RFC 3948, section 2.1).
func (p *packet) locateESP(udp int) counter.Reason {
	p.esp = p.l3 + int(p.info.HeaderLen)
	p.espEnd = p.l3 + int(p.info.Len)
	if udp != 0 {
		h := wire.UDP(p.chunk[p.esp:p.espEnd])
		if r := h.Valid(); r != counter.None {
			return counter.BadESP
		}
		p.espEnd = p.esp + h.Len()
		p.esp += udp
		if p.espEnd-p.esp == 1 && p.chunk[p.esp] == 0xff {
			return counter.NATKeepalive
		}
	}
	if p.espEnd-p.esp < wire.ESPLen {
		return counter.BadESP
	}
	return counter.None
}

// open decrypts the ESP packets as one batch, marks their sequence numbers now
// that they are authentic, and makes the inner packet the packet.
func (w *Worker) open(b *Burst) {
	jobs := w.jobs[:0]
	for _, i := range b.Live() {
		p := &b.pkts[i]
		if p.in == nil {
			continue
		}
		job := sad.Job{Key: p.in.Key, Pkt: p.chunk[p.esp:p.espEnd:p.espEnd], Slot: i}
		if p.in.ESN {
			job.ESN, job.SeqHi = true, uint32(p.seq>>32)
		}
		jobs = append(jobs, job)
	}
	if len(jobs) == 0 {
		return
	}
	w.engine.Open(jobs)
	for j := range jobs {
		i := jobs[j].Slot
		if !jobs[j].OK {
			b.Drop(i, counter.AuthFailed)
			continue
		}
		p := &b.pkts[i]
		from, port := p.tuple.Src, p.tuple.SrcPort
		if r := p.decapsulate(); r != counter.None {
			b.Drop(i, r)
			continue
		}
		if p.in.Geo.UDP != 0 && (from != p.in.Src || port != p.in.Encap.SrcPort) {
			w.locate(p, from, port)
		}
		if p.info.Proto-wire.ProtoESP <= wire.ProtoAH-wire.ProtoESP {
			b.more = true
		}
	}
}

// decapsulate strips what ESP put around the inner packet (RFC 4303, section
// 3.4.4.1, and RFC 4301, section 5.1.2 for the header). Only authentic bytes
// get here.
func (p *packet) decapsulate() counter.Reason {
	sa := p.in
	if r := sa.Mark(p.seq); r != counter.None {
		return r
	}
	start := p.esp + int(sa.Geo.Head)
	text := p.chunk[start : p.espEnd-int(sa.Geo.ICV)]
	sa.Count(1, uint64(len(text)))
	next := text[len(text)-1]
	pad := int(text[len(text)-2])
	text = text[:len(text)-2]
	if pad > len(text) || !isPadding(text[len(text)-pad:]) {
		return counter.BadPadding
	}
	if next == wire.ProtoNoNext {
		return counter.DummyPacket
	}
	if text = text[:len(text)-pad]; !sa.Tunnel {
		return p.join(start, text, next)
	}
	return p.unwrap(start, text, next)
}

// isPadding says whether b counts 1, 2, 3 ..
func isPadding(b []byte) bool {
	for i := range b {
		if b[i] != byte(i+1) {
			return false
		}
	}
	return true
}

// unwrap makes inner, which lies at start in the chunk, the packet. Bytes
// behind the inner packet's own length are traffic-flow padding (RFC 4303, 2.7).
func (p *packet) unwrap(start int, inner []byte, next byte) counter.Reason {
	outer := p.info
	if len(inner) == 0 {
		return counter.BadInner
	}
	if v := inner[0] >> 4; !(next == wire.ProtoIPv4 && v == 4 || next == wire.ProtoIPv6 && v == 6) {
		if next != wire.ProtoIPv4 && next != wire.ProtoIPv6 {
			return counter.WrongSAMode
		}
		return counter.BadInner
	}
	info, r := wire.Classify(inner, &p.tuple)
	if r != counter.None {
		return counter.BadInner
	}
	p.l3, p.info = start, info
	return p.mergeTOS(outer.TOS)
}
