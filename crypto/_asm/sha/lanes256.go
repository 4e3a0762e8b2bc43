package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const narrow = 4 // texts

// lanes256 holds a to h in Y0 to Y7; the message and what a block is added to
// are in the frame, which is wiped.
func lanes256(k, reverse operand.Mem) {
	TEXT("sha512x4", 0, signature)
	Pragma("noescape")
	Doc("sha512x4 takes in blocks of 128 bytes of the first four texts.", "state is each text's eight words in the processor's order.")
	state, text := Load(Param("state"), GP64()), Load(Param("text"), GP64())
	blocks := Load(Param("blocks"), GP64())
	off := GP64()
	XORQ(off, off)
	frame := AllocLocal((8 + 16) * 32)
	column := func(i int) operand.Mem { return frame.Offset(32 * i) }
	word := func(i int) operand.Mem { return frame.Offset(32 * (8 + i%16)) }
	s := [8]reg.VecPhysical(ymm[:8])

	row := func(l, half int) operand.Mem { return operand.Mem{Base: state, Disp: 64*l + 32*half} }
	for half := range 2 {
		for l := range narrow {
			VMOVDQU(row(l, half), ymm[l])
		}
		transpose4()
		for i := range narrow {
			VMOVDQU(ymm[i], column(narrow*half+i))
		}
	}

	Label("loop")
	for part := range 4 {
		for l := range narrow {
			p := GP64()
			MOVQ(operand.Mem{Base: text, Disp: sliceHeader * l}, p)
			VMOVDQU(operand.Mem{Base: p, Index: off, Scale: 1, Disp: 32 * part}, ymm[l])
		}
		transpose4()
		for i := range narrow {
			VPSHUFB(reverse, ymm[i], ymm[i])
			VMOVDQU(ymm[i], word(narrow*part+i))
		}
	}
	for i := range s {
		VMOVDQU(column(i), s[i])
	}
	VPXOR(s[1], s[2], ymm[15])
	eachRound(k, func(t int, k operand.Mem, last bool) { round256(t, k, word, &s, last) })
	for i := range s {
		VPADDQ(column(i), s[i], s[i])
		VMOVDQU(s[i], column(i))
	}
	ADDQ(operand.U32(block), off)
	DECQ(blocks)
	JNZ(operand.LabelRef("loop"))

	for half := range 2 {
		for i := range narrow {
			VMOVDQU(column(narrow*half+i), ymm[i])
		}
		transpose4()
		for l := range narrow {
			VMOVDQU(ymm[l], row(l, half))
		}
	}
	for _, y := range ymm {
		VPXOR(y, y, y)
	}
	for i := range 8 + 16 {
		VMOVDQU(ymm[0], column(i))
	}
	VZEROUPPER()
	RET()
}

// round256 is round t, modulo 16. Y15 is b XOR c from one round to the next.
func round256(t int, k operand.Mem, word func(int) operand.Mem, s *[8]reg.VecPhysical, last bool) {
	a, b, c, d, e, f, g, h := s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
	out, t1, t2, t3, bc := ymm[8], ymm[9], ymm[10], ymm[11], ymm[15]

	VPBROADCASTQ(k, t3)
	VPADDQ(word(t), h, h)
	VPADDQ(t3, h, h)
	VPXOR(f, g, t3) // choose
	VPAND(e, t3, t3)
	VPXOR(g, t3, t3)
	VPADDQ(t3, h, h)
	rotations256([]uint8{14, 18, 41}, e, out, t1, t2)
	VPADDQ(out, h, h)
	VPADDQ(h, d, d)
	VPXOR(a, b, t3) // majority: b, but where a and c are both other
	VPAND(t3, bc, bc)
	VPXOR(b, bc, bc)
	VPADDQ(bc, h, h)
	VMOVDQA(t3, bc)
	rotations256([]uint8{28, 34, 39}, a, out, t1, t2)
	VPADDQ(out, h, h)
	if !last {
		x, sum := ymm[12], ymm[13]
		VMOVDQU(word(t+1), x)
		VMOVDQU(word(t), sum)
		VPADDQ(word(t+9), sum, sum)
		rotations256([]uint8{1, 8}, x, out, t1, t2)
		VPSRLQ(operand.U8(7), x, t1)
		VPXOR(t1, out, out)
		VPADDQ(out, sum, sum)
		VMOVDQU(word(t+14), x)
		rotations256([]uint8{19, 61}, x, out, t1, t2)
		VPSRLQ(operand.U8(6), x, t1)
		VPXOR(t1, out, out)
		VPADDQ(out, sum, sum)
		VMOVDQU(sum, word(t))
	}
	*s = [8]reg.VecPhysical{h, a, b, c, d, e, f, g}
}

// rotations256 sets out to the XOR of x rotated by each number.
func rotations256(n []uint8, x, out, t1, t2 reg.VecPhysical) {
	for i, n := range n {
		if i == 0 {
			VPSRLQ(operand.U8(n), x, out)
		} else {
			VPSRLQ(operand.U8(n), x, t1)
			VPXOR(t1, out, out)
		}
		VPSLLQ(operand.U8(64-n), x, t2)
		VPXOR(t2, out, out)
	}
}

// transpose4 turns the square of words whose rows are Y0 to Y3. It uses Y8 to Y11.
func transpose4() {
	r, t := ymm[:4], ymm[8:12]
	for i := 0; i < 4; i += 2 {
		VPUNPCKLQDQ(r[i+1], r[i], t[i])
		VPUNPCKHQDQ(r[i+1], r[i], t[i+1])
	}
	for i := range 2 {
		VPERM2I128(operand.U8(0x20), t[i+2], t[i], r[i])
		VPERM2I128(operand.U8(0x31), t[i+2], t[i], r[i+2])
	}
}
