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
		jobs[i].putIV()
	}
	e.gcm.run(&k.seal[s.gcmSize()], jobs, e.gcm.sort(jobs, group))
}

func (e *Engine) openGCM(jobs []Job, group []uint8) {
	s := jobs[group[0]].Key.suite
	if k := s.gcmKernel(); k.expand != nil {
		e.gcm.run(&k.open[s.gcmSize()], jobs, e.gcm.sort(jobs, group))
	} else {
		e.openAEAD(jobs, group)
	}
}

// runGCM does what run does, in one pass over the jobs, if all are of one suite
// of AES-GCM and fit it. If not, it has written no more than IVs.
func (e *Engine) runGCM(jobs []Job, seal bool) bool {
	first := jobs[0].Key
	if first == nil || !first.alive || first.suite.cipher.kernels == nil {
		return false
	}
	s := first.suite
	k := s.gcmKernel()
	if k.expand == nil {
		return false
	}
	var one, two, more int
	for i := range jobs {
		j := &jobs[i]
		if !j.fitsSuite(s) {
			return false
		}
		if seal {
			j.putIV()
		}
		one, two, more = e.gcm.add(uint8(i), len(j.Pkt), one, two, more)
	}
	f := &k.open
	if seal {
		f = &k.seal
	}
	e.gcm.run(&f[s.gcmSize()], jobs, gcmCounts{one, two, more})
	return true
}

// putIV writes the sequence number as the packet's IV.
func (j *Job) putIV() {
	head := (*[headerLen + aeadIVLen]byte)(j.Pkt)
	binary.BigEndian.PutUint32(head[headerLen:], j.SeqHi)
	copy(head[headerLen+4:], head[4:headerLen])
}

// gcmSize is the index of the key's size in a gcmKernel.
func (s *Suite) gcmSize() int { return (s.keyLen - s.cipher.salt - 16) / 8 }

// gcmLists is scratch: indexes of jobs by what their packets take. gcmCounts
// is how many there are of each.
type (
	gcmLists  [len(gcmSizes{})][MaxBatch]uint8
	gcmCounts [len(gcmSizes{})]int
)

// run gives each of the functions its packets.
func (l *gcmLists) run(f *gcmSizes, jobs []Job, n gcmCounts) {
	const any = len(gcmSizes{}) - 1
	for size := range any {
		if f[size] == nil { // the function for any takes all, in any order
			n[any] += copy(l[any][n[any]:], l[size][:n[size]])
			n[size] = 0
		}
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

// sort fills the lists with a group's jobs.
func (l *gcmLists) sort(jobs []Job, group []uint8) gcmCounts {
	var one, two, more int
	for _, i := range group {
		one, two, more = l.add(i, len(jobs[i].Pkt), one, two, more)
	}
	return gcmCounts{one, two, more}
}

// add appends job i, whose packet has n bytes, to its list, and tells how long
// the lists are.
func (l *gcmLists) add(i uint8, n, one, two, more int) (int, int, int) {
	if n <= 64+aeadTagLen {
		l[0][one%MaxBatch] = i
		return one + 1, two, more
	}
	if n <= 128+aeadTagLen {
		l[1][two%MaxBatch] = i
		return one, two + 1, more
	}
	l[2][more%MaxBatch] = i
	return one, two, more + 1
}
