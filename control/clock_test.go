package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"spigot/internal/fib"
	"spigot/sad"
	"spigot/spd"
)

// lifeOf is everything of a gateway that takes its time, second by second: what
// happened, and when. wall says by how much the wall clock is wrong.
func lifeOf(t *testing.T, wall func(time.Duration) time.Duration) (history []string) {
	t.Helper()
	g := newGateway(t, func(c *Config) { c.NATKeepalive, c.PathMTULife = 20*time.Second, 40*time.Second })
	start, since := time.Now(), time.Duration(0)
	g.clock.read = func() time.Time { return jumped(start.Add(since), wall(since)) }
	g.see()
	bounds := func(soft, hard sad.Lifetime) func(*SAParams) {
		return func(p *SAParams) { p.Soft, p.Hard = soft, hard }
	}
	var asks uint32
	g.key(t, func(k *Keying) {
		for _, p := range []SAParams{
			keyedSA(0x1000, here, peer, bounds(sad.Lifetime{Seconds: 25}, sad.Lifetime{Seconds: 80})),
			keyedSA(0x1001, here, peer, bounds(sad.Lifetime{}, sad.Lifetime{UseSeconds: 50})),
			keyedSA(0x1002, here, "192.0.2.9", func(p *SAParams) { p.Encap = sad.Encap{Type: sad.EncapUDP, SrcPort: 4500, DstPort: 4500} }),
			keyedSA(0x2000, peer, here), keyedSA(0x2001, peer, here),
		} {
			if err := k.AddSA(daemon, p); err != nil {
				t.Fatal(err)
			}
		}
		_, err := k.GetSPI(daemon, GetSPIRequest{Proto: 50, Src: addr(peer), Dst: addr(here)})
		if err == nil {
			_, err = k.AddPolicy(daemon, keyedPolicy("10.3.0.0/16", func(p *PolicyParams) { p.Soft, p.Hard = 30, 70 }))
		}
		if err == nil {
			asks, err = k.AddPolicy(daemon, keyedPolicy("10.4.0.0/16", func(p *PolicyParams) { p.Template.Reqid = 99 }))
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	used := g.db.FindOutbound(0x1001, addr(peer), 50)
	narrow := g.db.FindOutbound(0x1000, addr(peer), 50)
	narrow.Advance(5000)
	now := func() time.Time { return g.clock.now() }
	state := func() string {
		s := g.stats
		return fmt.Sprintf("%d SAs, %d draining, %d policies, soft %d, hard %d, asked %d, keepalives %d, paths %d-%d, audits %d",
			len(g.sas.byID), len(g.drains.list), len(g.spds.byID), s.SoftExpired, s.HardExpired, s.AcquiresSent, s.Keepalives,
			s.PathsLowered, s.PathsRaised, g.trail.number)
	}
	var last string
	for ; since <= 90*time.Second; since += time.Second {
		switch since {
		case 3 * time.Second:
			g.report(tooBig(t, quote(func(*sad.Params) {}, 1500, 5000), 1400), now())
		case 5 * time.Second:
			used.Count(1, 100)
		case 10 * time.Second:
			g.key(t, func(k *Keying) {
				if _, err := k.DeleteSA(daemon, id(0x2000, here)); err != nil {
					t.Fatal(err)
				}
			})
		}
		for n := 0; since == 20*time.Second && n < 60 || since == 22*time.Second && n < 30; n++ {
			g.Do(func() { g.punt(0, &fib.Punt{Kind: fib.PuntAudit}, now()) })
		}
		g.worker.Acquires.Push([]spd.AcquireRequest{{Policy: asks, Flow: packet("10.4.0.1", 1)}})
		g.round(now())
		g.Do(func() { g.poll(now()) })
		var m [4]fib.Inject
		g.worker.Injects.Pop(m[:])
		if is := state(); is != last {
			history = append(history, fmt.Sprintf("%2.0f: %s", since.Seconds(), is))
			last = is
		}
		g.key(t, func(k *Keying) { holdAges(t, g, k, since) })
	}
	return history
}

// holdAges checks that who subtracts what is said of an SA's start from the time of
// day gets its age.
func holdAges(t *testing.T, g *gateway, k *Keying, want time.Duration) {
	t.Helper()
	sa, err := k.SA(id(0x2001, here), false)
	if age := g.clock.read().Round(0).Sub(sa.Created.Round(0)); err != nil || age != want {
		t.Errorf("the SA is %v old, says who looks at the clock on the wall, want %v: %v", age, want, err)
	}
	for _, a := range k.Acquires() {
		if age := g.clock.read().Round(0).Sub(a.Time.Round(0)); age < 0 || age >= acquireQuiet {
			t.Errorf("after %v an acquire is %v old", want, age)
		}
	}
}

// TestTheWallClockJumps: lifetimes, acquires, path MTUs, keepalives, drains, larval
// SAs, policies and rate limits go by the time that passes, whatever somebody sets
// the clock to meanwhile.
func TestTheWallClockJumps(t *testing.T) {
	at := func(jumps map[time.Duration]time.Duration) func(time.Duration) time.Duration {
		return func(since time.Duration) (d time.Duration) {
			for from, by := range jumps {
				if since >= from {
					d += by
				}
			}
			return d
		}
	}
	const day = 24 * time.Hour
	steady := lifeOf(t, at(nil))
	if want := []string{
		" 0: 6 SAs, 0 draining, 2 policies, soft 0, hard 0, asked 1, keepalives 0, paths 0-0, audits 0",
		" 3: 6 SAs, 0 draining, 2 policies, soft 0, hard 0, asked 1, keepalives 0, paths 1-0, audits 0",
		"10: 5 SAs, 1 draining, 2 policies, soft 0, hard 0, asked 1, keepalives 0, paths 1-0, audits 0",
		"11: 5 SAs, 0 draining, 2 policies, soft 0, hard 0, asked 1, keepalives 0, paths 1-0, audits 0",
		"20: 5 SAs, 0 draining, 2 policies, soft 0, hard 0, asked 1, keepalives 1, paths 1-0, audits 50",
		"22: 5 SAs, 0 draining, 2 policies, soft 0, hard 0, asked 1, keepalives 1, paths 1-0, audits 70",
		"25: 5 SAs, 0 draining, 2 policies, soft 1, hard 0, asked 1, keepalives 1, paths 1-0, audits 70",
		"30: 5 SAs, 0 draining, 2 policies, soft 1, hard 0, asked 2, keepalives 1, paths 1-0, audits 70",
		"40: 5 SAs, 0 draining, 2 policies, soft 1, hard 0, asked 2, keepalives 2, paths 1-0, audits 70",
		"43: 5 SAs, 0 draining, 2 policies, soft 1, hard 0, asked 2, keepalives 2, paths 1-1, audits 70",
		"55: 4 SAs, 0 draining, 2 policies, soft 1, hard 1, asked 2, keepalives 2, paths 1-1, audits 70",
		"60: 3 SAs, 0 draining, 2 policies, soft 1, hard 1, asked 3, keepalives 3, paths 1-1, audits 70",
		"70: 3 SAs, 0 draining, 1 policies, soft 1, hard 1, asked 3, keepalives 3, paths 1-1, audits 70",
		"80: 2 SAs, 0 draining, 1 policies, soft 1, hard 2, asked 3, keepalives 4, paths 1-1, audits 70",
		"90: 2 SAs, 0 draining, 1 policies, soft 1, hard 2, asked 4, keepalives 4, paths 1-1, audits 70",
	}; !slices.Equal(steady, want) {
		t.Errorf("with a steady clock:\n%s\nwant\n%s", strings.Join(steady, "\n"), strings.Join(want, "\n"))
	}
	for name, jumps := range map[string]map[time.Duration]time.Duration{
		"an hour forward": {6 * time.Second: time.Hour},
		"a day back":      {6 * time.Second: -day},
		"to and fro":      {2 * time.Second: time.Hour, 10 * time.Second: -2 * day, 21 * time.Second: 30 * day, 60 * time.Second: -40 * day},
		"at once":         {0: -10000 * day, time.Second: 20000 * day},
	} {
		if got := lifeOf(t, at(jumps)); !slices.Equal(got, steady) {
			t.Errorf("%s:\n%s\nwith a steady clock:\n%s", name, strings.Join(got, "\n"), strings.Join(steady, "\n"))
		}
	}
}

// TestTimeAsleepCounts: an SA ends in time though the machine was suspended, and
// what two clocks are apart that cannot be read at once is no sleep.
func TestTimeAsleepCounts(t *testing.T) {
	g := newGateway(t)
	var asleep time.Duration
	g.clock.asleep = func() time.Duration { return g.clock.before + asleep }
	g.see()
	g.key(t, func(k *Keying) {
		if err := k.AddSA(daemon, keyedSA(300, here, peer, func(p *SAParams) { p.Hard.Seconds = 3600 })); err != nil {
			t.Fatal(err)
		}
	})
	for _, step := range []struct {
		asleep time.Duration
		age    float64 // at the least, and a minute more at the most
		there  bool
	}{
		{0, 0, true}, {time.Second - 1, 0, true}, {-time.Millisecond, 0, true}, {30 * time.Minute, 1800, true},
		{30*time.Minute - 1, 1800, true}, {time.Hour, 3600, false},
	} {
		asleep = step.asleep
		g.Do(g.clock.look)
		list := g.reportSAs()
		if age := list[0].AgeSeconds; age < step.age || age > step.age+60 {
			t.Errorf("asleep %v: %v seconds old, want %v", asleep, age, step.age)
		}
		g.round(g.clock.now())
		if there := len(g.list()) == 1; there != step.there {
			t.Errorf("asleep %v: there is an SA: %t, want %t", asleep, there, step.there)
		}
	}
	is := newClock()
	if is.look(); is.slept != 0 {
		t.Errorf("this machine has slept %v meanwhile", is.slept)
	}
}
