//go:build amd64 && !purego

package tsc

// Now returns the time stamp counter. It does not wait for the instructions
// before it: what lies between two calls should take much longer than the some
// twenty cycles of a call.
//
//go:noescape
func Now() uint64
