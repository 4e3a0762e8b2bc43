package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Member is one interface's membership in multicast groups: the kernel tells the
// network of it (IGMP, MLD), and the interface to receive what is sent to them.
// It is held by sockets, on which nothing is read, and ends with the process,
// however that ends. The zero Member is of no interface. Its methods may be
// called from any goroutine.
type Member struct {
	mu      sync.Mutex
	link    int
	sockets []*joint
	joined  map[netip.Addr]*joint
	all     int // socket that asks for all groups; 0: there is none
}

// joint is a socket that holds memberships, of which it has room for a few
// (net.ipv4.igmp_max_memberships).
type joint struct {
	fd, n int
	v6    bool
}

// Set makes groups what the interface with that index is a member of, and with
// all has it receive what is sent to any group, in place of what was before. An
// index of 0 is no interface. After an error some may be missing; the next Set
// tries them again.
func (m *Member) Set(link int, groups []netip.Addr, all bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.joined == nil || link != m.link {
		m.leave() // the kernel has forgotten them with the interface
		m.link, m.joined = link, map[netip.Addr]*joint{}
	}
	if link == 0 {
		return nil
	}
	want := make(map[netip.Addr]bool, len(groups))
	for _, g := range groups {
		want[g] = true
	}
	for g, j := range m.joined {
		if !want[g] {
			m.drop(g, j)
		}
	}
	var errs []error
	for _, g := range groups {
		if m.joined[g] == nil {
			errs = append(errs, m.join(g))
		}
	}
	return errors.Join(append(errs, m.setAll(all))...)
}

// Close leaves all groups.
func (m *Member) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leave()
	m.link, m.joined = 0, nil
	return nil
}

// leave closes the sockets, and with them what they hold.
func (m *Member) leave() {
	for _, j := range m.sockets {
		_ = unix.Close(j.fd) // nothing was written
	}
	m.sockets = nil
	_ = m.setAll(false) // cannot fail
}

// join makes the interface a member of group, by a socket that has room.
func (m *Member) join(group netip.Addr) error {
	for try := range 2 {
		j, err := m.socket(group.Is6(), try > 0)
		if err == nil {
			if err = j.change(m.link, group, true); err == nil {
				j.n++
				m.joined[group] = j
				return nil
			}
			m.closeEmpty(j)
		}
		if try > 0 || !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENOMEM) {
			return fmt.Errorf("kernel: join %v on the link of index %d: %w", group, m.link, err)
		}
	}
	return nil // not reached: the second try returns
}

// socket returns the last socket of a family, or a new one.
func (m *Member) socket(v6, anew bool) (*joint, error) {
	if !anew {
		for i := len(m.sockets) - 1; i >= 0; i-- {
			if m.sockets[i].v6 == v6 {
				return m.sockets[i], nil
			}
		}
	}
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	j := &joint{fd: fd, v6: v6}
	m.sockets = append(m.sockets, j)
	return j, nil
}

// drop leaves group, which j holds, and closes j with the last one.
func (m *Member) drop(group netip.Addr, j *joint) {
	delete(m.joined, group)
	_ = j.change(m.link, group, false) // fails only where it is gone already
	j.n--
	m.closeEmpty(j)
}

// closeEmpty closes j if it holds nothing.
func (m *Member) closeEmpty(j *joint) {
	if j.n > 0 {
		return
	}
	_ = unix.Close(j.fd) // nothing was written
	m.sockets = slices.DeleteFunc(m.sockets, func(other *joint) bool { return other == j })
}

// change joins or leaves group on a link.
func (j *joint) change(link int, group netip.Addr, join bool) error {
	if j.v6 {
		option := unix.IPV6_LEAVE_GROUP
		if join {
			option = unix.IPV6_JOIN_GROUP
		}
		return unix.SetsockoptIPv6Mreq(j.fd, unix.IPPROTO_IPV6, option, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(link)})
	}
	option := unix.IP_DROP_MEMBERSHIP
	if join {
		option = unix.IP_ADD_MEMBERSHIP
	}
	return unix.SetsockoptIPMreqn(j.fd, unix.IPPROTO_IP, option, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(link)})
}

// setAll has the interface receive what is sent to any group, or ends that.
func (m *Member) setAll(all bool) error {
	switch {
	case all == (m.all != 0):
		return nil
	case !all:
		_ = unix.Close(m.all) // nothing was written
		m.all = 0
		return nil
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // of no protocol: it receives nothing
	if err == nil {
		want := unix.PacketMreq{Ifindex: int32(m.link), Type: unix.PACKET_MR_ALLMULTI}
		if err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &want); err != nil {
			_ = unix.Close(fd) // nothing was written
		}
	}
	if err != nil {
		return fmt.Errorf("kernel: receive all groups on the link of index %d: %w", m.link, err)
	}
	m.all = fd
	return nil
}
