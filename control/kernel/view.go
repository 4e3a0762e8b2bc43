package kernel

import (
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/internal/fib"
	"spigot/internal/flow"
)

// resolved is the states of a neighbour whose link-layer address may be used.
// Of them STALE, DELAY and PROBE mean that the kernel wants it confirmed.
const resolved = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT

// view makes a View of what was read. It shares nothing with s that a later
// read changes.
func (s *state) view() *View {
	v := &View{Ports: slices.Clone(s.ports)}
	v.FIB.Routes = s.routes
	v.FIB.Local = slices.Clone(s.local)
	for i := range v.Ports {
		p := &v.Ports[i]
		if p.Index == 0 {
			continue
		}
		for _, a := range s.addrs {
			if a.link == p.Index && a.usable {
				p.Addrs = append(p.Addrs, a.addr)
			}
		}
		// A port without carrier keeps its routes, as the kernel's do.
		if p.Up && len(p.MAC) == 6 {
			v.FIB.Links = append(v.FIB.Links, fib.Link{Index: p.Index, Port: uint16(i), MAC: p.MAC, MTU: p.MTU})
		}
	}
	for _, a := range s.addrs {
		v.FIB.Local = append(v.FIB.Local, flow.FromNetip(a.addr))
	}
	slices.SortFunc(v.FIB.Local, flow.Addr.Compare)
	v.FIB.Local = slices.Compact(v.FIB.Local)
	for i := range s.neighbours {
		n := &s.neighbours[i]
		if s.ours(n.LinkIndex) && n.State&resolved != 0 && len(n.HardwareAddr) == 6 {
			v.FIB.Neighbours = append(v.FIB.Neighbours, fib.Neighbour{
				Addr: neighbourAddr(n), Link: n.LinkIndex, MAC: n.HardwareAddr,
			})
		}
	}
	slices.SortFunc(v.FIB.Neighbours, func(a, b fib.Neighbour) int {
		if a.Link != b.Link {
			return a.Link - b.Link
		}
		return a.Addr.Compare(b.Addr)
	})
	return v
}

// ours says whether link is one of the gateway's ports.
func (s *state) ours(link int) bool {
	return link != 0 && slices.ContainsFunc(s.ports, func(p PortState) bool { return p.Index == link })
}

func neighbourAddr(n *netlink.Neigh) flow.Addr {
	if ip := n.IP.To4(); ip != nil {
		return flow.From4(ip)
	}
	if ip := n.IP.To16(); ip != nil {
		return flow.From16(ip)
	}
	return flow.Addr{}
}
