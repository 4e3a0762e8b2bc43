//go:build !purego

package crypto

import "github.com/klauspost/cpuid/v2"

//go:generate go run -C _asm ./sha -out ../sha_amd64.s -stubs ../sha_asm_amd64.go -pkg crypto

var shaKernels = makeSHAKernels()

// makeSHAKernels asks for the SHA extensions apart from the tier: there are
// processors with one and not the other.
func makeSHAKernels() (k [numTiers][numHashes]shaKernel) {
	if cpuid.CPU.Supports(cpuid.SHA, cpuid.SSSE3, cpuid.SSE4, cpuid.AVX) {
		pair := shaKernel{lanes: 2, least: 1, run: sha256x2}
		k[VAES256][sha2x256], k[VAES512][sha2x256] = pair, pair
	}
	// Fewer packets leave too many lanes idle.
	four, eight := shaKernel{lanes: 4, least: 3, run: sha512x4}, shaKernel{lanes: 8, least: 3, run: sha512x8}
	k[VAES256][sha2x384], k[VAES256][sha2x512] = four, four
	k[VAES512][sha2x384], k[VAES512][sha2x512] = eight, eight
	return k
}
