package control

import (
	"testing"
	"testing/synctest"
	"time"

	"spigot/sad"
)

// TestAReplacedInboundSADrains: an inbound SA that a daemon deletes since a newer
// one replaces it opens for another second what is on its way. To daemons it is
// gone at once, and so it is for workers if no newer one is there: then the peer
// is meant.
func TestAReplacedInboundSADrains(t *testing.T) {
	const old, young = 1001, 1002
	add := func(spi uint32, edit ...func(*SAParams)) func(*testing.T, *Keying) {
		return func(t *testing.T, k *Keying) {
			if err := k.AddSA(daemon, keyedSA(spi, peer, here, edit...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	drop := func(spi uint32) func(*testing.T, *Keying) {
		return func(t *testing.T, k *Keying) {
			if _, err := k.DeleteSA(daemon, id(spi, here)); err != nil {
				t.Fatal(err)
			}
			if _, err := k.SA(id(spi, here), false); Errno(err) == 0 {
				t.Error("a daemon still sees the SA")
			}
		}
	}
	flush := func(_ *testing.T, k *Keying) { k.FlushSAs(daemon, 0) }
	wait := func(d time.Duration) func(*testing.T, *Keying) {
		return func(*testing.T, *Keying) { time.Sleep(d) }
	}
	type steps []func(*testing.T, *Keying)
	for _, c := range []struct {
		name  string
		steps steps
		opens bool // the old SA still does
	}{
		{"replaced", steps{add(old), add(young), drop(old)}, true},
		{"for less than a second", steps{add(old), add(young), drop(old), wait(drainTime - time.Millisecond)}, true},
		{"for a second", steps{add(old), add(young), drop(old), wait(drainTime)}, false},
		{"the only one", steps{add(old), drop(old)}, false},
		{"the newest", steps{add(young), add(old), drop(old)}, false},
		{"the other is of another peer", steps{add(old), add(young, from("192.0.2.99")), drop(old)}, false},
		{"the other is of another reqid", steps{add(old), add(young, func(p *SAParams) { p.Reqid = 5 }), drop(old)}, false},
		{"the peer goes meanwhile", steps{add(old), add(young), drop(old), drop(young)}, false},
		{"flushed meanwhile", steps{add(old), add(young), drop(old), flush}, false},
		{"added again meanwhile", steps{add(old), add(young), drop(old), add(old), wait(drainTime)}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway(t)
			g.see()
			var first *sad.Inbound
			for _, step := range c.steps {
				g.key(t, func(k *Keying) { step(t, k) })
				if dst := addr(here); first == nil {
					first = g.sad.Load().Inbound(old, &dst, 50)
				}
			}
			g.Do(func() { g.poll(time.Now()) })
			dst := addr(here)
			if got := g.sad.Load().Inbound(old, &dst, 50); (got != nil) != c.opens {
				t.Errorf("%s: workers have the SA: %v, want %v", c.name, got != nil, c.opens)
			}
			g.cfg.Epochs.Reap()
			if !c.opens && alive(&first.SA) {
				t.Errorf("%s: its key is alive", c.name)
			}
			if n := len(g.drains.list); n > 0 && (!c.opens || n != 1) {
				t.Errorf("%s: %d drain", c.name, n)
			}
		})
	}
}

func from(src string) func(*SAParams) { return func(p *SAParams) { p.Src = addr(src) } }

// TestDrainsAreBounded: what a daemon adds and deletes in a row does not pile up.
func TestDrainsAreBounded(t *testing.T) {
	g := newGateway(t)
	g.see()
	const many = maxDrains + 10
	g.key(t, func(k *Keying) {
		for i := range uint32(many + 1) {
			if err := k.AddSA(daemon, keyedSA(1000+i, peer, here)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range uint32(many) {
			if _, err := k.DeleteSA(daemon, id(1000+i, here)); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n := len(g.drains.list); n != maxDrains {
		t.Errorf("%d drain, want %d", n, maxDrains)
	}
	left := 0
	for range g.db.Inbounds() {
		left++
	}
	if left != maxDrains+1 {
		t.Errorf("workers have %d SAs, want %d", left, maxDrains+1)
	}
}

// TestALarvalSAIsExpected: workers know the SPIs that daemons have reserved, for
// as long as they are.
func TestALarvalSAIsExpected(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*Keying, SA) error
	}{
		{"updated", func(k *Keying, sa SA) error { return k.UpdateSA(daemon, keyedSA(sa.SPI, peer, here)) }},
		{"deleted", func(k *Keying, sa SA) error { _, err := k.DeleteSA(daemon, sa.ID()); return err }},
		{"flushed", func(k *Keying, _ SA) error { k.FlushSAs(daemon, 0); return nil }},
		{"too old", func(k *Keying, _ SA) error { k.c.expire(time.Now().Add(larvalLife)); return nil }},
	} {
		g := newGateway(t)
		g.see()
		var sa SA
		g.key(t, func(k *Keying) {
			var err error
			if sa, err = k.GetSPI(daemon, GetSPIRequest{Proto: 50, Src: addr(peer), Dst: addr(here)}); err != nil {
				t.Fatal(err)
			}
		})
		dst := addr(here)
		if !g.sad.Load().Expected(sa.SPI, &dst, 50) {
			t.Errorf("%s: not expected while larval", c.name)
		}
		g.Do(func() { g.sas.cursor = g.sas.first })
		g.key(t, func(k *Keying) {
			if err := c.end(k, sa); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
		if g.sad.Load().Expected(sa.SPI, &dst, 50) {
			t.Errorf("%s: still expected", c.name)
		}
	}
}
