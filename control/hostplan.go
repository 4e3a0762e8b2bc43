package control

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/tables"
	"spigot/internal/wire"
	"spigot/sad"
	"spigot/spd"
)

// maxHostRoutes bounds a HostPlan: the kernel takes some microseconds for each.
const maxHostRoutes = 4096

// espMost is what ESP adds to a packet at most: an IPv6 header, UDP, SPI and
// sequence number, IV, padding with its trailer, and ICV.
const espMost = wire.IPv6Len + wire.UDPLen + 8 + 16 + 17 + 32

// HostPlan says which packets of the host go to the gateway: those for the
// destinations of outbound protect policies whose source is an address of the
// host.
type HostPlan struct {
	Routes []HostRoute // by destination, each once
	MTU    int         // the largest packet that fits each of their SAs, in bytes
	Missed int         // destinations beyond the bound, which have no route
}

// HostRoute is one destination of a HostPlan.
type HostRoute struct {
	Dst netip.Prefix
	// Src is the host's address for packets that have not chosen any. The zero
	// Addr says that Dst, a net on the protected side within a wider destination,
	// is none of the plan.
	Src netip.Addr
}

// Equal says whether p and o are the same plan.
func (p HostPlan) Equal(o HostPlan) bool {
	return p.MTU == o.MTU && p.Missed == o.Missed && slices.Equal(p.Routes, o.Routes)
}

// planner tells Config.Host its plan, when something that it depends on has
// changed, and not so often that it takes more than a twentieth of the time.
type planner struct {
	now  *tables.Tables
	fib  *fib.Table
	next time.Time
	last HostPlan
	told bool
}

const planGap = 10 * time.Millisecond // between two plans, at least

// planHost tells the host what is new for it.
func (c *Controller) planHost(now time.Time) {
	h, t, f := &c.host, c.cfg.IPsec.Load(), c.cfg.FIB.Load()
	if c.cfg.Host == nil || c.closed || c.view == nil || h.now == t && h.fib == f || now.Before(h.next) {
		return
	}
	start := time.Now()
	h.now, h.fib = t, f
	plan := c.hostPlan()
	h.next = now.Add(max(planGap, 20*time.Since(start)))
	if h.told && plan.Equal(h.last) {
		return
	}
	if plan.Missed > 0 && h.last.Missed == 0 {
		c.log.Warn("the host's traffic has more destinations under protect policies than get a route: "+
			"add routes for the others", "routes", maxHostRoutes, "others", plan.Missed)
	}
	h.last, h.told = plan, true
	c.cfg.Host(plan)
}

// hostPlan makes the plan.
func (c *Controller) hostPlan() HostPlan {
	own := c.hostAddrs()
	var rules []*policy
	for _, p := range c.spds.byID {
		if r := p.rule; r.Dir == spd.Out && r.Action == spd.Protect && slices.ContainsFunc(own, r.Sel.Src.Contains) {
			rules = append(rules, p)
		}
	}
	slices.SortFunc(rules, func(p, q *policy) int { return cmp.Compare(p.order, q.order) })
	plan := HostPlan{MTU: c.leastMTU() - espMost}
	routes := map[netip.Prefix]netip.Addr{}
	bound := 0
	for _, p := range rules {
		if mtu := c.innerMTU(p.rule.ID); mtu > 0 && (bound == 0 || mtu < plan.MTU) {
			plan.MTU, bound = mtu, bound+1
		}
		i := slices.IndexFunc(own, p.rule.Sel.Src.Contains)
		for _, dst := range prefixesOf(p.rule.Sel.Dst) {
			if _, there := routes[dst]; there {
				continue
			}
			if len(routes) == maxHostRoutes {
				plan.Missed++
				continue
			}
			routes[dst] = own[i].Netip()
		}
	}
	c.spareProtected(routes)
	for dst, src := range routes {
		plan.Routes = append(plan.Routes, HostRoute{dst, src})
	}
	slices.SortFunc(plan.Routes, func(a, b HostRoute) int {
		return cmp.Or(a.Dst.Addr().Compare(b.Dst.Addr()), cmp.Compare(a.Dst.Bits(), b.Dst.Bits()))
	})
	return plan
}

// hostAddrs lists the host's addresses that it may send from to beyond a link:
// those of the protected side first, which peers' policies know.
func (c *Controller) hostAddrs() []flow.Addr {
	var all []flow.Addr
	for _, side := range []string{SideProtected, SideWire} {
		for i := range min(len(c.view.Ports), len(c.cfg.Ports)) {
			if c.cfg.Ports[i].Side != side {
				continue
			}
			for _, a := range c.view.Ports[i].Addrs {
				all = append(all, flow.FromNetip(a))
			}
		}
	}
	all = append(all, c.view.FIB.Local...)
	seen := map[flow.Addr]bool{}
	return slices.DeleteFunc(all, func(a flow.Addr) bool {
		n := a.Netip()
		skip := seen[a] || n.IsLoopback() || n.IsLinkLocalUnicast()
		seen[a] = true
		return skip
	})
}

// spareProtected takes from routes the nets that the host reaches on the
// protected side, where a wider destination holds them: what the host sends its
// own side is not the policies' business.
func (c *Controller) spareProtected(routes map[netip.Prefix]netip.Addr) {
	sides := map[int]string{}
	for _, l := range c.view.FIB.Links {
		if int(l.Port) < len(c.cfg.Ports) {
			sides[l.Index] = c.cfg.Ports[l.Port].Side
		}
	}
	for _, r := range c.view.FIB.Routes {
		if r.Reject || sides[r.Link] != SideProtected || len(routes) >= 2*maxHostRoutes {
			continue
		}
		for _, dst := range prefixesOf(r.Dst) {
			if _, there := routes[dst]; there {
				continue
			}
			for n := dst.Bits() - 1; n >= 0; n-- {
				wider, _ := dst.Addr().Prefix(n)
				if src, ok := routes[wider]; ok {
					if src.IsValid() {
						routes[dst] = netip.Addr{}
					}
					break
				}
			}
		}
	}
}

// innerMTU returns the largest packet that fits the SAs of the policy id where
// they leave, 0 if there is none or nobody knows.
func (c *Controller) innerMTU(id uint32) (least int) {
	sa, classes := c.host.now.SAD.OutboundsOn(id, 0)
	all := []*sad.Outbound{sa}
	if classes != nil {
		all = append(all, classes[:]...)
	}
	for _, sa := range all {
		if sa == nil {
			continue
		}
		hop := c.host.fib.Lookup(&sa.Dst)
		if hop.State < fib.Unresolved {
			continue
		}
		if mtu := sa.Geo.MaxInner(int(hop.MTU)); least == 0 || mtu < least {
			least = mtu
		}
	}
	return least
}

// leastMTU returns the smallest MTU of the wire ports.
func (c *Controller) leastMTU() int {
	least := 0
	for i := range min(len(c.view.Ports), len(c.cfg.Ports)) {
		if m := c.view.Ports[i].MTU; c.cfg.Ports[i].Side == SideWire && m > 0 && (least == 0 || m < least) {
			least = m
		}
	}
	return least
}

// prefixesOf cuts r into prefixes, the fewest that there are.
func prefixesOf(r flow.AddrRange) (all []netip.Prefix) {
	width, addr := 128, func(a flow.Addr) (n netip.Addr) {
		var b [16]byte
		a.Put16(b[:])
		return netip.AddrFrom16(b)
	}
	if r.Lo.Is4() {
		width, addr = 32, flow.Addr.Netip
	}
	for lo := r.Lo; !r.Hi.Less(lo); {
		host := min(trailingZeros(lo), width)
		for host > 0 && r.Hi.Less(lastOf(lo, host)) {
			host--
		}
		all = append(all, netip.PrefixFrom(addr(lo), width-host))
		last := lastOf(lo, host)
		lo = flow.Addr{Hi: last.Hi, Lo: last.Lo + 1}
		if lo.Lo == 0 {
			lo.Hi++
		}
		if last == r.Hi { // which may be the last address there is
			return all
		}
	}
	return all
}

// trailingZeros returns how many bits of a are 0 at its end.
func trailingZeros(a flow.Addr) int {
	if a.Lo != 0 {
		return bits.TrailingZeros64(a.Lo)
	}
	return 64 + bits.TrailingZeros64(a.Hi)
}

// lastOf returns the last address that differs from a in host bits at its end,
// all of them 0 in a.
func lastOf(a flow.Addr, host int) flow.Addr {
	if host >= 64 {
		return flow.Addr{Hi: a.Hi | (1<<(host-64) - 1), Lo: ^uint64(0)}
	}
	a.Lo |= 1<<host - 1
	return a
}
