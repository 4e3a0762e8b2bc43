package sad

import (
	"errors"
	"slices"
	"testing"
)

// forDSCP is for packets of these codepoints alone.
func forDSCP(dscps ...uint8) func(*Params) {
	return func(p *Params) { p.ForDSCP = CodepointsOf(dscps...) }
}

// TestSAsForCodepoints: each codepoint has the first SA that is for it, the others
// the fallback; whichever SA leaves, the others stay, and single workers have
// theirs for the rest.
func TestSAsForCodepoints(t *testing.T) {
	f := newFixture()
	all, voice, video := outbound(t, spi(1000)), outbound(t, spi(1001), forDSCP(46)), outbound(t, spi(1002), forDSCP(34, 46))
	first, bulk := outbound(t, spi(1003), forCPU(1)), outbound(t, spi(1004), forDSCP(0, 8, 63))
	must(t, f.AddOutbound(all), f.AddOutbound(voice), f.AddOutbound(video), f.AddOutbound(first), f.AddOutbound(bulk))
	remove := func(sa *Outbound) error { return f.Remove(sa.SPI, sa.Dst, sa.Proto) }
	// has checks the SA of codepoints 0, 34, 46 and 63, and of 1 for the rest, on workers 0 and 1.
	has := func(step string, err error, rest [2]*Outbound, zero, video, voice, last *Outbound, bindings int) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", step, err)
		}
		for cpu, rest := range rest {
			got, classes := f.Snapshot().OutboundsOn(7, uint16(cpu))
			if got != rest {
				t.Errorf("%s: worker %d uses %v for the rest, want %v", step, cpu, got, rest)
			}
			if classes == nil {
				classes = new(Classes)
			}
			for dscp, want := range map[int]*Outbound{0: zero, 1: nil, 34: video, 46: voice, 63: last} {
				if got := classes[dscp]; got != want {
					t.Errorf("%s: worker %d uses %v for codepoint %d, want %v", step, cpu, got, dscp, want)
				}
			}
		}
		if f.Snapshot().Outbound(7) != rest[0] || f.Bound(7) != rest[0] {
			t.Errorf("%s: the fallback is %v, want %v", step, f.Bound(7), rest[0])
		}
		for range f.Bindings() {
			bindings--
		}
		if bindings != 0 {
			t.Errorf("%s: %d bindings too few", step, bindings)
		}
	}
	only := func(sa *Outbound) [2]*Outbound { return [2]*Outbound{sa, sa} }
	has("two classes", f.BindSeveral(7, all, []*Outbound{voice, video}), only(all), nil, video, voice, nil, 3)
	gen := f.Snapshot().Gen
	must(t, f.BindSeveral(7, all, []*Outbound{voice, video}))
	if f.Snapshot().Gen != gen {
		t.Error("the same again was published")
	}
	has("the other one first", f.BindSeveral(7, all, []*Outbound{video, voice}), only(all), nil, video, video, nil, 2)
	has("with one for a worker", f.BindSeveral(7, all, []*Outbound{voice, first, video, bulk}), [2]*Outbound{all, first}, bulk, video, voice, bulk, 5)
	has("a class removed", remove(bulk), [2]*Outbound{all, first}, nil, video, voice, nil, 4)
	has("the fallback removed", remove(all), [2]*Outbound{nil, first}, nil, video, voice, nil, 3)
	has("the worker's removed", remove(first), [2]*Outbound{}, nil, video, voice, nil, 2)
	has("another class removed", remove(video), [2]*Outbound{}, nil, nil, voice, nil, 1)
	has("all removed", remove(voice), [2]*Outbound{}, nil, nil, nil, nil, 0)

	voice, bulk = outbound(t, spi(1001), forDSCP(46)), outbound(t, spi(1004), forDSCP(0, 8, 63))
	must(t, f.AddOutbound(voice), f.AddOutbound(bulk))
	for name, c := range map[string]struct {
		err, is error
	}{
		"for all":       {f.Bind(7, voice), ErrParams},
		"in a bundle":   {f.BindBundle(7, []*Outbound{voice, bulk}), ErrParams},
		"as a fallback": {f.BindSeveral(7, voice, []*Outbound{bulk}), ErrParams},
		"removed":       {f.BindSeveral(7, nil, []*Outbound{bulk, video}), ErrNoSA},
	} {
		if !errors.Is(c.err, c.is) {
			t.Errorf("%s: %v, want %v", name, c.err, c.is)
		}
		has(name, nil, [2]*Outbound{}, nil, nil, nil, nil, 0)
	}
	for _, edit := range []func(*Params){
		func(p *Params) { p.ForDSCP, p.CPU = 1, 1 },
		func(p *Params) { p.ForDSCP, p.Outer.Dummy = 1, 5 },
	} {
		if _, err := NewOutbound(params(edit)); !errors.Is(err, ErrParams) {
			t.Errorf("taken: %v", err)
		}
	}
}

func TestCodepoints(t *testing.T) {
	for text, list := range map[string][]uint8{"{  }": nil, "0": {0}, "63": {63}, "{ 0, 34, 46, 63 }": {0, 34, 46, 63}} {
		set := CodepointsOf(list...)
		if got := slices.Collect(set.All); !slices.Equal(got, list) || set.String() != text {
			t.Errorf("%v: %v, %q", list, got, set)
		}
		for d := range uint8(64) {
			if set.Has(d) != slices.Contains(list, d) {
				t.Errorf("%v has %d: %t", list, d, set.Has(d))
			}
		}
	}
	if all := ^Codepoints(0); len(slices.Collect(all.All)) != 64 {
		t.Error("there are 64 codepoints")
	}
}
