package wire

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"spigot/internal/counter"
	"spigot/internal/flow"
)

func TestEthernet(t *testing.T) {
	plain := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x00, 0x45}
	tagged := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x81, 0x00, 0x6f, 0xfe, 0x86, 0xdd, 0x60}
	for _, c := range []struct {
		name    string
		frame   []byte
		want    counter.Reason
		typ     uint16
		vlan    uint16
		payload string
	}{
		{name: "empty", want: counter.Runt},
		{name: "13 bytes", frame: plain[:13], want: counter.Runt},
		{name: "header only", frame: plain[:14], typ: EtherTypeIPv4},
		{name: "IPv4", frame: plain, typ: EtherTypeIPv4, payload: "\x45"},
		{name: "tag cut off", frame: tagged[:17], want: counter.Runt},
		{name: "tagged IPv6", frame: tagged, typ: EtherTypeIPv6, vlan: 0xffe, payload: "\x60"},
		{name: "two tags", frame: edit(tagged, func(p []byte) { be.PutUint16(p[16:], EtherTypeVLAN) }), want: counter.BadEtherType},
		{name: "service tag", frame: edit(tagged, func(p []byte) { be.PutUint16(p[12:], EtherTypeQinQ) }), want: counter.BadEtherType},
		{name: "service tag inside", frame: edit(tagged, func(p []byte) { be.PutUint16(p[16:], EtherTypeQinQ) }), want: counter.BadEtherType},
		{name: "ARP", frame: edit(plain, func(p []byte) { be.PutUint16(p[12:], EtherTypeARP) }), typ: EtherTypeARP, payload: "\x45"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := Ethernet(c.frame)
			equal(t, "reason", h.Valid(), c.want)
			if c.want != counter.None {
				return
			}
			equal(t, "type", h.EtherType(), c.typ)
			equal(t, "VLAN", h.VLAN(), c.vlan)
			equal(t, "destination", *h.Dst(), [6]byte{1, 2, 3, 4, 5, 6})
			equal(t, "source", *h.Src(), [6]byte{7, 8, 9, 10, 11, 12})
			equal(t, "payload", string(h.Payload()), c.payload)
		})
	}
}

func TestEthernetPut(t *testing.T) {
	h := make(Ethernet, EthernetLen)
	h.Put(&[6]byte{1, 2, 3, 4, 5, 6}, &[6]byte{7, 8, 9, 10, 11, 12}, EtherTypeIPv6)
	want := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x86, 0xdd}
	if !bytes.Equal(h, want) {
		t.Errorf("header is %x, want %x", h, want)
	}
}

// A setter changes what it names and nothing else, and a right checksum stays
// right: the slow way to the same header is to write the bytes and to sum anew.
func TestIPv4SettersKeepTheChecksum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		options := rapid.SliceOfN(rapid.Byte(), 0, 10).Draw(t, "options")
		p := packet4(rapid.Byte().Draw(t, "proto"), make([]byte, 4*len(options)), udp8)
		copy(p[IPv4Len:], options)
		copy(p[v4ID:], rapid.SliceOfN(rapid.Byte(), 5, 5).Draw(t, "ID, fragment, TTL"))
		p[v4TTL] |= 1
		IPv4(p).UpdateChecksum()
		v := rapid.Uint16().Draw(t, "value")
		for name, set := range map[string]struct{ fast, slow func(p []byte) }{
			"TOS":  {func(p []byte) { SetTOS(p, uint8(v)) }, func(p []byte) { p[1] = uint8(v) }},
			"DSCP": {func(p []byte) { IPv4(p).SetDSCP(uint8(v) >> 2) }, func(p []byte) { p[1] = p[1]&3 | uint8(v)&^3 }},
			"ECN":  {func(p []byte) { IPv4(p).SetECN(uint8(v & 3)) }, func(p []byte) { p[1] = p[1]&^3 | uint8(v)&3 }},
			"length": {func(p []byte) { IPv4(p).SetTotalLen(v) },
				func(p []byte) { p[2], p[3] = uint8(v>>8), uint8(v) }},
			"ID": {func(p []byte) { IPv4(p).SetID(v) }, func(p []byte) { p[4], p[5] = uint8(v>>8), uint8(v) }},
			"DF": {func(p []byte) { IPv4(p).SetDontFragment() }, func(p []byte) { p[6] |= 0x40 }},
			"fragment": {func(p []byte) { IPv4(p).SetFragment(int(v&^7), v&1 != 0) }, func(p []byte) {
				p[6], p[7] = p[6]&0x40|uint8(v&1)<<5|uint8(v>>11), uint8(v>>3)
			}},
			"TTL":      {func(p []byte) { IPv4(p).SetTTL(uint8(v)) }, func(p []byte) { p[8] = uint8(v) }},
			"TTL-1":    {DecrementTTL, func(p []byte) { p[8]-- }},
			"protocol": {func(p []byte) { IPv4(p).SetProto(uint8(v)) }, func(p []byte) { p[9] = uint8(v) }},
		} {
			fast, slow := edit(p, set.fast), edit(p, set.slow)
			IPv4(slow).UpdateChecksum()
			// 0 and 0xffff are one number to one's complement, and both verify.
			if c := IPv4(fast).Checksum(); c == 0xffff {
				be.PutUint16(fast[v4Checksum:], 0)
			}
			if c := IPv4(slow).Checksum(); c == 0xffff {
				be.PutUint16(slow[v4Checksum:], 0)
			}
			if !bytes.Equal(fast, slow) {
				t.Errorf("%s: %x, want %x", name, fast, slow)
			}
		}
	})
}

func TestIPv4FillEqualsTheSetters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var template, want [IPv4Len]byte
		src, dst := flow.V4(rapid.Uint32().Draw(t, "src")), flow.V4(rapid.Uint32().Draw(t, "dst"))
		total := rapid.IntRange(IPv4Len, 65535).Draw(t, "total")
		tos, id := rapid.Uint8().Draw(t, "tos"), rapid.Uint16().Draw(t, "id")
		df := rapid.Bool().Draw(t, "df")

		h := IPv4(want[:])
		h.Init(src, dst, ProtoESP, 64, total)
		h.SetTOS(tos)
		h.SetID(id)
		if df {
			h.SetDontFragment()
		}
		IPv4(template[:]).Init(src, dst, ProtoESP, 64, 0)
		template[v4Checksum], template[v4Checksum+1] = 0, 0
		got := template
		IPv4(got[:]).Fill(tos, total, id, df)
		if got != want || Checksum(got[:]) != 0 {
			t.Fatalf("filled\n%x, by setters\n%x", got, want)
		}
	})
}

func TestIPv6Setters(t *testing.T) {
	p := packet6(ProtoUDP, udp8...)
	h := IPv6(p)
	h.SetFlowLabel(0xfabcde)
	equal(t, "flow label", h.FlowLabel(), 0xabcde)
	h.SetTrafficClass(0xb9)
	h.SetECN(CE)
	equal(t, "traffic class", h.TrafficClass(), 0xbb)
	h.SetDSCP(0x2a)
	equal(t, "DSCP", h.DSCP(), 0x2a)
	equal(t, "ECN", h.ECN(), CE)
	equal(t, "flow label beside it", h.FlowLabel(), 0xabcde)
	h.SetHopLimit(2)
	DecrementTTL(p)
	equal(t, "hop limit", h.HopLimit(), 1)
	h.SetNextHeader(ProtoESP)
	equal(t, "next header", h.NextHeader(), ProtoESP)
	h.SetPayloadLen(7)
	equal(t, "total length", h.TotalLen(), 47)
	equal(t, "version", h.Version(), 6)
	equal(t, "source", h.Src(), addr("2001:db8::1"))
	equal(t, "destination", h.Dst(), addr("2001:db8:1::2"))
}

func TestUpperFindsTheFragmentHeader(t *testing.T) {
	p := packet6(ProtoDstOpts, chain(ext(ProtoFragment, 1), fragment(ProtoUDP, 1400, true), udp8)...)
	u, r := IPv6(p).Upper()
	equal(t, "reason", r, counter.None)
	equal(t, "upper", u, Upper{Proto: ProtoUDP, Fragment: true, Off: 64, FragHeader: 56})
	f := FragmentHeader(p[u.FragHeader:])
	equal(t, "next header", f.NextHeader(), ProtoUDP)
	equal(t, "offset", f.Offset(), 1400)
	equal(t, "more", f.More(), true)
	equal(t, "ID", f.ID(), 0xdeadbeef)
}

func TestValid(t *testing.T) {
	ah := make([]byte, 24)
	AH(ah).Put(ProtoUDP, 24, 0x1000, 7)
	for _, c := range []struct {
		name string
		view interface{ Valid() counter.Reason }
		want counter.Reason
	}{
		{"ports", Ports(udp8[:4]), counter.None},
		{"ports cut off", Ports(udp8[:3]), counter.Runt},
		{"UDP", UDP(udp8), counter.None},
		{"UDP cut off", UDP(udp8[:7]), counter.Runt},
		{"UDP length below the header", UDP{0, 1, 0, 2, 0, 7, 0, 0}, counter.Runt},
		{"UDP length beyond the packet", UDP{0, 1, 0, 2, 0, 9, 0, 0}, counter.Runt},
		{"ESP", ESP(udp8), counter.None},
		{"ESP cut off", ESP(udp8[:7]), counter.BadESP},
		{"ICMP", ICMP(echo), counter.None},
		{"ICMP cut off", ICMP(echo[:7]), counter.Runt},
		{"AH", AH(ah), counter.None},
		{"AH without ICV", AH(edit(ah, func(p []byte) { p[1] = 1 })), counter.None},
		{"AH cut off", AH(ah[:11]), counter.Runt},
		{"AH length below the fixed fields", AH(edit(ah, func(p []byte) { p[1] = 0 })), counter.Runt},
		{"AH length beyond the packet", AH(ah[:23]), counter.Runt},
	} {
		equal(t, c.name, c.view.Valid(), c.want)
	}
}

func TestIPsecHeaders(t *testing.T) {
	esp := make(ESP, 9)
	esp.Put(0xdeadbeef, 7)
	equal(t, "ESP", string(esp), "\xde\xad\xbe\xef\x00\x00\x00\x07\x00")
	equal(t, "SPI", esp.SPI(), 0xdeadbeef)
	equal(t, "sequence", esp.Seq(), 7)

	ah := make(AH, 26)
	ah.Put(ProtoTCP, 24, 0xdeadbeef, 8)
	equal(t, "AH", string(ah[:AHLen]), "\x06\x04\x00\x00\xde\xad\xbe\xef\x00\x00\x00\x08")
	equal(t, "next header", ah.NextHeader(), ProtoTCP)
	equal(t, "SPI", ah.SPI(), 0xdeadbeef)
	equal(t, "sequence", ah.Seq(), 8)
	equal(t, "ICV length", len(ah.ICV()), 12)
	equal(t, "payload length", len(ah.Payload()), 2)
}

func TestICMPErrors(t *testing.T) {
	for _, c := range []struct {
		typ    uint8
		v4, v6 bool
	}{
		{ICMPEchoReply, false, true}, {ICMPv6Unreachable, false, true}, {ICMPv6PacketTooBig, false, true},
		{ICMPUnreachable, true, true}, {ICMPSourceQuench, true, true}, {ICMPRedirect, true, true},
		{ICMPEcho, false, true}, {ICMPTimeExceeded, true, true}, {ICMPParamProblem, true, true},
		{127, false, true}, {ICMPv6Echo, false, false}, {ICMPv6Redirect, false, true},
	} {
		h := make(ICMP, ICMPLen)
		h.Init(c.typ, 0, 0)
		if h.IsError(false) != c.v4 || h.IsError(true) != c.v6 {
			t.Errorf("type %d: error is %v in v4, %v in v6; want %v, %v", c.typ, h.IsError(false), h.IsError(true), c.v4, c.v6)
		}
	}
}
