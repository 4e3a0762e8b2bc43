package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// wide is how many packets a small kernel takes at once. One alone would wait
// for each instruction; and four sums of GHASH share one reduction.
const wide = 4

// small is the kernel for packets of up to so many blocks, in fours. Three
// fours are at work at a time: one in AES; the one before in GHASH, woven into
// that; and of the next the jobs are looked up and checked.
type small struct {
	seal      bool
	rounds    int
	blocks    int // 4, 5 or 8: a register, one and a quarter, or two
	keys, ptr [wide]reg.GPPhysical
	aes       [wide][]reg.VecPhysical // counter blocks, then key stream
	cipher    [wide][]reg.VecPhysical // ciphertext with its bytes reversed
	key       [2]reg.VecPhysical      // round keys
	pool      []reg.VecPhysical       // what hash may use, and text before it
	mask      reg.VecPhysical         // a lane a packet: E(K, J0), to open with the tag added
	power     reg.VecPhysical         // a lane a packet: H
	bytesK    [wide]reg.OpmaskPhysical

	// In memory is what the general registers have no room for, and what changes
	// from a packet to a lane. There is as little as can be, because the
	// processor's store queue bounds how far it looks ahead.
	nextKey     [wide]operand.Mem // of the four that is looked up
	firstPower  [wide]operand.Mem // of the four in GHASH
	lengths     operand.Mem       // of the four in GHASH, a lane a packet; in the third byte what ESN adds to the AAD
	left, suite operand.Mem
}

// Registers of the small kernels. What is woven keeps nothing in the first two
// from one step to the next.
var (
	smallA = reg.RAX
	smallC = reg.RCX
	ahead  = reg.RBX // the place in group of the four that is looked up
	unfit  = reg.RDX // not 0 if one of those is
	textK  = reg.K5  // quadwords of a packet's first register but the header
	flagK  = reg.K6
)

const laneLen = wide * blockLen

// at loads the offset of job i of the four at a place in group.
func (s *small) at(place reg.Register, i int, job reg.GPPhysical) {
	MOVWLZX(mem(place, 2*i), job.As32())
}

func small512(seal bool, rounds, blocks int) {
	z := []reg.VecPhysical{
		reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
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
	s.key, s.mask, s.power = [2]reg.VecPhysical(take(2)), take(1)[0], take(1)[0]
	s.pool = z

	TEXT(kernel(seal, rounds, label("vaes512of%d", blocks)), 4, "func(jobs *byte, group *byte, n int, suite *byte) int") // NOSPLIT
	s.frame()
	s.enter()
	Label("loop")
	s.counters()
	weave(s.encrypt(), merge(s.hash(), s.lookup()))
	s.text()
	SUBQ(operand.U8(wide), s.left)
	JEQ(operand.LabelRef("last"))
	TESTQ(unfit, unfit)
	JEQ(operand.LabelRef("loop"))
	Label("last")
	ADDQ(operand.U8(2*wide), group)
	emit(s.hash())
	VZEROUPPER()
	Label("none")
	done := reg.RAX
	Load(Param("n"), done)
	SUBQ(s.left, done)
	Store(done, ReturnIndex(0))
	RET()
	for i := range wide {
		s.esn(i)
	}
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

// frame lays out what is in memory.
func (s *small) frame() {
	local := AllocLocal(laneLen + 8*(2*wide+1))
	s.lengths = local
	slots := []*operand.Mem{&s.left}
	for i := range wide {
		slots = append(slots, &s.nextKey[i], &s.firstPower[i])
	}
	for i, m := range slots {
		*m = local.Offset(laneLen + 8*i)
	}
	s.suite = operand.NewParamAddr("suite", 24)
}

// enter looks the first four up. There is none in GHASH yet: in its place are
// zeros, and its outcome goes to the first four, which overwrite it.
func (s *small) enter() {
	Load(Param("jobs"), jobs)
	Load(Param("group"), group)
	ADDQ(operand.U8(2*wide), group) // before it are the first four again
	Load(Param("n"), smallA)
	MOVQ(smallA, s.left)
	MOVQ(group, ahead)
	XORL(unfit.As32(), unfit.As32())
	for i := range wide {
		s.check(i)
	}
	TESTQ(unfit, unfit)
	JNE(operand.LabelRef("none"))
	MOVL(operand.U32(0xfc), smallA.As32())
	KMOVW(smallA.As32(), textK)
	LEAQ(counters, smallA)
	for i := range wide {
		MOVQ(smallA, s.firstPower[i])
		for _, c := range s.cipher[i] {
			VPXORQ(c, c, c)
		}
	}
}

// lookup finds the next four jobs. After the last four it finds those again.
func (s *small) lookup() []step {
	list := []step{func() {
		LEAQ(mem(group, 2*wide), smallA)
		CMPQ(s.left, operand.U8(wide))
		CMOVQHI(smallA, ahead)
	}}
	for i := range wide {
		list = append(list, func() { s.check(i) })
	}
	return list
}

// check looks job i of the next four up, and tells whether it has a living key
// of the suite and a packet of a length for this kernel.
func (s *small) check(i int) {
	job, length, key := smallA, smallC, smallC
	least := 4*(s.size()-1)*blockLen + 4 // without ICV
	if s.size() == 1 {
		least += blockLen
	}
	s.at(ahead, i, job)
	ADDQ(jobs, job)
	MOVQ(operand.U32(least+tagLen-1), length)
	SUBQ(mem(job, jobLen), length)
	RORQ(operand.U8(2), length) // the complement of how many words there are above the least
	CMPQ(length, operand.I8(^((s.blocks*blockLen - least) / 4)))
	ADCQ(operand.I8(0), unfit)
	MOVQ(mem(job, jobKey), key)
	TESTQ(key, key)
	CMOVQEQ(job, key) // without a key, the job passes for one whose suite is nil
	MOVQ(mem(key, keyGCM), smallA)
	MOVQ(smallA, s.nextKey[i])
	CMPQ(smallA, operand.U8(1))
	ADCQ(operand.I8(0), unfit)
	MOVQ(mem(key, keySuite), smallC)
	XORQ(s.suite, smallC)
	ORQ(smallC, unfit)
}

// counters goes on to the next four and makes their counter blocks. To seal, it
// writes the IV: the sequence number, high half first.
func (s *small) counters() {
	MOVQ(ahead, group)
	for i, a := range s.aes {
		key, ptr, x := s.keys[i], s.ptr[i], a[0].AsX()
		s.at(group, i, smallA)
		MOVQ(field(smallA, jobPkt), ptr)
		MOVQ(field(smallA, jobLen), smallC)
		if s.seal {
			MOVL(field(smallA, jobSeqHi), smallA.As32())
			MOVL(mem(ptr, 4), key.As32())
			BSWAPL(smallA.As32())
			SHLQ(operand.U8(32), key)
			ORQ(key, smallA)
			MOVQ(smallA, mem(ptr, 8))
			VMOVQ(smallA, x)
		} else {
			VMOVQ(mem(ptr, 8), x)
		}
		MOVQ(s.nextKey[i], key)
		VPSLLDQ(operand.U8(4), x, x)
		VPXORQ(roundKey(key, 0), x, x)
		VSHUFI64X2(operand.U8(0), s.stream(0, a[0]), s.stream(0, a[0]), s.stream(0, a[0]))
		for v := len(a) - 1; v >= 0; v-- {
			at := vecLen * v
			if s.halves() {
				at = vecLen / 2 * v
			}
			VPXORQ(counters.Offset(at), s.stream(v, a[0]), s.stream(v, a[v]))
		}
		SUBQ(operand.U8(tagLen+vecLen*(s.size()-1)), smallC)
		BZHIQ(smallC, ones, smallC)
		KMOVQ(smallC, s.bytesK[i])
	}
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
		for v := range s.size() {
			if at := mem(s.ptr[i], vecLen*v); v == s.size()-1 {
				VMOVDQU8_Z(at, s.bytesK[i], in(i, v))
			} else {
				VMOVDQU64(at, in(i, v))
			}
		}
		s.lanes(i)
	}
	for i := range wide {
		if a := s.aes[i]; s.halves() {
			VINSERTI64X4(operand.U8(1), a[1].AsY(), a[0], a[0])
		}
		for v := range s.size() {
			s.crypt(i, v, s.part(v, s.aes[i][v]), in(i, v))
		}
		s.at(group, i, smallA)
		CMPB(field(smallA, jobESN), operand.U8(0))
		JNE(operand.LabelRef(label("esn%d", i)))
		Label(label("aad%d", i))
	}
}

// lanes leaves all of packet i that hash takes but ciphertext.
func (s *small) lanes(i int) {
	length, mask := smallC, s.aes[i][0].AsX()
	s.at(group, i, smallA)
	MOVQ(field(smallA, jobLen), length)
	if !s.seal {
		x := s.key[0].AsX()
		VPXORQ(operand.Mem{Base: s.ptr[i], Index: length, Scale: 1, Disp: -tagLen}, mask, x)
		mask = x
	}
	h := mem(s.keys[i], keyPowers+blockLen*(powers-1))
	masks, hs := s.mask, s.power
	if i >= wide/2 { // the upper half of a register is filled by itself: that takes half the time
		masks, hs = s.pool[len(s.pool)-1], s.pool[len(s.pool)-2]
	}
	if i%2 == 0 {
		VMOVDQA64(mask, masks.AsX())
		VMOVDQU64(h, hs.AsX())
	} else {
		VINSERTI64X2(operand.U8(1), mask, masks.AsY(), masks.AsY())
		VINSERTI64X2(operand.U8(1), h, hs.AsY(), hs.AsY())
	}
	if i == wide-1 {
		VINSERTI64X4(operand.U8(1), masks.AsY(), s.mask, s.mask)
		VINSERTI64X4(operand.U8(1), hs.AsY(), s.power, s.power)
	}
	MOVQ(length, s.lengths.Offset(blockLen*i))
	NEGQ(length)
	ANDQ(operand.I8(-blockLen), length) // blocks, of which one for the tag: there is one for the lengths
	LEAQ(operand.Mem{Base: s.keys[i], Index: length, Scale: 1, Disp: keyPowers + blockLen*powers}, smallA)
	MOVQ(smallA, s.firstPower[i])
}

// crypt adds key stream a to text c, register v of packet i. Block 0 is the
// header: it stays in the packet, and for GHASH it becomes the AAD.
func (s *small) crypt(i, v int, a, c reg.VecPhysical) {
	at, k, order := mem(s.ptr[i], vecLen*v), s.bytesK[i], reverse
	last := v == s.size()-1
	to := s.part(v, s.cipher[i][v])
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
	if last {
		VMOVDQU8(c, k, at)
	} else {
		VMOVDQU64(c, at)
	}
	if s.seal {
		if last {
			VMOVDQU8_Z(c, k, c)
		}
		VPSHUFB(order, c, to)
	}
}

// esn makes block 0 SPI | high half | low half of the sequence number (RFC
// 4106, section 5), bytes reversed, of SPI | low half.
func (s *small) esn(i int) {
	Label(label("esn%d", i))
	a, x := s.cipher[i][0], s.key[0].AsX()
	VPSHUFD(operand.U8(3<<6|2<<4|2<<2|0), a.AsX(), x)
	VPINSRD(operand.U8(2), field(smallA, jobSeqHi), x, x)
	VINSERTI64X2(operand.U8(0), x, a, a)
	MOVB(operand.U8(4), s.lengths.Offset(blockLen*i+2))
	JMP(operand.LabelRef(label("aad%d", i)))
}

// hash multiplies the packets' blocks and finishes the packets. Ciphertext and
// powers of H are brought to a lane a packet, so that the four sums are in the
// lanes of one.
func (s *small) hash() (list []step) {
	add := func(f step) { list = append(list, f) }
	free := s.pool
	low, mid, high := free[0], free[1], free[2]
	free = free[3:]
	p := newProduct(low, mid, high)
	for v := range s.size() {
		var h, c [wide]reg.VecPhysical
		for i := range wide {
			h[i], c[i] = s.part(v, free[i]), s.part(v, s.cipher[i][v])
			add(func() { MOVQ(s.firstPower[i], smallA); VMOVDQU64(mem(smallA, vecLen*v), h[i]) })
		}
		t := free[wide : 2*wide]
		n := wide
		if s.part(v, low) != low {
			n = 1
		}
		list = append(list, transpose(h, t, n)...)
		list = append(list, transpose(c, t, n)...)
		p.free = append(append(p.free, t...), free[2*wide:]...)
		for j := range n {
			list = append(list, p.schoolbook(s.cipher[j][v], free[j])...)
			p.free = append(p.free, s.cipher[j][v])
		}
		list = append(list, p.flush()...)
		p.free = nil
	}
	p.free = free
	l := p.take()
	add(func() { VMOVDQU64(s.lengths, l) })
	add(func() { VPSHUFB(spread, l, l) })
	add(func() { VPSLLQ(operand.U8(3), l, l) })
	add(func() { VPADDQ(toBits, l, l) })
	list = append(list, p.schoolbook(l, s.power)...)
	list = append(list, p.reduce()...)
	return append(list, s.finish(high)...)
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
