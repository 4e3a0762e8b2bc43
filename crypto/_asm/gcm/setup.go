package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// setup writes the function that makes the powers of H (SP 800-38D, section
// 6.4), and H times blocks of lengths. The powers are kept multiplied by x, which
// makes up for a product of bit-reversed numbers being one bit short.
func setup() {
	TEXT("gcmSetup", 4, "func(into *byte, keys *byte, rounds int)") // NOSPLIT
	Load(Param("into"), key)
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

	VMOVDQA(h, cur)
	LEAQ(power(1), reg.RAX)
	VMOVDQU(cur, mem(reg.RAX, 0))
	MOVQ(operand.U32(powers-1), reg.RCX)
	Label("power")
	times(h, cur)
	SUBQ(operand.U8(blockLen), reg.RAX)
	VMOVDQU(cur, mem(reg.RAX, 0))
	DECQ(reg.RCX)
	JNZ(operand.LabelRef("power"))

	VMOVDQU(esnBits.Offset(0), cur)
	times(h, cur)
	VPSHUFB(reverse.Offset(0), cur, cur)
	VMOVDQU(cur, mem(key, keyESN))
	VMOVDQU(aadBits.Offset(0), t)
	LEAQ(mem(key, keyLengths), reg.RAX)
	MOVQ(operand.U32(words), reg.RCX)
	Label("length")
	VPADDQ(word, t, t)
	VMOVDQA(t, cur)
	times(h, cur)
	VPSHUFB(reverse.Offset(0), cur, cur)
	VMOVDQU(cur, mem(reg.RAX, 0))
	ADDQ(operand.U8(blockLen), reg.RAX)
	DECQ(reg.RCX)
	JNZ(operand.LabelRef("length"))
	VZEROALL()
	RET()
}

// times makes x the product of x and h.
func times(h, x reg.VecPhysical) {
	low, mid, high, product, by := reg.X3, reg.X4, x, reg.X5, reg.X7
	VMOVDQA(x, by)
	VPCLMULQDQ(operand.U8(0x00), h, by, low)
	VPCLMULQDQ(operand.U8(0x01), h, by, mid)
	VPCLMULQDQ(operand.U8(0x10), h, by, product)
	VPCLMULQDQ(operand.U8(0x11), h, by, high)
	VPXOR(product, mid, mid)
	VPCLMULQDQ(operand.U8(0x10), poly, low, product)
	VPSHUFD(operand.U8(0x4e), low, low)
	VPXOR(product, low, low)
	VPXOR(low, mid, mid)
	VPCLMULQDQ(operand.U8(0x10), poly, mid, product)
	VPSHUFD(operand.U8(0x4e), mid, mid)
	VPXOR(product, mid, mid)
	VPXOR(mid, high, high)
}

// carries takes the carry out of each half: from the low one into the high
// one, from the high one into the polynomial.
var carries = table("carries", 1, 0, 1, 0xc2000000)

// word is what a word of text adds to the block of lengths, bytes reversed.
var word = table("word", 32, 0, 0, 0)
