package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"spigot/control/kernel"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// ask hands the controller an acquire request as a worker does.
func (g *gateway) ask(policy uint32, dst string, now time.Time) {
	g.worker.Acquires.Push([]spd.AcquireRequest{{Policy: policy, Flow: flow.Tuple{Dst: addr(dst)}}})
	g.Do(func() { g.poll(now) })
}

func TestAcquiresAreDeduplicated(t *testing.T) {
	g := newGateway(t)
	g.see()
	anyPeer := protect("10.3.0.0/16", func(p *spd.Policy) { p.Template.Src, p.Template.Dst = flow.Addr{}, flow.Addr{} })
	g.load(t, protect("10.2.0.0/16"), anyPeer)
	one, other := g.spd.Load().Out.Policies()[0].ID, g.spd.Load().Out.Policies()[1].ID
	now := time.Now()
	for _, c := range []struct {
		after  time.Duration
		policy uint32
		dst    string
		sent   int
	}{
		{0, one, "10.2.0.1", 1},
		{time.Second, one, "10.2.0.1", 1},
		{time.Second, one, "10.2.0.2", 1}, // the same peer
		{time.Second, other, "10.3.0.1", 2},
		{time.Second, other, "10.3.0.2", 3}, // the destination is the peer
		{29 * time.Second, one, "10.2.0.1", 3},
		{30 * time.Second, one, "10.2.0.1", 4},
		{30 * time.Second, 9999, "10.2.0.1", 4}, // a policy that has gone
	} {
		g.ask(c.policy, c.dst, now.Add(c.after))
		if len(g.hear(EventAcquire)) != c.sent {
			t.Errorf("%v, policy %d to %s: %d acquires, want %d", c.after, c.policy, c.dst, len(g.hear(EventAcquire)), c.sent)
		}
	}
	a := g.hear(EventAcquire)[0].Acquire
	if a.Policy.ID != one || a.Peer != addr(peer) || a.Flow.Dst != addr("10.2.0.1") {
		t.Errorf("acquire: %+v", a)
	}
	if g.hear(EventAcquire)[2].Acquire.Peer != addr("10.3.0.2") || g.hear(EventAcquire)[2].Acquire.Seq == a.Seq {
		t.Errorf("acquire without a peer: %+v", g.hear(EventAcquire)[2].Acquire)
	}
	if g.stats.Acquires != 8 || g.stats.AcquiresSent != 4 {
		t.Errorf("counted %+v", g.stats)
	}
}

func TestAnAnsweredAcquireMayBeRepeated(t *testing.T) {
	g := newGateway(t)
	g.see()
	p := protect("10.2.0.0/16")
	g.load(t, p)
	id, now := g.spd.Load().Out.Policies()[0].ID, time.Now()
	g.ask(id, "10.2.0.1", now)
	g.load(t, p, sa(300, here, peer))
	g.ask(id, "10.2.0.1", now.Add(time.Second)) // was on its way: there is an SA by now
	if len(g.hear(EventAcquire)) != 1 {
		t.Fatalf("%d acquires, want 1", len(g.hear(EventAcquire)))
	}
	g.load(t, p)
	g.ask(id, "10.2.0.1", now.Add(2*time.Second))
	if len(g.hear(EventAcquire)) != 2 {
		t.Errorf("%d acquires after the SA left, want 2", len(g.hear(EventAcquire)))
	}
}

// TestAFloodOfAcquiresIsBounded: packets to random destinations, for each of
// which a policy without a peer would ask.
func TestAFloodOfAcquiresIsBounded(t *testing.T) {
	g := newGateway(t)
	g.see()
	anyPeer := func(p *spd.Policy) { p.Template.Src, p.Template.Dst = flow.Addr{}, flow.Addr{} }
	parts := []any{protect("10.2.0.0/16")}
	for i := range maxAsks/maxPeers + 1 {
		parts = append(parts, protect(fmt.Sprintf("10.%d.0.0/16", 100+i), anyPeer))
	}
	g.load(t, parts...)
	policies, now := g.spd.Load().Out.Policies(), time.Now()
	flood := func(policy uint32, n int) {
		req := &spd.AcquireRequest{Policy: policy}
		for i := range uint32(n) {
			req.Flow.Dst = flow.V4(0x0a000000 + i)
			g.acquire(req, now)
		}
		g.Do(g.deliver)
	}
	flood(policies[1].ID, 1_000_000)
	if n := len(g.hear(EventAcquire)); n != maxPeers || len(g.asks.byAsk) != maxPeers || g.stats.AcquiresLost != 1_000_000-maxPeers {
		t.Errorf("%d acquires, %d remembered, %d lost", n, len(g.asks.byAsk), g.stats.AcquiresLost)
	}
	flood(policies[0].ID, 1)
	if n := len(g.hear(EventAcquire)); n != maxPeers+1 {
		t.Errorf("%d acquires: another policy's is lost", n)
	}
	for _, p := range policies[2:] {
		flood(p.ID, maxPeers)
	}
	if n := len(g.asks.byAsk); n != maxAsks || len(g.hear(EventAcquire)) != maxAsks {
		t.Errorf("%d remembered", n)
	}
	if n := g.log.count("no SA"); n > 20 {
		t.Errorf("%d log lines at once", n)
	}
	g.Do(func() { g.chores(now.Add(acquireQuiet)) })
	if len(g.asks.byAsk)+len(g.asks.bySeq)+len(g.asks.byPolicy) != 0 {
		t.Errorf("%d still remembered", len(g.asks.byAsk))
	}
}

func punt(kind fib.PuntKind, packet []byte, edit ...func(*fib.Punt)) *fib.Punt {
	p := &fib.Punt{Kind: kind, MTU: 1400}
	p.Len = uint16(copy(p.Data[:], packet))
	for _, f := range edit {
		f(p)
	}
	return p
}

// give hands the controller a punt as a worker does and returns the answer.
func (g *gateway) give(p *fib.Punt, now time.Time) *fib.Inject {
	g.worker.Punts.Push([]fib.Punt{*p})
	g.Do(func() { g.poll(now) })
	var got [1]fib.Inject
	if g.worker.Injects.Pop(got[:]) == 0 {
		return nil
	}
	return &got[0]
}

func TestAnswersComeFromAnAddressOfTheGateway(t *testing.T) {
	secured := func(p *fib.Punt) { p.Secured = true }
	port := func(n uint16) func(*fib.Punt) { return func(p *fib.Punt) { p.Port = n } }
	p4, p6 := udp4(t, "10.1.0.2", "10.2.0.2", 100), udp6(t, "fd01::2", "fd02::2", 100)
	for _, c := range []struct {
		name   string
		punt   *fib.Punt
		src    string // "": no answer
		policy bool
	}{
		{"from the protected side", punt(fib.PuntTooBig, p4), "10.1.0.1", false},
		{"IPv6, not the link-local address", punt(fib.PuntTooBig, p6), "fd01::1", false},
		{"TTL", punt(fib.PuntTTL, p4), "10.1.0.1", false},
		{"clear from the wire", punt(fib.PuntTTL, p4, port(1)), "192.0.2.1", false},
		{"by an SA: an address that the peer's policies know", punt(fib.PuntTTL, p4, port(1), secured), "10.1.0.1", true},
		{"by an SA, IPv6", punt(fib.PuntTooBig, p6, port(1), secured), "fd01::1", true},
		{"from a port that does not exist", punt(fib.PuntTTL, p4, port(77)), "10.1.0.1", false},
		{"an ICMP error", punt(fib.PuntTTL, p4[:19]), "", false},
		{"a length that lies", punt(fib.PuntTTL, p4, func(p *fib.Punt) { p.Len = 65535 }), "10.1.0.1", false},
		{"of no kind", punt(0, p4), "", false},
	} {
		g := newGateway(t)
		g.see()
		got := g.give(c.punt, time.Now())
		switch {
		case got == nil && c.src != "":
			t.Errorf("%s: no answer; %+v", c.name, g.stats)
		case got != nil && c.src == "":
			t.Errorf("%s: answered", c.name)
		case got == nil:
		default:
			packet := got.Data[:got.Len]
			src := flow.From4(packet[12:])
			if packet[0]>>4 == 6 {
				src = flow.From16(packet[8:])
			}
			if src != addr(c.src) || got.Policy != c.policy {
				t.Errorf("%s: from %v, by policy %v", c.name, src, got.Policy)
			}
		}
	}
}

func TestNoAnswerWithoutAnAddress(t *testing.T) {
	g := newGateway(t)
	if g.give(punt(fib.PuntTTL, udp4(t, "10.1.0.2", "10.2.0.2", 1)), time.Now()) != nil || g.stats.ICMPRefused != 1 {
		t.Errorf("before the mirror has spoken: %+v", g.stats)
	}
}

func TestAnswersAreRateLimited(t *testing.T) {
	g := newGateway(t)
	g.see()
	p, now := punt(fib.PuntTTL, udp4(t, "10.1.0.2", "10.2.0.2", 1)), time.Now()
	sent := func(n int, at time.Time) (sent int) {
		for range n {
			if g.give(p, at) != nil {
				sent++
			}
		}
		return sent
	}
	if n := sent(300, now); n != ttlRate {
		t.Errorf("%d answers at once, want %d", n, ttlRate)
	}
	if n := sent(300, now.Add(time.Second/2)); n != ttlRate/2 {
		t.Errorf("%d answers half a second later, want %d", n, ttlRate/2)
	}
	if g.stats.ICMPSent != ttlRate*3/2 || g.stats.ICMPLimited != 600-ttlRate*3/2 {
		t.Errorf("counted %+v", g.stats)
	}
	p.Kind, p.MTU = fib.PuntTooBig, 1400
	if n := sent(2*tooBigRate, now.Add(time.Second)); n != tooBigRate {
		t.Errorf("%d answers to packets that are too big, want %d", n, tooBigRate)
	}
}

func TestAFullInjectRingLosesTheAnswerOnly(t *testing.T) {
	g := newGateway(t)
	g.see()
	for range g.worker.Injects.Cap() {
		g.worker.Injects.Push([]fib.Inject{{}})
	}
	g.Do(func() { g.punt(0, punt(fib.PuntTTL, udp4(t, "10.1.0.2", "10.2.0.2", 1)), time.Now()) })
	if g.stats.ICMPLost != 1 {
		t.Errorf("counted %+v", g.stats)
	}
}

func TestResolveGoesToTheKernel(t *testing.T) {
	g := newGateway(t)
	g.see()
	for _, port := range []uint16{1, 0, 7} {
		g.give(&fib.Punt{Kind: fib.PuntResolve, Port: port, Via: addr("192.0.2.9")}, time.Now())
	}
	want := []resolveCall{{12, addr("192.0.2.9")}, {11, addr("192.0.2.9")}}
	if !slices.Equal(g.mirror.resolved, want) {
		t.Errorf("resolved %v, want %v", g.mirror.resolved, want)
	}
}

func TestLifetimes(t *testing.T) {
	limit := func(soft, hard sad.Lifetime) func(*sad.Params) {
		return func(p *sad.Params) { p.Soft, p.Hard = soft, hard }
	}
	type use struct {
		at             time.Duration // when the lifetimes are judged
		packets, bytes uint64        // carried just before
		want           string        // "", "soft REASON" or "hard REASON"
	}
	for _, c := range []struct {
		name  string
		limit func(*sad.Params)
		uses  []use
	}{
		{"time", limit(sad.Lifetime{Seconds: 10}, sad.Lifetime{Seconds: 20}), []use{
			{9 * time.Second, 1, 1, ""}, {10 * time.Second, 0, 0, "soft time"}, {11 * time.Second, 0, 0, ""}, {20 * time.Second, 0, 0, "hard time"}}},
		{"bytes", limit(sad.Lifetime{Bytes: 100}, sad.Lifetime{Bytes: 200}), []use{
			{time.Second, 1, 99, ""}, {time.Second, 1, 1, "soft bytes"}, {2 * time.Second, 1, 99, ""}, {2 * time.Second, 1, 1, "hard bytes"}}},
		{"packets", limit(sad.Lifetime{Packets: 2}, sad.Lifetime{Packets: 3}), []use{
			{0, 1, 1, ""}, {infancy - 1, 1, 1, ""}, {infancy, 0, 0, "soft packets"}, {infancy + grace - 1, 1, 1, ""},
			{infancy + grace, 0, 0, "hard packets"}}},
		{"first use", limit(sad.Lifetime{UseSeconds: 5}, sad.Lifetime{UseSeconds: 8}), []use{
			{100 * time.Second, 0, 0, ""}, {101 * time.Second, 1, 1, ""}, {105 * time.Second, 0, 0, ""},
			{106 * time.Second, 0, 0, "soft use time"}, {109 * time.Second, 0, 0, "hard use time"}}},
		{"hard alone", limit(sad.Lifetime{}, sad.Lifetime{Packets: 1}), []use{{0, 5, 5, "hard packets"}}},
		{"both at once are soft first", limit(sad.Lifetime{Packets: 1}, sad.Lifetime{Packets: 1}), []use{
			{0, 1, 1, ""}, {infancy, 0, 0, "soft packets"}, {infancy + grace - 1, 0, 0, ""}, {infancy + grace, 0, 0, "hard packets"}}},
		{"time and bytes at once", limit(sad.Lifetime{Seconds: 10}, sad.Lifetime{Bytes: 9}), []use{
			{10 * time.Second, 1, 9, "soft time"}, {11 * time.Second, 0, 0, "hard bytes"}}},
		{"hard before soft", limit(sad.Lifetime{Packets: 9}, sad.Lifetime{Packets: 1}), []use{{0, 1, 1, "hard packets"}}},
		{"none", limit(sad.Lifetime{}, sad.Lifetime{}), []use{{1e6 * time.Second, 1e9, 1e12, ""}}},
		{"for ever", limit(sad.Lifetime{}, sad.Lifetime{Seconds: math.MaxUint64}), []use{{1e6 * time.Second, 1, 1, ""}}},
	} {
		for _, dir := range []string{DirIn, DirOut} {
			src, dst := here, peer
			if dir == DirIn {
				src, dst = peer, here
			}
			g := newGateway(t)
			g.see()
			g.load(t, sa(300, src, dst, c.limit), protect("10.2.0.0/16"))
			r := g.list()[0]
			for _, u := range c.uses {
				if r.in != nil {
					r.in.Count(u.packets, u.bytes)
				} else {
					r.out.Count(u.packets, u.bytes)
				}
				g.hear(EventExpire)
				g.news = nil
				g.Do(func() { g.chores(r.added.Add(u.at)) })
				got := ""
				for _, e := range g.hear(EventExpire) {
					got = map[bool]string{false: "soft ", true: "hard "}[e.Hard] + e.Reason
				}
				if got != u.want || len(g.hear(EventExpire)) > 1 {
					t.Errorf("%s, %s, after %v: %q, want %q", c.name, dir, u.at, got, u.want)
				}
			}
			last := c.uses[len(c.uses)-1].want
			if gone := len(g.list()) == 0; gone != (len(last) > 4 && last[:4] == "hard") {
				t.Errorf("%s, %s: gone %v at the end", c.name, dir, gone)
			}
		}
	}
}

// TestCountsAreJudgedBetweenRounds: SAs with a lifetime in bytes or packets do
// not wait for the second to end, and no others are looked at.
func TestCountsAreJudgedBetweenRounds(t *testing.T) {
	limit := func(soft, hard sad.Lifetime) func(*SAParams) {
		return func(p *SAParams) { p.Soft, p.Hard = soft, hard }
	}
	none := limit(sad.Lifetime{}, sad.Lifetime{})
	bytes := limit(sad.Lifetime{Bytes: 100}, sad.Lifetime{Bytes: 200})
	packets := limit(sad.Lifetime{}, sad.Lifetime{Packets: 1})
	for _, c := range []struct {
		name          string
		first, second func(*SAParams) // that it is added with, and updated to
		watched       bool
		after         []string // what each poll of three, a second apart, tells
	}{
		{"bytes", bytes, bytes, true, []string{"soft bytes", "hard bytes", ""}},
		{"packets", packets, packets, true, []string{"hard packets", "", ""}},
		{"seconds", limit(sad.Lifetime{}, sad.Lifetime{Seconds: 1}), limit(sad.Lifetime{}, sad.Lifetime{Seconds: 1}), false, []string{"", "", ""}},
		{"bytes by an update", none, bytes, true, []string{"soft bytes", "hard bytes", ""}},
		{"no more by an update", bytes, none, false, []string{"", "", ""}},
	} {
		g := newGateway(t)
		g.see()
		g.key(t, func(k *Keying) {
			for i := range uint32(4) { // others before and behind it
				edit := none
				if i == 1 {
					edit = c.first
				} else if i == 3 {
					edit = limit(sad.Lifetime{}, sad.Lifetime{Bytes: 1e9})
				}
				if err := k.AddSA(daemon, keyedSA(300+i, here, peer, edit)); err != nil {
					t.Fatal(err)
				}
			}
			if err := k.UpdateSA(daemon, keyedSA(301, here, peer, c.second)); err != nil {
				t.Fatal(err)
			}
		})
		r := g.list()[1]
		if got := len(g.sas.watched) == 2; got != c.watched {
			t.Errorf("%s: watched %v, want %v", c.name, got, c.watched)
		}
		r.out.Count(1, 200)
		for i, want := range c.after {
			g.news = nil
			g.Do(func() { g.poll(r.added.Add(time.Duration(i+1) * time.Second)) })
			got := ""
			for _, e := range g.hear(EventExpire) {
				got += map[bool]string{false: "soft ", true: "hard "}[e.Hard] + e.Reason
			}
			if got != want {
				t.Errorf("%s, poll %d: %q, want %q", c.name, i, got, want)
			}
		}
		g.key(t, func(k *Keying) { k.FlushSAs(daemon, 0) })
		if len(g.sas.watched) != 0 {
			t.Errorf("%s: %d are watched that are gone", c.name, len(g.sas.watched))
		}
	}
}

// TestManySAsAreJudgedInSlices: a round ends, whatever is deleted meanwhile,
// and no slice is long.
func TestManySAsAreJudgedInSlices(t *testing.T) {
	g := newGateway(t)
	g.see()
	const n = 3*minSlice + 100
	g.key(t, func(k *Keying) {
		for i := range uint32(n) {
			p := keyedSA(1000+i, here, peer, func(p *SAParams) { p.Hard.Seconds = 10 })
			if err := k.AddSA(daemon, p); err != nil {
				t.Fatal(err)
			}
		}
	})
	if polls := g.round(time.Now()); polls != 3 || len(g.list()) != n {
		t.Errorf("%d polls after the first slice, %d SAs", polls, len(g.list()))
	}
	late := time.Now().Add(time.Minute)
	g.Do(func() { g.chores(late) })
	if left := len(g.list()); left != n-minSlice {
		t.Errorf("%d SAs after the first slice", left)
	}
	g.key(t, func(k *Keying) { // the one that is next among them
		for _, r := range g.list()[:10] {
			if _, err := k.DeleteSA(daemon, r.id); err != nil {
				t.Fatal(err)
			}
		}
	})
	if g.round(late); len(g.list()) != 0 || len(g.hear(EventExpire)) != n-10 {
		t.Errorf("%d SAs after the round, %d expired", len(g.list()), len(g.hear(EventExpire)))
	}
}

func TestAnExpiredSaIsReplacedAndStaysAway(t *testing.T) {
	g := newGateway(t)
	g.see()
	old := sa(301, here, peer, func(p *sad.Params) { p.Hard.Packets = 1 })
	parts := []any{sa(300, here, peer), old, protect("10.2.0.0/16")}
	g.load(t, parts...)
	expired := g.list()[1]
	expired.out.Count(1, 1)
	g.Do(func() { g.chores(time.Now()); g.poll(time.Now()) })
	if got := g.boundTo(t, "to 10.2.0.0/16"); got != 300 {
		t.Errorf("bound to %d, want the one that is left", got)
	}
	if alive(expired.sa()) {
		t.Error("the key of an expired SA is alive")
	}
	g.load(t, parts...)
	if len(g.list()) != 1 || g.log.count("stays away") != 1 {
		t.Errorf("%d SAs after a reload, want 1: the sequence numbers would start again", len(g.list()))
	}
}

func TestSequenceExhaustionIsAHardExpiry(t *testing.T) {
	for _, c := range []struct {
		name string
		esn  bool
		used []int
		gone bool
	}{
		{"last number but one", false, []int{math.MaxUint32 - 1}, false},
		{"last number", false, []int{math.MaxUint32 - 1, 1}, true},
		{"ESN", true, []int{math.MaxUint32, 10}, false},
	} {
		g := newGateway(t)
		g.see()
		g.load(t, sa(300, here, peer, func(p *sad.Params) { p.ESN = c.esn }), protect("10.2.0.0/16"))
		for _, n := range c.used {
			g.list()[0].out.Reserve(n)
		}
		g.Do(func() { g.chores(time.Now()) })
		if gone := len(g.list()) == 0; gone != c.gone || gone && g.hear(EventExpire)[0].Reason != "sequence" {
			t.Errorf("%s: gone %v, %+v", c.name, gone, g.hear(EventExpire))
		}
	}
}

func TestSteeringTroubleIsToldOnce(t *testing.T) {
	g := newGateway(t)
	now := time.Now()
	for _, err := range []error{nil, errors.New("program detached"), errors.New("program detached"), nil, nil} {
		g.steering = err
		g.Do(func() { g.chores(now) })
	}
	if a, b := g.log.count("does not receive"), g.log.count("receives again"); a != 1 || b != 1 {
		t.Errorf("told %d times of trouble and %d times of its end", a, b)
	}
}

func TestSteeringIsToldAgainAfterAFailure(t *testing.T) {
	calls, fail := 0, errors.New("map is gone")
	g := newGateway(t, func(c *Config) {
		c.Ports[0].SetLocal = func([]netip.Addr) error { calls++; return fail }
	})
	g.see()
	g.Do(func() { g.chores(time.Now()) })
	fail = nil
	g.Do(func() { g.chores(time.Now()) })
	g.Do(func() { g.chores(time.Now()) })
	if n := g.log.count("map is gone"); calls != 3 || n != 1 {
		t.Errorf("%d calls, %d log lines", calls, n)
	}
}

func TestRunServesRingsAndMirror(t *testing.T) {
	g := newGateway(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	v := &kernel.View{FIB: fib.Config{Local: []flow.Addr{addr(here)}},
		Ports: []kernel.PortState{{Name: "in0", Index: 11, Addrs: addrs("10.1.0.1")}, {Name: "out0", Index: 12}}}
	before := g.fib.Load()
	g.mirror.updates <- v
	g.load(t, sa(300, here, peer), protect("10.2.0.0/16"), protect("10.3.0.0/16", func(p *spd.Policy) { p.Template.Reqid = 4 }))
	unbound := g.spd.Load().Out.Policies()[1].ID
	deadline := time.Now().Add(5 * time.Second)
	wait := func(what string, ok func() bool) {
		t.Helper()
		for yes := false; !yes; time.Sleep(time.Millisecond) {
			g.Do(func() { yes = ok() })
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	wait("the view", func() bool { return g.view == v && g.fib.Load() != before })
	wait("the SA", func() bool { return len(g.list()) == 1 })
	g.worker.Acquires.Push([]spd.AcquireRequest{{Policy: unbound}})
	g.worker.Punts.Push([]fib.Punt{*punt(fib.PuntTTL, udp4(t, "10.1.0.2", "10.2.0.2", 1))})
	wait("the acquire", func() bool { return len(g.hear(EventAcquire)) == 1 })
	wait("the answer", func() bool { return g.worker.Injects.Len() == 1 })
	g.steering = nil
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestABadConfigIsRefused(t *testing.T) {
	if _, err := New(Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("empty: %v", err)
	}
	g := newGateway(t)
	for name, edit := range map[string]func(*Config){
		"side":   func(c *Config) { c.Ports = []Port{{Name: "x", Side: "left"}} },
		"worker": func(c *Config) { c.Workers = []Worker{{}} },
	} {
		cfg := g.cfg
		edit(&cfg)
		if _, err := New(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
