package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// half is the kernel for AVX2, with half as many registers of half the size
// and no masks. Round keys and powers are operands in memory, and so is the
// ciphertext that GHASH takes. The text is taken alone: J0 and the AAD have
// steps of their own.
type half struct {
	seal      bool
	rounds    int
	aes       [8]reg.VecPhysical
	low       reg.VecPhysical // GHASH's sum, as in product
	mid       reg.VecPhysical
	high      reg.VecPhysical
	t0, t1, x reg.VecPhysical
	counter   reg.VecPhysical // the next two blocks' counters, not swapped
	key       reg.VecPhysical // of a round

	mask, stream operand.Mem // E(K, J0) and key stream
	y            operand.Mem // what is to be added to the next block for GHASH
}

const (
	halfLen  = 32
	groupLen = flight * vecLen // 16 blocks, as in stream
)

func stream256(seal bool, rounds int) {
	s := &half{
		seal: seal, rounds: rounds,
		aes: [8]reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7},
		low: reg.Y8, mid: reg.Y9, high: reg.Y10, t0: reg.Y11, t1: reg.Y12, x: reg.Y13, counter: reg.Y14, key: reg.Y15,
	}
	TEXT(kernel(seal, rounds, "vaes256"), 4, "func(jobs *byte, group *byte, n int)") // NOSPLIT
	const size = groupLen + 2*halfLen
	local := AllocLocal(size)
	s.stream, s.mask, s.y = local, local.Offset(groupLen), local.Offset(groupLen+halfLen)
	Load(Param("jobs"), jobs)
	Load(Param("group"), group)
	Load(Param("n"), left)
	Label("packet")
	s.begin()
	s.groups()
	s.tail()
	s.finish()
	DECQ(left)
	JNZ(operand.LabelRef("packet"))
	VPXOR(s.t0, s.t0, s.t0) // the stack outlives the call
	for at := 0; at < size; at += halfLen {
		VMOVDQU(s.t0, local.Offset(at))
	}
	VZEROALL()
	RET()
}

// begin loads the job, encrypts J0, and takes the AAD into GHASH.
func (s *half) begin() {
	MOVWLZX(mem(group, 0), job.As32())
	ADDQ(operand.U8(2), group)
	ADDQ(jobs, job)
	MOVQ(mem(job, jobKey), key)
	MOVQ(mem(job, jobPkt), ptr)
	MOVQ(mem(job, jobLen), end)
	MOVQ(mem(key, keyGCM), key)
	prefetch(s.rounds)
	LEAQ(operand.Mem{Base: end, Disp: -blockLen - tagLen}, count) // bytes of text
	LEAQ(operand.Mem{Base: ptr, Index: end, Scale: 1, Disp: -tagLen}, end)

	nonce, j0 := s.counter.AsX(), s.aes[0].AsX()
	VMOVDQU(mem(ptr, 4), nonce)
	VPAND(ivOnly, nonce, nonce)
	VPSHUFB(swapLast, nonce, j0)
	VPXOR(one, j0, j0)
	VPXOR(roundKey(key, 0), j0, j0)
	for r := 1; r < s.rounds; r++ {
		VAESENC(roundKey(key, r), j0, j0)
	}
	VAESENCLAST(roundKey(key, s.rounds), j0, j0)
	VMOVDQU(j0, s.mask)
	VINSERTI128(operand.U8(1), nonce, s.counter, s.counter)
	VPADDD(twoThree, s.counter, s.counter)

	aad := s.x.AsX()
	VMOVDQU(mem(ptr, 0), aad)
	VPSHUFB(reverse, aad, aad)
	VPAND(aadOnly, aad, aad)
	CMPB(mem(job, jobESN), operand.U8(0))
	JEQ(operand.LabelRef("aad"))
	VPSHUFD(operand.U8(3<<6|2<<4|2<<2|0), aad, aad) // SPI | high half | low half (RFC 4106, section 5)
	VPINSRD(operand.U8(2), mem(job, jobSeqHi), aad, aad)
	Label("aad")
	s.clear()
	emit(s.multiply(power(1), s.x))
	s.reduce()

	ADDQ(operand.U8(blockLen), ptr)
	LEAQ(mem(count, blockLen-1), blocks)
	SHRQ(operand.U8(4), blocks)
	INCQ(blocks) // for the lengths
	stretch("groups")
	Label("groups")
}

// groups takes all whole groups. To open, a group is in GHASH and AES at the
// same time; to seal, the group before is in GHASH.
func (s *half) groups() {
	CMPQ(count, operand.U32(groupLen))
	JB(operand.LabelRef("tail"))
	at := 0
	if s.seal {
		at = -groupLen
		emit(s.encrypt())
		s.text()
		SUBQ(operand.U32(groupLen), count)
		CMPQ(count, operand.U32(groupLen))
		JB(operand.LabelRef("last"))
	}
	Label("loop")
	weave(s.encrypt(), s.hash(at))
	s.text()
	s.next("loop")
	SUBQ(operand.U32(groupLen), count)
	CMPQ(count, operand.U32(groupLen))
	JAE(operand.LabelRef("loop"))
	if s.seal {
		Label("last")
		emit(s.hash(at))
		s.next("last")
	}
}

// encrypt makes eight registers of key stream.
func (s *half) encrypt() (list []step) {
	add := func(f step) { list = append(list, f) }
	add(func() { VBROADCASTI128(roundKey(key, 0), s.key) })
	for _, a := range s.aes {
		add(func() { VPSHUFB(swapLast, s.counter, a) })
		add(func() { VPADDD(two, s.counter, s.counter) })
		add(func() { VPXOR(s.key, a, a) })
	}
	for r := 1; r <= s.rounds; r++ {
		add(func() { VBROADCASTI128(roundKey(key, r), s.key) })
		for _, a := range s.aes {
			add(func() {
				if r < s.rounds {
					VAESENC(s.key, a, a)
				} else {
					VAESENCLAST(s.key, a, a)
				}
			})
		}
	}
	return list
}

// text adds the key stream to a group and goes on to the next.
func (s *half) text() {
	for i, a := range s.aes {
		VPXOR(mem(ptr, halfLen*i), a, a)
		VMOVDQU(a, mem(ptr, halfLen*i))
	}
	ADDQ(operand.U32(groupLen), ptr)
}

// hash takes the group at an offset from ptr into the sum.
func (s *half) hash(at int) (list []step) {
	for i := range s.aes {
		list = append(list,
			func() { VMOVDQU(mem(ptr, at+halfLen*i), s.x) },
			func() { VPSHUFB(reverse, s.x, s.x) },
		)
		if i == 0 {
			list = append(list, s.addY()...)
		}
		list = append(list, s.multiply(mem(powerP, halfLen*i), s.x)...)
	}
	return list
}

// addY adds y to x; then there is nothing to add until a reduction.
func (s *half) addY() []step {
	return []step{
		func() { VPXOR(s.y, s.x, s.x) },
		func() { VPXOR(s.t0, s.t0, s.t0) },
		func() { VMOVDQU(s.t0, s.y) },
	}
}

// multiply adds x times the power at p to the sum.
func (s *half) multiply(p operand.Mem, x reg.VecPhysical) []step {
	return []step{
		func() { VPCLMULQDQ(operand.U8(0x01), p, x, s.t0) },
		func() { VPCLMULQDQ(operand.U8(0x10), p, x, s.t1) },
		func() { VPXOR(s.t0, s.mid, s.mid) },
		func() { VPXOR(s.t1, s.mid, s.mid) },
		func() { VPCLMULQDQ(operand.U8(0x00), p, x, s.t0) },
		func() { VPCLMULQDQ(operand.U8(0x11), p, x, s.t1) },
		func() { VPXOR(s.t0, s.low, s.low) },
		func() { VPXOR(s.t1, s.high, s.high) },
	}
}

func (s *half) clear() {
	VPXOR(s.low, s.low, s.low)
	VPXOR(s.mid, s.mid, s.mid)
	VPXOR(s.high, s.high, s.high)
}

// reduce moves the sum, brought back to 128 bits, to y.
func (s *half) reduce() {
	VPCLMULQDQ(operand.U8(0x10), poly, s.low, s.t0)
	VPSHUFD(operand.U8(0x4e), s.low, s.low)
	VPXOR(s.t0, s.mid, s.mid)
	VPXOR(s.low, s.mid, s.mid)
	VPCLMULQDQ(operand.U8(0x10), poly, s.mid, s.t0)
	VPSHUFD(operand.U8(0x4e), s.mid, s.mid)
	VPXOR(s.t0, s.high, s.high)
	VPXOR(s.mid, s.high, s.high)
	VEXTRACTI128(operand.U8(1), s.high, s.t0.AsX())
	VPXOR(s.high.AsX(), s.t0.AsX(), s.t0.AsX())
	VMOVDQU(s.t0, s.y)
	s.clear()
}

// next takes the powers on by a group; where they end, the sum is reduced.
func (s *half) next(name string) {
	ADDQ(operand.U32(groupLen), powerP)
	LEAQ(mem(key, keyPowers+blockLen*powers), reg.RAX)
	CMPQ(powerP, reg.RAX)
	JNE(operand.LabelRef("next" + name))
	s.reduce()
	stretch("next" + name)
	Label("next" + name)
}

// tail takes what is less than a group. Text is a multiple of four bytes.
func (s *half) tail() {
	Label("tail")
	TESTQ(count, count)
	JEQ(operand.LabelRef("lengths"))
	emit(s.encrypt())
	for i, a := range s.aes {
		VMOVDQU(a, s.stream.Offset(halfLen*i))
	}
	at := reg.RBX
	LEAQ(s.stream, at)
	Label("whole")
	CMPQ(count, operand.U8(halfLen))
	JB(operand.LabelRef("part"))
	VMOVDQU(mem(ptr, 0), s.x)
	VPXOR(mem(at, 0), s.x, s.aes[0])
	VMOVDQU(s.aes[0], mem(ptr, 0))
	s.take()
	ADDQ(operand.U8(halfLen), at)
	ADDQ(operand.U8(halfLen), ptr)
	SUBQ(operand.U8(halfLen), count)
	JMP(operand.LabelRef("whole"))

	Label("part")
	TESTQ(count, count)
	JEQ(operand.LabelRef("lengths"))
	words := s.aes[1]
	SHRQ(operand.U8(2), count)
	VMOVD(count.As32(), words.AsX())
	VPBROADCASTD(words.AsX(), words)
	VPCMPGTD(ordinals, words, words)
	VPMASKMOVD(mem(ptr, 0), words, s.x)
	VPXOR(mem(at, 0), s.x, s.aes[0])
	VPMASKMOVD(s.aes[0], words, mem(ptr, 0))
	VPAND(words, s.aes[0], s.aes[0])
	s.take()
}

// take takes the two blocks in x, to seal those in the first register of aes,
// into the sum.
func (s *half) take() {
	if s.seal {
		VMOVDQA(s.aes[0], s.x)
	}
	VPSHUFB(reverse, s.x, s.x)
	emit(s.addY())
	emit(s.multiply(mem(powerP, 0), s.x))
	ADDQ(operand.U8(halfLen), powerP)
}

// finish takes in the lengths, and writes or compares the tag.
func (s *half) finish() {
	Label("lengths")
	x, bits := s.x.AsX(), reg.RAX
	MOVQ(mem(job, jobLen), bits)
	SUBQ(operand.U8(blockLen+tagLen), bits)
	SHLQ(operand.U8(3), bits)
	VMOVQ(bits, x)
	MOVBLZX(mem(job, jobESN), bits.As32())
	SHLL(operand.U8(5), bits.As32())
	ADDL(operand.U8(64), bits.As32())
	VPINSRQ(operand.U8(1), bits, x, x)
	emit(s.addY())
	emit(s.multiply(power(1), s.x)) // its upper half is multiplied by zero
	s.reduce()
	tag := s.t0.AsX() // y
	VPSHUFB(reverse, tag, tag)
	VPXOR(s.mask, tag, tag)
	if s.seal {
		VMOVDQU(tag, mem(end, 0))
		MOVB(operand.U8(1), mem(job, jobOK))
	} else {
		VPXOR(mem(end, 0), tag, tag)
		VPTEST(tag, tag)
		SETEQ(mem(job, jobOK))
	}
}

var (
	swapLast = table("swapLast", repeat(2, 0x03020100, 0x07060504, 0x0b0a0908, 0x0c0d0e0f)...) // a block's counter
	ivOnly   = table("ivOnly", 0, 0xffffffff, 0xffffffff, 0)                                   // of the nonce
	aadOnly  = table("aadOnly", 0, 0, 0xffffffff, 0xffffffff)                                  // of block 0, reversed
	one      = table("one", 0, 0, 0, 1<<24)
	two      = table("two", repeat(2, 0, 0, 0, 2)...)
	twoThree = table("twoThree", 0, 0, 0, 2, 0, 0, 0, 3)
	ordinals = table("ordinals", 0, 1, 2, 3, 4, 5, 6, 7)
)
