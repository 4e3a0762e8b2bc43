package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Decryption goes from the last block to the first, as the ciphertext that a
// block was chained to must still be there.

var zmm = []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12,
	reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24,
	reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}

// decrypt512 holds all round keys in registers and four registers of four
// blocks in flight.
func decrypt512() {
	TEXT("cbcDecrypt512", NOSPLIT, "func(schedule *[15][16]byte, rounds int, text []byte)")
	Pragma("noescape")
	Doc("cbcDecrypt512 decrypts text in place, from its second block; the first is the IV.")
	schedule := Load(Param("schedule"), GP64())
	text := Load(Param("text").Base(), GP64())
	left := Load(Param("text").Len(), GP64())
	ADDQ(operand.U8(16), text)
	SUBQ(operand.U8(16), left)
	variants(func(rounds int) {
		keys := zmm[16 : 16+rounds+1]
		for i, k := range keys {
			VBROADCASTI32X4(operand.Mem{Base: schedule, Disp: 16 * i}, k)
		}
		at := func(i, disp int) operand.Mem {
			return operand.Mem{Base: text, Index: left, Scale: 1, Disp: 64*i + disp}
		}

		Label(label(rounds, "loop"))
		SUBQ(operand.U32(256), left)
		JB(operand.LabelRef(label(rounds, "rest")))
		for i := range 4 {
			VMOVDQU64(at(i, 0), zmm[i])
		}
		decryptZ(keys, zmm[:4])
		for i := range 4 {
			VPXORQ(at(i, -16), zmm[i], zmm[i])
		}
		for i := range 4 {
			VMOVDQU64(zmm[i], at(i, 0))
		}
		JMP(operand.LabelRef(label(rounds, "loop")))

		// Fewer than 16 blocks, at the beginning of text.
		Label(label(rounds, "rest"))
		ADDQ(operand.U32(256), left)
		parts512(rounds, left, func(n int) { rest512(n, keys, text) })
		for _, z := range zmm[16 : 16+rounds+1] {
			VPXORQ(z, z, z)
		}
	})
}

// parts512 writes part for each number of registers that less than 256 bytes
// fill, the last one masked by K1, and chooses among them by left.
func parts512(rounds int, left reg.Register, part func(n int)) {
	done := operand.LabelRef(label(rounds, "done"))
	name := func(n int) string { return label(rounds, []string{"one", "two", "three", "four"}[n-1]) + "of" }
	TESTQ(left, left)
	JZ(done)
	for n := 3; n > 0; n-- {
		CMPQ(left, operand.U32(64*n))
		JA(operand.LabelRef(name(n + 1)))
	}
	for n := 1; n <= 4; n++ {
		Label(name(n))
		words, mask := GP64(), GP64()
		LEAQ(operand.Mem{Base: left, Disp: -64 * (n - 1)}, words)
		SHRQ(operand.U8(3), words)
		MOVQ(operand.U32(0xff), mask)
		BZHIQ(words, mask, mask)
		KMOVB(mask.As32(), reg.K1)
		part(n)
		if n < 4 {
			JMP(done)
		}
	}
	Label(label(rounds, "done"))
}

// rest512 decrypts the last n registers, at the beginning of text.
func rest512(n int, keys []reg.VecPhysical, text reg.Register) {
	at := func(i, disp int) operand.Mem { return operand.Mem{Base: text, Disp: 64*i + disp} }
	for i := range n - 1 {
		VMOVDQU64(at(i, 0), zmm[i])
		VMOVDQU64(at(i, -16), zmm[4+i])
	}
	VMOVDQU64_Z(at(n-1, 0), reg.K1, zmm[n-1])
	VMOVDQU64_Z(at(n-1, -16), reg.K1, zmm[4+n-1])
	decryptZ(keys, zmm[:n])
	for i := range n {
		VPXORQ(zmm[4+i], zmm[i], zmm[i])
	}
	for i := range n - 1 {
		VMOVDQU64(zmm[i], at(i, 0))
	}
	VMOVDQU64(zmm[n-1], reg.K1, at(n-1, 0))
}

// decryptZ takes each block of data through all rounds.
func decryptZ(keys, data []reg.VecPhysical) {
	last := len(keys) - 1
	for i, k := range keys {
		for _, d := range data {
			switch i {
			case 0:
				VPXORQ(k, d, d)
			case last:
				VAESDECLAST(k, d, d)
			default:
				VAESDEC(k, d, d)
			}
		}
	}
}

var ymm = []reg.VecPhysical{
	reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12,
	reg.Y13, reg.Y14, reg.Y15,
}

var xmm = []reg.VecPhysical{
	reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7, reg.X8, reg.X9, reg.X10, reg.X11, reg.X12,
	reg.X13, reg.X14, reg.X15,
}

// decrypt256 has eight registers of two blocks in flight and takes the round
// keys from memory; then one register, then one block.
func decrypt256() {
	TEXT("cbcDecrypt256", NOSPLIT, "func(schedule *[15][16]byte, rounds int, text []byte)")
	Pragma("noescape")
	Doc("cbcDecrypt256 decrypts text in place, from its second block; the first is the IV.")
	schedule := Load(Param("schedule"), GP64())
	text := Load(Param("text").Base(), GP64())
	left := Load(Param("text").Len(), GP64())
	ADDQ(operand.U8(16), text)
	SUBQ(operand.U8(16), left)
	variants(func(rounds int) {
		for _, step := range []struct {
			name, next string
			n          int
		}{{"loop", "pairs", 8}, {"pairs", "rest", 1}} {
			Label(label(rounds, step.name))
			size := uint32(32 * step.n)
			SUBQ(operand.U32(size), left)
			JB(operand.LabelRef(label(rounds, step.next+"after")))
			decryptY(rounds, schedule, text, left, ymm[:step.n], ymm[15], 32)
			JMP(operand.LabelRef(label(rounds, step.name)))
			Label(label(rounds, step.next+"after"))
			ADDQ(operand.U32(size), left)
		}
		JZ(operand.LabelRef(label(rounds, "done")))
		XORQ(left, left)
		decryptY(rounds, schedule, text, left, xmm[:1], xmm[15], 16)
		Label(label(rounds, "done"))
		VPXOR(reg.Y15, reg.Y15, reg.Y15)
	})
}

// decryptY decrypts len(data) registers of size bytes at text+left.
func decryptY(rounds int, schedule, text, left reg.Register, data []reg.VecPhysical, key reg.VecPhysical, size int) {
	at := func(i, disp int) operand.Mem {
		return operand.Mem{Base: text, Index: left, Scale: 1, Disp: size*i + disp}
	}
	for i := range rounds + 1 {
		k := operand.Mem{Base: schedule, Disp: 16 * i}
		if size == 32 {
			VBROADCASTI128(k, key)
		} else {
			VMOVDQU(k, key)
		}
		for j, d := range data {
			switch i {
			case 0:
				VPXOR(at(j, 0), key, d)
			case rounds:
				VAESDECLAST(key, d, d)
			default:
				VAESDEC(key, d, d)
			}
		}
	}
	for j, d := range data {
		VPXOR(at(j, -16), d, d)
	}
	for j, d := range data {
		VMOVDQU(d, at(j, 0))
	}
}
