package pipeline_test

import (
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/spd"
)

// audits returns what the slow path was told of packets that were dropped.
func (l *lone) audits() (all []fib.Punt) {
	var p [1]fib.Punt
	for l.cfg.Punts.Pop(p[:]) == 1 {
		if p[0].Kind == fib.PuntAudit {
			all = append(all, p[0])
		}
	}
	return all
}

// Each drop that may be an attack is told with what RFC 4303 wants known of it:
// SPI, sequence number, addresses, and the packet as far as it can be seen.
func TestAudit(t *testing.T) {
	tn := aes128gcm
	tn.selector = true
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(tn)
	b.protect(tn)
	inner := netip.MustParseAddr("10.3.0.1") // which b's selectors do not hold
	id := a.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netip.MustParsePrefix("10.3.0.0/16")),
		Action: spd.Protect, Template: templateOf(out.Src, out.Dst)})
	if err := a.db.Bind(id, out); err != nil {
		t.Fatal(err)
	}
	seal := func() []byte { return a.outOf(udp4(hostA4, hostB4, 64, 100)) }
	const esp = 34
	replay := seal() // number 1
	b.into(replay)
	forged := seal() // number 2
	forged[len(forged)-1] ^= 1
	for _, row := range []struct {
		name   string
		frame  []byte
		reason counter.Reason
		spi    uint32
		seq    uint64
		src    netip.Addr
		dst    netip.Addr
		flow   netip.Addr // its destination
	}{
		{"replayed", replay, counter.ReplaySeen, tn.spi, 1, gwA4, gwB4, gwB4},
		{"forged", forged, counter.AuthFailed, tn.spi, 2, gwA4, gwB4, gwB4},
		{"unknown SPI", change(seal(), esp, 9, 9, 9, 9), counter.UnknownSPI, 0x09090909, 3, gwA4, gwB4, gwB4},
		{"outside of the selectors", a.outOf(udp4(hostA4, inner, 64, 100)), counter.SelectorMismatch, tn.spi, 4, gwA4, gwB4, inner},
		{"in clear", udp4(hostA4, hostB4, 64, 100), counter.InPolicyClear, 0, 0, hostA4, hostB4, hostB4},
	} {
		b.into(row.frame)
		got := b.audits()
		if len(got) != 1 {
			t.Errorf("%s: %d events: %v", row.name, len(got), b.drops())
			continue
		}
		m := &got[0]
		if m.Reason != row.reason || m.SPI != row.spi || m.Seq != row.seq || m.Via != addr(row.src) || m.Dst != addr(row.dst) ||
			m.Flow.Dst != addr(row.flow) || m.Label != 0 {
			t.Errorf("%s: %v, SPI %#x, number %d, %v -> %v, %v", row.name, m.Reason, m.SPI, m.Seq, m.Via, m.Dst, m.Flow)
		}
	}
	// What has no policy, or no room, is no attack.
	b.into(udp4(hostA4, netip.MustParseAddr("10.77.0.1"), 64, 100))
	if got := b.audits(); len(got) != 0 {
		t.Errorf("no policy: %d events", len(got))
	}
}

// An outer header of IPv6 has a flow label, and the sender's own numbers can run out.
func TestAuditOfIPv6AndOutbound(t *testing.T) {
	tn := aes128gcm
	tn.outer6 = true
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(tn)
	b.protect(tn)
	sealed := a.outOf(udp4(hostA4, hostB4, 64, 100))
	sealed = change(sealed, 14, 0x60, 0x0a, 0xbc, 0xde)
	sealed[len(sealed)-1] ^= 1
	b.into(sealed)
	if got := b.audits(); len(got) != 1 || got[0].Label != 0xabcde || got[0].Via != addr(gwA6) {
		t.Errorf("%+v", got)
	}
	if !out.Advance(1<<32 - 1) {
		t.Fatal("the SA does not advance")
	}
	a.outOf(udp4(hostA4, hostB4, 64, 100))
	if got := a.audits(); len(got) != 1 || got[0].Reason != counter.SeqExhausted || got[0].SPI != tn.spi || got[0].Seq != 1<<32-1 {
		t.Errorf("%+v", got)
	}
}

// A flood makes few events, and leaves the ring to others.
func TestAuditsAreBounded(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	b.protect(aes128gcm)
	bad := a.outOf(udp4(hostA4, hostB4, 64, 100))
	bad[len(bad)-1] ^= 1
	for range 200 {
		b.into(bad)
	}
	if n := b.cfg.Punts.Len(); n != 8 || b.values().Drops[counter.AuthFailed] != 200 {
		t.Errorf("%d events of 200", n)
	}
	b.audits()
	if n := testing.AllocsPerRun(50, func() { b.wire.Inject(retarget(bad)); b.w.Turn() }); n > 2 { // retarget's
		t.Errorf("%v allocations", n)
	}
}

// What is told of AH has the number of its own packet.
func TestAuditOfAH(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(ahTunnel)
	b.protect(ahTunnel)
	a.outOf(udp4(hostA4, hostB4, 64, 100))
	f := a.outOf(udp4(hostA4, hostB4, 64, 100))
	f[len(f)-1] ^= 1
	b.into(f)
	if got := b.audits(); len(got) != 1 || got[0].Reason != counter.AuthFailed || got[0].Seq != 2 || got[0].SPI != ahTunnel.spi {
		t.Errorf("%+v", got)
	}
}

// Of a packet that came by several SAs the innermost one is told.
func TestAuditOfBundles(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.bundle(espHost, ahHost)
	b.bundle(ahHost)
	b.pair(espHost)
	a.outOf(udp4(hostA4, hostB4, 64, 100))
	b.into(a.outOf(udp4(hostA4, hostB4, 64, 100)))
	if got := b.audits(); len(got) != 1 || got[0].Reason != counter.InPolicyMismatch || got[0].SPI != espHost.spi || got[0].Seq != 2 ||
		got[0].Via != addr(hostA4) || got[0].Dst != addr(hostB4) {
		t.Errorf("%d: SPI %#x, number %d, %v -> %v", len(got), got[0].SPI, got[0].Seq, got[0].Via, got[0].Dst)
	}
}
