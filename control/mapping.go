package control

import (
	"time"

	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/wire"
)

// mappingQuiet is how long a mapping that was told is not told again. The key
// daemon answers with new SAs, or does not care.
const mappingQuiet = 30 * time.Second

// mappingGap is how long nothing is told about an SA that has moved: whoever
// sits on the path can change the source of each packet.
const mappingGap = time.Second

// mapping is where the peer of an SA in UDP sends from, and when that was told.
type mapping struct {
	peer flow.Addr
	port uint16
	told time.Time
}

// locate tells key daemons that the peer of an inbound SA sends from elsewhere
// (RFC 7296, section 2.23): a NAT has forgotten its mapping, or the peer moved.
// The SA stays as it is; whether to follow is for the daemon to say.
func (c *Controller) locate(p *fib.Punt, now time.Time) {
	r := c.sas.byID[SAID{SPI: p.SPI, Dst: p.Dst, Proto: wire.ProtoESP}]
	if r == nil || r.in == nil || r.in.Geo.UDP == 0 {
		return // it was on its way
	}
	src, encap := r.in.Src, r.in.Encap
	if r.keyed != nil { // where an update is
		src, encap = r.keyed.params.Src, r.keyed.params.Encap
	}
	is := src == p.Via && encap.SrcPort == p.SrcPort
	was := r.moved.peer == p.Via && r.moved.port == p.SrcPort && now.Sub(r.moved.told) < mappingQuiet
	if is || was || now.Sub(r.moved.told) < mappingGap {
		return
	}
	r.moved = mapping{p.Via, p.SrcPort, now}
	c.log.Info("the peer of an SA sends from elsewhere", "sa", r.in, "peer", p.Via, "port", p.SrcPort)
	if c.heard(EventMapping, r.id.Proto) {
		v := c.viewOf(r, false)
		c.tellEvent(Event{Kind: EventMapping, SA: &v, Peer: p.Via, Port: p.SrcPort})
	}
}
