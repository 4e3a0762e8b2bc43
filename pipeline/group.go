package pipeline

import (
	"encoding/binary"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/wire"
)

// isToGroup says whether frame, which is not for the port's own address, is for a
// multicast group by its Ethernet address and by its IP destination alike.
func isToGroup(frame []byte) bool {
	if frame[0]&1 == 0 {
		return false
	}
	var dst flow.Addr
	ip := frame[wire.EthernetLen:]
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == wire.EtherTypeIPv4 && len(ip) >= wire.IPv4Len:
		dst = wire.IPv4(ip).Dst()
	case kind == wire.EtherTypeIPv6 && len(ip) >= wire.IPv6Len:
		dst = wire.IPv6(ip).Dst()
	}
	return dst.IsGroup() && [6]byte(frame) == fib.GroupMAC(&dst)
}

// mayTravel says whether packet i, which is for a group, may be forwarded at all,
// in clear or in a tunnel; if not, it ends the packet. A group of a link stays
// there. A packet that came from where no packet to its source would go has come
// around: another gateway to the same network has put it there. So may it have on
// the protected side if no route to its source is known: two gateways that open and
// seal what the other has put there would double it again and again. The sources of
// what comes by an SA need no routes.
func (w *Worker) mayTravel(b *Burst, i uint8) bool {
	p := &b.pkts[i]
	if p.tuple.Dst.IsNearGroup() {
		b.Drop(i, counter.GroupScope)
		return false
	}
	if p.local {
		return true
	}
	switch back := w.fib.Lookup(&p.tuple.Src); back.State {
	case fib.Unresolved, fib.Ready:
		if w.ports[back.Port].side == w.ports[b.port].side {
			return true
		}
	case fib.Local:
	default: // nothing is known of its source
		if w.ports[b.port].side == Wire || isMartian(&p.tuple.Src) { // which route drops
			return true
		}
	}
	b.Drop(i, counter.GroupLoop)
	return false
}

// toGroup gives packet i, which leaves for a group by the port that its hop says,
// the group's Ethernet address. It ends a packet that came by that port.
func (w *Worker) toGroup(b *Burst, i uint8, group *flow.Addr) bool {
	p := &b.pkts[i]
	if int(p.hop.Port) == b.port && !p.local {
		b.Drop(i, counter.GroupLoop)
		return false
	}
	hop := &w.groupHops[i]
	*hop = *p.hop
	hop.State, hop.DstMAC = fib.Ready, fib.GroupMAC(group)
	p.hop = hop
	return true
}
