package spd

import (
	"math/rand/v2"
	"testing"

	"spigot/internal/flow"
)

// NeedsPorts is true of a tuple if ports could make a difference, also after
// edits; where few policies select by ports, it is false if they could not.
func TestNeedsPortsAgainstAllPorts(t *testing.T) {
	var none *Table
	if none.NeedsPorts(&flow.Tuple{}) {
		t.Error("an empty SPD needs ports")
	}
	w := world{rand.New(rand.NewPCG(1, 2))}
	for round := range 40 {
		policies := map[uint32]*Policy{}
		var tab *Table
		for id := range uint32(80) {
			var gone []uint32
			if id%5 == 4 {
				gone = []uint32{id - 2}
				delete(policies, id-2)
			}
			p := policy(id+1-uint32(id%7)/6, between("10.0.0.0/24", "10.0.1.0/24"))
			p.Sel.Src.Lo.Lo += uint64(w.IntN(4))
			if round%2 == 0 && id%10 == 0 || round == 39 {
				p.Sel.DstPort = flow.PortRange{Lo: 80, Hi: 90}
			}
			if w.IntN(2) == 0 {
				p.Sel.Proto = 17
			}
			policies[p.ID] = p
			next, err := Edit(tab, gone, []*Policy{p})
			if err != nil {
				t.Fatal(err)
			}
			tab = next
			tu := flow.Tuple{Src: addr("10.0.0.1"), Dst: addr("10.0.1.9"), Proto: []uint8{6, 17}[w.IntN(2)], NoPorts: true}
			tu.Src.Lo += uint64(w.IntN(5))
			want := false
			for _, p := range policies {
				s := p.Sel
				s.DstPort = flow.AnyPort
				want = want || p.Sel.HasPorts() && s.Matches(&tu)
			}
			if got := tab.NeedsPorts(&tu); got != want && (want || round != 39) {
				t.Fatalf("round %d, policy %d, %v: %t, want %t", round, id, tu, got, want)
			}
		}
		again := compile(t, nil, tab.Policies()...)
		tu := flow.Tuple{Src: addr("10.0.0.9"), Dst: addr("10.0.1.9"), Proto: 17, NoPorts: true}
		if got, want := again.NeedsPorts(&tu), tab.NeedsPorts(&tu); got != want {
			t.Errorf("round %d: compiled anew %t, edited %t", round, got, want)
		}
	}
}
