package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/control"
)

// The numbers of the routing table and of the rules that lead to it. They come
// before table 220, into which strongSwan routes clear packets to its tunnels'
// far ends.
const (
	Table        = 5050
	PriorityIKE  = 200 // IKE: the host's other routes
	PriorityHost = 201 // the rest that the host sends: Table, then the others
)

const (
	portIKE  = 500
	portNATT = 4500
)

// table is what the kernel's tables hold on the device's behalf.
type table struct {
	index  int                         // of the device; 0: nothing is there
	rules  []*netlink.Rule             // that were added
	routes map[netip.Prefix]netip.Addr // that were added, as control.HostRoute has them
}

// families are those that rules and routes are kept for.
var families = [...]int{netlink.FAMILY_V4, netlink.FAMILY_V6}

// open adds the rules, after what a process that was killed has left.
func (t *table) open(index int) error {
	t.index, t.routes = index, map[netip.Prefix]netip.Addr{}
	for _, family := range families {
		if err := sweep(family); err != nil {
			return err
		}
		for _, r := range rules(family) {
			err := netlink.RuleAdd(r)
			if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
				break // the kernel does not have the family
			}
			if err != nil {
				return fmt.Errorf("add the rule %v: %w", r, err)
			}
			t.rules = append(t.rules, r)
		}
	}
	return nil
}

// rules are those of one family: what the host itself sends, but for IKE.
func rules(family int) []*netlink.Rule {
	var all []*netlink.Rule
	for _, port := range []uint16{portIKE, portNATT} {
		r := newRule(family, PriorityIKE, unix.RT_TABLE_MAIN)
		r.IPProto, r.Sport = unix.IPPROTO_UDP, netlink.NewRulePortRange(port, port)
		all = append(all, r)
	}
	return append(all, newRule(family, PriorityHost, Table))
}

func newRule(family, priority, table int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.IifName = family, priority, table, "lo"
	return r
}

// sweep removes rules and routes of an earlier process.
func sweep(family int) error {
	list, err := netlink.RuleList(family)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the rules: %w", err)
	}
	for i := range list {
		r := &list[i]
		if r.Priority == PriorityIKE && r.Table == unix.RT_TABLE_MAIN && r.IifName == "lo" && r.IPProto == unix.IPPROTO_UDP ||
			r.Priority == PriorityHost && r.Table == Table {
			r.Family = family
			if err := netlink.RuleDel(r); err != nil {
				return fmt.Errorf("delete the rule %v: %w", r, err)
			}
		}
	}
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: Table}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list the routes of table %d: %w", Table, err)
	}
	for i := range routes {
		if err := netlink.RouteDel(&routes[i]); err != nil {
			return fmt.Errorf("delete the route %v: %w", routes[i], err)
		}
	}
	return nil
}

// clear takes away all that was added.
func (t *table) clear() error {
	var errs []error
	for dst, src := range t.routes {
		if err := netlink.RouteDel(t.route(dst, src)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("delete the route to %v: %w", dst, err))
		}
	}
	for _, r := range t.rules {
		if err := netlink.RuleDel(r); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete the rule %v: %w", r, err))
		}
	}
	t.rules, t.routes = nil, nil
	return errors.Join(errs...)
}

// forget says that the kernel has taken the routes away.
func (t *table) forget() { clear(t.routes) }

// route is the route to dst: from src by the device, or, without src, none in
// this table.
func (t *table) route(dst netip.Prefix, src netip.Addr) *netlink.Route {
	r := &netlink.Route{
		Table:    Table,
		Dst:      &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())},
		Protocol: unix.RTPROT_STATIC,
	}
	if !src.IsValid() {
		r.Type = unix.RTN_THROW
		return r
	}
	r.LinkIndex, r.Src, r.Scope = t.index, src.AsSlice(), unix.RT_SCOPE_LINK
	return r
}

// set makes the table hold want and nothing else.
func (t *table) set(want []control.HostRoute) error {
	var errs []error
	keep := make(map[netip.Prefix]bool, len(want))
	for _, w := range want {
		keep[w.Dst] = true
		if src, there := t.routes[w.Dst]; there && src == w.Src {
			continue
		}
		if err := netlink.RouteReplace(t.route(w.Dst, w.Src)); err != nil {
			errs = append(errs, fmt.Errorf("add the route to %v: %w", w.Dst, err))
			continue
		}
		t.routes[w.Dst] = w.Src
	}
	for dst, src := range t.routes {
		if keep[dst] {
			continue
		}
		if err := netlink.RouteDel(t.route(dst, src)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("delete the route to %v: %w", dst, err))
		}
		delete(t.routes, dst)
	}
	return errors.Join(errs...)
}

// carryOut makes the kernel's tables what p says.
func (d *Device) carryOut(p control.HostPlan) error {
	return errors.Join(d.setMTU(p.MTU), d.table.set(p.Routes))
}
