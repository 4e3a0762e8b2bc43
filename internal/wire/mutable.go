package wire

import "spigot/internal/counter"

// Immutable copies the headers of a packet to dst as AH authenticates them (RFC
// 4302, section 3.3.3.1): head is the packet from its IP header to where AH
// starts, which Classify found valid, and what routers may change is zero in the
// copy. final says that the packet has reached its destination; one that is yet
// to travel along a source route gets the destination that it will have then.
//
// Fragment answers a header of IPv6 that a receiver takes away before it looks
// at AH; BadExtension, options that do not fill their header.
func Immutable(dst, head []byte, final bool) counter.Reason {
	copy(dst, head)
	dst = dst[:len(head)]
	if dst[0]>>4 == 6 {
		return immutable6(dst)
	}
	dst[v4TOS], dst[v4TTL] = 0, 0
	be.PutUint16(dst[v4Fragment:], 0)
	be.PutUint16(dst[v4Checksum:], 0)
	return immutable4(dst, final)
}

// The options of IPv4 that the appendix of RFC 4302 treats apart (section A1):
// those that may change on the way, or that nobody has classified, count as
// zeros.
const (
	optEnd    = 0
	optNop    = 1
	optLSRR   = 131 // loose source route
	optSSRR   = 137 // strict source route
	optMinLen = 2   // of an option with a length byte
	routeMin  = 3   // of a source route: type, length, pointer
)

// isImmutable says whether an option of IPv4 arrives as it was sent: security
// (130, 133, 134), router alert (148) and sender-directed delivery (149).
func isImmutable(kind uint8) bool {
	switch kind {
	case 130, 133, 134, 148, 149:
		return true
	}
	return false
}

// immutable4 zeroes the options that may change, and makes the destination the
// last one of a source route that the packet is yet to travel.
func immutable4(h []byte, final bool) counter.Reason {
	for at := IPv4Len; at < len(h) && h[at] != optEnd; {
		if h[at] == optNop {
			at++
			continue
		}
		if len(h)-at < optMinLen || int(h[at+1]) < optMinLen || int(h[at+1]) > len(h)-at {
			return counter.BadExtension
		}
		opt := h[at : at+int(h[at+1])]
		at += len(opt)
		if (opt[0] == optLSRR || opt[0] == optSSRR) && !final {
			if len(opt) < routeMin {
				return counter.BadExtension
			}
			// The pointer counts from 1; beyond the end the route is travelled (RFC 791, 3.1).
			if n := len(opt); n >= routeMin+4 && int(opt[2]) <= n-3 {
				copy(h[v4Dst:v4Dst+4], opt[n-4:])
			}
		}
		if !isImmutable(opt[0]) {
			clear(opt)
		}
	}
	return counter.None
}

// optChanges is the bit of an IPv6 option's type that says that its data may
// change on the way (RFC 8200, section 4.2).
const optChanges = 0x20

// immutable6 zeroes traffic class, flow label and hop limit, and the data of the
// options that may change.
func immutable6(h []byte) counter.Reason {
	be.PutUint32(h, 6<<28)
	kind := h[v6NextHeader]
	h[v6HopLimit] = 0
	for at := IPv6Len; at < len(h); {
		n := extensionLen(kind, h[at:])
		ext := h[at : at+n]
		switch kind {
		case ProtoFragment:
			return counter.Fragment
		case ProtoHopByHop, ProtoDstOpts:
			if !immutableOptions(ext[2:]) {
				return counter.BadExtension
			}
		}
		kind = ext[extNext]
		at += n
	}
	return counter.None
}

// immutableOptions zeroes the data of the options in opts that may change. It is
// false if they do not fill opts.
func immutableOptions(opts []byte) bool {
	for len(opts) > 0 {
		if opts[0] == 0 { // Pad1, which has no length
			opts = opts[1:]
			continue
		}
		if len(opts) < optMinLen || int(opts[1])+optMinLen > len(opts) {
			return false
		}
		data := opts[optMinLen : optMinLen+int(opts[1])]
		if opts[0]&optChanges != 0 {
			clear(data)
		}
		opts = opts[optMinLen+len(data):]
	}
	return true
}
