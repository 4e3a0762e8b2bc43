package pipeline

import (
	"encoding/binary"

	"spigot/internal/counter"
	"spigot/internal/wire"
)

// classify checks each packet's headers once and reads its tuple. After it no
// stage looks at what the headers claim without knowing that it is there.
func (w *Worker) classify(b *Burst) {
	mac := w.ports[b.port].mac
	for _, i := range b.Live() {
		p := &b.pkts[i]
		w.c.RxBytes += uint64(p.size)
		if r := p.classify(mac); r != counter.None {
			b.Drop(i, r)
		}
	}
}

func (p *packet) classify(mac uint64) counter.Reason {
	frame := p.chunk[p.l2 : p.l2+p.size]
	if len(frame) < wire.EthernetLen {
		return counter.Runt
	}
	if mac != 0 && mac48(frame) != mac && !isToGroup(frame) {
		return counter.BadMAC
	}
	p.l3 = p.l2 + wire.EthernetLen
	ip := frame[wire.EthernetLen:]
	var version uint8
	switch binary.BigEndian.Uint16(frame[12:]) {
	case wire.EtherTypeIPv4:
		version = 4
	case wire.EtherTypeIPv6:
		version = 6
	default:
		return counter.BadEtherType
	}
	if len(ip) == 0 {
		return counter.Runt
	}
	if ip[0]>>4 != version {
		return counter.BadIPHeader
	}
	var r counter.Reason
	p.info, r = wire.Classify(ip, &p.tuple)
	return r
}

// mac48 returns the first six bytes of b as a number.
func mac48(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint32(b))<<16 | uint64(binary.BigEndian.Uint16(b[4:]))
}
