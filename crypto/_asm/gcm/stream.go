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
	wait    int                     // how many rounds of a group hash lets pass: to seal, it waits for the text of the last
	counter [2]reg.VecPhysical      // what the counters' low bytes are added to: the others, the fourth register of a group
	lengths reg.VecPhysical
	mask    reg.VecPhysical // E(K, J0), which masks the tag
	t       reg.VecPhysical

	esns, carries []string // what begins out of line

	// Of a packet whose end is woven into the next's first group.
	lastPower, tagAt, ended operand.Mem
	// Room for kept sums of the powers' halves, with what aligns them.
	kept  operand.Mem
	lanes operand.Mem // of a sum that is folded
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
		t: reg.Z11, wait: 1,
	}
	if seal {
		s.wait = 5
	}
	for r := range rounds + 1 {
		s.keys = append(s.keys, []reg.VecPhysical{
			s.counter[0], reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
			reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30,
		}[r])
	}
	s.spare = s.sum.free
	for _, sum := range s.sum.sums() {
		sum.begun = true
	}
	TEXT(s.name, 4, "func(jobs *byte, group *byte, n int)") // NOSPLIT
	Load(Param("jobs"), jobs)
	Load(Param("group"), group)
	Load(Param("n"), left)
	masks()
	local := AllocLocal(8*3 + keptLen + vecLen)
	s.lastPower, s.tagAt, s.ended, s.kept = local, local.Offset(8), local.Offset(16), local.Offset(24)
	s.lanes = s.kept.Offset(keptLen)
	Label("packet")
	s.begin("first")
	s.clear()
	s.crypt()
	s.end()
	s.wipe()
	VZEROUPPER()
	RET()
	s.onward()
	for _, name := range s.carries {
		s.carry(name)
	}
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
		emit(s.first(n))
		s.firstText(n, true)
		JMP(operand.LabelRef(label("tag%d", n)))
	}

	Label("long")
	emit(s.first(flight))
	Label("begun")
	s.firstText(flight, false)
	s.keepRest()
	JMP(operand.LabelRef("afterkeep"))
	s.groups("keep", keep, "keep")
	s.groups("find", find, "find")
	Label("newpowers")
	stretch("powersreduce")
	Label("powersreduce")
	CMPQ(count, operand.U8(flight))
	JBE(operand.LabelRef("reducelast"))
	s.groups("reducenext", reduce, "find")
	Label("reducelast")
	s.dispatch("reduce")

	for n := 1; n <= flight; n++ {
		Label(label("last%d", n))
		s.group(n, true, forget)
		s.atEnd("fold")
		JMP(operand.LabelRef(label("tag%d", n)))
		Label(label("reduce%d", n))
		s.group(n, true, reduce)
		Label(label("tag%d", n))
		s.tag(n)
	}
	Label("fold")
	emit(s.reduce())
	s.clear()
	stretch("powersfold")
	Label("powersfold")
	s.dispatch("tag")
}

// groups takes whole groups. Where the stretch of powers ends, it goes on at
// newpowers; if more than a group is left, at next.
func (s *stream) groups(name string, how hashing, next string) {
	Label(name)
	s.group(flight, false, how)
	Label("after" + name)
	s.advance(name)
	if how != reduce { // a stretch of more than a group has just begun
		s.atEnd("newpowers")
	}
	CMPQ(count, operand.U8(flight))
	JA(operand.LabelRef(next))
	s.dispatch("last")
}

// atEnd goes on at name if the stretch of powers has ended.
func (s *stream) atEnd(name string) {
	LEAQ(mem(key, keyPowers+blockLen*powers), reg.RCX)
	CMPQ(powerP, reg.RCX)
	JEQ(operand.LabelRef(name))
}

// advance goes on to the next group.
func (s *stream) advance(name string) {
	ADDQ(operand.U32(flight*vecLen), ptr)
	ADDQ(operand.U32(flight*vecLen), low)
	LEAQ(counters.Offset(blockLen*(256-4*flight)), reg.RCX)
	CMPQ(low, reg.RCX)
	JAE(operand.LabelRef("carry" + name))
	Label("carried" + name)
	s.carries = append(s.carries, name)
	SUBQ(operand.U8(flight), count)
}

// carry is taken before each of the two groups about a carry into the upper
// bytes of the counter: only the last block of the first has it.
func (s *stream) carry(name string) {
	change, lanes := reg.RCX, keptAt // which is found again
	Label("carry" + name)
	MOVL(carry.As32(), change.As32())
	LEAL(mem(carry, 256), lanes.As32())
	BSWAPL(change.As32())
	BSWAPL(lanes.As32())
	XORL(lanes.As32(), change.As32())
	LEAQ(counters.Offset(blockLen*256), lanes)
	CMPQ(low, lanes)
	JE(operand.LabelRef("all" + name))
	MOVL(operand.U32(0x8000), lanes.As32())
	KMOVW(lanes.As32(), carryK)
	VPBROADCASTD_Z(change.As32(), carryK, s.t)
	VPXORQ(s.t, s.counter[0], s.counter[1])
	JMP(operand.LabelRef("found" + name))
	Label("all" + name)
	MOVL(operand.U32(0x8888), lanes.As32())
	KMOVW(lanes.As32(), carryK)
	VPBROADCASTD_Z(change.As32(), carryK, s.t)
	VPXORQ(s.t, s.counter[0], s.counter[0])
	VMOVDQA64(s.counter[0], s.counter[1])
	ADDL(operand.U32(256), carry.As32())
	LEAQ(counters, low)
	Label("found" + name)
	s.findKept()
	JMP(operand.LabelRef("carried" + name))
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

// first makes n registers of key stream, and loads the round keys on the way.
func (s *stream) first(n int) (list []step) {
	for i := range n {
		list = append(list, s.encrypt(i)[0])
	}
	for r := 1; r <= s.rounds; r++ {
		list = append(list, func() { VBROADCASTI32X4(roundKey(key, r), s.keys[r]) })
		for i := range n {
			list = append(list, s.encrypt(i)[r])
		}
	}
	return list
}

// firstText takes the text of those.
func (s *stream) firstText(n int, isLast bool) {
	for i := range n {
		s.text(i, i == 0, isLast && i == n-1)
	}
	s.aad(n, isLast)
}

// encrypt makes register i of key stream: its counters, and a step a round.
func (s *stream) encrypt(i int) (list []step) {
	a := s.aes[i]
	list = append(list, func() { VPXORQ(mem(low, vecLen*i), s.counter[i/(flight-1)], a) })
	for r := 1; r < s.rounds; r++ {
		list = append(list, func() { VAESENC(s.keys[r], a, a) })
	}
	return append(list, func() { VAESENCLAST(s.keys[s.rounds], a, a) })
}

// text adds the key stream to register i of a group, and puts the ciphertext
// into cipher. With the header, block 0 is no text; the last register is short.
func (s *stream) text(i int, header, short bool) {
	a, c, at := s.aes[i], s.cipher[i], mem(ptr, vecLen*i)
	if header {
		VMOVDQA64(a.AsX(), s.mask.AsX())
	}
	if short {
		VMOVDQU8_Z(at, bytesK, c)
	} else {
		VMOVDQU64(at, c)
	}
	VPXORQ(c, a, a)
	if header {
		VINSERTI64X2(operand.U8(0), c.AsX(), a, a)
	}
	if short {
		VMOVDQU8(a, bytesK, at)
	} else {
		VMOVDQU64(a, at)
	}
	from := c
	if s.seal {
		from = a
		if short {
			VMOVDQU8_Z(a, bytesK, a)
		}
	}
	if header {
		VPSHUFB_Z(reverse, from, aadK, c)
	} else {
		VPSHUFB(reverse, from, c)
	}
}

// aad goes the way about by esn if it must.
func (s *stream) aad(n int, isLast bool) {
	name := label("esn%d%v", n, isLast)
	CMPB(mem(job, jobESN), operand.U8(0))
	JNE(operand.LabelRef(name))
	Label("after" + name)
	s.esns = append(s.esns, name)
}

// tag takes in all but the last of the packet's last n registers, and puts that
// one, with the lengths if it has room, where end expects it.
func (s *stream) tag(n int) {
	last := s.cipher[n-1]
	VSHUFI64X2(operand.U8(0), s.lengths, s.lengths, lastK, last)
	if n > 1 {
		emit(s.hash(n-1, powerP, forget))
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
	emit(s.hash(1, powerP, forget))
	KTESTW(lastK, lastK)
	JNE(operand.LabelRef("reduce"))
	own := newProduct(s.aes[0], s.aes[1], s.aes[2], s.aes[3])
	emit(own.add(s.lengths, factor{at: power(1)})) // the other three powers are multiplied by zero
	emit(own.flush())
	VPXORQ(own.low.reg, p.low.reg, p.low.reg)
	VPXORQ(own.mid.reg, p.mid.reg, p.mid.reg)
	VPXORQ(own.high.reg, p.high.reg, p.high.reg)
	Label("reduce")
	emit(p.reduce())
	emit(fold(p.high.reg, s.lanes))
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
	ends := append(s.hash(1, reg.RAX, forget), s.sum.reduce()...)
	ends = append(append(ends, fold(s.sum.high.reg, s.lanes)...), s.verdict(s.tagAt, s.ended)...)
	weave(s.first(flight), ends)
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
