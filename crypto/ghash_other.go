//go:build !amd64 || purego

package crypto

var ghashKernels [numTiers]ghashKernel
