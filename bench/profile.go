package bench

import (
	"encoding/binary"
	"net/netip"

	"spigot/internal/flow"
	"spigot/internal/wire"
)

// Profile is the frame sizes of a traffic mix, in turn: bytes of an Ethernet
// frame without FCS.
type Profile struct {
	Name  string
	Sizes []int
}

// Profiles are the mixes that the benchmarks use: 64-byte frames, IMIX (64,
// 576 and 1400 bytes, 7:4:1, spread out) and frames of 1400 bytes.
func Profiles() []Profile {
	return []Profile{
		{"64", []int{64}},
		{"imix", []int{64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 64, 576}},
		{"1400", []int{1400}},
	}
}

// Mean returns the mean frame size in bytes.
func (p Profile) Mean() float64 {
	sum := 0
	for _, n := range p.Sizes {
		sum += n
	}
	return float64(sum) / float64(len(p.Sizes))
}

// UDP4 returns an Ethernet frame of size bytes to dstMAC with a UDP packet.
func UDP4(dstMAC [6]byte, src, dst netip.Addr, sport uint16, size int) []byte {
	f := make([]byte, size)
	wire.Ethernet(f).Put(&dstMAC, &[6]byte{2, 0, 0, 0, 0, 1}, wire.EtherTypeIPv4)
	ip := wire.IPv4(f[wire.EthernetLen:])
	from, to := flow.FromNetip(src), flow.FromNetip(dst)
	ip.Init(from, to, wire.ProtoUDP, 64, len(ip))
	udp := f[wire.EthernetLen+wire.IPv4Len:]
	binary.BigEndian.PutUint16(udp, sport)
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], wire.UpperChecksum(from, to, wire.ProtoUDP, udp))
	return f
}
