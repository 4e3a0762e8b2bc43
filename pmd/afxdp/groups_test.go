package afxdp

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
)

// What is taken of a prefix is what is taken of the wider ones, too: the
// program sees the longest only.
func TestUsesOfGroups(t *testing.T) {
	p := netip.MustParsePrefix
	g := Groups{
		IPsec: []netip.Addr{netip.MustParseAddr("239.1.1.1"), netip.MustParseAddr("::ffff:239.9.9.9"), netip.MustParseAddr("ff15::1")},
		All:   []netip.Prefix{p("239.1.0.0/16"), p("239.1.1.0/24"), p("239.1.1.1/32"), p("239.9.9.9/32"), p("ff15::/16")},
	}
	got, err := g.uses()
	want := map[netip.Prefix]uint8{
		p("239.1.0.0/16"): groupAll, p("239.1.1.0/24"): groupAll, p("239.1.1.1/32"): groupAll | groupIPsec,
		p("239.9.9.9/32"): groupAll | groupIPsec, p("ff15::/16"): groupAll, p("ff15::1/128"): groupAll | groupIPsec,
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, bad := range []Groups{
		{IPsec: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		{IPsec: []netip.Addr{{}}},
		{All: []netip.Prefix{{}}},
		{All: []netip.Prefix{p("239.1.1.1/16")}},
		{All: []netip.Prefix{p("128.0.0.0/1")}},
	} {
		if _, err := bad.uses(); !errors.Is(err, ErrOptions) {
			t.Errorf("%v: %v, want %v", bad, err, ErrOptions)
		}
	}
}

// The port's groups are those of the last call, whatever was before.
func TestSetGroups(t *testing.T) {
	t.Parallel()
	m := newMachine(t, SteeringOptions{}, true)
	other := netip.MustParseAddr("239.7.7.7")
	frames := map[string][]byte{
		"ESP": group(frame4(50, saGroup4, spi)), "UDP": group(frame4(17, saGroup4, udp(9, nil))),
		"policy": group(frame4(17, allGroup4, udp(9, nil))), "other": group(frame4(50, other, spi)),
	}
	for _, row := range []struct {
		groups Groups
		taken  []string
	}{
		{Groups{IPsec: []netip.Addr{saGroup4}}, []string{"ESP"}},
		{Groups{All: []netip.Prefix{netip.PrefixFrom(saGroup4, 32)}}, []string{"ESP", "UDP"}},
		{Groups{IPsec: []netip.Addr{saGroup4, other}}, []string{"ESP", "other"}},
		{Groups{All: []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4")}}, []string{"ESP", "UDP", "other", "policy"}},
		{Groups{}, nil},
	} {
		if err := m.SetGroups(row.groups); err != nil {
			t.Fatal(err)
		}
		var taken []string
		for name, frame := range frames {
			if _, v := m.run(t, frame); v == RedirectGroup {
				taken = append(taken, name)
			}
		}
		slices.Sort(taken)
		if !slices.Equal(taken, row.taken) {
			t.Errorf("%+v: took %v, want %v", row.groups, taken, row.taken)
		}
	}
	if err := m.SetGroups(Groups{IPsec: []netip.Addr{here4}}); !errors.Is(err, ErrOptions) {
		t.Errorf("a host for a group: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.SetGroups(Groups{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
