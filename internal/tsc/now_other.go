//go:build !amd64 || purego

package tsc

import "time"

// start is when the process started, near enough; nothing writes it again.
var start = time.Now()

// Now returns the nanoseconds since the process started, by the monotonic clock.
func Now() uint64 { return uint64(time.Since(start)) }
