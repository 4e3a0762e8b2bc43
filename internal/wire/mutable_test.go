package wire

import (
	"bytes"
	"testing"

	"spigot/internal/counter"
)

// Each row is headers as they travel and as AH authenticates them (RFC 4302,
// section 3.3.3.1 and appendix A), in hex without the fixed header's fields that
// are the same in all rows of a family.
func TestImmutable(t *testing.T) {
	v4 := func(dst string, options ...byte) []byte {
		p := packet4(ProtoAH, options, nil)
		addr(dst).Put4(p[v4Dst:])
		IPv4(p).UpdateChecksum()
		return p
	}
	muted4 := func(dst string, options ...byte) []byte {
		return edit(v4(dst, options...), func(p []byte) {
			p[v4TOS], p[v4Fragment], p[v4Fragment+1], p[v4TTL], p[v4Checksum], p[v4Checksum+1] = 0, 0, 0, 0, 0, 0
		})
	}
	v6 := func(next uint8, ext ...byte) []byte { return packet6(next, ext...) }
	muted6 := func(next uint8, ext ...byte) []byte {
		return edit(v6(next, ext...), func(p []byte) { p[v6HopLimit] = 0 })
	}
	const here, there = "198.51.100.2", "203.0.113.9"
	for _, c := range []struct {
		name  string
		head  []byte
		final bool
		want  []byte
	}{
		{"IPv4", v4(here), true, muted4(here)},
		{"IPv4 with all that may change", edit(v4(here), func(p []byte) {
			p[v4TOS], p[v4TTL] = 0xff, 1
			be.PutUint16(p[v4Fragment:], flagDF)
			IPv4(p).UpdateChecksum()
		}), true, muted4(here)},
		{"router alert", v4(here, 148, 4, 0, 0), true, muted4(here, 148, 4, 0, 0)},
		{"security, extended, commercial, directed", v4(here, 130, 3, 7, 133, 3, 7, 134, 3, 7, 149, 3, 7), true,
			muted4(here, 130, 3, 7, 133, 3, 7, 134, 3, 7, 149, 3, 7)},
		{"record route", v4(here, 7, 7, 4, 1, 2, 3, 4, 0), true, muted4(here, 0, 0, 0, 0, 0, 0, 0, 0)},
		{"timestamp behind no-operations", v4(here, 1, 1, 68, 6, 5, 0, 1, 0), true, muted4(here, 1, 1, 0, 0, 0, 0, 0, 0)},
		{"traceroute, stream, unknown", v4(here, 82, 2, 136, 4, 1, 2, 94, 2), true, muted4(here, 0, 0, 0, 0, 0, 0, 0, 0)},
		{"nothing behind the end is an option", v4(here, 0, 7, 9, 9), true, muted4(here, 0, 7, 9, 9)},
		{"loose source route to travel", v4(here, 131, 11, 4, 1, 2, 3, 4, 203, 0, 113, 9, 0), false,
			muted4(there, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)},
		{"strict source route to travel", v4(here, 137, 7, 4, 203, 0, 113, 9, 0), false, muted4(there, 0, 0, 0, 0, 0, 0, 0, 0)},
		{"source route travelled", v4(here, 131, 7, 8, 203, 0, 113, 9, 0), false, muted4(here, 0, 0, 0, 0, 0, 0, 0, 0)},
		{"source route arrived", v4(here, 131, 7, 4, 203, 0, 113, 9, 0), true, muted4(here, 0, 0, 0, 0, 0, 0, 0, 0)},

		{"IPv6", v6(ProtoAH), true, muted6(ProtoAH)},
		{"IPv6 with all that may change", edit(v6(ProtoAH), func(p []byte) {
			IPv6(p).SetTrafficClass(0xff)
			IPv6(p).SetFlowLabel(0xfffff)
			p[v6HopLimit] = 1
		}), true, muted6(ProtoAH)},
		{"hop-by-hop: router alert stays", v6(ProtoHopByHop, ProtoAH, 0, 5, 2, 0, 7, 1, 0), true,
			muted6(ProtoHopByHop, ProtoAH, 0, 5, 2, 0, 7, 1, 0)},
		{"hop-by-hop: data that changes", v6(ProtoHopByHop, ProtoAH, 0, 0x3e, 3, 9, 9, 9, 0), true,
			muted6(ProtoHopByHop, ProtoAH, 0, 0x3e, 3, 0, 0, 0, 0)},
		{"destination options behind hop-by-hop",
			v6(ProtoHopByHop, ProtoDstOpts, 0, 1, 4, 8, 8, 8, 8, ProtoAH, 1, 0xc9, 4, 1, 2, 3, 4, 0x20, 6, 1, 2, 3, 4, 5, 6), true,
			muted6(ProtoHopByHop, ProtoDstOpts, 0, 1, 4, 8, 8, 8, 8, ProtoAH, 1, 0xc9, 4, 1, 2, 3, 4, 0x20, 6, 0, 0, 0, 0, 0, 0)},
	} {
		dst := bytes.Repeat([]byte{0xee}, 200)
		was := bytes.Clone(c.head)
		if r := Immutable(dst, c.head, c.final); r != counter.None || !bytes.Equal(dst[:len(c.want)], c.want) {
			t.Errorf("%s: %v\n%x, want\n%x", c.name, r, dst[:len(c.want)], c.want)
		}
		if dst[len(c.want)] != 0xee || !bytes.Equal(c.head, was) {
			t.Errorf("%s: more than the copy was written", c.name)
		}
	}
}

// Options that lie about their length, and a fragment header.
func TestImmutableRefuses(t *testing.T) {
	dst := make([]byte, 200)
	for _, c := range []struct {
		name   string
		head   []byte
		reason counter.Reason
	}{
		{"IPv4 option of length 0", packet4(ProtoAH, []byte{7, 0, 0, 0}, nil), counter.BadExtension},
		{"IPv4 option of length 1", packet4(ProtoAH, []byte{148, 1, 0, 0}, nil), counter.BadExtension},
		{"IPv4 option beyond the header", packet4(ProtoAH, []byte{7, 5, 0, 0}, nil), counter.BadExtension},
		{"IPv4 option without a length", packet4(ProtoAH, []byte{1, 1, 1, 7}, nil), counter.BadExtension},
		{"source route without a pointer", packet4(ProtoAH, []byte{131, 2, 0, 0}, nil), counter.BadExtension},
		{"IPv6 option beyond the header", packet6(ProtoHopByHop, ProtoAH, 0, 5, 5, 0, 0, 0, 0), counter.BadExtension},
		{"IPv6 option without a length", packet6(ProtoDstOpts, ProtoAH, 0, 1, 3, 0, 0, 0, 5), counter.BadExtension},
		{"fragment header", packet6(ProtoFragment, fragment(ProtoAH, 0, false)...), counter.Fragment},
	} {
		if r := Immutable(dst, c.head, false); r != c.reason {
			t.Errorf("%s: %v, want %v", c.name, r, c.reason)
		}
	}
	// A source route with a pointer and no address leads nowhere else.
	short := packet4(ProtoAH, []byte{131, 3, 4, 0}, nil)
	if r := Immutable(dst, short, false); r != counter.None || !bytes.Equal(dst[v4Dst:v4Dst+4], short[v4Dst:v4Dst+4]) {
		t.Errorf("an empty source route: %v %x", r, dst[v4Dst:v4Dst+4])
	}
}
