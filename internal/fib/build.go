package fib

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"spigot/internal/flow"
)

// Build makes a Table. The most specific entry that holds a destination
// decides, in this order: an address of the host is Local; an address that no
// router forwards to has NoRoute; a resolved neighbour is Ready where the
// routes say that its address is on its link; then the routes, and among those
// to one prefix the one of the lowest metric, or else the first.
//
// A route that is rejected, or that leaves by a link not in cfg.Links, is
// there and answers NoRoute. A route whose Dst is no prefix is ignored, and so
// is a neighbour without a six-byte MAC. Build keeps nothing of cfg.
func Build(cfg *Config) *Table {
	b := builder{
		links: make(map[int]*Link, len(cfg.Links)),
		macs:  make(map[neighbourKey][6]byte, len(cfg.Neighbours)),
		hops:  make(map[Hop]*Hop),
	}
	for i := range cfg.Links {
		b.links[cfg.Links[i].Index] = &cfg.Links[i]
	}
	for _, n := range cfg.Neighbours {
		if len(n.MAC) == 6 {
			b.macs[neighbourKey{n.Addr, n.Link}] = [6]byte(n.MAC)
		}
	}
	b.addRoutes(cfg.Routes)
	routes := newTable(b.entries)
	b.addNeighbours(cfg.Neighbours, routes)
	for _, a := range cfg.Local {
		b.add(local, flow.AddrRange{Lo: a, Hi: a}, 0, Hop{State: Local})
	}
	return newTable(b.entries)
}

// class is what an entry of a table stands for. Of two entries for the same
// addresses the higher class decides.
type class uint8

const (
	fallback  class = iota // all addresses of a family, or all its groups
	route                  // a route of the kernel
	neighbour              // a resolved neighbour on the link
	never                  // addresses that no router forwards to
	local                  // an address of the host
)

// entry is one prefix and what is to be done with its addresses.
type entry struct {
	dst    flow.AddrRange
	hop    *Hop
	metric int
	class  class
}

// before orders entries so that each comes after those that hold it, and after
// those for the same addresses over which it wins.
func before(a, b entry) int {
	return cmp.Or(
		a.dst.Lo.Compare(b.dst.Lo),
		b.dst.Hi.Compare(a.dst.Hi),
		cmp.Compare(a.class, b.class),
		cmp.Compare(b.metric, a.metric),
	)
}

type neighbourKey struct {
	addr flow.Addr
	link int
}

// builder turns a Config into entries.
type builder struct {
	links   map[int]*Link // by the kernel's index
	macs    map[neighbourKey][6]byte
	hops    map[Hop]*Hop // equal Hops are one, so that a table's hot part stays small
	entries []entry
}

func (b *builder) add(c class, dst flow.AddrRange, metric int, hop Hop) {
	h := b.hops[hop]
	if h == nil {
		h = &hop
		b.hops[hop] = h
	}
	b.entries = append(b.entries, entry{dst, h, metric, c})
}

// addRoutes adds the routes, the last first: the sort is stable, and of equals
// the last one wins.
func (b *builder) addRoutes(routes []Route) {
	never := slices.Concat(neverForwarded4(), neverForwarded6())
	for _, r := range slices.Backward(routes) {
		inside := func(n flow.AddrRange) bool { return n.Contains(r.Dst.Lo) && n.Contains(r.Dst.Hi) }
		if isPrefix(r.Dst) && !slices.ContainsFunc(never, inside) {
			b.add(route, r.Dst, r.Metric, b.hop(&r))
		}
	}
}

// hop returns the way that r takes.
func (b *builder) hop(r *Route) Hop {
	link := b.links[r.Link]
	if r.Reject || link == nil {
		return Hop{}
	}
	h := Hop{Via: r.Gateway, Port: link.Port, MTU: smaller(r.MTU, link.MTU), State: Unresolved}
	copy(h.SrcMAC[:], link.MAC)
	if r.Dst.IsGroups() {
		h.Via, h.State = flow.Addr{}, Group
		return h
	}
	if mac, ok := b.macs[neighbourKey{r.Gateway, r.Link}]; ok && !r.Gateway.IsZero() {
		h.State, h.DstMAC = Ready, mac
	}
	return h
}

// addNeighbours adds those neighbours whose address is on their own link by
// the table of the routes alone: a more specific route may lead elsewhere.
func (b *builder) addNeighbours(ns []Neighbour, routes *Table) {
	for _, n := range ns {
		mac, ok := b.macs[neighbourKey{n.Addr, n.Link}]
		link := b.links[n.Link]
		if !ok || link == nil {
			continue
		}
		hop := *routes.Lookup(&n.Addr)
		if hop.State == Unresolved && hop.Via.IsZero() && hop.Port == link.Port {
			hop.State, hop.DstMAC = Ready, mac
			b.add(neighbour, flow.AddrRange{Lo: n.Addr, Hi: n.Addr}, 0, hop)
		}
	}
}

// smaller returns the smaller of two MTUs of which 0 or less says nothing.
func smaller(a, b int) uint16 {
	mtu := math.MaxUint16
	for _, m := range []int{a, b} {
		if m > 0 {
			mtu = min(mtu, m)
		}
	}
	return uint16(mtu)
}

// isPrefix says whether r is all the addresses that share some leading bits.
func isPrefix(r flow.AddrRange) bool {
	host := flow.Addr{Hi: r.Lo.Hi ^ r.Hi.Hi, Lo: r.Lo.Lo ^ r.Hi.Lo}
	ones := host.Lo&(host.Lo+1) == 0
	if host.Hi != 0 {
		ones = host.Hi&(host.Hi+1) == 0 && host.Lo == math.MaxUint64
	}
	return ones && r.Lo.Hi&host.Hi == 0 && r.Lo.Lo&host.Lo == 0 && (r.Hi.Is4() || !r.Lo.Is4())
}

// neverForwarded4 returns the IPv4 addresses that no router forwards to: this
// network and loopback (RFC 1812, section 5.3.7), groups of one link (RFC 5771,
// section 4), and the limited broadcast (RFC 1812, section 5.3.5.1).
func neverForwarded4() []flow.AddrRange {
	return prefixes("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/24", "255.255.255.255/32")
}

// neverForwarded6 returns the IPv6 addresses that no router forwards to: the
// unspecified one, loopback, link-local (RFC 4291, sections 2.5.2, 2.5.3 and
// 2.5.6), and groups of one host or link, whatever their flags (section 2.7).
func neverForwarded6() []flow.AddrRange {
	rs := prefixes("::/128", "::1/128", "fe80::/10")
	for flags := range uint64(16) {
		const scope = 1 << 48 // and the next: its first is reserved, the second a host's, the third a link's
		lo := flow.Addr{Hi: 0xff<<56 | flags<<52}
		rs = append(rs,
			flow.AddrRange{Lo: lo, Hi: flow.Addr{Hi: lo.Hi + 2*scope - 1, Lo: math.MaxUint64}},
			flow.AddrRange{Lo: flow.Addr{Hi: lo.Hi + 2*scope}, Hi: flow.Addr{Hi: lo.Hi + 3*scope - 1, Lo: math.MaxUint64}})
	}
	return rs
}

// allGroups returns the groups of both families, of which those are forwarded to
// that a route of groups names: a default route says nothing of them.
func allGroups() []flow.AddrRange { return prefixes("224.0.0.0/4", "ff00::/8") }

func prefixes(ps ...string) []flow.AddrRange {
	rs := make([]flow.AddrRange, len(ps))
	for i, p := range ps {
		rs[i] = flow.RangeOf(netip.MustParsePrefix(p))
	}
	return rs
}
