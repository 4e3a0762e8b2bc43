package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/wire"
	"spigot/pmd"
)

// hostBurst is how many packets of the host a turn takes.
const hostBurst = 16

// fromHost carries what the host sends. Its TTL is the host's own business, and
// its source is one of the host's addresses: the host's kernel sees to that.
func (w *Worker) fromHost() int {
	n := w.cfg.Host.Sent.Pop(w.hostMsgs)
	if n == 0 {
		return 0
	}
	w.c.Injected += uint64(n)
	var bases [hostBurst]uint32
	got := w.cfg.Pool.Get(bases[:n])
	w.c.Drops[counter.PoolEmpty] += uint64(n - got)
	for i, base := range bases[:got] {
		w.frames[i] = pmd.Frame{Base: base, Off: pmd.Headroom, Len: wire.EthernetLen}
	}
	b := &w.burst
	b.load(0, w.cfg.Pool, w.frames[:got])
	for i := range got {
		p, ip := &b.pkts[i], w.hostMsgs[i].Data[:w.hostMsgs[i].Len]
		if len(ip) > len(p.chunk)-l3Off {
			w.widen(p)
		}
		if r := p.fill(ip); r != counter.None {
			b.Drop(uint8(i), r)
		}
	}
	w.policy(b)
	w.gather(b)
	w.route(b)
	w.seal(b)
	w.send(b)
	w.finish(b)
	return n
}

// toHost gives the host packet i, which is for one of its addresses: by way of
// the SPD's protected side if it came by an SA or is the gateway's answer to the
// host itself, and by the port that it came by if it came in clear from the wire
// and a policy let it. From the protected side the host gets what is its own
// without the gateway: what comes here is ESP that no host there has to send.
func (w *Worker) toHost(b *Burst, i uint8) {
	p := &b.pkts[i]
	m := &w.hostMsg[0]
	at, room := 0, len(m.Data)
	switch {
	case p.out != nil:
		b.Drop(i, counter.HostLocal)
		return
	case p.in != nil || p.local:
		m.Port = fib.Secured
	case w.ports[b.port].side == Wire:
		m.Port, room = int16(b.port), fib.ClearSize
		at = copy(m.Data[:], p.chunk[p.l2:p.l2+wire.EthernetLen])
	default:
		b.Drop(i, counter.HostLocal)
		return
	}
	ip := p.ip()
	if at+len(ip) > room {
		switch {
		case m.Port == fib.Secured:
			w.toHostInPieces(b, i)
		case p.hasDF(): // a jumbo packet, whose sender wants to be told
			w.punt(b, i, fib.PuntTooBig, room-at)
		default:
			b.Drop(i, counter.NoRoom)
		}
		return
	}
	m.Len = uint16(at + copy(m.Data[at:], ip))
	if w.cfg.Host.Got.Push(w.hostMsg) == 0 {
		b.Drop(i, counter.HostFull)
		return
	}
	b.end(i, punted, counter.None)
	w.cfg.Host.Tell.Ring()
}

// toHostInPieces gives the host packet i, which is longer than a HostPacket and
// came by an SA, in fragments: all, or none if there is no room for all.
func (w *Worker) toHostInPieces(b *Burst, i uint8) {
	var c cutter
	m, got := &w.hostMsg[0], w.cfg.Host.Got
	if !c.start(b.pkts[i].ip(), len(m.Data)) {
		b.Drop(i, counter.NoRoom)
		return
	}
	if got.Cap()-got.Len() < c.pieces() {
		b.Drop(i, counter.HostFull)
		return
	}
	w.fragmentID++
	for c.id = w.fragmentID; c.more(); {
		m.Port, m.Len = fib.Secured, uint16(c.next(m.Data[:]))
		got.Push(w.hostMsg)
	}
	b.end(i, punted, counter.None)
	w.cfg.Host.Tell.Ring()
}

// gather puts fragments that the host sends together where their SA is in
// transport mode, which is about whole datagrams (RFC 4303, sections 3.1.1 and
// 3.3.4). What has been sealed is cut instead. The datagram is asked about once
// more: its ports, which the last fragment has not shown, may want another SA.
func (w *Worker) gather(b *Burst) {
	var last bound
	for _, i := range b.Live() {
		p := &b.pkts[i]
		sa := p.out
		if sa != nil && sa.Bundle != nil {
			sa = sa.Bundle[0]
		}
		if sa == nil || sa.Tunnel || !p.info.Fragment {
			continue
		}
		f := p.fragment()
		f.key.lane = laneHost
		if w.together(b, i, &f) {
			p.cut, p.out = wasCut, nil
			w.judge(b, i, &last)
		}
	}
}

// fill makes ip, copied, the packet.
func (p *packet) fill(ip []byte) (r counter.Reason) {
	p.local = true
	p.l3 = l3Off
	room := p.chunk[p.l3:]
	if len(ip) > len(room) {
		return counter.NoRoom
	}
	p.info, r = wire.Classify(room[:copy(room, ip)], &p.tuple)
	return r
}
