package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// wide is how many packets a small kernel takes at once. One alone would wait
// for each instruction; and four sums of GHASH share one reduction.
const wide = 4

// small is the kernel for packets of up to so many blocks, in fours. Two fours
// are at work at a time: one in AES; the one before in GHASH, woven into that.
type small struct {
	seal      bool
	rounds    int
	blocks    int // 4, 5 or 8: a register, one and a quarter, or two
	keys, ptr [wide]reg.GPPhysical
	aes       [wide][]reg.VecPhysical // counter blocks, then key stream
	cipher    [wide][]reg.VecPhysical // ciphertext with its bytes reversed
	powers    [wide]reg.VecPhysical   // of H, those that the first register of a packet in GHASH takes
	key       [2]reg.VecPhysical      // round keys
	pool      []reg.VecPhysical       // what hash may use, and text before it
	mask      reg.VecPhysical         // a lane a packet: E(K, J0) and the lengths' product, to open with the tag added
	bytesK    [wide]reg.OpmaskPhysical
	left      operand.Mem
	power     [wide]operand.Mem // where powers lie, if a packet has two registers
	stubs     []step            // what is seldom run
}

// Registers of the small kernels. What is woven keeps nothing in the first two
// from one step to the next.
var (
	smallA = reg.RAX
	smallC = reg.RCX
	suite  = reg.RBX
	next   = reg.RBP // the place in group of the four after the next
	anyESN = reg.RDX // not 0 if one of the four in GHASH has ESN
	textK  = reg.K5  // quadwords of a packet's first register but the header
	flagK  = reg.K6
	nonceK = reg.K7 // dwords 1 and 2 of each block: the IV in the nonce
)

// at loads the offset of job i of the four at a place in group.
func (s *small) at(place reg.Register, i int, job reg.GPPhysical) {
	MOVWLZX(mem(place, 2*i), job.As32())
}

func small512(seal bool, rounds, blocks int) {
	z := []reg.VecPhysical{
		reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
		reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
		reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
	}
	take := func(n int) (r []reg.VecPhysical) { r, z = z[:n:n], z[n:]; return r }
	s := &small{
		seal: seal, rounds: rounds, blocks: blocks,
		keys:   [wide]reg.GPPhysical{reg.R8, reg.R9, reg.R10, reg.R11},
		ptr:    [wide]reg.GPPhysical{reg.R12, reg.R13, reg.R14, reg.R15},
		bytesK: [wide]reg.OpmaskPhysical{reg.K1, reg.K2, reg.K3, reg.K4},
	}
	for i := range wide {
		s.aes[i], s.cipher[i] = take(max(s.size(), 2)), take(s.size())
	}
	if s.size() == 1 {
		s.powers = [wide]reg.VecPhysical(take(wide))
	}
	s.key, s.mask = [2]reg.VecPhysical(take(2)), take(1)[0]
	s.pool = z

	const noSplit = 4
	TEXT(kernel(seal, rounds, label("vaes512of%d", blocks)), noSplit, "func(jobs *byte, group *byte, n int, suite *byte) int")
	s.enter()
	s.counters("none")
	emit(s.encrypt())
	JMP(operand.LabelRef("text"))
	Label("loop")
	s.counters("last")
	weave(s.encrypt(), merge(s.hash("loop"), s.ahead()))
	Label("text")
	s.text()
	ADDQ(operand.U8(2*wide), group)
	SUBQ(operand.U8(wide), s.left)
	JNE(operand.LabelRef("loop"))
	Label("last")
	emit(s.hash("last"))
	Label("none")
	VZEROUPPER()
	done := reg.RAX
	Load(Param("n"), done)
	SUBQ(s.left, done)
	Store(done, ReturnIndex(0))
	RET()
	emit(s.stubs)
}

// size is how many registers a packet takes.
func (s *small) size() int { return (s.blocks + 3) / 4 }

// part is r, or its lowest lane if it is a packet's register v of which no more
// is needed: AES of that takes half the time.
func (s *small) part(v int, r reg.VecPhysical) reg.VecPhysical {
	if s.blocks == 5 && v == 1 {
		return r.AsX().(reg.VecPhysical)
	}
	return r
}

// halves tells whether AES takes half registers, of which there are enough for
// the smallest packets: to bring round keys to two lanes costs half as much.
func (s *small) halves() bool { return s.blocks == 4 }

// stream is r, or its lower half, as register v of a packet in AES.
func (s *small) stream(v int, r reg.VecPhysical) reg.VecPhysical {
	if s.halves() {
		return r.AsY().(reg.VecPhysical)
	}
	return s.part(v, r)
}

// enter loads what does not change.
func (s *small) enter() {
	local := AllocLocal(8 * (1 + wide))
	s.left = local
	for i := range wide {
		s.power[i] = local.Offset(8 * (1 + i))
	}
	Load(Param("jobs"), jobs)
	Load(Param("group"), group)
	Load(Param("suite"), suite)
	Load(Param("n"), smallA)
	MOVQ(smallA, s.left)
	XORL(anyESN.As32(), anyESN.As32())
	MOVL(operand.U32(0xfc), smallA.As32())
	KMOVW(smallA.As32(), textK)
	MOVL(operand.U32(0x6666), smallA.As32())
	KMOVW(smallA.As32(), nonceK)
}

// check goes to stop unless job i of the four has a living key of the suite and
// a packet of a length for this kernel. It leaves that in smallC.
func (s *small) check(i int, stop string) {
	key, length, words := s.keys[i], smallC, smallA
	least := 4*(s.size()-1)*blockLen + 4 // without ICV
	if s.size() == 1 {
		least += blockLen
	}
	s.at(group, i, smallA)
	MOVQ(field(smallA, jobKey), key)
	TESTQ(key, key)
	JEQ(operand.LabelRef(stop))
	CMPQ(suite, mem(key, keySuite))
	JNE(operand.LabelRef(stop))
	ADDQ(operand.U32(keyWithin), key)
	MOVQ(field(smallA, jobPkt), s.ptr[i])
	MOVQ(field(smallA, jobLen), length)
	LEAQ(mem(length, -least-tagLen), words)
	RORQ(operand.U8(2), words)
	CMPQ(words, operand.U8((s.blocks*blockLen-least)/4))
	JHI(operand.LabelRef(stop))
}

// counters makes the counter blocks of the next four, or goes to stop if one is
// not for this kernel. To seal, it writes the IV: the sequence number, high half
// first.
func (s *small) counters(stop string) {
	for i, a := range s.aes {
		key, ptr, x, a0 := s.keys[i], s.ptr[i], a[0].AsX(), s.stream(0, a[0])
		s.check(i, stop)
		if s.seal {
			iv := smallA
			s.at(group, i, iv)
			MOVL(field(iv, jobSeqHi), iv.As32())
			BSWAPL(iv.As32())
			VMOVD(iv.As32(), x)
			VPINSRD(operand.U8(1), mem(ptr, 4), x, x)
			VMOVQ(x, mem(ptr, 8))
			VPSLLDQ(operand.U8(4), x, x)
			VSHUFI64X2(operand.U8(0), a0, a0, a0)
		} else {
			VBROADCASTI32X4_Z(mem(ptr, 4), nonceK, a0)
		}
		if s.halves() {
			VPXORQ(mem(key, keyCounters+vecLen/2), a0, a[1].AsY())
		}
		VPXORQ(mem(key, keyCounters), a0, a0)
		if s.size() == 2 {
			VPXORQ(nextCounters, s.part(1, a[0]), s.part(1, a[1]))
		}
		PREFETCHT0(lengthsOf(key, smallC))
		SUBQ(operand.U8(tagLen+vecLen*(s.size()-1)), smallC)
		BZHIQ(smallC, ones, smallC)
		KMOVQ(smallC, s.bytesK[i])
	}
}

// ahead asks for the keys of the four after the next, or if there are none of
// these again: with many SAs a key is seldom in a near cache. What it asks for lies
// about the Key's address, so that it does not wait for any of it, nor does a
// job without a key matter.
func (s *small) ahead() []step {
	const jobsAhead = 2 * wide
	list := []step{func() {
		MOVQ(group, next)
		LEAQ(mem(group, 2*jobsAhead), smallA)
		CMPQ(s.left, operand.U8(jobsAhead))
		CMOVQHI(smallA, next)
	}}
	last := 1 + wide*s.size() // power of H that a packet takes, but for the shortest
	for i := range wide {
		list = append(list, func() {
			s.at(next, i, smallA)
			MOVQ(field(smallA, jobKey), smallA)
			PREFETCHT0(mem(smallA, keySuite))
			for n := last; n > 1; n -= wide {
				PREFETCHT0(mem(smallA, keyWithin+keyPowers+blockLen*(powers-n)))
			}
			for at := 0; at < blockLen*(s.rounds+1); at += vecLen {
				PREFETCHT0(mem(smallA, keyWithin+keyRounds+at))
			}
		})
	}
	return list
}

// encrypt makes all packets' key streams.
func (s *small) encrypt() (list []step) {
	for r := 1; r <= s.rounds; r++ {
		for i := range wide {
			k := s.key[i%len(s.key)]
			list = append(list, func() { VBROADCASTI32X4(roundKey(s.keys[i], r), s.stream(0, k)) })
			for v, a := range s.aes[i] {
				k, a := s.stream(v, k), s.stream(v, a)
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
func (s *small) text() {
	in := func(i, v int) reg.VecPhysical { return s.part(v, s.pool[i*s.size()+v]) }
	for i := range wide {
		if a := s.aes[i]; s.halves() {
			VINSERTI64X4(operand.U8(1), a[1].AsY(), a[0], a[0])
		}
		for v := range s.size() {
			if at := mem(s.ptr[i], vecLen*v); v == s.size()-1 {
				VMOVDQU8_Z(at, s.bytesK[i], in(i, v))
			} else {
				VMOVDQU64(at, in(i, v))
			}
			s.crypt(i, v, s.part(v, s.aes[i][v]), in(i, v))
		}
		s.lanes(i)
	}
	for i := range wide {
		for v := range s.size() {
			if at := mem(s.ptr[i], vecLen*v); v == s.size()-1 {
				VMOVDQU8(in(i, v), s.bytesK[i], at)
			} else {
				VMOVDQU64(in(i, v), at)
			}
		}
	}
}

// lanes leaves all of packet i that hash takes but ciphertext.
func (s *small) lanes(i int) {
	length, x := smallC, s.key[0].AsX()
	s.at(group, i, smallA)
	MOVQ(field(smallA, jobLen), length)
	masks := s.mask
	if i >= wide/2 { // the upper half of a register is filled by itself: that takes half the time
		masks = s.pool[len(s.pool)-1]
	}
	if i%2 == 0 {
		x = masks.AsX()
	}
	if j0 := s.aes[i][0].AsX(); s.seal {
		VPXORQ(lengthsOf(s.keys[i], length), j0, x)
	} else {
		VMOVDQU64(operand.Mem{Base: s.ptr[i], Index: length, Scale: 1, Disp: -tagLen}, x)
		VPTERNLOGQ(operand.U8(0x96), lengthsOf(s.keys[i], length), j0, x)
	}
	CMPB(field(smallA, jobESN), operand.U8(0))
	JNE(operand.LabelRef(label("esn%d", i)))
	Label(label("aad%d", i))
	s.stubs = append(s.stubs, func() { s.esn(i, x) })
	if i%2 == 1 {
		VINSERTI64X2(operand.U8(1), x, masks.AsY(), masks.AsY())
	}
	if i == wide-1 {
		VINSERTI64X4(operand.U8(1), masks.AsY(), s.mask, s.mask)
	}
	NEGQ(length)
	ANDQ(operand.I8(-blockLen), length) // blocks, of which one for the tag: there is one for the lengths
	first := operand.Mem{Base: s.keys[i], Index: length, Scale: 1, Disp: keyPowers + blockLen*powers}
	if s.size() == 1 {
		VMOVDQU64(first, s.powers[i])
	} else {
		LEAQ(first, smallA)
		MOVQ(smallA, s.power[i])
	}
}

// crypt adds key stream a to text c, register v of packet i. Block 0 is the
// header: it stays in the packet, and for GHASH it becomes the AAD.
func (s *small) crypt(i, v int, a, c reg.VecPhysical) {
	order, to := reverse, s.part(v, s.cipher[i][v])
	if v == 0 {
		order = reverseFirst
	}
	if !s.seal {
		VPSHUFB(order, c, to)
	}
	if v == 0 {
		VPXORQ(a, c, textK, c)
	} else {
		VPXORQ(a, c, c)
	}
	if s.seal {
		if v == s.size()-1 {
			VMOVDQU8_Z(c, s.bytesK[i], c)
		}
		VPSHUFB(order, c, to)
	}
}

// esn makes block 0 SPI | high half | low half of the sequence number (RFC
// 4106, section 5), bytes reversed, of SPI | low half.
func (s *small) esn(i int, mask reg.Register) {
	Label(label("esn%d", i))
	a, x := s.cipher[i][0], s.key[1].AsX()
	VPSHUFD(operand.U8(3<<6|2<<4|2<<2|0), a.AsX(), x)
	VPINSRD(operand.U8(2), field(smallA, jobSeqHi), x, x)
	VINSERTI64X2(operand.U8(0), x, a, a)
	VPXORQ(mem(s.keys[i], keyESN), mask, mask)
	MOVL(operand.U32(1), anyESN.As32())
	JMP(operand.LabelRef(label("aad%d", i)))
}

// hash multiplies the packets' blocks and finishes the packets. Ciphertext and
// powers of H are brought to a lane a packet, so that the four sums are in the
// lanes of one.
func (s *small) hash(place string) (list []step) {
	add := func(f step) { list = append(list, f) }
	free := s.pool
	low, mid, high := free[0], free[1], free[2]
	free = free[3:]
	p := newProduct(low, mid, high)
	for v := range s.size() {
		h, rest := s.powers, free
		if s.size() > 1 {
			h, rest = [wide]reg.VecPhysical(free[:wide]), free[wide:]
		}
		var c [wide]reg.VecPhysical
		for i := range wide {
			h[i], c[i] = s.part(v, h[i]), s.part(v, s.cipher[i][v])
			if s.size() > 1 {
				add(func() { MOVQ(s.power[i], smallA); VMOVDQU64(mem(smallA, vecLen*v), h[i]) })
			}
		}
		n := wide
		if s.part(v, low) != low {
			n = 1
		}
		list = append(list, transpose(h, rest[:wide], n)...)
		list = append(list, transpose(c, rest[:wide], n)...)
		p.free = rest
		for j := n - 1; j >= 0; j-- {
			x, y := s.cipher[j][v], h[j].AsZ().(reg.VecPhysical)
			if v == 0 && j == 0 {
				list = append(list, p.upper(x, y)...)
				list = append(list, s.withESN(p, x, y, place))
			} else {
				list = append(list, p.schoolbook(x, y)...)
			}
			p.free = append(p.free, x)
		}
		list = append(list, p.flush()...)
	}
	list = append(list, p.reduce()...)
	return append(list, s.finish(high)...)
}

// withESN adds what upper has left out, if one of the four has ESN.
func (s *small) withESN(p *product, x, y reg.VecPhysical, place string) step {
	t := p.free[0]
	s.stubs = append(s.stubs, func() {
		Label(place + "ESN")
		VPCLMULQDQ(operand.U8(0x00), y, x, t)
		VPXORQ(t, p.low.reg, p.low.reg)
		VPCLMULQDQ(operand.U8(0x10), y, x, t)
		VPXORQ(t, p.mid.reg, p.mid.reg)
		XORL(anyESN.As32(), anyESN.As32())
		JMP(operand.LabelRef(place + "AAD"))
	})
	return func() {
		TESTQ(anyESN, anyESN)
		JNE(operand.LabelRef(place + "ESN"))
		Label(place + "AAD")
	}
}

// transpose makes r[j] what was in lane j of each, for the first n lanes: all
// four or one, and if one, each of r is that lane.
func transpose(r [wide]reg.VecPhysical, t []reg.VecPhysical, n int) (list []step) {
	if n == 1 {
		to := r[0].AsZ()
		return []step{
			func() { VINSERTI64X2(operand.U8(1), r[1], r[0].AsY(), t[0].AsY()) },
			func() { VINSERTI64X2(operand.U8(1), r[3], r[2].AsY(), t[1].AsY()) },
			func() { VINSERTI64X4(operand.U8(1), t[1].AsY(), t[0], to) },
		}
	}
	lanes := func(imm uint8, x, y, to reg.VecPhysical) {
		list = append(list, func() { VSHUFI64X2(operand.U8(imm), y, x, to) })
	}
	lanes(0x44, r[0], r[1], t[0])
	lanes(0x44, r[2], r[3], t[1])
	lanes(0xee, r[0], r[1], t[2])
	lanes(0xee, r[2], r[3], t[3])
	for j := 0; j < wide; j += 2 {
		lanes(0x88, t[j], t[j+1], r[j])
		lanes(0xdd, t[j], t[j+1], r[j+1])
	}
	return list
}

// finish writes or compares the tags.
func (s *small) finish(sum reg.VecPhysical) (list []step) {
	add := func(f step) { list = append(list, f) }
	add(func() { VPSHUFB(reverse, sum, sum) })
	add(func() { VPXORQ(s.mask, sum, sum) })
	if s.seal {
		for i := range wide {
			add(func() {
				job, end := smallA, smallC
				s.at(group, i-wide, job)
				MOVQ(field(job, jobPkt), end)
				ADDQ(field(job, jobLen), end)
				VEXTRACTI64X2(operand.U8(i), sum, mem(end, -tagLen))
				MOVB(operand.U8(1), field(job, jobOK))
			})
		}
		return list
	}
	add(func() { VPTESTNMQ(sum, sum, flagK) })
	add(func() {
		equal, half := smallC, smallA
		KMOVB(flagK, equal.As32())
		MOVL(equal.As32(), half.As32())
		SHRL(operand.U8(1), half.As32())
		ANDL(half.As32(), equal.As32()) // bit 2i: both halves of tag i are equal
		for i := range wide {
			s.at(group, i-wide, smallA)
			BTL(operand.U8(2*i), equal.As32())
			SETCS(field(smallA, jobOK))
		}
	})
	return list
}
