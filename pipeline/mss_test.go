package pipeline_test

import (
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"spigot/sad"
)

// syn is a TCP segment from a to b, or back, that announces mss.
func syn(t *testing.T, v6, back bool, mss uint16, flags byte) []byte {
	t.Helper()
	src, dst := hostA4, hostB4
	if v6 {
		src, dst = hostA6, hostB6
	}
	if back {
		src, dst = dst, src
	}
	eth := &layers.Ethernet{SrcMAC: mac(1), DstMAC: mac(0xa0), EthernetType: layers.EthernetTypeIPv4}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	} = &layers.IPv4{Version: 4, TTL: 64, Protocol: 6, Flags: layers.IPv4DontFragment, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	if v6 {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: 6, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	}
	tcp := &layers.TCP{SrcPort: 80, DstPort: 1024, SYN: flags&2 != 0, ACK: flags&0x10 != 0, Options: []layers.TCPOption{
		{OptionType: layers.TCPOptionKindNop},
		{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: binary.BigEndian.AppendUint16(nil, mss)},
		{OptionType: layers.TCPOptionKindSACKPermitted, OptionLength: 2},
	}}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, tcp); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// mssOf returns what frame announces; its checksum must be right.
func mssOf(t *testing.T, frame []byte) int {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	tcp, ok := p.TransportLayer().(*layers.TCP)
	if !ok {
		t.Fatalf("no TCP: %v", p)
	}
	if err := tcp.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	if err, res := tcp.VerifyChecksum(); err != nil || !res.Valid {
		t.Fatalf("checksum: %v %+v", err, res)
	}
	return int(binary.BigEndian.Uint16(tcp.Options[1].OptionData))
}

// What a SYN announces behind a gateway that clamps, sealing it or opening it. On
// a path of 1400 bytes aes-128-gcm carries 1346: less 40 or 60 bytes of headers.
func TestSegmentSizeIsClamped(t *testing.T) {
	const synAck = 0x12
	for _, r := range []struct {
		name        string
		v6          bool
		flags       byte
		clamp, says uint16
		path        int
		want        int
	}{
		{"off", false, 2, 0, 1460, 1400, 1460},
		{"to a number", false, 2, 1200, 1460, 1500, 1200},
		{"which is larger", false, 2, 1300, 1260, 1500, 1260},
		{"to the path", false, 2, sad.MSSPath, 1460, 1400, 1306},
		{"IPv6 to the path", true, 2, sad.MSSPath, 1440, 1400, 1286},
		{"the answer, too", false, synAck, sad.MSSPath, 1460, 1400, 1306},
		{"to the link", false, 2, sad.MSSPath, 1460, 65535, 1406},
		{"IPv6 gets what every link carries", true, 2, sad.MSSPath, 1440, 1000, 1220},
		{"data is not looked at", false, 0x10, 1200, 1460, 1500, 1460},
	} {
		tn := aes128gcm
		tn.outer.MSS = r.clamp
		a, b := newLone(t, 'a'), newLone(t, 'b')
		out, _ := a.protect(tn)
		b.protect(aes128gcm)
		out.SetPathMTU(r.path, false)
		if got := mssOf(t, b.into(a.outOf(syn(t, r.v6, false, r.says, r.flags)))); got != r.want {
			t.Errorf("%s: %d leaves as %d, want %d", r.name, r.says, got, r.want)
		}
		if got := mssOf(t, a.into(b.outOf(syn(t, r.v6, true, r.says, r.flags)))); got != r.want {
			t.Errorf("%s: %d arrives as %d, want %d", r.name, r.says, got, r.want)
		}
	}
}
