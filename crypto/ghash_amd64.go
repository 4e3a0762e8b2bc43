//go:build !purego

package crypto

//go:generate go run -C _asm ./ghash -out ../ghash_amd64.s -stubs ../ghash_asm_amd64.go -pkg crypto

var ghashKernels = [numTiers]ghashKernel{VAES256: ghash256, VAES512: ghash512}
