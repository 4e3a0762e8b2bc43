package crypto

import "encoding/binary"

// Engine runs jobs. It is scratch memory for one worker: its methods must not
// run at the same time. Keys may be shared between Engines.
type Engine struct {
	left, group [MaxBatch]uint8 // indexes of jobs: not yet run, and of the suite that runs now

	nonce   [12]byte          // of an AEAD: salt, then IV
	aad     [12]byte          // of an AEAD with ESN
	seqHi   [4]byte           // what is signed after the packet with ESN
	sum     [64]byte          // output of an integrity algorithm
	parts   [2][]byte         // what it is over
	text    []byte            // for the standard library's GCM: all of it in a row
	counter [16]byte          // of counter mode: the block
	stream  [16]byte          // of counter mode: for the end of a packet
	block   [16]byte          // of counter mode: the encrypted block
	digests [numHashes]digest // by hashID
	cbcMAC  cbcMAC
	ghash   ghash
	cbc     cbcLanes
	hmac    hmacLanes
	gcm     gcmLists
}

// NewEngine makes a worker's Engine.
func NewEngine() *Engine {
	return &Engine{digests: newDigests(), cbc: newCBCLanes(), gcm: newGCMLists()}
}

// Seal encrypts each job's packet in place and writes its IV and ICV. It sets
// OK on each job: false if the job has no living key, or if its packet is too
// short or not aligned for the key's suite; such a packet is left as it is.
//
// The jobs may be of any mix of keys and suites and of any number. Their order
// stays, but not the order in which they run, so no two may share bytes.
func (e *Engine) Seal(jobs []Job) {
	for len(jobs) > 0 {
		n := min(len(jobs), MaxBatch)
		e.run(jobs[:n], true)
		jobs = jobs[n:]
	}
}

// Open verifies each job's packet and decrypts it in place. It sets OK on each
// job as Seal does, and only if the packet is authentic. The SA must not have
// been changed by the packet before that (RFC 4303, section 3.4.3).
func (e *Engine) Open(jobs []Job) {
	for len(jobs) > 0 {
		n := min(len(jobs), MaxBatch)
		e.run(jobs[:n], false)
		jobs = jobs[n:]
	}
}

// run gives each suite's kernel its jobs together, so that a kernel can work
// on several packets at once. Mostly all are of one suite: one pass does.
func (e *Engine) run(jobs []Job, seal bool) {
	jobs = e.runGCM(jobs, seal)
	var s *Suite
	same, rest := 0, 0
	for i := range jobs {
		j := &jobs[i]
		j.OK = false
		switch {
		case !j.fits():
		case s == nil || s == j.Key.suite:
			s = j.Key.suite
			e.group[same%MaxBatch] = uint8(i)
			same++
		default:
			e.left[rest%MaxBatch] = uint8(i)
			rest++
		}
	}
	for same > 0 {
		if seal {
			s.seal(e, jobs, e.group[:same])
		} else {
			s.open(e, jobs, e.group[:same])
		}
		s, same, rest = e.regroup(jobs, rest)
	}
}

// regroup takes the jobs of one more suite out of what is left.
func (e *Engine) regroup(jobs []Job, left int) (s *Suite, same, rest int) {
	for _, i := range e.left[:left] {
		switch suite := jobs[i].Key.suite; {
		case s == nil || s == suite:
			s = suite
			e.group[same] = i
			same++
		default:
			e.left[rest] = i
			rest++
		}
	}
	return s, same, rest
}

// fits tells whether the job has a living key and a packet that its suite can
// take: what is between IV and ICV fills the alignment, at least once, as pad
// length and next header are always there.
func (j *Job) fits() bool {
	return j.Key != nil && j.Key.live != nil && j.fitsSuite(j.Key.live)
}

// fitsSuite tells whether the job has a living key of s, and a packet for it.
func (j *Job) fitsSuite(s *Suite) bool {
	k := j.Key
	if k == nil || k.live != s {
		return false
	}
	n := len(j.Pkt) - s.overhead
	return n > 0 && n&s.unaligned == 0
}

// seq is the extended sequence number; its high half is 0 without ESN.
func (j *Job) seq() uint64 {
	return uint64(j.SeqHi)<<32 | uint64(binary.BigEndian.Uint32(j.Pkt[4:]))
}

// textAt is where the text begins that is encrypted.
func (s *Suite) textAt() int { return headerLen + s.cipher.iv }

// text is what is encrypted: what lies between IV and ICV.
func (j *Job) text() []byte { return j.Pkt[j.Key.suite.textAt() : len(j.Pkt)-j.Key.suite.ICVLen()] }

// icv is the packet's end.
func (j *Job) icv() []byte { return j.Pkt[len(j.Pkt)-j.Key.suite.ICVLen():] }
