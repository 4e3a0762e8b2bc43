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
	spare   []reg.VecPhysical       // what sum may use besides
	counter [2]reg.VecPhysical      // what the counters' low bytes are added to: the others, the fourth register of a group
	lengths reg.VecPhysical
	mask    reg.VecPhysical // E(K, J0), which masks the tag
	t       reg.VecPhysical
	esns    []string // what begins out of line

	// Of a packet whose end is woven into the next's first group.
	lastPower, tagAt, ended operand.Mem
}

// Masks of the packet's last register: its bytes, and the lane for the lengths.
var (
	bytesK = reg.K1
	lastK  = reg.K2
	carryK = reg.K3
)

func stream512(seal bool, rounds int) {
	s := &stream{
		seal: seal, rounds: rounds, name: kernel(seal, rounds, "vaes512"),
		aes:     [flight]reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3},
		cipher:  [flight]reg.VecPhysical{reg.Z4, reg.Z5, reg.Z6, reg.Z7},
		sum:     newProduct(reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z31),
		counter: [2]reg.VecPhysical{reg.Z13, reg.Z14}, lengths: reg.Z15, mask: reg.Z16,
		t: reg.Z11,
	}
	for r := range rounds + 1 {
		s.keys = append(s.keys, []reg.VecPhysical{
			s.counter[0], reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
			reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30,
		}[r])
	}
	s.spare = s.sum.free
	for _, sum := range []*sum{&s.sum.low, &s.sum.mid, &s.sum.high} {
		sum.begun = true
	}
	TEXT(s.name, 4, "func(jobs *byte, group *byte, n int)") // NOSPLIT
	Load(Param("jobs"), jobs)
	Load(Param("group"), group)
	Load(Param("n"), left)
	masks()
	local := AllocLocal(8 * 3)
	s.lastPower, s.tagAt, s.ended = local, local.Offset(8), local.Offset(16)
	Label("packet")
	s.begin("first")
	s.clear()
	s.crypt()
	s.end()
	VZEROUPPER()
	RET()
	s.onward()
	s.carry()
	for _, name := range s.esns {
		s.esn(name)
	}
}

// begin loads the job and makes its counter blocks and lengths.
func (s *stream) begin(name string) {
	MOVWLZX(mem(group, 0), job.As32())
	ADDQ(operand.U8(2), group)
	ADDQ(jobs, job)
	MOVQ(mem(job, jobKey), key)
	MOVQ(mem(job, jobPkt), ptr)
	MOVQ(mem(job, jobLen), end)
	MOVQ(mem(key, keyGCM), key)
	SUBQ(operand.U8(tagLen), end) // the stream's length, until ptr is added to it
	VBROADCASTI32X4_Z(mem(ptr, 4), ivK, s.counter[1])
	VBROADCASTI32X4(roundKey(key, 0), s.counter[0])
	VPXORQ(s.counter[1], s.counter[0], s.counter[0])
	VMOVDQA64(s.counter[0], s.counter[1])
	LEAQ(operand.Mem{Base: end, Disp: -blockLen}, reg.RAX)
	SHLQ(operand.U8(3), reg.RAX)
	VMOVQ(reg.RAX, s.lengths.AsX())
	VPORQ(aadBits, s.lengths.AsX(), s.lengths.AsX())
	prefetch(s.rounds)
	s.geometry(name)
}

// esn makes block 0 SPI | high half | low half of the sequence number (RFC
// 4106, section 5), bytes reversed, of SPI | low half.
func (s *stream) esn(name string) {
	Label(name)
	c := s.cipher[0]
	VPADDQ(esnBits, s.lengths.AsX(), s.lengths.AsX())
	VPSHUFD(operand.U8(3<<6|2<<4|2<<2|0), c.AsX(), s.t.AsX())
	VPINSRD(operand.U8(2), mem(job, jobSeqHi), s.t.AsX(), s.t.AsX())
	VINSERTI64X2(operand.U8(0), s.t.AsX(), c, c)
	JMP(operand.LabelRef("after" + name))
}

// geometry counts registers, and blocks of the last.
func (s *stream) geometry(name string) {
	bytes, inLast, one := reg.RAX, powerP, reg.RCX
	LEAQ(mem(end, -1), bytes)
	MOVQ(bytes, count)
	MOVQ(bytes, blocks)
	SHRQ(operand.U8(6), count)
	INCQ(count)
	SHRQ(operand.U8(4), blocks)
	ADDQ(operand.U8(2), blocks) // one of them for the lengths
	ANDL(operand.U8(vecLen-1), bytes.As32())
	MOVL(bytes.As32(), inLast.As32())
	INCL(bytes.As32()) // of the last register: 1 to 64
	SHRL(operand.U8(4), inLast.As32())
	MOVQ(operand.I32(-1), one)
	BZHIQ(bytes, one, one)
	KMOVQ(one, bytesK)
	LEAL(operand.Mem{Base: inLast, Index: inLast, Scale: 1}, bytes.As32())
	MOVL(operand.U32(3<<2), one.As32())
	SHLXL(bytes.As32(), one.As32(), one.As32())
	MOVBLZX(one.As8(), one.As32()) // none if there are four: the lengths have a register of their own
	KMOVW(one.As32(), lastK)
	ADDQ(ptr, end)
	LEAQ(counters, low)
	XORL(carry.As32(), carry.As32())
	stretch("powers" + name)
	Label("powers" + name)
}

// crypt en- or decrypts the packet and leaves in cipher what GHASH has not
// taken in yet: 1 to 4 registers; then it jumps to one of the ends.
func (s *stream) crypt() {
	CMPQ(count, operand.U8(flight))
	JA(operand.LabelRef("long"))
	s.dispatch("only")
	for n := 1; n <= flight; n++ {
		Label(label("only%d", n))
		emit(s.encrypt(n, true))
		emit(s.text(n, true, true))
		JMP(operand.LabelRef(label("tag%d", n)))
	}

	Label("long")
	emit(s.encrypt(flight, true))
	Label("begun")
	emit(s.text(flight, true, false))
	JMP(operand.LabelRef("check"))
	Label("loop")
	s.stitch(flight)
	emit(s.text(flight, false, false))
	s.next("check")
	ADDQ(operand.U32(flight*vecLen), ptr)
	ADDQ(operand.U32(flight*vecLen), low)
	LEAQ(counters.Offset(blockLen*(256-4*flight)), reg.RCX)
	CMPQ(low, reg.RCX)
	JAE(operand.LabelRef("carry"))
	Label("carried")
	SUBQ(operand.U8(flight), count)
	CMPQ(count, operand.U8(flight))
	JA(operand.LabelRef("loop"))

	s.dispatch("last")
	for n := 1; n <= flight; n++ {
		Label(label("last%d", n))
		s.stitch(n)
		emit(s.text(n, false, true))
		s.next(label("tag%d", n))
		s.tag(n)
	}
}

// carry is taken before each of the two groups about a carry into the upper
// bytes of the counter: only the last block of the first has it.
func (s *stream) carry() {
	change, lanes := reg.RCX, reg.RAX
	Label("carry")
	MOVL(carry.As32(), change.As32())
	LEAL(mem(carry, 256), lanes.As32())
	BSWAPL(change.As32())
	BSWAPL(lanes.As32())
	XORL(lanes.As32(), change.As32())
	LEAQ(counters.Offset(blockLen*256), lanes)
	CMPQ(low, lanes)
	JE(operand.LabelRef("all"))
	MOVL(operand.U32(0x8000), lanes.As32())
	KMOVW(lanes.As32(), carryK)
	VPBROADCASTD_Z(change.As32(), carryK, s.t)
	VPXORQ(s.t, s.counter[0], s.counter[1])
	JMP(operand.LabelRef("carried"))
	Label("all")
	MOVL(operand.U32(0x8888), lanes.As32())
	KMOVW(lanes.As32(), carryK)
	VPBROADCASTD_Z(change.As32(), carryK, s.t)
	VPXORQ(s.t, s.counter[0], s.counter[0])
	VMOVDQA64(s.counter[0], s.counter[1])
	ADDL(operand.U32(256), carry.As32())
	LEAQ(counters, low)
	JMP(operand.LabelRef("carried"))
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

// encrypt makes n registers of key stream. For the packet's first it loads the
// round keys on the way.
func (s *stream) encrypt(n int, isFirst bool) (list []step) {
	add := func(f step) { list = append(list, f) }
	for i, a := range s.aes[:n] {
		add(func() { VPXORQ(mem(low, vecLen*i), s.counter[i/(flight-1)], a) })
	}
	for r := 1; r <= s.rounds; r++ {
		k, round := s.keys[r], VAESENC
		if r == s.rounds {
			round = VAESENCLAST
		}
		if isFirst {
			add(func() { VBROADCASTI32X4(roundKey(key, r), k) })
		}
		for _, a := range s.aes[:n] {
			add(func() { round(k, a, a) })
		}
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
		header := isFirst && i == 0
		if header {
			add(func() { VMOVDQA64(a.AsX(), s.mask.AsX()) })
		}
		if short {
			add(func() { VMOVDQU8_Z(at, bytesK, c) })
		} else {
			add(func() { VMOVDQU64(at, c) })
		}
		add(func() { VPXORQ(c, a, a) })
		if header {
			add(func() { VINSERTI64X2(operand.U8(0), c.AsX(), a, a) })
		}
		if short {
			add(func() { VMOVDQU8(a, bytesK, at) })
		} else {
			add(func() { VMOVDQU64(a, at) })
		}
		from := c
		if s.seal {
			from = a
			if short {
				add(func() { VMOVDQU8_Z(a, bytesK, a) })
			}
		}
		if header {
			add(func() { VPSHUFB_Z(reverse, from, aadK, c) })
		} else {
			add(func() { VPSHUFB(reverse, from, c) })
		}
	}
	if isFirst {
		add(func() { s.aad(n, isLast) })
	}
	return list
}

// aad goes the way about by esn if it must.
func (s *stream) aad(n int, isLast bool) {
	name := label("esn%d%v", n, isLast)
	CMPB(mem(job, jobESN), operand.U8(0))
	JNE(operand.LabelRef(name))
	Label("after" + name)
	s.esns = append(s.esns, name)
}

// hash multiplies registers of ciphertext by the powers at p, and adds up.
func (s *stream) hash(ciphers []reg.VecPhysical, p reg.Register) (list []step) {
	for i, c := range ciphers {
		list = append(list, s.sum.add(c, mem(p, vecLen*i))...)
		s.sum.free = append(s.sum.free, c)
	}
	list = append(list, s.sum.flush()...)
	s.sum.free = s.spare
	return list
}

// clear makes the sum zero.
func (s *stream) clear() {
	for _, r := range []reg.VecPhysical{s.sum.low.reg, s.sum.mid.reg, s.sum.high.reg} {
		VPXORQ(r, r, r)
	}
}

// stitch weaves the last group's hash into n registers' AES. To seal, it begins
// later, because it waits for that group's text.
func (s *stream) stitch(n int) {
	const late = 5 // steps a register: the counter and four rounds
	steps := s.encrypt(n, false)
	if s.seal {
		emit(steps[:late*n])
		steps = steps[late*n:]
	}
	weave(steps, s.hash(s.cipher[:], powerP))
}

// next takes the powers on by a group. Where they end, the sum is reduced and
// added to the next group.
func (s *stream) next(name string) {
	ADDQ(operand.U32(flight*vecLen), powerP)
	LEAQ(mem(key, keyPowers+blockLen*powers), reg.RAX)
	CMPQ(powerP, reg.RAX)
	JNE(operand.LabelRef(name))
	emit(s.sum.reduce())
	emit(fold(s.sum.high.reg, s.t))
	VPXORQ(s.sum.high.reg, s.cipher[0], s.cipher[0])
	s.clear()
	stretch(name)
	Label(name)
}

// tag takes in all but the last of the packet's last n registers, and puts that
// one, with the lengths if it has room, where end expects it.
func (s *stream) tag(n int) {
	last := s.cipher[n-1]
	VSHUFI64X2(operand.U8(0), s.lengths, s.lengths, lastK, last)
	if n > 1 {
		emit(s.hash(s.cipher[:n-1], powerP))
		ADDQ(operand.U32(vecLen*(n-1)), powerP)
		VMOVDQA64(last, s.cipher[0])
	}
	JMP(operand.LabelRef("end"))
}

// end takes in the packet's last register and the lengths, and ends it. If
// another long packet follows, that begins meanwhile.
func (s *stream) end() {
	Label("end")
	CMPQ(left, operand.U8(1))
	JEQ(operand.LabelRef("alone"))
	MOVWLZX(mem(group, 0), reg.ECX)
	CMPQ(field(reg.RCX, jobLen), operand.U32(flight*vecLen+tagLen))
	JBE(operand.LabelRef("alone"))
	KTESTW(lastK, lastK)
	JNE(operand.LabelRef("onward"))

	Label("alone")
	p := s.sum
	emit(s.hash(s.cipher[:1], powerP))
	KTESTW(lastK, lastK)
	JNE(operand.LabelRef("reduce"))
	own := newProduct(s.aes[0], s.aes[1], s.aes[2], s.aes[3])
	emit(own.add(s.lengths, power(1))) // the other three powers are multiplied by zero
	emit(own.flush())
	VPXORQ(own.low.reg, p.low.reg, p.low.reg)
	VPXORQ(own.mid.reg, p.mid.reg, p.mid.reg)
	VPXORQ(own.high.reg, p.high.reg, p.high.reg)
	Label("reduce")
	emit(p.reduce())
	emit(fold(p.high.reg, s.t))
	emit(s.verdict(end, job))
	DECQ(left)
	JNZ(operand.LabelRef("packet"))
}

// onward begins the next packet, and weaves this one's end into its first group.
func (s *stream) onward() {
	Label("onward")
	MOVQ(powerP, s.lastPower)
	MOVQ(end, s.tagAt)
	MOVQ(job, s.ended)
	DECQ(left)
	s.begin("next")
	MOVQ(s.lastPower, reg.RAX)
	ends := append(s.hash(s.cipher[:1], reg.RAX), s.sum.reduce()...)
	ends = append(append(ends, fold(s.sum.high.reg, s.t)...), s.verdict(s.tagAt, s.ended)...)
	weave(s.encrypt(flight, true), ends)
	s.clear()
	JMP(operand.LabelRef("begun"))
}

// verdict makes the tag of GHASH's output, and writes or compares it.
func (s *stream) verdict(end, job operand.Op) []step {
	x, at := s.sum.high.reg.AsX(), reg.RCX
	list := []step{
		func() { VPSHUFB(reverse, x, x) },
		func() { VPXORQ(s.mask.AsX(), x, x) },
	}
	if s.seal {
		return append(list,
			func() { MOVQ(end, at); VMOVDQU(x, mem(at, 0)) },
			func() { MOVQ(job, at); MOVB(operand.U8(1), mem(at, jobOK)) },
		)
	}
	return append(list,
		func() { MOVQ(end, at); VPXOR(mem(at, 0), x, x) },
		func() { MOVQ(job, at); VPTEST(x, x); SETEQ(mem(at, jobOK)) },
	)
}
