//go:build !purego

package crypto

import (
	"crypto/aes"
	"encoding/binary"
)

//go:generate go run -C _asm ./cbc -out ../cbc_amd64.s -stubs ../cbc_asm_amd64.go -pkg crypto

var aesKernels = [numTiers]aesKernel{
	VAES256: {expand: expandAES, encrypt: cbcEncrypt256, encryptOne: cbcEncryptOne, decrypt: cbcDecrypt256, ctr: ctr256},
	VAES512: {expand: expandAES, encrypt: cbcEncrypt512, encryptOne: cbcEncryptOne, decrypt: cbcDecrypt512, ctr: ctr512},
}

// expandAES makes the round keys for encryption (FIPS 197, section 5.2) and
// for the equivalent inverse cipher (section 5.3.5), without any table.
func expandAES(encrypt, decrypt *aesSchedule, key []byte) (rounds int) {
	le := binary.LittleEndian
	n := len(key) / 4 // words
	rounds = n + 6
	copy(encrypt[0][:], key)
	copy(encrypt[1][:], key[aes.BlockSize:])
	word := func(i int) []byte { return encrypt[i/4][i%4*4:] }
	rcon := uint32(1)
	for i := n; i < 4*(rounds+1); i++ {
		w := le.Uint32(word(i - 1))
		switch {
		case i%n == 0:
			w = aesSubWord(w>>8|w<<24) ^ rcon
			rcon = rcon<<1 ^ rcon>>7*0x11b
		case n == 8 && i%n == 4:
			w = aesSubWord(w)
		}
		le.PutUint32(word(i), w^le.Uint32(word(i-n)))
	}
	decrypt[0], decrypt[rounds] = encrypt[rounds], encrypt[0]
	for r := 1; r < rounds; r++ {
		aesInvMixColumns(&decrypt[r], &encrypt[rounds-r])
	}
	return rounds
}
