package control

import (
	"slices"
	"testing"
)

// TestSAsAreReportedInPortions: between two portions others may work, and what they
// do shows: an SA that is new is not in the report, and one that is gone is there as
// it was, without a policy.
func TestSAsAreReportedInPortions(t *testing.T) {
	g := newGateway(t)
	g.see()
	const n = 2*saPortion + 1
	g.key(t, func(k *Keying) {
		for i := range uint32(n) {
			if err := k.AddSA(daemon, keyedSA(1000+i, here, peer)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := k.AddPolicy(daemon, keyedPolicy("10.2.0.0/16")); err != nil {
			t.Fatal(err)
		}
	})
	last := uint32(1000 + n - 1) // which the policy uses
	if all := g.reportSAs(); len(all) != n || !slices.ContainsFunc(all, func(s SAInfo) bool {
		return s.SPI == last && len(s.Policies) == 1
	}) {
		t.Fatalf("%d SAs", len(all))
	}
	var w *saWalk
	g.Do(func() { w = g.walkSAs() })
	var all []SAInfo
	portions := 0
	for done := false; !done; portions++ {
		if portions == 1 {
			g.key(t, func(k *Keying) {
				if _, err := k.DeleteSA(daemon, id(last, peer)); err != nil {
					t.Fatal(err)
				}
				if err := k.AddSA(daemon, keyedSA(300, here, peer)); err != nil {
					t.Fatal(err)
				}
			})
		}
		g.Do(func() { all, done = w.next(all) })
	}
	if portions != 3 || len(all) != n {
		t.Errorf("%d SAs in %d portions", len(all), portions)
	}
	for _, s := range all {
		if s.SPI == 300 || s.SPI == last && (len(s.Policies) != 0 || s.Suite == "" || s.Direction != DirOut) {
			t.Errorf("reported %+v", s)
		}
	}
}
