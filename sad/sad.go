// Package sad holds security associations (RFC 4301, section 4.4.2): Outbound
// with its sequence numbers and header template, Inbound with its replay
// window, and the table that finds them.
//
// Direction is a type. Geometry is computed once, when the SA is made. State
// that workers change (sequence, window, counts) lies on cache lines of its
// own and is lock-free, so that one SA serves many workers.
//
// The slow path owns a DB and edits it; each edit publishes a Snapshot, which
// workers read without locks. Keys of a removed SA are zeroed once no worker
// can hold it any more.
package sad

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"spigot/crypto"
	"spigot/internal/flow"
)

// Errors of NewOutbound, NewInbound and DB; wrapped with what and how to mend.
var (
	ErrParams = errors.New("sad: bad parameters")
	ErrExists = errors.New("sad: SA exists")
	ErrNoSA   = errors.New("sad: no such SA")
	// ErrUnsupported comes together with ErrParams: the parameters make sense, and
	// the data path cannot do it.
	ErrUnsupported = errors.New("sad: not supported")
)

// Job is one ESP packet to seal or open; Engine runs jobs. They are crypto's:
// the pipeline names an SA's key, never an algorithm.
type (
	Job    = crypto.Job
	Engine = crypto.Engine
)

// NewEngine returns the Engine of one worker.
func NewEngine() *Engine { return crypto.NewEngine() }

// SA is what both directions have in common. It does not change once the SA
// is made; only Key's material dies with the SA.
type SA struct {
	SPI        uint32
	Proto      uint8     // 50: ESP, 51: AH
	Tunnel     bool      // tunnel mode; else transport
	ESN        bool      // 64-bit sequence numbers (RFC 4303, section 2.2.1)
	Src, Dst   flow.Addr // outer addresses
	Encap      Encap     // its SrcPort and DstPort as the SA's packets have them
	Reqid      uint32    // ties the SA to policies' templates; 0: none
	Name       string    // where it comes from, for people
	Suite      string    // the name of the algorithms
	Key        *crypto.Key
	Geo        Geometry
	Outer      Outer
	Soft, Hard Lifetime // judged by the slow path
	Lookup     Lookup
	CPU        uint16     // see Params
	ForDSCP    Codepoints // see Params

	adopted bool // by a DB, which alone writes it
}

// String names the SA without its keys.
func (sa *SA) String() string {
	return fmt.Sprintf("SPI %#x proto %d %v -> %v", sa.SPI, sa.Proto, sa.Src, sa.Dst)
}

// newSA checks p and makes what both directions have in common.
func newSA(p *Params) (SA, error) {
	if err := p.check(); err != nil {
		return SA{}, err
	}
	suite, err := p.suite()
	if err != nil {
		return SA{}, fmt.Errorf("%w: %w", ErrParams, err)
	}
	key, err := suite.NewKey(p.EncKey, p.AuthKey)
	if err != nil {
		return SA{}, fmt.Errorf("%w: %w", ErrParams, err)
	}
	return SA{
		SPI: p.SPI, Proto: p.Proto, Tunnel: p.Tunnel, ESN: p.ESN, Src: p.Src, Dst: p.Dst,
		Encap: p.Encap, Reqid: p.Reqid, Name: p.Name, Suite: suite.String(), Key: key,
		Geo: geometry(p, suite), Outer: p.Outer.clone(), Soft: p.Soft, Hard: p.Hard, Lookup: p.Lookup, CPU: p.CPU, ForDSCP: p.ForDSCP,
	}, nil
}

// ForAll says whether an outbound SA is for all workers and all codepoints.
func (sa *SA) ForAll() bool { return sa.CPU == 0 && sa.ForDSCP == 0 }

// LogValue gives slog String.
func (sa *SA) LogValue() slog.Value { return slog.StringValue(sa.String()) }

// Usage counts what an SA carried, on a cache line of its own.
type Usage struct {
	_              [64]byte
	packets, bytes atomic.Uint64
	_              [56]byte
}

// Count adds to what the SA carried. Any worker may call it.
func (u *Usage) Count(packets, bytes uint64) {
	if packets != 0 {
		u.packets.Add(packets)
		u.bytes.Add(bytes)
	}
}

// Used returns the sums of Count. Anyone may call it; the two numbers are
// read one after the other.
func (u *Usage) Used() (packets, bytes uint64) { return u.packets.Load(), u.bytes.Load() }

// Inbound opens packets: one unidirectional SA towards this gateway.
type Inbound struct {
	SA
	Selectors []flow.Selector // what it may carry, as seen inbound; empty: only the SPD decides
	Usage
	window window
}

// NewInbound makes an inbound SA. Its errors wrap ErrParams, and crypto's
// errors where the algorithms or keys are at fault.
func NewInbound(p *Params) (*Inbound, error) {
	if p.ESN && p.Window == 0 {
		return nil, fmt.Errorf("new inbound SA: %w: extended sequence numbers need a replay window "+
			"(RFC 4303, 3.3.3): set Window to 64 or more, or ESN to false", ErrParams)
	}
	sa, err := newSA(p)
	if err != nil {
		return nil, fmt.Errorf("new inbound SA: %w", err)
	}
	in := &Inbound{SA: sa, Selectors: slices.Clone(p.Selectors)}
	in.window.init(p.Window)
	in.window.restore(&p.Replay)
	return in, nil
}

// Admits says whether the SA's selectors allow t, the inner packet (RFC 4301,
// section 5.2, step 4).
func (sa *Inbound) Admits(t *flow.Tuple) bool {
	for i := range sa.Selectors {
		if sa.Selectors[i].Matches(t) {
			return true
		}
	}
	return len(sa.Selectors) == 0
}
