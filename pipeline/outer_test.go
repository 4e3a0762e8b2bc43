package pipeline_test

import (
	"encoding/hex"
	"testing"

	"spigot/internal/counter"
	"spigot/sad"
)

// class6 sets traffic class and flow label of an IPv6 frame.
func class6(f []byte, tc byte, label uint32) []byte {
	return change(f, 14, 0x60|tc>>4, tc<<4|byte(label>>16), byte(label>>8), byte(label))
}

// Golden tunnel headers, with SPI and sequence number behind them, for the four
// combinations of families (RFC 4301, section 5.1.2.1 and 5.1.2.2) and for what
// an SA may say of them. The inner packets have 100 bytes, TTL 64, TOS 0xba and
// flow label 0xabcde; aes-128-gcm makes 156 of them over IPv4, 176 over IPv6.
func TestGoldenTunnelHeaders(t *testing.T) {
	const df, noDF = 0x40, 0
	in4 := func(flags byte) []byte {
		return fixSum4(change(change(udp4(hostA4, hostB4, 64, 100), 14+1, 0xba), 14+6, flags))
	}
	in6 := class6(udp6(hostA6, hostB6, 64, 100), 0xba, 0xabcde)
	const (
		ends4 = "c0000201c0000202"
		ends6 = "20010db800000000000000000000000120010db8000000000000000000000002"
		esp   = "0000100000000001"
	)
	for _, r := range []struct {
		name   string
		inner  []byte
		outer6 bool
		outer  sad.Outer
		want   string
	}{
		{"4 in 4", in4(df), false, sad.Outer{}, "45ba009c00004000" + "4032b572" + ends4 + esp},
		{"4 in 4, no DF", in4(noDF), false, sad.Outer{}, "45ba009c10010000" + "4032e571" + ends4 + esp},
		{"6 in 4", in6, false, sad.Outer{}, "45ba009c00004000" + "4032b572" + ends4 + esp},
		{"4 in 6", in4(df), true, sad.Outer{}, "6ba00000" + "00883240" + ends6 + esp},
		{"6 in 6", in6, true, sad.Outer{}, "6ba00000" + "00883240" + ends6 + esp},

		{"DF set", in4(noDF), false, sad.Outer{DF: sad.DFSet}, "45ba009c00004000" + "4032b572" + ends4 + esp},
		{"DF clear", in4(df), false, sad.Outer{DF: sad.DFClear}, "45ba009c10010000" + "4032e571" + ends4 + esp},
		{"DF clear around IPv6", in6, false, sad.Outer{DF: sad.DFClear}, "45ba009c10010000" + "4032e571" + ends4 + esp},
		{"DSCP set, over IPv4", in4(df), false, sad.Outer{DSCP: sad.DSCPSet(10)}, "452a009c00004000" + "4032b602" + ends4 + esp},
		{"DSCP set, over IPv6", in6, true, sad.Outer{DSCP: sad.DSCPSet(10)}, "62a00000" + "00883240" + ends6 + esp},
		{"DSCP by map", in6, true, sad.Outer{DSCP: &sad.DSCPMap{46: 34}}, "68a00000" + "00883240" + ends6 + esp},
		{"no ECN, over IPv4", in4(df), false, sad.Outer{NoECN: true}, "45b8009c00004000" + "4032b574" + ends4 + esp},
		{"no ECN, no DSCP, over IPv6", in4(df), true, sad.Outer{NoECN: true, DSCP: sad.DSCPSet(0)}, "60000000" + "00883240" + ends6 + esp},
		{"TTL, over IPv4", in4(df), false, sad.Outer{TTL: 255}, "45ba009c00004000" + "ff32f671" + ends4 + esp},
		{"hop limit, over IPv6", in6, true, sad.Outer{TTL: 1}, "6ba00000" + "00883201" + ends6 + esp},
		{"flow label copied", in6, true, sad.Outer{Label: sad.LabelCopy}, "6baabcde" + "00883240" + ends6 + esp},
		{"flow label copied, inner IPv4", in4(df), true, sad.Outer{Label: sad.LabelCopy}, "6ba00000" + "00883240" + ends6 + esp},
	} {
		a := newLone(t, 'a')
		tn := aes128gcm
		tn.outer6, tn.outer = r.outer6, r.outer
		a.protect(tn)
		frame := a.outOf(r.inner)
		if frame == nil {
			t.Errorf("%s: nothing left: %v", r.name, a.drops())
			continue
		}
		if got := hex.EncodeToString(frame[14 : 14+len(r.want)/2]); got != r.want {
			t.Errorf("%s:\n got %s\nwant %s", r.name, got, r.want)
		}
		b := newLone(t, 'b')
		b.protect(tn)
		if b.into(frame) == nil {
			t.Errorf("%s: the peer does not open it: %v", r.name, b.drops())
		}
	}
}

// A label by hash is that of the flow, differs between flows and between SAs,
// and is never 0.
func TestHashedFlowLabel(t *testing.T) {
	label := func(a *lone, port byte) [3]byte {
		f := a.outOf(change(udp6(hostA6, hostB6, 64, 100), 14+40+3, port))
		return [3]byte{f[14+1] & 0xf, f[14+2], f[14+3]}
	}
	tn := aes128gcm
	tn.outer6, tn.outer.Label = true, sad.LabelHash
	a, other := newLone(t, 'a'), newLone(t, 'a')
	a.protect(tn)
	other.protect(tn)
	labels, differ := map[[3]byte]bool{}, false
	for port := range byte(100) {
		first := label(a, port)
		if again := label(a, port); again != first || first == [3]byte{} {
			t.Fatalf("port %d: labels %x, then %x", port, first, again)
		}
		labels[first] = true
		differ = differ || label(other, port) != first
	}
	if len(labels) < 98 || !differ { // 2^20 labels: two of 100 are the same once in 200 times
		t.Errorf("100 flows have %d labels; another SA has others: %t", len(labels), differ)
	}
}

// What the tunnel header tells the inner packet, by SA.
func TestOuterTOSAtTheEnd(t *testing.T) {
	for _, r := range []struct {
		name         string
		outer        sad.Outer
		inner, wire  byte
		want, reason int // want -1: dropped for reason
	}{
		{"codepoint stays", sad.Outer{}, 0xb8, 0x28, 0xb8, 0},
		{"codepoint is taken over", sad.Outer{DecapDSCP: true}, 0xb8, 0x28, 0x28, 0},
		{"and congestion, too", sad.Outer{DecapDSCP: true}, 0xba, 0x2b, 0x2b, 0},
		{"congestion mark is for nobody", sad.Outer{}, 0xb8, 0xbb, -1, int(counter.BadECN)},
		{"without ECN nobody looks", sad.Outer{NoECN: true}, 0xb8, 0xbb, 0xb8, 0},
		{"also if the inner packet could tell", sad.Outer{NoECN: true}, 0xba, 0xbb, 0xba, 0},
		{"codepoint without ECN", sad.Outer{NoECN: true, DecapDSCP: true}, 0xba, 0x2b, 0x2a, 0},
	} {
		for _, inner6 := range []bool{false, true} {
			a, b := newLone(t, 'a'), newLone(t, 'b')
			a.protect(aes128gcm)
			tn := aes128gcm
			tn.outer = r.outer
			b.protect(tn)
			f := fixSum4(change(udp4(hostA4, hostB4, 64, 100), 14+1, r.inner))
			if inner6 {
				f = class6(udp6(hostA6, hostB6, 64, 100), r.inner, 0)
			}
			before := b.values()
			got := b.into(fixSum4(change(a.outOf(f), 14+1, r.wire)))
			if r.want < 0 {
				b.onlyDrop(before, counter.Reason(r.reason))
				continue
			}
			if got == nil {
				t.Fatalf("%s: %v", r.name, b.drops())
			}
			tos := got[14+1]
			if inner6 {
				tos = got[14]<<4 | got[14+1]>>4
			} else if sum(got[14:34]) != 0xffff {
				t.Errorf("%s: the checksum is wrong", r.name)
			}
			if int(tos) != r.want {
				t.Errorf("%s: inner6 %t: TOS %#x, want %#x", r.name, inner6, tos, r.want)
			}
		}
	}
}
