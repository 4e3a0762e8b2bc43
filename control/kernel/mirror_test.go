package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spigot/internal/fib"
	"spigot/internal/flow"
)

// start runs a mirror of port a0 in the namespace until the test ends.
func start(t *testing.T, ns string, cfg Config) *Mirror {
	t.Helper()
	cfg.Ports = []string{"absent", "a0"}
	var m *Mirror
	var err error
	within(t, ns, func() { m, err = New(cfg) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		m.Close()
	})
	return m
}

// await takes Views until one is as ok wants it.
func await(t *testing.T, m *Mirror, what string, ok func(*View) bool) *View {
	t.Helper()
	// A busy machine reads slowly, and the mirror rests in proportion.
	deadline := time.After(30 * time.Second)
	var last *View
	for {
		select {
		case v := <-m.Updates():
			if last = v; ok(v) {
				return v
			}
		case <-deadline:
			t.Fatalf("no view in which %s; the last was\n%+v", what, last)
		}
	}
}

func addr(s string) flow.Addr           { return flow.FromNetip(netip.MustParseAddr(s)) }
func prefix(s string) flow.AddrRange    { return flow.RangeOf(netip.MustParsePrefix(s)) }
func hasAddr(v *View, a string) bool    { return slices.Contains(v.FIB.Local, addr(a)) }
func linked(v *View) bool               { return len(v.FIB.Links) == 1 }
func route(v *View, p string) fib.Route { r, _ := findRoute(v, p); return r }

func hasRoute(v *View, p string) bool {
	_, ok := findRoute(v, p)
	return ok
}

func findRoute(v *View, p string) (fib.Route, bool) {
	for _, r := range v.FIB.Routes {
		if r.Dst == prefix(p) {
			return r, true
		}
	}
	return fib.Route{}, false
}

func neighbourMAC(v *View, a string) string {
	for _, n := range v.FIB.Neighbours {
		if n.Addr == addr(a) {
			return n.MAC.String()
		}
	}
	return ""
}

func TestMirrorFollowsTheKernel(t *testing.T) {
	a, _ := newPair(t)
	m := start(t, a, Config{})
	v := await(t, m, "port and addresses are there", func(v *View) bool {
		return linked(v) && hasAddr(v, "10.9.0.1") && hasAddr(v, "fd09::1") && hasRoute(v, "fd09::/64")
	})
	p := v.Ports[1]
	if v.Ports[0].Index != 0 || v.Ports[0].Up || v.Ports[0].Name != "absent" {
		t.Errorf("port that does not exist: %+v", v.Ports[0])
	}
	if !p.Up || p.MTU != 1500 || len(p.MAC) != 6 || !slices.Contains(p.Addrs, netip.MustParseAddr("10.9.0.1")) {
		t.Errorf("port a0: %+v", p)
	}
	if l := v.FIB.Links[0]; l.Port != 1 || l.Index != p.Index || l.MTU != 1500 || !slices.Equal(l.MAC, p.MAC) {
		t.Errorf("link of a0: %+v", l)
	}
	if r := route(v, "10.9.0.0/24"); r.Link != p.Index || !r.Gateway.IsZero() || r.Reject {
		t.Errorf("connected route: %+v", r)
	}
	if !route(v, "10.9.0.255/32").Reject {
		t.Error("the subnet's broadcast address is forwarded")
	}

	for _, c := range []struct {
		cmd, what string
		ok        func(*View) bool
	}{
		{"route add default via 10.9.0.2", "default route appears", func(v *View) bool {
			return route(v, "0.0.0.0/0").Gateway == addr("10.9.0.2")
		}},
		{"route replace default via 10.9.0.3 mtu 1300", "default route is another", func(v *View) bool {
			r := route(v, "0.0.0.0/0")
			return r.Gateway == addr("10.9.0.3") && r.MTU == 1300
		}},
		{"-6 route add default via fd09::2 metric 7", "IPv6 default route appears", func(v *View) bool {
			r := route(v, "::/0")
			return r.Gateway == addr("fd09::2") && r.Metric == 7
		}},
		{"route add blackhole 10.1.0.0/16", "blackhole rejects", func(v *View) bool { return route(v, "10.1.0.0/16").Reject }},
		{"-6 route add unreachable fd01::/16", "unreachable rejects", func(v *View) bool { return route(v, "fd01::/16").Reject }},
		{"route add 10.2.0.0/16 nexthop via 10.9.0.4 nexthop via 10.9.0.5", "multipath takes the first", func(v *View) bool {
			return route(v, "10.2.0.0/16").Gateway == addr("10.9.0.4")
		}},
		{"route add 10.3.0.0/16 via inet6 fd09::9 dev a0", "IPv4 leaves via an IPv6 neighbour", func(v *View) bool {
			return route(v, "10.3.0.0/16").Gateway == addr("fd09::9")
		}},
		{"route add 10.4.0.0/16 via 10.9.0.4 table 77", "a route of another table does not show", func(v *View) bool {
			return !hasRoute(v, "10.4.0.0/16")
		}},
		{"neigh add 10.9.0.7 lladdr 02:00:00:00:00:07 dev a0", "permanent neighbour appears", func(v *View) bool {
			return neighbourMAC(v, "10.9.0.7") == "02:00:00:00:00:07"
		}},
		{"neigh del 10.9.0.7 dev a0", "neighbour leaves", func(v *View) bool { return neighbourMAC(v, "10.9.0.7") == "" }},
		{"addr add 10.10.0.1/24 dev a0", "address appears", func(v *View) bool {
			return hasAddr(v, "10.10.0.1") && hasRoute(v, "10.10.0.0/24")
		}},
		{"addr del 10.10.0.1/24 dev a0", "address leaves with its route", func(v *View) bool {
			return !hasAddr(v, "10.10.0.1") && !hasRoute(v, "10.10.0.0/24")
		}},
		{"link set a0 mtu 1400", "MTU changes", func(v *View) bool { return linked(v) && v.FIB.Links[0].MTU == 1400 }},
		{"link set a0 down", "link leaves with its routes", func(v *View) bool {
			return !linked(v) && !hasRoute(v, "10.9.0.0/24") && !hasRoute(v, "0.0.0.0/0")
		}},
		{"link set a0 up", "link comes back", func(v *View) bool { return linked(v) && hasRoute(v, "10.9.0.0/24") }},
		{"link del a0", "port is gone", func(v *View) bool { return v.Ports[1].Index == 0 && !hasAddr(v, "10.9.0.1") }},
	} {
		run(t, "ip -n "+a+" "+c.cmd)
		if strings.Contains(c.cmd, "table 77") {
			run(t, "ip -n "+a+" route add 10.5.0.0/16 via 10.9.0.4") // something that does show
		}
		await(t, m, c.what, c.ok)
	}
	run(t, "ip -n "+a+" link add a0 address 02:00:00:00:00:0a type veth peer name a1")
	run(t, "ip -n "+a+" link set a0 up")
	v = await(t, m, "a port of the same name is back", linked)
	if v.FIB.Links[0].Index == p.Index || v.FIB.Links[0].MAC.String() != "02:00:00:00:00:0a" {
		t.Errorf("new link: %+v, old index %d", v.FIB.Links[0], p.Index)
	}
}

func TestOverrunLosesNothing(t *testing.T) {
	a, _ := newPair(t)
	m := start(t, a, Config{Interval: time.Millisecond})
	await(t, m, "the link is there", linked)
	if err := m.notify.SetReceiveBufferSize(2048, true); err != nil {
		t.Fatal(err)
	}
	var batch strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&batch, "route add 10.%d.%d.0/24 via 10.9.0.2\n", 100+i>>8, i&255)
	}
	for i := range 3999 {
		fmt.Fprintf(&batch, "route del 10.%d.%d.0/24\n", 100+i>>8, i&255)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "ip -n "+a+" -batch "+file)
	await(t, m, "only the last of 4000 routes is left", func(v *View) bool {
		n := 0
		for _, r := range v.FIB.Routes {
			if r.Gateway == addr("10.9.0.2") {
				n++
			}
		}
		return n == 1 && hasRoute(v, "10.115.159.0/24")
	})
}

func TestResolveFindsNeighbours(t *testing.T) {
	a, b := newPair(t)
	m := start(t, a, Config{})
	v := await(t, m, "addresses are there", func(v *View) bool { return linked(v) && hasAddr(v, "fd09::1") })
	var want string
	within(t, b, func() {
		if i, err := net.InterfaceByName("b0"); err == nil {
			want = i.HardwareAddr.String()
		}
	})
	for _, a := range []string{"10.9.0.2", "fd09::2"} {
		if got := neighbourMAC(v, a); got != "" {
			t.Fatalf("%s is known before anybody asked: %s", a, got)
		}
	}
	// As the workers do: again while packets come, for the kernel may lose the
	// first question while an address is new.
	ask, done := time.NewTicker(200*time.Millisecond), make(chan struct{})
	defer func() { ask.Stop(); close(done) }()
	go func() {
		for {
			m.Resolve(v.Ports[1].Index, addr("10.9.0.2"))
			m.Resolve(v.Ports[1].Index, addr("fd09::2"))
			select {
			case <-ask.C:
			case <-done:
				return
			}
		}
	}()
	// Nothing of this may disturb.
	m.Resolve(9999, addr("10.9.0.2"))
	m.Resolve(v.Ports[1].Index, flow.Addr{})
	m.Resolve(v.Ports[1].Index, addr("224.0.0.1"))
	await(t, m, "both are resolved", func(v *View) bool {
		return neighbourMAC(v, "10.9.0.2") == want && neighbourMAC(v, "fd09::2") == want && want != ""
	})
}

func TestRefreshConfirmsStaleNeighbours(t *testing.T) {
	a, _ := newPair(t)
	run(t, "ip netns exec "+a+" sysctl -q -w net.ipv4.neigh.a0.delay_first_probe_time=0")
	m := start(t, a, Config{Refresh: 50 * time.Millisecond})
	v := await(t, m, "the link is there", linked)
	m.Resolve(v.Ports[1].Index, addr("10.9.0.2"))
	v = await(t, m, "the neighbour is there", func(v *View) bool { return neighbourMAC(v, "10.9.0.2") != "" })
	mac := neighbourMAC(v, "10.9.0.2")
	run(t, "ip -n "+a+" neigh add 10.9.0.8 lladdr 02:00:00:00:00:08 dev a0 nud permanent")
	run(t, "ip -n "+a+" neigh replace 10.9.0.2 lladdr "+mac+" dev a0 nud stale")
	deadline := time.Now().Add(5 * time.Second)
	for !strings.Contains(run(t, "ip -n "+a+" neigh show 10.9.0.2"), "REACHABLE") {
		if time.Now().After(deadline) {
			t.Fatalf("still %s", run(t, "ip -n "+a+" neigh show"))
		}
		time.Sleep(20 * time.Millisecond)
	}
	if s := run(t, "ip -n "+a+" neigh show 10.9.0.8"); !strings.Contains(s, "PERMANENT") {
		t.Errorf("permanent neighbour: %s", s)
	}
}

func TestAnUntakenViewIsReplaced(t *testing.T) {
	m := &Mirror{updates: make(chan *View, 1)}
	old, latest := &View{}, &View{FIB: fib.Config{Local: []flow.Addr{addr("10.0.0.1")}}}
	m.deliver(old)
	m.deliver(latest)
	if v := <-m.Updates(); v != latest {
		t.Error("the older view was delivered")
	}
	if old.Equal(latest) || !old.Equal(&View{}) {
		t.Error("Equal")
	}
}
