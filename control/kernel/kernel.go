// Package kernel mirrors what the host's kernel knows about the gateway's
// network into the form that the forwarding table is built from: links,
// addresses, routes and neighbours, and has the kernel resolve neighbours.
//
// The mirror is level-triggered. A notification is never applied; it only says
// which of the four tables to read again, because the kernel removes things
// without saying so (the IPv4 routes of a link that goes down, the routes of
// an address that leaves) and because a socket that overran has lost an unknown
// part of the story. What is read is always what is so, and a lost notification
// costs no more than a dump.
package kernel

import (
	"net"
	"net/netip"
	"slices"

	"spigot/internal/fib"
)

// View is what the kernel said at one moment. It is immutable once delivered.
type View struct {
	FIB   fib.Config  // Links holds those of the gateway's ports that are up
	Ports []PortState // by the gateway's list of ports
}

// PortState is a port of the gateway as the kernel sees it.
type PortState struct {
	Name    string
	Index   int  // the kernel's interface index, 0 when there is no such interface
	Up      bool // administratively; Carrier tells about the wire
	Carrier bool
	MAC     net.HardwareAddr
	MTU     int
	Addrs   []netip.Addr // usable as a source: neither tentative nor duplicate
}

// Equal says whether v and o tell the same.
func (v *View) Equal(o *View) bool {
	return slices.Equal(v.FIB.Routes, o.FIB.Routes) &&
		slices.Equal(v.FIB.Local, o.FIB.Local) &&
		slices.EqualFunc(v.FIB.Links, o.FIB.Links, equalLinks) &&
		slices.EqualFunc(v.FIB.Neighbours, o.FIB.Neighbours, equalNeighbours) &&
		slices.EqualFunc(v.Ports, o.Ports, equalPorts)
}

func equalLinks(a, b fib.Link) bool {
	return a.Index == b.Index && a.Port == b.Port && a.MTU == b.MTU && slices.Equal(a.MAC, b.MAC)
}

func equalNeighbours(a, b fib.Neighbour) bool {
	return a.Addr == b.Addr && a.Link == b.Link && slices.Equal(a.MAC, b.MAC)
}

func equalPorts(a, b PortState) bool {
	return a.Name == b.Name && a.Index == b.Index && a.Up == b.Up && a.Carrier == b.Carrier &&
		a.MTU == b.MTU && slices.Equal(a.MAC, b.MAC) && slices.Equal(a.Addrs, b.Addrs)
}
