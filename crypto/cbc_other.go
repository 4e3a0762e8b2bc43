//go:build !amd64 || purego

package crypto

var cbcKernels [numTiers]cbcKernel
