//go:build !amd64 || purego

package crypto

// hardwareTiers is empty: there are no kernels for this build.
func hardwareTiers() []Tier { return nil }
