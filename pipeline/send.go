package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/pmd"
)

// egress collects what leaves by one port in this burst.
type egress struct {
	frames [MaxBurst]pmd.Frame
	from   [MaxBurst]uint8 // the packet of each frame
	n      int
}

// send gives each packet its Ethernet header and hands it to its egress queue.
func (w *Worker) send(b *Burst) {
	if b.cuts {
		w.cut(b)
	}
	for _, i := range b.Live() {
		p := &b.pkts[i]
		l2 := p.l3 - wire.EthernetLen
		p.ethernet(l2)
		e := &w.egress[p.hop.Port]
		e.frames[e.n] = pmd.Frame{Base: p.base, Off: uint16(l2), Len: uint16(wire.EthernetLen + int(p.info.Len))}
		e.from[e.n] = i
		e.n++
	}
	for k := range w.egress {
		if e := &w.egress[k]; e.n > 0 {
			w.transmit(b, w.ports[k].queues[0], e)
		}
	}
}

func (w *Worker) transmit(b *Burst, q pmd.Port, e *egress) {
	took := q.Tx(e.frames[:e.n])
	for k := range e.frames[:took] {
		b.end(e.from[k], sent, counter.None)
		w.c.TxBytes += uint64(e.frames[k].Len)
	}
	for _, i := range e.from[took:e.n] {
		b.Drop(i, counter.TxFull)
	}
	e.n = 0
}

func (p *packet) ethernet(l2 int) {
	kind := uint16(wire.EtherTypeIPv4)
	if p.info.V6 {
		kind = wire.EtherTypeIPv6
	}
	wire.Ethernet(p.chunk[l2:]).Put(&p.hop.DstMAC, &p.hop.SrcMAC, kind)
}
