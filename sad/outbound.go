package sad

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync/atomic"
)

// The outer headers of RFC 4301, section 5.1.2, and RFC 3948, section 2.1.
const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	udpHeaderLen  = 8
	protoUDP      = 17
	outerTTL      = 64
)

// Outbound seals packets: one unidirectional SA away from this gateway.
type Outbound struct {
	SA
	path      atomic.Uint32 // see PathMTU
	tos       *[256]uint8   // of the outer header by that of the inner one; nil: the same
	labelSeed [2]uint64     // of flow labels
	// Header is the outer IP header, Geo.Outer bytes: version, TTL, protocol
	// and addresses; length, ID, TOS and the IPv4 checksum are zero. The UDP
	// header follows, Geo.UDP bytes: ports; length and checksum are zero.
	Header [ipv6HeaderLen + udpHeaderLen]byte
	last   uint64      // the last sequence number there is
	Bundle []*Outbound // of what stands for a bundle: its SAs, the innermost first; else nil
	choice *choice     // of what stands for several SAs of which each packet takes one; else nil
	Usage
	seq atomic.Uint64 // last number given out; without ESN it can lie beyond last
	_   [56]byte
}

// NewOutbound makes an outbound SA. Its errors wrap ErrParams, and crypto's
// errors where the algorithms or keys are at fault.
func NewOutbound(p *Params) (*Outbound, error) {
	if p.Tunnel && p.Src.IsZero() {
		return nil, fmt.Errorf("new outbound SA: %w: tunnel source %v is no address: give both ends of the tunnel", ErrParams, p.Src)
	}
	sa, err := newSA(p)
	if err != nil {
		return nil, fmt.Errorf("new outbound SA: %w", err)
	}
	out := &Outbound{SA: sa, last: math.MaxUint32}
	if p.ESN {
		out.last = math.MaxUint64
	}
	out.seq.Store(p.Replay.Seq)
	out.ForgetPathMTU()
	if p.Tunnel {
		out.tos, out.labelSeed = p.Outer.tosTable(), newLabelSeed()
	}
	out.writeHeader(p.Encap)
	return out, nil
}

func (sa *Outbound) writeHeader(e Encap) {
	h, proto := sa.Header[:], sa.Proto
	if sa.Geo.UDP != 0 {
		proto = protoUDP
		udp := h[sa.Geo.Outer:]
		binary.BigEndian.PutUint16(udp, e.SrcPort)
		binary.BigEndian.PutUint16(udp[2:], e.DstPort)
	}
	switch sa.Geo.Outer {
	case ipv4HeaderLen:
		h[0], h[8], h[9] = 0x45, sa.Outer.ttl(), proto
		sa.Src.Put4(h[12:])
		sa.Dst.Put4(h[16:])
	case ipv6HeaderLen:
		h[0], h[6], h[7] = 0x60, proto, sa.Outer.ttl()
		sa.Src.Put16(h[8:])
		sa.Dst.Put16(h[24:])
	}
}

// Reserve takes the next n sequence numbers and returns the first, and how
// many it got: fewer than n when the SA has used up its numbers, 0 from then
// on (RFC 4303, section 3.3.3). The first number of an SA is 1. Any worker may
// call it; no number is ever given out twice.
//
// One atomic add does it while the end is half the number space away. An add
// that came late (its worker was stopped for long between Load and Add) may
// take the counter beyond the last number; what lies beyond is not granted.
// That cannot wrap 64 bits: with ESN the worker would have to sleep through
// 2^63 packets. Near the end a compare-and-swap takes what is left, exactly.
func (sa *Outbound) Reserve(n int) (first uint64, granted int) {
	if n <= 0 {
		return 0, 0
	}
	if n <= math.MaxInt32 && sa.seq.Load() < sa.last/2 {
		end := sa.seq.Add(uint64(n))
		first = end - uint64(n) + 1
		return sa.grant(first, uint64(n))
	}
	for {
		cur := sa.seq.Load()
		if cur >= sa.last {
			return 0, 0
		}
		run := min(uint64(n), sa.last-cur)
		if sa.seq.CompareAndSwap(cur, cur+run) {
			return cur + 1, int(run)
		}
	}
}

// grant cuts the run of n numbers at first down to those that exist.
func (sa *Outbound) grant(first, n uint64) (uint64, int) {
	if first > sa.last {
		return 0, 0
	}
	if left := sa.last - first; left < n-1 {
		n = left + 1
	}
	return first, int(n)
}

// Seq returns the last sequence number given out, 0 if none was.
func (sa *Outbound) Seq() uint64 { return min(sa.seq.Load(), sa.last) }

// Advance raises the last number given out to seq. It is false, and nothing
// changes, if seq lies beyond the last number there is or behind what was given
// out: no number is ever given out twice. Anyone may call it.
func (sa *Outbound) Advance(seq uint64) bool {
	for {
		cur := sa.seq.Load()
		if seq > sa.last || seq < cur {
			return false
		}
		if sa.seq.CompareAndSwap(cur, seq) {
			return true
		}
	}
}
