package flow

// IsGroup says whether a is a multicast group: in 224.0.0.0/4 or ff00::/8.
func (a Addr) IsGroup() bool { return a.Hi>>56 == 0xff || a.Hi == 0 && a.Lo>>28 == 0xffffe }

// IsNearGroup says whether a is a group that no router forwards to: one of a
// link, in 224.0.0.0/24 (RFC 5771, section 4), or one whose scope is reserved, a
// host's interface or a link (RFC 4291, section 2.7).
func (a Addr) IsNearGroup() bool {
	return a.Hi>>56 == 0xff && a.Hi>>48&15 <= 2 || a.Hi == 0 && a.Lo>>8 == 0xffffe00000
}

// IsGroups says whether all of r is groups.
func (r AddrRange) IsGroups() bool {
	return r.Lo.IsGroup() && r.Hi.IsGroup() && r.Lo.Is4() == r.Hi.Is4()
}
