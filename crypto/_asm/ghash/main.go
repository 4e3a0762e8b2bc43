// Command ghash generates GHASH by itself (NIST SP 800-38D, section 6.4), for
// what is GCM's hash without GCM's stream: GMAC, and packets whose ICV or IV
// the kernels of _asm/gcm do not have. Keys are theirs: see setup.go there.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	blockLen = 16
	powers   = 36 // of H in a key, the highest first
)

// What the functions keep in general registers.
var (
	keyP   = reg.RDI // the powers
	sumP   = reg.RSI
	ptr    = reg.R10 // the next bytes of the text
	blocks = reg.R11 // that are still to do
)

// table is a constant of four dwords, four times over.
func table(name string, dwords ...uint32) operand.Mem {
	m := GLOBL(name, 8|16) // RODATA|NOPTR
	for i := range 16 {
		DATA(4*i, operand.U32(dwords[i%4]))
	}
	return m
}

var (
	reverse = table("ghashReverse", 0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203) // a block's bytes
	poly    = table("ghashPoly", 1, 0, 0, 0xc2000000)                               // x^128 + x^7 + x^2 + x + 1
)

func mem(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// vec is registers of one width in bytes, and the instructions that have one
// name for 64 bytes and another for fewer.
type vec int

func (w vec) reg(n int) reg.VecPhysical {
	r := []reg.VecPhysical{
		reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7,
	}[n]
	switch w {
	case 64:
		return r.AsZ().(reg.VecPhysical)
	case 32:
		return r.AsY().(reg.VecPhysical)
	}
	return r
}

func (w vec) load(from operand.Op, to reg.VecPhysical) {
	if w == 64 {
		VMOVDQU64(from, to)
	} else {
		VMOVDQU(from, to)
	}
}

func (w vec) xor(x, y operand.Op, to reg.VecPhysical) {
	if w == 64 {
		VPXORQ(x, y, to)
	} else {
		VPXOR(x, y, to)
	}
}

// The registers by number: the sum is the lowest lane of 0.
const (
	sum, text, low, mid, high, tmp, power = 0, 1, 2, 3, 4, 5, 6
)

func main() {
	ConstraintExpr("!purego")
	function(64)
	function(32)
	Generate()
}

// function takes whole blocks into a sum, as many at once as there are.
func function(w vec) {
	TEXT(fmt.Sprintf("ghash%d", 8*w), 4, "func(powers *[36][16]byte, sum *[16]byte, text *byte, blocks int)") // NOSPLIT
	Doc(map[vec]string{
		64: "ghash512 takes whole blocks of text into sum. The powers are of H, the highest first, times x, bit-reversed.",
		32: "ghash256 is ghash512 without AVX-512.",
	}[w])
	Pragma("noescape")
	Load(Param("powers"), keyP)
	Load(Param("sum"), sumP)
	Load(Param("text"), ptr)
	Load(Param("blocks"), blocks)
	VMOVDQU(mem(sumP, 0), reg.X0)
	VPSHUFB(reverse, reg.X0, reg.X0)
	lanes := int(w) / blockLen
	loop(w, 8)
	loop(w, 4)
	loop(w, 1)
	if lanes > 1 {
		loop(16, 1)
	}
	VPSHUFB(reverse, reg.X0, reg.X0)
	VMOVDQU(reg.X0, mem(sumP, 0))
	VZEROUPPER()
	RET()
}

// loop takes n registers of blocks in a turn, while there are so many.
func loop(w vec, n int) {
	at := n * int(w) / blockLen
	again, done := fmt.Sprintf("take%d", at), fmt.Sprintf("less%d", at)
	Label(again)
	CMPQ(blocks, operand.U8(at))
	JB(operand.LabelRef(done))
	for i := range n {
		multiply(w, i, blockLen*(powers-at)+i*int(w))
	}
	reduce(w)
	ADDQ(operand.U32(n*int(w)), ptr)
	SUBQ(operand.U8(at), blocks)
	JMP(operand.LabelRef(again))
	Label(done)
}

// multiply adds the turn's register i of text times the powers at disp.
func multiply(w vec, i, disp int) {
	x, l, m, h, t, p := w.reg(text), w.reg(low), w.reg(mid), w.reg(high), w.reg(tmp), w.reg(power)
	w.load(mem(ptr, i*int(w)), x)
	VPSHUFB(reverse, x, x)
	w.load(mem(keyP, disp), p)
	if i == 0 {
		w.xor(w.reg(sum), x, x)
		VPCLMULQDQ(operand.U8(0x00), p, x, l)
		VPCLMULQDQ(operand.U8(0x01), p, x, m)
		VPCLMULQDQ(operand.U8(0x11), p, x, h)
	} else {
		for _, s := range []struct {
			imm uint8
			to  reg.VecPhysical
		}{{0x00, l}, {0x01, m}, {0x11, h}} {
			VPCLMULQDQ(operand.U8(s.imm), p, x, t)
			w.xor(t, s.to, s.to)
		}
	}
	VPCLMULQDQ(operand.U8(0x10), p, x, t)
	w.xor(t, m, m)
}

// reduce brings each lane's product back to 128 bits, and their sum into the
// lowest lane of sum; the others are cleared.
func reduce(w vec) {
	l, m, h, t := w.reg(low), w.reg(mid), w.reg(high), w.reg(tmp)
	VPCLMULQDQ(operand.U8(0x10), poly, l, t)
	VPSHUFD(operand.U8(0x4e), l, l)
	w.xor(t, l, l)
	w.xor(l, m, m)
	VPCLMULQDQ(operand.U8(0x10), poly, m, t)
	VPSHUFD(operand.U8(0x4e), m, m)
	w.xor(t, m, m)
	w.xor(m, h, h)
	if w == 64 {
		VEXTRACTI64X4(operand.U8(1), reg.Z4, reg.Y5)
		VPXOR(reg.Y5, reg.Y4, reg.Y4)
	}
	if w >= 32 {
		VEXTRACTI128(operand.U8(1), reg.Y4, reg.X5)
		VPXOR(reg.X5, reg.X4, reg.X0)
		return
	}
	VMOVDQA(reg.X4, reg.X0)
}
