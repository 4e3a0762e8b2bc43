package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/internal/fib"
	"spigot/internal/flow"
)

// tables is a set of the kernel's tables.
type tables uint32

// The tables that the mirror reads.
const (
	links tables = 1 << iota
	addrs
	routes
	neighbours
	everything = links | addrs | routes | neighbours
)

// touched returns the tables to read again after a message of type typ. A link
// or an address that comes or goes takes routes with it silently.
func touched(typ uint16) tables {
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return links | addrs | routes | neighbours
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return addrs | routes
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return routes
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return neighbours
	}
	return 0
}

// state is what was last read of each table, in the mirror's terms.
type state struct {
	ports      []PortState // without Addrs
	addrs      []address
	routes     []fib.Route
	local      []flow.Addr // host routes of the local table
	neighbours []netlink.Neigh
}

type address struct {
	link   int
	addr   netip.Addr
	usable bool // as a source
}

// read reads the tables in set again. After an error s may hold some of them
// new and some old; the caller reads the same set again.
func (s *state) read(h *netlink.Handle, names []string, set tables) error {
	for _, t := range []struct {
		table tables
		name  string
		read  func(*netlink.Handle) error
	}{
		{links, "links", func(h *netlink.Handle) error { return s.readLinks(h, names) }},
		{addrs, "addresses", s.readAddrs},
		{routes, "routes", s.readRoutes},
		{neighbours, "neighbours", s.readNeighbours},
	} {
		if set&t.table == 0 {
			continue
		}
		if err := t.read(h); err != nil {
			return fmt.Errorf("kernel: read %s: %w", t.name, err)
		}
	}
	return nil
}

func (s *state) readLinks(h *netlink.Handle, names []string) error {
	ports := make([]PortState, len(names))
	for i, name := range names {
		ports[i].Name = name
		l, err := h.LinkByName(name)
		if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
			continue // it may come back, with another index
		}
		if err != nil {
			return err
		}
		a := l.Attrs()
		ports[i] = PortState{
			Name:    name,
			Index:   a.Index,
			Up:      a.RawFlags&unix.IFF_UP != 0,
			Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
			MAC:     slices.Clone(a.HardwareAddr),
			MTU:     a.MTU,
		}
	}
	s.ports = ports
	return nil
}

func (s *state) readAddrs(h *netlink.Handle) error {
	list, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	s.addrs = s.addrs[:0]
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		s.addrs = append(s.addrs, address{
			link:   a.LinkIndex,
			addr:   ip.Unmap(),
			usable: a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0,
		})
	}
	return nil
}

func (s *state) readRoutes(h *netlink.Handle) error {
	var routes []fib.Route
	var local []flow.Addr
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		err := h.RouteListFilteredIter(family, all, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			routes, local = appendRoute(routes, local, &r)
			return true
		})
		if err != nil {
			return err
		}
	}
	s.routes, s.local = routes, local
	return nil
}

func (s *state) readNeighbours(h *netlink.Handle) error {
	s.neighbours = s.neighbours[:0]
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := h.NeighList(0, family)
		if err != nil {
			return err
		}
		s.neighbours = append(s.neighbours, list...)
	}
	return nil
}

// appendRoute appends r, translated, to routes, or to local if it says that an
// address is the host's. Only the tables main and local count: the gateway does
// no policy routing.
func appendRoute(routes []fib.Route, local []flow.Addr, r *netlink.Route) ([]fib.Route, []flow.Addr) {
	if r.Table != unix.RT_TABLE_MAIN && r.Table != unix.RT_TABLE_LOCAL {
		return routes, local
	}
	dst, ok := prefixOf(r.Dst, r.Family)
	if !ok {
		return routes, local
	}
	out := fib.Route{Dst: flow.RangeOf(dst), MTU: r.MTU, Metric: r.Priority}
	switch r.Type {
	case unix.RTN_LOCAL, unix.RTN_ANYCAST:
		if dst.IsSingleIP() {
			return routes, append(local, out.Dst.Lo)
		}
		out.Reject = true // a whole prefix that is the host's, such as 127.0.0.0/8
	case unix.RTN_BROADCAST, unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT:
		out.Reject = true
	case unix.RTN_UNICAST, unix.RTN_MULTICAST:
		if r.Table == unix.RT_TABLE_LOCAL && dst == allGroups6 {
			return routes, local // every link has one, of the kernel's making
		}
		out.Reject = dst.Addr().IsLinkLocalUnicast() // not forwarded (RFC 4291, 2.5.6)
	default: // throw: look in the next table, which is ours to ignore
		return routes, local
	}
	if !out.Reject && !nextHop(&out, r) {
		return routes, local
	}
	return append(routes, out), local
}

// allGroups6 is what each link's route in the table local is for.
var allGroups6 = netip.MustParsePrefix("ff00::/8")

// nextHop fills in where r leads and says whether it leads anywhere. Of several
// next hops the first that works is taken: the gateway does not balance.
func nextHop(out *fib.Route, r *netlink.Route) bool {
	if len(r.MultiPath) == 0 {
		out.Link, out.Gateway = r.LinkIndex, gateway(r.Gw, r.Via)
		return r.LinkIndex != 0 && r.Flags&unix.RTNH_F_DEAD == 0
	}
	for _, h := range r.MultiPath {
		if h.Flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) == 0 && h.LinkIndex != 0 {
			out.Link, out.Gateway = h.LinkIndex, gateway(h.Gw, h.Via)
			return true
		}
	}
	return false
}

// gateway returns the next hop's address, which via names when it is of
// another family than the route (RFC 5549).
func gateway(gw net.IP, via netlink.Destination) flow.Addr {
	if v, ok := via.(*netlink.Via); ok && v != nil {
		gw = v.Addr
	}
	a, _ := netip.AddrFromSlice(gw)
	return flow.FromNetip(a.Unmap())
}

func prefixOf(n *net.IPNet, family int) (netip.Prefix, bool) {
	switch {
	case n == nil && family == netlink.FAMILY_V4:
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	case n == nil && family == netlink.FAMILY_V6:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
	case n == nil:
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	if family == netlink.FAMILY_V4 {
		a = a.Unmap()
	}
	if a.Is4In6() {
		// No packet on a wire has an IPv4-mapped address, and to flow they are IPv4's.
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(a, bits)
	return p, ok && p.IsValid()
}
