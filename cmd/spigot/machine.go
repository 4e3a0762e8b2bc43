package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/internal/affinity"
	"spigot/pmd/afxdp"
)

// machine is what a configuration is checked against.
type machine struct {
	cores []int // that this process may run on, ascending
	links map[string]link
	noXDP bool // the kernel has no AF_XDP
}

// link is one network interface.
type link struct {
	up, loopback bool
	queues       int
	mtu          int
	forwarding   []string // the settings by which the kernel forwards what comes in here
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
	m := &machine{cores: cores, links: make(map[string]link, len(list)), noXDP: lacksXDP()}
	for _, l := range list {
		a := l.Attrs()
		m.links[a.Name] = link{
			up:       a.Flags&net.FlagUp != 0,
			loopback: a.Flags&net.FlagLoopback != 0,
			queues:   queuesOf(a),
			mtu:      a.MTU,

			forwarding: forwarding(a.Name),
		}
	}
	return m, nil
}

// forwarding lists the settings that are on and by which the kernel itself
// forwards what comes in by the interface called name.
func forwarding(name string) []string {
	var on []string
	for _, setting := range []string{"net/ipv4/conf/" + name + "/forwarding", "net/ipv6/conf/all/forwarding"} {
		// Without the file the kernel has not even the protocol.
		if text, err := os.ReadFile("/proc/sys/" + setting); err == nil && text[0] != '0' {
			on = append(on, setting)
		}
	}
	return on
}

// lacksXDP says whether the kernel knows no AF_XDP sockets. It says so before
// it asks for privileges.
func lacksXDP() bool {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return errors.Is(err, unix.EAFNOSUPPORT)
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
