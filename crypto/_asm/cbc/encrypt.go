package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const encryptSignature = "func(keys *[15][16][16]byte, chain *[16][16]byte, rounds int, text *[16][]byte, blocks int)"

// encrypt512 takes four blocks of each lane at a time: transposed, four
// registers are the first blocks, four the second ones, and so on. All loads
// come before all stores, so lanes may share a packet.
func encrypt512() {
	TEXT("cbcEncrypt512", NOSPLIT, encryptSignature)
	Pragma("noescape")
	Doc("cbcEncrypt512 encrypts blocks blocks of each lane's text in place. chain is what each lane's next block is",
		"chained to; keys are round keys by round and lane. Two lanes may have the same text, key and chain.")
	keys, chain := Load(Param("keys"), GP64()), Load(Param("chain"), GP64())
	text, blocks := Load(Param("text"), GP64()), Load(Param("blocks"), GP64())
	off := GP64()
	XORQ(off, off)
	for g := range 4 {
		VMOVDQU64(operand.Mem{Base: chain, Disp: 64 * g}, zmm[16+g])
	}
	variants(func(rounds int) {
		MOVQ(operand.U32(0xff), reg.RAX)
		KMOVB(reg.EAX, reg.K1)
		Label(label(rounds, "loop"))
		SUBQ(operand.U8(4), blocks)
		JB(operand.LabelRef(label(rounds, "rest")))
		gather(text, off)
		for s := range 4 {
			encryptZ(rounds, keys, s)
		}
		keepChain(3)
		scatter(text, off)
		ADDQ(operand.U8(64), off)
		JMP(operand.LabelRef(label(rounds, "loop")))

		Label(label(rounds, "rest"))
		ADDQ(operand.U8(4), blocks)
		JZ(operand.LabelRef(label(rounds, "done")))
		words := GP64()
		LEAQ(operand.Mem{Base: blocks, Index: blocks, Scale: 1}, words)
		BZHIQ(words, reg.RAX, words)
		KMOVB(words.As32(), reg.K1)
		gather(text, off)
		encryptZ(rounds, keys, 0)
		for s := 1; s < 3; s++ {
			CMPQ(blocks, operand.U8(s))
			JE(operand.LabelRef(label(rounds, "keep") + string(rune('0'+s))))
			encryptZ(rounds, keys, s)
		}
		for s := 3; s > 0; s-- {
			Label(label(rounds, "keep") + string(rune('0'+s)))
			keepChain(s - 1)
			if s > 1 {
				JMP(operand.LabelRef(label(rounds, "store")))
			}
		}
		Label(label(rounds, "store"))
		scatter(text, off)

		Label(label(rounds, "done"))
		for g := range 4 {
			VMOVDQU64(zmm[16+g], operand.Mem{Base: chain, Disp: 64 * g})
		}
	})
}

// block is the register of step s of the four lanes of group g, between gather
// and scatter.
func block(g, s int) reg.VecPhysical { return zmm[4*g+s] }

// gather loads 64 bytes of each lane, as far as K1 lets it, and transposes.
func gather(text, off reg.Register) {
	for g := range 4 {
		for l := range 4 {
			p := GP64()
			MOVQ(operand.Mem{Base: text, Disp: sliceHeader * (4*g + l)}, p)
			VMOVDQU64_Z(operand.Mem{Base: p, Index: off, Scale: 1}, reg.K1, block(g, l))
		}
		transpose(g)
	}
}

// scatter is the reverse of gather.
func scatter(text, off reg.Register) {
	for g := range 4 {
		transpose(g)
		for l := range 4 {
			p := GP64()
			MOVQ(operand.Mem{Base: text, Disp: sliceHeader * (4*g + l)}, p)
			VMOVDQU64(block(g, l), reg.K1, operand.Mem{Base: p, Index: off, Scale: 1})
		}
	}
}

// transpose turns group g's square of 4 x 4 blocks; it is its own reverse.
func transpose(g int) {
	a, b, c, d := block(g, 0), block(g, 1), block(g, 2), block(g, 3)
	t := zmm[20:24]
	VSHUFI64X2(operand.U8(0x44), b, a, t[0]) // a0 a1 b0 b1
	VSHUFI64X2(operand.U8(0xee), b, a, t[1]) // a2 a3 b2 b3
	VSHUFI64X2(operand.U8(0x44), d, c, t[2])
	VSHUFI64X2(operand.U8(0xee), d, c, t[3])
	VSHUFI64X2(operand.U8(0x88), t[2], t[0], a) // a0 b0 c0 d0
	VSHUFI64X2(operand.U8(0xdd), t[2], t[0], b) // a1 b1 c1 d1
	VSHUFI64X2(operand.U8(0x88), t[3], t[1], c)
	VSHUFI64X2(operand.U8(0xdd), t[3], t[1], d)
}

// encryptZ encrypts all lanes' blocks of step s.
func encryptZ(rounds int, keys reg.Register, s int) {
	for i := range rounds + 1 {
		for g := range 4 {
			d, k := block(g, s), operand.Mem{Base: keys, Disp: 16*lanes*i + 64*g}
			switch i {
			case 0:
				last := zmm[16+g]
				if s > 0 {
					last = block(g, s-1)
				}
				VPTERNLOGQ(operand.U8(0x96), k, last, d) // XOR of the three
			case rounds:
				VAESENCLAST(k, d, d)
			default:
				VAESENC(k, d, d)
			}
		}
	}
}

// keepChain saves what step s made for the next.
func keepChain(s int) {
	for g := range 4 {
		VMOVDQA64(block(g, s), zmm[16+g])
	}
}

// encrypt256 takes one block of each lane at a time, two lanes a register.
func encrypt256() {
	TEXT("cbcEncrypt256", NOSPLIT, encryptSignature)
	Pragma("noescape")
	Doc("cbcEncrypt256 is cbcEncrypt512 without AVX-512.")
	keys, chain := Load(Param("keys"), GP64()), Load(Param("chain"), GP64())
	text, blocks := Load(Param("text"), GP64()), Load(Param("blocks"), GP64())
	off := GP64()
	XORQ(off, off)
	for g := range 8 {
		VMOVDQU(operand.Mem{Base: chain, Disp: 32 * g}, ymm[g])
	}
	at := func(lane int) operand.Mem {
		p := GP64()
		MOVQ(operand.Mem{Base: text, Disp: sliceHeader * lane}, p)
		return operand.Mem{Base: p, Index: off, Scale: 1}
	}
	variants(func(rounds int) {
		Label(label(rounds, "loop"))
		for g := range 8 {
			VMOVDQU(at(2*g), xmm[8+g])
			VINSERTI128(operand.U8(1), at(2*g+1), ymm[8+g], ymm[8+g])
			VPXOR(ymm[8+g], ymm[g], ymm[g])
		}
		for i := range rounds + 1 {
			for g := range 8 {
				k := operand.Mem{Base: keys, Disp: 16*lanes*i + 32*g}
				switch i {
				case 0:
					VPXOR(k, ymm[g], ymm[g])
				case rounds:
					VAESENCLAST(k, ymm[g], ymm[g])
				default:
					VAESENC(k, ymm[g], ymm[g])
				}
			}
		}
		for g := range 8 {
			VMOVDQU(xmm[g], at(2*g))
			VEXTRACTI128(operand.U8(1), ymm[g], at(2*g+1))
		}
		ADDQ(operand.U8(16), off)
		DECQ(blocks)
		JNZ(operand.LabelRef(label(rounds, "loop")))
		for g := range 8 {
			VMOVDQU(ymm[g], operand.Mem{Base: chain, Disp: 32 * g})
		}
	})
}

// encryptOne holds all round keys in registers: with one packet nothing but
// the chain's own latency is left.
func encryptOne() {
	TEXT("cbcEncryptOne", NOSPLIT, "func(schedule *[15][16]byte, rounds int, text []byte)")
	Pragma("noescape")
	Doc("cbcEncryptOne encrypts text in place, its first block chained to zero.")
	schedule := Load(Param("schedule"), GP64())
	text, end := Load(Param("text").Base(), GP64()), Load(Param("text").Len(), GP64())
	ADDQ(text, end)
	variants(func(rounds int) {
		keys := xmm[1 : 1+rounds+1]
		for i, k := range keys {
			VMOVDQU(operand.Mem{Base: schedule, Disp: 16 * i}, k)
		}
		VPXOR(reg.X0, reg.X0, reg.X0)
		Label(label(rounds, "loop"))
		VPXOR(operand.Mem{Base: text}, reg.X0, reg.X0)
		VPXOR(keys[0], reg.X0, reg.X0)
		for _, k := range keys[1:rounds] {
			VAESENC(k, reg.X0, reg.X0)
		}
		VAESENCLAST(keys[rounds], reg.X0, reg.X0)
		VMOVDQU(reg.X0, operand.Mem{Base: text})
		ADDQ(operand.U8(16), text)
		CMPQ(text, end)
		JB(operand.LabelRef(label(rounds, "loop")))
		for _, k := range keys {
			VPXOR(k, k, k)
		}
	})
}
