package sad

import (
	"errors"
	"testing"
)

// forCPU is for the worker cpu, counted from 1, alone.
func forCPU(cpu uint16) func(*Params) { return func(p *Params) { p.CPU = cpu } }

// TestSAsForSingleWorkers: each worker has its own SA, the others the fallback;
// whichever SA leaves, the others stay.
func TestSAsForSingleWorkers(t *testing.T) {
	f := newFixture()
	all, first, third := outbound(t, spi(1000)), outbound(t, spi(1001), forCPU(1)), outbound(t, spi(1003), forCPU(3))
	newer := outbound(t, spi(1013), forCPU(3))
	must(t, f.AddOutbound(all), f.AddOutbound(first), f.AddOutbound(third), f.AddOutbound(newer))
	remove := func(sa *Outbound) error { return f.Remove(sa.SPI, sa.Dst, sa.Proto) }
	f.uses(t, "a fallback and two of their own", f.BindSeveral(7, all, []*Outbound{third, first}),
		[5]*Outbound{all, first, all, third, all}, 3)
	gen := f.Snapshot().Gen
	must(t, f.BindSeveral(7, all, []*Outbound{first, third}))
	if f.Snapshot().Gen != gen {
		t.Error("the same again was published")
	}
	f.uses(t, "a newer one", f.BindSeveral(7, all, []*Outbound{first, newer}), [5]*Outbound{all, first, all, newer, all}, 3)
	f.uses(t, "one removed that is not in use", remove(third), [5]*Outbound{all, first, all, newer, all}, 3)
	f.uses(t, "the fallback removed", remove(all), [5]*Outbound{nil, first, nil, newer, nil}, 2)
	f.uses(t, "the first removed", remove(first), [5]*Outbound{nil, nil, nil, newer, nil}, 1)
	f.uses(t, "all removed", remove(newer), [5]*Outbound{}, 0)

	all, first = outbound(t, spi(1000)), outbound(t, spi(1001), forCPU(1))
	must(t, f.AddOutbound(all), f.AddOutbound(first))
	f.uses(t, "again", f.BindSeveral(7, all, []*Outbound{first}), [5]*Outbound{all, first, all, all, all}, 2)
	f.uses(t, "its own removed", remove(first), [5]*Outbound{all, all, all, all, all}, 1)
	first = outbound(t, spi(1001), forCPU(1))
	must(t, f.AddOutbound(first))
	f.uses(t, "without a fallback", f.BindSeveral(7, nil, []*Outbound{first}), [5]*Outbound{nil, first}, 1)
	f.uses(t, "one for all", f.Bind(7, all), [5]*Outbound{all, all, all, all, all}, 1)
	f.uses(t, "none of their own", f.BindSeveral(7, nil, nil), [5]*Outbound{}, 0)
	must(t, f.BindSeveral(7, all, []*Outbound{first}))
	f.uses(t, "no SA", f.Bind(7, nil), [5]*Outbound{}, 0)

	other := outbound(t, spi(1002), forCPU(1))
	must(t, f.AddOutbound(other))
	for name, c := range map[string]struct {
		err, is error
	}{
		"for all":            {f.Bind(7, first), ErrParams},
		"in a bundle":        {f.BindBundle(7, []*Outbound{all, first}), ErrParams},
		"as a fallback":      {f.BindSeveral(7, first, []*Outbound{other}), ErrParams},
		"of all workers":     {f.BindSeveral(7, nil, []*Outbound{all}), ErrParams},
		"two for one":        {f.BindSeveral(7, all, []*Outbound{first, other}), ErrParams},
		"removed":            {f.BindSeveral(7, all, []*Outbound{newer}), ErrNoSA},
		"a removed fallback": {f.BindSeveral(7, third, []*Outbound{first}), ErrParams},
	} {
		if !errors.Is(c.err, c.is) {
			t.Errorf("%s: %v, want %v", name, c.err, c.is)
		}
		f.uses(t, name, nil, [5]*Outbound{}, 0)
	}
	for _, edit := range []func(*Params){forCPU(MaxCPU + 1), func(p *Params) { p.CPU, p.Outer.Dummy = 1, 5 }} {
		if _, err := NewOutbound(params(edit)); !errors.Is(err, ErrParams) {
			t.Errorf("taken: %v", err)
		}
	}
}

// uses checks which SA each worker uses for policy 7, after a step that ended with
// err.
func (f *fixture) uses(t *testing.T, step string, err error, want [5]*Outbound, bindings int) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", step, err)
	}
	for cpu, sa := range want {
		if got := f.Snapshot().OutboundOn(7, uint16(cpu)); got != sa {
			t.Errorf("%s: worker %d uses %v, want %v", step, cpu, got, sa)
		}
	}
	if got := f.Snapshot().Outbound(7); got != want[0] || f.Bound(7) != want[0] {
		t.Errorf("%s: others use %v, want %v", step, got, want[0])
	}
	for policy := range f.Bindings() {
		if bindings--; policy != 7 {
			t.Errorf("%s: policy %d is bound", step, policy)
		}
	}
	if bindings != 0 {
		t.Errorf("%s: %d bindings too few", step, bindings)
	}
}
