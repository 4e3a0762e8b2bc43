package pipeline_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/sad"
	"spigot/spd"
)

// Mistakes that IPsec stacks have made, one test for each class. Those of the
// key daemons' sockets are tested in control/pfkey and control/xfrm.

// CVE-2022-27666: esp_output wrote its trailer beyond the buffer of a large
// packet. Here sealing ends at the chunk: see TestHostile11OutgrowsTheFrame. The
// frame behind it, which lies next in memory, belongs to somebody else.
func TestCVE202227666(t *testing.T) {
	for _, tn := range victims {
		a := newLoneOf(t, 'a', 64)
		a.protect(tn)
		a.setMTU(9000)
		for size := 2048 - 256 - 14; size > 2048-256-14-80; size-- {
			a.guarded(a.host, a.wire, udp4(hostA4, hostB4, 64, size), 256, 2048)
		}
	}
}

// CVE-2026-31472: an inner packet of length 0 made a loop that never ended.
func TestCVE202631472(t *testing.T) {
	a, b := newLoneOf(t, 'a', 64), newLoneOf(t, 'b', 64)
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	for n := range 20 {
		inner := change(udp4(hostA4, hostB4, 64, 98)[14:], 2, 0, byte(n))
		b.refuses(fmt.Sprintf("inner IPv4 of length %d", n), forge(out.Key, out.SPI, mustReserve(t, out), inner, nil, 4), counter.BadInner)
	}
	six := change(udp6(hostA6, hostB6, 64, 98)[14:], 4, 0, 0)
	b.refuses("inner IPv6 of length 0", forge(out.Key, out.SPI, mustReserve(t, out), six, nil, 41), counter.BadInner)
	for n := range 40 {
		for _, next := range []byte{4, 41} {
			text := append([]byte{next<<4 | 5}, make([]byte, n)...)[:n]
			b.refuses(fmt.Sprintf("%d bytes of protocol %d", n, next), forge(out.Key, out.SPI, mustReserve(t, out), text, nil, next), counter.BadInner)
		}
	}
	b.passes("after them", a)
}

// CVE-2025-39965: an SA with SPI 0 was taken for one that has no SPI yet. No such
// SA is made, and no packet looks for it.
func TestCVE202539965(t *testing.T) {
	a, b := pair(t, aes128gcm)
	b.refuses("SPI 0", change(a.outOf(udp4(hostA4, hostB4, 64, 100)), 34, 0, 0, 0, 0), counter.ReservedSPI)
	p := aes128gcm.params(true)
	for p.SPI = range uint32(256) {
		if _, err := sad.NewInbound(p); !errors.Is(err, sad.ErrParams) {
			t.Errorf("an SA with SPI %d: %v", p.SPI, err)
		}
	}
}

// FreeBSD-SA-06:11: the replay window never advanced, so that every packet could
// be sent again.
func TestFreeBSDSA0611(t *testing.T) {
	for _, tn := range victims {
		a, b := newLoneOf(t, 'a', 64), newLoneOf(t, 'b', 64)
		a.protect(tn)
		_, in := b.protect(tn)
		var all [][]byte
		for k := range uint64(300) {
			f := a.outOf(udp4(hostA4, hostB4, 64, 100))
			if b.into(f) == nil || in.Seq() != k+1 {
				t.Fatalf("%v: packet %d: the window is at %d: %v", tn, k+1, in.Seq(), b.drops())
			}
			all = append(all, f)
		}
		reasons := []counter.Reason{counter.ReplaySeen, counter.ReplayOld}
		if tn.esn { // a number left of the window is one of the next 2^32, and its ICV says that it is not
			reasons = append(reasons, counter.AuthFailed)
		}
		for k, f := range all {
			b.refuses(fmt.Sprintf("%v: packet %d again", tn, k+1), f, reasons...)
		}
	}
}

// CVE-2019-14899: who shares the link with a client of a tunnel writes to the
// address that it has inside, to learn of connections there. What belongs inside
// is not taken from outside, and the answers to it do not go there.
func TestCVE201914899(t *testing.T) {
	_, b := pair(t, aes128gcm)
	inside := netip.MustParseAddr("10.2.0.1") // the gateway's own, in the net behind it
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: selector(netA4, netip.PrefixFrom(gwB4, 32)), Action: spd.Bypass})
	for _, dst := range []netip.Addr{hostB4, inside} {
		for _, src := range []netip.Addr{hostA4, netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.255.255")} {
			b.refuses(fmt.Sprintf("clear, from %v to %v", src, dst), udp4(src, dst, 64, 100), counter.InPolicyClear)
		}
	}
	b.refuses("from a stranger", udp4(netip.MustParseAddr("198.51.100.1"), inside, 64, 100), counter.NoPolicy)
	if all, told := b.cfg.Punts.Len(), len(b.audits()); all != told {
		t.Errorf("%d answers to who asks from outside", all-told)
	}
}
