package pipeline_test

import (
	"bytes"
	"testing"
)

// scapyMACs are the algorithms of AH that scapy knows, by its names.
var scapyMACs = map[string]string{
	"hmac-sha1-96": "HMAC-SHA1-96", "hmac-sha2-256-128": "SHA2-256-128", "hmac-sha2-384-192": "SHA2-384-192",
	"hmac-sha2-512-256": "SHA2-512-256", "aes-cmac-96": "AES-CMAC-96",
}

// Under AH, too, what one of the two signs the other verifies: in tunnel and
// transport mode, both families, with and without ESN around 2^32, both ways of
// padding, behind options and headers, and after routers have been at it. scapy
// signs over IPv4 with a header of a multiple of 4 bytes; it verifies either.
func TestScapyAgreesOnAH(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	verified, signed, refused := 0, 0, 0
	for tn := range ahVariants {
		s := judged{tunnel: tn, scapyAuth: scapyMACs[tn.integ]}
		if s.scapyAuth == "" {
			continue
		}
		t.Run(tn.String(), func(t *testing.T) {
			for _, s.host = range []bool{false, true} {
				start := uint64(0)
				if s.esn {
					start = 5<<32 - 3
				}
				p := newPeer(t, j, &s, start)
				for _, h := range headers {
					if h.kind == 44 || s.host && h.v6 != s.outer6 {
						continue
					}
					for _, size := range []int{48, 51, 1337} {
						clear := func(toB bool, ttl byte) []byte {
							return withExtension(innerFrame(h.v6, toB, ttl, size), h.kind, h.ext)
						}
						byUs := p.outOf(clear(true, 64))
						if byUs == nil {
							t.Fatalf("%s: %d bytes did not leave: %v", h.name, size, p.drops())
						}
						want := clear(true, 63)
						if byUs = enRoute(byUs); s.host {
							want = enRoute(want)
						}
						a := j.ask(t, request{Op: "open", SA: p.from, Seq: p.out.Seq(), Packet: byUs[14:]})
						if !bytes.Equal(a.Packet, want[14:]) {
							t.Fatalf("%s: scapy verifies %s\n%x\nwant\n%x", h.name, a.Refused, a.Packet, want)
						}
						verified++
						byUs[len(byUs)-1] ^= 4
						p.scapyRefuses(p.out.Seq(), byUs[14:], h.name)
						refused++

						p.seq++
						byScapy := j.ask(t, request{Op: "seal", SA: p.to, Seq: p.seq, Packet: clear(false, 64)[14:]}).Packet
						want = clear(false, 63)
						onTheWay := enRoute(wireFrame(byScapy))
						if s.host {
							want = enRoute(want)
						}
						got := p.into(onTheWay)
						if got == nil || !bytes.Equal(got[14:], want[14:]) {
							t.Fatalf("%s: from scapy arrived\n%x\nwant\n%x\n%v", h.name, got, want, p.drops())
						}
						signed++
					}
				}
			}
		})
	}
	t.Logf("scapy verified %d packets, refused %d forged ones and signed %d", verified, refused, signed)
}
