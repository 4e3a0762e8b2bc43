package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
)

// espUDP4 and espUDP6 make a datagram from gateway a to gateway b, port 4500,
// whose UDP length says says, and whose payload is what is there.
func espUDP4(payload []byte, says int) []byte {
	f := udp4(gwA4, gwB4, 64, 28+len(payload))
	natt(f[34:], payload, says)
	return f
}

func espUDP6(payload []byte, says int) []byte {
	f := udp6(gwA6, gwB6, 64, 48+len(payload))
	natt(f[54:], payload, says)
	return f
}

func natt(udp, payload []byte, says int) {
	binary.BigEndian.PutUint16(udp, 4500)
	binary.BigEndian.PutUint16(udp[2:], 4500)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+says))
	copy(udp[8:], payload)
}

// TestESPInUDPOfAnyLength: hostile inputs 1 and 10 for RFC 3948. A datagram of 8
// bytes to 20 more than the least ESP packet, a wrong UDP length, a marker where
// ESP should be, and a keepalive: each is dropped for its reason, in both
// families, and moves nobody.
func TestESPInUDPOfAnyLength(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		tn := aes128gcm
		tn.udp, tn.outer6 = true, outer6
		a, b := newLone(t, 'a'), newLone(t, 'b')
		a.protect(tn)
		b.protect(tn)
		datagram := espUDP4
		if outer6 {
			datagram = espUDP6
		}
		esp := bytes.Repeat([]byte{0}, 64)
		binary.BigEndian.PutUint32(esp, tn.spi)
		binary.BigEndian.PutUint32(esp[4:], 1)
		type row struct {
			name   string
			frame  []byte
			reason counter.Reason
		}
		rows := []row{
			{"keepalive", datagram([]byte{0xff}, 1), counter.NATKeepalive},
			{"keepalive with padding behind it", datagram([]byte{0xff, 0, 0, 0}, 1), counter.NATKeepalive},
			{"one byte, no keepalive", datagram([]byte{0xfe}, 1), counter.BadESP},
			{"marker", datagram([]byte{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, 12), counter.ReservedSPI},
			{"marker garbage: SPI 255", datagram([]byte{0, 0, 0, 255, 1, 2, 3, 4, 5, 6, 7, 8}, 12), counter.ReservedSPI},
			{"marker garbage: SPI of nobody", datagram([]byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8}, 12), counter.UnknownSPI},
			{"UDP length 0", datagram(esp, -8), counter.BadESP},
			{"UDP length 7", datagram(esp, -1), counter.BadESP},
			{"UDP length one too long", datagram(esp, len(esp)+1), counter.BadESP},
			{"UDP length 65535", datagram(esp, 65535-8), counter.BadESP},
		}
		for n := range 21 {
			if n != 1 {
				rows = append(rows, row{fmt.Sprintf("%d bytes", n), datagram(esp[:n], n), counter.BadESP})
			}
		}
		for n := 33; n < 64; n++ { // 8 ESP, 8 IV, 16 ICV, 2 of trailer, a multiple of 4
			reason := counter.BadESP
			if n >= 36 && n%4 == 0 {
				reason = counter.AuthFailed
			}
			rows = append(rows, row{fmt.Sprintf("%d bytes", n), datagram(esp[:n], n), reason})
		}
		for _, r := range rows {
			before := b.values()
			if got := b.into(r.frame); got != nil {
				t.Errorf("outer6=%t: %s: left as %x", outer6, r.name, got)
			}
			t.Run(r.name, func(t *testing.T) { b.t = t; b.onlyDrop(before, r.reason) })
		}
		b.t = t
		for p := make([]fib.Punt, 1); b.cfg.Punts.Pop(p) == 1; {
			if p[0].Kind == fib.PuntMoved {
				t.Errorf("outer6=%t: the peer has moved to %v port %d", outer6, p[0].Via, p[0].SrcPort)
			}
		}
		if b.into(a.outOf(udp4(hostA4, hostB4, 64, 100))) == nil {
			t.Errorf("outer6=%t: and a good packet does not pass: %v", outer6, b.drops())
		}
	}
}
