package pipeline

import (
	"time"

	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/sad"
	"spigot/spd"
)

// The shape of portMemory: 2,048 datagrams, 128 KB, from the first fragment on
// whose ports matter.
const (
	portSets = 512
	portWays = 4
)

// portMemory is stateful fragment checking (RFC 4301, section 7.3): it remembers
// which ports the first fragment of a datagram had, for the later ones, which
// have none. It belongs to one worker. The oldest make room.
type portMemory struct {
	seed uint64
	sets []portSet
}

type portSet [portWays]datagramPorts

type datagramPorts struct {
	key   datagramKey
	at    time.Duration // 0: empty
	ports ports
}

// ports are a flow.Tuple's.
type ports struct {
	src, dst uint16
	none     bool
}

// set returns where what is known of k is.
func (m *portMemory) set(k *datagramKey) *portSet {
	if m.sets == nil {
		m.sets = make([]portSet, portSets)
	}
	h := fold(k.src.Hi^m.seed, k.src.Lo^0x9e3779b97f4a7c15)
	h = fold(fold(k.dst.Hi^h, k.dst.Lo^m.seed)^uint64(k.id)<<16^uint64(k.proto)<<8^uint64(k.lane), m.seed)
	return &m.sets[h%portSets]
}

// remember notes that the datagram k has these ports.
func (m *portMemory) remember(k *datagramKey, has ports, now time.Duration) {
	s := m.set(k)
	to := &s[0]
	for i := range s {
		if e := &s[i]; e.key == *k {
			to = e
			break
		} else if e.at < to.at {
			to = e
		}
	}
	*to = datagramPorts{*k, max(now, 1), has}
}

// recall returns the ports of the datagram k.
func (m *portMemory) recall(k *datagramKey, now time.Duration) (has ports, ok bool) {
	s := m.set(k)
	for i := range s {
		if e := &s[i]; e.at != 0 && e.key == *k && now-e.at < reassemblyAge {
			return e.ports, true
		}
	}
	return ports{}, false
}

// The lanes of fragments, apart from each other: nobody can say in clear which
// ports a datagram has that comes by an SA, nor by another SA. A datagram that
// comes half by an SA and half by the one that follows it is lost.
const (
	laneOut uint8 = iota
	laneSecured
	laneClear
	laneHost // reassembler's: what the host sends is not put together with what others do
)

// laneOf returns the lane of p, which came from the wire.
func laneOf(p *packet) uint8 {
	if p.in != nil {
		return laneSecured
	}
	return laneClear
}

// portsOf gives packet i, a fragment, the ports of its datagram where a policy of
// t, or a selector of its SA, asks for them. A later fragment whose first one has
// not been seen is dropped then, and portsOf is false: the policies with ports
// could not be held against it. Later fragments for which there is an SA or a
// policy with OPAQUE ports are left to that (RFC 4301, section 7.2): which SA they
// go by must not depend on what was seen before them.
func (w *Worker) portsOf(b *Burst, i uint8, t *spd.Table, lane uint8) bool {
	p := &b.pkts[i]
	if !t.NeedsPorts(&p.tuple) && !needsPorts(p.in) {
		return true
	}
	f := p.fragment()
	if f.key.lane = lane; lane == laneSecured {
		f.key.spi = w.innermost(b, i).SPI
	}
	now := time.Since(w.born)
	if f.at == 0 {
		if r := wire.FirstPorts(&p.tuple, f.ip[f.head:]); r != counter.None {
			b.Drop(i, r)
			return false
		}
		w.portMemory.remember(&f.key, ports{p.tuple.SrcPort, p.tuple.DstPort, p.tuple.NoPorts}, now)
		return true
	}
	if opaque(p, t) {
		if f.at < leastOffset && p.info.Proto == wire.ProtoTCP {
			b.Drop(i, counter.Fragment)
			return false
		}
		return true
	}
	has, ok := w.portMemory.recall(&f.key, now)
	if !ok {
		b.Drop(i, counter.Fragment)
		return false
	}
	p.tuple.SrcPort, p.tuple.DstPort, p.tuple.NoPorts = has.src, has.dst, has.none
	return true
}

// leastOffset is where a later fragment of TCP may begin that is judged without
// its ports: one that begins before could overwrite the flags, which the first
// one may have been let through for (RFC 1858; RFC 4301, section 7.2).
const leastOffset = 16

// opaque says whether p, a later fragment, is to be judged without its ports: its
// SA selects by ports and takes those that have none, or the first policy of t
// that matches it without is for such packets.
func opaque(p *packet, t *spd.Table) bool {
	if needsPorts(p.in) {
		for i := range p.in.Selectors {
			if s := &p.in.Selectors[i]; s.Opaque() && s.Matches(&p.tuple) {
				return true
			}
		}
		return false
	}
	pol := t.Lookup(&p.tuple)
	return pol != nil && pol.Sel.Opaque()
}

// needsPorts says whether sa, which may be nil, selects by ports.
func needsPorts(sa *sad.Inbound) bool {
	if sa == nil {
		return false
	}
	for i := range sa.Selectors {
		if sa.Selectors[i].HasPorts() {
			return true
		}
	}
	return false
}
