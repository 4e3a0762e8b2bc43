package afxdp

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Groups is the multicast groups of which a port takes packets from the kernel.
// What is of one link or of one host (224.0.0.0/24, and IPv6's scopes up to 2),
// IGMP and MLD stay the kernel's, whatever Groups says.
type Groups struct {
	IPsec []netip.Addr   // of these ESP and AH
	All   []netip.Prefix // of these everything
}

// The bits of the program's values.
const (
	groupIPsec = 1
	groupAll   = 2
)

// uses returns what is taken of each prefix of g. The program knows the longest
// only that holds a group, so each has what the wider ones have.
func (g *Groups) uses() (map[netip.Prefix]uint8, error) {
	uses := make(map[netip.Prefix]uint8, len(g.IPsec)+len(g.All))
	add := func(p netip.Prefix, use uint8) error {
		if !p.IsValid() || !p.Addr().IsMulticast() || p.Masked() != p {
			return fmt.Errorf("%w: %v is no prefix of groups", ErrOptions, p)
		}
		uses[p] |= use
		return nil
	}
	for _, a := range g.IPsec {
		a = a.Unmap().WithZone("")
		if err := add(netip.PrefixFrom(a, a.BitLen()), groupIPsec); err != nil {
			return nil, err
		}
	}
	for _, p := range g.All {
		if err := add(p, groupAll); err != nil {
			return nil, err
		}
	}
	for p := range uses {
		for bits := range p.Bits() {
			wider, _ := p.Addr().Prefix(bits) // of a length that there is
			uses[p] |= uses[wider]
		}
	}
	return uses, nil
}

// SetGroups makes g the groups of the interface, up to 8192 of them, in place of
// those before. After an error the set may be a mixture; the next SetGroups
// mends it.
func (s *Steering) SetGroups(g Groups) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return fmt.Errorf("afxdp: set groups of %s: %w", s.nic.name, ErrClosed)
	}
	want, err := g.uses()
	if err != nil {
		return fmt.Errorf("afxdp: set groups of %s: %w", s.nic.name, err)
	}
	added := s.addGroups(want)
	removed := s.removeGroups(want)
	if added != nil { // now there may be room
		added = s.addGroups(want)
	}
	return errors.Join(added, removed)
}

// addGroups adds what is missing of want, or has another use.
func (s *Steering) addGroups(want map[netip.Prefix]uint8) error {
	for p, use := range want {
		if s.groups[p] == use {
			continue
		}
		if err := s.objs.maps.Groups.Put(groupKey(p), use); err != nil {
			return fmt.Errorf("afxdp: add groups %v to %s: %w", p, s.nic.name, err)
		}
		s.groups[p] = use
	}
	return nil
}

// removeGroups removes what is not in want.
func (s *Steering) removeGroups(want map[netip.Prefix]uint8) error {
	for p := range s.groups {
		if want[p] != 0 {
			continue
		}
		if err := s.objs.maps.Groups.Delete(groupKey(p)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("afxdp: remove groups %v from %s: %w", p, s.nic.name, err)
		}
		delete(s.groups, p)
	}
	return nil
}

// groupKey is p as the program looks for it.
func groupKey(p netip.Prefix) steerPrefix {
	k := steerPrefix{Bits: uint32(p.Bits())}
	k.Addr.B = p.Addr().As16()
	if p.Addr().Is4() {
		k.Bits += 96
	}
	return k
}
