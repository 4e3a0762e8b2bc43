package wire

// Quoted returns the upper-layer protocol of the packet that an ICMP error
// quotes, and what is quoted of it, from its first byte. The quote may end
// anywhere and may have been changed on the way, so nothing of it but its
// version and lengths is checked. It is not ok for a fragment but the first, and
// where the quote ends in front of the upper layer.
func Quoted(q []byte) (proto uint8, upper []byte, ok bool) {
	switch {
	case len(q) >= IPv4Len && q[0]>>4 == 4:
		h := IPv4(q)
		n := h.HeaderLen()
		if n < IPv4Len || n > len(q) || h.FragmentOffset() != 0 {
			return 0, nil, false
		}
		return h.Proto(), q[n:], true
	case len(q) >= IPv6Len && q[0]>>4 == 6:
		return quoted6(q)
	}
	return 0, nil, false
}

func quoted6(q []byte) (proto uint8, upper []byte, ok bool) {
	proto, upper = IPv6(q).NextHeader(), q[IPv6Len:]
	for range maxExtensions {
		if !isExtension(proto) {
			return proto, upper, true
		}
		if len(upper) < FragmentLen {
			break
		}
		n := (int(upper[extLen]) + 1) * 8
		if proto == ProtoFragment {
			if n = FragmentLen; FragmentHeader(upper).Offset() != 0 {
				break
			}
		}
		if n > len(upper) {
			break
		}
		proto, upper = upper[extNext], upper[n:]
	}
	return 0, nil, false
}
