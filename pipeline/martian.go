package pipeline

import "spigot/internal/flow"

// isPlain says of most sources, and at once, that they are no martians.
func isPlain(src *flow.Addr) bool {
	if src.Hi == 0 {
		a := uint32(src.Lo)
		return a-1<<24 < 126<<24 || a-170<<24 < 54<<24 // net 1 to 126, or 170 to 223
	}
	return src.Hi>>57 != 0xfe>>1
}

// isMartian says whether no router forwards what is from src: the unspecified
// address and "this network", loopback, multicast, broadcast (RFC 1812, section
// 5.3.7), and what is of one link only (RFC 3927, section 2.7; RFC 4291, section
// 2.5.6). A policy that covers it does not change that.
func isMartian(src *flow.Addr) bool {
	if !src.Is4() {
		return src.Hi>>56 == 0xff || src.Hi>>54 == 0xfe80>>6 || src.Hi == 0 && src.Lo <= 1
	}
	a := uint32(src.Lo)
	switch net := a >> 24; {
	case net == 0, net == 127, net >= 224 && net < 240, a == 1<<32-1:
		return true
	}
	return a>>16 == 169<<8|254
}
