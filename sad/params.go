package sad

import (
	"fmt"
	"log/slog"
	"math"

	"spigot/internal/flow"
)

const protoESP = 50

// The bounds of Params.Window, in packets.
const (
	MinWindow = 64
	MaxWindow = 131072
)

// Lifetime bounds an SA's use; a zero field sets no bound.
type Lifetime struct {
	Packets, Bytes uint64
	Seconds        uint64 // since the SA was added
	UseSeconds     uint64 // since its first packet
}

// Params describes an SA to be made. Formatted by fmt, slog or encoding/json
// it does not show its keys; the owner wipes EncKey and AuthKey after use.
type Params struct {
	SPI        uint32
	Proto      uint8     // 50: ESP, 51: AH
	Src, Dst   flow.Addr // outer addresses; Src may be zero, any, in transport mode, and inbound from the senders to a group
	Tunnel     bool      // tunnel mode; else transport
	Encryption string    // a name that crypto.Lookup knows, e.g. "aes-gcm-16"; "" for AH
	Integrity  string    // "" for AEAD, e.g. "hmac-sha2-256-128"; of AH, one that crypto.LookupIntegrity knows
	EncKey     []byte    `json:"-"` // key, with the salt appended for AEAD and CTR; copied
	AuthKey    []byte    `json:"-"` // copied
	ESN        bool
	// Window is the replay window in packets (RFC 4303, section 3.4.3), rounded
	// up to a multiple of 32 and to MinWindow; 0: no replay check. Outbound SAs
	// have none and ignore it.
	Window     int
	Reqid      uint32          // ties the SA to policies' templates; 0: none
	Selectors  []flow.Selector // what an inbound SA may carry, as seen inbound; empty: only the SPD decides
	Soft, Hard Lifetime
	Name       string // where it comes from, for people
	Encap      Encap
	Lookup     Lookup // inbound: what names the SA beside SPI and protocol
	Outer      Outer  // tunnel mode: how the outer header is made and read
	Align4     bool   // AH over IPv4: send a header of a multiple of 4 bytes, not of 8 as Linux does
	Replay     Replay // where the sequence numbers start; the zero Replay is a new SA
	// CPU is the number, counted from 1, of the one worker that an outbound SA is
	// for (RFC 9611); 0: all. Inbound SAs ignore it: packets come where they come.
	CPU uint16
	// ForDSCP is the codepoints of the packets that an outbound SA is for (RFC 4301,
	// section 4.4.2.1); 0: all. Inbound SAs ignore it, too.
	ForDSCP Codepoints
}

// EncapUDP is the Type of ESP in UDP (RFC 3948).
const EncapUDP = 2

// Encap says how ESP itself is wrapped. The zero Encap is ESP as an IP protocol.
type Encap struct {
	Type             uint8 // 0, or EncapUDP
	SrcPort, DstPort uint16
	Original         flow.Addr // in transport mode: the peer's address behind its NAT; zero: not known. Checksums do without
}

// Replay is where an SA stands in its sequence numbers (RFC 4303, section 3.4.3).
type Replay struct {
	Seq uint64 // the last number sent, or the highest received
	// Seen says which numbers an inbound SA has received: bit k%64 of word k/64 is
	// that of number Seq-k. What lies beyond it counts as received, so nil stands
	// for all.
	Seen []uint64 `json:",omitempty"`
}

// has says whether number Seq-k was received.
func (r *Replay) has(k uint64) bool {
	return k/64 >= uint64(len(r.Seen)) || r.Seen[k/64]>>(k%64)&1 != 0
}

// String formats p without its keys.
func (p Params) String() string {
	mode, esn := "transport", ""
	if p.Tunnel {
		mode = "tunnel"
	}
	if p.ESN {
		esn = " esn"
	}
	if p.Lookup != ByDst {
		esn += " by " + p.Lookup.String()
	}
	if p.CPU != 0 {
		esn += fmt.Sprintf(" cpu %d", p.CPU-1)
	}
	if p.ForDSCP != 0 {
		esn += " for dscp " + p.ForDSCP.String()
	}
	suite := p.Encryption
	if p.Integrity != "" {
		suite += "/" + p.Integrity
	}
	return fmt.Sprintf("SPI %#x proto %d %s %v -> %v %s (keys of %d and %d bytes) window %d%s reqid %d %q",
		p.SPI, p.Proto, mode, p.Src, p.Dst, suite, len(p.EncKey), len(p.AuthKey), p.Window, esn, p.Reqid, p.Name)
}

// Format writes String whatever the verb and flags, so that no way of
// printing p shows a key.
func (p Params) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// LogValue gives slog String.
func (p Params) LogValue() slog.Value { return slog.StringValue(p.String()) }

// check judges everything but algorithms and keys, which are crypto's.
func (p *Params) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrParams, fmt.Sprintf(format, args...))
	}
	switch {
	case p.Proto != protoESP && p.Proto != protoAH:
		return fmt.Errorf("%w: %w: protocol %d: set Proto to %d for ESP or %d for AH",
			ErrParams, ErrUnsupported, p.Proto, protoESP, protoAH)
	case p.Proto == protoAH && (p.Encryption != "" || len(p.EncKey) != 0):
		return bad("AH with encryption %q and a key for it of %d bytes: AH does not encrypt, leave both out or use ESP",
			p.Encryption, len(p.EncKey))
	case p.Proto == protoAH && p.Encap.Type != 0:
		return bad("AH in UDP: a NAT breaks AH, which authenticates the addresses: use ESP")
	case p.Align4 && (p.Proto != protoAH || !p.Dst.Is4()):
		return bad("Align4 is for AH over IPv4: leave it out")
	case p.Encap.Type != 0 && p.Encap.Type != EncapUDP:
		return fmt.Errorf("%w: %w: encapsulation of type %d: there is ESP in UDP (%d), or none (0)",
			ErrParams, ErrUnsupported, p.Encap.Type, EncapUDP)
	case p.Encap.Type == EncapUDP && (p.Encap.SrcPort == 0 || p.Encap.DstPort == 0):
		return bad("ESP in UDP from port %d to port %d: give both, usually 4500", p.Encap.SrcPort, p.Encap.DstPort)
	case !p.ESN && p.Replay.Seq > math.MaxUint32:
		return bad("sequence number %d without extended sequence numbers: they end at 2^32-1", p.Replay.Seq)
	case p.SPI < 256:
		return bad("SPI %d is reserved (RFC 4303, 2.1): choose one above 255", p.SPI)
	case !isHost(p.Dst):
		return bad("destination %v is no address to send to: it is a part of the SA's identity", p.Dst)
	case p.Tunnel && !isHost(p.Src) && !(p.Src.IsZero() && p.Dst.IsGroup()):
		return bad("tunnel source %v is no address: give both ends of the tunnel", p.Src)
	case p.Src.IsGroup():
		return bad("source %v is a multicast group, and packets come from hosts: give the sender's address", p.Src)
	case p.Encap.Type != 0 && p.Dst.IsGroup():
		return fmt.Errorf("%w: %w: ESP in UDP to the group %v: a group has no NAT in front: leave it out",
			ErrParams, ErrUnsupported, p.Dst)
	case !p.Src.IsZero() && p.Src.Is4() != p.Dst.Is4():
		return bad("source %v and destination %v are of different families: the outer header has one", p.Src, p.Dst)
	case p.Window < 0 || p.Window > MaxWindow:
		return bad("replay window of %d packets: choose %d to %d, or 0 for no replay check",
			p.Window, MinWindow, MaxWindow)
	}
	if p.CPU > MaxCPU {
		return bad("it is for worker %d: number workers from 0 to %d", p.CPU-1, MaxCPU-1)
	}
	if p.CPU != 0 && p.Outer.Dummy != 0 {
		return bad("dummy packets of an SA that is for worker %d alone: ask for them on the SA that serves all workers", p.CPU-1)
	}
	if p.ForDSCP != 0 && p.CPU != 0 {
		return bad("it is for worker %d alone and for codepoints %v: an SA is for one of the two", p.CPU-1, p.ForDSCP)
	}
	if p.ForDSCP != 0 && p.Outer.Dummy != 0 {
		return bad("dummy packets of an SA that is for codepoints %v alone: ask for them on the SA that is for all", p.ForDSCP)
	}
	if text := p.Lookup.check(p); text != "" {
		return bad("%s", text)
	}
	if text := p.Outer.check(); text != "" {
		return bad("outer header: %s", text)
	}
	for i := range p.Selectors {
		s := &p.Selectors[i]
		if !isRange(s.Src) || !isRange(s.Dst) {
			return bad("selector %d has an empty range or one of two families: order each as low, high", i)
		}
		if fault := s.PortsFault(); fault != "" {
			return bad("selector %d: its %s", i, fault)
		}
	}
	return nil
}

// isHost says whether a can stand in an outer header: neither "::" nor 0.0.0.0.
func isHost(a flow.Addr) bool { return !a.IsZero() && a != flow.V4(0) }

func isRange(r flow.AddrRange) bool { return !r.Hi.Less(r.Lo) && r.Lo.Is4() == r.Hi.Is4() }
