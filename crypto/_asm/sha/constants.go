package main

import (
	"fmt"
	"math/big"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
)

// cubeRoots returns the first 64 bits of the fractions of the cube roots of
// the first n primes (FIPS 180-4, section 4.2).
func cubeRoots(n int) (k []uint64) {
	for p := int64(2); len(k) < n; p++ {
		if !big.NewInt(p).ProbablyPrime(0) {
			continue
		}
		// The root of p * 2^192 is that of p, times 2^64, found by halving.
		x := new(big.Int).Lsh(big.NewInt(p), 192)
		low, high := new(big.Int), new(big.Int).Lsh(big.NewInt(8), 64)
		for {
			middle := new(big.Int).Add(low, high)
			middle.Rsh(middle, 1)
			if middle.Cmp(low) == 0 {
				break
			}
			if new(big.Int).Exp(middle, big.NewInt(3), nil).Cmp(x) > 0 {
				high = middle
			} else {
				low = middle
			}
		}
		k = append(k, low.And(low, new(big.Int).SetUint64(1<<64-1)).Uint64())
	}
	return k
}

func sum256() operand.Mem {
	k := GLOBL("sha256k", 8|16) // RODATA | NOPTR
	for i, x := range cubeRoots(64) {
		DATA(4*i, operand.U32(x>>32))
	}
	return k
}

func sum512() operand.Mem {
	k := GLOBL("sha512k", 8|16)
	for i, x := range cubeRoots(80) {
		DATA(8*i, operand.U64(x))
	}
	return k
}

// reversal makes the operand of VPSHUFB, of n bytes, that turns words of size bytes.
func reversal(n, size int) operand.Mem {
	m := GLOBL(fmt.Sprintf("reverse%d", size), 8|16)
	for i := range n {
		DATA(i, operand.U8(i%16/size*size+size-1-i%size))
	}
	return m
}
