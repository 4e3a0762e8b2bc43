package control

import (
	"math"

	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// wanted is what a template asks of an SA. Both ways of keying are served:
// charon ties SAs to policies by reqid; iked and people do it by the tunnel.
type wanted struct {
	reqid    uint32 // 0: any
	proto    uint8
	tunnel   bool
	src, dst flow.Addr // zero: any
}

// offers lists all templates that an SA answers.
func offers(sa *sad.SA) [8]wanted {
	var all [8]wanted
	for i := range all {
		w := wanted{proto: sa.Proto, tunnel: sa.Tunnel}
		if i&1 != 0 {
			w.reqid = sa.Reqid
		}
		if i&2 != 0 {
			w.src = sa.Src
		}
		if i&4 != 0 {
			w.dst = sa.Dst
		}
		all[i] = w
	}
	return all
}

// rebind gives each outbound protect policy the newest usable SA that its
// template names, so that a rekeyed SA takes over before the old one leaves
// (make before break). A template that names neither a reqid nor a peer is met
// by no SA: whom to send to would depend on the packet.
func (c *Controller) rebind() {
	newest := make(map[wanted]*sad.Outbound)
	for _, r := range c.sas { // the last one wins: it was added last
		if r.out != nil && usable(r.out) {
			for _, w := range offers(&r.out.SA) {
				newest[w] = r.out
			}
		}
	}
	for id, p := range c.policies {
		if p.Dir != spd.Out || p.Action != spd.Protect {
			continue
		}
		if err := c.db.Bind(id, newest[want(p)]); err != nil {
			c.log.Error("bind a policy to its SA", "policy", id, "name", p.Name, "err", err)
		}
	}
}

// want returns what p asks of an SA. Without reqid and peer it is the zero
// value, which no SA offers.
func want(p *spd.Policy) wanted {
	t := &p.Template
	if t.Reqid == 0 && t.Dst.IsZero() {
		return wanted{}
	}
	return wanted{t.Reqid, t.Proto, t.Mode == spd.Tunnel, t.Src, t.Dst}
}

// usable says whether sa can seal another packet.
func usable(sa *sad.Outbound) bool { return sa.Seq() < lastSeq(&sa.SA) }

// lastSeq returns the last sequence number of an SA (RFC 4303, section 3.3.3).
func lastSeq(sa *sad.SA) uint64 {
	if sa.ESN {
		return math.MaxUint64
	}
	return math.MaxUint32
}
