package pipeline_test

import (
	"bytes"
	"testing"

	"spigot/internal/counter"
	"spigot/pmd"
	"spigot/pmd/memport"
)

// canary fills the memory around a frame; no stage may write there.
var canary = bytes.Repeat([]byte{0xc5}, 2048)

// guarded is one with canaries in all of the gateway's memory. front and back
// are how many bytes the gateway may write in front of the frame and behind it.
func (l *lone) guarded(in, out *memport.Tap, frame []byte, front, back int) []byte {
	l.t.Helper()
	mem := l.pool.Mem()
	for at := 0; at < len(mem); at += len(canary) {
		copy(mem[at:], canary)
	}
	got := l.one(in, out, frame)
	touched := 0
	for at := 0; at < len(mem); at += len(canary) {
		chunk := mem[at : at+len(canary)]
		if bytes.Equal(chunk, canary) {
			continue
		}
		touched++
		lo := pmd.Headroom - front
		hi := min(pmd.Headroom+len(frame)+back, len(chunk))
		if !bytes.Equal(chunk[:lo], canary[:lo]) || !bytes.Equal(chunk[hi:], canary[hi:]) {
			l.t.Errorf("a frame of %d bytes: the gateway wrote more than %d bytes in front of it or %d behind", len(frame), front, back)
		}
	}
	if touched > 1 {
		l.t.Errorf("one frame, and the gateway wrote to %d", touched)
	}
	return got
}

// refuses gives frame to l's wire side among canaries and fails unless it is
// dropped for one of reasons; without reasons, for any.
func (l *lone) refuses(what string, frame []byte, reasons ...counter.Reason) {
	l.t.Helper()
	l.mustDrop(what, l.wire, l.host, retarget(frame), 0, 0, reasons)
}

// refusesOut is refuses for a frame from the protected side, around which the
// gateway may have begun to write headers.
func (l *lone) refusesOut(what string, frame []byte, reasons ...counter.Reason) {
	l.t.Helper()
	l.mustDrop(what, l.host, l.wire, frame, pmd.Headroom, 0, reasons)
}

func (l *lone) mustDrop(what string, in, out *memport.Tap, frame []byte, front, back int, reasons []counter.Reason) {
	l.t.Helper()
	before := l.values()
	if got := l.guarded(in, out, frame, front, back); got != nil {
		l.t.Errorf("%s: left as %x", what, got)
		return
	}
	if n := len(in.Take()); n != 0 {
		l.t.Errorf("%s: %d packets went back where it came from", what, n)
	}
	now := l.values()
	var dropped, expected uint64
	for r := range counter.NumReasons {
		n := now.Drops[r] - before.Drops[r]
		dropped += n
		if len(reasons) == 0 {
			expected += n
		}
		for _, want := range reasons {
			if r == want {
				expected += n
			}
		}
	}
	if dropped != 1 || expected != 1 {
		l.t.Errorf("%s: %d drops, %d of them for %v; so far %v", what, dropped, expected, reasons, l.drops())
	}
}

// passes fails unless l delivers a good packet that peer seals for it.
func (l *lone) passes(what string, peer *lone) {
	l.t.Helper()
	src, dst := hostA4, hostB4
	if l.side == 'a' {
		src, dst = dst, src
	}
	if got := l.into(peer.outOf(udp4(src, dst, 64, 100))); got == nil || !bytes.Equal(got[34:], udp4(src, dst, 64, 100)[34:]) {
		l.t.Errorf("%s: a good packet arrives as %x: %v", what, got, l.drops())
	}
}

// pair returns two gateways with the SAs of tn between them.
func pair(t *testing.T, tn tunnel) (a, b *lone) {
	t.Helper()
	a, b = newLoneOf(t, 'a', 64), newLoneOf(t, 'b', 64) // few: guarded looks at all of them
	a.protect(tn)
	b.protect(tn)
	return a, b
}
