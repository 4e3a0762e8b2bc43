package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// step emits one instruction. Lists of steps are woven into each other, so
// that the processor always has something to start.
type step = func()

// weave emits a and b, each in its order, b spread evenly over a.
func weave(a, b []step) {
	done := 0
	for i, s := range a {
		s()
		for ; done < len(b)*(i+1)/len(a); done++ {
			b[done]()
		}
	}
	for ; done < len(b); done++ {
		b[done]()
	}
}

// product accumulates a carry-less product, by schoolbook, in three registers:
// low, high, and middle, which counts 64 bits higher than low.
type product struct {
	low, mid, high, t0, t1 reg.VecPhysical
	begun                  bool
}

// add multiplies x by the power or powers at y. With x and y of one block
// only, p must not be used with fewer lanes before it is reduced.
func (p *product) add(x reg.VecPhysical, y operand.Op) []step {
	if !p.begun {
		p.begun = true
		return []step{
			func() { VPCLMULQDQ(operand.U8(0x00), y, x, p.low) },
			func() { VPCLMULQDQ(operand.U8(0x01), y, x, p.mid) },
			func() { VPCLMULQDQ(operand.U8(0x10), y, x, p.t0) },
			func() { VPCLMULQDQ(operand.U8(0x11), y, x, p.high) },
			func() { VPXORQ(p.t0, p.mid, p.mid) },
		}
	}
	return []step{
		func() { VPCLMULQDQ(operand.U8(0x01), y, x, p.t0) },
		func() { VPCLMULQDQ(operand.U8(0x10), y, x, p.t1) },
		func() { VPTERNLOGQ(operand.U8(0x96), p.t0, p.t1, p.mid) },
		func() { VPCLMULQDQ(operand.U8(0x00), y, x, p.t0) },
		func() { VPCLMULQDQ(operand.U8(0x11), y, x, p.t1) },
		func() { VPXORQ(p.t0, p.low, p.low) },
		func() { VPXORQ(p.t1, p.high, p.high) },
	}
}

// reduce brings each lane's product back to 128 bits, in p.high.
func (p *product) reduce() []step {
	p.begun = false
	return []step{
		func() { VPCLMULQDQ(operand.U8(0x10), poly, p.low, p.t0) },
		func() { VPSHUFD(operand.U8(0x4e), p.low, p.low) },
		func() { VPTERNLOGQ(operand.U8(0x96), p.t0, p.low, p.mid) },
		func() { VPCLMULQDQ(operand.U8(0x10), poly, p.mid, p.t0) },
		func() { VPSHUFD(operand.U8(0x4e), p.mid, p.mid) },
		func() { VPTERNLOGQ(operand.U8(0x96), p.t0, p.mid, p.high) },
	}
}

// fold adds up x's four lanes in its first and clears the others.
func fold(x, t reg.VecPhysical) []step {
	return []step{
		func() { VEXTRACTI64X4(operand.U8(1), x, t.AsY()) },
		func() { VPXOR(x.AsY(), t.AsY(), t.AsY()) },
		func() { VEXTRACTI128(operand.U8(1), t.AsY(), x.AsX()) },
		func() { VPXOR(x.AsX(), t.AsX(), x.AsX()) },
	}
}

func emit(steps []step) {
	for _, s := range steps {
		s()
	}
}
