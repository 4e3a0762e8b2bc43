//go:build !amd64 || purego

package crypto

var gcmKernels [numTiers]gcmKernel
