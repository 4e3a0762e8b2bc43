package wire

import (
	"encoding/binary"
	"net"
	"reflect"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"spigot/internal/counter"
	"spigot/internal/flow"
)

// sumSlowly is RFC 1071's definition, word by word.
func sumSlowly(b []byte, part uint16) uint16 {
	acc := uint32(part)
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		acc += w
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc)
}

func TestSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.OneOf(rapid.Byte(), rapid.Just(byte(0xff))), 0, 200).Draw(t, "bytes")
		part := rapid.Uint16().Draw(t, "part")
		got, want := Sum(b, part), sumSlowly(b, part)
		if got%0xffff != want%0xffff || (got == 0) != (want == 0) {
			t.Fatalf("Sum is %#x, want %#x", got, want)
		}
		cut := rapid.IntRange(0, len(b)/2).Draw(t, "cut") * 2
		if pieces := Sum(b[cut:], Sum(b[:cut], part)); pieces != got {
			t.Fatalf("Sum in two pieces is %#x, in one %#x", pieces, got)
		}
	})
}

// The example of RFC 1071, section 3.
func TestSumExample(t *testing.T) {
	equal(t, "sum", Sum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0), 0xddf2)
}

// The example of RFC 1624, section 4, for which RFC 1141 gave 0xffff.
func TestAdjust(t *testing.T) {
	equal(t, "checksum", adjust(0xdd2f, 0x5555, 0x3285), 0x0000)
}

// made is a packet that gopacket serialised, and what Classify must say of it.
type made struct {
	ip    []byte
	tuple flow.Tuple
	info  IPInfo
}

// drawTransport draws an upper-layer packet whose checksum covers network.
func drawTransport(t *rapid.T, network gopacket.NetworkLayer, tuple *flow.Tuple) gopacket.SerializableLayer {
	tuple.SrcPort, tuple.DstPort = rapid.Uint16().Draw(t, "sport"), rapid.Uint16().Draw(t, "dport")
	switch tuple.Proto {
	case ProtoTCP:
		l := &layers.TCP{SrcPort: layers.TCPPort(tuple.SrcPort), DstPort: layers.TCPPort(tuple.DstPort), SYN: true}
		l.SetNetworkLayerForChecksum(network)
		return l
	case ProtoUDP:
		l := &layers.UDP{SrcPort: layers.UDPPort(tuple.SrcPort), DstPort: layers.UDPPort(tuple.DstPort)}
		l.SetNetworkLayerForChecksum(network)
		return l
	case ProtoICMP:
		tuple.DstPort = 0
		return &layers.ICMPv4{TypeCode: layers.ICMPv4TypeCode(tuple.SrcPort)}
	case ProtoICMPv6:
		tuple.DstPort = 0
		l := &layers.ICMPv6{TypeCode: layers.ICMPv6TypeCode(tuple.SrcPort)}
		l.SetNetworkLayerForChecksum(network)
		return l
	}
	tuple.SrcPort, tuple.DstPort, tuple.NoPorts = 0, 0, true
	return gopacket.Payload("no ports")
}

func serialize(t *rapid.T, ls ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		t.Fatalf("gopacket: %v", err)
	}
	return b.Bytes()
}

func draw4(t *rapid.T) made {
	var m made
	src, dst := rapid.Uint32().Draw(t, "src"), rapid.Uint32().Draw(t, "dst")
	h := &layers.IPv4{
		Version: 4, TOS: rapid.Byte().Draw(t, "tos"), TTL: rapid.Byte().Draw(t, "ttl"), Id: rapid.Uint16().Draw(t, "id"),
		SrcIP: binary.BigEndian.AppendUint32(nil, src), DstIP: binary.BigEndian.AppendUint32(nil, dst),
		Protocol: layers.IPProtocol(rapid.SampledFrom([]byte{1, 4, 6, 17, 47, 50, 51}).Draw(t, "proto")),
	}
	if rapid.Bool().Draw(t, "options") {
		h.Options = []layers.IPv4Option{{OptionType: 7, OptionLength: 7, OptionData: make([]byte, 5)}}
	}
	m.tuple = flow.Tuple{Src: flow.V4(src), Dst: flow.V4(dst), Proto: uint8(h.Protocol)}
	upper := drawTransport(t, h, &m.tuple)
	payload := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "payload")
	if rapid.Bool().Draw(t, "fragment") {
		h.FragOffset = rapid.Uint16Range(0, 0x1fff).Draw(t, "offset")
		h.Flags = layers.IPv4Flag(rapid.IntRange(0, 3).Draw(t, "flags"))
		if m.info.Fragment = h.FragOffset != 0 || h.Flags&layers.IPv4MoreFragments != 0; m.info.Fragment {
			m.tuple.SrcPort, m.tuple.DstPort, m.tuple.NoPorts = 0, 0, true
		}
	}
	m.ip = serialize(t, h, upper, gopacket.Payload(payload))
	m.info.Len, m.info.HeaderLen, m.info.Proto = h.Length, uint16(h.IHL)*4, uint8(h.Protocol)
	m.info.TTL, m.info.TOS = h.TTL, h.TOS
	return m
}

func draw6(t *rapid.T) made {
	var m made
	bytes16 := func(name string) net.IP {
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name)
		b[0] |= 0x20 // neither :: nor mapped
		return b
	}
	h := &layers.IPv6{
		Version: 6, TrafficClass: rapid.Byte().Draw(t, "tc"), HopLimit: rapid.Byte().Draw(t, "ttl"),
		FlowLabel: rapid.Uint32Range(0, 0xfffff).Draw(t, "label"), SrcIP: bytes16("src"), DstIP: bytes16("dst"),
	}
	proto := layers.IPProtocol(rapid.SampledFrom([]byte{4, 6, 17, 41, 50, 51, 58}).Draw(t, "proto"))
	m.tuple = flow.Tuple{Src: flow.From16(h.SrcIP), Dst: flow.From16(h.DstIP), Proto: uint8(proto)}
	upper := drawTransport(t, h, &m.tuple)
	m.info = IPInfo{HeaderLen: 40, Proto: uint8(proto), TTL: h.HopLimit, TOS: h.TrafficClass, V6: true}
	ls := []gopacket.SerializableLayer{h}
	h.NextHeader = proto
	if rapid.Bool().Draw(t, "destination options") {
		o := &layers.IPv6Destination{}
		o.NextHeader = proto
		o.Options = []*layers.IPv6DestinationOption{{OptionType: 30, OptionData: make([]byte, 4+8*rapid.IntRange(0, 9).Draw(t, "option"))}}
		h.NextHeader = layers.IPProtocolIPv6Destination
		b := gopacket.NewSerializeBuffer()
		if err := o.SerializeTo(b, gopacket.SerializeOptions{FixLengths: true}); err != nil {
			t.Fatal(err)
		}
		m.info.HeaderLen += uint16(len(b.Bytes()))
		ls = append(ls, o)
	}
	payload := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "payload")
	m.ip = serialize(t, append(ls, upper, gopacket.Payload(payload))...)
	m.info.Len = 40 + h.Length
	return m
}

func drawPacket(t *rapid.T) made {
	if rapid.Bool().Draw(t, "v6") {
		return draw6(t)
	}
	return draw4(t)
}

func TestClassifyAgreesWithGopacket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawPacket(t)
		var tuple flow.Tuple
		info, r := Classify(append(m.ip, make([]byte, rapid.IntRange(0, 46).Draw(t, "padding"))...), &tuple)
		if r != counter.None || tuple != m.tuple || info != m.info {
			t.Fatalf("%x: %v\n got %v %+v\nwant %v %+v", m.ip, r, tuple, info, m.tuple, m.info)
		}
	})
}

func TestChecksumsAgreeWithGopacket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawPacket(t)
		if !m.info.V6 {
			want := IPv4(m.ip).Checksum()
			IPv4(m.ip).UpdateChecksum()
			if got := IPv4(m.ip).Checksum(); got != want {
				t.Fatalf("header checksum is %#x, want %#x", got, want)
			}
		}
		upper := m.ip[m.info.HeaderLen:m.info.Len]
		var got uint16
		switch m.info.Proto {
		case ProtoTCP, ProtoUDP, ProtoICMPv6:
			got = UpperChecksum(m.tuple.Src, m.tuple.Dst, m.info.Proto, upper)
		case ProtoICMP:
			got = Checksum(upper)
		}
		if got != 0 {
			t.Fatalf("checksum over %x and its checksum is %#x, want 0", upper, got)
		}
	})
}

// What Init and UpdateChecksum write, gopacket reads.
func TestGopacketReadsWhatWeWrite(t *testing.T) {
	src4, dst4 := addr("192.0.2.1"), addr("198.51.100.2")
	p := make([]byte, IPv4Len+ICMPLen+4)
	IPv4(p).Init(src4, dst4, ProtoICMP, 63, len(p))
	m := ICMP(p[IPv4Len:])
	m.Init(ICMPUnreachable, ICMPFragNeeded, 1400)
	m.UpdateChecksum4()
	equal(t, "MTU", m.MTU4(), 1400)
	g := gopacket.NewPacket(p, layers.LayerTypeIPv4, gopacket.Default)
	icmp, _ := g.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	if icmp == nil || icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || icmp.Seq != 1400 || Checksum(m) != 0 {
		t.Errorf("ICMPv4 is %v", g)
	}
	ip4 := g.NetworkLayer().(*layers.IPv4)
	if ip4.SrcIP.String() != "192.0.2.1" || ip4.DstIP.String() != "198.51.100.2" || ip4.TTL != 63 || Checksum(p[:IPv4Len]) != 0 {
		t.Errorf("IPv4 is %+v", ip4)
	}

	src6, dst6 := addr("2001:db8::1"), addr("2001:db8::2")
	p = make([]byte, IPv6Len+UDPLen+5)
	IPv6(p).Init(src6, dst6, ProtoUDP, 63, UDPLen+5)
	u := UDP(p[IPv6Len:])
	u.Init(4500, 4501, len(u))
	u.SetChecksum(UpperChecksum(src6, dst6, ProtoUDP, u))
	g = gopacket.NewPacket(p, layers.LayerTypeIPv6, gopacket.Default)
	got, _ := g.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if got == nil || got.SrcPort != 4500 || got.DstPort != 4501 || got.Length != 13 || got.Checksum != u.Checksum() {
		t.Errorf("UDP is %v", g)
	}
	if ip := g.NetworkLayer().(*layers.IPv6); ip.HopLimit != 63 || ip.Length != 13 || ip.DstIP.String() != "2001:db8::2" {
		t.Errorf("IPv6 is %+v", ip)
	}
	if c := UpperChecksum(src6, dst6, ProtoUDP, u); c != 0 {
		t.Errorf("checksum over itself is %#x", c)
	}
}

// touch calls every accessor of a valid view: none may panic.
func touch(view interface{ Valid() counter.Reason }) {
	if view.Valid() != counter.None {
		return
	}
	v := reflect.ValueOf(view)
	for i := range v.NumMethod() {
		if m := v.Method(i); m.Type().NumIn() == 0 {
			m.Call(nil)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(packet4(ProtoUDP, nil, udp8))
	f.Add(packet4(ProtoICMP, make([]byte, 8), echo))
	f.Add(fragment4(packet4(ProtoTCP, nil, udp8), 8, true))
	f.Add(packet6(ProtoHopByHop, chain(ext(ProtoDstOpts, 0), ext(ProtoUDP, 2), udp8)...))
	f.Add(packet6(ProtoFragment, chain(fragment(ProtoUDP, 0, true), udp8)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		touch(Ethernet(b))
		touch(IPv4(edit(b, func([]byte) {})))
		touch(IPv6(b))
		touch(Ports(b))
		touch(UDP(b))
		touch(ESP(b))
		touch(AH(b))
		touch(ICMP(edit(b, func([]byte) {})))
		var tuple flow.Tuple
		info, r := Classify(b, &tuple)
		if r != counter.None {
			return
		}
		if info.HeaderLen > info.Len || int(info.Len) > len(b) || tuple.Proto != info.Proto {
			t.Fatalf("%+v of %d bytes, protocol %d", info, len(b), tuple.Proto)
		}
		agree(t, b, info, tuple)
	})
}

// agree compares with gopacket, as far as that can read the packet.
func agree(t *testing.T, b []byte, info IPInfo, tuple flow.Tuple) {
	first := gopacket.Decoder(layers.LayerTypeIPv4)
	if info.V6 {
		first = layers.LayerTypeIPv6
	}
	g := gopacket.NewPacket(b[:info.Len], first, gopacket.NoCopy)
	if g.ErrorLayer() != nil || g.Metadata().Truncated {
		return
	}
	e := g.NetworkLayer().NetworkFlow()
	if string(e.Src().Raw()) != string(tuple.Src.Netip().AsSlice()) || string(e.Dst().Raw()) != string(tuple.Dst.Netip().AsSlice()) {
		t.Fatalf("addresses %v and %v, gopacket has %v", tuple.Src, tuple.Dst, e)
	}
	if info.Proto == ProtoICMP || info.Proto == ProtoICMPv6 {
		return // and gopacket walks on to the transport layer of the packet inside
	}
	if n := g.TransportLayer(); n != nil && !tuple.NoPorts {
		e := n.TransportFlow()
		if be.Uint16(e.Src().Raw()) != tuple.SrcPort || be.Uint16(e.Dst().Raw()) != tuple.DstPort {
			t.Fatalf("ports %d and %d, gopacket has %v", tuple.SrcPort, tuple.DstPort, e)
		}
	}
}
