package main

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"
)

var testStream = stream{id: 77, src: netip.MustParseAddr("10.1.0.2"), dst: netip.MustParseAddr("10.2.0.2"),
	dstMAC: [6]byte{2, 0, 0, 0, 0, 9}, dport: 9, flows: 4}

// gopacket, which we did not write, must find right checksums and lengths.
func TestProbesAreRightPackets(t *testing.T) {
	v6 := testStream
	v6.src, v6.dst = netip.MustParseAddr("fd00:1::2"), netip.MustParseAddr("fd00:2::2")
	rapid.Check(t, func(t *rapid.T) {
		s := testStream
		if rapid.Bool().Draw(t, "v6") {
			s = v6
		}
		size := rapid.IntRange(90, maxFrame).Draw(t, "size")
		seq, sent := rapid.Uint64().Draw(t, "seq"), rapid.Uint64().Draw(t, "sent")
		tpl := s.template(size)
		f := make([]byte, size)
		tpl.fill(f, firstPort+3, seq, sent)

		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
		udp, ok := p.TransportLayer().(*layers.UDP)
		if !ok {
			t.Fatalf("not a UDP packet: %v", p)
		}
		if err := udp.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
			t.Fatal(err)
		}
		if err, mismatches := p.VerifyChecksums(); err != nil || len(mismatches) > 0 {
			t.Fatalf("checksums: %v %v", err, mismatches)
		}
		if udp.SrcPort != firstPort+3 || udp.DstPort != 9 || int(udp.Length) != len(udp.Payload)+8 {
			t.Fatalf("wrong UDP header: %v", p)
		}
		id, gotSeq, gotSent, ok := readProbe(f, 9)
		if !ok || id != 77 || gotSeq != seq || gotSent != sent {
			t.Fatalf("probe reads back as id %d seq %d sent %d %t", id, gotSeq, gotSent, ok)
		}
		if _, _, _, ok := readProbe(f, 10); ok {
			t.Fatal("a probe to another port was taken")
		}
		f[len(f)-1-rapid.IntRange(0, 24).Draw(t, "damaged")] ^= 0x10
		if _, _, _, ok := readProbe(f, 9); ok {
			t.Fatal("a damaged probe was taken")
		}
	})
}

func FuzzReadProbe(f *testing.F) {
	f.Add([]byte{})
	tpl := testStream.template(100)
	f.Add(tpl.bytes)
	f.Fuzz(func(_ *testing.T, b []byte) { readProbe(b, 9) })
}

func TestSeen(t *testing.T) {
	var s seen
	for i, row := range []struct {
		seq  uint64
		want order
	}{
		{0, inOrder}, {1, inOrder}, {1, again}, {5, inOrder}, {3, late}, {3, again}, {2, late}, {0, again},
		{seenBits + 10, inOrder}, {11, late}, {10, late}, {9, late}, {9, late},
		{seenBits + 9, late}, {seenBits + 9, again}, {1 << 40, inOrder}, {1<<40 - 1, late}, {5, late},
		{math.MaxUint64, inOrder}, // of a damaged probe
	} {
		if got := s.mark(row.seq); got != row.want {
			t.Errorf("row %d: mark(%d) = %d, want %d", i, row.seq, got, row.want)
		}
	}
}

func TestBadFlags(t *testing.T) {
	for _, row := range []struct{ args, want string }{
		{"", "--tx, --rx or both"},
		{"--tx a --src x --dst 10.0.0.1", "--src"},
		{"--tx a --src 10.0.0.1 --dst ::1", "different families"},
		{"--tx a --src 10.0.0.1 --dst 10.0.0.2 --size 9", "--size 9"},
		{"--tx a --src 10.0.0.1 --dst 10.0.0.2 --size abc", "frame size in bytes, or imix"},
		{"--tx a --src 10.0.0.1 --dst 10.0.0.2 --flows 0", "--flows 0"},
		{"--rx a -o xml", "table or json"},
		{"--rx a --driver foo", "auto, afxdp or packet"},
		{"--rx a --duration 0s", "--duration"},
		{"--rx nosuchdev0", "nosuchdev0"},
		{"--rx lo:x", `queue "x"`},
		{"--rx lo@nosuchns", "nosuchns"},
	} {
		c := command()
		c.SetArgs(strings.Fields(row.args))
		err := c.Execute()
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("spigen %s: %v, want %q in it", row.args, err, row.want)
		}
	}
}
