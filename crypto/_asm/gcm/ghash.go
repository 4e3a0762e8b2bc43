package main

import (
	"slices"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// step emits one instruction. Lists of steps are woven into each other, so
// that the processor always has something to start.
type step = func()

// weave emits a and b as merge puts them.
func weave(a, b []step) { emit(merge(a, b)) }

// merge puts a and b in one list, each in its order, b spread evenly over a.
func merge(a, b []step) (list []step) {
	done := 0
	for i, s := range a {
		upTo := len(b) * (i + 1) / len(a)
		list = append(append(list, s), b[done:upTo]...)
		done = upTo
	}
	return append(list, b[done:]...)
}

// bunch makes one step of each n.
func bunch(list []step, n int) (bunches []step) {
	for part := range slices.Chunk(list, n) {
		bunches = append(bunches, func() { emit(part) })
	}
	return bunches
}

// product accumulates carry-less products in three sums: low, high, and that of
// the halves' sums, of which reduce makes the middle by taking low and high away
// (Karatsuba): VPCLMULQDQ is what takes longest. A sum takes in two products by
// one instruction, so one may be pending.
type product struct {
	low, mid, high sum
	whole          bool // mid is the middle itself
	free           []reg.VecPhysical
}

type sum struct {
	reg     reg.VecPhysical
	pending reg.VecPhysical
	begun   bool
}

func newProduct(low, mid, high reg.VecPhysical, free ...reg.VecPhysical) *product {
	return &product{low: sum{reg: low}, mid: sum{reg: mid}, high: sum{reg: high}, free: free}
}

func (p *product) sums() [3]*sum { return [3]*sum{&p.low, &p.mid, &p.high} }

func (p *product) take() reg.VecPhysical {
	t := p.free[0]
	p.free = p.free[1:]
	return t
}

// multiply adds x times the power at y, of their halves that imm selects, to s.
func (p *product) multiply(s *sum, imm uint8, x reg.VecPhysical, y operand.Op) (list []step) {
	to := s.reg
	if s.begun {
		to = p.take()
	}
	list = append(list, func() { VPCLMULQDQ(operand.U8(imm), y, x, to) })
	return append(list, p.gather(s, to)...)
}

// gather adds the product in to to s, at once or with the next.
func (p *product) gather(s *sum, to reg.VecPhysical) (list []step) {
	switch pending := s.pending; {
	case !s.begun:
		s.begun = true
	case pending == nil:
		s.pending = to
	default:
		list = append(list, func() { VPTERNLOGQ(operand.U8(0x96), pending, to, s.reg) })
		p.free = append(p.free, pending, to)
		s.pending = nil
	}
	return list
}

// factor is a power or powers of H: where they are, and the sums of their halves
// if those are anywhere.
type factor struct {
	at   operand.Mem
	sums operand.Op
	made bool // the sums are there; else they are to be made, and to be left there
}

// halves leaves the sums of the halves of the powers at y in each lane's lower
// half: memory that is off by a half takes no shuffle.
func halves(y operand.Mem, to reg.VecPhysical) {
	VMOVDQU64(y, to)
	VPXORQ(y.Offset(8), to, to)
}

// middle multiplies the sums of the halves of x and of the power y.
func (p *product) middle(x reg.VecPhysical, y factor) (list []step) {
	add := func(f step) { list = append(list, f) }
	to := p.mid.reg
	if p.mid.begun {
		to = p.take()
	}
	if y.made {
		add(func() { VPSHUFD(operand.U8(0x4e), x, to) })
		add(func() { VPXORQ(x, to, to) })
		add(func() { VPCLMULQDQ(operand.U8(0x00), y.sums, to, to) })
		return append(list, p.gather(&p.mid, to)...)
	}
	t := p.take()
	add(func() { halves(y.at, to) })
	add(func() { VPSHUFD(operand.U8(0x4e), x, t) })
	add(func() { VPXORQ(x, t, t) })
	if y.sums != nil {
		add(func() { VMOVDQU64(to, y.sums) })
	}
	add(func() { VPCLMULQDQ(operand.U8(0x00), to, t, to) })
	p.free = append(p.free, t)
	return append(list, p.gather(&p.mid, to)...)
}

// add multiplies x by the power or powers y. What is pending is taken in first,
// for its registers.
func (p *product) add(x reg.VecPhysical, y factor) (list []step) {
	outer := func() {
		list = append(list, p.multiply(&p.low, 0x00, x, y.at)...)
		list = append(list, p.multiply(&p.high, 0x11, x, y.at)...)
	}
	if p.low.pending != nil {
		outer()
		return append(list, p.middle(x, y)...)
	}
	list = append(list, p.middle(x, y)...)
	outer()
	return list
}

// schoolbook does what add does with four products, in one step: that is faster
// where the halves' sums would be made up for few products. A VPCLMULQDQ next to
// another costs a cycle of dispatch less.
func (p *product) schoolbook(x reg.VecPhysical, y operand.Op) []step {
	p.whole = true
	if len(p.free) < 4 {
		panic("too few registers: a product would take one that a sum still needs")
	}
	var products, sums []step
	for _, half := range []struct {
		to  *sum
		imm uint8
	}{{&p.low, 0x00}, {&p.mid, 0x01}, {&p.high, 0x11}, {&p.mid, 0x10}} {
		list := p.multiply(half.to, half.imm, x, y)
		products, sums = append(products, list[0]), append(sums, list[1:]...)
	}
	return []step{func() { emit(products); emit(sums) }}
}

// upper does what schoolbook does for an x whose lower half is zero. It is not
// what begins the sums.
func (p *product) upper(x reg.VecPhysical, y operand.Op) []step {
	mid, high := p.multiply(&p.mid, 0x01, x, y), p.multiply(&p.high, 0x11, x, y)
	return []step{func() { emit(append(append(mid[:1:1], high[0]), append(mid[1:], high[1:]...)...)) }}
}

// flush adds what is pending.
func (p *product) flush() (list []step) {
	for _, s := range p.sums() {
		if pending := s.pending; pending != nil {
			list = append(list, func() { VPXORQ(pending, s.reg, s.reg) })
			p.free = append(p.free, pending)
		}
		s.pending = nil
	}
	return list
}

// reduce brings each lane's product back to 128 bits, in p.high.
func (p *product) reduce() []step {
	list, t := p.flush(), p.free[0]
	low, mid, high := p.low.reg, p.mid.reg, p.high.reg
	if !p.whole {
		list = append(list, func() { VPTERNLOGQ(operand.U8(0x96), low, high, mid) })
	}
	return append(list,
		func() { VPCLMULQDQ(operand.U8(0x10), poly, low, t) },
		func() { VPSHUFD(operand.U8(0x4e), low, low) },
		func() { VPTERNLOGQ(operand.U8(0x96), t, low, mid) },
		func() { VPCLMULQDQ(operand.U8(0x10), poly, mid, t) },
		func() { VPSHUFD(operand.U8(0x4e), mid, mid) },
		func() { VPTERNLOGQ(operand.U8(0x96), t, mid, high) },
	)
}

// fold adds up x's four lanes in its first and clears the others. The way through
// memory is no longer than that through shuffles, which AES wants.
func fold(x reg.VecPhysical, lanes operand.Mem) []step {
	add := func(at int) step { return func() { VPXOR(lanes.Offset(at), x.AsX(), x.AsX()) } }
	return []step{
		func() { VMOVDQU64(x, lanes) },
		func() { VMOVDQU(lanes, x.AsX()) },
		add(blockLen), add(2 * blockLen), add(3 * blockLen),
	}
}

func emit(steps []step) {
	for _, s := range steps {
		s()
	}
}
