package wire

import (
	"testing"

	"pgregory.net/rapid"

	"spigot/internal/flow"
)

// syn makes a SYN with options, padded, and a right checksum.
func syn(src, dst flow.Addr, options []byte) TCP {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	h := make(TCP, TCPLen, TCPLen+len(options))
	h[1], h[3], h[7] = 80, 81, 9
	h[tcpDataOffset], h[tcpFlags] = byte(TCPLen+len(options))/4<<4, tcpSYN
	h = append(h, options...)
	be.PutUint16(h[tcpChecksum:], UpperChecksum(src, dst, ProtoTCP, h))
	return h
}

// Wherever the option stands, the size is the lesser one after, and the checksum
// is right.
func TestClampMSS(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src, dst := flow.V4(rapid.Uint32().Draw(t, "src")), flow.V4(rapid.Uint32().Draw(t, "dst"))
		front := rapid.SliceOfN(rapid.SampledFrom([][]byte{{1}, {3, 3, 7}, {4, 2}, {254, 5, 9, 9, 9}}), 0, 6).Draw(t, "front")
		was, most := rapid.Uint16().Draw(t, "was"), rapid.Uint16().Draw(t, "most")
		var options []byte
		for _, o := range front {
			options = append(options, o...)
		}
		at := TCPLen + len(options) + 2
		h := syn(src, dst, append(options, 2, 4, byte(was>>8), byte(was)))
		if got := h.ClampMSS(most); got != (was > most) {
			t.Fatalf("%d for at most %d: changed: %t", was, most, got)
		}
		if now := be.Uint16(h[at:]); now != min(was, most) {
			t.Fatalf("%d became %d, at most %d", was, now, most)
		}
		if UpperChecksum(src, dst, ProtoTCP, h) != 0 {
			t.Fatal("the checksum is wrong")
		}
	})
}

func TestClampMSSOfBadOptions(t *testing.T) {
	src, dst := flow.V4(1), flow.V4(2)
	for name, options := range map[string][]byte{
		"none":              {},
		"after the end":     {0, 2, 4, 255, 255},
		"length 0":          {3, 0, 2, 4, 255, 255, 0, 0},
		"length 1":          {3, 1, 2, 4, 255, 255, 0, 0},
		"too long":          {3, 200, 2, 4, 255, 255, 0, 0},
		"MSS of length 3":   {2, 3, 255, 1},
		"MSS beyond header": {1, 1, 2, 4},
		"kind alone":        {1, 1, 1, 2},
	} {
		h := syn(src, dst, options)
		was := string(h)
		if h.ClampMSS(1) || string(h) != was {
			t.Errorf("%s: changed to %x", name, h)
		}
	}
	h := syn(src, dst, []byte{2, 4, 5, 0xb4})
	for n := range len(h) { // cut off anywhere
		if TCP(h[:n]).SYN() {
			t.Errorf("a SYN in %d of %d bytes", n, len(h))
		}
	}
	h[tcpDataOffset] = 4 << 4
	if h.SYN() {
		t.Error("a SYN with a header of 16 bytes")
	}
	if h[tcpDataOffset], h[tcpFlags] = 6<<4, 0x10; h.SYN() {
		t.Error("an ACK is a SYN")
	}
}

func TestQuoted(t *testing.T) {
	v4 := func(fragment uint16, ihl byte, rest ...byte) []byte {
		q := make([]byte, IPv4Len)
		q[0], q[9] = 4<<4|ihl, ProtoESP
		be.PutUint16(q[6:], fragment)
		return append(q, rest...)
	}
	v6 := func(next byte, rest ...byte) []byte {
		q := make([]byte, IPv6Len)
		q[0], q[6] = 6<<4, next
		return append(q, rest...)
	}
	many := v6(ProtoDstOpts)
	for range 20 {
		many = append(many, ProtoDstOpts, 0, 0, 0, 0, 0, 0, 0)
	}
	for _, r := range []struct {
		name  string
		q     []byte
		proto uint8
		upper int // bytes; -1: not ok
	}{
		{"IPv4", v4(0, 5, 1, 2, 3), ProtoESP, 3},
		{"IPv4, nothing behind", v4(0, 5), ProtoESP, 0},
		{"IPv4, options", v4(0x4000, 6, 1, 2, 3, 4, 5), ProtoESP, 1},
		{"IPv4, first fragment", v4(0x2000, 5, 1), ProtoESP, 1},
		{"IPv4, later fragment", v4(1, 5, 1), 0, -1},
		{"IPv4, half a header", v4(0, 5)[:19], 0, -1},
		{"IPv4, options cut off", v4(0, 7, 1, 2), 0, -1},
		{"IPv4, header of 16 bytes", v4(0, 4, 1, 2), 0, -1},
		{"IPv6", v6(ProtoESP, 1, 2), ProtoESP, 2},
		{"IPv6, options", v6(ProtoDstOpts, ProtoESP, 0, 0, 0, 0, 0, 0, 0, 9), ProtoESP, 1},
		{"IPv6, options cut off", v6(ProtoDstOpts, ProtoESP, 1, 0, 0, 0, 0, 0, 0, 9), 0, -1},
		{"IPv6, first fragment", v6(ProtoFragment, ProtoESP, 0, 0, 1, 0, 0, 0, 0, 9), ProtoESP, 1},
		{"IPv6, later fragment", v6(ProtoFragment, ProtoESP, 0, 0, 9, 0, 0, 0, 0, 9), 0, -1},
		{"IPv6, half a header", v6(ProtoESP)[:39], 0, -1},
		{"IPv6, many options", many, 0, -1},
		{"version 5", []byte{0x50, 39: 0}, 0, -1},
		{"nothing", nil, 0, -1},
	} {
		proto, upper, ok := Quoted(r.q)
		if ok != (r.upper >= 0) || ok && (proto != r.proto || len(upper) != r.upper) {
			t.Errorf("%s: %d, %d bytes, %t", r.name, proto, len(upper), ok)
		}
	}
}
