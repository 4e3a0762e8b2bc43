package pipeline_test

import (
	"context"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/tsc"
	"spigot/pipeline"
	"spigot/sad"
)

// TestPacketsBeforeTheirKeysWait: a peer may send by a new SA before the key
// daemon here has installed it. What comes by an SPI that the daemon has reserved
// waits for the keys; it is lost if the SPI is given up, if there is no room, and
// of course if nobody knows the SPI.
func TestPacketsBeforeTheirKeysWait(t *testing.T) {
	const early, room = 3, pipeline.MaxBurst
	for _, row := range []struct {
		name    string
		promise bool // the SPI is reserved
		packets int
		edit    func(*testing.T, *lone, tunnel) // what becomes of it
		passed  int
	}{
		{"the keys come", true, early, install, early},
		{"more than there is room for", true, room + 2, install, room},
		{"the SPI is given up", true, early, giveUp, 0},
		{"others are edited first", true, early, func(t *testing.T, b *lone, tn tunnel) {
			b.db.Expect(9999, addr(gwB4), 50)
			b.w.Turn()
			install(t, b, tn)
		}, early},
		{"an unknown SPI", false, early, install, 0},
	} {
		for _, udp := range []bool{false, true} {
			tn := aes128gcm
			tn.udp = udp
			a, b := newLone(t, 'a'), newLone(t, 'b')
			a.protect(tn)
			other := tn
			other.spi += 100
			b.protect(other) // policies for what arrives
			if row.promise {
				b.db.Expect(tn.spi, addr(gwB4), 50)
			}
			for range row.packets {
				if b.into(a.outOf(udp4(hostA4, hostB4, 64, 100))) != nil {
					t.Errorf("%s: a packet passed without keys", row.name)
				}
			}
			row.edit(t, b, tn)
			b.w.Turn()
			got := b.host.Take()
			if len(got) != row.passed {
				t.Errorf("%s: %d packets passed, want %d", row.name, len(got), row.passed)
			}
			v := b.values()
			if lost := uint64(row.packets - row.passed); v.Rx != uint64(row.packets) || v.Drops[counter.UnknownSPI] != lost {
				t.Errorf("%s: %d received, %d dropped; want %d and %d", row.name, v.Rx, v.Drops[counter.UnknownSPI], row.packets, lost)
			}
			if want := b.sizes(a, row.packets); v.RxBytes != want {
				t.Errorf("%s: %d bytes received, want %d", row.name, v.RxBytes, want)
			}
		}
	}
}

// sizes is how many bytes n of the packets that a sent have.
func (l *lone) sizes(a *lone, n int) uint64 {
	v := a.values()
	return v.TxBytes / v.Tx * uint64(n)
}

// install gives b the keys of tn's SA.
func install(t *testing.T, b *lone, tn tunnel) {
	t.Helper()
	in, err := sad.NewInbound(tn.params(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.db.AddInbound(in); err != nil {
		t.Fatal(err)
	}
}

func giveUp(_ *testing.T, b *lone, tn tunnel) { b.db.Forget(tn.spi, addr(gwB4), 50) }

// TestAWorkerThatEndsGivesBackWhatWaits: newLone sees to it that all frames come
// home and that each packet was counted.
func TestAWorkerThatEndsGivesBackWhatWaits(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	b.db.Expect(aes128gcm.spi, addr(gwB4), 50)
	b.into(a.outOf(udp4(hostA4, hostB4, 64, 100)))
	if n := b.values().Drops[counter.UnknownSPI]; n != 0 {
		t.Fatalf("%d packets did not wait", n)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	b.w.Run(done)
	if n := b.values().Drops[counter.UnknownSPI]; n != 1 {
		t.Errorf("%d packets dropped, want the one that waited", n)
	}
}

// TestEarlyPacketsTakeNoCyclesOfOthers: what is counted for a turn that carries
// them is not more than the turn took.
func TestEarlyPacketsTakeNoCyclesOfOthers(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	b.db.Expect(aes128gcm.spi, addr(gwB4), 50)
	b.into(a.outOf(udp4(hostA4, hostB4, 64, 100)))
	for b.values().Turns%16 != 0 { // whose cycles are counted
		b.w.Turn()
	}
	install(t, b, aes128gcm)
	cycles := func() (sum uint64) {
		v := b.values()
		for _, n := range v.Cycles {
			sum += n
		}
		return sum
	}
	before, start := cycles(), tsc.Now()
	b.w.Turn()
	if counted, took := cycles()-before, tsc.Now()-start; counted == 0 || counted > took {
		t.Errorf("%d cycles counted in a turn of at most %d", counted, took)
	}
}
