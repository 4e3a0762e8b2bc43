package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"spigot/internal/counter"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// What an attacker may send, class by class; the classes that need the key
// daemons' sockets or a real interface have their tests there. Each test ends
// with a good packet that passes.

// victims are SAs of each shape that a packet from the wire can meet.
var victims = []tunnel{
	aes128gcm,
	{spi: 0x1000, enc: "aes-cbc", encLen: 32, integ: "hmac-sha2-256-128", authLen: 32, window: 64},
	{spi: 0x1000, enc: "chacha20-poly1305", encLen: 36, window: 64, esn: true},
	{spi: 0x1000, enc: "null", integ: "hmac-sha2-512-256", authLen: 64, window: 64},
	{spi: 0x1000, ah: true, integ: "hmac-sha2-256-128", authLen: 32, window: 64},
	{spi: 0x1000, ah: true, integ: "aes-gmac", authLen: 20, window: 64, esn: true},
}

// eachVictim runs f for every shape, with both families around.
func eachVictim(t *testing.T, f func(t *testing.T, tn tunnel)) {
	for _, tn := range victims {
		for _, tn.outer6 = range []bool{false, true} {
			t.Run(tn.String(), func(t *testing.T) { f(t, tn) })
		}
	}
}

// outerLen is the length of the outer header of f.
func outerLen(f []byte) int {
	if f[12] == 0x86 {
		return 40
	}
	return 20
}

// payload returns f with only n bytes behind its outer header, and the lengths
// right for it.
func payload(f []byte, n int) []byte {
	head := outerLen(f)
	f = bytes.Clone(f[:14+head+n])
	if head == 40 {
		binary.BigEndian.PutUint16(f[14+4:], uint16(n))
		return f
	}
	binary.BigEndian.PutUint16(f[14+2:], uint16(head+n))
	return fixSum4(f)
}

// Class 1: ESP and AH from 0 bytes to one less than the least packet.
func TestHostile01Truncated(t *testing.T) {
	eachVictim(t, func(t *testing.T, tn tunnel) {
		a, b := pair(t, tn)
		sealed := a.outOf(udp4(hostA4, hostB4, 64, 100))
		_, in := params(t, tn)
		least, reason := int(in.Geo.Head+in.Geo.ICV)+int(in.Geo.Align), counter.BadESP
		if tn.ah {
			least, reason = int(in.Geo.Head), counter.BadAH
		}
		for n := range least {
			b.refuses(fmt.Sprintf("%d bytes", n), payload(sealed, n), reason, counter.BadIPHeader)
		}
		for n := least; n < len(sealed)-14-outerLen(sealed); n++ {
			b.refuses(fmt.Sprintf("%d bytes", n), payload(sealed, n), reason, counter.AuthFailed)
		}
		b.passes("after all lengths", a)
	})
}

// params makes the SAs of tn from a to b, in no gateway.
func params(t *testing.T, tn tunnel) (*sad.Outbound, *sad.Inbound) {
	t.Helper()
	out, err := sad.NewOutbound(tn.params(true))
	if err != nil {
		t.Fatal(err)
	}
	in, err := sad.NewInbound(tn.params(true))
	if err != nil {
		t.Fatal(err)
	}
	return out, in
}

// Class 2: lengths and header lengths that lie, from both sides. A total length
// shorter than the frame is Ethernet's padding; all others are refused.
func TestHostile02LengthsThatLie(t *testing.T) {
	eachVictim(t, func(t *testing.T, tn tunnel) {
		a, b := pair(t, tn)
		sealed := a.outOf(udp4(hostA4, hostB4, 64, 100))
		at, right := 14+2, len(sealed)-14
		if tn.outer6 {
			at, right = 14+4, len(sealed)-14-40
		}
		for n := range 65536 {
			if n == right || n > right+64 && n < 65472 && n&(n-1) != 0 {
				continue
			}
			f := change(sealed, at, byte(n>>8), byte(n))
			if !tn.outer6 {
				fixSum4(f)
			}
			b.refuses(fmt.Sprintf("length %d instead of %d", n, right), f)
		}
		if !tn.outer6 {
			for ihl := range 16 {
				if f := change(sealed, 14, byte(0x40|ihl)); ihl > 5 {
					b.refuses(fmt.Sprintf("IHL %d", ihl), fixSum4(f))
				} else if ihl < 5 {
					b.refuses(fmt.Sprintf("IHL %d", ihl), f, counter.BadIPHeader)
				}
			}
		}
		b.passes("after all lengths", a)
	})
	a, _ := pair(t, aes128gcm)
	clear4, clear6 := udp4(hostA4, hostB4, 64, 100), udp6(hostA6, hostB6, 64, 100)
	for n := 101; n < 300; n++ {
		a.refusesOut(fmt.Sprintf("total length %d", n), fixSum4(change(clear4, 16, byte(n>>8), byte(n))), counter.BadIPHeader)
		a.refusesOut(fmt.Sprintf("payload length %d", n-40), change(clear6, 18, byte((n-40)>>8), byte(n-40)), counter.BadIPHeader)
	}
	for n := range 20 {
		a.refusesOut(fmt.Sprintf("total length %d", n), fixSum4(change(clear4, 16, 0, byte(n))), counter.BadIPHeader)
	}
	a.refusesOut("payload length 0", change(clear6, 18, 0, 0), counter.BadIPHeader)
}

// Class 3: a flood with a bad ICV and far-future numbers moves no window, and
// the packets of another SA in the same bursts all arrive.
func TestHostile03FloodOfForgeries(t *testing.T) {
	other := aes128gcm
	other.spi = 0x2000
	a, b := newLoneOf(t, 'a', 64), newLoneOf(t, 'b', 64)
	a.protect(other)
	b.protect(other)
	target, in := params(t, aes128gcm)
	if err := b.db.AddInbound(in); err != nil {
		t.Fatal(err)
	}
	forgery := forge(target.Key, target.SPI, 1, udp4(hostA4, hostB4, 64, 98)[14:], nil, 4)
	forgery[len(forgery)-1] ^= 1
	const rounds, good = 400, 16
	run := func(forged int) (delivered int, took time.Duration) {
		rng := rand.New(rand.NewPCG(3, 3))
		for range rounds {
			for range good {
				b.wire.Inject(retarget(a.outOf(udp4(hostA4, hostB4, 64, 100))))
			}
			for range forged {
				binary.BigEndian.PutUint32(forgery[14+24:], rng.Uint32()|1<<31)
				b.wire.Inject(retarget(forgery))
			}
			start := time.Now()
			for b.w.Turn() > 0 {
			}
			took += time.Since(start)
			delivered += len(b.host.Take())
		}
		return delivered, took
	}
	quiet, took := run(0)
	flooded, tookFlooded := run(4 * good)
	if quiet != rounds*good || flooded*10 < quiet*9 {
		t.Errorf("%d good packets arrived of %d, and under the flood %d", quiet, rounds*good, flooded)
	}
	if n := b.values().Drops[counter.AuthFailed]; n != rounds*4*good {
		t.Errorf("%d forgeries dropped of %d", n, rounds*4*good)
	}
	if in.Seq() != 0 {
		t.Errorf("forgeries moved the window to %d", in.Seq())
	}
	t.Logf("rate of the other SA under the flood: %d of %d packets (%.3f); a forged packet takes the worker %.2f times as long as a good one",
		flooded, quiet, float64(flooded)/float64(quiet), (tookFlooded-took).Seconds()/4/took.Seconds())
}

// Class 4: replays, after a rekey and at the edge of 2^32.
func TestHostile04Replays(t *testing.T) {
	for _, tn := range victims {
		tn.esn, tn.window = true, 1024
		t.Run(tn.String(), func(t *testing.T) {
			a, b := newLoneOf(t, 'a', 64), newLoneOf(t, 'b', 64)
			out, _ := a.protect(tn)
			_, in := b.protect(tn)
			edge := uint64(1)<<32 - 40
			if !out.Advance(edge) || !in.Advance(edge) {
				t.Fatal("the numbers do not start at the edge")
			}
			var seen [][]byte
			for range 80 {
				f := a.outOf(udp4(hostA4, hostB4, 64, 100))
				if b.into(f) == nil {
					t.Fatalf("packet %d does not arrive: %v", out.Seq(), b.drops())
				}
				seen = append(seen, f)
			}
			if out.Seq() != edge+80 || in.Seq() != edge+80 {
				t.Fatalf("numbers %#x and %#x did not cross the edge", out.Seq(), in.Seq())
			}
			for k, f := range seen {
				b.refuses(fmt.Sprintf("replay %d", k), f, counter.ReplaySeen)
			}
			newer := tn
			newer.spi = 0x3000
			b.protect(newer)
			for k, f := range seen {
				b.refuses(fmt.Sprintf("replay %d after a rekey", k), f, counter.ReplaySeen)
				b.refuses("as of the new SA", change(f, spiAt(f), 0, 0, 0x30, 0), counter.AuthFailed, counter.ReplayOld)
			}
			b.passes("after the replays", a)
		})
	}
}

// spiAt is where the SPI lies in f.
func spiAt(f []byte) int {
	at := 14 + outerLen(f)
	if f[14+9] == 51 && f[12] == 8 || f[14+6] == 51 && f[12] == 0x86 {
		at += 4
	}
	return at
}

// Class 4, on two cores: of the same packet on two queues at once, one is accepted.
func TestHostile04OnTwoQueues(t *testing.T) {
	for _, tn := range victims {
		t.Run(tn.String(), func(t *testing.T) {
			tn.window = 4096
			a, b := pair(t, tn)
			c := b.sibling()
			var all [][]byte
			for range 500 {
				all = append(all, a.outOf(udp4(hostA4, hostB4, 64, 100)))
			}
			workers, got := []*lone{b, c}, [2]int{}
			each(func(k int) {
				for _, f := range all {
					if workers[k].into(f) != nil {
						got[k]++
					}
				}
			})
			if got[0]+got[1] != len(all) {
				t.Errorf("%d + %d accepted of %d", got[0], got[1], len(all))
			}
		})
	}
}

// Class 5: pad lengths, next headers and ESP in ESP in ESP, by who has the key.
func TestHostile05AbusedTrailers(t *testing.T) {
	a, b := newLoneOf(t, 'a', 64), newLoneOf(t, 'b', 64)
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	inner := udp4(hostA4, hostB4, 64, 98)[14:]
	for n := 1; n < 256; n++ {
		// The last byte but one is the pad length: what is there is not padding.
		text := append(bytes.Clone(inner[:97]), 0xee, byte(n), 4)
		f := forgeText(out.Key, out.SPI, mustReserve(t, out), text)
		b.refuses(fmt.Sprintf("pad length %d", n), f, counter.BadPadding, counter.BadInner)
	}
	for next := range 256 {
		if next == 4 {
			continue
		}
		f := forge(out.Key, out.SPI, mustReserve(t, out), inner, nil, byte(next))
		b.refuses(fmt.Sprintf("next header %d", next), f, counter.BadInner, counter.WrongSAMode, counter.DummyPacket)
	}
	for depth := range 12 {
		text := inner
		for range depth + 1 {
			text = forge(out.Key, out.SPI, mustReserve(t, out), text, nil, 4)[14:]
		}
		b.refuses(fmt.Sprintf("ESP in ESP, %d deep", depth+2), forge(out.Key, out.SPI, mustReserve(t, out), text, nil, 4))
	}
	b.passes("after the trailers", a)
}

// Class 6: authentic, and the inner packet is none that the SA may carry.
func TestHostile06OutsideTheSelectors(t *testing.T) {
	tn := aes128gcm
	tn.selector = true
	a, b := newLoneOf(t, 'a', 64), newLoneOf(t, 'b', 64)
	out, _ := a.protect(tn)
	b.protect(tn)
	for _, row := range []struct{ src, dst string }{
		{"10.0.255.255", "10.2.0.10"}, {"10.2.0.0", "10.2.0.10"}, {"10.1.0.10", "10.1.255.255"}, {"10.1.0.10", "10.3.0.0"},
		{"10.2.0.10", "10.1.0.10"}, {"127.0.0.1", "10.2.0.10"}, {"0.0.0.0", "10.2.0.10"}, {"10.1.0.10", "255.255.255.255"},
		{"10.1.0.10", "224.0.0.1"}, {"192.0.2.1", "192.0.2.2"},
	} {
		inner := udp4(netip.MustParseAddr(row.src), netip.MustParseAddr(row.dst), 64, 98)[14:]
		b.refuses(row.src+" to "+row.dst, forge(out.Key, out.SPI, mustReserve(t, out), inner, nil, 4), counter.SelectorMismatch)
	}
	six := udp6(hostA6, hostB6, 64, 98)[14:]
	b.refuses("IPv6 where the SA has IPv4", forge(out.Key, out.SPI, mustReserve(t, out), six, nil, 41), counter.SelectorMismatch)
	b.refuses("IPv6 as IPv4", forge(out.Key, out.SPI, mustReserve(t, out), six, nil, 4), counter.BadInner)
	b.refuses("version 5", forge(out.Key, out.SPI, mustReserve(t, out), append([]byte{0x55}, six[1:]...), nil, 4), counter.BadInner)
	b.passes("after the strangers", a)
}

// Class 7: clear packets where an SA is asked for, ESP on the protected side, and
// a destination that is the gateway itself.
func TestHostile07ClearPackets(t *testing.T) {
	a, b := pair(t, aes128gcm)
	b.refuses("clear, to the net behind", udp4(hostA4, hostB4, 64, 100), counter.InPolicyClear)
	b.refuses("clear IPv6", udp6(hostA6, hostB6, 64, 100), counter.InPolicyClear)
	b.refuses("clear, from the own net", udp4(hostB4, hostB4, 64, 100), counter.NoPolicy)
	b.refuses("clear, from no net of ours", udp4(netip.MustParseAddr("203.0.113.9"), hostB4, 64, 100), counter.NoPolicy)
	sealed := a.outOf(udp4(hostA4, hostB4, 64, 100))
	b.refusesOut("ESP on the protected side", change(sealed, 0, mac(0xa0)...))
	if n := b.values().Drops[counter.AuthFailed] + b.values().Drops[counter.ReplaySeen]; n != 0 {
		t.Error("ESP from the protected side met the SA")
	}
	out, _ := params(t, aes128gcm)
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: selector(netA4, netip.PrefixFrom(gwB4, 32)), Action: spd.Protect,
		Template: templateOf(addr(gwA4), addr(gwB4))})
	inner := udp4(hostA4, gwB4, 64, 98)[14:]
	b.refuses("to the gateway, where the host takes no part", forge(out.Key, out.SPI, 2, inner, nil, 4), counter.HostLocal)
	b.into(sealed)
	a.outOf(udp4(hostA4, hostB4, 64, 100)) // number 2 is used
	b.passes("after the clear ones", a)
}

// Class 10: SPIs that are reserved, and a scan for those that are not.
func TestHostile10ScannedSPIs(t *testing.T) {
	eachVictim(t, func(t *testing.T, tn tunnel) {
		a, b := pair(t, tn)
		sealed := a.outOf(udp4(hostA4, hostB4, 64, 100))
		for spi := range 256 {
			b.refuses(fmt.Sprintf("SPI %d", spi), change(sealed, spiAt(sealed), 0, 0, 0, byte(spi)), counter.ReservedSPI)
		}
		rng, f := rand.New(rand.NewPCG(10, 10)), retarget(sealed)
		before := b.values().Drops[counter.UnknownSPI]
		const scan = 5000
		for range scan {
			binary.BigEndian.PutUint32(f[spiAt(f):], 1<<16|rng.Uint32())
			b.wire.Inject(f)
			b.w.Turn()
		}
		if n := b.values().Drops[counter.UnknownSPI] - before; n != scan || len(b.host.Take()) != 0 || b.cfg.Acquires.Len() != 0 {
			t.Errorf("%d of %d scanned SPIs were unknown", n, scan)
		}
		b.passes("after the scan", a)
	})
}

// Class 11: packets that with their headers outgrow the frame; the canaries stay.
func TestHostile11OutgrowsTheFrame(t *testing.T) {
	eachVictim(t, func(t *testing.T, tn tunnel) {
		a := newLoneOf(t, 'a', 64)
		out, _ := a.protect(tn)
		a.setMTU(9000)
		room := 2048 - 256 - 14
		largest := 0
		for size := room - 120; size <= room; size++ {
			frame := udp4(hostA4, hostB4, 64, size)
			before := a.values()
			if a.guarded(a.host, a.wire, frame, 256, 2048) != nil {
				if largest = size; a.values().Drops != before.Drops {
					t.Errorf("%d bytes left and were dropped", size)
				}
				continue
			}
			a.onlyDrop(before, counter.NoRoom)
		}
		want := room
		for out.Geo.Sealed(want)-out.Geo.Prefix() > room {
			want--
		}
		if largest != want {
			t.Errorf("the largest packet that left has %d bytes; there is room for %d", largest, want)
		}
	})
}

// Class 12: chains of IPv6 extension headers, and AH whose length lies.
func TestHostile12ExtensionChains(t *testing.T) {
	tn := victims[4]
	tn.outer6 = true
	a, b := pair(t, tn)
	sealed := a.outOf(udp6(hostA6, hostB6, 64, 100))
	for _, n := range []int{1, 8, 9, 32, 100} {
		f := sealed
		for _, kind := range []byte{60, 43, 0, 135, 139, 140} {
			chain := bytes.Clone(f[:54])
			chain[14+6] = kind
			for k := range n {
				ext := []byte{kind, 0, 1, 4, 0, 0, 0, 0}
				if k == n-1 {
					ext[0] = 51
				}
				chain = append(chain, ext...)
			}
			chain = append(chain, f[54:]...)
			binary.BigEndian.PutUint16(chain[18:], uint16(len(chain)-54))
			b.refuses(fmt.Sprintf("%d headers of kind %d", n, kind), chain)
		}
	}
	for _, tn.outer6 = range []bool{false, true} {
		a, b := pair(t, tn)
		sealed := a.outOf(udp4(hostA4, hostB4, 64, 100))
		right := sealed[spiAt(sealed)-3]
		for n := range 256 {
			if byte(n) != right {
				b.refuses(fmt.Sprintf("AH length %d", n), change(sealed, spiAt(sealed)-3, byte(n)), counter.BadAH, counter.AuthFailed)
			}
		}
		b.passes("after the lengths", a)
	}
	b.passes("after the chains", a)
}

// Class 14: SAs are deleted, and keys wiped, with packets in flight; and floods
// that miss make a bounded number of acquires.
func TestHostile14MissesByTheThousand(t *testing.T) {
	a := newLoneOf(t, 'a', 64)
	const policies = 200
	for k := range policies {
		dst := flow.RangeOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 2, byte(k), 0}), 24))
		a.addPolicy(spd.Policy{Dir: spd.Out, Action: spd.Protect, Template: templateOf(addr(gwA4), addr(gwB4)),
			Sel: flow.Selector{Src: prefix(netA4), Dst: dst, SrcPort: flow.AnyPort, DstPort: flow.AnyPort}})
	}
	rng := rand.New(rand.NewPCG(14, 14))
	const packets = 100000
	f := udp4(hostA4, hostB4, 64, 60)
	for range packets {
		f[14+18], f[14+19] = byte(rng.IntN(policies)), byte(rng.Uint32())
		a.host.Inject(fixSum4(f))
		a.w.Turn()
	}
	v := a.values()
	if v.Drops[counter.NoSA] != packets || v.Acquires != uint64(a.cfg.Acquires.Cap()) {
		t.Errorf("%d drops, %d acquires asked for, %d lost", v.Drops[counter.NoSA], v.Acquires, v.LostMsgs)
	}
}
