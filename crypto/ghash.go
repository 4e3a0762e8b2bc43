package crypto

import (
	"crypto/aes"
	"encoding/binary"
)

// ghashKernel takes whole blocks of text into sum (NIST SP 800-38D, section
// 6.4). It is nil on Std.
type ghashKernel func(powers *[gcmPowers][aes.BlockSize]byte, sum *[aes.BlockSize]byte, text *byte, blocks int)

// ghash is a GHASH at work under a key: what it has taken in, and what waits
// until it fills a block.
type ghash struct {
	kernel    ghashKernel
	key       *gcmKey
	sum, last [aes.BlockSize]byte
	n         int // bytes of last
}

// write takes text in.
func (g *ghash) write(text []byte) {
	if g.n > 0 {
		n := copy(g.last[g.n:], text)
		g.n += n
		text = text[n:]
		if g.n < len(g.last) {
			return
		}
		g.flush()
	}
	if whole := len(text) / aes.BlockSize; whole > 0 {
		g.kernel(&g.key.powers, &g.sum, &text[0], whole)
		text = text[whole*aes.BlockSize:]
	}
	g.n = copy(g.last[:], text)
}

// flush fills what waits up with zeros and takes it in.
func (g *ghash) flush() {
	if g.n > 0 {
		clear(g.last[g.n:])
		g.kernel(&g.key.powers, &g.sum, &g.last[0], 1)
		g.n = 0
	}
}

// lengths ends the sum with those of AAD and text in bytes.
func (g *ghash) lengths(aad, text int) {
	g.flush()
	binary.BigEndian.PutUint64(g.last[:], 8*uint64(aad))
	binary.BigEndian.PutUint64(g.last[8:], 8*uint64(text))
	g.n = len(g.last)
	g.flush()
}
