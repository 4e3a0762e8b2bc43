package pfkey

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// native is the byte order of the host, in which all of a message is but for
// SPIs, ports and addresses.
var native = binary.NativeEndian

// decoder reads from the front of b. Its first error stays: from then on it
// reads zeroes, so that its user asks once, at the end.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = errorf(errInvalid, format, args...)
	}
	d.b = nil
}

// take returns the next n bytes; zeroes if there are too few.
func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail("%d bytes where %d are wanted", len(d.b), n)
		return make([]byte, n)
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) u8() uint8      { return d.take(1)[0] }
func (d *decoder) u16() uint16    { return native.Uint16(d.take(2)) }
func (d *decoder) u32() uint32    { return native.Uint32(d.take(4)) }
func (d *decoder) u64() uint64    { return native.Uint64(d.take(8)) }
func (d *decoder) net16() uint16  { return binary.BigEndian.Uint16(d.take(2)) }
func (d *decoder) net32() uint32  { return binary.BigEndian.Uint32(d.take(4)) }
func (d *decoder) skip(bytes int) { d.take(bytes) }

// Decode reads the message in b, which is no longer used when it returns. With
// an error, which is an *Error, the message has what was read before it: the
// header at least, if b is as long as one.
//
// What it accepts is well formed; whether a client may send it is the server's
// to judge. As in Linux, extensions of unknown types are passed over, and two
// of one type are an error.
func Decode(b []byte) (*Message, error) {
	m := &Message{}
	if err := m.decodeHeader(b); err != nil {
		return m, err
	}
	d := &decoder{b: b[headerLen:]}
	var seen Set
	for len(d.b) > 0 && d.err == nil {
		m.decodeExtension(d, &seen)
	}
	if d.err != nil {
		m.Wipe()
	}
	return m, d.err
}

// decodeHeader reads the header and judges it in the kernel's order.
func (m *Message) decodeHeader(b []byte) error {
	if len(b) < headerLen {
		return errorf(unix.EMSGSIZE, "message of %d bytes: the header has %d", len(b), headerLen)
	}
	d := decoder{b: b}
	version := d.u8()
	m.Type, m.Errno, m.SAType = Type(d.u8()), unix.Errno(d.u8()), SAType(d.u8())
	words, reserved := d.u16(), d.u16()
	m.Seq, m.PID = d.u32(), d.u32()
	m.More = reserved == more
	switch {
	case version != Version:
		return errorf(errInvalid, "message of version %d: only %d is spoken here", version, Version)
	case reserved != 0 && !m.More && !m.Type.reuses():
		return errorf(errInvalid, "message with %d where 0 is reserved", reserved)
	case m.Type == Reserved || m.Type > maxType:
		return errorf(errInvalid, "message of %v: there is none", m.Type)
	case int(words)*word != len(b):
		return errorf(unix.EMSGSIZE, "message of %d bytes that claims %d words of %d", len(b), words, word)
	}
	return nil
}

// reuses says whether Linux puts a number into the reserved field of its own
// messages of this type.
func (t Type) reuses() bool { return t >= SPDUpdate && t <= SPDDelete2 }

// decodeExtension reads one extension. What follows its fixed and variable
// part up to its length is padding.
func (m *Message) decodeExtension(d *decoder, seen *Set) {
	if len(d.b) < 4 {
		d.fail("%d bytes after the last extension", len(d.b))
		return
	}
	n, ext := int(native.Uint16(d.b))*word, Ext(native.Uint16(d.b[2:]))
	switch {
	case n == 0 || n > len(d.b):
		d.fail("extension %d with a length of %d of the %d bytes left", ext, n, len(d.b))
		return
	case ext == 0:
		d.fail("extension 0")
		return
	}
	body := decoder{b: d.take(n)}
	if ext > maxExt {
		return
	}
	switch {
	case n < minLen[ext]:
		d.fail("extension %d of %d bytes: it has at least %d", ext, n, minLen[ext])
		return
	case seen.Has(ext):
		d.fail("two extensions %d", ext)
		return
	}
	*seen |= SetOf(ext)
	if opaque.Has(ext) {
		return
	}
	body.skip(4)
	m.decodeBody(ext, &body)
	if body.err != nil {
		d.fail("extension %d: %s", ext, body.err.(*Error).Text)
		return
	}
	m.Has |= SetOf(ext)
}

// decodeBody reads what follows length and type.
func (m *Message) decodeBody(ext Ext, d *decoder) {
	switch ext {
	case ExtSA:
		m.SA = SA{SPI: d.net32(), Replay: d.u8(), State: d.u8(), Auth: d.u8(), Enc: d.u8(), Flags: d.u32()}
	case ExtCurrent:
		m.Current = d.lifetime()
	case ExtHard:
		m.Hard = d.lifetime()
	case ExtSoft:
		m.Soft = d.lifetime()
	case ExtSrc:
		m.Src = d.address()
	case ExtDst:
		m.Dst = d.address()
	case ExtProxy:
		m.Proxy = d.address()
	case ExtNATOA:
		m.NATOA = d.address()
	case ExtAuthKey:
		m.AuthKey = d.key()
	case ExtEncKey:
		m.EncKey = d.key()
	case ExtSrcIdentity:
		m.SrcID = d.identity()
	case ExtDstIdentity:
		m.DstID = d.identity()
	case ExtProposal:
		m.Proposal = d.proposal()
	case ExtSupportedAuth:
		m.AuthAlgs = d.algorithms()
	case ExtSupportedEnc:
		m.EncAlgs = d.algorithms()
	case ExtSPIRange:
		m.SPIRange = SPIRange{d.u32(), d.u32()}
	case ExtPolicy:
		m.Policy = d.policy()
	case ExtSA2:
		m.SA2.Mode = d.u8()
		d.skip(3)
		m.SA2.Seq, m.SA2.Reqid = d.u32(), d.u32()
	case ExtNATType:
		m.NATType = d.u8()
	case ExtNATSrcPort:
		m.NATSport = d.net16()
	case ExtNATDstPort:
		m.NATDport = d.net16()
	case ExtFilter:
		if m.Type == Dump {
			m.Filter = d.filter()
		} else {
			m.Window = d.u32()
		}
	}
}

func (d *decoder) lifetime() Lifetime {
	return Lifetime{Allocations: d.u32(), Bytes: d.u64(), AddTime: d.u64(), UseTime: d.u64()}
}

// address reads an address, whose length and prefix its family must bear out.
func (d *decoder) address() Address {
	size := len(d.b)
	a := Address{Proto: d.u8(), Prefix: d.u8()}
	d.skip(2)
	a.Addr, a.Port = d.sockaddr()
	if d.err != nil {
		return Address{}
	}
	body := 4 + sockaddrLen(a.Addr)
	if want := roundUp(4+body) - 4; size != want {
		d.fail("address %v in %d bytes", a.Addr, size)
	} else if int(a.Prefix) > a.Addr.BitLen() {
		d.fail("address %v with a prefix of %d bits", a.Addr, a.Prefix)
	}
	return a
}

// sockaddr reads a sockaddr_in or sockaddr_in6.
func (d *decoder) sockaddr() (netip.Addr, uint16) {
	family := d.u16()
	port := d.net16()
	switch {
	case d.err != nil:
	case family == unix.AF_INET:
		a := netip.AddrFrom4([4]byte(d.take(4)))
		d.skip(8)
		return a, port
	case family == unix.AF_INET6:
		d.skip(4) // flow information
		a := netip.AddrFrom16([16]byte(d.take(16)))
		d.skip(4) // scope
		if a.Is4In6() {
			d.fail("address %v: say IPv4 as AF_INET", a)
		}
		return a, port
	default:
		d.fail("address of family %d: only AF_INET and AF_INET6 are known", family)
	}
	return netip.Addr{}, 0
}

// key reads a key, whose bits its length must bear out.
func (d *decoder) key() Key {
	size := len(d.b)
	bits := int(d.u16())
	d.skip(2)
	if bits == 0 || bits%8 != 0 || size != 4+roundUp(bits/8) {
		d.fail("key of %d bits in %d bytes", bits, size)
		return nil
	}
	k := make(Key, bits/8)
	copy(k, d.take(len(k)))
	return k
}

func (d *decoder) identity() Identity {
	id := Identity{Kind: d.u16()}
	d.skip(2)
	id.ID = d.u64()
	id.Name, _, _ = strings.Cut(string(d.b), "\x00")
	return id
}

func (d *decoder) proposal() Proposal {
	p := Proposal{Replay: d.u8()}
	d.skip(3)
	for len(d.b) > 0 && d.err == nil {
		c := Comb{Auth: d.u8(), Enc: d.u8(), Flags: d.u16(),
			AuthMin: d.u16(), AuthMax: d.u16(), EncMin: d.u16(), EncMax: d.u16()}
		d.skip(4)
		c.SoftAllocs, c.HardAllocs = d.u32(), d.u32()
		c.SoftBytes, c.HardBytes = d.u64(), d.u64()
		c.SoftAddTime, c.HardAddTime = d.u64(), d.u64()
		c.SoftUseTime, c.HardUseTime = d.u64(), d.u64()
		p.Combs = append(p.Combs, c)
	}
	return p
}

func (d *decoder) algorithms() []Algorithm {
	d.skip(4)
	var all []Algorithm
	for len(d.b) > 0 && d.err == nil {
		all = append(all, Algorithm{ID: d.u8(), IVLen: d.u8(), MinBits: d.u16(), MaxBits: d.u16()})
		d.skip(2)
	}
	return all
}

// The length of a request without addresses, and how many a policy may have:
// more would be a tower of tunnels.
const (
	requestLen  = 16
	maxRequests = 6
)

func (d *decoder) policy() Policy {
	p := Policy{Kind: d.u16(), Dir: d.u8(), PFP: d.u8()}
	p.ID, p.Priority = d.u32(), d.u32()
	for len(d.b) > 0 && d.err == nil {
		if len(p.Requests) == maxRequests {
			d.fail("policy with more than %d requests", maxRequests)
			break
		}
		p.Requests = append(p.Requests, d.request())
	}
	return p
}

// request reads one request, whose length, in bytes, says whether it has
// addresses.
func (d *decoder) request() Request {
	size := int(native.Uint16(d.take(2)))
	if d.err != nil || size < requestLen || size-2 > len(d.b) {
		d.fail("request of %d bytes in a policy with %d left", size, len(d.b)+2)
		return Request{}
	}
	body := decoder{b: d.take(size - 2)}
	r := Request{Proto: body.u16(), Mode: body.u8(), Level: body.u8()}
	body.skip(2)
	r.Reqid = body.u32()
	body.skip(4)
	if len(body.b) > 0 {
		r.Src, _ = body.sockaddr()
		r.Dst, _ = body.sockaddr()
		if body.err == nil && (r.Src.Is4() != r.Dst.Is4() || len(body.b) >= word) {
			body.fail("request from %v to %v in %d bytes", r.Src, r.Dst, size)
		}
	}
	if body.err != nil {
		d.fail("%s", body.err.(*Error).Text)
	}
	return r
}

// filter reads Linux's filter: prefixes in arrays long enough for IPv6.
func (d *decoder) filter() Filter {
	src, dst := d.take(16), d.take(16)
	f := Filter{Family: d.u16()}
	srcBits, dstBits := int(d.u8()), int(d.u8())
	size := 0
	switch f.Family {
	case unix.AF_UNSPEC:
		return f
	case unix.AF_INET:
		size = 4
	case unix.AF_INET6:
		size = 16
	}
	if size == 0 || srcBits > 8*size || dstBits > 8*size {
		d.fail("filter of family %d with prefixes of %d and %d bits", f.Family, srcBits, dstBits)
		return Filter{}
	}
	s, _ := netip.AddrFromSlice(src[:size])
	t, _ := netip.AddrFromSlice(dst[:size])
	f.Src, f.Dst = netip.PrefixFrom(s, srcBits), netip.PrefixFrom(t, dstBits)
	return f
}

// sockaddrLen returns the length of a's sockaddr.
func sockaddrLen(a netip.Addr) int {
	if a.Is4() {
		return unix.SizeofSockaddrInet4
	}
	return unix.SizeofSockaddrInet6
}

// roundUp returns the next multiple of a word from n.
func roundUp(n int) int { return (n + word - 1) &^ (word - 1) }
