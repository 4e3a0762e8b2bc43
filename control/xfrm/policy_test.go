package xfrm

import (
	"syscall"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
	"spigot/internal/flow"
	"spigot/spd"
)

// charonPolicy is a policy as charon installs it: 10.1.0.0/16 to 10.2.0.0/16.
func charonPolicy(dir uint8) *userpolicyInfo {
	p := &userpolicyInfo{
		sel: selector{src: addr("10.1.0.0"), dst: addr("10.2.0.0"), plenSrc: 16, plenDst: 16, family: afInet},
		lft: noLimits, priority: 375423, dir: dir,
	}
	if dir != dirOut {
		p.sel.src, p.sel.dst = p.sel.dst, p.sel.src
	}
	return p
}

// charonTmpl is its template; spi is the SA's, for outbound ones.
func charonTmpl(dir uint8, spi uint32) func(*message) {
	t := tmpl{
		id: id{dst: addr("192.0.2.2"), spi: spi, proto: 50}, src: addr("192.0.2.1"), family: afInet, reqid: 7, mode: modeTunnel,
		aalgos: ^uint32(0), ealgos: ^uint32(0), calgos: ^uint32(0),
	}
	if dir != dirOut {
		t.id.dst, t.src = t.src, t.id.dst
	}
	return with(nl.XFRMA_TMPL, &tmplList{t})
}

// charon's way with policies: three of a kind, updates, a look at the last use,
// and their end.
func TestCharonPolicies(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	r.do(t, c, 0, r.req(msgNewSA, syscall.NLM_F_ACK, outboundSA(0x1000), with(nl.XFRMA_ALG_AEAD, gcm()), window(1)))
	for _, dir := range []uint8{dirIn, dirFwd, dirOut} {
		r.do(t, c, 0, r.req(msgNewPolicy, syscall.NLM_F_ACK, charonPolicy(dir), charonTmpl(dir, 0)))
		r.do(t, c, syscall.EEXIST, r.req(msgNewPolicy, syscall.NLM_F_ACK, charonPolicy(dir), charonTmpl(dir, 0)))
		r.do(t, c, 0, r.req(msgUpdPolicy, syscall.NLM_F_ACK, charonPolicy(dir), charonTmpl(dir, 0x1000)))
	}
	for _, dir := range []uint8{dirIn, dirFwd, dirOut} {
		name := &userpolicyID{sel: charonPolicy(dir).sel, dir: dir}
		got := r.one(t, c, r.req(msgGetPolicy, 0, name))
		if got.typ != msgNewPolicy {
			t.Fatalf("type %#x", got.typ)
		}
		p := nl.DeserializeXfrmUserpolicyInfo(got.body)
		if p.Priority != 375423 || p.Dir != dir || p.Action != 0 || p.Index&7 != uint32(dir) || p.Index == 0 ||
			p.Sel.PrefixlenD != 16 || p.Curlft.AddTime == 0 || p.Lft.HardByteLimit != infinite {
			t.Errorf("%+v", p)
		}
		u := nl.DeserializeXfrmUserTmpl(got.attr(t, policyLen, nl.XFRMA_TMPL))
		if u.Reqid != 7 || u.Mode != modeTunnel || u.XfrmId.Proto != 50 || u.Aalgos != ^uint32(0) || u.XfrmId.Spi != 0x00100000 {
			t.Errorf("%+v", u)
		}
		if again := r.one(t, c, r.req(msgGetPolicy, 0, &userpolicyID{index: p.Index, dir: dir})); again.typ != msgNewPolicy {
			t.Errorf("by its index: type %#x", again.typ)
		}
	}
	bound := 0
	err := r.ctl.Keying(func(k *control.Keying) {
		p, err := k.Policy(control.PolicyName{Dir: spd.Out, Sel: must(charonPolicy(dirOut).sel.flow())})
		if sa := r.ipsec.Load().SAD.Outbound(p.ID); err == nil && sa != nil && sa.SPI == 0x1000 {
			bound++
		}
	})
	if err != nil || bound != 1 {
		t.Errorf("the outbound policy has no SA (%v)", err)
	}
	for _, dir := range []uint8{dirIn, dirFwd, dirOut} {
		name := &userpolicyID{sel: charonPolicy(dir).sel, dir: dir}
		r.do(t, c, 0, r.req(msgDelPolicy, syscall.NLM_F_ACK, name))
		r.do(t, c, syscall.ENOENT, r.req(msgDelPolicy, syscall.NLM_F_ACK, name))
		r.do(t, c, syscall.ENOENT, r.req(msgGetPolicy, 0, name))
	}
}

const policyLen = nl.SizeofXfrmUserpolicyInfo

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The same errors as Linux 6.1's, and for what Linux can and Spigot cannot,
// EOPNOTSUPP.
func TestRefusedPolicies(t *testing.T) {
	plain := charonTmpl(dirOut, 0)
	edited := func(edit func(*tmpl)) func(*message) {
		u := tmpl{id: id{dst: addr("192.0.2.2"), proto: 50}, src: addr("192.0.2.1"), family: afInet, mode: modeTunnel}
		edit(&u)
		return with(nl.XFRMA_TMPL, &tmplList{u})
	}
	none := func(*userpolicyInfo) {}
	for _, row := range []struct {
		name  string
		edit  func(*userpolicyInfo)
		attr  func(*message)
		errno syscall.Errno
	}{
		{"as it should be", none, plain, 0},
		{"no template: bypass", none, func(*message) {}, 0},
		{"block", func(p *userpolicyInfo) { p.action = actionBlock }, func(*message) {}, 0},
		{"direction 3", func(p *userpolicyInfo) { p.dir = 3 }, plain, syscall.EINVAL},
		{"action 2", func(p *userpolicyInfo) { p.action = 2 }, plain, syscall.EINVAL},
		{"share 4", func(p *userpolicyInfo) { p.share = 4 }, plain, syscall.EINVAL},
		{"no family", func(p *userpolicyInfo) { p.sel.family = 0 }, plain, syscall.EINVAL},
		{"prefix of 33 bits", func(p *userpolicyInfo) { p.sel.plenSrc = 33 }, plain, syscall.EINVAL},
		{"an index", func(p *userpolicyInfo) { p.index = 9 }, plain, syscall.EOPNOTSUPP},
		{"an interface", func(p *userpolicyInfo) { p.sel.ifindex = 2 }, plain, syscall.EOPNOTSUPP},
		{"a port mask that is no range", func(p *userpolicyInfo) { p.sel.dportMask = 0x00ff }, plain, syscall.EOPNOTSUPP},
		{"an ICMP code of any type", func(p *userpolicyInfo) { p.sel.proto, p.sel.dportMask = 1, 0xffff }, plain, syscall.EOPNOTSUPP},
		{"a lifetime from the first use", func(p *userpolicyInfo) { p.lft.hardUse = 9 }, plain, syscall.EOPNOTSUPP},
		{"five templates", none, with(nl.XFRMA_TMPL, &tmplList{{}, {}, {}, {}, {}}), syscall.EOPNOTSUPP},
		{"one of two that is optional", none, with(nl.XFRMA_TMPL, &tmplList{
			{id: id{proto: 50}, reqid: 1, family: afInet}, {id: id{proto: 51}, reqid: 2, family: afInet, optional: 1}}), syscall.EOPNOTSUPP},
		{"transport around a tunnel of another family", none, with(nl.XFRMA_TMPL, &tmplList{
			{id: id{dst: addr("2001:db8::2"), proto: 50}, src: addr("2001:db8::1"), family: afInet6, mode: modeTunnel},
			{id: id{proto: 51}, reqid: 2, family: afInet}}), syscall.EINVAL},
		{"IPComp", none, edited(func(u *tmpl) { u.id.proto = 108 }), syscall.EPROTONOSUPPORT},
		{"TCP", none, edited(func(u *tmpl) { u.id.proto = 6 }), syscall.EINVAL},
		{"BEET", none, edited(func(u *tmpl) { u.mode = 4 }), syscall.EOPNOTSUPP},
		{"mode 5", none, edited(func(u *tmpl) { u.mode = 5 }), syscall.EINVAL},
		{"a template's family that is none", none, edited(func(u *tmpl) { u.family = 99 }), syscall.EINVAL},
		{"a template without a family", none, edited(func(u *tmpl) { u.family = 0 }), 0},
		{"transport mode between families", none, edited(func(u *tmpl) { u.mode, u.family = 0, afInet6 }), syscall.EINVAL},
		{"an optional tunnel, outbound", none, edited(func(u *tmpl) { u.optional = 1 }), syscall.EINVAL},
		{"a sub policy", none, with(nl.XFRMA_POLICY_TYPE, &policyTypeAttr{1}), syscall.EINVAL},
		{"a main policy", none, with(nl.XFRMA_POLICY_TYPE, &policyTypeAttr{0}), 0},
		{"a mark", none, with(nl.XFRMA_MARK, &hashInfo{1, 1}), syscall.EOPNOTSUPP},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			p := charonPolicy(dirOut)
			row.edit(p)
			r.do(t, r.client(t, 0), row.errno, r.req(msgNewPolicy, syscall.NLM_F_ACK, p, row.attr))
		})
	}
}

// policyTypeAttr is struct xfrm_userpolicy_type.
type policyTypeAttr struct{ typ uint8 }

func (p *policyTypeAttr) wire(w *wire) {
	w.u8(&p.typ)
	w.pad(5)
}

// Linux has ICMP's type in the place of the source port and the code in that of
// the destination port: such a selector matches what it says, what it is written
// as for a packet matches that, and an SA for it is found by its policy's flows.
func TestICMPSelectors(t *testing.T) {
	const whole = 0xffff
	for _, proto := range []uint8{protoICMP, protoICMPv6} {
		for _, row := range []struct {
			typ, typMask, code, codeMask uint16
			match, not                   []uint16 // type << 8 | code
		}{
			{0, 0, 0, 0, []uint16{0, 0x0800, 0xffff}, nil},
			{8, whole, 0, 0, []uint16{0x0800, 0x08ff}, []uint16{0x07ff, 0x0900, 0x0008}},
			{3, whole, 4, whole, []uint16{0x0304}, []uint16{0x0303, 0x0305, 0x0403}},
			{0, whole, 0, 0, []uint16{0, 0x00ff}, []uint16{0x0100}},
			{0, whole, 0, whole, []uint16{0}, []uint16{1, 0x0100}},
			{255, whole, 255, whole, []uint16{0xffff}, []uint16{0xfffe}},
		} {
			s := selector{family: afInet, proto: proto, sport: row.typ, sportMask: row.typMask, dport: row.code, dportMask: row.codeMask}
			f, err := s.flow()
			if err != nil {
				t.Errorf("%+v: %v", s, err)
				continue
			}
			for want, all := range map[bool][]uint16{true: row.match, false: row.not} {
				for _, v := range all {
					p := flow.Tuple{Src: host("10.0.0.1"), Dst: host("10.0.0.2"), SrcPort: v, Proto: proto}
					if f.Matches(&p) != want {
						t.Errorf("protocol %d, type %d/%#x, code %d/%#x: matches %#x: %t", proto, row.typ, row.typMask, row.code, row.codeMask, v, !want)
					}
					own := selectorOfPacket(&p)
					if own.sport != v>>8 || own.dport != v&255 || own.sportMask != whole || own.dportMask != whole {
						t.Errorf("a packet of %#x is asked for as %+v", v, own)
					}
					sa := must(own.flow())
					pol := spd.Policy{PFP: spd.PFPSrc | spd.PFPDst | spd.PFPPorts, Sel: f}
					if got, ok := pol.FlowFor(&sa); want && (!ok || got != pol.FlowOf(&p) || !sa.Matches(&p)) {
						t.Errorf("an SA for %#x is for the flow %v, %t", v, got, ok)
					}
				}
			}
			if got := selectorOf(&f); got.sport != row.typ || got.sportMask != row.typMask || got.dport != row.code || got.dportMask != row.codeMask {
				t.Errorf("%+v comes back as %+v", s, got)
			}
		}
	}
}

// Selectors come back as they went in, and those that the dialect cannot say as
// the least that has them in it.
func TestSelectors(t *testing.T) {
	for _, row := range []struct {
		name string
		in   selector
		want selector
	}{
		{"IPv4", selector{family: afInet, src: addr("10.0.0.0"), plenSrc: 8, dst: addr("0.0.0.0")}, selector{family: afInet, src: addr("10.0.0.0"), plenSrc: 8}},
		{"host bits", selector{family: afInet, src: addr("10.1.2.3"), plenSrc: 8}, selector{family: afInet, src: addr("10.0.0.0"), plenSrc: 8}},
		{"IPv6", selector{family: afInet6, src: addr("2001:db8::1"), plenSrc: 128, dst: addr("fd00::"), plenDst: 8},
			selector{family: afInet6, src: addr("2001:db8::1"), plenSrc: 128, dst: addr("fd00::"), plenDst: 8}},
		{"everything of IPv6", selector{family: afInet6}, selector{family: afInet6}},
		{"a port", selector{family: afInet, proto: 6, dport: 80, dportMask: 0xffff}, selector{family: afInet, proto: 6, dport: 80, dportMask: 0xffff}},
		{"ports", selector{family: afInet, proto: 17, sport: 1025, sportMask: 0xfc00}, selector{family: afInet, proto: 17, sport: 1024, sportMask: 0xfc00}},
		{"echo request", selector{family: afInet, proto: 1, sport: 8, sportMask: 0xffff}, selector{family: afInet, proto: 1, sport: 8, sportMask: 0xffff}},
		{"net unreachable", selector{family: afInet, proto: 1, sport: 3, sportMask: 0xffff, dport: 1, dportMask: 0xffff},
			selector{family: afInet, proto: 1, sport: 3, sportMask: 0xffff, dport: 1, dportMask: 0xffff}},
	} {
		f, err := row.in.flow()
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if got := selectorOf(&f); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
	}
	opaque := flow.Selector{Src: flow.AddrRange{Lo: host("10.0.0.1"), Hi: host("10.0.0.1")}, Dst: flow.AddrRange{Lo: host("10.0.0.2"), Hi: host("10.0.0.2")},
		SrcPort: flow.OpaquePort, DstPort: flow.OpaquePort, Proto: 17}
	if got, want := selectorOf(&opaque), (selector{family: afInet, src: addr("10.0.0.1"), plenSrc: 32, dst: addr("10.0.0.2"), plenDst: 32, proto: 17}); got != want {
		t.Errorf("OPAQUE ports: %+v, want %+v", got, want)
	}
	f := must((&selector{family: afInet}).flow())
	f.Src.Lo, f.Src.Hi = host("10.0.0.1"), host("10.0.0.6")
	f.DstPort.Lo, f.DstPort.Hi = 80, 90
	if s := selectorOf(&f); s.src != addr("10.0.0.0") || s.plenSrc != 29 || s.dport != 80 || s.dportMask != 0xfff0 {
		t.Errorf("10.0.0.1-10.0.0.6, 80-90: %+v", s)
	}
}
