package pipeline_test

import (
	"bytes"
	"testing"
)

// In transport mode, too, what one of the two seals, the other opens: every
// suite, both families, behind options and extension headers.
func TestScapyAgreesInTransport(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	opened, sealed := 0, 0
	for _, s := range judgedSuites(t) {
		s.host, s.esn = true, s.aead
		t.Run(s.suite.String(), func(t *testing.T) {
			for _, h := range headers {
				s.outer6 = h.v6
				p := newPeer(t, j, &s, 0)
				for _, size := range []int{48, 49, 50, 51, 574, 1337} {
					clear := func(toB bool, ttl byte) []byte {
						return withExtension(innerFrame(h.v6, toB, ttl, size), h.kind, h.ext)
					}
					byUs := p.outOf(clear(true, 64))
					if byUs == nil {
						t.Fatalf("%s: %d bytes did not leave: %v", h.name, size, p.drops())
					}
					a := j.ask(t, request{Op: "open", SA: p.from, Seq: p.out.Seq(), Packet: byUs[14:]})
					if want := clear(true, 63)[14:]; !bytes.Equal(a.Packet, want) {
						t.Fatalf("%s: scapy opens %s\n%x\nwant\n%x", h.name, a.Refused, a.Packet, want)
					}
					opened++
					p.seq++
					byScapy := j.ask(t, request{Op: "seal", SA: p.to, Seq: p.seq, Packet: clear(false, 64)[14:]}).Packet
					got := p.into(wireFrame(byScapy))
					if want := clear(false, 63); got == nil || !bytes.Equal(got[14:], want[14:]) {
						t.Fatalf("%s: from scapy arrived\n%x\nwant\n%x\n%v", h.name, got, want, p.drops())
					}
					sealed++
				}
			}
		})
	}
	t.Logf("scapy opened %d packets and sealed %d", opened, sealed)
}
