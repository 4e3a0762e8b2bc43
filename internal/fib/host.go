package fib

import "spigot/ring"

// The bounds of a HostPacket: HostSize bytes is what it carries at most, and
// ClearSize what a frame in clear may have, which a kernel takes by a single page
// (BPF_PROG_RUN on live frames: 3,408 bytes of one of 4,096 on Linux 6.18).
const (
	HostSize  = 4096
	ClearSize = 3072
)

// Secured as a HostPacket's Port says that the packet came by an SA.
const Secured = -1

// HostPacket is a packet that a worker and the host's own stack exchange.
type HostPacket struct {
	// Port is the port that the packet came by in clear, with an Ethernet header
	// in front; or Secured. From the host it has no meaning.
	Port int16
	Len  uint16
	Data [HostSize]byte // an IP packet
}

// HostLink is a worker's way to the host's own stack: what the host sends into
// it passes the SPD as what the protected side sends does, and what is for the
// host's addresses passes the SPD like all that comes from the wire.
type HostLink struct {
	Sent *ring.SPSC[HostPacket] // from the host
	Got  *ring.SPSC[HostPacket] // to the host
	Wake *ring.Bell             // rung after Sent has got something
	Tell *ring.Bell             // rung after Got has got something
}
