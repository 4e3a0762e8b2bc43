package crypto

import "crypto/aes"

// A CBC block waits for the one before it, so one packet cannot use more than a
// fraction of an AES unit. A kernel encrypts a block of each of many packets
// at once; a packet has a lane of it until it ends, then the next one has.
const cbcWide = 16

// aesSchedule is AES's round keys, of which the longest key has 15.
type aesSchedule = [15][aes.BlockSize]byte

// aesKernel is CBC and counter mode on one tier; that of Std is empty.
type aesKernel struct {
	// expand makes both schedules of a key, and tells the number of rounds.
	expand func(encrypt, decrypt *aesSchedule, key []byte) (rounds int)
	// encrypt encrypts blocks of each lane's text in place. Lanes may be alike.
	encrypt func(keys *[15][cbcWide][aes.BlockSize]byte, chain *[cbcWide][aes.BlockSize]byte, rounds int,
		text *[cbcWide][]byte, blocks int)
	// encryptOne encrypts text in place, chained to zero.
	encryptOne func(schedule *aesSchedule, rounds int, text []byte)
	// decrypt decrypts text in place but for its first block, which is the IV.
	decrypt func(schedule *aesSchedule, rounds int, text []byte)
	// ctr encrypts or decrypts whole blocks in place from the counter block on.
	ctr func(schedule *aesSchedule, rounds int, counter *[aes.BlockSize]byte, text []byte)
}

// maxRun is how many bytes of each lane a kernel takes in one call: kernels are
// not preemptible, and a collection waits for them. It is whole blocks of all
// algorithms.
const maxRun = 8192

func (s *Suite) aesKernel() *aesKernel { return &aesKernels[s.tier] }

// aesKey is the key as kernels take it.
type aesKey struct {
	encrypt, decrypt aesSchedule
	rounds           int
}

// cbcLanes is what a kernel works on.
type cbcLanes struct {
	rows *cbcRows
	text [cbcWide][]byte // what is still to be encrypted
}

// cbcRows are operands, so they should not straddle cache lines: on Zen4 that
// costs half of the speed. The allocator aligns memory of this size, but only
// if there are no pointers in it.
type cbcRows struct {
	keys  [15][cbcWide][aes.BlockSize]byte // by round
	chain [cbcWide][aes.BlockSize]byte     // what the next block is chained to
}

func newCBCLanes() cbcLanes { return cbcLanes{rows: new(cbcRows)} }

// encrypt encrypts each packet of the group, its IV included. It leaves no
// trace of them in l.
func (l *cbcLanes) encrypt(k *aesKernel, jobs []Job, group []uint8) {
	rounds := jobs[group[0]].Key.aes.rounds
	if !worthLanes(jobs, group) {
		for _, i := range group {
			k.encryptOne(&jobs[i].Key.aes.encrypt, rounds, jobs[i].cbcText())
		}
		return
	}
	for {
		for lane := range l.text {
			if len(group) > 0 && len(l.text[lane]) == 0 {
				l.load(lane, &jobs[group[0]])
				group = group[1:]
			}
		}
		if !l.fill() {
			break
		}
		n := maxRun
		for _, text := range l.text {
			n = min(n, len(text))
		}
		k.encrypt(&l.rows.keys, &l.rows.chain, rounds, &l.text, n/aes.BlockSize)
		for lane := range l.text {
			l.text[lane] = l.text[lane][n:]
		}
	}
	*l.rows = cbcRows{}
	clear(l.text[:])
}

// worthLanes tells whether the packets but the longest, which the others' lanes
// cost nothing, take longer one after the other than lanes take to load.
func worthLanes(jobs []Job, group []uint8) bool {
	const load = 32 * aes.BlockSize // measured on Zen4
	longest, sum := 0, 0
	for _, i := range group {
		n := len(jobs[i].Pkt)
		longest, sum = max(longest, n), sum+n
		if sum-longest >= load {
			return true
		}
	}
	return false
}

func (l *cbcLanes) load(lane int, j *Job) {
	for r := range l.rows.keys {
		l.rows.keys[r][lane] = j.Key.aes.encrypt[r]
	}
	l.rows.chain[lane] = [aes.BlockSize]byte{}
	l.text[lane] = j.cbcText()
}

// fill gives lanes that have no packet any more a copy of the lane that will
// be busy longest: the two do the same and end together. It tells whether
// there is such a lane.
func (l *cbcLanes) fill() bool {
	longest := 0
	for lane := range l.text {
		if len(l.text[lane]) > len(l.text[longest]) {
			longest = lane
		}
	}
	if len(l.text[longest]) == 0 {
		return false
	}
	for lane := range l.text {
		if len(l.text[lane]) == 0 {
			for r := range l.rows.keys {
				l.rows.keys[r][lane] = l.rows.keys[r][longest]
			}
			l.rows.chain[lane] = l.rows.chain[longest]
			l.text[lane] = l.text[longest]
		}
	}
	return true
}
