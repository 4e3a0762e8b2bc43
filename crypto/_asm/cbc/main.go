// Command cbc generates AES-CBC and counter mode (NIST SP 800-38A, sections 6.2
// and 6.5) for VAES: many blocks of one packet at once, but for CBC's
// encryption one block of many packets.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// lanes is how many packets are encrypted at once. A chain waits four cycles
// for each round, in which three more registers of four packets can start one.
const lanes = 16

// sliceHeader is the size of a []byte: what lies between two lanes' pointers.
const sliceHeader = 24

func main() {
	ConstraintExpr("!purego")
	expand()
	decrypt512()
	decrypt256()
	encrypt512()
	encrypt256()
	encryptOne()
	turn, numbers := counterTables()
	counter512(turn, numbers)
	counter256(turn, numbers)
	Generate()
}

// variants writes body once for each number of rounds, 14 last, and chooses
// among them by the argument rounds.
func variants(body func(rounds int)) {
	r := Load(Param("rounds"), GP64())
	CMPQ(r, operand.U8(12))
	JB(operand.LabelRef("rounds10"))
	JE(operand.LabelRef("rounds12"))
	for _, n := range []int{14, 12, 10} {
		Label(fmt.Sprintf("rounds%d", n))
		body(n)
		VZEROUPPER()
		RET()
	}
}

// label makes the names of a variant's labels its own.
func label(rounds int, name string) string { return fmt.Sprintf("%s%d", name, rounds) }

// expand writes the two steps of key expansion (FIPS 197, section 5.2) that
// would take a table otherwise, and so betray the key by its cache lines.
func expand() {
	TEXT("aesSubWord", NOSPLIT, "func(word uint32) uint32")
	Doc("aesSubWord applies the S-box to each byte of word.")
	w := Load(Param("word"), GP32())
	VMOVD(w, reg.X0)
	VPSHUFD(operand.U8(0), reg.X0, reg.X0) // four equal columns: ShiftRows changes nothing
	VPXOR(reg.X1, reg.X1, reg.X1)
	VAESENCLAST(reg.X1, reg.X0, reg.X0)
	VMOVD(reg.X0, w)
	Store(w, ReturnIndex(0))
	VPXOR(reg.X0, reg.X0, reg.X0)
	RET()

	TEXT("aesInvMixColumns", NOSPLIT, "func(out, in *[16]byte)")
	Pragma("noescape")
	Doc("aesInvMixColumns makes a round key for decryption of one for encryption.")
	in, out := Load(Param("in"), GP64()), Load(Param("out"), GP64())
	VAESIMC(operand.Mem{Base: in}, reg.X0)
	VMOVDQU(reg.X0, operand.Mem{Base: out})
	VPXOR(reg.X0, reg.X0, reg.X0)
	RET()
}
