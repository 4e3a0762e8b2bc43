package crypto

// gcmPowers is how many powers of H a key keeps. The kernels reduce GHASH's sum
// once in 16 blocks; the rest serves the end of a packet, of any length.
const gcmPowers = 52

// gcmKey is AES-GCM's key as the kernels take it. They know where its fields
// lie: see _asm/gcm/layout.go.
type gcmKey struct {
	powers [gcmPowers][16]byte // of H, the highest first, times x, bit-reversed (NIST SP 800-38D, section 6.3)
	rounds [15][16]byte        // the round keys that the key's size has
	salt   [4]byte
}

// gcmKernel is AES-GCM on one tier; that of Std is empty. Seal and open are by
// key size, of 16, 24 and 32 bytes.
type gcmKernel struct {
	expand     func(g *gcmKey, key []byte)
	seal, open [3]func(jobs *Job, group *uint8, n int)
}

// gcmKernel is the suite's; it is empty if the suite is not AES-GCM.
func (s *Suite) gcmKernel() *gcmKernel {
	if s.cipher.kernels == nil {
		return &gcmKernel{}
	}
	return &s.cipher.kernels[s.tier]
}

func (e *Engine) sealGCM(jobs []Job, group []uint8) {
	s := jobs[group[0]].Key.suite
	if k := s.gcmKernel(); k.expand != nil {
		k.seal[s.gcmSize()](&jobs[0], &group[0], len(group))
	} else {
		e.sealAEAD(jobs, group)
	}
}

func (e *Engine) openGCM(jobs []Job, group []uint8) {
	s := jobs[group[0]].Key.suite
	if k := s.gcmKernel(); k.expand != nil {
		k.open[s.gcmSize()](&jobs[0], &group[0], len(group))
	} else {
		e.openAEAD(jobs, group)
	}
}

// gcmSize is the index of the key's size in a gcmKernel.
func (s *Suite) gcmSize() int { return (s.keyLen - s.cipher.salt - 16) / 8 }
