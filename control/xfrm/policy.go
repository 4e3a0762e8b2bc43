package xfrm

import (
	"errors"
	"syscall"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
	"spigot/sad"
	"spigot/spd"
)

// The values of userpolicyInfo.dir and action.
const (
	dirIn  = 0
	dirOut = 1
	dirFwd = 2

	actionAllow = 0
	actionBlock = 1
)

// shareSession, of a template, wants an SA for each session, XFRM_SHARE_SESSION:
// what Linux keeps and does not heed. The other values are those of Linux.
const shareSession = 1

// flagCPUAcquire, of a policy, wants an SA for each processor beside the one for
// all, XFRM_POLICY_CPU_ACQUIRE of Linux 6.13.
const flagCPUAcquire = 4

const maxTemplates = 6 // XFRM_MAX_DEPTH

// dirs is the SPD's name of each direction.
var dirs = [...]spd.Dir{dirIn: spd.In, dirOut: spd.Out, dirFwd: control.Fwd}

func dirOf(d spd.Dir) uint8 {
	switch d {
	case spd.In:
		return dirIn
	case spd.Out:
		return dirOut
	}
	return dirFwd
}

// policyExtra is what a policy's maker said and Spigot does not act on.
type policyExtra struct {
	info  userpolicyInfo
	tmpls []tmpl
}

// newPolicy serves NEWPOLICY, which must not find the policy there, and
// UPDPOLICY, which may.
func (r *request) newPolicy(k *control.Keying) error {
	var info userpolicyInfo
	if err := decode(r.body, &info); err != nil {
		return err
	}
	p, err := r.policyParams(&info)
	if err != nil {
		return err
	}
	if r.typ == msgNewPolicy {
		_, err = k.AddPolicy(r.origin(), p)
	} else {
		_, err = k.UpdatePolicy(r.origin(), p)
	}
	return err
}

// policyParams reads a policy.
func (r *request) policyParams(info *userpolicyInfo) (p control.PolicyParams, err error) {
	switch {
	case info.dir > dirFwd:
		return p, refuse(eINVAL, "policy direction %d: in is %d, out %d, forward %d", info.dir, dirIn, dirOut, dirFwd)
	case info.action > actionBlock:
		return p, refuse(eINVAL, "policy action %d: allow is %d, block %d", info.action, actionAllow, actionBlock)
	case info.share > 3:
		return p, refuse(eINVAL, "policy share %d: there are 0 to 3", info.share)
	case info.index != 0:
		return p, refuse(eOPNOTSUPP, "policy index %d: Spigot chooses it; leave it 0", info.index)
	}
	soft, hard := info.lft.lifetimes()
	if soft.UseSeconds != 0 || hard.UseSeconds != 0 {
		return p, refuse(eOPNOTSUPP, "policy lifetime since its first use: give one since it was added")
	}
	p.Dir = dirs[info.dir]
	p.Priority = info.priority
	p.Soft, p.Hard = soft.Seconds, hard.Seconds
	if p.Sel, err = info.sel.flow(); err != nil {
		return p, err
	}
	tmpls, err := r.templates(info)
	if err != nil {
		return p, err
	}
	switch {
	case info.action == actionBlock:
		p.Action = spd.Discard
	case len(tmpls) == 0:
		p.Action = spd.Bypass
	default:
		if err := protect(&p, tmpls); err != nil {
			return p, err
		}
	}
	p.PerCPU = info.flags&flagCPUAcquire != 0 && p.Dir == spd.Out && p.Action == spd.Protect && p.Bundle == nil && p.PFP == 0
	p.Opaque = &policyExtra{*info, tmpls}
	return p, nil
}

// protect reads what a policy wants of its SAs, the innermost first.
func protect(p *control.PolicyParams, tmpls []tmpl) error {
	p.Action = spd.Protect
	all := make([]spd.Template, len(tmpls))
	for i := range tmpls {
		t := &tmpls[i]
		var err error
		if all[i], err = t.template(); err != nil {
			return err
		}
		if p.Dir == spd.Out {
			all[i].SPI = t.id.spi
			if t.share == shareSession {
				p.PFP = spd.PFPAll
			}
		}
		if t.optional != tmpls[0].optional {
			return refuse(eOPNOTSUPP, "one SA of several that is optional: make all of them so, or none")
		}
	}
	if tmpls[0].optional != 0 {
		p.Level = spd.Use
	}
	p.SetTemplates(all...)
	return nil
}

// templates reads a policy's templates.
func (r *request) templates(info *userpolicyInfo) ([]tmpl, error) {
	b := r.attrs[nl.XFRMA_TMPL]
	if n := len(b) / tmplLen; n > maxTemplates {
		return nil, refuse(eINVAL, "%d templates: at most %d", n, maxTemplates)
	}
	if n := len(b) / tmplLen; n > spd.MaxBundle {
		return nil, refuse(eOPNOTSUPP, "%d templates: a packet goes through %d SAs at most", n, spd.MaxBundle)
	}
	var all []tmpl
	family := info.sel.family // of what the next SA is given
	for ; len(b) >= tmplLen; b = b[tmplLen:] {
		var t tmpl
		if err := decode(b, &t); err != nil {
			return nil, err
		}
		if t.family == afUnspec {
			t.family = family // as those who never heard of 4-in-6 leave it
		}
		if t.mode == modeTransport && t.family != family {
			return nil, refuse(eINVAL, "transport mode from family %d to family %d: the addresses stay the packet's own", family, t.family)
		}
		family = t.family
		if t.optional != 0 && t.mode == modeTunnel && info.dir == dirOut {
			return nil, refuse(eINVAL, "optional tunnel of an outbound policy: leave optional to inbound ones")
		}
		all = append(all, t)
	}
	return all, nil
}

// template reads t.
func (t *tmpl) template() (s spd.Template, err error) {
	switch t.id.proto {
	case protoESP, protoAH:
	case protoComp:
		return s, refuse(syscall.EPROTONOSUPPORT, "template of protocol %d: there are ESP (%d) and AH (%d)", t.id.proto, protoESP, protoAH)
	default:
		return s, refuse(eINVAL, "template of protocol %d: ESP is %d, AH %d", t.id.proto, protoESP, protoAH)
	}
	s = spd.Template{Proto: t.id.proto, Reqid: t.reqid}
	if s.Mode, err = modeOf(t.mode); err != nil {
		return s, err
	}
	if s.Src, err = t.src.host(t.family); err != nil {
		return s, err
	}
	s.Dst, err = t.id.dst.host(t.family)
	return s, err
}

// modeOf reads a mode.
func modeOf(mode uint8) (spd.Mode, error) {
	switch {
	case mode == modeTransport:
		return spd.Transport, nil
	case mode == modeTunnel:
		return spd.Tunnel, nil
	case mode < 5:
		return 0, refuse(eOPNOTSUPP, "mode %d: there are transport (%d) and tunnel (%d)", mode, modeTransport, modeTunnel)
	}
	return 0, refuse(eINVAL, "mode %d: transport is %d, tunnel %d", mode, modeTransport, modeTunnel)
}

// namedPolicy serves GETPOLICY and DELPOLICY.
func (r *request) namedPolicy(k *control.Keying) error {
	var want userpolicyID
	if err := decode(r.body, &want); err != nil {
		return err
	}
	if want.dir > dirFwd {
		return refuse(eINVAL, "policy direction %d: in is %d, out %d, forward %d", want.dir, dirIn, dirOut, dirFwd)
	}
	p, err := lookPolicy(k, &want)
	switch {
	case errors.Is(err, control.ErrNotFound):
		return refuse(syscall.ENOENT, "%v", err)
	case err != nil:
		return err
	case r.typ == msgGetPolicy:
		r.reply(putPolicy(nil, r.answer(msgNewPolicy), &p))
		return nil
	}
	_, err = k.DeletePolicyID(r.origin(), p.ID)
	return err
}

// lookPolicy finds a policy by its index, or, if that is 0, by its selector.
func lookPolicy(k *control.Keying, want *userpolicyID) (control.Policy, error) {
	if want.index != 0 {
		p, err := k.PolicyID(want.index >> 3)
		if err == nil && indexOf(&p) != want.index {
			err = control.ErrNotFound
		}
		return p, err
	}
	sel, err := want.sel.flow()
	if err != nil {
		return control.Policy{}, err
	}
	return k.Policy(control.PolicyName{Dir: dirs[want.dir], Sel: sel})
}

// indexOf returns the kernel's kind of number: the direction in the low bits.
func indexOf(p *control.Policy) uint32 { return p.ID<<3 | uint32(dirOf(p.Dir)) }

// policyInfoOf writes p.
func policyInfoOf(p *control.Policy) (info userpolicyInfo, tmpls []tmpl) {
	extra, mine := p.Opaque.(*policyExtra)
	if mine {
		info, tmpls = extra.info, extra.tmpls
	} else {
		info.sel = selectorOf(&p.Sel)
		info.lft = lifetimesOf(sad.Lifetime{Seconds: p.Soft}, sad.Lifetime{Seconds: p.Hard})
	}
	info.priority = p.Priority
	info.index = indexOf(p)
	info.dir = dirOf(p.Dir)
	info.share = 0
	info.cur = lifetimeCur{added: since1970(p.Created), used: since1970(p.Used)}
	if info.action = actionAllow; p.Action == spd.Discard {
		info.action = actionBlock
	}
	if !mine && p.Action == spd.Protect {
		for _, t := range p.Templates() {
			tmpls = append(tmpls, templateOf(p, &t))
		}
	}
	return info, tmpls
}

// templateOf writes t, a template of p, which no client of this dialect made.
func templateOf(p *control.Policy, t *spd.Template) tmpl {
	out := tmpl{
		id: id{dst: addressOf(t.Dst), proto: t.Proto}, src: addressOf(t.Src), family: familyOf(t.Dst), reqid: t.Reqid,
		aalgos: ^uint32(0), ealgos: ^uint32(0), calgos: ^uint32(0),
	}
	if t.Dst.IsZero() {
		if out.family = familyOf(t.Src); t.Src.IsZero() {
			out.family = familyOf(p.Sel.Src.Lo)
		}
	}
	if t.Mode == spd.Tunnel {
		out.mode = modeTunnel
	}
	if p.Level == spd.Use || p.Level == spd.Acquire {
		out.optional = 1
	}
	if p.PFP == spd.PFPAll {
		out.share = shareSession
	}
	return out
}

// putPolicy appends p as the message of h.
func putPolicy(b []byte, h header, p *control.Policy) []byte {
	info, tmpls := policyInfoOf(p)
	return newMessage(b, h, &info).templates(tmpls).end()
}

// templates appends templates, if there are any.
func (m *message) templates(all []tmpl) *message {
	if len(all) > 0 {
		m.attr(nl.XFRMA_TMPL, (*tmplList)(&all))
	}
	return m
}

// tmplList is the templates of a policy.
type tmplList []tmpl

func (l *tmplList) wire(w *wire) {
	for i := range *l {
		(*l)[i].wire(w)
	}
}
