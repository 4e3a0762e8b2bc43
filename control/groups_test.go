package control

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// groupPorts is what a gateway's ports were told, by place.
type groupPorts struct {
	*gateway
	told  [2][]Groups
	links [2][]int
	err   error // what the ports answer
}

func newGroupPorts(t *testing.T) *groupPorts {
	p := new(groupPorts)
	p.gateway = newGateway(t, func(cfg *Config) {
		for i := range cfg.Ports {
			cfg.Ports[i].SetGroups = func(link int, want Groups) error {
				if p.err != nil {
					return p.err
				}
				p.told[i], p.links[i] = append(p.told[i], want), append(p.links[i], link)
				return nil
			}
		}
	})
	return p
}

// now returns what a port was told last, as text.
func (p *groupPorts) now(port int) string {
	if len(p.told[port]) == 0 {
		return "nothing"
	}
	g := p.told[port][len(p.told[port])-1]
	words := []string{}
	for _, a := range g.IPsec {
		words = append(words, a.String())
	}
	for _, a := range g.All {
		words = append(words, a.String())
	}
	for _, a := range g.Join {
		words = append(words, "+"+a.String())
	}
	if g.JoinAll {
		words = append(words, "all")
	}
	return strings.Join(words, " ")
}

func (p *groupPorts) expect(t *testing.T, when, protected, wire string) {
	t.Helper()
	for i, want := range []string{protected, wire} {
		if got := p.now(i); got != want {
			t.Errorf("%s: port %d is told %q, want %q", when, i, got, want)
		}
	}
}

const group4, group6 = "239.9.9.9", "ff15::9"

// Ports are told of groups when an SA or a policy names them, before the request
// is answered, and when the last of them goes; and of nothing else.
func TestPortsAreToldOfGroups(t *testing.T) {
	p := newGroupPorts(t)
	p.see()
	p.expect(t, "at the start", "", "")
	to := func(sel string) *spd.Policy {
		return protect(sel, func(r *spd.Policy) { r.Template.Dst = addr(group4) })
	}
	from := func(sel string) *spd.Policy {
		return protect(sel, func(r *spd.Policy) {
			r.Dir, r.Template.Src, r.Template.Dst = spd.In, flow.Addr{}, addr(group4)
		})
	}
	senders := []*sad.Params{sa(300, peer, group4), sa(301, "192.0.2.3", group4), sa(302, "2001:db8::2", group6)}
	p.load(t, senders[0], senders[1], senders[2], sa(310, here, "239.8.8.8"), sa(311, peer, here), sa(312, peer, "224.0.0.5"),
		protect("10.2.0.0/16"), protect("0.0.0.0/0"), to("239.1.1.1/32"), from("239.2.0.0/16"),
		protect("239.7.0.0/16", func(r *spd.Policy) { r.Action, r.Template = spd.Bypass, spd.Template{} }))
	p.expect(t, "loaded", "239.1.1.1/32 +239.1.1.1", "239.9.9.9 ff15::9 239.2.0.0/16 +239.9.9.9 +ff15::9")
	p.load(t, senders[1], to("239.1.1.1/32"), to("239.1.0.0/16"))
	p.expect(t, "loaded again", "239.1.0.0/16 239.1.1.1/32 +239.1.1.1 all", "239.9.9.9 +239.9.9.9")

	p.key(t, func(k *Keying) {
		if err := k.AddSA(daemon, keyedSA(400, peer, "239.4.4.4")); err != nil {
			t.Fatal(err)
		}
	})
	p.expect(t, "a daemon's SA", "239.1.0.0/16 239.1.1.1/32 +239.1.1.1 all", "239.4.4.4 239.9.9.9 +239.4.4.4 +239.9.9.9")
	told := len(p.told[1])
	p.key(t, func(k *Keying) { // a rekey changes nothing
		if err := k.AddSA(daemon, keyedSA(401, peer, "239.4.4.4")); err != nil {
			t.Fatal(err)
		}
		if _, err := k.DeleteSA(daemon, id(400, "239.4.4.4")); err != nil {
			t.Fatal(err)
		}
	})
	if len(p.told[1]) != told {
		t.Errorf("told again of the same: %q", p.now(1))
	}
	p.key(t, func(k *Keying) { k.FlushSAs(daemon, 0) })
	p.expect(t, "flushed", "239.1.0.0/16 239.1.1.1/32 +239.1.1.1 all", "239.9.9.9 +239.9.9.9")
	p.load(t)
	p.expect(t, "nothing loaded", "", "")
}

// A port whose interface is another one is told anew, and one that could not do
// it again until it can; the log says so once.
func TestPortsAreToldAgain(t *testing.T) {
	p := newGroupPorts(t)
	p.load(t, sa(300, peer, group4))
	if got := p.now(1); got != "" && got != "nothing" {
		t.Errorf("before the host's addresses are known: %q", got)
	}
	p.err = errors.New("no room")
	p.see()
	p.round(time.Now())
	if n := p.log.count("no room"); n != 2 { // once a port
		t.Errorf("logged %d times", n)
	}
	p.err = nil
	p.round(time.Now())
	p.expect(t, "when it can", "", "239.9.9.9 +239.9.9.9")
	p.see()
	if n := len(p.told[1]); n != 1 || p.links[1][0] != 12 {
		t.Errorf("told %d times, with links %v", n, p.links[1])
	}
	v := *p.view
	v.Ports = slices.Clone(v.Ports)
	v.Ports[1].Index = 99
	p.Do(func() { p.adopt(&v) })
	if p.links[1][len(p.links[1])-1] != 99 || len(p.links[1]) != 2 || len(p.links[0]) != 1 {
		t.Errorf("told with links %v", p.links)
	}
}

// An SA to a group goes out where its source is the host's, and comes in where it
// is not, or is left open.
func TestDirectionOfSAsToGroups(t *testing.T) {
	any := func(p *sad.Params) { p.Src = flow.Addr{} }
	bare := func(p *sad.Params) { p.Tunnel = false }
	for _, row := range []struct {
		name string
		sa   *sad.Params
		want Direction
	}{
		{"from the host", sa(300, here, group4), Outbound},
		{"from another", sa(300, peer, group4), Inbound},
		{"from any", sa(300, peer, group4, any), Inbound},
		{"in transport mode from the host", sa(300, here, group4, bare), Outbound},
		{"in transport mode from another", sa(300, peer, group4, bare), Inbound},
		{"in transport mode from any", sa(300, peer, group4, any, bare), Inbound},
		{"IPv6 from the host", sa(300, "2001:db8::1", group6), Outbound},
		{"IPv6 from another", sa(300, "2001:db8::2", group6), Inbound},
		{"from the host to a group that is its own address, too", sa(300, here, "239.5.5.5"), Inbound},
	} {
		for _, static := range []bool{true, false} {
			g := newGateway(t)
			g.see("239.5.5.5")
			if static {
				g.load(t, row.sa)
			} else {
				g.key(t, func(k *Keying) {
					if err := k.AddSA(daemon, SAParams{Params: *row.sa}); err != nil {
						t.Fatal(err)
					}
				})
			}
			r := g.list()
			if len(r) != 1 || (r[0].in != nil) != (row.want == Inbound) || (r[0].out != nil) != (row.want == Outbound) {
				t.Errorf("%s, of the configuration %t: %+v", row.name, static, r)
			}
		}
	}
	g := newGateway(t)
	g.see()
	g.key(t, func(k *Keying) { // a dialect may say it
		p := SAParams{Params: *sa(300, peer, group4, bare), Direction: Outbound}
		if err := k.AddSA(daemon, p); err != nil {
			t.Fatal(err)
		}
	})
	if r := g.list()[0]; r.out == nil {
		t.Error("said to go out, and comes in")
	}
}

// An address that comes later than the SA to a group that it sends makes that
// one go out; keys and all else are as they were, and die with it.
func TestAnAddressTurnsSAsToGroups(t *testing.T) {
	late := "192.0.2.77"
	p := newGroupPorts(t)
	p.see()
	p.load(t, sa(300, late, group4), protect("239.1.0.0/16", func(r *spd.Policy) {
		r.Template.Src, r.Template.Dst, r.Name = addr(late), addr(group4), "late"
	}))
	p.key(t, func(k *Keying) {
		if err := k.AddSA(daemon, keyedSA(301, late, group6, func(q *SAParams) { q.Src, q.Dst = addr(late), addr("239.3.3.3") })); err != nil {
			t.Fatal(err)
		}
		if err := k.AddSA(daemon, keyedSA(302, late, "239.3.3.4", func(q *SAParams) { q.Direction = Inbound })); err != nil {
			t.Fatal(err)
		}
	})
	for _, r := range p.list() {
		if r.in == nil {
			t.Errorf("%v: not inbound", r.id)
		}
	}
	p.expect(t, "before", "239.1.0.0/16 all", "239.3.3.3 239.3.3.4 239.9.9.9 +239.3.3.3 +239.3.3.4 +239.9.9.9")
	p.see(late)
	p.expect(t, "behind", "239.1.0.0/16 all", "239.3.3.4 +239.3.3.4")
	for _, r := range p.list() {
		if (r.out != nil) != (r.id.SPI != 302) || (r.in != nil) != (r.id.SPI == 302) || !alive(r.sa()) {
			t.Errorf("%v: out %v, in %v", r.id, r.out, r.in)
		}
		if m := r.manual; m != nil && (m.params.EncKey != nil || m.params.AuthKey != nil) {
			t.Errorf("%v: the configuration's keys are kept", r.id)
		}
	}
	if got := p.boundTo(t, "late"); got != 300 {
		t.Errorf("the policy seals with %d", got)
	}
	p.see()
	if r := p.list(); len(r) != 3 || p.waiting != 0 {
		t.Errorf("%d SAs, %d waiting", len(r), p.waiting)
	}
	p.load(t)
	p.key(t, func(k *Keying) { k.FlushSAs(daemon, 0) })
	p.expect(t, "at the end", "", "")
}

// The keys of an inbound SA to a group, kept lest it turns, die with it.
func TestKeysOfSAsToGroupsDie(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.load(t, sa(300, peer, group4))
	m := g.list()[0].manual
	enc, auth := m.params.EncKey, m.params.AuthKey
	if len(enc) == 0 || len(auth) == 0 {
		t.Fatal("not kept")
	}
	g.load(t)
	if slices.ContainsFunc(append(slices.Clone(enc), auth...), func(b byte) bool { return b != 0 }) || m.params.EncKey != nil {
		t.Error("they outlive it")
	}
	g.load(t, sa(301, peer, group4))
	m = g.list()[0].manual
	enc = m.params.EncKey
	g.Close()
	if slices.ContainsFunc(enc, func(b byte) bool { return b != 0 }) {
		t.Error("they outlive the gateway")
	}
}

// Any range of groups is told as prefixes.
func TestRangesOfGroupsAreTold(t *testing.T) {
	p := newGroupPorts(t)
	p.see()
	p.load(t, protect("239.1.0.0/16", func(r *spd.Policy) {
		r.Sel.Dst = flow.AddrRange{Lo: addr("239.1.0.255"), Hi: addr("239.1.1.1")}
	}))
	p.expect(t, "a range", "239.1.0.255/32 239.1.1.0/31 +239.1.0.255 all", "")
	if p.told[0][len(p.told[0])-1].All[1] != netip.MustParsePrefix("239.1.1.0/31") {
		t.Error("in another order")
	}
}

// A route to groups is shown with its port.
func TestRoutesToGroupsAreShown(t *testing.T) {
	g := newGateway(t)
	g.see()
	v := *g.view
	v.FIB.Routes = append(slices.Clone(v.FIB.Routes), fib.Route{Dst: prefix("239.1.0.0/16"), Link: 11})
	g.Do(func() { g.adopt(&v) })
	want := RouteInfo{Dst: "239.1.0.0/16", State: "group", Port: "in0", MTU: 1500}
	if all := g.reportRoutes(); !slices.Contains(all, want) {
		t.Errorf("%+v, want %+v", all, want)
	}
}
