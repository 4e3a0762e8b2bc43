package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Truth tables of VPTERNLOG.
const (
	parity   = 0x96
	choose   = 0xca
	majority = 0xe8
)

const (
	wide   = 8   // texts, of which each has a lane of every register
	rounds = 80  // of SHA-512
	block  = 128 // bytes of SHA-512
)

// lanes512 holds the message in Z0 to Z15, a to h in Z16 to Z23 and temporary
// values above. What a block is added to waits in the frame, which is wiped.
func lanes512(k, reverse operand.Mem) {
	TEXT("sha512x8", NOSPLIT, signature)
	Pragma("noescape")
	Doc("sha512x8 takes in blocks of 128 bytes of eight texts.", "state is each text's eight words in the processor's order.")
	state, text := Load(Param("state"), GP64()), Load(Param("text"), GP64())
	blocks := Load(Param("blocks"), GP64())
	off := GP64()
	XORQ(off, off)
	frame := AllocLocal(8 * 64)
	column := func(i int) operand.Mem { return frame.Offset(64 * i) }

	for l := range wide {
		VMOVDQU64(operand.Mem{Base: state, Disp: 64 * l}, zmm[l])
	}
	transpose(zmm[:wide])
	for i := range 8 {
		VMOVDQU64(zmm[i], column(i))
	}

	Label("loop")
	for half := range 2 {
		rows := zmm[wide*half : wide*(half+1)]
		for l, row := range rows {
			p := GP64()
			MOVQ(operand.Mem{Base: text, Disp: sliceHeader * l}, p)
			VMOVDQU64(operand.Mem{Base: p, Index: off, Scale: 1, Disp: 64 * half}, row)
		}
		transpose(rows)
	}
	VMOVDQU64(reverse, zmm[31])
	for i := range 16 {
		VPSHUFB(zmm[31], zmm[i], zmm[i])
	}
	s := [8]reg.VecPhysical(zmm[16:24])
	for i := range s {
		VMOVDQU64(column(i), s[i])
	}
	eachRound(k, func(t int, k operand.Mem, last bool) { round(t, k, &s, last) })
	for i := range s {
		VPADDQ(column(i), s[i], s[i])
		VMOVDQU64(s[i], column(i))
	}
	ADDQ(operand.U32(block), off)
	DECQ(blocks)
	JNZ(operand.LabelRef("loop"))

	for i := range s {
		VMOVDQA64(s[i], zmm[i])
	}
	transpose(zmm[:wide])
	for l := range wide {
		VMOVDQU64(zmm[l], operand.Mem{Base: state, Disp: 64 * l})
	}
	for _, z := range zmm {
		VPXORQ(z, z, z)
	}
	for i := range 8 {
		VMOVDQU64(zmm[0], column(i))
	}
	VZEROUPPER()
	RET()
}

// eachRound writes sixteen rounds with the message's words for sixteen rounds
// later, to be gone through four times, and the last sixteen. k is where the
// round's constant is. After sixteen rounds all have their first registers.
func eachRound(k operand.Mem, round func(t int, k operand.Mem, last bool)) {
	constants, left := GP64(), GP64()
	LEAQ(k, constants)
	MOVQ(operand.U32(rounds/16-1), left)
	Label("rounds")
	for t := range 16 {
		round(t, operand.Mem{Base: constants, Disp: 8 * t}, false)
	}
	ADDQ(operand.U32(8*16), constants)
	DECQ(left)
	JNZ(operand.LabelRef("rounds"))
	for t := range 16 {
		round(t, operand.Mem{Base: constants, Disp: 8 * t}, true)
	}
}

// round is round t, modulo 16.
func round(t int, k operand.Mem, s *[8]reg.VecPhysical, last bool) {
	a, b, c, d, e, f, g, h := s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
	w := func(i int) reg.VecPhysical { return zmm[(t+i)%16] }
	t0, t1, t2, t3 := zmm[24], zmm[25], zmm[26], zmm[27]
	u0, u1, u2, u3 := zmm[28], zmm[29], zmm[30], zmm[31]

	VPADDQ(w(0), h, h)
	VPADDQ_BCST(k, h, h)
	rotations(14, 18, 41, e, t0, t1, t2)
	VMOVDQA64(e, t3)
	VPTERNLOGQ(operand.U8(choose), g, f, t3)
	VPADDQ(t3, h, h)
	VPADDQ(t0, h, h)
	VPADDQ(h, d, d)
	rotations(28, 34, 39, a, u0, u1, u2)
	VMOVDQA64(a, u3)
	VPTERNLOGQ(operand.U8(majority), c, b, u3)
	VPADDQ(u3, u0, u0)
	VPADDQ(u0, h, h)
	if !last {
		rotationsShift(1, 8, 7, w(1), t0, t1, t2)
		rotationsShift(19, 61, 6, w(14), u0, u1, u2)
		VPADDQ(w(9), w(0), w(0))
		VPADDQ(t0, u0, u0)
		VPADDQ(u0, w(0), w(0))
	}
	*s = [8]reg.VecPhysical{h, a, b, c, d, e, f, g}
}

// rotations sets out to the XOR of x rotated by each of three numbers.
func rotations(n1, n2, n3 uint8, x, out, t1, t2 reg.VecPhysical) {
	VPRORQ(operand.U8(n1), x, out)
	VPRORQ(operand.U8(n2), x, t1)
	VPRORQ(operand.U8(n3), x, t2)
	VPTERNLOGQ(operand.U8(parity), t2, t1, out)
}

// rotationsShift is rotations, but the last is a shift.
func rotationsShift(n1, n2, n3 uint8, x, out, t1, t2 reg.VecPhysical) {
	VPRORQ(operand.U8(n1), x, out)
	VPRORQ(operand.U8(n2), x, t1)
	VPSRLQ(operand.U8(n3), x, t2)
	VPTERNLOGQ(operand.U8(parity), t2, t1, out)
}

// transpose turns the square of words whose rows r are. It uses Z16 to Z27.
func transpose(r []reg.VecPhysical) {
	pair, t := zmm[16:24], zmm[24:28]
	for i := 0; i < wide; i += 2 {
		VPUNPCKLQDQ(r[i+1], r[i], pair[i])
		VPUNPCKHQDQ(r[i+1], r[i], pair[i+1])
	}
	// Quarter q of pair[2*i+j] belongs to column 2*q+j: turn those two squares.
	for j := range 2 {
		a, b, c, d := pair[j], pair[2+j], pair[4+j], pair[6+j]
		VSHUFI64X2(operand.U8(0x44), b, a, t[0]) // a0 a1 b0 b1
		VSHUFI64X2(operand.U8(0xee), b, a, t[1]) // a2 a3 b2 b3
		VSHUFI64X2(operand.U8(0x44), d, c, t[2])
		VSHUFI64X2(operand.U8(0xee), d, c, t[3])
		VSHUFI64X2(operand.U8(0x88), t[2], t[0], r[j]) // a0 b0 c0 d0
		VSHUFI64X2(operand.U8(0xdd), t[2], t[0], r[2+j])
		VSHUFI64X2(operand.U8(0x88), t[3], t[1], r[4+j])
		VSHUFI64X2(operand.U8(0xdd), t[3], t[1], r[6+j])
	}
}
