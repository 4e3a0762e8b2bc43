package crypto

import (
	"crypto/aes"
	"crypto/cipher"

	"golang.org/x/crypto/chacha20poly1305"
)

// cipherSpec is an encryption algorithm as its RFC describes it.
type cipherSpec struct {
	name    string
	keys    []int // key sizes in bytes, without the salt
	salt    int   // bytes of keying material after the key
	iv      int   // bytes sent in each packet; with IVs that are not, 0
	tag     int   // bytes of ICV of its own; 0: not an AEAD
	align   int   // what payload, padding and the two trailer bytes fill
	counter bool
	gcm     bool                                  // keys are AES-GCM's
	ccm     bool                                  // the key of block is a CBC-MAC's, too
	aead    func(key []byte) (cipher.AEAD, error) // of one that is not AES-GCM
	block   func(key []byte) (cipher.Block, error)
	kernels *[numTiers]gcmKernel // of AES-GCM, stitched

	seal, open kernel
}

var (
	aesKeys    = []int{16, 24, 32}
	chachaKeys = []int{chacha20poly1305.KeySize}
)

var ciphers = [...]cipherSpec{
	{ // RFC 4106
		name: "aes-gcm-16", keys: aesKeys, salt: 4, iv: 8, tag: 16, align: 4, counter: true, gcm: true,
		kernels: &gcmKernels, seal: (*Engine).sealGCM, open: (*Engine).openGCM,
	},
	gcmParts("aes-gcm-12", aeadIVLen, 12),
	gcmParts("aes-gcm-8", aeadIVLen, 8),
	gcmParts("aes-gcm-16-iiv", 0, 16), // RFC 8750
	chacha("chacha20-poly1305", aeadIVLen),
	chacha("chacha20-poly1305-iiv", 0), // RFC 8750
	ccm("aes-ccm-16", aeadIVLen, 16),
	ccm("aes-ccm-12", aeadIVLen, 12),
	ccm("aes-ccm-8", aeadIVLen, 8),
	ccm("aes-ccm-8-iiv", 0, 8), // RFC 8750
	{ // RFC 4543
		name: "null-aes-gmac", keys: aesKeys, salt: gmacSalt, iv: 8, tag: 16, align: 4, counter: true, gcm: true,
		seal: (*Engine).sealGMAC, open: (*Engine).openGMAC,
	},
	{ // RFC 3602
		name: "aes-cbc", keys: aesKeys, iv: aes.BlockSize, align: aes.BlockSize,
		block: aes.NewCipher, seal: (*Engine).sealCBC, open: (*Engine).openCBC,
	},
	{ // RFC 3686
		name: "aes-ctr", keys: aesKeys, salt: 4, iv: 8, align: 4, counter: true,
		block: aes.NewCipher, seal: (*Engine).sealCTR, open: (*Engine).openCTR,
	},
	{ // RFC 2410
		name: "null", keys: []int{0}, align: 4,
		seal: (*Engine).sealNull, open: (*Engine).openNull,
	},
}

// gcmParts is AES-GCM with IVs or ICVs that the stitched kernels do not have (RFC 4106).
func gcmParts(name string, iv, tag int) cipherSpec {
	return cipherSpec{
		name: name, keys: aesKeys, salt: 4, iv: iv, tag: tag, align: 4, counter: true, gcm: true,
		seal: (*Engine).sealGCMParts, open: (*Engine).openGCMParts,
	}
}

// chacha is ChaCha20-Poly1305 (RFC 7634).
func chacha(name string, iv int) cipherSpec {
	return cipherSpec{
		name: name, keys: chachaKeys, salt: 4, iv: iv, tag: 16, align: 4, counter: true,
		aead: chacha20poly1305.New, seal: (*Engine).sealAEAD, open: (*Engine).openAEAD,
	}
}

// ccm is AES-CCM (RFC 4309).
func ccm(name string, iv, tag int) cipherSpec {
	return cipherSpec{
		name: name, keys: aesKeys, salt: ccmSalt, iv: iv, tag: tag, align: 4, counter: true, ccm: true,
		block: aes.NewCipher, seal: (*Engine).sealCCM, open: (*Engine).openCCM,
	}
}
