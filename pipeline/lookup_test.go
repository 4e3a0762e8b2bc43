package pipeline_test

import (
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/sad"
)

// Three SAs have one SPI: one for packets from gateway a to gateway b, one for
// all others to gateway b, and one for all others. A packet opens under the key
// of its own alone, whatever came before it.
func TestTheLongestMatchOpens(t *testing.T) {
	b := newLone(t, 'b')
	b.protect(aes128gcm)
	const spi = 0x2000
	var sas []*sad.Inbound
	for i, by := range []sad.Lookup{sad.BySrcDst, sad.ByDst, sad.BySPI} {
		p := aes128gcm.params(true)
		p.SPI, p.Lookup, p.EncKey = spi, by, key(20, byte(50+i))
		sa, err := sad.NewInbound(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.db.AddInbound(sa); err != nil {
			t.Fatal(err)
		}
		sas = append(sas, sa)
	}
	elsewhere, other := netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("192.0.2.77")
	var seq uint32
	for round := range 3 {
		for _, row := range []struct {
			src, dst netip.Addr
			want     int // in sas
		}{
			{gwA4, gwB4, 0},
			{elsewhere, gwB4, 1},
			{gwA4, other, 2},
			{elsewhere, other, 2},
			{gwA4, gwB4, 0},
		} {
			for i, sa := range sas {
				seq++
				frame := forge(sa.Key, spi, seq, udp4(hostA4, hostB4, 64, 100)[14:], nil, 4)
				copy(frame[26:], row.src.AsSlice())
				copy(frame[30:], row.dst.AsSlice())
				fixSum4(frame)
				before := b.values()
				opened := b.into(frame) != nil
				if opened != (i == row.want) {
					t.Errorf("round %d, %v -> %v: opened under key %d: %v, want key %d", round, row.src, row.dst, i, opened, row.want)
				}
				if !opened {
					b.onlyDrop(before, counter.AuthFailed)
				}
			}
		}
	}
}
