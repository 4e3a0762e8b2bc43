package crypto

import "encoding/binary"

// gcmPowers is how many powers of H a key keeps. GHASH's sum is reduced once in
// 32 blocks, and a packet's end takes any number of powers. More of them save
// reductions, until keys do not fit the caches: docs/crypto-gcm.md has the figures.
const gcmPowers = 36

// gcmKey is AES-GCM's key as the kernels take it. They know where its fields
// lie: see _asm/gcm/layout.go.
type gcmKey struct {
	powers [gcmPowers][16]byte // of H, the highest first, times x, bit-reversed (NIST SP 800-38D, section 6.3)
	rounds aesSchedule         // the round keys that the key's size has; the salt is added to the first
}

// gcmKernel is AES-GCM on one tier; that of Std is empty. Seal and open are by
// key size, of 16, 24 and 32 bytes.
type gcmKernel struct {
	expand     func(g *gcmKey, key, salt []byte)
	seal, open [3]gcmSizes
}

// gcmSizes are functions by what a packet takes, without its ICV: up to 64
// bytes, up to 128 and any number. The first two take packets in fours, and may
// be nil.
type gcmSizes [3]func(jobs *Job, group *uint8, n int)

// gcmFours is how many packets the functions for small ones take at once.
const gcmFours = 4

// gcmKernel is the suite's; it is empty if the suite is not AES-GCM.
func (s *Suite) gcmKernel() *gcmKernel {
	if s.cipher.kernels == nil {
		return &gcmKernel{}
	}
	return &s.cipher.kernels[s.tier]
}

// sealGCM takes the sequence number as IV: see sealAEAD.
func (e *Engine) sealGCM(jobs []Job, group []uint8) {
	s := jobs[group[0]].Key.suite
	k := s.gcmKernel()
	if k.expand == nil {
		e.sealAEAD(jobs, group)
		return
	}
	for _, i := range group {
		j := &jobs[i]
		iv := (*[aeadIVLen]byte)(j.Pkt[headerLen:])
		binary.BigEndian.PutUint64(iv[:], j.seq())
	}
	e.gcm.run(&k.seal[s.gcmSize()], jobs, group)
}

func (e *Engine) openGCM(jobs []Job, group []uint8) {
	s := jobs[group[0]].Key.suite
	if k := s.gcmKernel(); k.expand != nil {
		e.gcm.run(&k.open[s.gcmSize()], jobs, group)
	} else {
		e.openAEAD(jobs, group)
	}
}

// gcmSize is the index of the key's size in a gcmKernel.
func (s *Suite) gcmSize() int { return (s.keyLen - s.cipher.salt - 16) / 8 }

// gcmLists is scratch: a group's jobs by what their packets take.
type gcmLists [len(gcmSizes{})][MaxBatch]uint8

// run gives each of the functions its packets.
func (l *gcmLists) run(f *gcmSizes, jobs []Job, group []uint8) {
	const any = len(gcmSizes{}) - 1
	n := [len(gcmSizes{})]int{any: len(group)}
	if f[0] == nil {
		copy(l[any][:], group)
	} else {
		n = l.sort(jobs, group)
	}
	for size := range any {
		if n[size]%gcmFours == 1 { // for one alone, the function for any is faster
			n[size]--
			l[any][n[any]] = l[size][n[size]]
			n[any]++
		}
		for ; n[size]%gcmFours != 0; n[size]++ { // done twice at once, a packet comes out the same
			l[size][n[size]] = l[size][n[size]-1]
		}
	}
	for size := range n {
		if n[size] > 0 {
			f[size](&jobs[0], &l[size][0], n[size])
		}
	}
}

// sort fills the lists and tells their lengths.
func (l *gcmLists) sort(jobs []Job, group []uint8) [len(gcmSizes{})]int {
	var one, two, more int
	for _, i := range group {
		switch n := len(jobs[i].Pkt) - aeadTagLen; {
		case n > 128:
			l[2][more%MaxBatch] = i
			more++
		case n > 64:
			l[1][two%MaxBatch] = i
			two++
		default:
			l[0][one%MaxBatch] = i
			one++
		}
	}
	return [len(gcmSizes{})]int{one, two, more}
}
