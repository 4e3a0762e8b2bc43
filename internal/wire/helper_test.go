package wire

import (
	"net/netip"
	"slices"
	"testing"

	"spigot/internal/flow"
)

func addr(s string) flow.Addr { return flow.FromNetip(netip.MustParseAddr(s)) }

// packet4 returns an IPv4 packet with the given options and payload.
func packet4(proto uint8, options, payload []byte) []byte {
	p := make([]byte, IPv4Len+len(options)+len(payload))
	IPv4(p).Init(addr("192.0.2.1"), addr("198.51.100.2"), proto, 64, len(p))
	p[v4VersionIHL] += uint8(len(options) / 4)
	copy(p[IPv4Len:], options)
	copy(p[IPv4Len+len(options):], payload)
	IPv4(p).UpdateChecksum()
	return p
}

// packet6 returns an IPv6 packet with the given payload, whose first header is
// of type next.
func packet6(next uint8, payload ...byte) []byte {
	p := make([]byte, IPv6Len+len(payload))
	IPv6(p).Init(addr("2001:db8::1"), addr("2001:db8:1::2"), next, 64, len(payload))
	copy(p[IPv6Len:], payload)
	return p
}

// edit returns a copy of p after f.
func edit(p []byte, f func(p []byte)) []byte {
	p = slices.Clone(p)
	f(p)
	return p
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}
