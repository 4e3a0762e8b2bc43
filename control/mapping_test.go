package control

import (
	"testing"
	"time"

	"spigot/internal/fib"
	"spigot/sad"
)

// TestAPeerThatMovedIsToldOnce: workers repeat themselves, and packets of two
// mappings may meet.
func TestAPeerThatMovedIsToldOnce(t *testing.T) {
	g := newGateway(t)
	g.see()
	udp := func(p *SAParams) { p.Encap = sad.Encap{Type: sad.EncapUDP, SrcPort: 4500, DstPort: 4500} }
	g.key(t, func(k *Keying) {
		for _, p := range []SAParams{keyedSA(300, peer, here, udp), keyedSA(301, peer, here), keyedSA(302, here, peer, udp)} {
			if err := k.AddSA(daemon, p); err != nil {
				t.Fatal(err)
			}
		}
	})
	now := time.Now()
	for _, c := range []struct {
		after time.Duration
		spi   uint32
		dst   string
		from  string
		port  uint16
		told  int
	}{
		{0, 300, here, peer, 4500, 0}, // an update was quicker
		{0, 300, here, peer, 1024, 1},
		{time.Second, 300, here, peer, 1024, 1},
		{1500 * time.Millisecond, 300, here, "198.51.100.1", 1024, 2},
		{1600 * time.Millisecond, 300, here, "198.51.100.7", 1024, 2}, // too soon: sources may be anything
		{3 * time.Second, 300, here, peer, 1024, 3},
		{29 * time.Second, 300, here, peer, 1024, 3},
		{33 * time.Second, 300, here, peer, 1024, 4}, // nobody did anything about it
		{34 * time.Second, 301, here, peer, 1024, 4}, // is not in UDP
		{34 * time.Second, 302, peer, peer, 1024, 4}, // is not inbound
		{34 * time.Second, 999, here, peer, 1024, 4}, // has left
	} {
		p := fib.Punt{Kind: fib.PuntMoved, SPI: c.spi, Dst: addr(c.dst), Via: addr(c.from), SrcPort: c.port}
		g.worker.Punts.Push([]fib.Punt{p})
		g.Do(func() { g.poll(now.Add(c.after)) })
		news := g.hear(EventMapping)
		if len(news) != c.told {
			t.Errorf("%+v: told %d times", c, len(news))
		}
		if n := len(news); n > 0 && c.told == n && c.after < 3*time.Second {
			if e := news[n-1]; e.SA.SPI != 300 || e.SA.Encap.SrcPort != 4500 || e.Port != 1024 || e.SA.EncKey != nil {
				t.Errorf("%+v: %+v", c, e)
			}
		}
	}
	g.key(t, func(k *Keying) {
		p := keyedSA(300, peer, here, udp)
		p.Encap.SrcPort = 1024
		if err := k.UpdateSA(daemon, p); err != nil {
			t.Fatal(err)
		}
	})
	p := fib.Punt{Kind: fib.PuntMoved, SPI: 300, Dst: addr(here), Via: addr(peer), SrcPort: 1024}
	g.worker.Punts.Push([]fib.Punt{p})
	g.Do(func() { g.poll(now.Add(time.Hour)) })
	if n := len(g.hear(EventMapping)); n != 4 {
		t.Errorf("told %d times after the daemon followed", n)
	}
}
