package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Where the fields of package crypto's structs lie; a test holds them to it.
const (
	jobSize  = 40
	jobKey   = 0
	jobPkt   = 8
	jobLen   = 16
	jobSeqHi = 32
	jobOK    = 36
	jobESN   = 38

	keySuite  = 0   // in a Key, if it is alive
	keyGCM    = 8   // the pointer to a gcmKey
	keyWithin = 184 // the gcmKey itself, if it is of a suite of AES-GCM

	// A gcmKey. H^powers comes first and H^1 last, because within a register
	// the first block has the highest power.
	powers      = 36
	keyCounters = 0
	keyESN      = 64
	keyPowers   = keyESN + 16
	keyRounds   = keyPowers + 16*powers
	keyLengths  = keyRounds + 15*16
	words       = (128 - 16) / 4 // of text in a small packet, at the most
)

// What every kernel keeps in general registers.
var (
	jobs   = reg.RDI
	group  = reg.RSI
	left   = reg.RDX // jobs of the group that are still to do
	job    = reg.R8
	key    = reg.R9
	ptr    = reg.R10 // the next bytes of the packet
	count  = reg.R11 // blocks or registers of the packet that are still to do
	end    = reg.R12 // the tag
	low    = reg.RBX // in counters
	carry  = reg.R15 // the counter's upper bytes
	blocks = reg.R14 // of GHASH that are still to do, after those that powerP begins
	powerP = reg.R13 // the first power of H that the packet's end takes
)

const (
	blockLen = 16
	tagLen   = 16
)

func mem(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// power is H^n in key.
func power(n int) operand.Mem { return mem(key, keyPowers+blockLen*(powers-n)) }

// field is what lies at an offset in the job that does in jobs.
func field(job reg.Register, at int) operand.Mem {
	return operand.Mem{Base: jobs, Index: job, Scale: 1, Disp: at}
}

func roundKey(key reg.Register, r int) operand.Mem { return mem(key, keyRounds+blockLen*r) }

// lengthsOf is what the lengths add to the tag of a packet of so many bytes.
func lengthsOf(key, length reg.Register) operand.Mem {
	return operand.Mem{Base: key, Index: length, Scale: 4, Disp: keyLengths - 4*(blockLen+tagLen) - 16}
}

// prefetch asks for the next job's key, or if there is none for this one's
// again: with many SAs a key is seldom in a near cache. Group has passed the
// job that begins.
func prefetch(rounds int) {
	next := reg.RCX
	XORL(next.As32(), next.As32())
	CMPQ(left, operand.U8(1))
	SETHI(next.As8())
	MOVWLZX(operand.Mem{Base: group, Index: next, Scale: 2, Disp: -2}, next.As32())
	MOVQ(field(next, jobKey), next)
	MOVQ(mem(next, keyGCM), next)
	for at := keyESN; at < keyRounds+blockLen*(rounds+1); at += vecLen {
		PREFETCHT0(mem(next, at))
	}
}

// A constant table of dwords.
func table(name string, dwords ...uint32) operand.Mem {
	m := GLOBL(name, 8|16) // RODATA|NOPTR
	for i, d := range dwords {
		DATA(4*i, operand.U32(d))
	}
	return m
}

func lowBytes() (all []uint32) {
	for n := range uint32(256) {
		all = append(all, 0, 0, 0, (n+1)<<24)
	}
	return all
}

func repeat(n int, dwords ...uint32) (all []uint32) {
	for range n {
		all = append(all, dwords...)
	}
	return all
}

var (
	reverse = table("reverse", repeat(4, 0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203)...) // a block's bytes
	// The same; of the register's first block the IV, which is no AAD, becomes zero.
	reverseFirst = table("reverseFirst",
		append([]uint32{0x80808080, 0x80808080}, repeat(4, 0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203)[2:]...)...)
	// The low bytes of the counters of 256 blocks. J0's is 1 (SP 800-38D, section
	// 7.1), so the last is 0, and its upper bytes are one more than the others'.
	counters = table("counters", lowBytes()...)
	// What makes of blocks 0 to 3, in all of which only the low byte differs, 4 to 7.
	nextCounters = table("nextCounters", 0, 0, 0, 4<<24, 0, 0, 0, 4<<24, 0, 0, 0, 4<<24, 0, 0, 0, 12<<24)
	// How long the AAD is, in the block of lengths, bytes reversed; and how much longer with ESN.
	aadBits = table("aadBits", repeat(4, 0, 0, 64, 0)...)
	ones    = table("ones", repeat(2, 1<<32-1)...)
	esnBits = table("esnBits", repeat(4, 0, 0, 32, 0)...)
	// The field's polynomial x^128 + x^7 + x^2 + x + 1, bits reversed: its high
	// half reduces, all of it takes up the bit that a shift by one pushes out.
	poly = table("poly", repeat(4, 1, 0, 0, 0xc2000000)...)
)

// label makes a name that is one of this text's only.
func label(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// Masks that do not change.
var (
	ivK  = reg.K5 // dwords 1 and 2 of each block: the IV in the nonce
	aadK = reg.K6 // all bytes of a register but those of the IV in block 0, reversed
)

// masks loads them.
func masks() {
	MOVL(operand.U32(0x6666), reg.ECX)
	KMOVW(reg.ECX, ivK)
	MOVQ(operand.I32(-256), reg.RCX)
	KMOVQ(reg.RCX, aadK)
}

// kernel names the function for a direction, a key size and packets of a kind.
func kernel(seal bool, rounds int, kind string) string {
	return label("gcm%s%d%s", map[bool]string{true: "Seal", false: "Open"}[seal], 32*(rounds-6), kind)
}

// stretchLen is how many powers a stretch takes that is not a packet's last: as
// many whole groups as there are powers.
const stretchLen = powers / (4 * flight) * (4 * flight)

// stretch finds the first power for what is left, or for stretchLen; then it goes
// on at done.
func stretch(done string) {
	MOVQ(blocks, powerP)
	NEGQ(powerP)
	SHLQ(operand.U8(4), powerP)
	LEAQ(operand.Mem{Base: key, Index: powerP, Scale: 1, Disp: keyPowers + blockLen*powers}, powerP)
	CMPQ(blocks, operand.U32(powers))
	JBE(operand.LabelRef(done))
	LEAQ(mem(key, keyPowers+blockLen*(powers-stretchLen)), powerP)
	SUBQ(operand.U32(stretchLen), blocks)
}
