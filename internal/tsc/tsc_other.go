//go:build !amd64 || purego

package tsc

import "time"

var start = time.Now()

// Now returns nanoseconds of the monotonic clock, as ticks of 1 GHz.
func Now() uint64 { return uint64(time.Since(start)) }
