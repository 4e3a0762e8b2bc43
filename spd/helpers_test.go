package spd

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"spigot/internal/flow"
)

// linear is the oracle: the policies in order, each asked by its selector.
func linear(policies []*Policy, tu *flow.Tuple) *Policy {
	sorted := slices.Clone(policies)
	slices.SortStableFunc(sorted, func(p, q *Policy) int { return cmp.Compare(p.Priority, q.Priority) })
	for _, p := range sorted {
		if p.Sel.Matches(tu) {
			return p
		}
	}
	return nil
}

func compile(t testing.TB, prev *Table, policies ...*Policy) *Table {
	t.Helper()
	tab, err := Compile(prev, policies)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func addr(s string) flow.Addr { return flow.FromNetip(netip.MustParseAddr(s)) }

func prefix(s string) flow.AddrRange { return flow.RangeOf(netip.MustParsePrefix(s)) }

// between is a selector of any protocol and port.
func between(src, dst string) flow.Selector {
	return flow.Selector{Src: prefix(src), Dst: prefix(dst), SrcPort: flow.AnyPort, DstPort: flow.AnyPort}
}

func policy(id uint32, sel flow.Selector) *Policy {
	return &Policy{ID: id, Sel: sel, Action: Bypass, Name: fmt.Sprintf("p%d", id)}
}

// world makes policies and tuples that meet often: addresses come from a few
// blocks of both families, at their edges as often as not.
type world struct{ *rand.Rand }

var blocks = []string{"10.0.0.0", "10.0.1.0", "10.1.0.0", "255.255.255.0", "0.0.0.0",
	"2001:db8::", "2001:db8:0:1::", "::", "::fffe:ffff:ff00", "::1:0:0:0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"}

func (w world) addr(want4 bool) flow.Addr {
	for {
		a := addr(blocks[w.IntN(len(blocks))])
		if a.Is4() == want4 {
			a.Lo += []uint64{0, 1, 2, 127, 128, 254, 255, uint64(w.IntN(256))}[w.IntN(8)]
			return a
		}
	}
}

func (w world) addrs(want4 bool) flow.AddrRange {
	a := w.addr(want4)
	switch w.IntN(4) {
	case 0:
		b := w.addr(want4)
		if b.Less(a) {
			a, b = b, a
		}
		return flow.AddrRange{Lo: a, Hi: b}
	case 1:
		return flow.AddrRange{Lo: a, Hi: a}
	}
	for {
		n := a.Netip()
		// Few prefixes of ::/79 end at the last IPv4 address; Compile refuses them.
		if r := flow.RangeOf(netip.PrefixFrom(n, w.IntN(n.BitLen()+1))); r.Hi.Is4() == want4 {
			return r
		}
	}
}

func (w world) ports() flow.PortRange {
	switch w.IntN(4) {
	case 0:
		lo := uint16(w.IntN(4))
		return flow.PortRange{Lo: lo, Hi: lo + uint16(w.IntN(3))}
	case 1:
		return flow.PortRange{Lo: uint16(w.IntN(3)), Hi: 65535}
	}
	return flow.AnyPort
}

func (w world) selector() flow.Selector {
	is4 := w.IntN(2) == 0
	s := flow.Selector{Src: w.addrs(is4), Dst: w.addrs(is4), SrcPort: w.ports(), DstPort: w.ports(),
		Proto: []uint8{flow.AnyProto, 6, 17}[w.IntN(3)]}
	if s.Proto != flow.AnyProto && w.IntN(4) == 0 {
		s.SrcPort, s.DstPort = flow.OpaquePort, flow.OpaquePort
		switch w.IntN(3) {
		case 0:
			s.SrcPort = flow.AnyPort
		case 1:
			s.DstPort = flow.AnyPort
		}
	}
	return s
}

func (w world) tuple() *flow.Tuple {
	is4 := w.IntN(2) == 0
	return &flow.Tuple{Src: w.addr(is4), Dst: w.addr(is4), SrcPort: uint16(w.IntN(6)), DstPort: uint16(w.IntN(6)),
		Proto: []uint8{6, 17, 1}[w.IntN(3)], NoPorts: w.IntN(4) == 0}
}

// network is n policies as gateways have them: each its own destination prefix
// behind one site, and a few for everything.
func network(n int) []*Policy {
	policies := make([]*Policy, 0, n)
	site := between("192.168.0.0/16", "0.0.0.0/0").Src
	for i := range n - 2 {
		lo := flow.V4(10<<24 | uint32(i)<<8)
		dst := flow.AddrRange{Lo: lo, Hi: flow.V4(10<<24 | uint32(i)<<8 | 255)}
		policies = append(policies, policy(uint32(i+1), flow.Selector{
			Src: site, Dst: dst, SrcPort: flow.AnyPort, DstPort: flow.AnyPort}))
	}
	ike := between("0.0.0.0/0", "0.0.0.0/0")
	ike.Proto, ike.DstPort = 17, flow.PortRange{Lo: 500, Hi: 500}
	return append(policies, policy(uint32(n-1), ike), policy(uint32(n), between("0.0.0.0/0", "0.0.0.0/0")))
}

// visit is a packet to the i-th network of network.
func visit(i int, port uint16) *flow.Tuple {
	return &flow.Tuple{Src: addr("192.168.1.1"), Dst: flow.V4(10<<24 | uint32(i)<<8 | 7),
		SrcPort: port, DstPort: 443, Proto: 6}
}
