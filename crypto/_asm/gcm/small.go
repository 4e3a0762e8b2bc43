package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// wide is how many packets a small kernel takes at once. One alone would wait
// for each instruction; and four GHASH sums fill a register's lanes, so that
// one reduction serves all. The GHASH of four is woven into the AES of the next
// four.
const wide = 4

// small is the kernel for packets of one or two registers, in fours.
type small struct {
	seal      bool
	rounds    int
	size      int // registers a packet
	keys, ptr [wide]reg.GPPhysical
	aes       [wide][]reg.VecPhysical // counter blocks, then key stream
	cipher    [wide][]reg.VecPhysical // ciphertext with its bytes reversed
	lengths   reg.VecPhysical         // a lane a packet, as the next two
	power     reg.VecPhysical         // H^1
	mask      reg.VecPhysical         // E(K, J0), which masks the tag
	t         reg.VecPhysical
	key       [2]reg.VecPhysical // round keys
	pool      []reg.VecPhysical  // what hash may use, and text before it
	bytesK    [wide]reg.OpmaskPhysical

	// Of the packets in AES, and of those in GHASH, in memory.
	length, job               [wide]operand.Mem
	firstPower, tag, finished [wide]operand.Mem
}

// Scratch of the small kernels.
var (
	flagK  = reg.K7
	smallT = reg.RAX
	ones   = reg.RBX
)

func small512(seal bool, rounds, size int) {
	z := []reg.VecPhysical{
		reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
	}
	take := func(n int) (r []reg.VecPhysical) { r, z = z[:n:n], z[n:]; return r }
	s := &small{
		seal: seal, rounds: rounds, size: size,
		keys:   [wide]reg.GPPhysical{reg.R8, reg.R9, reg.R10, reg.R11},
		ptr:    [wide]reg.GPPhysical{reg.R12, reg.R13, reg.R14, reg.R15},
		bytesK: [wide]reg.OpmaskPhysical{reg.K1, reg.K2, reg.K3, reg.K4},
	}
	for i := range wide {
		s.aes[i], s.cipher[i] = take(size), take(size)
	}
	s.lengths, s.power, s.mask, s.t, s.key = take(1)[0], take(1)[0], take(1)[0], take(1)[0], [2]reg.VecPhysical(take(2))
	s.pool = z

	TEXT(kernel(seal, rounds, label("vaes512of%d", size)), 4, "func(jobs *byte, group *byte, n int)") // NOSPLIT
	local := AllocLocal(8 * 5 * wide)
	for i := range wide {
		for j, m := range []*operand.Mem{&s.length[i], &s.job[i], &s.firstPower[i], &s.tag[i], &s.finished[i]} {
			*m = local.Offset(8 * (5*i + j))
		}
	}
	Load(Param("jobs"), jobs)
	Load(Param("group"), group)
	Load(Param("n"), left)
	MOVQ(operand.I32(-1), ones)
	masks()
	s.begin()
	emit(s.encrypt())
	s.text("first")
	JMP(operand.LabelRef("check"))
	Label("loop")
	s.begin()
	weave(s.encrypt(), s.hash())
	s.text("next")
	Label("check")
	SUBQ(operand.U8(wide), left)
	JA(operand.LabelRef("loop"))
	emit(s.hash())
	VZEROUPPER()
	RET()
	for i := range wide {
		s.esn(i, "first")
		s.esn(i, "next")
	}
}

// begin loads four jobs and makes their counter blocks.
func (s *small) begin() {
	for i, a := range s.aes {
		job, key, ptr, iv := smallT, s.keys[i], s.ptr[i], s.t
		MOVBLZX(mem(group, i), job.As32())
		LEAQ(operand.Mem{Base: job, Index: job, Scale: 4}, job)
		LEAQ(operand.Mem{Base: jobs, Index: job, Scale: 8}, job)
		MOVQ(mem(job, jobKey), key)
		MOVQ(mem(job, jobPkt), ptr)
		MOVQ(mem(job, jobLen), reg.RCX)
		MOVQ(mem(key, keyGCM), key)
		MOVQ(job, s.job[i])
		SUBQ(operand.U8(tagLen), reg.RCX)
		MOVQ(reg.RCX, s.length[i])
		VBROADCASTI32X4_Z(mem(ptr, 4), ivK, iv)
		VBROADCASTI32X4(roundKey(key, 0), a[0])
		VPXORQ(iv, a[0], a[0])
		for v := s.size - 1; v >= 0; v-- {
			VPXORQ(counters.Offset(vecLen*v), a[0], a[v])
		}
		if s.size > 1 {
			SUBQ(operand.U8(vecLen), reg.RCX)
		}
		BZHIQ(reg.RCX, ones, reg.RCX)
		KMOVQ(reg.RCX, s.bytesK[i])
	}
	ADDQ(operand.U8(wide), group)
}

// encrypt makes all packets' key streams.
func (s *small) encrypt() (list []step) {
	for r := 1; r <= s.rounds; r++ {
		for i := range wide {
			k := s.key[i%len(s.key)]
			list = append(list, func() { VBROADCASTI32X4(roundKey(s.keys[i], r), k) })
			for _, a := range s.aes[i] {
				list = append(list, func() {
					if r < s.rounds {
						VAESENC(k, a, a)
					} else {
						VAESENCLAST(k, a, a)
					}
				})
			}
		}
	}
	return list
}

// text adds the key streams to the packets' text, and leaves the ciphertext and
// all else that hash takes. All is read before the first packet is changed,
// because two may be the same.
func (s *small) text(name string) {
	VMOVDQA64(s.aes[0][0].AsX(), s.mask.AsX())
	for i := 1; i < wide; i++ {
		VINSERTI64X2(operand.U8(i), s.aes[i][0].AsX(), s.mask, s.mask)
	}
	in := func(i, v int) reg.VecPhysical { return s.pool[i*s.size+v] }
	for i := range wide {
		for v := range s.size {
			if at := mem(s.ptr[i], vecLen*v); v == s.size-1 {
				VMOVDQU8_Z(at, s.bytesK[i], in(i, v))
			} else {
				VMOVDQU64(at, in(i, v))
			}
		}
		s.lanes(i)
	}
	VPORQ(aadBits, s.lengths, s.lengths)
	for i := range wide {
		for v, a := range s.aes[i] {
			s.crypt(i, v, a, in(i, v))
		}
		CMPB(mem(smallT, jobESN), operand.U8(0))
		JNE(operand.LabelRef(label("%sESN%d", name, i)))
		Label(label("%sAAD%d", name, i))
	}
}

// lanes takes packet i into lengths and power, and leaves where hash finds its
// first power and its tag.
func (s *small) lanes(i int) {
	x := s.t
	MOVQ(s.length[i], reg.RCX)
	LEAQ(operand.Mem{Base: reg.RCX, Disp: blockLen - 1}, smallT)
	ANDQ(operand.I8(-blockLen), smallT)
	NEGQ(smallT) // there is one more block, for the lengths
	LEAQ(operand.Mem{Base: s.keys[i], Index: smallT, Scale: 1, Disp: keyPowers + blockLen*(powers-1)}, smallT)
	MOVQ(smallT, s.firstPower[i])
	LEAQ(operand.Mem{Base: s.ptr[i], Index: reg.RCX, Scale: 1}, smallT)
	MOVQ(smallT, s.tag[i])
	SUBQ(operand.U8(blockLen), reg.RCX)
	SHLQ(operand.U8(3), reg.RCX)
	h := mem(s.keys[i], keyPowers+blockLen*(powers-1))
	if i == 0 {
		VMOVQ(reg.RCX, s.lengths.AsX())
		VMOVDQU64(h, s.power.AsX())
		return
	}
	VMOVQ(reg.RCX, x.AsX())
	VINSERTI64X2(operand.U8(i), x.AsX(), s.lengths, s.lengths)
	VINSERTI64X2(operand.U8(i), h, s.power, s.power)
}

// crypt adds key stream a to text c, register v of packet i. Block 0 is the
// header: it stays in the packet, and for GHASH it becomes the AAD.
func (s *small) crypt(i, v int, a, c reg.VecPhysical) {
	at, k, short := mem(s.ptr[i], vecLen*v), s.bytesK[i], v == s.size-1
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
		VPSHUFB_Z(reverse, c, aadK, s.cipher[i][v])
		MOVQ(s.job[i], smallT)
		MOVQ(smallT, s.finished[i])
	} else {
		VPSHUFB(reverse, c, s.cipher[i][v])
	}
}

// esn makes block 0 SPI | high half | low half of the sequence number (RFC
// 4106, section 5), bytes reversed, of SPI | low half.
func (s *small) esn(i int, name string) {
	Label(label("%sESN%d", name, i))
	a, x := s.cipher[i][0], s.t.AsX()
	VPSHUFD(operand.U8(3<<6|2<<4|2<<2|0), a.AsX(), x)
	VPINSRD(operand.U8(2), mem(smallT, jobSeqHi), x, x)
	VINSERTI64X2(operand.U8(0), x, a, a)
	MOVL(operand.U32(1<<(2*i+1)), smallT.As32())
	KMOVB(smallT.As32(), flagK)
	VPADDQ(esnBits, s.lengths, flagK, s.lengths)
	JMP(operand.LabelRef(label("%sAAD%d", name, i)))
}

// hash multiplies each packet's blocks, puts the sums of four packets into the
// lanes of one, and finishes the packets.
func (s *small) hash() (list []step) {
	pool := s.pool
	sums := make([]*product, wide)
	for i := range sums {
		p := newProduct(pool[0], pool[1], pool[2], pool[3:]...)
		list = append(list, func() { MOVQ(s.firstPower[i], smallT) })
		for v, c := range s.cipher[i] {
			list = append(list, p.add(c, mem(smallT, vecLen*v))...)
			p.free = append(p.free, c)
		}
		list = append(list, p.flush()...)
		pool, sums[i] = p.free, p
		if i%2 == 1 {
			list = append(list, across(0x44, 0xee, sums[i-1], p, &pool)...)
		}
	}
	list = append(list, across(0x88, 0xdd, sums[0], sums[2], &pool)...)
	all := sums[0]
	all.free = pool
	list = append(list, all.add(s.lengths, s.power)...)
	list = append(list, all.reduce()...)
	return append(list, s.finish(all.high.reg, pool[0])...)
}

// across adds up halves of x and y, lanes as low and high select them, in x.
func across(low, high uint8, x, y *product, pool *[]reg.VecPhysical) (list []step) {
	t := (*pool)[0]
	for _, r := range [][2]reg.VecPhysical{{x.low.reg, y.low.reg}, {x.mid.reg, y.mid.reg}, {x.high.reg, y.high.reg}} {
		x, y := r[0], r[1]
		list = append(list,
			func() { VSHUFI64X2(operand.U8(high), y, x, t) },
			func() { VSHUFI64X2(operand.U8(low), y, x, x) },
			func() { VPXORQ(t, x, x) },
		)
		*pool = append(*pool, y)
	}
	return list
}

// finish writes or compares the tags.
func (s *small) finish(sum, tags reg.VecPhysical) (list []step) {
	add := func(f step) { list = append(list, f) }
	add(func() { VPSHUFB(reverse, sum, sum) })
	add(func() { VPXORQ(s.mask, sum, sum) })
	for i := range wide {
		add(func() { MOVQ(s.tag[i], smallT) })
		switch {
		case s.seal:
			add(func() { VEXTRACTI64X2(operand.U8(i), sum, mem(smallT, 0)) })
			add(func() { MOVQ(s.finished[i], smallT) })
			add(func() { MOVB(operand.U8(1), mem(smallT, jobOK)) })
		case i == 0:
			add(func() { VMOVDQU64(mem(smallT, 0), tags.AsX()) })
		default:
			add(func() { VINSERTI64X2(operand.U8(i), mem(smallT, 0), tags, tags) })
		}
	}
	if s.seal {
		return list
	}
	equal := reg.RCX
	add(func() { VPXORQ(tags, sum, sum) })
	add(func() { VPTESTNMQ(sum, sum, flagK) })
	add(func() { KMOVB(flagK, equal.As32()) })
	add(func() { MOVL(equal.As32(), smallT.As32()) })
	add(func() { SHRL(operand.U8(1), smallT.As32()) })
	add(func() { ANDL(smallT.As32(), equal.As32()) }) // bit 2i: both halves of tag i are equal
	for i := range wide {
		add(func() { MOVQ(s.finished[i], smallT) })
		add(func() {
			BTL(operand.U8(2*i), equal.As32())
			SETCS(mem(smallT, jobOK))
		})
	}
	return list
}
