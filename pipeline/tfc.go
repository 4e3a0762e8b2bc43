package pipeline

import "spigot/sad"

// hideLength pads p, about to be sealed under sa, with zeros to the length that
// sa wants of its packets, but not beyond what link and path take (RFC 4303,
// section 2.7). The receiver knows the packet's own length by its header.
func (p *packet) hideLength(sa *sad.Outbound) {
	n := int(p.info.Len)
	room := len(p.chunk) - p.l3 + sa.Geo.Prefix()
	to := min(int(sa.Outer.TFC), sa.Geo.MaxInner(min(p.outerMTU(), room)))
	if to > n {
		clear(p.chunk[p.l3+n : p.l3+to])
		p.info.Len = uint16(to)
	}
}
