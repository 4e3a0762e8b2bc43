package control

import (
	"time"

	"spigot/internal/flow"
	"spigot/spd"
)

// Fwd is the direction of Linux's forward policies. Spigot keeps and returns
// them, and they have no effect: it holds every packet from the wire against
// the inbound policies, whether it is for the host or beyond.
const Fwd spd.Dir = 2

// PolicyParams describes a policy to be made: spd.Policy, and what only key
// daemons care about. Its ID and Static are ignored. Dir may be Fwd.
type PolicyParams struct {
	spd.Policy
	// Soft and Hard are seconds since the policy was made or changed; 0: no bound.
	Soft, Hard uint64
	// Flags is the dialect's, kept and returned.
	Flags uint32
	// Opaque is the dialect's: what Spigot does not act on and has to return. It
	// is kept as it is, not copied, and must not change.
	Opaque any
}

// Policy is one entry of the SPD at the moment when it was asked for. ID and
// Static are set.
type Policy struct {
	PolicyParams
	Owner   Origin
	Created time.Time // or changed last
	Used    time.Time // outbound: when its SA carried a packet last, within a second; zero: it did not, or is inbound
}

// PolicyName is what names a policy to daemons that do not know its ID: no two
// policies of daemons have the same.
type PolicyName struct {
	Dir spd.Dir
	Sel flow.Selector
}
