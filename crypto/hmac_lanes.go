package crypto

import (
	"crypto/subtle"
	"encoding/binary"
)

// hmacStates is an HMAC key as kernels take it: both hashes after the block
// that the key makes.
type hmacStates struct {
	inner, outer shaState
}

// newHMACStates makes both with k, which takes several texts at once anyhow.
func newHMACStates(k *shaKernel, f *sha, key []byte) *hmacStates {
	var (
		pads  [2][128]byte
		state = [shaWide]shaState{f.initial(), f.initial()}
		text  [shaWide][]byte
	)
	for i, pad := range []byte{0x36, 0x5c} {
		for at := range pads[i] {
			pads[i][at] = pad
		}
		subtle.XORBytes(pads[i][:], pads[i][:], key)
	}
	for lane := range text {
		text[lane] = pads[lane%2][:f.block]
	}
	k.run(&state, &text, 1)
	s := &hmacStates{inner: state[0], outer: state[1]}
	clear(pads[:])
	clear(state[:])
	return s
}

// esnLen is how many bytes of the sequence number are signed and not sent.
const esnLen = 4

// stage is what a lane takes in: the packet's whole blocks, where they are; the
// padded rest of the packet; the padded inner hash, under the outer key.
type stage uint8

const (
	idle stage = iota
	body
	rest
	outer
)

// hmacLanes is what a kernel works on. A packet has a lane until its ICV is
// known, then the next one has.
type hmacLanes struct {
	state [shaWide]shaState
	text  [shaWide][]byte       // what is still to be taken in
	end   [shaWide][endLen]byte // where rest and outer are padded
	job   [shaWide]uint8        // index of the packet's job
	stage [shaWide]stage
	sum   shaState
}

// run computes the ICV of each job of the group, of which there is at least
// one, and writes it or, when opening, sets the verdict. It leaves no trace of
// them in l.
func (l *hmacLanes) run(k *shaKernel, jobs []Job, group []uint8, seal bool) {
	f := &shas[jobs[group[0]].Key.suite.hash.hash]
	for {
		longest := 0
		for lane := range k.lanes {
			group = l.advance(f, lane, jobs, group, seal)
			if len(l.text[lane]) > len(l.text[longest]) {
				longest = lane
			}
		}
		if len(l.text[longest]) == 0 {
			break
		}
		n := maxRun
		for lane := range k.lanes {
			if l.stage[lane] == idle {
				l.text[lane] = l.text[longest] // must be readable; the result is of no interest
			}
			n = min(n, len(l.text[lane]))
		}
		k.run(&l.state, &l.text, n/f.block)
		for lane := range k.lanes {
			l.text[lane] = l.text[lane][n:]
		}
	}
	*l = hmacLanes{}
}

// advance takes the lane to where it has blocks to take in, with the next job
// if its packet is done. It returns the jobs that have not begun.
func (l *hmacLanes) advance(f *sha, lane int, jobs []Job, group []uint8, seal bool) []uint8 {
	for len(l.text[lane]) == 0 {
		j := &jobs[l.job[lane]]
		switch l.stage[lane] {
		case idle:
			if len(group) == 0 {
				return nil
			}
			l.job[lane], group = group[0], group[1:]
			j = &jobs[l.job[lane]]
			l.state[lane] = j.Key.hmac.states.inner
			l.text[lane] = f.whole(j.signed())
			l.stage[lane] = body
		case body:
			l.text[lane] = l.padRest(f, lane, j)
			l.stage[lane] = rest
		case rest:
			f.output((*shaState)(l.end[lane][:]), &l.state[lane])
			l.state[lane] = j.Key.hmac.states.outer
			l.text[lane] = f.pad(&l.end[lane], f.size, f.block+f.size)
			l.stage[lane] = outer
		case outer:
			f.output(&l.sum, &l.state[lane])
			j.conclude(l.sum[:], seal)
			l.stage[lane] = idle
		}
	}
	return group
}

// whole is what of signed is taken in where it is: its whole blocks, but none of
// a packet so short that all of it can be padded, which saves a kernel's call.
func (f *sha) whole(signed []byte) []byte {
	if len(signed)+esnLen+f.padding() <= endLen {
		return signed[:0]
	}
	return signed[:len(signed)&^(f.block-1)]
}

// padRest pads the rest of the packet and, with ESN, the high half of the
// sequence number (RFC 4303, section 2.2.1).
func (l *hmacLanes) padRest(f *sha, lane int, j *Job) []byte {
	signed, end := j.signed(), &l.end[lane]
	n := copy(end[:], signed[len(f.whole(signed)):])
	total := f.block + len(signed) // the key's block is before it
	if j.ESN {
		binary.BigEndian.PutUint32(end[n:], j.SeqHi)
		n += esnLen
		total += esnLen
	}
	return f.pad(end, n, total)
}
