package pmd

import "unsafe"

// alignment returns the index of the first byte of b whose address is a
// multiple of n, a power of two.
func alignment(b []byte, n int) int {
	at := int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) & uintptr(n-1))
	return (n - at) & (n - 1)
}
