package pipeline_test

import (
	"encoding/binary"
	"testing"

	"spigot/crypto"
	"spigot/sad"
)

// mustReserve takes one sequence number of sa.
func mustReserve(t testing.TB, sa *sad.Outbound) uint32 {
	t.Helper()
	seq, n := sa.Reserve(1)
	if n != 1 {
		t.Fatal("no sequence number left")
	}
	return uint32(seq)
}

// forge makes the frame that a peer with key could send from gateway a to
// gateway b: inner, pad and the announced next header are as given, and pad nil
// means the right padding. inner should end where AES-GCM's alignment does.
func forge(key *crypto.Key, spi, seq uint32, inner, pad []byte, next byte) []byte {
	if pad == nil {
		for (len(inner)+len(pad)+2)%4 != 0 {
			pad = append(pad, byte(len(pad)+1))
		}
	}
	text := append(append(make([]byte, 0, 4096), inner...), pad...)
	return forgeText(key, spi, seq, append(text, byte(len(pad)), next))
}

// forgeText is forge with the whole plaintext as given.
func forgeText(key *crypto.Key, spi, seq uint32, text []byte) []byte {
	esp := make([]byte, 16, 4096)
	binary.BigEndian.PutUint32(esp, spi)
	binary.BigEndian.PutUint32(esp[4:], seq)
	esp = append(append(esp, text...), make([]byte, 16)...)
	jobs := []crypto.Job{{Key: key, Pkt: esp}}
	crypto.NewEngine().Seal(jobs)
	if !jobs[0].OK {
		return nil
	}
	f := udp4(gwA4, gwB4, 64, 20+len(esp))
	f[14+9] = 50
	copy(f[34:], esp)
	return fixSum4(f)
}
