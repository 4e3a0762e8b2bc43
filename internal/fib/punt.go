package fib

import (
	"spigot/internal/counter"
	"spigot/internal/flow"
)

// PuntKind says what the slow path is asked to do.
type PuntKind uint8

// The kinds of Punt.
const (
	PuntTooBig  PuntKind = iota + 1 // answer the sender with frag-needed or packet-too-big naming MTU
	PuntTTL                         // answer the sender with time exceeded
	PuntResolve                     // have the kernel resolve Via on Port; carries no packet
	PuntPMTU                        // Data is an ICMP error to the gateway: a packet of an SA is too big for its path
	PuntAudit                       // a packet was dropped for Reason; carries none
	PuntMoved                       // the peer of the inbound ESP SA (SPI, Dst) sends from Via and SrcPort; carries no packet
)

// PuntSize is how many bytes of a packet a Punt or an Inject carries at most.
const PuntSize = 2048

// Punt is a message of a worker to the slow path about one packet. Bytes are
// copied into it: the frame stays the worker's.
type Punt struct {
	Kind    PuntKind
	Secured bool // the packet arrived by an SA: the answer must leave by the SPD, too
	Port    uint16
	MTU     uint16 // PuntTooBig: what the packet should have fitted, as the inner source sees it
	Len     uint16
	Via     flow.Addr
	Dst     flow.Addr      // PuntMoved; PuntAudit: where to, as Via is where from, by the SA or the packet
	SPI     uint32         // PuntMoved; PuntAudit: of the SA, or what the packet says; 0: none
	Seq     uint64         // PuntAudit: the sequence number
	Flow    flow.Tuple     // PuntAudit: the innermost packet that could be seen
	Label   uint32         // PuntAudit: IPv6's flow label
	Reason  counter.Reason // PuntAudit
	SrcPort uint16         // PuntMoved: of the UDP datagram
	Data    [PuntSize]byte // the IP packet as it arrived, or its start
}

// Inject is a packet that the slow path hands to a worker.
type Inject struct {
	// Policy says that the packet is to pass the SPD as if it had come from the
	// protected side; otherwise it is routed as it is.
	Policy bool
	// Dummy is a policy under whose SA a packet of Len bytes is to leave that has
	// nothing in it (RFC 4303, section 2.6); 0: Data is a packet.
	Dummy uint32
	Len   uint16
	Data  [PuntSize]byte // an IP packet
}
