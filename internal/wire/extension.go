package wire

import "spigot/internal/counter"

// maxExtensions bounds the walk over IPv6 extension headers. RFC 8200, section
// 4.1 has at most seven in front of an upper-layer header.
const maxExtensions = 8

// Offsets in extension headers (RFC 8200, sections 4.3 to 4.6):
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Header  |  Hdr Ext Len  |     hop-by-hop, destination   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Header  |   Reserved    |      Fragment Offset    |Res|M|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         Identification                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const (
	extNext   = 0
	extLen    = 1 // in units of 8 bytes, the first 8 not counted
	extOffset = 2 // of the fragment header
	extID     = 4

	// FragmentLen is the length of IPv6's fragment header in bytes.
	FragmentLen = 8

	fragMore       = 1
	fragOffsetMask = 0xfff8
)

// Upper is what lies behind the extension headers of an IPv6 packet.
type Upper struct {
	Proto    uint8 // the upper-layer protocol
	Fragment bool  // a part of a datagram, the first included
	Off      int   // where it starts, in bytes from the start of the IPv6 header
	// FragHeader is where the fragment header starts, from the same origin, or
	// 0 when there is none. An atomic fragment (RFC 6946) has one although it is
	// no Fragment.
	FragHeader int
}

// isExtension says whether proto is an extension header that Upper walks over
// or refuses. AH and ESP are upper-layer protocols to a security gateway.
func isExtension(proto uint8) bool {
	switch proto {
	case ProtoHopByHop, ProtoRouting, ProtoFragment, ProtoDstOpts:
		return true
	}
	return false
}

// Upper walks over the extension headers of a valid packet. BadExtension
// answers more than eight of them, one that leaves the packet, a hop-by-hop
// header that is not the first, a second fragment header, a routing header
// (a policy on the destination would look at a way station; RFC 5095), and a
// fragment whose datagram has extension headers behind the fragment header:
// its later fragments do not tell their upper-layer protocol.
func (h IPv6) Upper() (Upper, counter.Reason) {
	u := Upper{Proto: h.NextHeader(), Off: IPv6Len}
	end := h.TotalLen()
	for i := 0; isExtension(u.Proto); i++ {
		kind := u.Proto
		if i == maxExtensions || kind == ProtoRouting || kind == ProtoHopByHop && i != 0 ||
			kind == ProtoFragment && u.FragHeader != 0 || end-u.Off < FragmentLen {
			return Upper{}, counter.BadExtension
		}
		ext := h[u.Off:end]
		u.Proto = ext[extNext]
		if kind != ProtoFragment {
			u.Off += (int(ext[extLen]) + 1) * 8
			if u.Off > end {
				return Upper{}, counter.BadExtension
			}
			continue
		}
		u.FragHeader = u.Off
		u.Off += FragmentLen
		u.Fragment = be.Uint16(ext[extOffset:])&(fragOffsetMask|fragMore) != 0
		if u.Fragment && isExtension(u.Proto) {
			return Upper{}, counter.BadExtension
		}
	}
	return u, counter.None
}

// FragmentHeader is IPv6's fragment header (RFC 8200, section 4.5); Upper says
// where it is and that it is whole.
type FragmentHeader []byte

// NextHeader returns the type of the datagram's first header behind this one.
func (h FragmentHeader) NextHeader() uint8 { return h[extNext] }

// Offset returns where the payload lies in the datagram, in bytes.
func (h FragmentHeader) Offset() int { return int(be.Uint16(h[extOffset:]) & fragOffsetMask) }

// More returns the more-fragments flag.
func (h FragmentHeader) More() bool { return h[extOffset+1]&fragMore != 0 }

// ID returns the identification that the datagram's fragments share.
func (h FragmentHeader) ID() uint32 { return be.Uint32(h[extID:]) }

// Put writes the header to the first FragmentLen bytes of h. offset is in
// bytes, a multiple of 8.
func (h FragmentHeader) Put(next uint8, offset int, more bool, id uint32) {
	v := uint16(offset) & fragOffsetMask
	if more {
		v |= fragMore
	}
	h = h[:FragmentLen]
	h[extNext], h[extLen] = next, 0
	be.PutUint16(h[extOffset:], v)
	be.PutUint32(h[extID:], id)
}
