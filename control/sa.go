package control

import (
	"fmt"
	"time"

	"spigot/internal/flow"
	"spigot/sad"
)

// SAID names an SA (RFC 4301, section 4.1). Whatever the direction, there is
// one SA of a name.
type SAID struct {
	SPI   uint32
	Dst   flow.Addr
	Proto uint8 // 50: ESP
	// Src is zero but for an SA of the configuration that goes by its source, too,
	// and Dst is zero for one that goes by its SPI alone (sad.Lookup).
	Src flow.Addr
}

// String writes the name for people.
func (id SAID) String() string {
	return fmt.Sprintf("SPI %#x proto %d -> %v", id.SPI, id.Proto, id.Dst)
}

// SAState is where an SA stands in its life (RFC 2367, section 1.4.1). A dead
// SA is not there any more.
type SAState uint8

// The states.
const (
	Larval SAState = iota // GetSPI has reserved its SPI; it has no keys
	Mature                // in use
	Dying                 // in use; its soft lifetime has ended
)

// Direction is which way an SA carries packets. Key daemons seldom say it: the
// host's addresses tell.
type Direction uint8

// The directions. An SA of an unknown one waits, without effect, until an
// address of the host tells it.
const (
	DirectionUnknown Direction = iota
	Inbound
	Outbound
)

// SAParams describes an SA to be made: sad.Params, and what only key daemons
// care about.
//
// Of sad.Params, Selectors is made from Sel, and left empty by callers.
type SAParams struct {
	sad.Params
	// Direction is for callers that know it, as by XFRMA_SA_DIR.
	Direction Direction
	// Sel is what the SA may carry, as its packets show it (XFRM's sel); nil: the
	// SPD alone decides. A policy uses the SA only if Sel has all of the policy's
	// selector in it.
	Sel *flow.Selector
	// Carried is what the SA has carried elsewhere: it counts towards the
	// lifetimes in packets and bytes.
	Carried sad.Lifetime
	// Flags is the dialect's, kept and returned.
	Flags uint32
	// Opaque is the dialect's: what Spigot does not act on and has to return, for
	// example identities. It is kept as it is, not copied, and must not change.
	Opaque any
}

// ID returns the name of the SA.
func (p *SAParams) ID() SAID { return idOfParams(&p.Params) }

// idOfParams returns the name of the SA that p describes.
func idOfParams(p *sad.Params) SAID {
	id := SAID{SPI: p.SPI, Dst: p.Dst, Proto: p.Proto}
	switch p.Lookup {
	case sad.BySrcDst:
		id.Src = p.Src
	case sad.BySPI:
		id.Dst = flow.Addr{}
	}
	return id
}

// idOf returns the name of sa.
func idOf(sa *sad.SA) SAID {
	return idOfParams(&sad.Params{SPI: sa.SPI, Dst: sa.Dst, Src: sa.Src, Proto: sa.Proto, Lookup: sa.Lookup})
}

// SA is one entry of the SADB at the moment when it was asked for.
//
// Its params have keys only where the caller asked for them, and those of the
// configuration never do.
type SA struct {
	SAParams
	State  SAState
	Static bool   // from the configuration
	Owner  Origin // who made it
	// Replay is the last number sent, or the window's state.
	sad.Replay
	Packets, Bytes uint64    // carried, authentic
	Created        time.Time // made usable, or, of a larval SA, reserved
	FirstUse       time.Time // within a second; zero: not used yet
	LastUse        time.Time // the same
	Acquire        uint32    // Seq of the acquire that it answers, 0 if none
}

// GetSPIRequest asks for an SPI of the gateway's own: of an inbound SA.
type GetSPIRequest struct {
	Proto    uint8
	Src, Dst flow.Addr
	Min, Max uint32 // both included; 0, 0: any
	Reqid    uint32
	Tunnel   bool
	Acquire  uint32 // Seq of the acquire that it answers, 0 if none
	Opaque   any    // as in SAParams
}
