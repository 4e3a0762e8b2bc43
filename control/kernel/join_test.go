package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// members lists the groups of a0 in a namespace that lie where the test's do.
func members(t *testing.T, ns string) (groups []string) {
	t.Helper()
	for word := range strings.FieldsSeq(run(t, "ip -n "+ns+" maddr show dev a0")) {
		if strings.HasPrefix(word, "239.") || strings.HasPrefix(word, "ff15:") {
			groups = append(groups, word)
		}
	}
	slices.Sort(groups)
	return groups
}

// allGroups says how many want all groups of a0.
func allGroups(t *testing.T, ns string) int {
	t.Helper()
	words := strings.Fields(run(t, "ip -d -n "+ns+" link show dev a0"))
	n, err := strconv.Atoi(words[slices.Index(words, "allmulti")+1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// An interface is a member of what Set said last, also of more than one socket
// takes, and of nothing after Close.
func TestMember(t *testing.T) {
	t.Parallel()
	ns, _ := newPair(t)
	groups := func(from, to int) (all []netip.Addr) {
		for i := from; i < to; i++ {
			all = append(all, netip.MustParseAddr(fmt.Sprintf("239.1.1.%d", i)), netip.MustParseAddr(fmt.Sprintf("ff15::%x", i)))
		}
		return all
	}
	within(t, ns, func() {
		dev, err := net.InterfaceByName("a0")
		if err != nil {
			t.Fatal(err)
		}
		link := dev.Index
		var m Member
		for _, step := range []struct {
			link int
			want []netip.Addr
			all  bool
		}{
			{link, groups(0, 50), false}, // net.ipv4.igmp_max_memberships is 20
			{link, groups(10, 60), true},
			{link, groups(10, 60), true},
			{link, groups(55, 58), false},
			{link, nil, true},
			{link, groups(0, 3), true},
			{0, groups(0, 3), true},
			{link, groups(5, 6), false},
		} {
			if err := m.Set(step.link, step.want, step.all); err != nil {
				t.Fatal(err)
			}
			if step.link == 0 {
				step.want, step.all = nil, false
			}
			var want []string
			for _, g := range step.want {
				want = append(want, g.String())
			}
			slices.Sort(want)
			if got := members(t, ns); !slices.Equal(got, want) {
				t.Errorf("%+v: member of %v", step, got)
			}
			if got := allGroups(t, ns) == 1; got != step.all {
				t.Errorf("%+v: all groups: %t", step, got)
			}
		}
		if err := m.Set(link+1000, groups(0, 1), true); err == nil || !strings.Contains(err.Error(), "239.1.1.0") {
			t.Errorf("on no interface: %v", err)
		}
		if got := members(t, ns); got != nil {
			t.Errorf("still member of %v", got)
		}
		if len(m.sockets) != 0 {
			t.Errorf("%d sockets that hold nothing: each try would leave some", len(m.sockets))
		}
		if err := m.Set(link, groups(0, 2), true); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if got, all := members(t, ns), allGroups(t, ns); got != nil || all != 0 {
			t.Errorf("after Close: member of %v, all groups %d times", got, all)
		}
	})
}
