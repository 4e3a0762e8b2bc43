package sad

import (
	"errors"
	"testing"

	"spigot/internal/flow"
)

// TestFlowBindings: each flow of a policy has its own SA; a newer one takes over,
// and what is removed leaves its own flows alone without one.
func TestFlowBindings(t *testing.T) {
	f := newFixture()
	a, b := outbound(t, spi(1001)), outbound(t, spi(1002))
	one, two := flow.Tuple{Src: addr("10.1.0.1")}, flow.Tuple{Src: addr("10.1.0.2")}
	must(t, f.AddOutbound(a), f.AddOutbound(b))
	is := func(policy uint32, k flow.Tuple, want *Outbound) {
		t.Helper()
		if got := f.Snapshot().OutboundFlow(policy, &k); got != want || f.BoundFlow(policy, k) != want {
			t.Errorf("flow %v of policy %d: %v, want %v", k, policy, got, want)
		}
	}
	must(t, f.BindFlow(7, one, a), f.BindFlow(7, two, b), f.BindFlow(8, one, b))
	is(7, one, a)
	is(7, two, b)
	is(8, one, b)
	is(8, two, nil)
	is(7, flow.Tuple{}, nil)
	if f.Snapshot().Outbound(7) != nil {
		t.Error("a flow's SA is the policy's")
	}
	must(t, f.BindFlow(7, one, b), f.Remove(a.SPI, a.Dst, a.Proto))
	is(7, one, b)
	if err := f.BindFlow(7, one, a); !errors.Is(err, ErrNoSA) {
		t.Errorf("a removed SA is bound: %v", err)
	}
	published := len(f.got)
	must(t, f.BindFlow(7, one, b))
	if len(f.got) != published {
		t.Error("an edit that changes nothing was published")
	}
	must(t, f.BindFlow(8, one, nil))
	is(8, one, nil)
	must(t, f.Remove(b.SPI, b.Dst, b.Proto))
	is(7, one, nil)
	is(7, two, nil)
	if len(f.flows) != 0 {
		t.Errorf("%d flows are still bound", len(f.flows))
	}
}

// TestFlowsOfAllKindsAreToldApart: by the policy and by every field.
func TestFlowsOfAllKindsAreToldApart(t *testing.T) {
	f := newFixture()
	flows := []flow.Tuple{{}, {Src: addr("10.1.0.1")}, {Dst: addr("10.1.0.1")}, {Src: addr("::1")}, {Proto: 6}, {Proto: 17},
		{Proto: 6, SrcPort: 1}, {Proto: 6, DstPort: 1}, {Proto: 6, NoPorts: true}}
	var sas []*Outbound
	for i, k := range flows {
		for policy := range uint32(2) {
			sa := outbound(t, spi(uint32(1000+2*i)+policy))
			must(t, f.AddOutbound(sa), f.BindFlow(policy, k, sa))
			sas = append(sas, sa)
		}
	}
	for i, k := range flows {
		for policy := range uint32(2) {
			if got := f.Snapshot().OutboundFlow(policy, &k); got != sas[2*i+int(policy)] {
				t.Errorf("flow %v of policy %d: %v", k, policy, got)
			}
		}
	}
}
