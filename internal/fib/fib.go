// Package fib holds where packets go next: an immutable table of routes and
// neighbours, built by the slow path from what the kernel says, and the
// messages about packets that the table could not carry.
package fib

import (
	"net"

	"spigot/internal/flow"
)

// State says what can be done with a Hop. The zero State drops.
type State uint8

// The states of a Hop.
const (
	NoRoute    State = iota // no route, an unreachable one, or one out of no port of ours
	Local                   // the destination is an address of the gateway itself
	Unresolved              // the next hop's link-layer address is not known
	Ready                   // everything is known
	Group                   // the destination is a multicast group: GroupMAC tells what DstMAC is
)

// Hop is the answer of a lookup: how a packet leaves.
type Hop struct {
	Via    flow.Addr // the neighbour on the link: the route's gateway, or the destination when zero; of a Group zero
	Port   uint16    // index in the gateway's list of ports
	MTU    uint16    // the largest IP packet that fits, in bytes
	State  State
	DstMAC [6]byte // the neighbour's, valid when Ready
	SrcMAC [6]byte // the port's
}

// Link is a port of the gateway as routes see it.
type Link struct {
	Index int    // the kernel's interface index
	Port  uint16 // index in the gateway's list of ports
	MAC   net.HardwareAddr
	MTU   int
}

// Route is one route of the kernel's tables; the most specific one wins, then
// the one of the lowest Metric. Of a route to groups the Gateway does not matter.
type Route struct {
	Dst     flow.AddrRange // a prefix
	Gateway flow.Addr      // zero: Dst is on the link
	Link    int            // the kernel's interface index
	MTU     int            // of the route, or 0
	Metric  int
	Reject  bool // blackhole, unreachable, prohibit
}

// Neighbour is one resolved entry of the kernel's ARP and ND tables.
type Neighbour struct {
	Addr flow.Addr
	Link int
	MAC  net.HardwareAddr
}

// Config is what Build makes a Table from.
type Config struct {
	Links      []Link
	Routes     []Route
	Neighbours []Neighbour
	Local      []flow.Addr // addresses of the host
}
