package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"spigot/internal/counter"
	"spigot/sad"
	"spigot/spd"
)

// cutUp seals inner for a path of mtu and returns the fragments.
func (l *lone) cutUp(out *sad.Outbound, inner []byte, mtu int) [][]byte {
	l.t.Helper()
	out.SetPathMTU(mtu, false)
	frames := l.all(l.host, l.wire, inner)
	if len(frames) < 2 {
		l.t.Fatalf("%d bytes left in %d frames: %v", len(inner)-14, len(frames), l.drops())
	}
	for i := range frames {
		frames[i] = retarget(frames[i])
	}
	return frames
}

// What one gateway cuts up the other puts together and opens, in whatever order
// and however often the fragments come.
func TestOuterFragmentsAreOpened(t *testing.T) {
	for _, tn := range []tunnel{aes128gcm, {spi: 0x3000, enc: "aes-gcm-16", encLen: 20, window: 64, udp: true}} {
		for _, tn.outer6 = range []bool{false, true} {
			tn.window, tn.outer.DF = 1024, sad.DFClear
			a, b := newLone(t, 'a'), newLone(t, 'b')
			out, _ := a.protect(tn)
			b.protect(tn)
			rapid.Check(t, func(t *rapid.T) {
				inner := udp4(hostA4, hostB4, 64, rapid.IntRange(700, 1500).Draw(t, "size"))
				if rapid.Bool().Draw(t, "IPv6") {
					inner = udp6(hostA6, hostB6, 64, len(inner)-14)
				}
				frames := a.cutUp(out, inner, rapid.IntRange(150, 700).Draw(t, "path"))
				seed := rapid.Uint64().Draw(t, "order")
				r := rand.New(rand.NewPCG(seed, 0))
				r.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
				if tn.udp { // the first one tells whose the others are
					i := slices.IndexFunc(frames, func(f []byte) bool {
						if tn.outer6 {
							return binary.BigEndian.Uint16(f[14+42:]) == 1
						}
						return binary.BigEndian.Uint16(f[14+6:]) == 0x2000
					})
					frames[0], frames[i] = frames[i], frames[0]
				}
				before := b.values()
				twice := uint64(0)
				var got [][]byte
				for i, f := range frames {
					got = append(got, b.all(b.wire, b.host, f)...)
					if i < len(frames)-1 && r.IntN(4) == 0 {
						got = append(got, b.all(b.wire, b.host, f)...)
						twice++
					}
				}
				if len(got) != 1 || !arrives(got[0], inner) {
					t.Fatalf("%v: %d packets arrived: %v", tn, len(got), b.drops())
				}
				v := b.values()
				if v.Joined-before.Joined != uint64(len(frames)-1) || v.Waiting != 0 ||
					v.Drops[counter.BadFragment]-before.Drops[counter.BadFragment] != twice {
					t.Fatalf("%d fragments, %d twice: joined %d, waiting %d, %v", len(frames), twice, v.Joined-before.Joined, v.Waiting, b.drops())
				}
			})
		}
	}
}

// A congestion mark on one fragment is one on the packet, and goes on to the inner
// one.
func TestCongestionMarkOnAFragment(t *testing.T) {
	for _, r := range []struct{ inner, mark, want byte }{{2, 3, 3}, {2, 2, 2}, {0, 0, 0}} {
		a, b := newLone(t, 'a'), newLone(t, 'b')
		out, _ := a.protect(aes128gcm)
		b.protect(aes128gcm)
		frames := a.cutUp(out, fixSum4(change(clearDF(udp4(hostA4, hostB4, 64, 1400)), 15, r.inner)), 700)
		frames[1] = fixSum4(change(frames[1], 15, r.mark))
		for _, f := range frames[:len(frames)-1] {
			b.all(b.wire, b.host, f)
		}
		if got := b.into(frames[len(frames)-1]); got == nil || got[15] != r.want {
			t.Errorf("ECN %d, a fragment with %d: %x, %v", r.inner, r.mark, got, b.drops())
		}
	}
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	frames := a.cutUp(out, clearDF(udp4(hostA4, hostB4, 64, 1000)), 700)
	b.all(b.wire, b.host, frames[0])
	if got := b.all(b.wire, b.host, fixSum4(change(frames[1], 15, 3))); len(got) != 0 || b.values().Drops[counter.BadECN] != 2 {
		t.Errorf("a mark on a fragment of what has no ECN: %x, %v", got, b.drops())
	}
}

// piece4 is a fragment of ESP from src to gateway b, with n bytes at offset at.
func piece4(src netip.Addr, id uint16, at, n int, more bool) []byte {
	f := udp4(src, gwB4, 64, 20+max(n, 8))[:14+20+n]
	binary.BigEndian.PutUint16(f[14+2:], uint16(20+n))
	f[14+9] = 50
	binary.BigEndian.PutUint16(f[14+4:], id)
	v := uint16(at / 8)
	if more {
		v |= 0x2000
	}
	binary.BigEndian.PutUint16(f[14+6:], v)
	copy(f, mac(0xa1))
	return fixSum4(f)
}

// Hostile input 8: fragments that are tiny, overlap or reach beyond 64 KB.
func TestHostileFragments(t *testing.T) {
	type part struct {
		at, n int
		more  bool
	}
	for _, r := range []struct {
		name  string
		parts []part
		drops map[counter.Reason]uint64
		wait  uint64
	}{
		{"tiny first", []part{{0, 40, true}, {40, 800, false}}, map[counter.Reason]uint64{counter.BadFragment: 2}, 0},
		{"tiny one in the middle", []part{{0, 800, true}, {800, 8, true}, {808, 80, false}}, map[counter.Reason]uint64{counter.BadFragment: 3}, 0},
		{"tiny last is none", []part{{0, 800, true}, {800, 8, false}}, map[counter.Reason]uint64{counter.UnknownSPI: 1}, 0},
		{"no multiple of 8", []part{{0, 801, true}}, map[counter.Reason]uint64{counter.BadFragment: 1}, 0},
		{"nothing in it", []part{{800, 0, false}}, map[counter.Reason]uint64{counter.BadFragment: 1}, 0},
		{"overlap", []part{{0, 800, true}, {792, 800, true}, {800, 8, false}}, map[counter.Reason]uint64{counter.BadFragment: 3}, 0},
		{"overlap that covers", []part{{80, 80, true}, {0, 800, true}, {800, 8, false}}, map[counter.Reason]uint64{counter.BadFragment: 3}, 0},
		{"twice", []part{{0, 800, true}, {0, 800, true}}, map[counter.Reason]uint64{counter.BadFragment: 1}, 1},
		{"two ends", []part{{800, 80, false}, {880, 80, false}}, map[counter.Reason]uint64{counter.BadFragment: 2}, 0},
		{"beyond the end", []part{{80, 80, false}, {160, 80, true}}, map[counter.Reason]uint64{counter.BadFragment: 2}, 0},
		{"end before what is there", []part{{160, 80, true}, {80, 80, false}}, map[counter.Reason]uint64{counter.BadFragment: 2}, 0},
		{"beyond 64 KB", []part{{0, 800, true}, {65528, 800, false}}, map[counter.Reason]uint64{counter.BadFragment: 2}, 0},
		{"longer than a frame", []part{{0, 800, true}, {1600, 800, false}, {800, 800, true}},
			map[counter.Reason]uint64{counter.UnknownSPI: 1}, 0},
	} {
		b := newLone(t, 'b')
		b.protect(aes128gcm)
		for _, p := range r.parts {
			if got := b.all(b.wire, b.host, piece4(gwA4, 7, p.at, p.n, p.more)); len(got) != 0 {
				t.Errorf("%s: arrived %x", r.name, got)
			}
		}
		v := b.values()
		for reason, n := range v.Drops {
			if n != r.drops[counter.Reason(reason)] {
				t.Errorf("%s: %d drops as %v, want %d", r.name, n, counter.Reason(reason), r.drops[counter.Reason(reason)])
			}
		}
		if v.Waiting != r.wait {
			t.Errorf("%s: %d wait, want %d", r.name, v.Waiting, r.wait)
		}
	}
}

// Hostile input 8: 10^5 datagrams that are never complete, from one source or from
// as many. They are bounded, and what is sent as it should be gets through in
// their midst, also from the same source.
func TestIncompleteDatagrams(t *testing.T) {
	for _, spoofed := range []bool{false, true} {
		a, b := newLone(t, 'a'), newLone(t, 'b')
		out, _ := a.protect(aes128gcm)
		b.protect(aes128gcm)
		src := gwA4
		before := b.pool.Len()
		for i := range 100_000 {
			if spoofed {
				src = netip.AddrFrom4([4]byte{198, byte(51 + i>>16), byte(i >> 8), byte(i)})
			}
			if !b.wire.Inject(piece4(src, uint16(i), 0, 48, true)) {
				t.Fatal("tap is full")
			}
			if i%30 == 0 {
				b.w.Turn()
			}
			if i%10_000 != 9999 {
				continue
			}
			inner := clearDF(udp4(hostA4, hostB4, 64, 1400))
			frames := a.cutUp(out, inner, 700)
			for k, f := range frames {
				binary.BigEndian.PutUint16(f[18:], uint16(40000-i)) // an ID that nobody else uses
				frames[k] = fixSum4(f)
			}
			var got [][]byte
			for _, f := range frames {
				b.w.Turn()
				b.w.Turn()
				b.w.Turn()
				b.w.Turn()
				got = append(got, b.all(b.wire, b.host, f)...)
			}
			if len(got) != 1 || !arrives(got[0], inner) {
				t.Fatalf("after %d, spoofed %t: %d arrived: %v", i, spoofed, len(got), b.drops())
			}
		}
		for range 10 {
			b.w.Turn()
		}
		v := b.values()
		if v.Waiting > 512 || !spoofed && v.Waiting > 128 || v.Waiting+v.Drops[counter.FragmentEvicted] < 99_000 {
			t.Errorf("spoofed %t: %d wait, %v", spoofed, v.Waiting, b.drops())
		}
		if b.pool.Len() != before {
			t.Errorf("fragments keep %d frames", before-b.pool.Len())
		}
	}
}

// Fragments of others' datagrams, and of what is no IPsec, go their way.
func TestFragmentsOfOthersPass(t *testing.T) {
	b := newLone(t, 'b')
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: selector(netA4, netB4), Action: spd.Bypass})
	f := fixSum4(change(change(udp4(hostA4, hostB4, 64, 100), 14+6, 0x20, 0), 14+9, 50))
	if got := b.into(f); got == nil || !bytes.Equal(got[34:], f[34:]) || b.values().Waiting != 0 {
		t.Errorf("arrived %x, %v", got, b.drops())
	}
}

func TestRejoiningAllocatesNothing(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	var all [][]byte
	for range 60 {
		all = append(all, a.cutUp(out, clearDF(udp4(hostA4, hostB4, 64, 1400)), 900)...)
	}
	b.all(b.wire, b.host, all[0])
	b.all(b.wire, b.host, all[1])
	next := 2
	if n := testing.AllocsPerRun(50, func() {
		b.wire.Inject(all[next])
		b.wire.Inject(all[next+1])
		b.w.Turn()
		next += 2
	}); n > 3 { // the taps' copies
		t.Errorf("%v allocations", n)
	}
	if got := b.host.Take(); len(got) != 51 {
		t.Errorf("%d of 51 arrived: %v", len(got), b.drops())
	}
}
