// Package spd is the security policy database (RFC 4301, section 4.4.1):
// ordered selectors with an action, compiled to an immutable Table, and each
// worker's cache of decisions.
package spd

import "spigot/internal/flow"

// Action is what happens to matching traffic. The zero Action discards.
type Action uint8

// The actions of RFC 4301, section 4.4.1.
const (
	Discard Action = iota
	Bypass
	Protect
)

// Dir is the direction a policy is for.
type Dir uint8

// The directions.
const (
	Out Dir = iota // from the protected side to the wire
	In             // from the wire to the protected side
)

// Level says what a protect policy does without an SA (OpenBSD's types).
type Level uint8

// The levels. The zero Level is the strict one.
const (
	Require Level = iota // ask for an SA, drop meanwhile; in: clear packets are dropped
	Acquire              // ask for an SA, pass in clear meanwhile
	Use                  // pass in clear if there is no SA, do not ask
	DontAcq              // drop if there is no SA, do not ask
)

// Mode is how an SA wraps packets (RFC 4301, section 4.1).
type Mode uint8

// The modes.
const (
	Tunnel Mode = iota
	Transport
)

// Template names the SA that a protect policy wants.
type Template struct {
	Proto    uint8 // 50 ESP, 51 AH
	Mode     Mode
	Src, Dst flow.Addr // outer addresses as the SA's packets have them, so that an In policy's peer is Src; zero: any
	Reqid    uint32    // 0: any
	SPI      uint32    // of the one SA that an Out policy wants, in host order; 0: any
}

// Policy is one SPD entry. Policies are immutable once compiled.
type Policy struct {
	ID       uint32 // unique for the life of the process, never 0, never reused
	Dir      Dir
	Priority uint32 // lower wins; equal ones keep the order in which they were added
	Sel      flow.Selector
	Action   Action
	Level    Level
	Template Template // for Protect by one SA
	Bundle   *Bundle  // for Protect by several, in place of Template; it does not change
	PFP      PFP      // of its selector, what each SA has of its own; for Out and Protect by one SA
	PerCPU   bool     // each worker is to have an SA of its own beside that for all (RFC 9611); as for PFP, and without
	Static   bool     // from the configuration: a daemon's flush spares it
	Name     string   // where it comes from, for people: "ipsec.conf:12"
}

// AcquireRequest asks the slow path for an SA: the worker met Policy with no SA
// bound to it, on a packet of Flow; or with none for the worker CPU, counted from
// 1, if that is not 0.
type AcquireRequest struct {
	Policy uint32
	CPU    uint16
	Flow   flow.Tuple
}

// Snapshot is the published SPD: one table a direction.
type Snapshot struct {
	Out, In *Table
}
