package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	vecLen = 64 // bytes of a register
	flight = 4  // registers in flight: as many as VAESENC takes cycles
)

// stream is the kernel that takes packets one after the other, each in groups
// of four registers. The GHASH of a group is woven into the AES of the next.
type stream struct {
	seal    bool
	rounds  int
	name    string
	keys    []reg.VecPhysical       // round keys
	aes     [flight]reg.VecPhysical // counter blocks, then text
	cipher  [flight]reg.VecPhysical // the last group's ciphertext for GHASH, bytes reversed
	sum     *product                // of the last group
	counter reg.VecPhysical         // the next register's counter blocks, not yet swapped
	reverse reg.VecPhysical
	aad     reg.VecPhysical
	lengths reg.VecPhysical
	mask    reg.VecPhysical // E(K, J0), which masks the tag
	t       reg.VecPhysical
}

// Masks of the packet's last register: its bytes, and the lane for the lengths.
var (
	bytesK = reg.K1
	lastK  = reg.K2
)

func stream512(seal bool, rounds int) {
	s := &stream{
		seal: seal, rounds: rounds, name: label("gcm%s%dvaes512", map[bool]string{true: "Seal", false: "Open"}[seal], 32*(rounds-6)),
		aes:     [flight]reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3},
		cipher:  [flight]reg.VecPhysical{reg.Z4, reg.Z5, reg.Z6, reg.Z7},
		sum:     &product{low: reg.Z8, mid: reg.Z9, high: reg.Z10, t0: reg.Z11, t1: reg.Z12},
		counter: reg.Z13, reverse: reg.Z14, lengths: reg.Z15, mask: reg.X16,
	}
	s.t, s.aad = s.sum.t0, s.sum.t1
	for r := range rounds + 1 {
		s.keys = append(s.keys, []reg.VecPhysical{
			reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24,
			reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
		}[r])
	}
	TEXT(s.name, 4, "func(jobs *byte, group *byte, n int)") // NOSPLIT
	Load(Param("jobs"), jobs)
	Load(Param("group"), group)
	Load(Param("n"), left)
	VMOVDQU64(reverse, s.reverse)
	Label("packet")
	s.begin()
	s.blocks()
	s.finish()
	VZEROUPPER()
	RET()
}

// begin loads the job and makes its counter blocks, AAD and lengths.
func (s *stream) begin() {
	header, iv, hi := reg.RAX, reg.RBX, reg.RCX
	MOVBLZX(mem(group, 0), job.As32())
	INCQ(group)
	LEAQ(operand.Mem{Base: job, Index: job, Scale: 4}, job)
	LEAQ(operand.Mem{Base: jobs, Index: job, Scale: 8}, job)
	MOVQ(mem(job, jobKey), key)
	MOVQ(mem(job, jobPkt), ptr)
	MOVQ(mem(job, jobLen), end)
	MOVQ(mem(key, keyGCM), key)
	for r, k := range s.keys {
		VBROADCASTI32X4(mem(key, keyRounds+blockLen*r), k)
	}
	SUBQ(operand.U8(tagLen), end) // the stream's length for now
	MOVQ(mem(ptr, 0), header)
	if s.seal { // the IV is the sequence number
		MOVL(mem(job, jobSeqHi), iv.As32())
		BSWAPL(iv.As32())
		MOVQ(header, hi)
		SHRQ(operand.U8(32), hi)
		SHLQ(operand.U8(32), hi)
		ORQ(hi, iv)
	} else {
		MOVQ(mem(ptr, 8), iv)
	}
	// Block 0 as the packet holds it, to be written back.
	VMOVQ(header, s.mask)
	VPINSRQ(operand.U8(1), iv, s.mask, s.mask)
	// Salt and IV.
	MOVL(mem(key, keySalt), hi.As32())
	MOVQ(iv, powerP)
	SHLQ(operand.U8(32), powerP)
	ORQ(hi, powerP)
	SHRQ(operand.U8(32), iv)
	VMOVQ(powerP, s.counter.AsX())
	VPINSRQ(operand.U8(1), iv, s.counter.AsX(), s.counter.AsX())
	VSHUFI64X2(operand.U8(0), s.counter, s.counter, s.counter)
	VPADDD(first, s.counter, s.counter)
	s.authenticated(header, iv, hi)
	s.geometry()
}

// authenticated makes the AAD, SPI | sequence number or with ESN SPI | high
// half | low half (RFC 4106, section 5), and the block of lengths in bits, both
// with their bytes reversed.
func (s *stream) authenticated(header, low, high reg.GPPhysical) {
	BSWAPQ(header)
	MOVQ(header, high)
	SHRQ(operand.U8(32), high)
	SHLQ(operand.U8(32), high)
	MOVL(mem(job, jobSeqHi), low.As32())
	ORQ(low, high)
	MOVQ(header, low)
	SHLQ(operand.U8(32), low)
	MOVBLZX(mem(job, jobESN), powerP.As32())
	MOVL(powerP.As32(), count.As32())
	NEGQ(count) // all ones with ESN
	ANDQ(count, low)
	TESTL(powerP.As32(), powerP.As32())
	CMOVQEQ(header, high)
	VMOVQ(low, s.aad.AsX())
	VPINSRQ(operand.U8(1), high, s.aad.AsX(), s.aad.AsX())

	SHLL(operand.U8(5), powerP.As32())
	ADDL(operand.U8(64), powerP.As32())
	LEAQ(operand.Mem{Base: end, Index: end, Scale: 1, Disp: -2 * blockLen}, high)
	SHLQ(operand.U8(2), high)
	VMOVQ(high, s.lengths.AsX())
	VPINSRQ(operand.U8(1), powerP, s.lengths.AsX(), s.lengths.AsX())
	VSHUFI64X2(operand.U8(0), s.lengths, s.lengths, s.lengths)
}

// geometry counts registers, and blocks of the last.
func (s *stream) geometry() {
	bytes, blocks, one := reg.RAX, reg.RBX, reg.RCX
	LEAQ(mem(end, -1), bytes)
	MOVQ(bytes, count)
	SHRQ(operand.U8(6), count)
	INCQ(count)
	ANDL(operand.U8(vecLen-1), bytes.As32())
	MOVL(bytes.As32(), blocks.As32())
	INCL(bytes.As32()) // of the last register: 1 to 64
	SHRL(operand.U8(4), blocks.As32())
	INCL(blocks.As32()) // of the last register: 1 to 4
	MOVQ(operand.I32(-1), one)
	BZHIQ(bytes, one, one)
	KMOVQ(one, bytesK)
	LEAL(operand.Mem{Base: blocks, Index: blocks, Scale: 1}, bytes.As32())
	MOVL(operand.U32(3), one.As32())
	SHLXL(bytes.As32(), one.As32(), one.As32())
	MOVBLZX(one.As8(), one.As32()) // none if there are four: the lengths have a register of their own
	KMOVW(one.As32(), lastK)
	ADDQ(ptr, end)
	// The powers that the last register takes: the highest for its first block.
	SHLQ(operand.U8(4), blocks)
	LEAQ(mem(key, keyPowers+blockLen*(powers-1)), powerP)
	SUBQ(blocks, powerP)
}

// blocks en- or decrypts the packet and leaves in cipher what GHASH has not
// taken in yet: 1 to 4 registers; then it jumps to one of the ends.
func (s *stream) blocks() {
	CMPQ(count, operand.U8(flight))
	JA(operand.LabelRef("long"))
	s.dispatch("only")
	for n := 1; n <= flight; n++ {
		Label(label("only%d", n))
		emit(s.encrypt(n))
		emit(s.text(n, true, true))
		JMP(operand.LabelRef(label("tag%d", n)))
	}

	Label("long")
	emit(s.encrypt(flight))
	emit(s.text(flight, true, false))
	JMP(operand.LabelRef("check"))
	Label("loop")
	weave(s.encrypt(flight), s.hash(flight, s.powers))
	emit(s.text(flight, false, false))
	s.chain()
	Label("check")
	ADDQ(operand.U32(flight*vecLen), ptr)
	SUBQ(operand.U8(flight), count)
	CMPQ(count, operand.U8(flight))
	JA(operand.LabelRef("loop"))

	s.dispatch("last")
	for n := 1; n <= flight; n++ {
		Label(label("last%d", n))
		weave(s.encrypt(n), s.hash(flight, s.powers))
		emit(s.text(n, false, true))
		s.chain()
		if n != flight {
			JMP(operand.LabelRef(label("tag%d", n)))
		}
	}
	for n := flight; n > 0; n-- {
		Label(label("tag%d", n))
		s.tag(n)
		if n > 1 {
			JMP(operand.LabelRef("next"))
		}
	}
}

// dispatch jumps by count, 1 to 4.
func (s *stream) dispatch(prefix string) {
	CMPQ(count, operand.U8(2))
	JB(operand.LabelRef(prefix + "1"))
	JE(operand.LabelRef(prefix + "2"))
	CMPQ(count, operand.U8(3))
	JE(operand.LabelRef(prefix + "3"))
	JMP(operand.LabelRef(prefix + "4"))
}

// encrypt makes n registers of key stream.
func (s *stream) encrypt(n int) (list []step) {
	add := func(f step) { list = append(list, f) }
	for _, a := range s.aes[:n] {
		add(func() { VPSHUFB(swapLast, s.counter, a) })
		add(func() { VPADDD(four, s.counter, s.counter) })
		add(func() { VPXORQ(s.keys[0], a, a) })
	}
	for _, k := range s.keys[1:s.rounds] {
		for _, a := range s.aes[:n] {
			add(func() { VAESENC(k, a, a) })
		}
	}
	for _, a := range s.aes[:n] {
		add(func() { VAESENCLAST(s.keys[s.rounds], a, a) })
	}
	return list
}

// text adds the key stream to n registers of the packet, and puts the
// ciphertext into cipher. In the packet's first group block 0 is no text, in
// its last the last register may be short.
func (s *stream) text(n int, isFirst, isLast bool) (list []step) {
	add := func(f step) { list = append(list, f) }
	for i, a := range s.aes[:n] {
		c, at, short := s.cipher[i], mem(ptr, vecLen*i), isLast && i == n-1
		if isFirst && i == 0 {
			add(func() { VMOVDQA(a.AsX(), s.t.AsX()) })
		}
		add(func() {
			if short {
				VMOVDQU8_Z(at, bytesK, c)
			} else {
				VMOVDQU64(at, c)
			}
		})
		add(func() { VPXORQ(c, a, a) })
		if isFirst && i == 0 { // leave the header, write the IV
			add(func() { VINSERTI64X2(operand.U8(0), s.mask, a, a) })
			add(func() { VMOVDQA64(s.t.AsX(), s.mask) })
		}
		if !short {
			add(func() { VMOVDQU64(a, at) })
		} else {
			add(func() { VMOVDQU8(a, bytesK, at) })
		}
		switch {
		case s.seal && short:
			add(func() { VMOVDQU8_Z(a, bytesK, c) })
			add(func() { VPSHUFB(s.reverse, c, c) })
		case s.seal:
			add(func() { VPSHUFB(s.reverse, a, c) })
		default:
			add(func() { VPSHUFB(s.reverse, c, c) })
		}
		if isFirst && i == 0 {
			add(func() { VINSERTI64X2(operand.U8(0), s.aad.AsX(), c, c) })
		}
	}
	return list
}

// powers is where the powers of a whole group's register i are.
func (s *stream) powers(i int) operand.Op { return power(flight * (flight - i)) }

// hash multiplies and adds up n registers of ciphertext and reduces the sum.
func (s *stream) hash(n int, powers func(i int) operand.Op) (list []step) {
	for i := n - 1; i >= 0; i-- { // the first waits for the group before
		list = append(list, s.sum.add(s.cipher[i], powers(i))...)
	}
	return append(list, append(s.sum.reduce(), fold(s.sum.high, s.t)...)...)
}

// chain adds what hash made to the next group.
func (s *stream) chain() { VPXORQ(s.sum.high, s.cipher[0], s.cipher[0]) }

// tag takes in the packet's last n registers and the lengths, and writes or
// compares the tag.
func (s *stream) tag(n int) {
	last := s.cipher[n-1]
	VSHUFI64X2(operand.U8(0), s.lengths, s.lengths, lastK, last)
	if n > 1 {
		SUBQ(operand.U32(vecLen*(n-1)), powerP)
	}
	for i := range n {
		emit(s.sum.add(s.cipher[i], mem(powerP, vecLen*i)))
	}
	KTESTW(lastK, lastK)
	JNE(operand.LabelRef(label("reduce%d", n)))
	VMOVDQU(power(1), s.t.AsX())
	own := &product{low: s.aes[0], mid: s.aes[1], high: s.aes[2], t0: s.aes[3]}
	VMOVDQA64(s.lengths.AsX(), s.lengths.AsX())
	emit(own.add(s.lengths, s.t))
	VPXORQ(own.low, s.sum.low, s.sum.low)
	VPXORQ(own.mid, s.sum.mid, s.sum.mid)
	VPXORQ(own.high, s.sum.high, s.sum.high)
	Label(label("reduce%d", n))
	emit(s.sum.reduce())
	emit(fold(s.sum.high, s.t))
}

// finish makes the tag of GHASH's output.
func (s *stream) finish() {
	Label("next")
	x := s.sum.high.AsX()
	VPSHUFB(s.reverse.AsX(), x, x)
	VPXORQ(s.mask, x, x)
	if s.seal {
		VMOVDQU(x, mem(end, 0))
		MOVB(operand.U8(1), mem(job, jobOK))
	} else {
		VPXOR(mem(end, 0), x, x)
		VPTEST(x, x)
		SETEQ(mem(job, jobOK))
	}
	DECQ(left)
	JNZ(operand.LabelRef("packet"))
}
