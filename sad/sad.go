// Package sad holds security associations (RFC 4301, section 4.4.2): Outbound
// with its sequence numbers and header template, Inbound with its replay
// window, and the table that finds them.
//
// Direction is a type. Geometry is computed once, when the SA is made. State
// that workers change (sequence, window, counts) lies on cache lines of its
// own and is lock-free, so that one SA serves many workers.
package sad

import (
	"errors"

	"spigot/internal/flow"
)

// Errors of NewOutbound, NewInbound and DB; wrapped with what and how to mend.
var (
	ErrParams = errors.New("sad: bad parameters")
	ErrExists = errors.New("sad: SA exists")
	ErrNoSA   = errors.New("sad: no such SA")
)

// Lifetime bounds an SA's use; a zero field sets no bound.
type Lifetime struct {
	Packets, Bytes uint64
	Seconds        uint64 // since the SA was added
	UseSeconds     uint64 // since its first packet
}

// Params describes an SA to be made.
type Params struct {
	SPI        uint32
	Proto      uint8     // 50: ESP
	Src, Dst   flow.Addr // outer addresses
	Tunnel     bool      // tunnel mode; else transport
	Encryption string    // a name that crypto.Lookup knows, e.g. "aes-gcm-16"
	Integrity  string    // "" for AEAD, e.g. "hmac-sha2-256-128"
	EncKey     []byte    // key, with the salt appended for AEAD and CTR; copied
	AuthKey    []byte    // copied
	ESN        bool
	Window     int             // replay window in packets, rounded up to a multiple of 32; 0: no replay check
	Reqid      uint32          // ties the SA to policies' templates; 0: none
	Selectors  []flow.Selector // what an inbound SA may carry, as seen inbound; empty: only the SPD decides
	Soft, Hard Lifetime
	Name       string // where it comes from, for people
}
