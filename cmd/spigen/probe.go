package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"spigot/internal/flow"
	"spigot/internal/wire"
)

// A probe is the payload of a test packet, in big-endian order:
//
//	magic (4 bytes) | stream (4) | sequence (8) | time sent (8) | zeros
//
// The time is CLOCK_MONOTONIC in nanoseconds: latency is right when sender
// and sink run on one machine, be it in different network namespaces.
const (
	probeMagic = 0x53504947
	probeLen   = 24
)

// profile is how long packets are: frame sizes in turn.
type profile struct {
	name  string
	sizes []int // of the whole Ethernet frame without FCS
}

// imix is seven small, four middle and one large frame, spread out.
var imix = profile{"imix", []int{66, 576, 66, 66, 576, 66, 1400, 66, 576, 66, 66, 576}}

// parseProfile takes "imix" or a frame size in bytes.
func parseProfile(s string, v6 bool) (profile, error) {
	least := wire.EthernetLen + wire.IPv4Len + wire.UDPLen + probeLen
	if v6 {
		least += wire.IPv6Len - wire.IPv4Len
	}
	p := imix
	if s != "imix" {
		var n int
		if _, err := fmt.Sscanf(s, "%d", &n); err != nil || fmt.Sprint(n) != s {
			return p, fmt.Errorf("--size %q: want a frame size in bytes, or imix", s)
		}
		p = profile{s, []int{n}}
		if n < least || n > maxFrame {
			return p, fmt.Errorf("--size %d: a frame with a probe has %d to %d bytes here", n, least, maxFrame)
		}
	}
	sizes := make([]int, len(p.sizes))
	for i, n := range p.sizes {
		sizes[i] = max(n, least)
	}
	return profile{p.name, sizes}, nil
}

// maxFrame is the longest frame: it fits a chunk behind its headroom.
const maxFrame = 1514

// stream is what all packets of a run have in common.
type stream struct {
	id             uint32
	src, dst       netip.Addr
	srcMAC, dstMAC [6]byte
	dport          uint16
	flows          int // distinct source ports, from firstPort up
}

const firstPort = 10000

var errFamily = errors.New("source and destination are of different families")

func (s *stream) check() error {
	if s.src.Is4() != s.dst.Is4() {
		return fmt.Errorf("--src %v --dst %v: %w", s.src, s.dst, errFamily)
	}
	if s.flows < 1 || s.flows > 65535-firstPort {
		return fmt.Errorf("--flows %d: want 1 to %d", s.flows, 65535-firstPort)
	}
	return nil
}

// template is a finished frame of one size, but for source port, sequence,
// time and UDP checksum.
type template struct {
	bytes []byte
	udp   int    // where the UDP header starts
	sum   uint16 // partial checksum of all that does not change
}

// template builds the frame of size bytes.
func (s *stream) template(size int) template {
	t := template{bytes: make([]byte, size)}
	src, dst := flow.FromNetip(s.src), flow.FromNetip(s.dst)
	kind := uint16(wire.EtherTypeIPv4)
	ip := t.bytes[wire.EthernetLen:]
	if s.src.Is4() {
		t.udp = wire.EthernetLen + wire.IPv4Len
		h := wire.IPv4(ip)
		h.Init(src, dst, wire.ProtoUDP, 64, len(ip))
		h.SetDontFragment()
	} else {
		kind = wire.EtherTypeIPv6
		t.udp = wire.EthernetLen + wire.IPv6Len
		wire.IPv6(ip).Init(src, dst, wire.ProtoUDP, 64, len(ip)-wire.IPv6Len)
	}
	wire.Ethernet(t.bytes).Put(&s.dstMAC, &s.srcMAC, kind)
	udp := t.bytes[t.udp:]
	binary.BigEndian.PutUint16(udp[2:], s.dport)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint32(udp[wire.UDPLen:], probeMagic)
	binary.BigEndian.PutUint32(udp[wire.UDPLen+4:], s.id)
	t.sum = wire.Sum(udp, wire.PseudoSum(src, dst, wire.ProtoUDP, len(udp)))
	return t
}

// fill writes the packet with number seq, sent at now, over frame.
func (t *template) fill(frame []byte, port uint16, seq, now uint64) {
	copy(frame, t.bytes)
	udp := frame[t.udp:]
	binary.BigEndian.PutUint16(udp, port)
	probe := udp[wire.UDPLen+8 : wire.UDPLen+probeLen]
	binary.BigEndian.PutUint64(probe, seq)
	binary.BigEndian.PutUint64(probe[8:], now)
	sum := wire.Finish(wire.Sum(probe, wire.Sum(udp[:2], t.sum)))
	if sum == 0 {
		sum = 0xffff // RFC 768: 0 means that there is no checksum
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
}

// readProbe returns the probe in frame, if it is one to dport and came whole:
// one that was damaged on the way counts as lost.
func readProbe(frame []byte, dport uint16) (id uint32, seq, sent uint64, ok bool) {
	if len(frame) < wire.EthernetLen+wire.IPv4Len {
		return 0, 0, 0, false
	}
	at := wire.EthernetLen + wire.IPv4Len
	switch binary.BigEndian.Uint16(frame[12:]) {
	case wire.EtherTypeIPv4:
		if frame[wire.EthernetLen] != 0x45 || frame[wire.EthernetLen+9] != wire.ProtoUDP {
			return 0, 0, 0, false
		}
	case wire.EtherTypeIPv6:
		at = wire.EthernetLen + wire.IPv6Len
		if frame[wire.EthernetLen+6] != wire.ProtoUDP {
			return 0, 0, 0, false
		}
	default:
		return 0, 0, 0, false
	}
	if len(frame) < at+wire.UDPLen+probeLen {
		return 0, 0, 0, false
	}
	udp := frame[at:]
	if n := int(binary.BigEndian.Uint16(udp[4:])); n < wire.UDPLen+probeLen || n > len(udp) || !intact(frame[wire.EthernetLen:at], udp[:n]) {
		return 0, 0, 0, false
	}
	p := udp[wire.UDPLen:]
	if binary.BigEndian.Uint16(udp[2:]) != dport || binary.BigEndian.Uint32(p) != probeMagic {
		return 0, 0, 0, false
	}
	return binary.BigEndian.Uint32(p[4:]), binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint64(p[16:]), true
}

// intact checks the UDP checksum of udp behind the header ip.
func intact(ip, udp []byte) bool {
	src, dst := flow.From4(ip[12:]), flow.From4(ip[16:])
	if len(ip) == wire.IPv6Len {
		src, dst = flow.From16(ip[8:]), flow.From16(ip[24:])
	}
	return wire.UpperChecksum(src, dst, wire.ProtoUDP, udp) == 0
}

func mac6(m net.HardwareAddr) (b [6]byte) {
	copy(b[:], m)
	return b
}
