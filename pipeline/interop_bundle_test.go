package pipeline_test

import (
	"bytes"
	"slices"
	"testing"
)

// Several SAs around one packet: what the gateway puts on, scapy takes off one
// after the other, and the other way round.
func TestScapyAgreesOnBundles(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	judgedAs := func(tn tunnel) *judged {
		s := &judged{tunnel: tn, scapyAuth: scapyMACs[tn.integ]}
		switch tn.enc {
		case "aes-gcm-16":
			s.scapyCrypt = "AES-GCM"
		case "aes-cbc":
			s.scapyCrypt = "AES-CBC"
		case "null":
			s.scapyCrypt = "NULL"
		}
		return s
	}
	opened, sealed := 0, 0
	for _, c := range bundles {
		eachFamily(c.sas, func(sas []tunnel, inner6 bool) {
			for i := range sas { // scapy leaves the high half out of a separate ICV
				sas[i].esn = sas[i].esn && sas[i].ah
			}
			a := newLone(t, 'a')
			a.bundle(sas...)
			var from, to []int
			for i := range sas {
				s := judgedAs(sas[i])
				from, to = append(from, j.add(t, s, sas[i].params(true))), append(to, j.add(t, s, sas[i].params(false)))
			}
			for seq := uint64(1); seq <= 3; seq++ {
				size := 100 + 13*int(seq)
				wire := a.outOf(innerFrame(inner6, true, 64, size))
				if wire == nil {
					t.Fatalf("%s: %v", c.name, a.drops())
				}
				ip := wire[14:]
				for _, sa := range slices.Backward(from) {
					ip = j.ask(t, request{Op: "open", SA: sa, Seq: seq, Packet: ip}).Packet
				}
				if want := innerFrame(inner6, true, 63, size)[14:]; !bytes.Equal(ip, want) {
					t.Fatalf("%s: scapy finds\n%x\nwant\n%x", c.name, ip, want)
				}
				opened++
				ip = innerFrame(inner6, false, 64, size)[14:]
				for _, sa := range to {
					ip = j.ask(t, request{Op: "seal", SA: sa, Seq: seq, Packet: ip}).Packet
				}
				got := a.into(wireFrame(ip))
				if want := innerFrame(inner6, false, 63, size); got == nil || !bytes.Equal(got[14:], want[14:]) {
					t.Fatalf("%s: from scapy arrived\n%x\nwant\n%x\n%v", c.name, got, want, a.drops())
				}
				sealed++
			}
		})
	}
	t.Logf("scapy took apart %d packets and made %d", opened, sealed)
}
