package pfkey

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// order is the order in which Append writes extensions: Linux's.
var order = [...]Ext{
	ExtSA, ExtSrcIdentity, ExtDstIdentity, ExtHard, ExtSoft, ExtCurrent, ExtSrc, ExtDst, ExtProxy, ExtAuthKey, ExtEncKey,
	ExtSA2, ExtNATType, ExtNATSrcPort, ExtNATDstPort, ExtNATOA, ExtSPIRange, ExtSupportedAuth, ExtSupportedEnc,
	ExtPolicy, ExtProposal, ExtFilter,
}

// encoder appends to b.
type encoder struct{ b []byte }

func (e *encoder) u8(v ...uint8)  { e.b = append(e.b, v...) }
func (e *encoder) u16(v uint16)   { e.b = native.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32)   { e.b = native.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64)   { e.b = native.AppendUint64(e.b, v) }
func (e *encoder) net16(v uint16) { e.b = binary.BigEndian.AppendUint16(e.b, v) }
func (e *encoder) net32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *encoder) bytes(v []byte) { e.b = append(e.b, v...) }
func (e *encoder) zero(n int)     { e.b = append(e.b, make([]byte, n)...) }

// Append appends m to b and returns it. All padding is zero.
func (m *Message) Append(b []byte) []byte {
	e := &encoder{b: b}
	start := len(b)
	e.u8(Version, uint8(m.Type), uint8(m.Errno), uint8(m.SAType))
	e.u16(0) // the length, once it is known
	if m.More {
		e.u16(more)
	} else {
		e.u16(0)
	}
	e.u32(m.Seq)
	e.u32(m.PID)
	for _, ext := range order {
		if !m.Has.Has(ext) {
			continue
		}
		from := len(e.b)
		e.u16(0)
		e.u16(uint16(ext))
		m.encodeBody(ext, e)
		e.zero(roundUp(len(e.b)-from) - (len(e.b) - from))
		native.PutUint16(e.b[from:], uint16((len(e.b)-from)/word))
	}
	native.PutUint16(e.b[start+4:], uint16((len(e.b)-start)/word))
	return e.b
}

// encodeBody writes what follows length and type.
func (m *Message) encodeBody(ext Ext, e *encoder) {
	switch ext {
	case ExtSA:
		e.net32(m.SA.SPI)
		e.u8(m.SA.Replay, m.SA.State, m.SA.Auth, m.SA.Enc)
		e.u32(m.SA.Flags)
	case ExtCurrent:
		e.lifetime(&m.Current)
	case ExtHard:
		e.lifetime(&m.Hard)
	case ExtSoft:
		e.lifetime(&m.Soft)
	case ExtSrc:
		e.address(&m.Src)
	case ExtDst:
		e.address(&m.Dst)
	case ExtProxy:
		e.address(&m.Proxy)
	case ExtNATOA:
		e.address(&m.NATOA)
	case ExtAuthKey:
		e.key(m.AuthKey)
	case ExtEncKey:
		e.key(m.EncKey)
	case ExtSrcIdentity:
		e.identity(&m.SrcID)
	case ExtDstIdentity:
		e.identity(&m.DstID)
	case ExtProposal:
		e.proposal(&m.Proposal)
	case ExtSupportedAuth:
		e.algorithms(m.AuthAlgs)
	case ExtSupportedEnc:
		e.algorithms(m.EncAlgs)
	case ExtSPIRange:
		e.u32(m.SPIRange.Min)
		e.u32(m.SPIRange.Max)
		e.zero(4)
	case ExtPolicy:
		e.policy(&m.Policy)
	case ExtSA2:
		e.u8(m.SA2.Mode, 0, 0, 0)
		e.u32(m.SA2.Seq)
		e.u32(m.SA2.Reqid)
	case ExtNATType:
		e.u8(m.NATType, 0, 0, 0)
	case ExtNATSrcPort:
		e.net16(m.NATSport)
	case ExtNATDstPort:
		e.net16(m.NATDport)
	case ExtFilter:
		if m.Type == Dump {
			e.filter(&m.Filter)
		} else {
			e.u32(m.Window)
		}
	}
}

func (e *encoder) lifetime(l *Lifetime) {
	e.u32(l.Allocations)
	e.u64(l.Bytes)
	e.u64(l.AddTime)
	e.u64(l.UseTime)
}

func (e *encoder) address(a *Address) {
	e.u8(a.Proto, a.Prefix, 0, 0)
	e.sockaddr(a.Addr, a.Port)
}

func (e *encoder) sockaddr(a netip.Addr, port uint16) {
	if a.Is4() {
		e.u16(unix.AF_INET)
		e.net16(port)
		e.bytes(a.AsSlice())
		e.zero(8)
		return
	}
	v6 := a.As16() // zeroes if a is not valid
	e.u16(unix.AF_INET6)
	e.net16(port)
	e.zero(4)
	e.bytes(v6[:])
	e.zero(4)
}

func (e *encoder) key(k Key) {
	e.u16(uint16(8 * len(k)))
	e.zero(2)
	e.bytes(k)
}

// identity writes the name with the zero that ends it.
func (e *encoder) identity(id *Identity) {
	e.u16(id.Kind)
	e.zero(2)
	e.u64(id.ID)
	if id.Name != "" {
		e.bytes([]byte(id.Name))
		e.zero(1)
	}
}

func (e *encoder) proposal(p *Proposal) {
	e.u8(p.Replay, 0, 0, 0)
	for i := range p.Combs {
		c := &p.Combs[i]
		e.u8(c.Auth, c.Enc)
		for _, v := range [...]uint16{c.Flags, c.AuthMin, c.AuthMax, c.EncMin, c.EncMax} {
			e.u16(v)
		}
		e.zero(4)
		e.u32(c.SoftAllocs)
		e.u32(c.HardAllocs)
		for _, v := range [...]uint64{c.SoftBytes, c.HardBytes, c.SoftAddTime, c.HardAddTime, c.SoftUseTime, c.HardUseTime} {
			e.u64(v)
		}
	}
}

func (e *encoder) algorithms(all []Algorithm) {
	e.zero(4)
	for _, a := range all {
		e.u8(a.ID, a.IVLen)
		e.u16(a.MinBits)
		e.u16(a.MaxBits)
		e.zero(2)
	}
}

func (e *encoder) policy(p *Policy) {
	e.u16(p.Kind)
	e.u8(p.Dir, p.PFP)
	e.u32(p.ID)
	e.u32(p.Priority)
	for i := range p.Requests {
		r := &p.Requests[i]
		size := requestLen
		if r.Src.IsValid() {
			size += 2 * sockaddrLen(r.Src)
		}
		e.u16(uint16(size))
		e.u16(r.Proto)
		e.u8(r.Mode, r.Level, 0, 0)
		e.u32(r.Reqid)
		e.zero(4)
		if r.Src.IsValid() {
			e.sockaddr(r.Src, 0)
			e.sockaddr(r.Dst, 0)
		}
	}
}

func (e *encoder) filter(f *Filter) {
	for _, p := range [...]netip.Prefix{f.Src, f.Dst} {
		var b [16]byte
		copy(b[:], p.Addr().AsSlice())
		e.bytes(b[:])
	}
	e.u16(f.Family)
	e.u8(uint8(max(f.Src.Bits(), 0)), uint8(max(f.Dst.Bits(), 0)))
}
