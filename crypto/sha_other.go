//go:build !amd64 || purego

package crypto

var shaKernels [numTiers][numHashes]shaKernel
