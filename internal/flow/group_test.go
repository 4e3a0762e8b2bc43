package flow

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestGroups(t *testing.T) {
	for _, row := range []struct {
		addr        string
		group, near bool
	}{
		{"223.255.255.255", false, false}, {"224.0.0.0", true, true}, {"224.0.0.255", true, true}, {"224.0.1.0", true, false},
		{"232.1.2.3", true, false}, {"239.255.255.255", true, false}, {"240.0.0.0", false, false}, {"255.255.255.255", false, false},
		{"0.0.0.224", false, false}, {"::", false, false}, {"::e000:1", false, false}, {"fe80::1", false, false},
		{"feff:ffff::1", false, false}, {"ff00::1", true, true}, {"ff01::1", true, true}, {"ff02::1:ff00:1", true, true},
		{"ff03::1", true, false}, {"ff05::2", true, false}, {"ff0e::1", true, false}, {"ff12::1", true, true},
		{"ff15::1", true, false}, {"fff2::1", true, true}, {"ffff::1", true, false},
	} {
		a := FromNetip(netip.MustParseAddr(row.addr))
		if a.IsGroup() != row.group || a.IsNearGroup() != row.near {
			t.Errorf("%s: a group %t, near %t; want %t, %t", row.addr, a.IsGroup(), a.IsNearGroup(), row.group, row.near)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := drawAddr(t, "address")
		near := n.IsLinkLocalMulticast() || n.IsInterfaceLocalMulticast() || n.Is6() && n.As16()[0] == 0xff && n.As16()[1]&15 == 0
		if a := FromNetip(n); a.IsGroup() != n.IsMulticast() || a.IsNearGroup() != near {
			t.Errorf("%v: a group %t, near %t; netip says %t, %t", n, a.IsGroup(), a.IsNearGroup(), n.IsMulticast(), near)
		}
	})
}

func TestRangesOfGroups(t *testing.T) {
	for prefix, want := range map[string]bool{
		"224.0.0.0/4": true, "239.1.1.1/32": true, "224.0.0.0/3": false, "0.0.0.0/0": false, "10.0.0.0/8": false,
		"ff00::/8": true, "ff15::/16": true, "fe00::/7": false, "::/0": false,
	} {
		if got := RangeOf(netip.MustParsePrefix(prefix)).IsGroups(); got != want {
			t.Errorf("%s: %t, want %t", prefix, got, want)
		}
	}
}
