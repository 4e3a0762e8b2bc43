package xfrm

import (
	"testing"
	"time"
)

// events waits for n datagrams and hands them to see.
func events(t testing.TB, c *Client, n int, see func([]byte)) {
	t.Helper()
	for deadline := time.After(10 * time.Second); n > 0; {
		b := c.Next()
		if b == nil {
			select {
			case <-c.Ready():
				continue
			case <-deadline:
				t.Fatalf("%d datagrams are missing", n)
			}
		}
		see(b)
		n--
	}
}
