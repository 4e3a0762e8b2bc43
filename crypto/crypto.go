// Package crypto seals and opens ESP packets in batches. It turns (key, packet
// bytes, high half of the sequence number) into packet bytes and keeps no
// state of an SA.
//
// A Suite is an encryption algorithm with its integrity algorithm, one of a
// fixed set; a Key is a Suite with expanded key material. A Job is one packet.
// An Engine runs jobs; each worker has its own, because algorithms need scratch.
//
//	suite, err := crypto.Lookup("aes-gcm-16", "", 20) // 16 bytes of key, 4 of salt
//	key, err := suite.NewKey(encKey, nil)             // once an SA
//	engine := crypto.NewEngine()                      // once a worker
//	engine.Seal(jobs)                                 // once a burst
//
// AH takes an integrity algorithm alone, over any number of pieces:
//
//	suite, err := crypto.LookupIntegrity("hmac-sha2-256-128", 32)
//	key, err := suite.NewKey(nil, authKey)
//	ok := engine.Verify(key, icv, nil, header, payload)
package crypto

import "errors"

// Errors of NewKey and Lookup; they are wrapped with what, where and how to mend.
var (
	ErrAlgorithm = errors.New("crypto: no such algorithm")
	ErrKeyLength = errors.New("crypto: wrong key length")
)

// MaxBatch is how many jobs one call of a kernel takes; an Engine takes longer
// slices in pieces. Kernels are not preemptible, so it also bounds how long a
// collection can be kept waiting.
const MaxBatch = 64

// Job is one ESP packet, sealed or opened in place (RFC 4303, section 2).
//
//	Pkt:  SPI | sequence | IV | payload .. padding | pad length | next header | ICV
//
// To seal, the caller has written SPI, sequence number, payload, padding,
// pad length and next header; Seal writes the IV and the ICV. To open, Pkt is
// as received; Open leaves the decrypted payload in place.
//
// A Job fits one cache line.
type Job struct {
	Key   *Key
	Pkt   []byte // from the SPI through the ICV; the job owns these bytes while it runs
	SeqHi uint32 // high 32 bits of the extended sequence number; 0 without ESN
	OK    bool   // the verdict; after a failed Open the payload is garbage and must be dropped
	Slot  uint8  // the caller's own, not touched
	ESN   bool   // the SA uses extended sequence numbers: SeqHi is authenticated, though not sent
}
