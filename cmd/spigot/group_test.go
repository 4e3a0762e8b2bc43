package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spigot/internal/uml"
)

// Groups by family: what hosts send to, towards the guest and from it, and what
// carries that in tunnels.
var (
	toGuest, toHost       = [2]string{"239.1.2.3", "ff15::203"}, [2]string{"239.1.2.4", "ff15::204"}
	guestsGroup, ourGroup = [2]string{"239.136.8.8", "ff1e::88"}, [2]string{"239.137.9.9", "ff1e::99"}
)

// castSizes are of 8 bytes or more, which tell one datagram from another.
var castSizes = []int{8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 64, 511, 1000, 1300}

// groupCase is one pair of SAs for groups, one each way.
type groupCase struct {
	transform
	shape
	esn    bool
	spi    uint32
	groups [2]string // of the gateway's side: what the guest sends to
}

func (c *groupCase) name() string {
	return fmt.Sprintf("%s %s %s in %d, esn %t", c.proto, c.transform.name, c.mode, 4+2*c.outer, c.esn)
}

// outers are the groups that the two SAs are for: in transport mode, those that
// hosts send to.
func (c *groupCase) outers() [2]string {
	if c.mode == "transport" {
		return [2]string{toGuest[c.outer], c.groups[c.outer]}
	}
	return [2]string{guestsGroup[c.outer], ourGroup[c.outer]}
}

// senders are who sends to the groups of a family.
func (c *groupCase) senders(family int) [2]string {
	if c.mode == "transport" {
		return [2]string{nearAddr[family], farAddr[family]}
	}
	return [2]string{hostAddr[family], innerAddr[family]}
}

// batch keys the gateway, or the guest. The guest takes its SA from whoever has
// the key, as kernels do that know groups only.
func (c *groupCase) batch(guest bool) string {
	var b strings.Builder
	b.WriteString("xfrm state flush\nxfrm policy flush\n")
	for i, src := range [2]string{nearAddr[c.outer], farAddr[c.outer]} {
		group, inbound := c.outers()[i], guest == (i == 0)
		tmplSrc := src
		if inbound && c.mode == "tunnel" && !c.esn {
			src, tmplSrc = [2]string{"0.0.0.0", "::"}[c.outer], [2]string{"0.0.0.0", "::"}[c.outer]
		}
		fmt.Fprintf(&b, "xfrm state add src %s dst %s proto %s spi %#x reqid 1 mode %s flag af-unspec", src, group, c.proto, c.spi+uint32(i), c.mode)
		counter := "replay-oseq"
		if inbound {
			counter = "replay-seq"
		}
		switch {
		case c.esn: // across 2^32
			fmt.Fprintf(&b, " flag esn replay-window 128 %s-hi 0x0 %s 0xfffffff8", counter, counter)
		default:
			b.WriteString(" replay-window 32")
		}
		fmt.Fprintf(&b, "%s\n", c.line(fmt.Sprint(c.name(), i)))
		dir := "out"
		if inbound {
			dir = "in"
		}
		for _, f := range c.inners {
			fmt.Fprintf(&b, "xfrm policy add src %s dst %s dir %s tmpl src %s dst %s proto %s reqid 1 mode %s\n",
				c.senders(f)[i], [2][2]string{toGuest, c.groups}[i][f], dir, tmplSrc, group, c.proto, c.mode)
		}
	}
	return b.String()
}

// run has both sides send to the other's groups, of which ours has a member there,
// and says what did not come.
func (c *groupCase) run(r *peerRig, member *uml.Agent) error {
	if err := r.key(c.batch(false), c.batch(true)); err != nil {
		return err
	}
	drops, err := r.gateway.drops()
	if err != nil {
		return err
	}
	refused, err := guestErrors(r.guest)
	if err != nil {
		return err
	}
	sender, dev := r.host, "eth0"
	if c.mode == "transport" {
		sender, dev = r.self, "enc0"
	}
	for _, f := range c.inners {
		err := both(
			func() error { return castTo(sender, c.senders(f)[0], toGuest[f], dev) },
			func() error { return castTo(r.guest, c.senders(f)[1], c.groups[f], "vec0") })
		if err == nil {
			err = both(func() error { return heardBy(r.guest, toGuest[f], 1) }, func() error { return heardBy(member, c.groups[f], 1) })
		}
		if err != nil {
			return errors.Join(err, r.refusedSince(drops, refused))
		}
	}
	if err := r.refusedSince(drops, refused); err != nil {
		return err
	}
	ours, err := r.gateway.traffic()
	if err != nil {
		return err
	}
	want := uint64(len(castSizes) * len(c.inners))
	for _, spi := range []uint32{c.spi, c.spi + 1} {
		if ours[spi] != want {
			return fmt.Errorf("SA %#x carried %d packets of %d", spi, ours[spi], want)
		}
	}
	return nil
}

// refusedSince says what the gateway has dropped and the guest has refused since.
func (r *peerRig) refusedSince(drops, refused map[string]uint64) error {
	after, err := r.gateway.drops()
	if err != nil {
		return err
	}
	now, err := guestErrors(r.guest)
	if err != nil {
		return err
	}
	if bad := slices.Concat(since(drops, after), since(refused, now)); len(bad) > 0 {
		return fmt.Errorf("refused: %s", strings.Join(bad, ", "))
	}
	return nil
}

// castTo sends to a group, and heardBy holds that a member has heard it from so
// many, once each and nothing else.
func castTo(a *uml.Agent, from, group, dev string) error {
	_, err := a.Call(uml.Request{Cast: &uml.Cast{From: from, To: group, Dev: dev, UDP: castSizes}})
	return err
}

func heardBy(a *uml.Agent, group string, from int) error {
	answer, err := a.Call(uml.Request{Heard: &uml.Heard{Group: group, UDP: castSizes, From: from, Seconds: probeSeconds}})
	if p := answer.Report; err == nil && (p.Intact != p.Sent || len(p.Trouble) > 0) {
		err = fmt.Errorf("%s: %d of %d came: %s", group, p.Intact, p.Sent, strings.Join(p.Trouble[:min(4, len(p.Trouble))], "; "))
	}
	return err
}

// joinAll makes an agent a member of groups.
func (l *lab) joinAll(a *uml.Agent, dev string, groups ...string) {
	l.Helper()
	for _, g := range groups {
		if _, err := a.Call(uml.Request{Join: &uml.Join{Group: g, Dev: dev}}); err != nil {
			l.Fatalf("join %s: %v", g, err)
		}
	}
}

// A Linux kernel and the gateway send to groups under SAs, and open what the
// other sends.
func TestLinuxGroups(t *testing.T) {
	t.Parallel()
	r := newPeerRig(t)
	for _, route := range []string{
		"route add 239.1.0.0/16 dev red0", "-6 route add ff15::/16 dev red0",
		"route add 239.1.2.3/32 dev wire0", "-6 route add ff15::203/128 dev wire0", // of transport mode
		"route add 239.128.0.0/9 dev wire0", "-6 route add ff1e::/16 dev wire0",
	} {
		r.ip("g", route)
	}
	if err := runBatch(r.guest, "route add 239.0.0.0/8 dev vec0"); err != nil {
		t.Fatal(err)
	}
	for f := range nearAddr {
		r.joinAll(r.host, "eth0", toHost[f])
		r.joinAll(r.guest, "vec0", toGuest[f], guestsGroup[f])
	}
	both, spi := []int{0, 1}, uint32(0x3000)
	esp, ah := short(espTransforms()), short(ahTransforms())
	named := func(rows []transform, name string) transform {
		return rows[slices.IndexFunc(rows, func(t transform) bool { return strings.HasPrefix(t.name, name) })]
	}
	for outer := range nearAddr {
		for _, s := range []shape{
			{"tunnel", "esp", "tunnel", outer, both, "", 0}, {"transport", "esp", "transport", outer, []int{outer}, "", 0},
			{"tunnel", "ah", "tunnel", outer, both, "", 0}, {"transport", "ah", "transport", outer, []int{outer}, "", 0},
		} {
			rows := []transform{named(ah, "hmac-sha2-256")}
			if s.proto == "esp" {
				rows = []transform{named(esp, "aes-gcm-128, 16"), named(esp, "aes-cbc-128/hmac-sha2-256")}
			}
			for _, row := range rows {
				for _, esn := range []bool{false, true} {
					c := groupCase{row, s, esn, spi, toHost}
					spi += 2
					t.Run(c.name(), func(t *testing.T) {
						if err := c.run(r, r.host); err != nil {
							t.Error(err)
						}
					})
				}
			}
		}
	}
	// The gateway's own host is a member where the group is an address of its own.
	own := [2]string{"239.1.2.5", "ff15::205"}
	for f, group := range own {
		r.ip("g", "addr add "+group+[2]string{"/32", "/128"}[f]+" dev enc0 autojoin")
		r.joinAll(r.self, "enc0", group)
	}
	c := groupCase{named(esp, "aes-gcm-128, 16"), shape{"tunnel", "esp", "tunnel", 0, both, "", 0}, true, spi, own}
	t.Run("to the host itself", func(t *testing.T) {
		if err := c.run(r, r.self); err != nil {
			t.Error(err)
		}
	})
}

// castConf is the ipsec.conf of three gateways that all send to one group, each
// under an SA of its own that has the SPI of the others'.
func castConf() string {
	var b strings.Builder
	for i := 1; i <= 3; i++ {
		fmt.Fprintf(&b, "esp from 192.0.2.%d to 239.137.9.9 spi 0x1000 lookup src replay 64 enc aes-128 auth hmac-sha2-256 authkey 0x%s enckey 0x%s\n",
			i, strings.Repeat(fmt.Sprintf("%02x", i), 32), strings.Repeat(fmt.Sprintf("%02x", 16+i), 16))
		fmt.Fprintf(&b, "flow out from { 10.%d.0.0/24 fd0%d::/64 } to { 239.1.0.0/16 ff15::204 } local 192.0.2.%d peer 239.137.9.9\n", i, i, i)
	}
	b.WriteString("flow in from { 10.0.0.0/8 fd00::/8 } to { 239.1.0.0/16 ff15::204 } local 239.137.9.9 peer any\n")
	return b.String()
}

// Three gateways on a bridge that snoops: what a host behind one of them sends to
// a group the hosts behind the others hear, once, IPv4 and IPv6 alike, and the
// bridge knows where the group's members are.
func TestGroupsBetweenGateways(t *testing.T) {
	t.Parallel()
	l := newLab(t, "xabcrst")
	l.ip("x", "link add br0 type bridge mcast_snooping 1 mcast_querier 1")
	l.ip("x", "link set br0 up")
	conf := filepath.Join(l.dir, "cast.conf")
	if err := os.WriteFile(conf, []byte(castConf()), 0o600); err != nil {
		t.Fatal(err)
	}
	var hosts []*uml.Agent
	for i, g := range []string{"a", "b", "c"} {
		h, n := string("rst"[i]), i+1
		l.cable(h+" eth0", g+" red0")
		l.cable(g+" wire0", fmt.Sprintf("x p%d", n))
		l.ip("x", fmt.Sprintf("link set p%d master br0", n))
		for _, args := range []string{
			fmt.Sprintf("addr add 10.%d.0.2/24 dev eth0", n), fmt.Sprintf("addr add fd0%d::2/64 dev eth0", n),
			fmt.Sprintf("route add default via 10.%d.0.1", n), fmt.Sprintf("route add default via fd0%d::1", n),
		} {
			l.ip(h, args)
		}
		for _, args := range []string{
			fmt.Sprintf("addr add 10.%d.0.1/24 dev red0", n), fmt.Sprintf("addr add fd0%d::1/64 dev red0", n),
			fmt.Sprintf("addr add 192.0.2.%d/24 dev wire0", n),
			"route add default via 192.0.2.9", "-6 route add default via fe80::9 dev wire0",
			"route add 239.1.0.0/16 dev red0", "-6 route add ff15::/16 dev red0", "route add 239.137.9.9 dev wire0",
		} {
			l.ip(g, args)
		}
		l.startGatewayWith(g, fmt.Sprintf("ipsec: %q", conf))
		hosts = append(hosts, l.startAgent(h))
		l.joinAll(hosts[i], "eth0", toHost[0], toHost[1])
	}
	l.await("the bridge to know the members", func() bool {
		out, err := exec.Command("ip", "netns", "exec", l.id+"x", "bridge", "mdb", "show").Output()
		return err == nil && strings.Count(string(out), "grp 239.137.9.9 ") == 3
	})
	for f, group := range toHost {
		for round := range 2 {
			for i, h := range hosts {
				if err := castTo(h, [2]string{fmt.Sprintf("10.%d.0.2", i+1), fmt.Sprintf("fd0%d::2", i+1)}[f], group, "eth0"); err != nil {
					t.Fatal(err)
				}
			}
			for i, h := range hosts {
				// Its own it hears from its own kernel.
				if err := heardBy(h, group, len(hosts)); err != nil {
					t.Errorf("round %d, host %d: %v", round, i+1, err)
				}
			}
		}
	}
	for _, g := range l.gateways {
		drops, err := g.drops()
		if err != nil {
			t.Fatal(err)
		}
		for reason, n := range drops {
			if n > 0 && reason != "no_policy" { // what else an IPv6 network says to groups
				t.Errorf("%d packets dropped: %s", n, reason)
			}
		}
	}
}
