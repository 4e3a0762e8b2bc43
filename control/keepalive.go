package control

import (
	"time"

	"spigot/internal/flow"
	"spigot/internal/wire"
)

// natPath is the way of ESP in UDP from this gateway to a peer, or to the NAT in
// front of it: what a NAT on the way keeps a mapping for.
type natPath struct {
	src, dst         flow.Addr
	srcPort, dstPort uint16
}

// natLife says when something was sent by a natPath, and when an SA was seen
// that uses it.
type natLife struct{ sent, seen time.Time }

// keepalives are the paths of outbound SAs in UDP.
type keepalives struct {
	paths  map[natPath]*natLife
	swept  time.Time
	worker int // the next to send one
}

const forgetNAT = time.Minute // after the last SA that used it has left

// keepAlive sends a NAT-keepalive by the path of r, if r has one, when no SA has
// sent anything there for the time that the configuration says (RFC 3948,
// section 4). Whether there is a NAT only the key daemon knows: that an SA is in
// UDP is taken for one.
func (c *Controller) keepAlive(r *record, now time.Time) {
	if r.out == nil || r.out.Geo.UDP == 0 || c.cfg.NATKeepalive == 0 {
		return
	}
	p := natPath{r.out.Src, r.out.Dst, r.out.Encap.SrcPort, r.out.Encap.DstPort}
	life := c.alive.paths[p]
	if life == nil { // IKE has just used it
		life = &natLife{sent: now}
		c.alive.paths[p] = life
	}
	if life.seen = now; r.last.After(life.sent) {
		life.sent = r.last
	}
	if now.Sub(life.sent) >= c.cfg.NATKeepalive && c.sendKeepalive(&p) {
		life.sent = now
	}
}

// forgetNATs forgets the paths that no SA uses any more.
func (c *Controller) forgetNATs(now time.Time) {
	if now.Sub(c.alive.swept) < forgetNAT {
		return
	}
	c.alive.swept = now
	for p, life := range c.alive.paths {
		if now.Sub(life.seen) >= forgetNAT {
			delete(c.alive.paths, p)
		}
	}
}

// sendKeepalive has a worker send a keepalive, past the SPD as ESP is, and says
// whether there was room for it.
func (c *Controller) sendKeepalive(p *natPath) bool {
	if len(c.cfg.Workers) == 0 {
		return true
	}
	c.alive.worker = (c.alive.worker + 1) % len(c.cfg.Workers)
	m := &c.inject[0]
	m.Policy = false
	m.Len = uint16(keepalive(m.Data[:], p))
	if c.cfg.Workers[c.alive.worker].Injects.Push(c.inject[:]) != 1 {
		return false
	}
	c.stats.Keepalives++
	return true
}

// keepalive writes a NAT-keepalive to buf and returns its length (RFC 3948,
// section 2.3). Like ESP in UDP, it has no checksum over IPv4.
func keepalive(buf []byte, p *natPath) int {
	const n = wire.UDPLen + 1
	put := func(udp wire.UDP) {
		udp.Init(p.srcPort, p.dstPort, n)
		udp[wire.UDPLen] = 0xff
	}
	if p.dst.Is4() {
		const total = wire.IPv4Len + n
		put(buf[wire.IPv4Len:total])
		ip := wire.IPv4(buf[:total])
		ip.Init(p.src, p.dst, wire.ProtoUDP, icmpTTL, total)
		return total
	}
	const total = wire.IPv6Len + n
	udp := wire.UDP(buf[wire.IPv6Len:total])
	put(udp)
	wire.IPv6(buf[:total]).Init(p.src, p.dst, wire.ProtoUDP, icmpTTL, n)
	sum := wire.UpperChecksum(p.src, p.dst, wire.ProtoUDP, udp)
	if sum == 0 {
		sum = 0xffff // RFC 768: 0 says that there is none
	}
	udp.SetChecksum(sum)
	return total
}
