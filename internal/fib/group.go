package fib

import "spigot/internal/flow"

// GroupMAC returns the Ethernet address of a group: 01:00:5e and the last 23 bits
// of an IPv4 one (RFC 1112, section 6.4), 33:33 and the last 32 of an IPv6 one
// (RFC 2464, section 7). Nobody is asked for it.
func GroupMAC(group *flow.Addr) [6]byte {
	a := uint32(group.Lo)
	if group.Is4() {
		return [6]byte{1, 0, 0x5e, byte(a>>16) & 0x7f, byte(a >> 8), byte(a)}
	}
	return [6]byte{0x33, 0x33, byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}
}
