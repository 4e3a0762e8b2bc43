package sad

import (
	"testing"

	"pgregory.net/rapid"
)

func TestGeometry(t *testing.T) {
	gcm4, gcm6 := Geometry{20, 0, 16, 16, 4, 2}, Geometry{40, 0, 16, 16, 4, 2}
	cbc, transport := Geometry{20, 0, 24, 16, 16, 2}, Geometry{0, 0, 16, 16, 4, 2}
	inUDP := Geometry{20, 8, 16, 16, 4, 2}
	rows := []struct {
		g                 Geometry
		n                 int
		prefix, pad, size int
	}{
		{gcm4, 0, 36, 2, 56},
		{gcm4, 1, 36, 1, 56},
		{gcm4, 2, 36, 0, 56},
		{gcm4, 3, 36, 3, 60},
		{gcm4, 1400, 36, 2, 1456},
		{gcm6, 1400, 56, 2, 1476},
		{inUDP, 1400, 44, 2, 1464},
		{cbc, 0, 44, 14, 76},
		{cbc, 14, 44, 0, 76},
		{cbc, 15, 44, 15, 92},
		{cbc, 1400, 44, 6, 1468},
		{transport, 20, 16, 2, 56 - 20 + 20},
	}
	for _, r := range rows {
		if prefix, pad, size := r.g.Prefix(), r.g.Pad(r.n), r.g.Sealed(r.n); prefix != r.prefix || pad != r.pad || size != r.size {
			t.Errorf("%+v, %d bytes: prefix %d, padding %d, sealed %d; want %d, %d, %d",
				r.g, r.n, prefix, pad, size, r.prefix, r.pad, r.size)
		}
	}

	for _, r := range []struct {
		g        Geometry
		mtu, max int
	}{
		{gcm4, 1500, 1446}, {gcm6, 1500, 1426}, {cbc, 1500, 1438}, {gcm4, 1280, 1226}, {inUDP, 1500, 1438},
		{gcm4, 60, 6}, {gcm4, 59, 2}, {gcm4, 56, 2}, {gcm4, 55, 0}, {gcm4, 0, 0}, {gcm4, -1, 0}, {cbc, 75, 0},
	} {
		if got := r.g.MaxInner(r.mtu); got != r.max {
			t.Errorf("%+v: MaxInner(%d) = %d, want %d", r.g, r.mtu, got, r.max)
		}
	}
}

// The definition of RFC 4303, section 2.4, and of a maximum.
func TestGeometryProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := Geometry{
			Outer: rapid.SampledFrom([]uint8{0, 20, 40}).Draw(t, "outer"),
			UDP:   rapid.SampledFrom([]uint8{0, 8}).Draw(t, "udp"),
			Head:  rapid.SampledFrom([]uint8{8, 16, 24}).Draw(t, "head"),
			ICV:   rapid.SampledFrom([]uint8{8, 12, 16, 24, 32}).Draw(t, "icv"),
			Align: rapid.SampledFrom([]uint8{4, 8, 16}).Draw(t, "align"), Trailer: 2,
		}
		if rapid.Bool().Draw(t, "ah") {
			g.ICV, g.Align, g.Trailer = 0, 1, 0
		}
		n := rapid.IntRange(0, 65535).Draw(t, "n")
		pad := 0
		for (n+pad+int(g.Trailer))%int(g.Align) != 0 {
			pad++
		}
		if g.Pad(n) != pad {
			t.Fatalf("Pad(%d) = %d, want %d", n, g.Pad(n), pad)
		}
		if want := int(g.Outer) + int(g.UDP) + int(g.Head) + n + pad + int(g.Trailer) + int(g.ICV); g.Sealed(n) != want {
			t.Fatalf("Sealed(%d) = %d, want %d", n, g.Sealed(n), want)
		}
		mtu := rapid.IntRange(0, 65535).Draw(t, "mtu")
		switch m := g.MaxInner(mtu); {
		case g.Sealed(m+1) <= mtu:
			t.Fatalf("MaxInner(%d) = %d, but %d fit", mtu, m, m+1)
		case m > 0 && g.Sealed(m) > mtu:
			t.Fatalf("MaxInner(%d) = %d, which takes %d", mtu, m, g.Sealed(m))
		}
	})
}
