package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const counterSignature = "func(schedule *[15][16]byte, rounds int, counter *[16]byte, text []byte)"

// counterTables makes what counter blocks need: the shuffle that turns their
// last word, a big-endian number, and 16 blocks of the numbers 0 to 15 there;
// behind them four blocks of 16, and two of 2.
func counterTables() (turn, numbers operand.Mem) {
	turn = GLOBL("counterTurn", 8|16) // RODATA | NOPTR
	for i := range 64 {
		n := i % 16
		if n >= 12 {
			n = 12 + 15 - n
		}
		DATA(i, operand.U8(n))
	}
	numbers = GLOBL("counterNumbers", 8|16)
	for i := range 22 {
		n := min(i, 16)
		if i >= 20 {
			n = 2
		}
		DATA(16*i, operand.U64(0))
		DATA(16*i+8, operand.U32(0))
		DATA(16*i+12, operand.U32(n))
	}
	return turn, numbers
}

// counter512 is like decrypt512, but goes forward.
func counter512(turn, numbers operand.Mem) {
	TEXT("ctr512", NOSPLIT, counterSignature)
	Pragma("noescape")
	Doc("ctr512 encrypts or decrypts text, whole blocks, in place by counter mode from the counter block on.")
	schedule, counter := Load(Param("schedule"), GP64()), Load(Param("counter"), GP64())
	text, left := Load(Param("text").Base(), GP64()), Load(Param("text").Len(), GP64())
	next, turner := zmm[8], zmm[9]
	VBROADCASTI32X4(operand.Mem{Base: counter}, next)
	VMOVDQU64(turn, turner)
	VPSHUFB(turner, next, next)
	variants(func(rounds int) {
		keys := zmm[16 : 16+rounds+1]
		for i, k := range keys {
			VBROADCASTI32X4(operand.Mem{Base: schedule, Disp: 16 * i}, k)
		}
		at := func(i int) operand.Mem { return operand.Mem{Base: text, Disp: 64 * i} }
		stream := func(n int) {
			for i := range n {
				VPADDD(numbers.Offset(64*i), next, zmm[i])
				VPSHUFB(turner, zmm[i], zmm[i])
			}
			encryptAll(keys, zmm[:n])
		}
		Label(label(rounds, "loop"))
		SUBQ(operand.U32(256), left)
		JB(operand.LabelRef(label(rounds, "rest")))
		stream(4)
		for i := range 4 {
			VPXORQ(at(i), zmm[i], zmm[i])
			VMOVDQU64(zmm[i], at(i))
		}
		VPADDD(numbers.Offset(16*16), next, next)
		ADDQ(operand.U32(256), text)
		JMP(operand.LabelRef(label(rounds, "loop")))

		Label(label(rounds, "rest"))
		ADDQ(operand.U32(256), left)
		parts512(rounds, left, func(n int) {
			stream(n)
			for i := range n - 1 {
				VPXORQ(at(i), zmm[i], zmm[i])
				VMOVDQU64(zmm[i], at(i))
			}
			VMOVDQU64_Z(at(n-1), reg.K1, zmm[4])
			VPXORQ(zmm[4], zmm[n-1], zmm[n-1])
			VMOVDQU64(zmm[n-1], reg.K1, at(n-1))
		})
		for _, z := range zmm[16 : 16+rounds+1] {
			VPXORQ(z, z, z)
		}
	})
}

// encryptAll takes each block of data through all rounds.
func encryptAll(keys, data []reg.VecPhysical) {
	last := len(keys) - 1
	for i, k := range keys {
		for _, d := range data {
			switch i {
			case 0:
				VPXORQ(k, d, d)
			case last:
				VAESENCLAST(k, d, d)
			default:
				VAESENC(k, d, d)
			}
		}
	}
}

// counter256 is like decrypt256, but goes forward.
func counter256(turn, numbers operand.Mem) {
	TEXT("ctr256", NOSPLIT, counterSignature)
	Pragma("noescape")
	Doc("ctr256 is ctr512 without AVX-512.")
	schedule, counter := Load(Param("schedule"), GP64()), Load(Param("counter"), GP64())
	text, left := Load(Param("text").Base(), GP64()), Load(Param("text").Len(), GP64())
	next, key := ymm[8], ymm[15]
	VBROADCASTI128(operand.Mem{Base: counter}, next)
	VPSHUFB(turn, next, next)
	variants(func(rounds int) {
		for _, step := range []struct {
			name, after string
			n, number   int // registers, and where the table has their number of blocks
		}{{"loop", "pairs", 8, 16}, {"pairs", "rest", 1, 20}} {
			Label(label(rounds, step.name))
			SUBQ(operand.U32(32*step.n), left)
			JB(operand.LabelRef(label(rounds, step.after+"after")))
			counterY(rounds, schedule, text, turn, numbers, ymm[:step.n], next, key, 32)
			VPADDD(numbers.Offset(16*step.number), next, next)
			ADDQ(operand.U32(32*step.n), text)
			JMP(operand.LabelRef(label(rounds, step.name)))
			Label(label(rounds, step.after+"after"))
			ADDQ(operand.U32(32*step.n), left)
		}
		JZ(operand.LabelRef(label(rounds, "done")))
		counterY(rounds, schedule, text, turn, numbers, xmm[:1], xmm[8], xmm[15], 16)
		Label(label(rounds, "done"))
		VPXOR(key, key, key)
	})
}

// counterY encrypts len(data) registers of size bytes at text.
func counterY(rounds int, schedule, text reg.Register, turn, numbers operand.Mem, data []reg.VecPhysical, next, key reg.VecPhysical, size int) {
	for i, d := range data {
		VPADDD(numbers.Offset(size*i), next, d)
		VPSHUFB(turn, d, d)
	}
	for i := range rounds + 1 {
		k := operand.Mem{Base: schedule, Disp: 16 * i}
		if size == 32 {
			VBROADCASTI128(k, key)
		} else {
			VMOVDQU(k, key)
		}
		for _, d := range data {
			switch i {
			case 0:
				VPXOR(key, d, d)
			case rounds:
				VAESENCLAST(key, d, d)
			default:
				VAESENC(key, d, d)
			}
		}
	}
	for i, d := range data {
		m := operand.Mem{Base: text, Disp: size * i}
		VPXOR(m, d, d)
		VMOVDQU(d, m)
	}
}
