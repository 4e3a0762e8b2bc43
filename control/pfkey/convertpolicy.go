package pfkey

import (
	"golang.org/x/sys/unix"

	"net/netip"

	"spigot/control"
	"spigot/internal/flow"
	"spigot/spd"
)

// The protocols whose selectors have a type and a code where others have ports.
const (
	protoICMP   = 1
	protoICMPv6 = 58
)

// policyName reads direction and selector.
func (m *Message) policyName() (n control.PolicyName, err error) {
	switch m.Policy.Dir {
	case DirIn:
		n.Dir = spd.In
	case DirOut:
		n.Dir = spd.Out
	case DirFwd:
		n.Dir = control.Fwd
	default:
		return n, errorf(errInvalid, "policy of direction %d", m.Policy.Dir)
	}
	n.Sel = flow.Selector{Src: m.Src.addrs(), Dst: m.Dst.addrs(), SrcPort: flow.AnyPort, DstPort: flow.AnyPort}
	if m.Dst.Proto != anyProto { // clients say it in both; the kernel takes this one
		n.Sel.Proto = m.Dst.Proto
	}
	src, dst := m.Src.Port, m.Dst.Port
	if n.Sel.Proto != protoICMP && n.Sel.Proto != protoICMPv6 {
		n.Sel.SrcPort, n.Sel.DstPort = portOf(src), portOf(dst)
		return n, nil
	}
	switch { // type in the source's port, code in the destination's; 0 is any
	case src > 255 || dst > 255 || src == 0 && dst != 0:
		return n, errorf(errInvalid, "ICMP type %d with code %d", src, dst)
	case src != 0 && dst != 0:
		n.Sel.SrcPort = portOf(src<<8 | dst)
	case src != 0:
		n.Sel.SrcPort = flow.PortRange{Lo: src << 8, Hi: src<<8 | 255}
	}
	return n, nil
}

func (a Address) addrs() flow.AddrRange {
	return flow.RangeOf(netip.PrefixFrom(a.Addr, int(a.Prefix)))
}

func portOf(port uint16) flow.PortRange {
	if port == 0 {
		return flow.AnyPort
	}
	return flow.PortRange{Lo: port, Hi: port}
}

// policyParams reads a policy. fresh makes a reqid for those who want one of
// their own and do not say which.
func (m *Message) policyParams(fresh func() uint32) (p control.PolicyParams, err error) {
	name, err := m.policyName()
	if err != nil {
		return p, err
	}
	p.Dir, p.Sel, p.Priority = name.Dir, name.Sel, m.Policy.Priority
	p.Soft, p.Hard = m.Soft.AddTime, m.Hard.AddTime
	p.Name = "pf_key"
	p.PFP = spd.PFP(m.Policy.PFP)
	switch m.Policy.Kind {
	case PolicyDiscard:
		p.Action = spd.Discard
	case PolicyNone, PolicyBypass:
		p.Action = spd.Bypass
	case PolicyIPsec:
		p.Action = spd.Protect
		err = m.Policy.templates(&p, fresh)
	default:
		err = errorf(errInvalid, "policy of type %d", m.Policy.Kind)
	}
	return p, err
}

// templates reads what a policy asks of its SAs, the innermost first.
func (q *Policy) templates(p *control.PolicyParams, fresh func() uint32) error {
	switch n := len(q.Requests); {
	case n == 0:
		return errorf(errInvalid, "an IPsec policy without a request")
	case n > spd.MaxBundle:
		return errorf(unix.EPROTONOSUPPORT, "a policy of %d SAs, one in another: %d at most", n, spd.MaxBundle)
	}
	all := make([]spd.Template, len(q.Requests))
	for i := range q.Requests {
		t, level, err := q.Requests[i].template(fresh)
		switch {
		case err != nil:
			return err
		case i > 0 && level != p.Level:
			return errorf(errInvalid, "one SA of several that may be missing: of all of them, or of none")
		}
		all[i], p.Level = t, level
	}
	p.SetTemplates(all...)
	return nil
}

// template reads one SA that a policy asks for, and how much it insists.
func (r *Request) template(fresh func() uint32) (t spd.Template, level spd.Level, err error) {
	if r.Proto > 255 {
		return t, 0, errorf(errInvalid, "request of protocol %d", r.Proto)
	}
	t.Proto = uint8(r.Proto)
	switch r.Mode {
	case ModeTransport:
		t.Mode = spd.Transport
	case ModeTunnel:
		t.Mode = spd.Tunnel
		if !r.Src.IsValid() {
			return t, 0, errorf(errInvalid, "tunnel without its ends")
		}
	default:
		return t, 0, errorf(errInvalid, "request of mode %d", r.Mode)
	}
	if r.Src.IsValid() {
		t.Src, t.Dst = endOf(r.Src), endOf(r.Dst)
	}
	switch r.Level {
	case LevelDefault, LevelRequire: // which has no reqid, whatever stands there
	case LevelUse:
		level = spd.Use
	case LevelUnique:
		if t.Reqid = r.Reqid; t.Reqid == 0 {
			t.Reqid = fresh()
		}
	default:
		return t, 0, errorf(errInvalid, "request of level %d", r.Level)
	}
	return t, level, nil
}

// endOf returns the end of a tunnel; zero, any, for an unspecified one.
func endOf(a netip.Addr) flow.Addr {
	if a.IsUnspecified() {
		return flow.Addr{}
	}
	return flow.FromNetip(a)
}

// describePolicy writes p into m.
func (m *Message) describePolicy(p *control.Policy) {
	m.SAType = Unspec
	m.Has |= addresses | lifetimes | 1<<ExtPolicy
	proto := p.Sel.Proto
	if proto == flow.AnyProto {
		proto = anyProto
	}
	src, dst := portIn(p.Sel.SrcPort), portIn(p.Sel.DstPort)
	if proto == protoICMP || proto == protoICMPv6 {
		src, dst = icmpIn(p.Sel.SrcPort)
	}
	m.Src, m.Dst = addressOf(p.Sel.Src, src, proto), addressOf(p.Sel.Dst, dst, proto)
	m.Hard, m.Soft = Lifetime{AddTime: p.Hard}, Lifetime{AddTime: p.Soft}
	m.Current = Lifetime{AddTime: unixTime(p.Created), UseTime: unixTime(p.Used)}
	m.Policy = Policy{Dir: dirOf(p.Dir), ID: p.ID, Priority: p.Priority, PFP: uint8(p.PFP)}
	switch p.Action {
	case spd.Bypass:
		m.Policy.Kind = PolicyNone
	case spd.Protect:
		m.Policy.Kind = PolicyIPsec
		for _, t := range p.Templates() {
			m.Policy.Requests = append(m.Policy.Requests, requestOf(p, &t))
		}
	}
}

// icmpIn returns the ICMP type and code of r, 0 for any and for what the dialect
// has no way to say: several types, type 0, and none to be seen (OPAQUE).
func icmpIn(r flow.PortRange) (typ, code uint16) {
	if typ = r.Lo >> 8; typ == 0 || typ != r.Hi>>8 {
		return 0, 0
	}
	if r.Lo == r.Hi {
		code = r.Lo & 255
	}
	return typ, code
}

// portIn returns the port of r, 0 for any and for what the dialect has no way to
// say: more than one, and none to be seen (OPAQUE).
func portIn(r flow.PortRange) uint16 {
	if r.Lo != r.Hi {
		return 0
	}
	return r.Lo
}

func dirOf(d spd.Dir) uint8 {
	switch d {
	case spd.In:
		return DirIn
	case spd.Out:
		return DirOut
	}
	return DirFwd
}

// requestOf writes t, a template of p.
func requestOf(p *control.Policy, t *spd.Template) Request {
	r := Request{Proto: uint16(t.Proto), Mode: ModeTransport, Level: LevelRequire, Reqid: t.Reqid}
	switch {
	case p.Level == spd.Use, p.Level == spd.Acquire:
		r.Level = LevelUse
	case t.Reqid != 0:
		r.Level = LevelUnique
	}
	if t.Mode == spd.Tunnel {
		r.Mode = ModeTunnel
	}
	if r.Mode == ModeTunnel || !t.Src.IsZero() || !t.Dst.IsZero() {
		like := t.Dst
		if like.IsZero() {
			like = t.Src
		}
		if like.IsZero() {
			like = p.Sel.Dst.Lo
		}
		r.Src, r.Dst = hostOf(t.Src, like).Addr, hostOf(t.Dst, like).Addr
	}
	return r
}
