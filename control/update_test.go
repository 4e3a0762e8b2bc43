package control

import (
	"errors"
	"math"
	"testing"
	"time"

	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// TestAnOutboundSAMoves: its source changes and nothing else, so that no IV is
// used twice and no policy changes its SA.
func TestAnOutboundSAMoves(t *testing.T) {
	g := newGateway(t)
	g.see("192.0.2.7")
	g.load(t, protect("10.2.0.0/16", func(p *spd.Policy) { p.Template.Src = flow.Addr{} }))
	g.key(t, func(k *Keying) {
		p := keyedSA(300, here, peer, func(p *SAParams) { p.Hard.Packets = 10 })
		if err := k.AddSA(daemon, p); err != nil {
			t.Fatal(err)
		}
	})
	r := g.list()[0]
	old := r.out
	old.Reserve(5)
	old.Count(5, 500)
	g.Do(func() { g.chores(time.Now()) })
	used := r.used
	move := func(src string) {
		t.Helper()
		g.key(t, func(k *Keying) {
			p := keyedSA(300, src, peer, func(p *SAParams) { p.Hard.Packets, p.EncKey, p.AuthKey = 10, nil, nil })
			if err := k.UpdateSA(daemon, p); err != nil {
				t.Fatal(err)
			}
		})
	}
	move("192.0.2.7")
	now := g.sad.Load().Outbound(1)
	if now == old || now == nil || now.Src != addr("192.0.2.7") || now.Dst != addr(peer) || now.SPI != 300 {
		t.Fatalf("the policy uses %v", now)
	}
	if first, _ := now.Reserve(1); first <= old.Seq() || first > old.Seq()+2*moveGap {
		t.Errorf("the next number is %d, after %d", first, old.Seq())
	}
	old.Reserve(64) // a worker that had it in hand
	if old.Seq() >= now.Seq() {
		t.Error("a number is used twice")
	}
	g.key(t, func(k *Keying) {
		if v, _ := k.SA(r.id, false); v.Packets != 5 || v.Bytes != 500 || !v.FirstUse.Equal(used) || v.Src != addr("192.0.2.7") {
			t.Errorf("it became %+v", v)
		}
		if err := k.AddSA(daemon, keyedSA(301, here, peer)); err != nil {
			t.Fatal(err)
		}
	})
	g.Do(func() { g.poll(time.Now()) })
	if alive(&old.SA) || !alive(&now.SA) {
		t.Error("the key of the old one lives, or that of the new one does not")
	}
	move(here)
	if spi := g.boundTo(t, "to 10.2.0.0/16"); spi != 301 {
		t.Errorf("bound to %d: an SA that moves is not the newest for that", spi)
	}
	r.out.Count(5, 0)
	g.Do(func() { g.chores(time.Now()) })
	if e := g.hear(EventExpire); len(e) != 1 || !e[0].Hard {
		t.Errorf("what it carried before it moved does not count: %+v", e)
	}
}

func TestWhatDoesNotMove(t *testing.T) {
	for _, c := range []struct {
		name     string
		src, dst string
		add      func(*SAParams)
		update   func(*SAParams)
		is       error
	}{
		{"an inbound SA's source", peer, here, func(*SAParams) {}, func(p *SAParams) { p.Src = addr("192.0.2.9") }, ErrUnsupported},
		{"an encapsulation that is none", here, peer, func(*SAParams) {}, func(p *SAParams) { p.Encap.Type = 99 }, ErrUnsupported},
		{"the same inbound", peer, here, func(*SAParams) {}, func(p *SAParams) { p.Encap.Type = 99 }, ErrUnsupported},
		{"a source of another family", here, peer, func(*SAParams) {}, func(p *SAParams) { p.Src = addr("2001:db8::1") }, ErrInvalid},
		{"numbers that are used up", here, peer, func(p *SAParams) { p.Replay.Seq = math.MaxUint32 - moveGap + 1 },
			func(p *SAParams) { p.Src = addr("10.1.0.1") }, ErrInvalid},
		{"the same with ESN", here, peer, func(p *SAParams) { p.ESN, p.Replay = true, sad.Replay{Seq: math.MaxUint64 - 1} },
			func(p *SAParams) { p.Src = addr("10.1.0.1") }, ErrInvalid},
	} {
		g := newGateway(t)
		g.see()
		p := keyedSA(300, c.src, c.dst, c.add)
		g.key(t, func(k *Keying) {
			if err := k.AddSA(daemon, p); err != nil {
				t.Fatal(c.name, err)
			}
			before, _ := k.SA(p.ID(), false)
			c.update(&p)
			p.Hard.Seconds = 99
			if err := k.UpdateSA(daemon, p); !errors.Is(err, c.is) {
				t.Errorf("%s: %v, want %v", c.name, err, c.is)
			}
			if after, _ := k.SA(p.ID(), false); after.Src != before.Src || after.Hard != before.Hard || after.Encap != before.Encap {
				t.Errorf("%s: half of it is done: %+v", c.name, after)
			}
		})
	}
}
