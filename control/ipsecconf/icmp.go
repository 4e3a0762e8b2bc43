package ipsecconf

import (
	"math"

	"spigot/internal/flow"
)

// icmpType is what a flow selects of ICMP (RFC 4301, section 4.4.1.1).
type icmpType struct {
	pos       Position // zero: nothing
	typ, code uint8
	anyCode   bool
	opaque    bool // of packets that do not show it
}

// icmpType reads "T [code C]" or "opaque"; the cursor is behind icmp-type, at pos.
func (c *cursor) icmpType(pos Position) (icmpType, *Error) {
	t := icmpType{pos: pos, anyCode: true}
	if t.opaque = c.accept("opaque"); t.opaque {
		return t, nil
	}
	n, err := c.number("icmp-type", 0, math.MaxUint8)
	if err != nil {
		return t, err
	}
	if t.typ = uint8(n); c.accept("code") {
		n, err = c.number("code", 0, math.MaxUint8)
		t.code, t.anyCode = uint8(n), false
	}
	return t, err
}

// check says what does not go with t, which a flow of protos names.
func (t *icmpType) check(protos []uint8) *Error {
	if t.pos == (Position{}) {
		return nil
	}
	for _, n := range protos {
		if n != protoICMP && n != protoICMPv6 {
			return errorAt(t.pos, "\"icmp-type\" needs ICMP: add \"proto icmp\" or \"proto ipv6-icmp\" before \"from\"")
		}
	}
	return nil
}

// ports returns t as selectors have it, in the place of the source port; any if
// it is not given.
func (t *icmpType) ports(other flow.PortRange) flow.PortRange {
	if t.pos == (Position{}) {
		return other
	}
	if t.opaque {
		return flow.OpaquePort
	}
	lo, hi := uint16(t.typ)<<8|uint16(t.code), uint16(t.typ)<<8|uint16(t.code)
	if t.anyCode {
		lo, hi = uint16(t.typ)<<8, uint16(t.typ)<<8|math.MaxUint8
	}
	return flow.PortRange{Lo: lo, Hi: hi}
}
