package wire

import (
	"bytes"
	"slices"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/flow"
)

var (
	udp8 = []byte{0x13, 0x88, 0x00, 0x35, 0, 8, 0, 0} // 5000 -> 53
	echo = []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}
)

// ext returns an extension header of 8*(n+1) bytes with padding options.
func ext(next uint8, n int) []byte {
	b := make([]byte, 8*(n+1))
	b[0], b[1] = next, uint8(n)
	return b
}

func fragment(next uint8, offset int, more bool) []byte {
	b := make([]byte, FragmentLen)
	FragmentHeader(b).Put(next, offset, more, 0xdeadbeef)
	return b
}

func chain(parts ...[]byte) []byte { return slices.Concat(parts...) }

func fragment4(p []byte, offset int, more bool) []byte {
	return edit(p, func(p []byte) { IPv4(p).SetFragment(offset, more) })
}

func TestClassify(t *testing.T) {
	src4, dst4 := addr("192.0.2.1"), addr("198.51.100.2")
	src6, dst6 := addr("2001:db8::1"), addr("2001:db8:1::2")
	opts := []byte{148, 4, 0, 0} // router alert
	for _, c := range []struct {
		name  string
		ip    []byte
		tuple flow.Tuple
		info  IPInfo
	}{
		{"UDP", packet4(ProtoUDP, nil, udp8),
			flow.Tuple{Src: src4, Dst: dst4, SrcPort: 5000, DstPort: 53, Proto: 17},
			IPInfo{Len: 28, HeaderLen: 20, Proto: 17, TTL: 64}},
		{"options", packet4(ProtoUDP, opts, udp8),
			flow.Tuple{Src: src4, Dst: dst4, SrcPort: 5000, DstPort: 53, Proto: 17},
			IPInfo{Len: 32, HeaderLen: 24, Proto: 17, TTL: 64}},
		{"Ethernet padding", append(packet4(ProtoUDP, nil, udp8), make([]byte, 18)...),
			flow.Tuple{Src: src4, Dst: dst4, SrcPort: 5000, DstPort: 53, Proto: 17},
			IPInfo{Len: 28, HeaderLen: 20, Proto: 17, TTL: 64}},
		{"TOS", edit(packet4(ProtoTCP, nil, udp8), func(p []byte) { SetTOS(p, 0xb9) }),
			flow.Tuple{Src: src4, Dst: dst4, SrcPort: 5000, DstPort: 53, Proto: 6},
			IPInfo{Len: 28, HeaderLen: 20, Proto: 6, TTL: 64, TOS: 0xb9}},
		{"ICMP", packet4(ProtoICMP, nil, []byte{3, 4, 0, 0}),
			flow.Tuple{Src: src4, Dst: dst4, SrcPort: 3<<8 | 4, Proto: 1},
			IPInfo{Len: 24, HeaderLen: 20, Proto: 1, TTL: 64}},
		{"ESP", packet4(ProtoESP, nil, udp8),
			flow.Tuple{Src: src4, Dst: dst4, Proto: 50, NoPorts: true},
			IPInfo{Len: 28, HeaderLen: 20, Proto: 50, TTL: 64}},
		{"no payload", packet4(ProtoESP, nil, nil),
			flow.Tuple{Src: src4, Dst: dst4, Proto: 50, NoPorts: true},
			IPInfo{Len: 20, HeaderLen: 20, Proto: 50, TTL: 64}},
		{"first fragment", fragment4(packet4(ProtoUDP, nil, udp8), 0, true),
			flow.Tuple{Src: src4, Dst: dst4, Proto: 17, NoPorts: true},
			IPInfo{Len: 28, HeaderLen: 20, Proto: 17, TTL: 64, Fragment: true}},
		{"last fragment", fragment4(packet4(ProtoUDP, nil, udp8[:1]), 8, false),
			flow.Tuple{Src: src4, Dst: dst4, Proto: 17, NoPorts: true},
			IPInfo{Len: 21, HeaderLen: 20, Proto: 17, TTL: 64, Fragment: true}},

		{"v6 UDP", packet6(ProtoUDP, udp8...),
			flow.Tuple{Src: src6, Dst: dst6, SrcPort: 5000, DstPort: 53, Proto: 17},
			IPInfo{Len: 48, HeaderLen: 40, Proto: 17, TTL: 64, V6: true}},
		{"v6 traffic class", edit(packet6(ProtoSCTP, udp8...), func(p []byte) { SetTOS(p, 0xb9) }),
			flow.Tuple{Src: src6, Dst: dst6, SrcPort: 5000, DstPort: 53, Proto: 132},
			IPInfo{Len: 48, HeaderLen: 40, Proto: 132, TTL: 64, TOS: 0xb9, V6: true}},
		{"ICMPv6", packet6(ProtoICMPv6, 128, 0, 0, 0),
			flow.Tuple{Src: src6, Dst: dst6, SrcPort: 128 << 8, Proto: 58},
			IPInfo{Len: 44, HeaderLen: 40, Proto: 58, TTL: 64, V6: true}},
		{"v6 no next header", packet6(ProtoNoNext, 0),
			flow.Tuple{Src: src6, Dst: dst6, Proto: 59, NoPorts: true},
			IPInfo{Len: 41, HeaderLen: 40, Proto: 59, TTL: 64, V6: true}},
		{"v6 options", packet6(ProtoHopByHop, chain(ext(ProtoDstOpts, 0), ext(ProtoUDP, 2), udp8)...),
			flow.Tuple{Src: src6, Dst: dst6, SrcPort: 5000, DstPort: 53, Proto: 17},
			IPInfo{Len: 80, HeaderLen: 72, Proto: 17, TTL: 64, V6: true}},
		{"v6 atomic fragment", packet6(ProtoFragment, chain(fragment(ProtoDstOpts, 0, false), ext(ProtoUDP, 0), udp8)...),
			flow.Tuple{Src: src6, Dst: dst6, SrcPort: 5000, DstPort: 53, Proto: 17},
			IPInfo{Len: 64, HeaderLen: 56, Proto: 17, TTL: 64, V6: true}},
		{"v6 first fragment", packet6(ProtoDstOpts, chain(ext(ProtoFragment, 0), fragment(ProtoUDP, 0, true), udp8)...),
			flow.Tuple{Src: src6, Dst: dst6, Proto: 17, NoPorts: true},
			IPInfo{Len: 64, HeaderLen: 56, Proto: 17, TTL: 64, V6: true, Fragment: true}},
		{"v6 last fragment", packet6(ProtoFragment, chain(fragment(ProtoUDP, 8, false), udp8[:1])...),
			flow.Tuple{Src: src6, Dst: dst6, Proto: 17, NoPorts: true},
			IPInfo{Len: 49, HeaderLen: 48, Proto: 17, TTL: 64, V6: true, Fragment: true}},
		{"v6 eight extension headers", packet6(ProtoDstOpts, chain(bytes.Repeat(ext(ProtoDstOpts, 0), 7), ext(ProtoUDP, 0), udp8)...),
			flow.Tuple{Src: src6, Dst: dst6, SrcPort: 5000, DstPort: 53, Proto: 17},
			IPInfo{Len: 112, HeaderLen: 104, Proto: 17, TTL: 64, V6: true}},
		{"v6 ESP behind options", packet6(ProtoDstOpts, chain(ext(ProtoESP, 0), udp8)...),
			flow.Tuple{Src: src6, Dst: dst6, Proto: 50, NoPorts: true},
			IPInfo{Len: 56, HeaderLen: 48, Proto: 50, TTL: 64, V6: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tuple := flow.Tuple{SrcPort: 1, DstPort: 2, NoPorts: true, Proto: 3} // left over from the last packet
			info, r := Classify(c.ip, &tuple)
			equal(t, "reason", r, counter.None)
			equal(t, "tuple", tuple, c.tuple)
			equal(t, "info", info, c.info)
		})
	}
}

func TestClassifyRefuses(t *testing.T) {
	v4, v6 := packet4(ProtoUDP, nil, udp8), packet6(ProtoUDP, udp8...)
	// set4 changes a byte of an IPv4 header and repairs the checksum.
	set4 := func(off int, v byte) []byte {
		return edit(v4, func(p []byte) {
			p[off] = v
			if n := IPv4(p).HeaderLen(); n <= len(p) {
				IPv4(p).UpdateChecksum()
			}
		})
	}
	set6 := func(off int, v byte) []byte { return edit(v6, func(p []byte) { p[off] = v }) }
	addr6 := func(off int, a string) []byte { return edit(v6, func(p []byte) { addr(a).Put16(p[off:]) }) }
	mapped := func(off int) []byte { return edit(v6, func(p []byte) { flow.V4(0x0a000001).Put16(p[off:]) }) }
	for _, c := range []struct {
		name string
		ip   []byte
		want counter.Reason
	}{
		{"nothing", nil, counter.Runt},
		{"one byte", []byte{0x45}, counter.Runt},
		{"19 bytes", v4[:19], counter.Runt},
		{"version 0", set4(v4VersionIHL, 0x05), counter.BadIPHeader},
		{"version 5", set4(v4VersionIHL, 0x55), counter.BadIPHeader},
		{"IHL 4", set4(v4VersionIHL, 0x44), counter.BadIPHeader},
		{"IHL beyond the packet", set4(v4VersionIHL, 0x4f), counter.BadIPHeader},
		{"total length below the header", set4(v4TotalLen+1, 19), counter.BadIPHeader},
		{"total length below the options", edit(packet4(ProtoESP, make([]byte, 8), nil), func(p []byte) { IPv4(p).SetTotalLen(24) }), counter.BadIPHeader},
		{"total length beyond the frame", set4(v4TotalLen+1, 29), counter.BadIPHeader},
		{"total length beyond the frame, with options", packet4(ProtoUDP, make([]byte, 4), udp8)[:31], counter.BadIPHeader},
		{"checksum", edit(v4, func(p []byte) { p[v4Checksum] ^= 1 }), counter.BadIPHeader},
		{"checksum over options", edit(packet4(ProtoUDP, make([]byte, 4), udp8), func(p []byte) { p[20] = 1 }), counter.BadIPHeader},
		{"UDP without ports", packet4(ProtoUDP, nil, udp8[:3]), counter.Runt},
		{"TCP without payload", packet4(ProtoTCP, nil, nil), counter.Runt},
		{"TCP ports in the padding", append(packet4(ProtoTCP, nil, nil), udp8...), counter.Runt},
		{"ICMP without code", packet4(ProtoICMP, nil, echo[:1]), counter.Runt},

		{"v6: 39 bytes", v6[:39], counter.Runt},
		{"v6: payload length 0", set6(v6PayloadLen+1, 0), counter.BadIPHeader},
		{"v6: payload length beyond the frame", set6(v6PayloadLen+1, 9), counter.BadIPHeader},
		{"v6: source ::", addr6(v6Src, "::"), counter.BadIPHeader},
		{"v6: destination ::", addr6(v6Dst, "::"), counter.BadIPHeader},
		{"v6: source mapped from IPv4", mapped(v6Src), counter.BadIPHeader},
		{"v6: destination mapped from IPv4", mapped(v6Dst), counter.BadIPHeader},
		{"v6: longer than any frame", packet6(ProtoUDP, make([]byte, 65535)...), counter.BadIPHeader},
		{"v6: UDP without ports", packet6(ProtoUDP, 1, 2, 3), counter.Runt},
		{"v6: ICMPv6 without code", packet6(ProtoICMPv6, 128), counter.Runt},
		{"v6: options, then nothing", packet6(ProtoDstOpts, ext(ProtoUDP, 0)...), counter.Runt},

		{"v6: routing header", packet6(ProtoRouting, chain(ext(ProtoUDP, 0), udp8)...), counter.BadExtension},
		{"v6: hop-by-hop not first", packet6(ProtoDstOpts, chain(ext(ProtoHopByHop, 0), ext(ProtoUDP, 0), udp8)...), counter.BadExtension},
		{"v6: nine extension headers", packet6(ProtoDstOpts, chain(bytes.Repeat(ext(ProtoDstOpts, 0), 8), ext(ProtoUDP, 0), udp8)...), counter.BadExtension},
		{"v6: extension header beyond the packet", packet6(ProtoDstOpts, ext(ProtoUDP, 1)[:8]...), counter.BadExtension},
		{"v6: extension header of 7 bytes", packet6(ProtoDstOpts, ext(ProtoUDP, 0)[:7]...), counter.BadExtension},
		{"v6: extension header in the padding", append(packet6(ProtoDstOpts, ext(ProtoDstOpts, 0)...), ext(ProtoESP, 0)...), counter.BadExtension},
		{"v6: two fragment headers", packet6(ProtoFragment, chain(fragment(ProtoFragment, 0, false), fragment(ProtoUDP, 0, false), udp8)...), counter.BadExtension},
		{"v6: fragment header of 7 bytes", packet6(ProtoFragment, fragment(ProtoUDP, 0, false)[:7]...), counter.BadExtension},
		{"v6: first fragment with options behind", packet6(ProtoFragment, chain(fragment(ProtoDstOpts, 0, true), ext(ProtoUDP, 0), udp8)...), counter.BadExtension},
		{"v6: last fragment with options behind", packet6(ProtoFragment, chain(fragment(ProtoDstOpts, 64, false), udp8)...), counter.BadExtension},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, r := Classify(c.ip, new(flow.Tuple))
			equal(t, "reason", r, c.want)
		})
	}
}

func TestClassifyAllocatesNothing(t *testing.T) {
	var tuple flow.Tuple
	for _, p := range [][]byte{
		packet4(ProtoUDP, nil, udp8),
		packet4(ProtoUDP, make([]byte, 4), udp8),
		packet6(ProtoUDP, udp8...),
		packet6(ProtoHopByHop, chain(ext(ProtoFragment, 0), fragment(ProtoUDP, 0, true))...),
		{0x45},
	} {
		n := testing.AllocsPerRun(100, func() { Classify(p, &tuple) })
		equal(t, "allocations", n, 0)
	}
}
