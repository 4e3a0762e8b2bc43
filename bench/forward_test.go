package bench_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"spigot/bench"
	"spigot/internal/affinity"
	"spigot/internal/counter"
	"spigot/internal/tsc"
	"spigot/internal/wire"
)

// BenchmarkForward is a gateway on one core between two veth pairs, offered by
// another core more than it can carry, by driver. Frame sizes are those of the
// clear packet, and Gbit/s counts its bytes; time, Mpps and cycles/pkt are
// those between packets that arrive at the far end, the kernel's share
// included.
func BenchmarkForward(b *testing.B) {
	allowed := cores(b)
	for _, d := range drivers {
		b.Run("driver="+d.name, func(b *testing.B) {
			f := newForward(b, d, allowed)
			for _, p := range paths {
				for _, size := range []int{64, 1400} {
					b.Run(fmt.Sprintf("path=%s/size=%d", p.name, size), func(b *testing.B) { f.measure(b, p, size) })
				}
			}
		})
	}
}

// path is a way through the gateway.
type path struct {
	name string
	dst  netip.Addr
	out  func(size int) int // the size of a frame that left, by that of the frame that came
}

var paths = []path{
	{"bypass", hostC, func(size int) int { return size }},
	{"encap", hostB, espSize},
}

// espSize is RFC 4303 with AES-GCM-16 in an IPv4 tunnel: header and IV are 8
// bytes each, the ICV 16, and the two bytes of the trailer end on a multiple of 4.
func espSize(size int) int {
	inner := size - wire.EthernetLen
	return wire.EthernetLen + wire.IPv4Len + wire.ESPLen + 8 + (inner+2+3)&^3 + 16
}

// warmUp is how many packets arrive before the measurement starts: more than
// the rings hold and the counters lag behind.
const warmUp = 1 << 15

// measure runs until b.N packets have arrived.
func (f *forward) measure(b *testing.B, p path, size int) {
	runtime.LockOSThread() // never unlocked: the thread ends with this run of the benchmark
	check(b, affinity.Nice(-20))
	stop, ended := f.source.start(bench.UDP4(redMAC, hostA, p.dst, 1000, size))
	defer stop()
	f.await(b, f.arrived(b), warmUp, ended)
	before := f.sample(b)
	b.ResetTimer()
	from, t0 := f.arrived(b), tsc.Now()
	n := f.await(b, from, uint64(b.N), ended)
	cycles := float64(tsc.Now() - t0)
	b.StopTimer()
	sec := b.Elapsed().Seconds()
	after := f.sample(b)

	f.judge(b, &before.gateway, &after.gateway, p.out(size))
	report(b, int(n), cycles, sec, float64(size))
	around := after.at.Sub(before.at).Seconds()
	b.ReportMetric(float64(after.offered-before.offered)/around/1e6, "offered-Mpps")
	b.ReportMetric((after.waited-before.waited).Seconds()/around*100, "waited-%")
	if flushed := after.gateway.Packets[counter.StageFlush] - before.gateway.Packets[counter.StageFlush]; flushed > 0 {
		spent := after.gateway.Cycles[counter.StageFlush] - before.gateway.Cycles[counter.StageFlush]
		b.ReportMetric(float64(spent)/float64(flushed), "flush-cycles/pkt")
	}
}

// judge fails b unless every packet that the gateway received left as a frame
// of size bytes.
func (f *forward) judge(b *testing.B, before, after *counter.Values, size int) {
	b.Helper()
	if lost := after.Dropped() + after.Punted - before.Dropped() - before.Punted; lost > 0 {
		b.Fatalf("the gateway did not send %d of %d packets; drops since its start %v", lost, after.Rx-before.Rx, after.Drops)
	}
	if n, bytes := after.Tx-before.Tx, after.TxBytes-before.TxBytes; bytes != n*uint64(size) {
		b.Fatalf("%d packets left as %d bytes, want %d each", n, bytes, size)
	}
}
