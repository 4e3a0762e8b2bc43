package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

var xmm = [16]reg.VecPhysical{
	reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7, reg.X8, reg.X9, reg.X10, reg.X11, reg.X12,
	reg.X13, reg.X14, reg.X15,
}

// stream is one text's registers.
type stream struct {
	abef, cdgh, spare reg.VecPhysical
	w                 [4]reg.VecPhysical
	row               operand.Mem
	text              reg.GPVirtual
}

// extension hashes two texts with the SHA extensions, whose two rounds take
// four cycles but start every two. These have no form that clears the upper
// halves of registers, hence VZEROUPPER first. X0 is their implicit operand.
func extension() {
	k, reverse := sum256(), reversal(16, 4)
	TEXT("sha256x2", NOSPLIT, signature)
	Pragma("noescape")
	Doc("sha256x2 takes in blocks of 64 bytes of the first two texts.", "state is each text's eight words in the processor's order.")
	state, text := Load(Param("state"), GP64()), Load(Param("text"), GP64())
	blocks := Load(Param("blocks"), GP64())
	VZEROUPPER()
	streams := [2]stream{
		{abef: reg.X1, cdgh: reg.X2, spare: reg.X13, w: [4]reg.VecPhysical{reg.X3, reg.X4, reg.X5, reg.X6}},
		{abef: reg.X7, cdgh: reg.X8, spare: reg.X14, w: [4]reg.VecPhysical{reg.X9, reg.X10, reg.X11, reg.X12}},
	}
	for i := range streams {
		s := &streams[i]
		s.row = operand.Mem{Base: state, Disp: 64 * i}
		s.text = GP64()
		MOVQ(operand.Mem{Base: text, Disp: sliceHeader * i}, s.text)
		VPSHUFD(operand.U8(0xb1), s.row, s.spare)
		VPSHUFD(operand.U8(0x1b), s.row.Offset(16), s.cdgh)
		VPALIGNR(operand.U8(8), s.cdgh, s.spare, s.abef)
		VPBLENDW(operand.U8(0xf0), s.spare, s.cdgh, s.cdgh)
	}
	Label("loop")
	for i := range streams {
		s := &streams[i]
		VMOVDQU(s.abef, s.row)
		VMOVDQU(s.cdgh, s.row.Offset(16))
		for j, w := range s.w {
			VMOVDQU(operand.Mem{Base: s.text, Disp: 16 * j}, w)
			VPSHUFB(reverse, w, w)
		}
	}
	for g := range 16 {
		for i := range streams {
			streams[i].fourRounds(g, k)
		}
	}
	for i := range streams {
		s := &streams[i]
		VPADDD(s.row, s.abef, s.abef)
		VPADDD(s.row.Offset(16), s.cdgh, s.cdgh)
		ADDQ(operand.U8(64), s.text)
	}
	DECQ(blocks)
	JNZ(operand.LabelRef("loop"))
	for i := range streams {
		s := &streams[i]
		VPSHUFD(operand.U8(0x1b), s.abef, s.spare)
		VPSHUFD(operand.U8(0xb1), s.cdgh, s.cdgh)
		VPBLENDW(operand.U8(0xf0), s.cdgh, s.spare, s.abef)
		VPALIGNR(operand.U8(8), s.spare, s.cdgh, s.cdgh)
		VMOVDQU(s.abef, s.row)
		VMOVDQU(s.cdgh, s.row.Offset(16))
	}
	for _, x := range xmm {
		VPXOR(x, x, x)
	}
	RET()
}

// fourRounds is rounds 4g to 4g+3, with the message's words for 16 rounds later.
func (s *stream) fourRounds(g int, k operand.Mem) {
	w := func(i int) reg.VecPhysical { return s.w[(g+i)%4] }
	VPADDD(k.Offset(16*g), w(0), reg.X0)
	SHA256RNDS2(reg.X0, s.abef, s.cdgh)
	VPSHUFD(operand.U8(0x0e), reg.X0, reg.X0)
	if g < 12 {
		SHA256MSG1(w(1), w(0))
		VPALIGNR(operand.U8(4), w(2), w(3), s.spare)
		VPADDD(s.spare, w(0), w(0))
		SHA256MSG2(w(3), w(0))
	}
	SHA256RNDS2(reg.X0, s.cdgh, s.abef)
}
