package xfrm

import (
	"errors"
	"syscall"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
	"spigot/sad"
)

// The protocols of SAs.
const (
	protoESP  = syscall.IPPROTO_ESP
	protoAH   = syscall.IPPROTO_AH
	protoComp = syscall.IPPROTO_COMP
)

// Bits of usersaInfo.flags and of XFRMA_SA_EXTRA_FLAGS.
const (
	flagAnyFamily = nl.XFRM_STATE_AF_UNSPEC
	flagESN       = nl.XFRM_STATE_ESN
	flagAlign4    = nl.XFRM_STATE_ALIGN4
	extraMayWrap  = nl.XFRM_SA_XFLAG_OSEQ_MAY_WRAP
)

// saExtra is what an SA's maker said, to be said again.
type saExtra struct {
	sel   selector
	seq   uint32
	flags uint8
	extra uint32 // XFRMA_SA_EXTRA_FLAGS
	tfc   uint32 // XFRMA_TFCPAD
	ring  bool   // the replay state came as a replayESN
}

// newSA serves NEWSA and UPDSA.
func (r *request) newSA(k *control.Keying) error {
	var info usersaInfo
	if err := decode(r.body, &info); err != nil {
		return err
	}
	p, err := r.saParams(&info)
	if err != nil {
		return err
	}
	if r.typ == msgNewSA {
		return k.AddSA(r.origin(), p)
	}
	return k.UpdateSA(r.origin(), p)
}

// saParams reads an SA. Its keys alias the request.
func (r *request) saParams(info *usersaInfo) (p control.SAParams, err error) {
	p.SPI, p.Proto, p.Reqid = info.id.spi, info.id.proto, info.reqid
	if err := checkProto(info.id.proto); err != nil {
		return p, err
	}
	if p.Dst, err = info.id.dst.addr(info.family); err != nil {
		return p, err
	}
	if p.Src, err = info.src.host(info.family); err != nil {
		return p, err
	}
	mode, err := modeOf(info.mode)
	if err != nil {
		return p, err
	}
	p.Tunnel = mode == 0
	p.Soft, p.Hard = info.lft.lifetimes()
	if err := r.attrs.algorithms(&p.Params); err != nil {
		return p, err
	}
	extra := &saExtra{sel: info.sel, seq: info.seq, flags: info.flags, extra: r.attrs.u32(nl.XFRMA_SA_EXTRA_FLAGS)}
	if extra.extra&extraMayWrap != 0 {
		return p, refuse(eOPNOTSUPP, "sequence numbers that wrap: RFC 4303, section 2.2 forbids it; leave oseq-may-wrap out")
	}
	if err := saSelector(&p, info, extra); err != nil {
		return p, err
	}
	if err := r.replayOf(&p, info, extra); err != nil {
		return p, err
	}
	if b := r.attrs[nl.XFRMA_ENCAP]; b != nil {
		if err := encapsulation(&p.Params, b, info.family); err != nil {
			return p, err
		}
	}
	if b := r.attrs[nl.XFRMA_LTIME_VAL]; b != nil {
		var cur lifetimeCur
		if err := decode(b, &cur); err != nil {
			return p, err
		}
		p.Carried = sad.Lifetime{Packets: cur.packets, Bytes: cur.bytes}
	}
	if extra.tfc = r.attrs.u32(nl.XFRMA_TFCPAD); extra.tfc != 0 && (!p.Tunnel || p.Proto != protoESP) {
		return p, refuse(eINVAL, "traffic flow confidentiality padding: it is for ESP in tunnel mode; leave it out")
	}
	if p.CPU, err = r.cpu(); err != nil {
		return p, err
	}
	p.Outer = extra.outer()
	// As in a kernel, the flag means nothing elsewhere.
	p.Align4 = p.Proto == protoAH && p.Dst.Is4() && info.flags&flagAlign4 != 0
	p.Opaque = extra
	return p, nil
}

// cpu reads which worker an SA is for, as sad.Params counts them.
func (r *request) cpu() (uint16, error) {
	if r.attrs[attrCPU] == nil {
		return 0, nil
	}
	n := r.attrs.u32(attrCPU)
	if n >= sad.MaxCPU {
		return 0, refuse(syscall.ERANGE, "an SA for processor %d: number workers from 0 to %d", n, sad.MaxCPU-1)
	}
	return uint16(n) + 1, nil
}

// outer reads what the flags say of the outer header.
func (x *saExtra) outer() (o sad.Outer) {
	if x.flags&nl.XFRM_STATE_NOPMTUDISC != 0 {
		o.DF = sad.DFClear
	}
	o.DecapDSCP = x.flags&nl.XFRM_STATE_DECAP_DSCP != 0
	o.NoECN = x.flags&nl.XFRM_STATE_NOECN != 0
	if x.extra&nl.XFRM_SA_XFLAG_DONT_ENCAP_DSCP != 0 {
		o.DSCP = sad.DSCPSet(0)
	}
	o.TFC = uint16(min(x.tfc, sad.TFCPath))
	return o
}

// checkProto refuses the protocols that there are no SAs of.
func checkProto(proto uint8) error {
	switch proto {
	case protoESP, protoAH:
		return nil
	case protoComp:
		return refuse(syscall.EPROTONOSUPPORT, "protocol %d: there are ESP (%d) and AH (%d)", proto, protoESP, protoAH)
	}
	return refuse(eINVAL, "protocol %d is none of IPsec: ESP is %d, AH %d", proto, protoESP, protoAH)
}

// saSelector reads what an SA may carry. A selector without a family is of the
// SA's own, or, where the SA says so, of any.
func saSelector(p *control.SAParams, info *usersaInfo, extra *saExtra) error {
	if extra.sel.family == afUnspec {
		if info.flags&flagAnyFamily != 0 {
			return nil
		}
		extra.sel.family = info.family
	}
	sel, err := extra.sel.flow()
	if err != nil {
		return err
	}
	p.Sel = &sel
	return nil
}

// replayOf reads window and state of the sequence numbers.
func (r *request) replayOf(p *control.SAParams, info *usersaInfo, extra *saExtra) (err error) {
	p.ESN = info.flags&flagESN != 0
	p.Window = int(min(info.window, 32)) // in the structure, 32 is the most
	plain, ring := r.attrs[nl.XFRMA_REPLAY_VAL], r.attrs[nl.XFRMA_REPLAY_ESN_VAL]
	if ring != nil && info.window != 0 {
		return refuse(eINVAL, "replay window in the structure and in an attribute: give one")
	}
	if p.ESN && ring == nil {
		return refuse(eINVAL, "extended sequence numbers without XFRMA_REPLAY_ESN_VAL: the window goes there")
	}
	if ring != nil {
		var s replayESN
		if err := decode(ring, &s); err != nil {
			return err
		}
		switch {
		case p.ESN && s.window == 0:
			return refuse(eINVAL, "extended sequence numbers without a replay window (RFC 4303, 3.3.3): give one")
		case !p.ESN && (s.oseqHi != 0 || s.seqHi != 0):
			return refuse(eINVAL, "high halves of sequence numbers without extended sequence numbers")
		}
		p.Window, extra.ring = int(s.window), true
	}
	p.Replay, err = replayAttr(plain, ring)
	return err
}

// replayAttr reads where an SA stands, from the one attribute or the other.
func replayAttr(plain, ring []byte) (sad.Replay, error) {
	switch {
	case ring != nil:
		var s replayESN
		if err := decode(ring, &s); err != nil {
			return sad.Replay{}, err
		}
		return s.replay()
	case plain != nil:
		var s replayState
		if err := decode(plain, &s); err != nil {
			return sad.Replay{}, err
		}
		return s.replay()
	}
	return sad.Replay{}, nil
}

// encapsulation reads how ESP is wrapped.
func encapsulation(p *sad.Params, b []byte, family uint16) (err error) {
	var e encap
	if err := decode(b, &e); err != nil {
		return err
	}
	if e.typ != sad.EncapUDP {
		return refuse(eOPNOTSUPP, "encapsulation of type %d: there is ESP in UDP (%d) only", e.typ, sad.EncapUDP)
	}
	p.Encap = sad.Encap{Type: sad.EncapUDP, SrcPort: e.sport, DstPort: e.dport}
	p.Encap.Original, err = e.original.host(family)
	return err
}

// named reads the name of an SA.
func (u *usersaID) named(a *attrs) (control.SAID, error) {
	switch u.proto {
	case protoESP, protoAH, protoComp:
	default: // those of mobility, which go by their source
		if a[nl.XFRMA_SRCADDR] == nil {
			return control.SAID{}, refuse(eINVAL, "protocol %d is none of IPsec: ESP is %d", u.proto, protoESP)
		}
	}
	dst, err := u.dst.addr(u.family)
	if err != nil {
		return control.SAID{}, refuse(syscall.ESRCH, "%v", err)
	}
	return control.SAID{SPI: u.spi, Dst: dst, Proto: u.proto}, nil
}

// delSA serves DELSA.
func (r *request) delSA(k *control.Keying) error {
	var u usersaID
	if err := decode(r.body, &u); err != nil {
		return err
	}
	name, err := u.named(&r.attrs)
	if err != nil {
		return err
	}
	_, err = k.DeleteSA(r.origin(), name)
	return err
}

// getSA serves GETSA: the one message, beside its dump, that keys go out in.
func (r *request) getSA(k *control.Keying) error {
	var u usersaID
	if err := decode(r.body, &u); err != nil {
		return err
	}
	name, err := u.named(&r.attrs)
	if err != nil {
		return err
	}
	sa, err := k.SA(name, true)
	if err != nil {
		return err
	}
	r.reply(putSA(nil, r.answer(msgNewSA), &sa))
	wipe(&sa)
	return nil
}

// wipe zeroes the copies of keys in sa.
func wipe(sa *control.SA) {
	clear(sa.EncKey)
	clear(sa.AuthKey)
}

// allocSPI serves ALLOCSPI.
func (r *request) allocSPI(k *control.Keying) error {
	var u userSPIInfo
	if err := decode(r.body, &u); err != nil {
		return err
	}
	if err := checkProto(u.info.id.proto); err != nil {
		return err
	}
	if u.min > u.max {
		return refuse(eINVAL, "SPIs from %d to %d: swap them", u.min, u.max)
	}
	dst, err := u.info.id.dst.addr(u.info.family)
	if err != nil {
		return err
	}
	src, err := u.info.src.host(u.info.family)
	if err != nil {
		return err
	}
	mode, err := modeOf(u.info.mode)
	if err != nil {
		return err
	}
	sa, err := k.GetSPI(r.origin(), control.GetSPIRequest{
		Proto: u.info.id.proto, Src: src, Dst: dst, Min: u.min, Max: u.max,
		Reqid: u.info.reqid, Tunnel: mode == 0, Acquire: u.info.seq,
		Opaque: &saExtra{seq: u.info.seq},
	})
	if errors.Is(err, control.ErrNotFound) {
		return refuse(syscall.ENOENT, "%v", err)
	}
	if err != nil {
		return err
	}
	r.reply(putSA(nil, r.answer(msgNewSA), &sa))
	return nil
}

// flushSA serves FLUSHSA. That there was none is no error.
func (r *request) flushSA(k *control.Keying) error {
	var proto octet
	if err := decode(r.body, &proto); err != nil {
		return err
	}
	if proto == 255 { // all, by another number
		proto = 0
	}
	k.FlushSAs(r.origin(), uint8(proto))
	return nil
}

// saInfoOf writes sa.
func saInfoOf(sa *control.SA) (info usersaInfo, extra saExtra) {
	if x, mine := sa.Opaque.(*saExtra); mine {
		extra = *x
	} else {
		if extra.flags |= flagAnyFamily; sa.Sel != nil {
			extra.sel, extra.flags = selectorOf(sa.Sel), 0
		}
	}
	if sa.ESN {
		extra.flags |= flagESN
	}
	if sa.Align4 {
		extra.flags |= flagAlign4
	}
	extra.ring = extra.ring || sa.ESN || sa.Window > 32
	info = usersaInfo{
		sel:   extra.sel,
		id:    id{dst: addressOf(sa.Dst), spi: sa.SPI, proto: sa.Proto},
		src:   addressOf(sa.Src),
		lft:   lifetimesOf(sa.Soft, sa.Hard),
		cur:   lifetimeCur{bytes: sa.Bytes, packets: sa.Packets, added: since1970(sa.Created), used: since1970(sa.FirstUse)},
		seq:   extra.seq,
		reqid: sa.Reqid, family: familyOf(sa.Dst), flags: extra.flags,
	}
	if sa.Tunnel {
		info.mode = modeTunnel
	}
	if !extra.ring {
		info.window = uint8(sa.Window)
	}
	return info, extra
}

// putSA appends sa as the message of h, with the keys that it has.
func putSA(b []byte, h header, sa *control.SA) []byte {
	info, extra := saInfoOf(sa)
	return newMessage(b, h, &info).state(sa, &extra).end()
}

// state appends what says more of an SA than the structure does.
func (m *message) state(sa *control.SA, extra *saExtra) *message {
	if v := word(extra.extra); v != 0 {
		m.attr(nl.XFRMA_SA_EXTRA_FLAGS, &v)
	}
	if v := word(extra.tfc); v != 0 {
		m.attr(nl.XFRMA_TFCPAD, &v)
	}
	m.cpu(sa.CPU)
	if v := long(since1970(sa.LastUse)); v != 0 {
		m.attr(nl.XFRMA_LASTUSED, &v)
	}
	m.algorithms(&sa.Params)
	if sa.Encap.Type != 0 {
		m.attr(nl.XFRMA_ENCAP, &encap{
			typ: uint16(sa.Encap.Type), sport: sa.Encap.SrcPort, dport: sa.Encap.DstPort, original: addressOf(sa.Encap.Original),
		})
	}
	return m.replay(sa, extra)
}

// cpu appends which worker an SA is for, unless it is for all.
func (m *message) cpu(cpu uint16) {
	if cpu != 0 {
		v := word(cpu - 1)
		m.attr(attrCPU, &v)
	}
}

// replay appends window and state of the sequence numbers. Of an SA that the
// host's addresses give no direction, both counters are the same number's.
func (m *message) replay(sa *control.SA, extra *saExtra) *message {
	var seq, oseq uint64
	if sa.Direction == control.Inbound {
		seq = sa.Replay.Seq
	} else {
		oseq = sa.Replay.Seq
	}
	if !extra.ring {
		s := &replayState{oseq: uint32(oseq), seq: uint32(seq)}
		for k := range uint64(min(sa.Window, 32)) {
			if sa.Direction == control.Inbound && seen(&sa.Replay, k) {
				s.bitmap |= 1 << k
			}
		}
		m.attr(nl.XFRMA_REPLAY_VAL, s)
		return m
	}
	window := uint32(min(sa.Window, maxBitmap*32))
	s := &replayESN{
		oseq: uint32(oseq), oseqHi: uint32(oseq >> 32), seq: uint32(seq), seqHi: uint32(seq >> 32),
		window: window, bitmap: make([]uint32, (window+31)/32),
	}
	for k := range window {
		if sa.Direction == control.Inbound && seen(&sa.Replay, uint64(k)) {
			at := ringBit(seq, k, window)
			s.bitmap[at/32] |= 1 << (at % 32)
		}
	}
	m.attr(nl.XFRMA_REPLAY_ESN_VAL, s)
	return m
}

// The bits of aeventID.flags.
const (
	aeReplayThreshold = 1
	aeReplay          = 2
	aeTimerThreshold  = 8
)

// getAE serves GETAE: where an SA stands.
func (r *request) getAE(k *control.Keying) error {
	var u aeventID
	if err := decode(r.body, &u); err != nil {
		return err
	}
	name, err := u.sa.named(&r.attrs)
	if err != nil {
		return err
	}
	sa, err := k.SA(name, false)
	if err != nil {
		return err
	}
	info, extra := saInfoOf(&sa)
	m := newMessage(nil, r.answer(msgNewAE), &aeventID{
		sa:  usersaID{dst: info.id.dst, spi: sa.SPI, family: info.family, proto: sa.Proto},
		src: info.src, flags: u.flags, reqid: sa.Reqid,
	})
	m.replay(&sa, &extra)
	m.attr(nl.XFRMA_LTIME_VAL, &info.cur)
	var none word // no event is sent for a threshold
	if u.flags&aeReplayThreshold != 0 {
		m.attr(nl.XFRMA_REPLAY_THRESH, &none)
	}
	if u.flags&aeTimerThreshold != 0 {
		m.attr(nl.XFRMA_ETIMER_THRESH, &none)
	}
	r.reply(m.end())
	return nil
}
