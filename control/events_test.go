package control

import (
	"sync"
	"testing"
	"time"

	"spigot/internal/flow"
	"spigot/spd"
)

// take returns the kinds of the events that wait in s.
func take(s *Subscriber, most int) (kinds []EventKind, lost uint64) {
	buf := make([]Event, most)
	for _, e := range buf[:s.Take(buf)] {
		kinds = append(kinds, e.Kind)
		lost += e.Lost
	}
	return kinds, lost
}

func ready(s *Subscriber) bool {
	select {
	case <-s.Ready():
		return true
	default:
		return false
	}
}

// TestASlowSubscriberLosesItsOwnEvents and is told how many, where they are
// missing.
func TestASlowSubscriberLosesItsOwnEvents(t *testing.T) {
	g := newGateway(t)
	g.see()
	slow := g.Subscribe(Interest{Kinds: KindSet(EventSA)}, 3)
	if ready(slow) {
		t.Error("ready without news")
	}
	spi := uint32(300)
	add := func(n int) {
		for range n {
			spi++
			g.key(t, func(k *Keying) {
				if err := k.AddSA(daemon, keyedSA(spi, here, peer)); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	for _, c := range []struct {
		add, take int
		events    int // taken, without the marker
		lost      uint64
	}{
		{2, 10, 2, 0},
		{3, 10, 3, 0},
		{5, 10, 3, 2},
		{5, 2, 2, 0}, // the marker comes behind what waits
		{1, 2, 1, 3}, // 2 of before and one while the marker waited
		{1, 10, 1, 0},
		{0, 10, 0, 0},
	} {
		add(c.add)
		if !ready(slow) && c.add > 0 {
			t.Errorf("%+v: not ready", c)
		}
		kinds, lost := take(slow, c.take)
		events := len(kinds)
		if lost > 0 {
			if events--; kinds[events] != EventLost {
				t.Errorf("%+v: the marker is not the last", c)
			}
		}
		if events != c.events || lost != c.lost {
			t.Errorf("%+v: %d events and %d lost", c, events, lost)
		}
	}
	if n := len(g.hear(EventSA)); n != 17 {
		t.Errorf("the other subscriber heard %d, want 17", n)
	}
	slow.Close()
	add(1)
	if kinds, _ := take(slow, 10); len(kinds) != 0 {
		t.Errorf("after Close: %v", kinds)
	}
}

func TestSubscribersHearWhatTheyWant(t *testing.T) {
	for _, c := range []struct {
		name     string
		interest Interest
		want     int // of one SA added and expired and one acquire, all of ESP
	}{
		{"nothing", Interest{}, 0},
		{"all", Interest{Kinds: AllKinds}, 3},
		{"additions", Interest{Kinds: KindSet(EventSA)}, 1},
		{"registered for ESP", Interest{Kinds: KindSet(EventAcquire, EventExpire), Protos: []uint8{50}}, 2},
		{"registered for AH", Interest{Kinds: KindSet(EventAcquire, EventExpire), Protos: []uint8{51}}, 0},
		{"registered for nothing", Interest{Kinds: KindSet(EventAcquire, EventExpire), Protos: []uint8{}}, 0},
		{"AH, and all additions", Interest{Kinds: KindSet(EventSA, EventExpire), Protos: []uint8{51}}, 1},
	} {
		for _, late := range []bool{false, true} {
			g := newGateway(t)
			g.see()
			first := c.interest
			if late {
				first = Interest{}
			}
			s := g.Subscribe(first, 10)
			s.Want(c.interest)
			g.load(t, protect("10.2.0.0/16"))
			g.ask(1, "10.2.0.1", time.Now())
			g.key(t, func(k *Keying) {
				p := keyedSA(300, here, peer, func(p *SAParams) { p.Hard.Seconds = 1 })
				if err := k.AddSA(daemon, p); err != nil {
					t.Fatal(err)
				}
			})
			g.Do(func() { g.chores(time.Now().Add(time.Minute)) })
			if kinds, _ := take(s, 10); len(kinds) != c.want {
				t.Errorf("%s: heard %v, want %d", c.name, kinds, c.want)
			}
		}
	}
}

func TestAnAcquireIsFoundByItsNumber(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.load(t, protect("10.2.0.0/16"), protect("10.3.0.0/16", func(p *spd.Policy) {
		p.Template = spd.Template{Proto: 50, Mode: spd.Transport}
	}))
	now := time.Now()
	g.ask(1, "10.2.0.1", now)
	g.ask(2, "10.3.0.1", now)
	var one, two *Acquire
	if news := g.hear(EventAcquire); len(news) == 2 {
		one, two = news[0].Acquire, news[1].Acquire
	} else {
		t.Fatalf("%d acquires", len(news))
	}
	if one.Peer != addr(peer) || one.Src != addr(here) || two.Peer != addr("10.3.0.1") || two.Src != (flow.Addr{}) {
		t.Errorf("acquires %+v, %+v", one, two)
	}
	g.key(t, func(k *Keying) {
		if a, ok := k.Acquire(one.Seq); !ok || a.Policy.ID != 1 || a.Flow.Dst != addr("10.2.0.1") {
			t.Errorf("found %v %+v", ok, a)
		}
		if _, ok := k.Acquire(99); ok || k.FailAcquire(99) {
			t.Error("found one that was never made")
		}
		if !k.FailAcquire(two.Seq) || k.FailAcquire(two.Seq) {
			t.Error("an acquire fails once")
		}
		if err := k.AddSA(daemon, keyedSA(300, here, peer)); err != nil {
			t.Fatal(err)
		}
	})
	g.key(t, func(k *Keying) {
		if _, ok := k.Acquire(one.Seq); ok {
			t.Error("found one that is answered")
		}
	})
	g.ask(2, "10.3.0.1", now.Add(time.Second))
	if n := len(g.hear(EventAcquire)); n != 3 {
		t.Errorf("%d acquires after one has failed, want 3", n)
	}
	if len(g.asks.bySeq) != 1 || len(g.asks.byPolicy) != 1 || len(g.asks.byAsk) != 1 {
		t.Errorf("remembers %d, %d, %d", len(g.asks.bySeq), len(g.asks.byPolicy), len(g.asks.byAsk))
	}
}

// TestAnUnheardAcquireIsRepeated: a daemon that starts late need not wait until
// the quiet time is over.
func TestAnUnheardAcquireIsRepeated(t *testing.T) {
	g := newGateway(t)
	g.events.Close()
	g.load(t, protect("10.2.0.0/16"))
	now := time.Now()
	g.ask(1, "10.2.0.1", now)
	if g.stats.AcquiresSent != 1 {
		t.Fatalf("%+v: an acquire is recorded although nobody listens", g.stats)
	}
	s := g.Subscribe(Interest{Kinds: KindSet(EventAcquire), Protos: []uint8{51}}, 10)
	g.ask(1, "10.2.0.1", now)
	s.Want(Interest{Kinds: KindSet(EventAcquire), Protos: []uint8{50}})
	if kinds, _ := take(s, 10); len(kinds) != 0 {
		t.Errorf("heard %v", kinds)
	}
	g.ask(1, "10.2.0.1", now)
	g.ask(1, "10.2.0.1", now)
	if kinds, _ := take(s, 10); len(kinds) != 1 {
		t.Errorf("heard %v after it has registered, want one acquire", kinds)
	}
}

// TestFrontEndsWorkAtTheSameTime is for the race detector.
func TestFrontEndsWorkAtTheSameTime(t *testing.T) {
	g := newGateway(t)
	g.see()
	var all sync.WaitGroup
	for i := range uint32(4) {
		s := g.Subscribe(Interest{Kinds: AllKinds}, 8)
		all.Go(func() {
			defer s.Close()
			by := Origin{Client: g.NewClient()}
			for j := range uint32(50) {
				p := keyedSA(1000*(i+1)+j, here, peer)
				err := g.Keying(func(k *Keying) {
					if err := k.AddSA(by, p); err != nil {
						t.Error(err)
					}
				})
				if err != nil {
					t.Error(err)
				}
				take(s, 4)
				var d *SADump
				_ = g.Keying(func(k *Keying) { d = k.DumpSAs(0) })
				for buf := make([]SA, 16); d.Next(buf, true) > 0; {
				}
				_ = g.Keying(func(k *Keying) { _, _ = k.DeleteSA(by, p.ID()) })
			}
		})
	}
	all.Wait()
	if n := len(g.list()); n != 0 {
		t.Errorf("%d SAs are left", n)
	}
}
