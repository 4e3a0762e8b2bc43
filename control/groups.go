package control

import (
	"maps"
	"net/netip"
	"slices"

	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// Groups is what a port is to receive of what is sent to multicast groups. The
// rest is the host's. Groups of one link are none of it.
type Groups struct {
	IPsec []netip.Addr   // of these ESP and AH: inbound SAs are for them
	All   []netip.Prefix // of these everything: protect policies name them

	// Join is the groups that the interface is to be a member of, so that what is
	// sent to them comes here; JoinAll asks the interface for all groups, as there
	// are too many for that. A switch does not hear of these.
	Join    []netip.Addr
	JoinAll bool
}

// Equal says whether g and o are the same.
func (g Groups) Equal(o Groups) bool {
	return g.JoinAll == o.JoinAll && slices.Equal(g.IPsec, o.IPsec) && slices.Equal(g.All, o.All) && slices.Equal(g.Join, o.Join)
}

// groups counts what wants packets to groups, and knows what the ports have been
// told.
type groups struct {
	sas      map[flow.Addr]int         // inbound SAs for a group
	policies [2]map[flow.AddrRange]int // protect policies for groups, by direction
	changed  bool                      // since the ports were told
	told     []toldGroups              // by port
}

// toldGroups is what a port was told.
type toldGroups struct {
	Groups
	link   int // the interface index then
	done   bool
	failed bool // as the log says
}

func newGroups(ports int) groups {
	return groups{
		sas:      map[flow.Addr]int{},
		policies: [2]map[flow.AddrRange]int{{}, {}},
		told:     make([]toldGroups, ports),
	}
}

// receives notes that workers have r, which may be an inbound SA for a group, or
// with n of -1 that they have it no more.
func (g *groups) receives(r *record, n int) {
	if r.in == nil || !r.in.Dst.IsGroup() || r.in.Dst.IsNearGroup() {
		return
	}
	if g.sas[r.in.Dst] += n; g.sas[r.in.Dst] == 0 {
		delete(g.sas, r.in.Dst)
	}
	g.changed = true
}

// protects notes that p is in the SPD, and may be a protect policy for groups, or
// with n of -1 that it is not any more. A policy for groups among all else does
// not take them from the host.
func (g *groups) protects(p *spd.Policy, n int) {
	if p.Action != spd.Protect || !p.Sel.Dst.IsGroups() {
		return
	}
	count := g.policies[p.Dir]
	if count[p.Sel.Dst] += n; count[p.Sel.Dst] == 0 {
		delete(count, p.Sel.Dst)
	}
	g.changed = true
}

// of returns what a port of that side is to receive. What a policy protects from
// the wire is taken there to be dropped: it came in clear.
func (g *groups) of(side string) (want Groups) {
	dir := spd.Out
	if side == SideWire {
		dir = spd.In
		for a := range g.sas {
			want.IPsec = append(want.IPsec, a.Netip())
		}
		slices.SortFunc(want.IPsec, netip.Addr.Compare)
		want.Join = want.IPsec
	}
	all := map[netip.Prefix]bool{}
	for r := range g.policies[dir] {
		for _, p := range prefixesOf(r) {
			all[p] = true
		}
	}
	want.All = slices.SortedFunc(maps.Keys(all), netip.Prefix.Compare)
	if side == SideWire {
		return want
	}
	for _, p := range want.All {
		if p.IsSingleIP() {
			want.Join = append(want.Join, p.Addr())
		} else {
			want.JoinAll = true
		}
	}
	return want
}

// tellGroups tells the ports which groups they are to receive, where that is new
// to them; chores tries again what failed.
func (c *Controller) tellGroups() {
	c.groups.changed = false
	for i := range c.cfg.Ports {
		p, told := &c.cfg.Ports[i], &c.groups.told[i]
		want, link := c.groups.of(p.Side), c.link(uint16(i))
		if p.SetGroups == nil || told.done && told.link == link && told.Equal(want) {
			continue
		}
		err := p.SetGroups(link, want)
		switch {
		case err != nil && !told.failed:
			c.log.Error("receive what is sent to groups", "port", p.Name, "err", err)
		case err == nil && (len(want.All)+len(want.IPsec) > 0 || told.done):
			c.log.Debug("port receives groups", "port", p.Name, "of_sas", want.IPsec, "of_policies", want.All, "all", want.JoinAll)
		}
		*told = toldGroups{want, link, err == nil, err != nil}
	}
}

// directionToGroup tells the direction of an SA for a group, which is no host's
// address: outbound if its source is this host's, and else inbound, also where
// its source is left open since many senders have it.
func (c *Controller) directionToGroup(p *sad.Params) Direction {
	switch {
	case c.local[p.Src]:
		return Outbound
	case c.view != nil || p.Src.IsZero():
		return Inbound
	}
	return DirectionUnknown
}

// turn has the SAs for groups wait for their direction again whose source has
// become an address of this host since they were taken for inbound.
func (c *Controller) turn() {
	if len(c.groups.sas) == 0 {
		return
	}
	for r := range c.sas.all {
		if r.in == nil || !r.in.Dst.IsGroup() || !c.local[r.in.Src] || r.keyed != nil && r.keyed.params.Direction != DirectionUnknown {
			continue
		}
		if m := r.manual; m != nil {
			p := m.params
			p.EncKey, p.AuthKey = slices.Clone(p.EncKey), slices.Clone(p.AuthKey) // which leave with r
			c.remove(r)
			m.params, m.rec = p, nil
			c.pending = append(c.pending, m)
			continue
		}
		c.withdraw(r)
		c.groups.receives(r, -1)
		c.carriesNot(r)
		if err := c.db.RemoveInbound(r.in); err != nil {
			c.log.Error("remove an SA", "sa", r.id, "err", err)
		}
		r.in = nil
		c.waiting++
	}
}
