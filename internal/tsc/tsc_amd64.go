//go:build amd64 && !purego

package tsc

// Now returns the time-stamp counter. It does not wait for earlier
// instructions: for stretches of hundreds of cycles that does not matter.
func Now() uint64
