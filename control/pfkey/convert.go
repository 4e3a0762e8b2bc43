package pfkey

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/internal/flow"
	"spigot/sad"
)

// extra is what the maker of an SA said, to be said again.
type extra struct {
	flags  uint32 // of SA, without SAESN
	replay uint8  // as asked for
}

// saID returns the name of the SA that m is about.
func (m *Message) saID() control.SAID {
	return control.SAID{SPI: m.SA.SPI, Dst: flow.FromNetip(m.Dst.Addr), Proto: m.SAType.Proto()}
}

// saParams reads the SA of an ADD or UPDATE. It shares the keys' memory with m.
func (m *Message) saParams() (p control.SAParams, err error) {
	if p.Proto, err = m.proto(); err != nil {
		return p, err
	}
	p.SPI, p.Src, p.Dst = m.SA.SPI, flow.FromNetip(m.Src.Addr), flow.FromNetip(m.Dst.Addr)
	if m.Src.Addr.IsUnspecified() {
		p.Src = flow.Addr{}
	}
	if p.Tunnel, err = m.tunnel(); err != nil {
		return p, err
	}
	p.Reqid = m.SA2.Reqid
	p.ESN = m.SA.Flags&SAESN != 0
	p.Window = int(m.SA.Replay)
	if m.Has.Has(ExtSAReplay) {
		if m.Window > sad.MaxWindow {
			return p, errorf(errInvalid, "replay window of %d packets: %d is the most", m.Window, sad.MaxWindow)
		}
		p.Window = int(m.Window)
	}
	outerFlags(&p.Outer, m.SA.Flags)
	p.Soft, p.Hard = m.Soft.bound(), m.Hard.bound()
	if m.Has.Has(ExtNATType) && m.NATType != 0 {
		p.Encap = sad.Encap{Type: m.NATType, SrcPort: m.NATSport, DstPort: m.NATDport}
		if m.Has.Has(ExtNATOA) {
			p.Encap.Original = flow.FromNetip(m.NATOA.Addr)
		}
	}
	if m.Has.Has(ExtProxy) {
		p.Sel = m.Proxy.source()
	}
	p.Opaque = &extra{m.SA.Flags &^ SAESN, m.SA.Replay}
	p.Name = "pf_key"
	return p, m.algorithms(&p.Params)
}

// outerFlags reads what flags say of the outer header.
func outerFlags(o *sad.Outer, flags uint32) {
	if flags&SANoPMTUDisc != 0 {
		o.DF = sad.DFClear
	}
	o.DecapDSCP = flags&SADecapDSCP != 0
	o.NoECN = flags&SANoECN != 0
}

// proto returns the protocol of the SAs that m is about.
func (m *Message) proto() (uint8, error) {
	switch m.SAType {
	case ESP, AH:
		return m.SAType.Proto(), nil
	case IPComp:
		return 0, errorf(unix.EPROTONOSUPPORT, "IP compression is not there")
	}
	return 0, errorf(errInvalid, "SA type %d", m.SAType)
}

// tunnel reads the mode of an SA, transport where none is said.
func (m *Message) tunnel() (bool, error) {
	switch m.SA2.Mode {
	case ModeAny, ModeTransport:
		return false, nil
	case ModeTunnel:
		return true, nil
	}
	return false, errorf(errInvalid, "mode %d of an SA", m.SA2.Mode)
}

// source returns the selector of what comes from a.
func (a *Address) source() *flow.Selector {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if a.Addr.Is6() {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return &flow.Selector{
		Src: flow.RangeOf(netip.PrefixFrom(a.Addr, int(a.Prefix))), Dst: flow.RangeOf(all),
		SrcPort: flow.AnyPort, DstPort: flow.AnyPort,
	}
}

// bound returns l as the bound of an SA.
func (l *Lifetime) bound() sad.Lifetime {
	return sad.Lifetime{Packets: uint64(l.Allocations), Bytes: l.Bytes, Seconds: l.AddTime, UseSeconds: l.UseTime}
}

// lifetimeOf returns b as an extension; a number of packets that it cannot hold
// becomes the most that it can.
func lifetimeOf(b sad.Lifetime) Lifetime {
	return Lifetime{uint32(min(b.Packets, 1<<32-1)), b.Bytes, b.Seconds, b.UseSeconds}
}

// saExts is what every message about an SA has.
const saExts = 1<<ExtSA | 1<<ExtCurrent | addresses | 1<<ExtSA2

// describe writes sa into m with the extensions that exts names beyond saExts.
// Keys go in if sa has them.
func (m *Message) describe(sa *control.SA, exts Set) {
	m.SAType = SATypeOf(sa.Proto)
	m.Has |= saExts | exts
	m.SA = SA{SPI: sa.SPI, Replay: uint8(min(sa.Window, 255)), State: stateOf(sa.State)}
	m.SA.Enc = numberOf(encAlgorithms, sa.Encryption)
	m.SA.Auth = numberOf(authAlgorithms, sa.Integrity)
	if x, ok := sa.Opaque.(*extra); ok {
		m.SA.Flags, m.SA.Replay = x.flags, x.replay
	}
	if sa.ESN {
		m.SA.Flags |= SAESN
	}
	m.SA2 = SA2{Mode: ModeTransport, Reqid: sa.Reqid}
	if sa.Tunnel {
		m.SA2.Mode = ModeTunnel
	}
	m.Src, m.Dst = hostOf(sa.Src, sa.Dst), hostOf(sa.Dst, sa.Dst)
	m.Hard, m.Soft = lifetimeOf(sa.Hard), lifetimeOf(sa.Soft)
	m.Current = Lifetime{
		Allocations: uint32(min(sa.Packets, 1<<32-1)), Bytes: sa.Bytes,
		AddTime: unixTime(sa.Created), UseTime: unixTime(sa.FirstUse),
	}
	if sa.State == control.Larval {
		m.Hard.AddTime = larvalLife
		return
	}
	m.Has |= SetOf(ExtProxy)
	m.Proxy = Address{Addr: unspecified(sa.Dst), Proto: anyProto}
	if sa.Sel != nil {
		m.Proxy = addressOf(sa.Sel.Src, 0, anyProto)
	}
	if sa.Encap.Type != 0 {
		m.Has |= SetOf(ExtNATType, ExtNATSrcPort, ExtNATDstPort)
		m.NATType, m.NATSport, m.NATDport = sa.Encap.Type, sa.Encap.SrcPort, sa.Encap.DstPort
	}
	if len(sa.AuthKey) > 0 {
		m.Has |= SetOf(ExtAuthKey)
		m.AuthKey = sa.AuthKey
	}
	if len(sa.EncKey) > 0 {
		m.Has |= SetOf(ExtEncKey)
		m.EncKey = sa.EncKey
	}
}

// larvalLife is how many seconds an SPI without keys is kept.
const larvalLife = 60

func stateOf(s control.SAState) uint8 {
	switch s {
	case control.Larval:
		return StateLarval
	case control.Dying:
		return StateDying
	}
	return StateMature
}

// hostOf returns a as the address of one host; the zero Addr as none of like's
// family.
func hostOf(a, like flow.Addr) Address {
	host := unspecified(like)
	if !a.IsZero() {
		host = a.Netip()
	}
	return Address{Addr: host, Prefix: uint8(host.BitLen())}
}

// unspecified returns 0.0.0.0 or ::, of like's family.
func unspecified(like flow.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// addressOf returns the smallest prefix that has r in it: r itself, unless
// somebody made it without PF_KEY.
func addressOf(r flow.AddrRange, port uint16, proto uint8) Address {
	lo := r.Lo.Netip()
	for bits := lo.BitLen(); ; bits-- {
		p := netip.PrefixFrom(lo, bits).Masked()
		if flow.RangeOf(p).Contains(r.Hi) || bits == 0 {
			return Address{Addr: p.Addr(), Prefix: uint8(bits), Port: port, Proto: proto}
		}
	}
}

// unixTime returns t in seconds since 1970, 0 for the zero Time.
func unixTime(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.Unix(), 0))
}

// has says whether sa lies in f.
func (f *Filter) has(sa *control.SA) bool {
	if f.Family == unix.AF_UNSPEC {
		return true
	}
	src := sa.Src
	if src.IsZero() {
		src = flow.FromNetip(unspecified(sa.Dst))
	}
	return flow.RangeOf(f.Src).Contains(src) && flow.RangeOf(f.Dst).Contains(sa.Dst)
}
