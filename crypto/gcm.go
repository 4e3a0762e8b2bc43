package crypto

import (
	"encoding/binary"
	"structs"
)

// gcmPowers is how many powers of H a key keeps. GHASH's sum is reduced once in
// 32 blocks, and a packet's end takes any number of powers. More of them save
// reductions, until keys do not fit the caches: docs/crypto-gcm.md has the figures.
const gcmPowers = 36

// gcmWords is how many words of text a small packet has at the most.
const gcmWords = (128 - headerLen - aeadIVLen) / 4

// gcmKey is AES-GCM's key as the kernels take it. They know where its fields
// lie: see _asm/gcm/layout.go.
type gcmKey struct {
	_ structs.HostLayout
	// counters are the first four counter blocks but the IV, the first round key added.
	counters [4][16]byte
	esn      [16]byte            // what 32 bits more of AAD add to the tag
	powers   [gcmPowers][16]byte // of H, the highest first, times x, bit-reversed (NIST SP 800-38D, section 6.3)
	rounds   aesSchedule         // the round keys that the key's size has; the salt is added to the first
	// lengths is what the block of lengths adds to a small packet's tag, by the
	// text's words of 32 bits, from 1 on: that saves it a product.
	lengths [gcmWords][16]byte
}

// gcmKernel is AES-GCM on one tier; that of Std is empty. Seal and open are by
// key size, of 16, 24 and 32 bytes.
type gcmKernel struct {
	expand     func(g *gcmKey, key, salt []byte)
	seal, open [3]gcmFuncs
}

// gcmFuncs are the functions for packets of up to 64, 80 and 128 bytes without
// ICV, and for those of any size. Those for small ones may be nil.
type gcmFuncs struct {
	small [gcmAny]gcmSmall
	any   func(jobs *Job, group *gcmList, n int)
}

// gcmSmall takes the jobs of group, n of them and four at a time, as long as all
// four have living keys of the suite and packets of its size; then it stops, and
// tells how many it has taken. To seal, it writes the IV, maybe in some of four
// that it does not take. Among four, one job may be there several times: done twice
// at once it comes out the same.
type gcmSmall func(jobs *Job, group *gcmList, n int, suite *Suite) int

// gcmFours is how many packets a gcmSmall takes at once.
const gcmFours = 4

// gcmKernel is the suite's; it is empty if the suite is not AES-GCM.
func (s *Suite) gcmKernel() *gcmKernel {
	if s.cipher.kernels == nil {
		return &gcmKernel{}
	}
	return &s.cipher.kernels[s.tier]
}

// funcs are those for the size of the suite's keys.
func (k *gcmKernel) funcs(s *Suite, seal bool) *gcmFuncs {
	size := (s.keyLen - s.cipher.salt - 16) / 8
	if seal {
		return &k.seal[size]
	}
	return &k.open[size]
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
	e.gcm.run(k.funcs(s, true), jobs, e.gcm.sort(jobs, group), s)
}

func (e *Engine) openGCM(jobs []Job, group []uint8) {
	s := jobs[group[0]].Key.suite
	if k := s.gcmKernel(); k.expand != nil {
		e.gcm.run(k.funcs(s, false), jobs, e.gcm.sort(jobs, group), s)
	} else {
		e.openAEAD(jobs, group)
	}
}

// runGCM does what run does, if the first job is of a suite of AES-GCM, and
// returns the jobs that are left to do. Small packets of one size take no pass
// over the jobs; if not, one pass does if all fit that suite. If they do not, it
// has written no more than IVs.
func (e *Engine) runGCM(jobs []Job, seal bool) []Job {
	first := jobs[0].Key
	if first == nil || first.live == nil || first.suite.cipher.kernels == nil {
		return jobs
	}
	s := first.suite
	k := s.gcmKernel()
	if k.expand == nil {
		return jobs
	}
	f := k.funcs(s, seal)
	if size := gcmSize(len(jobs[0].Pkt)); size < gcmAny && f.small[size] != nil && allOfSize(jobs, size) {
		done := f.small[size](&jobs[0], &e.gcm.all, len(jobs)&^(gcmFours-1), s)
		if jobs = jobs[done:]; len(jobs) == 0 {
			return nil
		}
	}
	large := largeGCM(jobs, s, seal)
	if large == len(jobs) {
		f.any(&jobs[0], &e.gcm.all, large)
		return nil
	}
	var n gcmCounts
	n[gcmAny] = copy(e.gcm.of[gcmAny][:], e.gcm.all[:large])
	for i := large; i < len(jobs); i++ {
		j := &jobs[i]
		if !j.fitsSuite(s) {
			return jobs
		}
		if seal {
			j.putIV()
		}
		e.gcm.add(uint8(i), len(j.Pkt), &n)
	}
	e.gcm.run(f, jobs, n, s)
	return nil
}

// largeGCM counts the jobs before the first that has a small packet or does not
// fit s. They need no sorting; to seal, they get their IV.
func largeGCM(jobs []Job, s *Suite, seal bool) (n int) {
	for n < len(jobs) && gcmSize(len(jobs[n].Pkt)) == gcmAny && jobs[n].fitsSuite(s) {
		if seal {
			jobs[n].putIV()
		}
		n++
	}
	return n
}

// allOfSize guesses from some of the jobs whether all packets are of one size:
// else it costs more than it saves to try.
func allOfSize(jobs []Job, size int) bool {
	n := len(jobs)
	return n >= gcmFours && gcmSize(len(jobs[1].Pkt)) == size && gcmSize(len(jobs[n/2].Pkt)) == size &&
		gcmSize(len(jobs[n-1].Pkt)) == size
}

// putIV writes the sequence number as the packet's IV.
func (j *Job) putIV() {
	head := (*[headerLen + aeadIVLen]byte)(j.Pkt)
	binary.BigEndian.PutUint32(head[headerLen:], j.SeqHi)
	copy(head[headerLen+4:], head[4:headerLen])
}

// gcmList tells where jobs lie, in bytes from the first.
type gcmList [MaxBatch]uint16

// gcmLists is scratch: lists by what a job's packet takes, and one of all jobs.
// gcmCounts is how many there are of each.
type (
	gcmLists struct {
		of  [gcmAny + 1]gcmList
		all gcmList
	}
	gcmCounts [gcmAny + 1]int
)

// jobSize is that of a Job, for the kernels.
const jobSize = 40

// gcmAny is the index of the list for those that are not small.
const gcmAny = 3

func newGCMLists() (l gcmLists) {
	for i := range l.all {
		l.all[i] = uint16(i) * jobSize
	}
	return l
}

// gcmSize is the index of the list for packets of n bytes.
func gcmSize(n int) int {
	switch {
	case n <= 64+aeadTagLen:
		return 0
	case n <= 80+aeadTagLen:
		return 1
	case n <= 128+aeadTagLen:
		return 2
	}
	return gcmAny
}

// run gives each of the functions its packets.
func (l *gcmLists) run(f *gcmFuncs, jobs []Job, n gcmCounts, s *Suite) {
	anySize := &l.of[gcmAny]
	for size, small := range f.small {
		list, k := &l.of[size], n[size]
		if small == nil { // the function for any takes all, in any order
			n[gcmAny] += copy(anySize[n[gcmAny]:], list[:k])
			continue
		}
		if k%gcmFours == 1 { // for one alone, the function for any is faster
			k--
			anySize[n[gcmAny]] = list[k]
			n[gcmAny]++
		}
		for ; k%gcmFours != 0; k++ {
			list[k] = list[k-1]
		}
		if k > 0 {
			small(&jobs[0], list, k, s)
		}
	}
	if n[gcmAny] > 0 {
		f.any(&jobs[0], anySize, n[gcmAny])
	}
}

// sort fills the lists with a group's jobs.
func (l *gcmLists) sort(jobs []Job, group []uint8) (n gcmCounts) {
	for _, i := range group {
		l.add(i, len(jobs[i].Pkt), &n)
	}
	return n
}

// add appends job i, whose packet has so many bytes, to its list.
func (l *gcmLists) add(i uint8, bytes int, n *gcmCounts) {
	size := gcmSize(bytes)
	l.of[size][n[size]%MaxBatch] = uint16(i) * jobSize
	n[size]++
}
