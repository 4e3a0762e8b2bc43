package bench_test

import (
	"fmt"
	"testing"

	"spigot/bench"
	"spigot/pmd/memport"
)

// BenchmarkGateway is the whole pipeline on one core, in memory: receive,
// classify, flow cache, route, seal or open, send. Frame sizes are those of the
// clear packet; Gbit/s counts its bytes.
func BenchmarkGateway(b *testing.B) {
	for _, s := range suites() {
		for _, p := range bench.Profiles() {
			name := func(path string) string {
				return fmt.Sprintf("path=%s/alg=%s/size=%s/sas=1", path, s.name, p.Name)
			}
			b.Run(name("encap"), func(b *testing.B) {
				r := newRig(b, false, memport.GeneratorOptions{Templates: frames(p, redMAC, hostB, len(p.Sizes)), HeaderOnly: 64},
					memport.GeneratorOptions{})
				r.outbound(b, s)
				r.run(b, p, 0, nil)
			})
			b.Run(name("decap"), func(b *testing.B) { decap(b, p, s) })
			b.Run(name("bypass"), func(b *testing.B) {
				r := newRig(b, false, memport.GeneratorOptions{Templates: frames(p, redMAC, hostC, len(p.Sizes)), HeaderOnly: 64},
					memport.GeneratorOptions{})
				r.run(b, p, 0, nil)
			})
		}
	}
}

// decapRound is how many sealed packets are opened before the SA is replaced
// by one with a fresh replay window: small enough to stay in the L2 cache as
// 64-byte frames, large enough that the replacement does not show.
const decapRound = 4096

func decap(b *testing.B, p bench.Profile, s suite) {
	r := newRig(b, true, memport.GeneratorOptions{}, memport.GeneratorOptions{Templates: sealed(b, p, s, decapRound)})
	r.run(b, p, decapRound, func() { r.inbound(b, s) })
}
