// Command gcm generates AES-GCM for ESP (RFC 4106) with VAES and VPCLMULQDQ.
//
// A packet is one stream that begins at its first byte. ESP's header and IV,
// 16 bytes, are block 0: to AES-CTR it is the counter block J0, whose
// encryption masks the tag, and to GHASH it is the AAD. So all the rest is
// aligned alike for both (NIST SP 800-38D, section 7).
package main

import (
	. "github.com/mmcloughlin/avo/build"
)

func main() {
	ConstraintExpr("!purego")
	setup()
	for _, seal := range []bool{true, false} {
		for _, rounds := range []int{10, 12, 14} {
			stream512(seal, rounds)
			stream256(seal, rounds)
			for _, blocks := range []int{4, 5, 8} {
				small512(seal, rounds, blocks)
			}
		}
	}
	Generate()
}
