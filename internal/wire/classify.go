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
func Classify(ip []byte, t *flow.Tuple) (IPInfo, counter.Reason) {
	if len(ip) == 0 {
		return IPInfo{}, counter.Runt
	}
	switch ip[0] >> 4 {
	case 4:
		return classify4(ip, t)
	case 6:
		return classify6(ip, t)
	}
	return IPInfo{}, counter.BadIPHeader
}

func classify4(h IPv4, t *flow.Tuple) (IPInfo, counter.Reason) {
	if r := h.Valid(); r != counter.None {
		return IPInfo{}, r
	}
	info := IPInfo{
		Len:       uint16(h.TotalLen()),
		HeaderLen: uint16(h.HeaderLen()),
		Proto:     h.Proto(),
		TTL:       h.TTL(),
		TOS:       h.TOS(),
		Fragment:  h.IsFragment(),
	}
	t.Src, t.Dst = h.Src(), h.Dst()
	return info, ports(h, &info, t)
}

func classify6(h IPv6, t *flow.Tuple) (IPInfo, counter.Reason) {
	if r := h.Valid(); r != counter.None {
		return IPInfo{}, r
	}
	if h.TotalLen() > 0xffff {
		return IPInfo{}, counter.BadIPHeader // IPInfo and frames end at 65535 bytes
	}
	u, r := h.Upper()
	if r != counter.None {
		return IPInfo{}, r
	}
	info := IPInfo{
		Len:       uint16(h.TotalLen()),
		HeaderLen: uint16(u.Off),
		Proto:     u.Proto,
		TTL:       h.HopLimit(),
		TOS:       h.TrafficClass(),
		V6:        true,
		Fragment:  u.Fragment,
	}
	t.Src, t.Dst = h.Src(), h.Dst()
	return info, ports(h, &info, t)
}

// ports fills in what t holds of the upper-layer header.
func ports(ip []byte, info *IPInfo, t *flow.Tuple) counter.Reason {
	t.Proto = info.Proto
	t.SrcPort, t.DstPort, t.NoPorts = 0, 0, true
	if info.Fragment {
		return counter.None
	}
	upper := ip[info.HeaderLen:info.Len]
	switch info.Proto {
	case ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoSCTP, ProtoDCCP:
		if len(upper) < portsLen {
			return counter.Runt
		}
		t.SrcPort, t.DstPort, t.NoPorts = Ports(upper).Src(), Ports(upper).Dst(), false
	case ProtoICMP, ProtoICMPv6:
		if len(upper) < 2 {
			return counter.Runt
		}
		t.SrcPort, t.NoPorts = be.Uint16(upper), false // type<<8 | code
	}
	return counter.None
}
