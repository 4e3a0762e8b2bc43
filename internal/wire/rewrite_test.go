package wire

import (
	"bytes"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/flow"
)

// SetUpper finds the next-header field that names the upper layer, wherever it
// stands, and leaves everything else alone.
func TestSetUpper(t *testing.T) {
	for _, c := range []struct {
		name string
		ip   []byte
		at   int // where the protocol's number stands
	}{
		{"IPv4", packet4(ProtoUDP, nil, udp8), v4Proto},
		{"IPv4 with options", packet4(ProtoUDP, []byte{148, 4, 0, 0}, udp8), v4Proto},
		{"IPv6", packet6(ProtoUDP, udp8...), v6NextHeader},
		{"IPv6 with a hop-by-hop header", packet6(ProtoHopByHop, chain(ext(ProtoUDP, 1), udp8)...), 40},
		{"IPv6 with three headers", packet6(ProtoHopByHop, chain(ext(ProtoDstOpts, 2), ext(ProtoFragment, 0),
			fragment(ProtoUDP, 0, false), udp8)...), 40 + 24 + 8},
	} {
		var tu flow.Tuple
		info, r := Classify(c.ip, &tu)
		if r != counter.None || c.ip[c.at] != ProtoUDP {
			t.Fatalf("%s: %v", c.name, r)
		}
		got := edit(c.ip, func(p []byte) { SetUpper(p, int(info.HeaderLen), ProtoESP, len(p)-4) })
		again, r := Classify(got, &tu)
		if r != counter.None || again.Proto != ProtoESP || int(again.Len) != len(c.ip)-4 || again.HeaderLen != info.HeaderLen {
			t.Errorf("%s: %v %+v", c.name, r, again)
		}
		SetUpper(got, int(info.HeaderLen), ProtoUDP, len(c.ip))
		if !bytes.Equal(got, c.ip) {
			t.Errorf("%s: and back: %x, want %x", c.name, got, c.ip)
		}
	}
}

// The checksum that was right for one pair of addresses becomes right for
// another; what has none, or ends before it, stays as it is.
func TestRenewChecksum(t *testing.T) {
	body := []byte("the quick brown fox jumps over the lazy dog")
	for _, c := range []struct {
		name     string
		src, dst string
		proto    uint8
		p        []byte
		at       int // of the checksum; 0: it stays as it is
	}{
		{"TCP", "192.0.2.1", "198.51.100.2", ProtoTCP, body, 16},
		{"TCP over IPv6", "2001:db8::1", "2001:db8::2", ProtoTCP, body, 16},
		{"UDP", "192.0.2.1", "198.51.100.2", ProtoUDP, body, 6},
		{"ICMPv6", "2001:db8::1", "2001:db8::2", ProtoICMPv6, body, 2},
		{"the shortest UDP", "192.0.2.1", "198.51.100.2", ProtoUDP, udp8[:6:6], 0},
		{"UDP without a checksum", "192.0.2.1", "198.51.100.2", ProtoUDP, udp8, 0},
		{"half a TCP header", "192.0.2.1", "198.51.100.2", ProtoTCP, body[:17], 0},
		{"SCTP", "192.0.2.1", "198.51.100.2", ProtoSCTP, body, 0},
		{"ICMP", "192.0.2.1", "198.51.100.2", ProtoICMP, echo, 0},
	} {
		got := edit(c.p, func(p []byte) { RenewChecksum(addr(c.src), addr(c.dst), c.proto, p) })
		if c.at == 0 {
			if !bytes.Equal(got, c.p) {
				t.Errorf("%s: %x, want %x", c.name, got, c.p)
			}
			continue
		}
		if UpperChecksum(addr(c.src), addr(c.dst), c.proto, got) != 0 {
			t.Errorf("%s: the checksum of %x is wrong", c.name, got)
		}
		if again := edit(got, func(p []byte) { p[c.at], p[c.at+1] = c.p[c.at], c.p[c.at+1] }); !bytes.Equal(again, c.p) {
			t.Errorf("%s: more than the checksum has changed: %x", c.name, got)
		}
	}
	// RFC 768: a sum of 0 is sent as 0xffff.
	zero := []byte{0x13, 0x88, 0, 0x35, 0, 10, 1, 1, 0, 0}
	be.PutUint16(zero[8:], UpperChecksum(addr("192.0.2.1"), addr("198.51.100.2"), ProtoUDP, edit(zero, func(p []byte) { p[6], p[7] = 0, 0 })))
	if RenewChecksum(addr("192.0.2.1"), addr("198.51.100.2"), ProtoUDP, zero); zero[6] != 0xff || zero[7] != 0xff {
		t.Errorf("a sum of 0 was written as %x", zero[6:8])
	}
}
