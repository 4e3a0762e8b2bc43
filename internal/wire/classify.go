package wire

import (
	"spigot/internal/counter"
	"spigot/internal/flow"
)

// IPInfo is what the stages behind Classify need of a packet's headers.
type IPInfo struct {
	Len       uint16 // of the packet in bytes; Ethernet's padding lies behind it
	HeaderLen uint16 // where the upper layer starts: IPv4 options and IPv6 extension headers are before it
	Proto     uint8  // the upper-layer protocol
	TTL       uint8  // time to live, or hop limit
	TOS       uint8  // DSCP and ECN: type of service, or traffic class
	V6        bool
	Fragment  bool // a part of a datagram, the first included
}

// Classify checks the IP packet at the start of ip, fills *t and describes the
// packet. On any reason but None, *t and the IPInfo are not to be used.
//
// The tuple holds the ports of TCP, UDP, UDP-Lite, SCTP and DCCP, and ICMP's
// type and code as flow.Tuple defines; other protocols have NoPorts. So has
// every fragment, the first included: a policy has to treat all the fragments
// of a datagram alike, and only the first could show its ports (RFC 4301,
// section 7). A packet that ends before its ports is a Runt.
func Classify(ip []byte, t *flow.Tuple) (info IPInfo, r counter.Reason) {
	if len(ip) > 0 && ip[0]>>4 == 6 {
		r = info.classify6(ip, t)
	} else {
		r = info.classify4(ip, t)
	}
	return info, r
}

// classify4 and classify6 fill in i field by field: the compiler keeps a struct
// of this many fields in memory, and copying it as a whole right after would
// wait for the stores.
func (i *IPInfo) classify4(h IPv4, t *flow.Tuple) counter.Reason {
	if r := h.Valid(); r != counter.None {
		return r
	}
	f := (*[IPv4Len]byte)(h)
	headerLen, total, proto := int(f[v4VersionIHL]&0xf)*4, int(be.Uint16(f[v4TotalLen:])), f[v4Proto]
	fragment := be.Uint16(f[v4Fragment:])&(flagMF|offsetMask) != 0
	i.Len, i.HeaderLen, i.Proto = uint16(total), uint16(headerLen), proto
	i.TTL, i.TOS, i.Fragment = f[v4TTL], f[v4TOS], fragment
	t.Src, t.Dst, t.Proto = flow.From4(f[v4Src:]), flow.From4(f[v4Dst:]), proto
	return setPorts(t, h[headerLen:total], fragment)
}

func (i *IPInfo) classify6(h IPv6, t *flow.Tuple) counter.Reason {
	if r := h.Valid(); r != counter.None {
		return r
	}
	total := h.TotalLen()
	if total > 0xffff {
		return counter.BadIPHeader // no frame and no IPInfo holds it
	}
	u, r := h.Upper()
	if r != counter.None {
		return r
	}
	f := (*[IPv6Len]byte)(h)
	i.Len, i.HeaderLen, i.Proto = uint16(total), uint16(u.Off), u.Proto
	i.TTL, i.TOS, i.Fragment = f[v6HopLimit], uint8(be.Uint16(f[v6VersionTC:])>>4), u.Fragment
	i.V6 = true
	t.Src, t.Dst, t.Proto = flow.From16(f[v6Src:]), flow.From16(f[v6Dst:]), u.Proto
	return setPorts(t, h[u.Off:total], u.Fragment)
}

// FirstPorts sets t's ports from the start of the upper-layer packet of t.Proto,
// which the first fragment of a datagram has: Runt where they are not in it.
func FirstPorts(t *flow.Tuple, upper []byte) counter.Reason { return setPorts(t, upper, false) }

// setPorts sets t's ports from the upper-layer packet of t.Proto.
func setPorts(t *flow.Tuple, upper []byte, fragment bool) counter.Reason {
	t.SrcPort, t.DstPort, t.NoPorts = 0, 0, true
	if fragment {
		return counter.None
	}
	switch t.Proto {
	case ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoSCTP, ProtoDCCP:
		if len(upper) < portsLen {
			return counter.Runt
		}
		t.SrcPort, t.DstPort, t.NoPorts = be.Uint16(upper), be.Uint16(upper[2:]), false
	case ProtoICMP, ProtoICMPv6:
		if len(upper) < 2 {
			return counter.Runt
		}
		t.SrcPort, t.NoPorts = be.Uint16(upper), false // type<<8 | code
	}
	return counter.None
}
