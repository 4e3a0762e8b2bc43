package wire

import (
	"fmt"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/flow"
)

func BenchmarkClassify(b *testing.B) {
	for _, c := range []struct {
		name string
		pkt  []byte
	}{
		{"v4/udp", packet4(ProtoUDP, nil, make([]byte, 64))},
		{"v4/options", packet4(ProtoUDP, make([]byte, 8), make([]byte, 64))},
		{"v6/udp", packet6(ProtoUDP, make([]byte, 64)...)},
		{"v6/dstopts/udp", packet6(ProtoDstOpts, append([]byte{ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, make([]byte, 64)...)...)},
	} {
		b.Run(c.name, func(b *testing.B) {
			var t flow.Tuple
			b.ReportAllocs()
			for b.Loop() {
				if _, r := Classify(c.pkt, &t); r != counter.None {
					b.Fatal(r)
				}
			}
		})
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 64, 1400} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				Sum(p, 0)
			}
		})
	}
}

func BenchmarkDecrementTTL(b *testing.B) {
	ip := packet4(ProtoUDP, nil, make([]byte, 64))
	for b.Loop() {
		DecrementTTL(ip)
	}
}
