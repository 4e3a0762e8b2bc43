package kernel

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/internal/fib"
	"spigot/internal/flow"
)

func TestRoutesAsTheGatewaySeesThem(t *testing.T) {
	cidr := func(s string) *net.IPNet {
		_, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	main := func(r netlink.Route) netlink.Route {
		r.Table, r.Type, r.LinkIndex = unix.RT_TABLE_MAIN, unix.RTN_UNICAST, 3
		return r
	}
	via := net.ParseIP("10.0.0.9")
	for _, c := range []struct {
		name  string
		in    netlink.Route
		route *fib.Route
		local string
	}{
		{"connected", main(netlink.Route{Dst: cidr("10.1.0.0/16"), Family: 2}),
			&fib.Route{Dst: prefix("10.1.0.0/16"), Link: 3}, ""},
		{"default without a prefix", main(netlink.Route{Gw: via, Family: 2, Priority: 5, MTU: 1400}),
			&fib.Route{Dst: prefix("0.0.0.0/0"), Link: 3, Gateway: addr("10.0.0.9"), Metric: 5, MTU: 1400}, ""},
		{"IPv6 default without a prefix", main(netlink.Route{Family: 10}),
			&fib.Route{Dst: prefix("::/0"), Link: 3}, ""},
		{"dead", main(netlink.Route{Dst: cidr("10.1.0.0/16"), Family: 2, Flags: unix.RTNH_F_DEAD}), nil, ""},
		{"first next hop dead", main(netlink.Route{Family: 2, MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: 3, Flags: unix.RTNH_F_DEAD}, {LinkIndex: 4, Gw: via}}}),
			&fib.Route{Dst: prefix("0.0.0.0/0"), Link: 4, Gateway: addr("10.0.0.9")}, ""},
		{"all next hops dead", main(netlink.Route{Family: 2, MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: 3, Flags: unix.RTNH_F_LINKDOWN}}}), nil, ""},
		{"link-local is not forwarded", main(netlink.Route{Dst: cidr("fe80::/64"), Family: 10}),
			&fib.Route{Dst: prefix("fe80::/64"), Reject: true}, ""},
		{"groups", main(netlink.Route{Dst: cidr("239.1.0.0/16"), Family: 2}),
			&fib.Route{Dst: prefix("239.1.0.0/16"), Link: 3}, ""},
		{"IPv6 groups", main(netlink.Route{Dst: cidr("ff00::/8"), Family: 10}),
			&fib.Route{Dst: prefix("ff00::/8"), Link: 3}, ""},
		{"groups, of type multicast", netlink.Route{Dst: cidr("ff15::/16"), Family: 10, Table: 255, Type: unix.RTN_MULTICAST, LinkIndex: 3},
			&fib.Route{Dst: prefix("ff15::/16"), Link: 3}, ""},
		{"groups that are rejected", netlink.Route{Dst: cidr("239.1.0.0/16"), Family: 2, Table: 254, Type: unix.RTN_PROHIBIT},
			&fib.Route{Dst: prefix("239.1.0.0/16"), Reject: true}, ""},
		{"all groups, as each link has them", netlink.Route{Dst: cidr("ff00::/8"), Family: 10, Table: 255, Type: unix.RTN_MULTICAST, LinkIndex: 3}, nil, ""},
		{"IPv4-mapped is not IPv4's", main(netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(96, 128)}, Family: 10}), nil, ""},
		{"local address", netlink.Route{Dst: cidr("10.0.0.1/32"), Family: 2, Table: 255, Type: unix.RTN_LOCAL}, nil, "10.0.0.1"},
		{"anycast address", netlink.Route{Dst: cidr("fd00::/128"), Family: 10, Table: 255, Type: unix.RTN_ANYCAST}, nil, "fd00::"},
		{"local prefix", netlink.Route{Dst: cidr("127.0.0.0/8"), Family: 2, Table: 255, Type: unix.RTN_LOCAL},
			&fib.Route{Dst: prefix("127.0.0.0/8"), Reject: true}, ""},
		{"broadcast", netlink.Route{Dst: cidr("10.0.0.255/32"), Family: 2, Table: 255, Type: unix.RTN_BROADCAST},
			&fib.Route{Dst: prefix("10.0.0.255/32"), Reject: true}, ""},
		{"throw", netlink.Route{Dst: cidr("10.0.0.0/8"), Family: 2, Table: 254, Type: unix.RTN_THROW}, nil, ""},
		{"another table", netlink.Route{Dst: cidr("10.0.0.0/8"), Family: 2, Table: 7, Type: unix.RTN_UNICAST, LinkIndex: 3}, nil, ""},
		{"of no family that we know", main(netlink.Route{Family: 28}), nil, ""},
		{"without a link", netlink.Route{Family: 2, Table: 254, Type: unix.RTN_UNICAST}, nil, ""},
	} {
		routes, local := appendRoute(nil, nil, &c.in)
		switch {
		case c.route == nil && len(routes) != 0, c.route != nil && (len(routes) != 1 || routes[0] != *c.route):
			t.Errorf("%s: %+v, want %+v", c.name, routes, c.route)
		case c.local == "" && len(local) != 0, c.local != "" && (len(local) != 1 || local[0] != addr(c.local)):
			t.Errorf("%s: local %v, want %s", c.name, local, c.local)
		}
	}
}

func TestNotificationsTouchTheirTables(t *testing.T) {
	for typ, want := range map[uint16]tables{
		unix.RTM_NEWLINK:   everything, // its routes leave without a word
		unix.RTM_DELADDR:   addrs | routes,
		unix.RTM_NEWROUTE:  routes,
		unix.RTM_DELNEIGH:  neighbours,
		unix.RTM_NEWQDISC:  0,
		unix.NLMSG_OVERRUN: 0,
	} {
		if got := touched(typ); got != want {
			t.Errorf("message %d touches %b, want %b", typ, got, want)
		}
	}
}

func TestOnlyResolvedNeighboursOfThePortsShow(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	s := &state{ports: []PortState{{Name: "a0", Index: 3, Up: true, MAC: mac, MTU: 1500}}}
	for _, c := range []struct {
		link, state int
		mac         net.HardwareAddr
		shows       bool
	}{
		{3, unix.NUD_REACHABLE, mac, true},
		{3, unix.NUD_STALE, mac, true},
		{3, unix.NUD_DELAY, mac, true},
		{3, unix.NUD_PROBE, mac, true},
		{3, unix.NUD_PERMANENT, mac, true},
		{3, unix.NUD_INCOMPLETE, nil, false},
		{3, unix.NUD_FAILED, mac, false},
		{3, unix.NUD_NOARP, mac, false},
		{3, unix.NUD_REACHABLE, mac[:4], false},
		{4, unix.NUD_REACHABLE, mac, false},
	} {
		s.neighbours = []netlink.Neigh{{LinkIndex: c.link, State: c.state, HardwareAddr: c.mac, IP: net.ParseIP("10.0.0.1")}}
		got := s.view().FIB.Neighbours
		if c.shows != (len(got) == 1) || c.shows && got[0].Addr != flow.V4(0x0a000001) {
			t.Errorf("link %d, state %#x, MAC %v: %+v", c.link, c.state, c.mac, got)
		}
	}
}
