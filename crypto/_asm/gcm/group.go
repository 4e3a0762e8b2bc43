package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// hashing is what becomes of the sums of the powers' halves, of which
// multiplication makes up the middle. A packet of more than one stretch of
// powers keeps them in the first for the others, in memory that a call has for
// itself: they are half as long as the powers, and in a key would cost more than
// they save once keys do not fit the caches.
type hashing int

const (
	forget hashing = iota // made for this time
	keep                  // made and kept
	find                  // kept before
	reduce                // kept before; and the sum of the stretch before is reduced
)

// keptLen is of the sums, a block a power as the powers are, and of what aligns
// them. With it a kernel's frame is within what NOSPLIT allows, which the linker
// checks.
const keptLen = blockLen*powers + vecLen

// It does not compile if wipe would go beyond the frame, or if a stretch could take
// sums that neither keepRest nor the first stretch keeps.
const (
	_ = uint(-(keptLen % vecLen))
	_ = uint(vecLen - blockLen*(powers-stretchLen))
)

// keptAt is how far the kept sums are from the powers.
var keptAt = reg.RAX

// keptOf is where the sums are of the powers that are at an offset from p.
func keptOf(p reg.Register, at int) operand.Mem {
	return operand.Mem{Base: p, Index: keptAt, Scale: 1, Disp: at}
}

func (s *stream) findKept() {
	LEAQ(s.kept.Offset(vecLen-1), keptAt)
	ANDQ(operand.I8(-vecLen), keptAt)
	SUBQ(key, keptAt)
	SUBQ(operand.U8(keyPowers), keptAt)
}

// keepRest keeps those sums that the last stretch may take but the first, where
// it is not the last, does not.
func (s *stream) keepRest() {
	s.findKept()
	halves(power(powers), s.t)
	VMOVDQU64(s.t, keptOf(key, keyPowers))
}

// wipe clears the kept sums, because the stack outlives the call.
func (s *stream) wipe() {
	VPXORQ(s.t, s.t, s.t)
	for at := 0; at < keptLen+vecLen; at += vecLen {
		VMOVDQU64(s.t, s.kept.Offset(at))
	}
}

// group encrypts n registers, in which the last group's hash is woven, and takes
// their text. Each register is two rounds behind the one before: so the first text
// can go to hash while the last is still in AES, and what is not AES is spread over
// the group.
func (s *stream) group(n int, isLast bool, how hashing) {
	var list []step
	wait, hashed := s.wait*n, 0 // the steps before hash, and before the first text, to which hash leaves its register
	for t, left := 0, n; left > 0; t++ {
		for i := range n {
			late := 2 * i
			switch aes := s.encrypt(i); {
			case t < late:
			case t < late+len(aes):
				list = append(list, aes[t-late])
			case t == late+len(aes):
				if i == 0 {
					hashed = len(list)
				}
				list = append(list, func() { s.text(i, false, isLast && i == n-1) })
				left--
			}
		}
	}
	if how == reduce {
		weave(list[:wait], s.reduce())
	} else {
		emit(list[:wait])
	}
	weave(list[wait:hashed], bunch(s.hash(flight, powerP, how), 4)) // one by one it takes longer
	emit(list[hashed:])
	ADDQ(operand.U32(flight*vecLen), powerP)
}

// hash multiplies the first n registers of ciphertext by the powers at p, and
// adds up.
func (s *stream) hash(n int, p reg.Register, how hashing) (list []step) {
	order := []int{0, 1, 2, 3}[:n]
	if how == reduce { // the first register waits for the reduced sum, and this one begins
		order = []int{1, 2, 3, 0}
		for _, sum := range s.sum.sums() {
			sum.begun = false
		}
	}
	for _, i := range order {
		y := factor{at: mem(p, vecLen*i), made: how >= find}
		if how != forget {
			y.sums = keptOf(p, vecLen*i)
		}
		list = append(list, s.sum.add(s.cipher[i], y)...)
		s.sum.free = append(s.sum.free, s.cipher[i])
	}
	list = append(list, s.sum.flush()...)
	s.sum.free = s.spare
	return list
}

// reduce adds the sum, reduced, to the next group to be hashed.
func (s *stream) reduce() []step {
	list := append(s.sum.reduce(), fold(s.sum.high.reg, s.lanes)...)
	return append(list, func() { VPXORQ(s.sum.high.reg, s.cipher[0], s.cipher[0]) })
}

// clear makes the sum zero.
func (s *stream) clear() {
	for _, sum := range s.sum.sums() {
		VPXORQ(sum.reg, sum.reg, sum.reg)
	}
}
