package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/wire"
)

// route finds each packet's next hop, by the peer's address where an SA will
// carry it, and makes sure that it may travel on: TTL left, and small enough
// for the path once sealed. What may not is answered by the slow path, from
// the packet as it still is; what may has its TTL decremented.
//
// A packet from the wire that the routes send back to the wire crosses into the
// unprotected side like any other: the SPD is asked again, as outbound.
func (w *Worker) route(b *Burst) {
	fromWire := w.ports[b.port].side == Wire
	var last flow.Addr
	var hop *fib.Hop
	var again bound
	for _, i := range b.Live() {
		p := &b.pkts[i]
		dst := p.tuple.Dst
		if p.out != nil {
			if dst.IsGroup() && !w.mayTravel(b, i) {
				continue
			}
			dst = p.out.Dst
		}
		if hop == nil || dst != last {
			last, hop = dst, w.fib.Lookup(&dst)
		}
		if fromWire && !p.local && w.toWire(hop) {
			w.judge(b, i, &again)
			if p.fate != alive {
				continue
			}
			if p.out != nil {
				if dst.IsGroup() && !w.mayTravel(b, i) {
					continue
				}
				dst = p.out.Dst
				last, hop = dst, w.fib.Lookup(&dst)
			}
		}
		p.hop = hop
		if hop.State != fib.Ready && !w.reach(b, i, dst) {
			continue
		}
		if !isPlain(&p.tuple.Src) && isMartian(&p.tuple.Src) && !p.local {
			b.Drop(i, counter.Martian)
			continue
		}
		if p.info.TTL <= 1 && !p.local {
			w.punt(b, i, fib.PuntTTL, 0)
			continue
		}
		if mtu := p.pathMTU(); int(p.info.Len) > mtu && !w.tooBig(b, i, mtu) {
			continue
		}
		if !p.local {
			wire.DecrementTTL(p.ip())
		}
	}
}

// toWire says whether hop leaves by a port on the wire side.
func (w *Worker) toWire(hop *fib.Hop) bool {
	return hop.State >= fib.Unresolved && w.ports[hop.Port].side == Wire
}

// reach makes the hop of packet i, which leaves for dst, one to leave by: a
// group's; else it ends the packet.
func (w *Worker) reach(b *Burst, i uint8, dst flow.Addr) bool {
	p := &b.pkts[i]
	hop := p.hop
	if hop.State != fib.Local && p.tuple.Dst.IsGroup() && !w.mayTravel(b, i) {
		return false
	}
	switch hop.State {
	case fib.Group:
		return w.toGroup(b, i, &dst)
	case fib.Local:
		if w.cfg.Host != nil {
			w.toHost(b, i)
			return false
		}
		b.Drop(i, counter.HostLocal)
	case fib.Unresolved:
		w.resolve(hop, dst)
		b.Drop(i, counter.NoNeighbour)
	default:
		b.Drop(i, counter.NoRoute)
	}
	return false
}
