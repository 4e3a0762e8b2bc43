//go:build !amd64 || purego

package crypto

var aesKernels [numTiers]aesKernel
