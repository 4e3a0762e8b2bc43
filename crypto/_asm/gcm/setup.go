package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// setup writes the function that makes the powers of H (SP 800-38D, section
// 6.4). They are kept multiplied by x, which makes up for a product of
// bit-reversed numbers being one bit short.
func setup() {
	TEXT("gcmSetup", 4, "func(powers *byte, keys *byte, rounds int)") // NOSPLIT
	Load(Param("powers"), key)                                        // they come first in a key
	Load(Param("keys"), reg.RAX)
	Load(Param("rounds"), reg.RCX)
	h, t, cur := reg.X0, reg.X1, reg.X2
	VMOVDQU(mem(reg.RAX, 0), h) // the block of zeros, after round 0
	ADDQ(operand.U8(blockLen), reg.RAX)
	DECQ(reg.RCX)
	Label("round")
	VAESENC(mem(reg.RAX, 0), h, h)
	ADDQ(operand.U8(blockLen), reg.RAX)
	DECQ(reg.RCX)
	JNZ(operand.LabelRef("round"))
	VAESENCLAST(mem(reg.RAX, 0), h, h)
	VPSHUFB(reverse.Offset(0), h, h)

	// h = h * x
	VPSHUFD(operand.U8(0xd3), h, t)
	VPSRAD(operand.U8(31), t, t)
	VPAND(carries, t, t)
	VPADDQ(h, h, h)
	VPXOR(t, h, h)

	low, mid, high, product := reg.X3, reg.X4, cur, reg.X5
	VMOVDQA(h, cur)
	LEAQ(power(1), reg.RAX)
	VMOVDQU(cur, mem(reg.RAX, 0))
	MOVQ(operand.U32(powers-1), reg.RCX)
	Label("power")
	VMOVDQA(cur, reg.X7)
	VPCLMULQDQ(operand.U8(0x00), h, reg.X7, low)
	VPCLMULQDQ(operand.U8(0x01), h, reg.X7, mid)
	VPCLMULQDQ(operand.U8(0x10), h, reg.X7, product)
	VPCLMULQDQ(operand.U8(0x11), h, reg.X7, high)
	VPXOR(product, mid, mid)
	VPCLMULQDQ(operand.U8(0x10), poly, low, product)
	VPSHUFD(operand.U8(0x4e), low, low)
	VPXOR(product, low, low)
	VPXOR(low, mid, mid)
	VPCLMULQDQ(operand.U8(0x10), poly, mid, product)
	VPSHUFD(operand.U8(0x4e), mid, mid)
	VPXOR(product, mid, mid)
	VPXOR(mid, high, high)
	SUBQ(operand.U8(blockLen), reg.RAX)
	VMOVDQU(cur, mem(reg.RAX, 0))
	DECQ(reg.RCX)
	JNZ(operand.LabelRef("power"))
	VZEROALL()
	RET()
}

// carries takes the carry out of each half: from the low one into the high
// one, from the high one into the polynomial.
var carries = table("carries", 1, 0, 1, 0xc2000000)
