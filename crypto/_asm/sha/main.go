// Command sha generates SHA-2 (FIPS 180-4) over several packets at once:
// SHA-512 of eight packets with AVX-512 or four with AVX2, SHA-256 of two with the SHA extensions.
//
// SHA-256 of sixteen packets with AVX-512, made like SHA-512, was no faster than
// two with the extensions (17.4 to 18.8 against 17.8 ns a block on Zen4), and
// needs sixteen packets to be that.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

// sliceHeader is the size of a []byte: what lies between two lanes' pointers.
const sliceHeader = 24

const signature = "func(state *[8][64]byte, text *[8][]byte, blocks int)"

func main() {
	ConstraintExpr("!purego")
	k, reverse := sum512(), reversal(64, 8)
	lanes512(k, reverse)
	lanes256(k, reverse)
	extension()
	Generate()
}

var zmm = [32]reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12,
	reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24,
	reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}

var ymm = [16]reg.VecPhysical{
	reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12,
	reg.Y13, reg.Y14, reg.Y15,
}
