package main

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"spigot/internal/affinity"
	"spigot/pmd/afxdp"
)

// machine is what a configuration is checked against.
type machine struct {
	cores []int // that this process may run on, ascending
	links map[string]link
}

// link is one network interface.
type link struct {
	up, loopback bool
	queues       int
	mtu          int
}

// thisMachine looks at the cores and the interfaces that this process sees. It
// needs no privilege.
func thisMachine() (*machine, error) {
	cores, err := affinity.Allowed()
	if err != nil {
		return nil, fmt.Errorf("look at the machine: %w", err)
	}
	list, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("look at the machine: list interfaces: %w", err)
	}
	m := &machine{cores: cores, links: make(map[string]link, len(list))}
	for _, l := range list {
		a := l.Attrs()
		m.links[a.Name] = link{
			up:       a.Flags&net.FlagUp != 0,
			loopback: a.Flags&net.FlagLoopback != 0,
			queues:   queuesOf(a),
			mtu:      a.MTU,
		}
	}
	return m, nil
}

// queuesOf returns how many queues an interface has; where the driver does not
// say, how many it could have.
func queuesOf(a *netlink.LinkAttrs) int {
	if n, err := afxdp.Queues(a.Name); err == nil && n > 0 {
		return n
	}
	return max(a.NumRxQueues, a.NumTxQueues, 1)
}

// linkNames lists the interfaces that can be ports.
func (m *machine) linkNames() string {
	names := slices.Sorted(maps.Keys(m.links))
	names = slices.DeleteFunc(names, func(name string) bool { return m.links[name].loopback })
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
