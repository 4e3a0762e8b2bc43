package control

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"spigot/internal/fib"
	"spigot/internal/flow"
)

func addr(s string) flow.Addr { return flow.FromNetip(netip.MustParseAddr(s)) }

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// build serialises layers with right lengths and checksums.
func build(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, opts, ls...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ip4(src, dst string, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 9, Protocol: proto, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
}

func ip6(src, dst string, next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 9, NextHeader: next, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
}

func udp(ip gopacket.NetworkLayer) *layers.UDP {
	u := &layers.UDP{SrcPort: 1000, DstPort: 2000}
	if err := u.SetNetworkLayerForChecksum(ip); err != nil {
		panic(err)
	}
	return u
}

func udp4(t testing.TB, src, dst string, n int) []byte {
	ip := ip4(src, dst, layers.IPProtocolUDP)
	return build(t, ip, udp(ip), gopacket.Payload(bytes.Repeat([]byte{0xa5}, n)))
}

func udp6(t testing.TB, src, dst string, n int) []byte {
	ip := ip6(src, dst, layers.IPProtocolUDP)
	return build(t, ip, udp(ip), gopacket.Payload(bytes.Repeat([]byte{0xa5}, n)))
}

// TestICMPErrorsByteForByte holds the answers against bytes that scapy made.
func TestICMPErrorsByteForByte(t *testing.T) {
	const packet4 = "4500002000014000011165c60a0100020a020002" + "03e807d0000c0000deadbeef"
	const packet6 = "60000000000c1101" + "fd010000000000000000000000000002" + "fd020000000000000000000000000002" +
		"03e807d0000c0000deadbeef"
	const header4 = "45c0003c00070000400165f60a0100010a010002"
	const header6 = "60000000003c3a40" + "fd010000000000000000000000000001" + "fd010000000000000000000000000002"
	for _, c := range []struct {
		name         string
		kind         fib.PuntKind
		mtu          int
		src          string
		packet, want string
	}{
		{"fragmentation needed (RFC 1191, 4)", fib.PuntTooBig, 1438, "10.1.0.1", packet4, header4 + "03044dfc0000059e" + packet4},
		{"time exceeded (RFC 792)", fib.PuntTTL, 0, "10.1.0.1", packet4, header4 + "0b004b9e00000000" + packet4},
		{"packet too big (RFC 4443, 3.2)", fib.PuntTooBig, 1422, "fd01::1", packet6, header6 + "0200e97c0000058e" + packet6},
		{"hop limit exceeded (RFC 4443, 3.3)", fib.PuntTTL, 0, "fd01::1", packet6, header6 + "0300ee0a00000000" + packet6},
	} {
		var buf [maxError6]byte
		got := buf[:icmpError(buf[:], c.kind, c.mtu, 7, addr(c.src), unhex(t, c.packet))]
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%s:\n got %x\nwant %s", c.name, got, c.want)
		}
	}
}

// TestICMPErrorsByGopacket has another implementation read what is sent.
func TestICMPErrorsByGopacket(t *testing.T) {
	for _, c := range []struct {
		name   string
		packet []byte
		kind   fib.PuntKind
		mtu    int
		length int // of the whole answer
		rest   uint32
	}{
		{"short IPv4", udp4(t, "10.1.0.2", "10.2.0.2", 0), fib.PuntTooBig, 1400, 20 + 8 + 28, 1400},
		{"IPv4 quotes up to 576", udp4(t, "10.1.0.2", "10.2.0.2", 1472), fib.PuntTooBig, 1400, 576, 1400},
		{"IPv4 MTU is at least 68", udp4(t, "10.1.0.2", "10.2.0.2", 100), fib.PuntTooBig, 0, 20 + 8 + 128, 68},
		{"IPv4 TTL", udp4(t, "10.1.0.2", "10.2.0.2", 1), fib.PuntTTL, 9999, 20 + 8 + 29, 0},
		{"short IPv6", udp6(t, "fd01::2", "fd02::2", 0), fib.PuntTooBig, 1400, 40 + 8 + 48, 1400},
		{"IPv6 quotes up to 1280", udp6(t, "fd01::2", "fd02::2", 1452), fib.PuntTooBig, 1400, 1280, 1400},
		{"IPv6 MTU is at least 1280", udp6(t, "fd01::2", "fd02::2", 1452), fib.PuntTooBig, 600, 1280, 1280},
		{"IPv6 hop limit", udp6(t, "fd01::2", "fd02::2", 3), fib.PuntTTL, 9999, 40 + 8 + 51, 0},
		{"Ethernet's padding is not quoted", append(udp4(t, "10.1.0.2", "10.2.0.2", 0), 0, 0, 0, 0), fib.PuntTTL, 0, 20 + 8 + 28, 0},
	} {
		src, first, v6 := addr("10.1.0.1"), layers.LayerTypeIPv4, c.packet[0]>>4 == 6
		if v6 {
			src, first = addr("fd01::1"), layers.LayerTypeIPv6
		}
		buf := bytes.Repeat([]byte{0xee}, maxError6)
		got := buf[:icmpError(buf, c.kind, c.mtu, 1, src, c.packet)]
		if len(got) != c.length {
			t.Errorf("%s: %d bytes, want %d", c.name, len(got), c.length)
			continue
		}
		p := gopacket.NewPacket(got, first, gopacket.Default)
		if e := p.ErrorLayer(); e != nil {
			t.Errorf("%s: %v", c.name, e.Error())
			continue
		}
		flow := p.NetworkLayer().NetworkFlow()
		if flow.Src().String() != src.String() || flow.Dst().String() != map[bool]string{false: "10.1.0.2", true: "fd01::2"}[v6] {
			t.Errorf("%s: sent %v", c.name, flow)
		}
		var typ, want string
		var quote []byte
		var rest uint32
		if v6 {
			m := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
			if err := m.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
			typ, want = m.TypeCode.String(), "PacketTooBig"
			rest = uint32(m.Payload[0])<<24 | uint32(m.Payload[1])<<16 | uint32(m.Payload[2])<<8 | uint32(m.Payload[3])
			quote = m.Payload[4:]
			if c.kind == fib.PuntTTL {
				want = "TimeExceeded(HopLimitExceeded)"
			}
		} else {
			m := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
			typ, want = m.TypeCode.String(), "DestinationUnreachable(FragmentationNeeded)"
			rest, quote = uint32(m.Id)<<16|uint32(m.Seq), m.Payload
			if c.kind == fib.PuntTTL {
				want = "TimeExceeded(TTLExceeded)"
			}
		}
		if typ != want || rest != c.rest || !bytes.HasPrefix(c.packet, quote) {
			t.Errorf("%s: %s rest %d quoting %d bytes, want %s rest %d", c.name, typ, rest, len(quote), want, c.rest)
		}
		if err, wrong := p.VerifyChecksums(); err != nil || len(wrong) != 0 {
			t.Errorf("%s: %v, checksums %+v", c.name, err, wrong)
		}
	}
}

func TestWhatIsNeverAnswered(t *testing.T) {
	icmp4 := func(typ uint8) []byte {
		return build(t, ip4("10.1.0.2", "10.2.0.2", layers.IPProtocolICMPv4),
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, 0)})
	}
	icmp6 := func(typ uint8) []byte {
		ip := ip6("fd01::2", "fd02::2", layers.IPProtocolICMPv6)
		m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, 0)}
		if err := m.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		return build(t, ip, m, gopacket.Payload(make([]byte, 4)))
	}
	frag4 := func(offset uint16, flags layers.IPv4Flag) []byte {
		ip := ip4("10.1.0.2", "10.2.0.2", layers.IPProtocolUDP)
		ip.FragOffset, ip.Flags = offset, flags
		return build(t, ip, gopacket.Payload(make([]byte, 64)))
	}
	frag6 := func(offset uint16, more byte) []byte {
		ext := []byte{17, 0, byte(offset >> 5), byte(offset<<3) | more, 0, 0, 0, 9}
		return build(t, ip6("fd01::2", "fd02::2", layers.IPProtocolIPv6Fragment), gopacket.Payload(append(ext, make([]byte, 64)...)))
	}
	hopByHop := func(inner []byte) []byte { // puts a hop-by-hop header in front of an ICMPv6 message
		return build(t, ip6("fd01::2", "fd02::2", layers.IPProtocolIPv6HopByHop),
			gopacket.Payload(append([]byte{58, 0, 1, 4, 0, 0, 0, 0}, inner[40:]...)))
	}
	long := udp4(t, "10.1.0.2", "10.2.0.2", 4000)
	for _, c := range []struct {
		name   string
		packet []byte
		want   bool
	}{
		{"UDP over IPv4", udp4(t, "10.1.0.2", "10.2.0.2", 10), true},
		{"UDP over IPv6", udp6(t, "fd01::2", "fd02::2", 10), true},
		{"a packet of which only the start is there", long[:fib.PuntSize], true},
		{"the same over IPv6", udp6(t, "fd01::2", "fd02::2", 4000)[:fib.PuntSize], true},
		{"echo", icmp4(8), true},
		{"echo reply", icmp4(0), true},
		{"destination unreachable", icmp4(3), false},
		{"source quench", icmp4(4), false},
		{"redirect", icmp4(5), false},
		{"time exceeded", icmp4(11), false},
		{"parameter problem", icmp4(12), false},
		{"ICMPv6 echo", icmp6(128), true},
		{"ICMPv6 unreachable", icmp6(1), false},
		{"ICMPv6 too big", icmp6(2), false},
		{"ICMPv6 error of a type to come", icmp6(100), false},
		{"ICMPv6 redirect", icmp6(137), false},
		{"ICMPv6 error behind a hop-by-hop header", hopByHop(icmp6(1)), false},
		{"ICMPv6 echo behind a hop-by-hop header", hopByHop(icmp6(128)), true},
		{"first fragment", frag4(0, layers.IPv4MoreFragments), true},
		{"second fragment", frag4(8, layers.IPv4MoreFragments), false},
		{"last fragment", frag4(8, 0), false},
		{"first IPv6 fragment", frag6(0, 1), true},
		{"last IPv6 fragment", frag6(8, 0), false},
		{"from nobody", udp4(t, "0.0.0.0", "10.2.0.2", 1), false},
		{"from this network", udp4(t, "0.1.2.3", "10.2.0.2", 1), false},
		{"from loopback", udp4(t, "127.0.0.1", "10.2.0.2", 1), false},
		{"from multicast", udp4(t, "224.0.0.5", "10.2.0.2", 1), false},
		{"from broadcast", udp4(t, "255.255.255.255", "10.2.0.2", 1), false},
		{"to multicast", udp4(t, "10.1.0.2", "239.1.1.1", 1), false},
		{"to broadcast", udp4(t, "10.1.0.2", "255.255.255.255", 1), false},
		{"IPv6 from nobody", udp6(t, "::", "fd02::2", 1), false},
		{"IPv6 from loopback", udp6(t, "::1", "fd02::2", 1), false},
		{"IPv6 from multicast", udp6(t, "ff02::1", "fd02::2", 1), false},
		{"IPv6 to multicast", udp6(t, "fd01::2", "ff0e::1", 1), false},
		{"ICMPv6 echo to multicast", build(t, ip6("fd01::2", "ff0e::1", layers.IPProtocolICMPv6), gopacket.Payload(make([]byte, 8))), false},
		{"ICMP cut off behind its type", icmp4(8)[:21], false},
		{"ICMPv4 over IPv6", build(t, ip6("fd01::2", "fd02::2", layers.IPProtocolICMPv4), gopacket.Payload(make([]byte, 8))), false},
		{"nothing", nil, false},
		{"half a header", udp4(t, "10.1.0.2", "10.2.0.2", 1)[:15], false},
		{"half an IPv6 header", udp6(t, "fd01::2", "fd02::2", 1)[:39], false},
		{"no IP", []byte("this is no packet at all, however long"), false},
	} {
		to, got := answerable(c.packet, fib.PuntTTL)
		if got != c.want {
			t.Errorf("%s: answered %v, want %v", c.name, got, c.want)
		}
		if got && to != addr("10.1.0.2") && to != addr("fd01::2") {
			t.Errorf("%s: answer goes to %v", c.name, to)
		}
	}
}

// TestGarbageIsNoReasonToPanic feeds whatever a worker might copy.
func TestGarbageIsNoReasonToPanic(t *testing.T) {
	seeds := [][]byte{udp4(t, "10.1.0.2", "10.2.0.2", 40), udp6(t, "fd01::2", "fd02::2", 40)}
	rapid.Check(t, func(t *rapid.T) {
		packet := bytes.Clone(rapid.SampledFrom(seeds).Draw(t, "seed"))
		for range rapid.IntRange(0, 6).Draw(t, "edits") {
			packet[rapid.IntRange(0, len(packet)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		packet = packet[:rapid.IntRange(0, len(packet)).Draw(t, "length")]
		to, ok := answerable(packet, fib.PuntTooBig)
		if !ok {
			return
		}
		var buf [maxError6]byte
		n := icmpError(buf[:], fib.PuntTooBig, 1300, 1, to, packet)
		if _, again := answerable(buf[:n], fib.PuntTooBig); again {
			t.Fatal("an ICMP error would be answered with an ICMP error")
		}
	})
}

// The sender of a packet to an IPv6 group may hear that it is too big, and of no
// other packet to a group anything (RFC 4443, section 2.4 (e.3)).
func TestTooBigForAGroup(t *testing.T) {
	for _, c := range []struct {
		packet []byte
		kind   fib.PuntKind
		want   bool
	}{
		{udp6(t, "fd01::2", "ff0e::1", 1), fib.PuntTooBig, true},
		{udp6(t, "fd01::2", "ff0e::1", 1), fib.PuntTTL, false},
		{udp4(t, "10.1.0.2", "239.1.1.1", 1), fib.PuntTooBig, false},
		{udp6(t, "ff0e::2", "ff0e::1", 1), fib.PuntTooBig, false},
	} {
		if to, got := answerable(c.packet, c.kind); got != c.want || got && to != addr("fd01::2") {
			t.Errorf("% x, kind %d: %v, to %v, want %v", c.packet[:40], c.kind, got, to, c.want)
		}
	}
}
