package ipsecconf

import (
	"math"
	"slices"

	"spigot/internal/flow"
	"spigot/spd"
)

// maxPolicies bounds what the lists of a configuration multiply to.
const maxPolicies = 1 << 18

// flowRule is a flow as it is written.
type flowRule struct {
	pos         Position
	protocol    uint8 // of the SA
	dirs        []spd.Dir
	mirror      bool // no direction was given: out, and in for the way back
	protos      []uint8
	protoPos    Position
	hosts       hosts
	local, peer flow.Addr
	peerGiven   bool
	anyPeer     bool
	action      spd.Action
	level       spd.Level
	mode        spd.Mode
	reqid       uint32
	priority    uint32
	around      []around
	pfp         spd.PFP
	pfpPos      Position
	icmp        icmpType
	forSA       token // an option that makes sense with an SA only
}

// flow reads a flow; the cursor is behind the word.
func (p *parser) flow(pos Position, c *cursor) *Error {
	r := flowRule{pos: pos, protocol: protoESP, mirror: true, protos: []uint8{flow.AnyProto}, action: spd.Protect}
	if err := r.head(c); err != nil {
		return err
	}
	var err *Error
	if r.hosts, err = c.hosts(true); err != nil {
		return err
	}
	given := once{}
	for c.peek().kind != end {
		if err := r.option(c.next(), c, given); err != nil {
			return err
		}
	}
	if err := r.check(); err != nil {
		return err
	}
	return p.expand(&r)
}

// head reads what stands before the hosts.
func (r *flowRule) head(c *cursor) (err *Error) {
	given := once{}
	for {
		t := c.peek()
		switch {
		case t.is("esp"), t.is("ah"):
			if r.protocol = protoESP; t.is("ah") {
				r.protocol = protoAH
			}
			t.text = "esp or ah"
		case t.is("in"), t.is("out"):
			dir := spd.Out
			if t.is("in") {
				dir = spd.In
			}
			r.mirror, r.dirs = false, append(r.dirs, dir)
			t.text = "the direction"
		case t.is("proto"):
		case t.is("from"), t.is("to"):
			return nil
		case t.is("ipcomp"), t.is("ipip"):
			return errorAt(t.pos, "%s", elsewhere[t.text])
		default:
			return errorAt(t.pos, "found %v: %s", t, oneOf([]string{"esp", "ah", "in", "out", "proto", "from", "to"}))
		}
		if err := given.take(t); err != nil {
			return err
		}
		c.next()
		if t.text == "proto" {
			r.protoPos = t.pos
			if r.protos, err = c.protos(); err != nil {
				return err
			}
		}
	}
}

var flowOptions = []string{"local", "peer", "type", "mode", "reqid", "bundle", "priority", "pfp", "icmp-type"}

// option reads the option t behind the hosts.
func (r *flowRule) option(t token, c *cursor, given once) (err *Error) {
	if t.kind == word {
		if err := given.take(t); err != nil {
			return err
		}
	}
	var n uint64
	switch {
	case t.is("local"):
		r.forSA = t
		r.local, err = c.end("local")
	case t.is("peer"):
		r.forSA, r.peerGiven = t, true
		if r.anyPeer = c.accept("any"); !r.anyPeer {
			r.peer, err = c.end("peer")
		}
	case t.is("type"):
		err = r.kind(c)
	case t.is("mode"):
		r.forSA = t
		if !c.accept("tunnel") {
			if !c.accept("transport") {
				return errorAt(c.peek().pos, "found %v: %s", c.peek(), oneOf([]string{"tunnel", "transport"}))
			}
			r.mode = spd.Transport
		}
	case t.is("reqid"):
		r.forSA = t
		n, err = c.number("reqid", 1, math.MaxUint32)
		r.reqid = uint32(n)
	case t.is("pfp"):
		r.forSA, r.pfpPos = t, t.pos
		r.pfp, err = c.pfp()
	case t.is("icmp-type"):
		r.icmp, err = c.icmpType(t.pos)
	case t.is("bundle"):
		r.forSA = t
		err = r.bundle(c)
	case t.is("priority"):
		n, err = c.number("priority", 0, math.MaxUint32)
		r.priority = uint32(n)
	case t.is("srcid"), t.is("dstid"):
		err = errorAt(t.pos, "%v is the key daemon's: write it into the daemon's own configuration", t)
	default:
		err = errorAt(t.pos, "unknown option %v of a flow: %s", t, oneOf(flowOptions))
	}
	return err
}

// pfpFields are what a flow may take from packets.
var pfpFields = []struct {
	name  string
	field spd.PFP
}{
	{"src", spd.PFPSrc},
	{"dst", spd.PFPDst},
	{"proto", spd.PFPProto},
	{"ports", spd.PFPPorts},
	{"all", spd.PFPAll},
}

// pfp reads the fields that a flow takes from packets, one or a list of them.
func (c *cursor) pfp() (spd.PFP, *Error) {
	var all spd.PFP
	err := c.list("what pfp takes", func() *Error {
		names := make([]string, 0, len(pfpFields))
		for _, f := range pfpFields {
			if c.accept(f.name) {
				all |= f.field
				return nil
			}
			names = append(names, f.name)
		}
		return errorAt(c.peek().pos, "unknown field %v for pfp: %s", c.peek(), oneOf(names))
	})
	return all, err
}

// flowKinds are OpenBSD's types of flows.
var flowKinds = []struct {
	name   string
	action spd.Action
	level  spd.Level
}{
	{"use", spd.Protect, spd.Use},
	{"acquire", spd.Protect, spd.Acquire},
	{"require", spd.Protect, spd.Require},
	{"dontacq", spd.Protect, spd.DontAcq},
	{"bypass", spd.Bypass, spd.Require},
	{"deny", spd.Discard, spd.Require},
}

// kind reads the type of a flow.
func (r *flowRule) kind(c *cursor) *Error {
	names := make([]string, 0, len(flowKinds))
	for _, k := range flowKinds {
		if c.accept(k.name) {
			r.action, r.level = k.action, k.level
			return nil
		}
		names = append(names, k.name)
	}
	return errorAt(c.peek().pos, "unknown type %v of a flow: %s", c.peek(), oneOf(names))
}

// check says what does not go together.
func (r *flowRule) check() *Error {
	for _, at := range []Position{r.hosts.srcPortPos, r.hosts.dstPortPos} {
		if at == (Position{}) {
			continue
		}
		for _, n := range r.protos {
			if !hasPorts(n) {
				return errorAt(at, "a port needs a protocol that has ports: add \"proto tcp\" or \"proto udp\" before \"from\"")
			}
		}
	}
	if err := r.icmp.check(r.protos); err != nil {
		return err
	}
	if err := r.checkOpaque(); err != nil {
		return err
	}
	if r.pfp != 0 && !r.mirror && !slices.Contains(r.dirs, spd.Out) {
		return errorAt(r.pfpPos, "\"pfp\" is for flows that go out: what comes in has its SA")
	}
	if r.pfp&(spd.PFPPorts|spd.PFPProto) == spd.PFPPorts && slices.Contains(r.protos, flow.AnyProto) {
		return errorAt(r.pfpPos, "ports say nothing without the protocol: write \"pfp { proto ports }\", or name one by \"proto\"")
	}
	if r.action != spd.Protect && r.forSA.text != "" {
		return errorAt(r.forSA.pos, "%v has no meaning for a flow that uses no SA: leave it out, or the type bypass or deny", r.forSA)
	}
	if !r.local.IsZero() && !r.peer.IsZero() && r.local.Is4() != r.peer.Is4() {
		return errorAt(r.forSA.pos, "local %v and peer %v are of different families: an SA goes between two addresses of one", r.local, r.peer)
	}
	if err := r.checkGroups(); err != nil {
		return err
	}
	if r.mirror {
		r.dirs = []spd.Dir{spd.Out, spd.In}
	}
	return nil
}

// checkGroups says which multicast group cannot be an end of the flow's SA: one
// is where packets go, and none come from.
func (r *flowRule) checkGroups() *Error {
	switch out := !r.mirror && r.dirs[0] == spd.Out; {
	case r.peer.IsGroup() && !out:
		return errorAt(r.forSA.pos, "nothing comes from the group %v: write \"flow out\" for what goes to it, "+
			"and \"flow in .. local %v\" for what others send to it", r.peer, r.peer)
	case r.local.IsGroup() && (out || r.mirror):
		return errorAt(r.forSA.pos, "nothing is sent from the group %v: write \"flow in\"", r.local)
	}
	return nil
}

// expand makes the policies of r: one for each combination of its lists'
// members whose families agree.
func (p *parser) expand(r *flowRule) *Error {
	h := &r.hosts
	n := float64(len(h.src)) * float64(len(h.dst)) * float64(len(h.sports)) * float64(len(h.dports)) * float64(len(r.protos)) * float64(len(r.dirs))
	if n+float64(len(p.config.Policies)) > maxPolicies {
		return errorAt(r.pos, "the lists make more than %d flows: use prefixes or ranges", maxPolicies)
	}
	before := len(p.config.Policies)
	for _, src := range h.src {
		for _, dst := range h.dst {
			if src.Lo.Is4() != dst.Lo.Is4() {
				continue
			}
			if err := p.expandPair(r, src, dst); err != nil {
				return err
			}
		}
	}
	if len(p.config.Policies) == before {
		return errorAt(h.dstPos, "the sources and destinations are of different families: no packet can match")
	}
	return nil
}

// expandPair makes the policies of r from src to dst.
func (p *parser) expandPair(r *flowRule, src, dst flow.AddrRange) *Error {
	t, err := r.template(src, dst)
	if err != nil {
		return err
	}
	for _, proto := range r.protos {
		for _, sport := range r.hosts.sports {
			for _, dport := range r.hosts.dports {
				sel := flow.Selector{Src: src, Dst: dst, SrcPort: r.icmp.ports(sport), DstPort: dport, Proto: proto}
				for _, dir := range r.dirs {
					p.config.Policies = append(p.config.Policies, r.policy(dir, sel, t))
				}
			}
		}
	}
	return nil
}

// policy makes one policy; sel and t are as for the first direction of r.
func (r *flowRule) policy(dir spd.Dir, sel flow.Selector, t spd.Template) *spd.Policy {
	if r.mirror && dir == spd.In {
		sel = sel.Mirrored()
	}
	all := r.templates(t)
	for i := range all {
		if t := &all[i]; dir == spd.In {
			t.Src, t.Dst = t.Dst, t.Src
		}
	}
	p := &spd.Policy{
		Dir: dir, Priority: r.priority, Sel: sel, Action: r.action, Level: r.level, Static: true, Name: r.pos.name(),
	}
	p.SetTemplates(all...)
	if dir == spd.Out {
		p.PFP = r.pfp
	}
	return p
}

// template names the SA for what goes out from src to dst, or comes in so. As
// in OpenBSD, the peer is the remote host if nothing else is said.
func (r *flowRule) template(src, dst flow.AddrRange) (spd.Template, *Error) {
	if r.action != spd.Protect {
		return spd.Template{}, nil
	}
	t := spd.Template{Proto: r.protocol, Mode: r.mode, Src: r.local, Dst: r.peer, Reqid: r.reqid}
	if r.peerGiven {
		return t, nil
	}
	remote, at := dst, r.hosts.dstPos
	if r.dirs[0] == spd.In {
		remote, at = src, r.hosts.srcPos
	}
	if !isHost(remote) {
		return t, errorAt(at, "no peer for %v, which is no single host: add \"peer ADDRESS\" or \"peer any\"", remote)
	}
	t.Dst = remote.Lo
	if t.Dst.Netip().IsUnspecified() || t.Dst.IsGroup() && (r.mirror || r.dirs[0] == spd.In) {
		return t, errorAt(at, "%v cannot be the peer: add \"peer ADDRESS\" or \"peer any\"", t.Dst)
	}
	if !t.Src.IsZero() && t.Src.Is4() != t.Dst.Is4() {
		return t, errorAt(r.forSA.pos, "local %v and peer %v are of different families: an SA goes between two addresses of one", t.Src, t.Dst)
	}
	return t, nil
}
