package control

import (
	"fmt"
	"testing"

	"spigot/internal/flow"
	"spigot/spd"
)

// filled is a gateway with n outbound SAs and n policies that they serve, SA i
// and policy i by reqid i+1.
func filled(b *testing.B, n uint32) *gateway {
	b.Helper()
	g := newGateway(b)
	g.events.Close()
	g.see()
	err := g.Keying(func(k *Keying) {
		for i := range n {
			if err := k.AddSA(daemon, benchSA(i)); err != nil {
				b.Fatal(err)
			}
			if _, err := k.AddPolicy(daemon, benchPolicy(i)); err != nil {
				b.Fatal(err)
			}
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	return g
}

func benchSA(i uint32) SAParams {
	return keyedSA(1000+i, here, peer, func(p *SAParams) { p.Reqid = i + 1; gcm(&p.Params) })
}

func benchPolicy(i uint32) PolicyParams {
	return keyedPolicy("10.2.0.0/16", func(p *PolicyParams) {
		lo := flow.V4(10<<24 | i<<3)
		p.Sel.Dst = flow.AddrRange{Lo: lo, Hi: flow.V4(10<<24 | i<<3 | 7)}
		p.Template = spd.Template{Proto: 50, Reqid: i + 1}
	})
}

// BenchmarkKeying is what a key daemon that waits for each answer gets: an SA,
// or a policy, comes and goes with each iteration, and each is published.
func BenchmarkKeying(b *testing.B) {
	for _, n := range []uint32{1000, 100_000} {
		g := filled(b, n)
		sa, policy := benchSA(n), benchPolicy(n)
		b.Run(fmt.Sprintf("SA/of=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = g.Keying(func(k *Keying) { must(b, k.AddSA(daemon, sa)) })
				_ = g.Keying(func(k *Keying) { _, err := k.DeleteSA(daemon, sa.ID()); must(b, err) })
				g.Do(func() { g.cfg.Epochs.Reap() })
			}
		})
		b.Run(fmt.Sprintf("Policy/of=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = g.Keying(func(k *Keying) { _, err := k.AddPolicy(daemon, policy); must(b, err) })
				_ = g.Keying(func(k *Keying) { _, err := k.DeletePolicy(daemon, policy.name()); must(b, err) })
			}
		})
		b.Run(fmt.Sprintf("Rekey/of=%d", n), func(b *testing.B) { // of a policy that is in use
			next := benchSA(0)
			for b.Loop() {
				next.SPI++
				next.SPI |= 1 << 30
				_ = g.Keying(func(k *Keying) { must(b, k.AddSA(daemon, next)) })
				_ = g.Keying(func(k *Keying) { _, err := k.DeleteSA(daemon, next.ID()); must(b, err) })
				g.Do(func() { g.cfg.Epochs.Reap() })
			}
		})
		g.Close()
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
