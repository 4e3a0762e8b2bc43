package pipeline_test

import (
	"bytes"
	"net/netip"
	"testing"

	"spigot/internal/fib"
)

// TestAPeerBehindANATIsLocated: where an authentic and new packet came from goes
// to the slow path; a forged, replayed or late one moves nobody.
func TestAPeerBehindANATIsLocated(t *testing.T) {
	tn := aes128gcm
	tn.udp = true
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(tn)
	b.protect(tn)
	seal := func() []byte { return a.outOf(udp4(hostA4, hostB4, 64, 100)) }
	const source, udp = 26, 34 // offsets in the frame
	fromPort := func(f []byte, port uint16) []byte { return change(f, udp, byte(port>>8), byte(port)) }
	late, replay := seal(), seal()
	outside := netip.MustParseAddr("198.51.100.7")
	elsewhere := func(f []byte) []byte {
		four := outside.As4()
		return fixSum4(change(f, source, four[:]...))
	}
	forge := func(f []byte) []byte { f[len(f)-1] ^= 1; return f }
	for _, row := range []struct {
		name  string
		frame []byte
		port  uint16 // told; 0: nothing
		peer  netip.Addr
	}{
		{"where the SA says", bytes.Clone(replay), 0, netip.Addr{}},
		{"another port", fromPort(seal(), 1024), 1024, gwA4},
		{"the same port again", fromPort(seal(), 1024), 0, netip.Addr{}}, // for some turns
		{"a third one", fromPort(seal(), 1025), 1025, gwA4},
		{"forged", forge(fromPort(seal(), 1026)), 0, netip.Addr{}},
		{"replayed", fromPort(replay, 1027), 0, netip.Addr{}},
		{"late", fromPort(late, 1028), 0, netip.Addr{}},
		{"another address", elsewhere(seal()), 4500, outside},
	} {
		b.into(row.frame)
		var p [1]fib.Punt
		n := b.cfg.Punts.Pop(p[:])
		if n == 1 && p[0].Kind == fib.PuntAudit { // of one that was dropped
			n = 0
		}
		if n != 0 != (row.port != 0) {
			t.Errorf("%s: %d messages", row.name, n)
		}
		if n == 0 {
			continue
		}
		m := &p[0]
		if m.Kind != fib.PuntMoved || m.SrcPort != row.port || m.Via != addr(row.peer) || m.SPI != tn.spi || m.Len != 0 {
			t.Errorf("%s: kind %d, SPI %#x, from %v port %d", row.name, m.Kind, m.SPI, m.Via, m.SrcPort)
		}
	}
}

// Without a replay window whoever has recorded a packet could send it again from
// where he likes: nobody is moved.
func TestNoWindowMovesNobody(t *testing.T) {
	tn := aes128gcm
	tn.udp, tn.window = true, 0
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(tn)
	b.protect(tn)
	f := a.outOf(udp4(hostA4, hostB4, 64, 100))
	b.into(bytes.Clone(f))
	if b.into(change(f, 34, 4, 1)) == nil {
		t.Errorf("without a window: %v", b.drops())
	}
	var p [1]fib.Punt
	if b.cfg.Punts.Pop(p[:]) != 0 {
		t.Errorf("moved to port %d", p[0].SrcPort)
	}
}
