package ipsecconf

import (
	"slices"

	"spigot/internal/flow"
	"spigot/spd"
)

// checkOpaque says what does not go together with ports that are OPAQUE.
func (r *flowRule) checkOpaque() *Error {
	h := &r.hosts
	src, dst := slices.Contains(h.sports, flow.OpaquePort), slices.Contains(h.dports, flow.OpaquePort)
	number := func(p flow.PortRange) bool { return p != flow.OpaquePort && p != flow.AnyPort }
	if src && slices.ContainsFunc(h.dports, number) || dst && slices.ContainsFunc(h.sports, number) {
		return errorAt(h.dstPortPos, "no packet shows the port of one end only: write two flows, one with numbers and one with "+
			"\"port opaque\" at both ends")
	}
	if r.pfp&spd.PFPPorts != 0 && (src || dst || r.icmp.opaque) {
		return errorAt(r.pfpPos, "\"pfp\" takes ports from packets, and \"opaque\" is for packets without: leave one of the two out")
	}
	return nil
}
