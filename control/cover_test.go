package control

import (
	"testing"
	"time"

	"spigot/internal/fib"
	"spigot/sad"
)

// An SA that is to seem busy sends dummies at its rate in the seconds in which it
// carries nothing else; one without the option, or that no policy uses, never.
func TestDummiesWhileIdle(t *testing.T) {
	g := newGateway(t)
	g.see()
	dummies := func(p *sad.Params) { p.Outer.Dummy = 20 }
	g.load(t, protect("10.2.0.0/16"), sa(300, here, peer, dummies), sa(301, here, "192.0.2.9", dummies), sa(302, peer, here, dummies))
	out := g.list()[0].out
	now := time.Now()
	// second returns how many dummies a second of polls, begun by its chores, makes,
	// and has a worker carry them.
	second := func() (n int) {
		g.Do(func() { g.chores(now) })
		for range 100 {
			now = now.Add(10 * time.Millisecond)
			g.Do(func() { g.poll(now) })
			var m [1]fib.Inject
			for g.worker.Injects.Pop(m[:]) == 1 {
				if m[0].Dummy == 0 || m[0].Len < minDummy || m[0].Len >= maxDummy {
					t.Errorf("injected %+v", m[0])
				}
				out.Count(1, 100)
				n++
			}
		}
		return n
	}
	for i, step := range []struct {
		real      uint64 // packets that are none, before the second
		low, high int
	}{
		{0, 19, 21}, {0, 19, 21}, {0, 19, 21},
		{500, 0, 0}, {1, 0, 0},
		{0, 19, 21}, {0, 19, 21},
	} {
		out.Count(step.real, 1000)
		if n := second(); n < step.low || n > step.high {
			t.Errorf("second %d: %d dummies, want %d to %d", i, n, step.low, step.high)
		}
	}
	if g.stats.Dummies < 95 || g.inject[0].Dummy != 0 {
		t.Errorf("%d counted; the next message is a dummy of policy %d", g.stats.Dummies, g.inject[0].Dummy)
	}

	other := newGateway(t)
	other.see()
	other.load(t, protect("10.2.0.0/16"), sa(300, here, peer))
	other.round(now)
	if other.covering || len(other.covers) != 0 {
		t.Error("an SA without the option is looked at")
	}
	bundled := newGateway(t)
	bundled.see()
	bundled.load(t, protect("10.2.0.0/16", two), sa(300, here, peer, dummies), sa(301, here, peer, ahSA))
	if bundled.round(now); len(bundled.covers) != 0 || bundled.bundleOf(t, "to 10.2.0.0/16") == nil {
		t.Error("an SA in a bundle is asked for dummies")
	}
	bundled.load(t, protect("10.2.0.0/16", two), protect("10.3.0.0/16"), sa(300, here, peer, dummies), sa(301, here, peer, ahSA))
	if bundled.round(now); len(bundled.covers) != 1 {
		t.Error("an SA that a policy uses without others is asked for none")
	}
}
