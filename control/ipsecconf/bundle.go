package ipsecconf

import (
	"math"

	"spigot/internal/flow"
	"spigot/spd"
)

// around is an SA of a flow that goes around those before it.
type around struct {
	proto       uint8
	mode        spd.Mode
	local, peer flow.Addr // zero: as the flow's own
	reqid       uint32
}

// bundle reads the SAs behind the word, the inner first.
func (r *flowRule) bundle(c *cursor) *Error {
	at := c.peek().pos
	err := c.list("an SA", func() *Error {
		a, err := c.around()
		r.around = append(r.around, a)
		return err
	})
	if err == nil && len(r.around) >= spd.MaxBundle {
		return errorAt(at, "%d SAs around the flow's own: %d at most", len(r.around), spd.MaxBundle-1)
	}
	return err
}

// around reads one SA of a bundle.
func (c *cursor) around() (a around, err *Error) {
	t := c.next()
	switch {
	case t.is("esp"):
		a.proto = protoESP
	case t.is("ah"):
		a.proto = protoAH
	default:
		return a, errorAt(t.pos, "found %v: %s", t, oneOf([]string{"esp", "ah"}))
	}
	if !c.accept("tunnel") && c.accept("transport") {
		a.mode = spd.Transport
	}
	given := once{}
	for err == nil {
		t = c.peek()
		if !t.is("local") && !t.is("peer") && !t.is("reqid") {
			break
		}
		if err = given.take(c.next()); err != nil {
			break
		}
		var n uint64
		switch t.text {
		case "local":
			a.local, err = c.host("local")
		case "peer":
			a.peer, err = c.host("peer")
		default:
			n, err = c.number("reqid", 1, math.MaxUint32)
			a.reqid = uint32(n)
		}
	}
	if err == nil && !a.local.IsZero() && !a.peer.IsZero() && a.local.Is4() != a.peer.Is4() {
		err = errorAt(t.pos, "local %v and peer %v are of different families: an SA goes between two addresses of one", a.local, a.peer)
	}
	return a, err
}

// templates returns what a policy of r asks of its SAs, the innermost first; own
// is the flow's own SA, whose ends the others have unless they say otherwise.
func (r *flowRule) templates(own spd.Template) []spd.Template {
	all := []spd.Template{own}
	for _, a := range r.around {
		t := spd.Template{Proto: a.proto, Mode: a.mode, Src: a.local, Dst: a.peer, Reqid: a.reqid}
		if t.Src.IsZero() && (t.Dst.IsZero() || t.Dst == own.Dst) {
			t.Src = own.Src
		}
		if t.Dst.IsZero() {
			t.Dst = own.Dst
		}
		all = append(all, t)
	}
	return all
}
