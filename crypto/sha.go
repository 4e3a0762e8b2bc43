package crypto

import "encoding/binary"

// shaWide is how many packets the widest kernel takes at once.
const shaWide = 8

// shaState is the eight words of a hash in the processor's byte order; those
// of SHA-256 fill half of it.
type shaState = [64]byte

// shaKernel takes blocks of several texts into their states at once. That of
// Std, and of hashes that have none on a tier, is empty.
type shaKernel struct {
	lanes int // how many texts, the first ones of shaWide
	least int // fewer packets than this go to the standard library
	run   func(state *[shaWide]shaState, text *[shaWide][]byte, blocks int)
}

// sha is a hash function of FIPS 180-4.
type sha struct {
	word, block, size int       // bytes of a word, a block and the output
	start             [8]uint64 // the initial hash value, section 5.3
}

var shas = [numHashes]sha{
	sha2x256: {4, 64, 32, [8]uint64{
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	}},
	sha2x384: {8, 128, 48, [8]uint64{
		0xcbbb9d5dc1059ed8, 0x629a292a367cd507, 0x9159015a3070dd17, 0x152fecd8f70e5939,
		0x67332667ffc00b31, 0x8eb44a8768581511, 0xdb0c2e0d64f98fa7, 0x47b5481dbefa4fa4,
	}},
	sha2x512: {8, 128, 64, [8]uint64{
		0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
		0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
	}},
}

// initial is the state before the first block.
func (f *sha) initial() (s shaState) {
	for i, w := range f.start {
		if f.word == 4 {
			binary.LittleEndian.PutUint32(s[4*i:], uint32(w))
		} else {
			binary.LittleEndian.PutUint64(s[8*i:], w)
		}
	}
	return s
}

// output writes a state's eight words as the hash's output has them; the
// output is the first f.size bytes.
func (f *sha) output(out, s *shaState) {
	if f.word == 4 {
		for i := 0; i < 32; i += 4 {
			binary.BigEndian.PutUint32(out[i:], binary.LittleEndian.Uint32(s[i:]))
		}
		return
	}
	for i := 0; i < 64; i += 8 {
		binary.BigEndian.PutUint64(out[i:], binary.LittleEndian.Uint64(s[i:]))
	}
}

// endLen is how many bytes of blocks a lane can pad.
const endLen = 256

// padding is the least that pad adds: a bit, and two words of length.
func (f *sha) padding() int { return 1 + 2*f.word }

// pad ends a message of n bytes, of which the last are the first rest bytes of
// b: a bit, zeros, and the length in bits (section 5.1). It returns the whole
// blocks.
func (f *sha) pad(b *[endLen]byte, rest, n int) []byte {
	end := (rest + f.padding() + f.block - 1) &^ (f.block - 1)
	clear(b[rest:end])
	b[rest] = 0x80
	binary.BigEndian.PutUint64(b[end-8:], 8*uint64(n))
	return b[:end]
}
