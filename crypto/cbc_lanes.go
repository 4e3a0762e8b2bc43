package crypto

import "crypto/aes"

// A CBC block waits for the one before it, so one packet cannot use more than a
// fraction of an AES unit. A kernel encrypts a block of each of many packets
// at once; a packet has a lane of it until it ends, then the next one has.
const cbcWide = 16

// aesSchedule is AES's round keys, of which the longest key has 15.
type aesSchedule = [15][aes.BlockSize]byte

// cbcKernel is CBC on one tier; that of Std is empty.
type cbcKernel struct {
	// expand makes both schedules of a key, and tells the number of rounds.
	expand func(encrypt, decrypt *aesSchedule, key []byte) (rounds int)
	// encrypt encrypts blocks of each lane's text in place. Lanes may be alike.
	encrypt func(keys *[15][cbcWide][aes.BlockSize]byte, chain *[cbcWide][aes.BlockSize]byte, rounds int,
		text *[cbcWide][]byte, blocks int)
	// decrypt decrypts text in place but for its first block, which is the IV.
	decrypt func(schedule *aesSchedule, rounds int, text []byte)
}

func (s *Suite) cbcKernel() *cbcKernel { return &cbcKernels[s.tier] }

// cbcKey is the key as kernels take it.
type cbcKey struct {
	rounds           int
	encrypt, decrypt aesSchedule
}

// cbcLanes is what a kernel works on.
type cbcLanes struct {
	keys  [15][cbcWide][aes.BlockSize]byte // by round, so that a row is the operand of an instruction
	chain [cbcWide][aes.BlockSize]byte     // what the next block is chained to
	text  [cbcWide][]byte                  // what is still to be encrypted
}

// encrypt encrypts each packet of the group, its IV included. It leaves no
// trace of them in l.
func (l *cbcLanes) encrypt(k *cbcKernel, jobs []Job, group []uint8) {
	rounds := jobs[group[0]].Key.cbc.rounds
	for {
		for lane := range l.text {
			if len(group) > 0 && len(l.text[lane]) == 0 {
				l.load(lane, rounds, &jobs[group[0]])
				group = group[1:]
			}
		}
		if !l.fill(rounds) {
			break
		}
		n := len(l.text[0])
		for _, text := range l.text[1:] {
			n = min(n, len(text))
		}
		k.encrypt(&l.keys, &l.chain, rounds, &l.text, n/aes.BlockSize)
		for lane := range l.text {
			l.text[lane] = l.text[lane][n:]
		}
	}
	*l = cbcLanes{}
}

func (l *cbcLanes) load(lane, rounds int, j *Job) {
	for r := range rounds + 1 {
		l.keys[r][lane] = j.Key.cbc.encrypt[r]
	}
	l.chain[lane] = [aes.BlockSize]byte{}
	l.text[lane] = j.cbcText()
}

// fill gives lanes that have no packet any more a copy of the lane that will
// be busy longest: the two do the same and end together. It tells whether
// there is such a lane.
func (l *cbcLanes) fill(rounds int) bool {
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
			for r := range rounds + 1 {
				l.keys[r][lane] = l.keys[r][longest]
			}
			l.chain[lane] = l.chain[longest]
			l.text[lane] = l.text[longest]
		}
	}
	return true
}
