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
		err = m.Policy.template(&p, fresh)
	default:
		err = errorf(errInvalid, "policy of type %d", m.Policy.Kind)
	}
	return p, err
}

// template reads what a policy asks of its SA.
func (q *Policy) template(p *control.PolicyParams, fresh func() uint32) error {
	switch len(q.Requests) {
	case 0:
		return errorf(errInvalid, "an IPsec policy without a request")
	case 1:
	default:
		return errorf(unix.EPROTONOSUPPORT, "a policy of %d SAs, one in another: only one is there", len(q.Requests))
	}
	r := &q.Requests[0]
	t := &p.Template
	if r.Proto > 255 {
		return errorf(errInvalid, "request of protocol %d", r.Proto)
	}
	t.Proto = uint8(r.Proto)
	switch r.Mode {
	case ModeTransport:
		t.Mode = spd.Transport
	case ModeTunnel:
		t.Mode = spd.Tunnel
		if !r.Src.IsValid() {
			return errorf(errInvalid, "tunnel without its ends")
		}
	default:
		return errorf(errInvalid, "request of mode %d", r.Mode)
	}
	if r.Src.IsValid() {
		t.Src, t.Dst = endOf(r.Src), endOf(r.Dst)
	}
	switch r.Level {
	case LevelDefault, LevelRequire: // which has no reqid, whatever stands there
		p.Level = spd.Require
	case LevelUse:
		p.Level = spd.Use
	case LevelUnique:
		p.Level = spd.Require
		if t.Reqid = r.Reqid; t.Reqid == 0 {
			t.Reqid = fresh()
		}
	default:
		return errorf(errInvalid, "request of level %d", r.Level)
	}
	return nil
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
	if r := p.Sel.SrcPort; (proto == protoICMP || proto == protoICMPv6) && r != flow.AnyPort {
		src, dst = r.Lo>>8, 0
		if r.Lo == r.Hi {
			dst = r.Lo & 255
		}
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
		m.Policy.Requests = []Request{requestOf(p)}
	}
}

// portIn returns the port of r, 0 for any and for what is more than one.
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

func requestOf(p *control.Policy) Request {
	t := &p.Template
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
