package control

import (
	"testing"
	"time"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/sad"
)

// A NAT-keepalive goes to a peer of ESP in UDP when nothing else has gone there
// for the configured time: one a peer, however many SAs lead there, and none
// where ESP is a protocol of its own.
func TestKeepalives(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.NATKeepalive = 20 * time.Second })
	g.see()
	udp := func(port uint16) func(p *SAParams) {
		return func(p *SAParams) { p.Encap = sad.Encap{Type: sad.EncapUDP, SrcPort: 4500, DstPort: port} }
	}
	g.key(t, func(k *Keying) {
		for _, p := range []SAParams{
			keyedSA(300, here, peer, udp(1024)), keyedSA(301, here, peer, udp(1024)), // one path
			keyedSA(302, here, "192.0.2.9"),
			keyedSA(303, peer, here, udp(4500)), // inbound
			keyedSA(304, "2001:db8::1", "2001:db8::2", udp(4500)),
		} {
			if err := k.AddSA(daemon, p); err != nil {
				t.Fatal(err)
			}
		}
	})
	start := time.Now()
	use := func(spi uint32) func() {
		return func() {
			for _, r := range g.list() {
				if r.id.SPI == spi {
					r.out.Count(1, 100)
				}
			}
		}
	}
	drop := func() {
		g.key(t, func(k *Keying) {
			if _, err := k.DeleteSA(daemon, SAID{SPI: 304, Dst: addr("2001:db8::2"), Proto: 50}); err != nil {
				t.Fatal(err)
			}
		})
	}
	const v4, v6 = peer, "2001:db8::2"
	for _, step := range []struct {
		at   time.Duration
		do   func()
		want []string
	}{
		{0, nil, nil},
		{19 * time.Second, nil, nil},
		{20 * time.Second, nil, []string{v4, v6}},
		{39 * time.Second, nil, nil},
		{41 * time.Second, use(300), []string{v6}}, // seen in use now, and counts from now
		{60 * time.Second, nil, nil},
		{61 * time.Second, nil, []string{v4, v6}},
		{70 * time.Second, use(301), nil},
		{81 * time.Second, drop, nil},
		{90 * time.Second, nil, []string{v4}},
		{200 * time.Second, nil, []string{v4}},
	} {
		if step.do != nil {
			step.do()
		}
		g.round(start.Add(step.at))
		got := map[string]bool{}
		var m [1]fib.Inject
		for g.worker.Injects.Pop(m[:]) == 1 {
			got[holdKeepalive(t, &m[0])] = true
		}
		if len(got) != len(step.want) {
			t.Errorf("%v: to %v, want %v", step.at, got, step.want)
		}
		for _, to := range step.want {
			if !got[to] {
				t.Errorf("%v: none to %s", step.at, to)
			}
		}
	}
	if n := len(g.alive.paths); n != 1 {
		t.Errorf("%d paths are remembered", n)
	}
	if g.stats.Keepalives != 7 {
		t.Errorf("%d were counted", g.stats.Keepalives)
	}
}

// holdKeepalive holds that m is a good keepalive and returns to whom.
func holdKeepalive(t *testing.T, m *fib.Inject) string {
	t.Helper()
	var tuple flow.Tuple
	info, r := wire.Classify(m.Data[:m.Len], &tuple)
	udp := wire.UDP(m.Data[info.HeaderLen:m.Len])
	if r != counter.None || m.Policy || info.Proto != wire.ProtoUDP || len(udp) != 9 || udp.Len() != 9 || udp[8] != 0xff {
		t.Errorf("no keepalive: %v % x", r, m.Data[:m.Len])
	}
	port := uint16(4500)
	if !info.V6 {
		port = 1024
		if udp.Checksum() != 0 {
			t.Error("a checksum over IPv4")
		}
	} else if sum := wire.UpperChecksum(tuple.Src, tuple.Dst, wire.ProtoUDP, udp); sum != 0 {
		t.Errorf("the checksum over IPv6 is off by %#x", sum)
	}
	if tuple.SrcPort != 4500 || tuple.DstPort != port {
		t.Errorf("from %v", tuple)
	}
	return tuple.Dst.String()
}

func TestNoKeepalivesUnlessAsked(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.key(t, func(k *Keying) {
		p := keyedSA(300, here, peer)
		p.Encap = sad.Encap{Type: sad.EncapUDP, SrcPort: 4500, DstPort: 4500}
		if err := k.AddSA(daemon, p); err != nil {
			t.Fatal(err)
		}
	})
	for i := range 5 {
		g.round(time.Now().Add(time.Duration(i) * time.Hour))
	}
	if n := g.worker.Injects.Len(); n != 0 {
		t.Errorf("%d were sent", n)
	}
}
