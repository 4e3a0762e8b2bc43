//go:build !purego

package crypto

import "github.com/klauspost/cpuid/v2"

// hardwareTiers lists the tiers above Std that processor and operating system
// support, the best first. VAES has two forms, one without AVX-512, which
// golang.org/x/sys/cpu does not tell apart.
func hardwareTiers() []Tier {
	var tiers []Tier
	if !cpuid.CPU.Supports(cpuid.AVX2, cpuid.BMI2, cpuid.VAES, cpuid.VPCLMULQDQ) {
		return tiers
	}
	if cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512VL, cpuid.AVX512DQ) {
		tiers = append(tiers, VAES512)
	}
	return append(tiers, VAES256)
}
