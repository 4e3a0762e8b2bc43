package control

import (
	"net/netip"
	"time"

	"spigot/internal/fib"
	"spigot/internal/flow"
)

// How many ICMP errors a worker's packets may cause a second (RFC 4443, section
// 2.4 (f)); as many may come at once. When a path becomes narrower, each flow
// needs to be told, and those whose TTL runs out must not be in their way.
const (
	ttlRate    = 100
	tooBigRate = 1000
)

// punt does what worker i asks about one packet.
func (c *Controller) punt(i int, p *fib.Punt, now time.Time) {
	switch p.Kind {
	case fib.PuntResolve:
		c.stats.Resolves++
		if link := c.link(p.Port); link != 0 {
			c.cfg.Mirror.Resolve(link, p.Via)
		}
	case fib.PuntAudit:
		c.audit(p, now)
	case fib.PuntMoved:
		c.locate(p, now)
	case fib.PuntPMTU:
		c.learnPath(p.Data[:min(int(p.Len), len(p.Data))], now)
	case fib.PuntTooBig, fib.PuntTTL:
		c.answer(i, p, now)
	}
}

// link returns the interface index of a port, 0 if it has none.
func (c *Controller) link(port uint16) int {
	if c.view == nil || int(port) >= len(c.view.Ports) {
		return 0
	}
	return c.view.Ports[port].Index
}

// answer sends the ICMP error that p asks for to the packet's source, by the
// worker that met it.
func (c *Controller) answer(i int, p *fib.Punt, now time.Time) {
	packet := p.Data[:min(int(p.Len), len(p.Data))]
	to, ok := answerable(packet, p.Kind)
	if !ok {
		c.stats.ICMPRefused++
		return
	}
	src := c.source(p, to)
	if d := destination(packet); c.local[to] && !p.Secured && !d.IsGroup() {
		src = d // the host's kernel believes no answer from itself
	}
	if src.IsZero() {
		c.stats.ICMPRefused++
		return
	}
	if !c.answers[i].of(p.Kind).take(now) {
		c.stats.ICMPLimited++
		return
	}
	c.icmpID++
	m := &c.inject[0]
	m.Policy = p.Secured
	m.Len = uint16(icmpError(m.Data[:], p.Kind, int(p.MTU), c.icmpID, src, packet))
	if c.cfg.Workers[i].Injects.Push(c.inject[:]) == 1 {
		c.stats.ICMPSent++
	} else {
		c.stats.ICMPLost++
	}
}

// answers limits the ICMP errors of one worker.
type answers struct{ ttl, tooBig bucket }

// of returns the limit for errors of that kind.
func (a *answers) of(kind fib.PuntKind) *bucket {
	if kind == fib.PuntTTL {
		return &a.ttl
	}
	return &a.tooBig
}

// source chooses the address that answers to: one of the port by which the
// packet came, or, if the packet came by an SA or the port has none, of another
// port on the protected side, else of any. The protected side's addresses are
// those that the peer's policies know. Zero: there is none of that family.
func (c *Controller) source(p *fib.Punt, to flow.Addr) flow.Addr {
	if c.view == nil {
		return flow.Addr{}
	}
	best, rank := flow.Addr{}, 0
	for i := range min(len(c.view.Ports), len(c.cfg.Ports)) {
		r := 1
		switch {
		case i == int(p.Port) && !p.Secured:
			r = 3
		case c.cfg.Ports[i].Side == SideProtected:
			r = 2
		}
		if r <= rank {
			continue
		}
		if a := pickSource(c.view.Ports[i].Addrs, to); !a.IsZero() {
			best, rank = a, r
		}
	}
	return best
}

// pickSource returns the first address of to's family that can be answered to
// from beyond the link.
func pickSource(addrs []netip.Addr, to flow.Addr) flow.Addr {
	for _, a := range addrs {
		if a.Is4() == to.Is4() && !a.IsLinkLocalUnicast() {
			return flow.FromNetip(a)
		}
	}
	return flow.Addr{}
}
