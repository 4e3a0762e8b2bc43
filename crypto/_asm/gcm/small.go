package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// wide is how many packets a small kernel takes at once. One alone would wait
// for each instruction; and four GHASH sums fill a register's lanes, so that
// one reduction serves all.
const wide = 4

// small is the kernel for packets of one or two registers, in fours.
type small struct {
	seal      bool
	rounds    int
	size      int // registers a packet
	keys, ptr [wide]reg.GPPhysical
	aes       [wide][2]reg.VecPhysical // counter blocks, then text, then ciphertext with its bytes reversed
	in        [wide][2]reg.VecPhysical // text as it is in the packet; sum is not in use then
	sum       [wide]*product
	spare     []reg.VecPhysical
	lengths   reg.VecPhysical // a lane a packet
	power     reg.VecPhysical // H^1, a lane a packet
	mask      reg.VecPhysical // E(K, J0), a lane a packet
	t         [5]reg.VecPhysical
	bytesK    [wide]reg.OpmaskPhysical // of the packet's last register

	stream, job [wide]operand.Mem // where begin leaves the stream's length, and the job
}

// Scratch of the small kernels.
var (
	flagK  = reg.K7
	smallT = reg.RAX
	ones   = reg.RBX
)

func small512(seal bool, rounds, size int) {
	s := &small{
		seal: seal, rounds: rounds, size: size,
		keys:    [wide]reg.GPPhysical{reg.R8, reg.R9, reg.R10, reg.R11},
		ptr:     [wide]reg.GPPhysical{reg.R12, reg.R13, reg.R14, reg.R15},
		aes:     [wide][2]reg.VecPhysical{{reg.Z0, reg.Z1}, {reg.Z2, reg.Z3}, {reg.Z4, reg.Z5}, {reg.Z6, reg.Z7}},
		in:      [wide][2]reg.VecPhysical{{reg.Z8, reg.Z9}, {reg.Z10, reg.Z11}, {reg.Z12, reg.Z13}, {reg.Z14, reg.Z15}},
		spare:   []reg.VecPhysical{reg.Z20, reg.Z21, reg.Z22, reg.Z23},
		lengths: reg.Z24, power: reg.Z25, mask: reg.Z26,
		t:      [5]reg.VecPhysical{reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31},
		bytesK: [wide]reg.OpmaskPhysical{reg.K1, reg.K2, reg.K3, reg.K4},
	}
	s.sum = [wide]*product{
		newProduct(reg.Z8, reg.Z9, reg.Z10), newProduct(reg.Z11, reg.Z12, reg.Z13),
		newProduct(reg.Z14, reg.Z15, reg.Z16), newProduct(reg.Z17, reg.Z18, reg.Z19),
	}
	TEXT(kernel(seal, rounds, label("of%d", size)), 4, "func(jobs *byte, group *byte, n int)") // NOSPLIT
	local := AllocLocal(16 * wide)
	for i := range wide {
		s.stream[i], s.job[i] = local.Offset(16*i), local.Offset(16*i+8)
	}
	Load(Param("jobs"), jobs)
	Load(Param("group"), group)
	Load(Param("n"), left)
	MOVQ(operand.I32(-1), ones)
	masks()
	Label("group")
	for i := range wide {
		s.begin(i)
	}
	ADDQ(operand.U8(wide), group)
	s.encrypt()
	s.load()
	for i := range wide {
		s.text(i)
	}
	s.hash()
	s.finish()
	SUBQ(operand.U8(wide), left)
	JA(operand.LabelRef("group"))
	VZEROUPPER()
	RET()
	for i := range wide {
		s.esn(i)
	}
}

// begin loads a job and makes its counter blocks.
func (s *small) begin(i int) {
	job, key, ptr, a := smallT, s.keys[i], s.ptr[i], s.aes[i]
	MOVBLZX(mem(group, i), job.As32())
	LEAQ(operand.Mem{Base: job, Index: job, Scale: 4}, job)
	LEAQ(operand.Mem{Base: jobs, Index: job, Scale: 8}, job)
	MOVQ(mem(job, jobKey), key)
	MOVQ(mem(job, jobPkt), ptr)
	MOVQ(mem(job, jobLen), reg.RCX)
	MOVQ(mem(key, keyGCM), key)
	MOVQ(job, s.job[i])
	SUBQ(operand.U8(tagLen), reg.RCX)
	MOVQ(reg.RCX, s.stream[i])
	VBROADCASTI32X4_Z(mem(ptr, 4), ivK, a[0])
	VBROADCASTI32X4(mem(key, keyRounds), s.t[0])
	if s.size == 2 {
		VMOVDQA64(a[0], a[1])
		VPTERNLOGQ(operand.U8(0x96), counters.Offset(vecLen), s.t[0], a[1])
	}
	VPTERNLOGQ(operand.U8(0x96), counters, s.t[0], a[0])
	if s.size == 2 {
		LEAL(mem(reg.RCX, -vecLen), job.As32())
		BZHIQ(job, ones, job)
	} else {
		BZHIQ(reg.RCX, ones, job)
	}
	KMOVQ(job, s.bytesK[i])
	// The lengths' block: bits of text here, of AAD for all packets at once.
	SUBQ(operand.U8(blockLen), reg.RCX)
	SHLQ(operand.U8(3), reg.RCX)
	if i == 0 {
		VMOVQ(reg.RCX, s.lengths.AsX())
		VMOVDQU64(s.h1(i), s.power.AsX())
	} else {
		VMOVQ(reg.RCX, s.t[1].AsX())
		VINSERTI64X2(operand.U8(i), s.t[1].AsX(), s.lengths, s.lengths)
		VINSERTI64X2(operand.U8(i), s.h1(i), s.power, s.power)
	}
}

func (s *small) h1(i int) operand.Mem { return mem(s.keys[i], keyPowers+blockLen*(powers-1)) }

// encrypt makes all packets' key streams, and collects what masks their tags.
func (s *small) encrypt() {
	VPORQ(aadBits, s.lengths, s.lengths)
	for r := 1; r <= s.rounds; r++ {
		for i := range wide {
			VBROADCASTI32X4(mem(s.keys[i], keyRounds+blockLen*r), s.t[i])
		}
		for v := range s.size {
			for i := range wide {
				if a := s.aes[i][v]; r < s.rounds {
					VAESENC(s.t[i], a, a)
				} else {
					VAESENCLAST(s.t[i], a, a)
				}
			}
		}
	}
	VMOVDQA64(s.aes[0][0].AsX(), s.mask.AsX())
	for i := 1; i < wide; i++ {
		VINSERTI64X2(operand.U8(i), s.aes[i][0].AsX(), s.mask, s.mask)
	}
}

// load loads all packets' text. It must be before the first is changed, because
// two packets may be the same.
func (s *small) load() {
	for i := range wide {
		for v := range s.size {
			if at := mem(s.ptr[i], vecLen*v); v == s.size-1 {
				VMOVDQU8_Z(at, s.bytesK[i], s.in[i][v])
			} else {
				VMOVDQU64(at, s.in[i][v])
			}
		}
	}
}

// text adds the key stream to a packet's text; block 0 is the header and stays.
// Then it makes block 0 the AAD.
func (s *small) text(i int) {
	ptr, k := s.ptr[i], s.bytesK[i]
	for v, a := range s.aes[i][:s.size] {
		at, c := mem(ptr, vecLen*v), s.in[i][v]
		short := v == s.size-1
		VPXORQ(c, a, a)
		if v == 0 {
			VINSERTI64X2(operand.U8(0), c.AsX(), a, a)
		}
		if short {
			VMOVDQU8(a, k, at)
		} else {
			VMOVDQU64(a, at)
		}
		if s.seal {
			c = a
			if short {
				VMOVDQU8_Z(a, k, a)
			}
		}
		if v == 0 {
			VPSHUFB_Z(reverse, c, aadK, a)
		} else {
			VPSHUFB(reverse, c, a)
		}
	}
	MOVQ(s.job[i], smallT)
	CMPB(mem(smallT, jobESN), operand.U8(0))
	JNE(operand.LabelRef(label("esn%d", i)))
	Label(label("aad%d", i))
}

// esn makes block 0 SPI | high half | low half of the sequence number (RFC
// 4106, section 5), bytes reversed, of SPI | low half.
func (s *small) esn(i int) {
	Label(label("esn%d", i))
	a, x := s.aes[i][0], s.t[0].AsX()
	VPSHUFD(operand.U8(3<<6|2<<4|2<<2|0), a.AsX(), x)
	VPINSRD(operand.U8(2), mem(smallT, jobSeqHi), x, x)
	VINSERTI64X2(operand.U8(0), x, a, a)
	MOVL(operand.U32(1<<(2*i+1)), smallT.As32())
	KMOVB(smallT.As32(), flagK)
	VPADDQ(esnBits, s.lengths, flagK, s.lengths)
	JMP(operand.LabelRef(label("aad%d", i)))
}

// hash multiplies each packet's blocks and puts the sums of four packets into
// the lanes of one.
func (s *small) hash() {
	for i, p := range s.sum {
		// The first block's power of H, relative to key: there is one more block, for the lengths.
		MOVQ(s.stream[i], smallT)
		LEAQ(operand.Mem{Base: smallT, Disp: blockLen - 1}, reg.RCX)
		ADDQ(s.ptr[i], smallT) // the tag
		MOVQ(smallT, s.ptr[i])
		ANDQ(operand.I8(-blockLen), reg.RCX)
		SUBQ(reg.RCX, s.keys[i])
		p.free = s.spare
		for v, a := range s.aes[i][:s.size] {
			emit(p.add(a, mem(s.keys[i], keyPowers+blockLen*(powers-1)+vecLen*v)))
		}
		emit(p.flush())
		p.low.begun, p.mid.begun, p.high.begun = false, false, false
	}
	all := newProduct(s.across(func(p *product) sum { return p.low }), s.across(func(p *product) sum { return p.mid }),
		s.across(func(p *product) sum { return p.high }), s.spare...)
	all.low.begun, all.mid.begun, all.high.begun = true, true, true
	emit(all.add(s.lengths, s.power))
	emit(all.reduce())
}

// across adds up the lanes of each packet's register, lane i of the result for
// packet i. The result is in packet 0's register.
func (s *small) across(of func(*product) sum) reg.VecPhysical {
	var x [wide]reg.VecPhysical
	for i, p := range s.sum {
		x[i] = of(p).reg
	}
	pair := func(low, high uint8, x, y, t reg.VecPhysical) {
		VSHUFI64X2(operand.U8(high), y, x, t)
		VSHUFI64X2(operand.U8(low), y, x, x)
		VPXORQ(t, x, x)
	}
	pair(0x44, 0xee, x[0], x[1], s.t[0])
	pair(0x44, 0xee, x[2], x[3], s.t[1])
	pair(0x88, 0xdd, x[0], x[2], s.t[2])
	return x[0]
}

// finish writes or compares the tags.
func (s *small) finish() {
	sum := s.sum[0].high.reg
	VPSHUFB(reverse, sum, sum)
	VPXORQ(s.mask, sum, sum)
	if s.seal {
		VMOVDQU(sum.AsX(), mem(s.ptr[0], 0))
		for i := 1; i < wide; i++ {
			VEXTRACTI64X2(operand.U8(i), sum, mem(s.ptr[i], 0))
		}
		for i := range wide {
			MOVQ(s.job[i], smallT)
			MOVB(operand.U8(1), mem(smallT, jobOK))
		}
		return
	}
	tags, equal := s.t[0], reg.RCX
	VMOVDQU64(mem(s.ptr[0], 0), tags.AsX())
	for i := 1; i < wide; i++ {
		VINSERTI64X2(operand.U8(i), mem(s.ptr[i], 0), tags, tags)
	}
	VPXORQ(tags, sum, sum)
	VPTESTNMQ(sum, sum, flagK)
	KMOVB(flagK, equal.As32())
	MOVL(equal.As32(), smallT.As32())
	SHRL(operand.U8(1), smallT.As32())
	ANDL(smallT.As32(), equal.As32()) // bit 2i: both halves of tag i are equal
	for i := range wide {
		MOVQ(s.job[i], smallT)
		BTL(operand.U8(2*i), equal.As32())
		SETCS(mem(smallT, jobOK))
	}
}
