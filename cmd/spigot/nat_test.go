package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/control"
)

// natAddr is what gateway b sees of gateway a where there is a NAT.
const natAddr = "192.0.2.3"

// natBetween joins the gateways by a namespace that masquerades as natAddr:
//
//	[gateway a] wire0 --- in0 [nat] out0 --- wire0 [gateway b]
func (r *ikeRig) natBetween(id string) {
	r.Helper()
	ns := id + "nat"
	r.ip("netns add " + ns)
	r.Cleanup(func() {
		if err := ip("netns del " + ns); err != nil {
			r.Error(err)
		}
	})
	for _, args := range []string{
		"link add in0 netns " + ns + " type veth peer name wire0 netns " + id + "ga",
		"link add out0 netns " + ns + " type veth peer name wire0 netns " + id + "gb",
		"-n " + ns + " addr add " + natAddr + "/32 dev out0",
		"-n " + ns + " link set lo up",
		"-n " + ns + " link set in0 up",
		"-n " + ns + " link set out0 up",
		"-n " + ns + " route add 192.0.2.1 dev in0",
		"-n " + ns + " route add 192.0.2.2 dev out0",
	} {
		r.ip(args)
	}
	for _, set := range []string{"ipv4/ip_forward", "ipv4/conf/in0/proxy_arp", "ipv4/conf/out0/proxy_arp"} {
		r.output("ip", "netns", "exec", ns, "sysctl", "-qw", "net/"+set+"=1")
	}
	r.natNS = ns
	r.masquerade("2000-2999")
}

// masquerade has the NAT choose from ports, and forget what it has chosen.
func (r *ikeRig) masquerade(ports string) {
	r.Helper()
	cmd := exec.Command("ip", "netns", "exec", r.natNS, "nft", "-f", "-")
	cmd.Stdin = bytes.NewBufferString(`
add table ip nat
delete table ip nat
table ip nat {
  chain post {
    type nat hook postrouting priority 100
    oifname "out0" ip protocol udp masquerade to :` + ports + `
  }
}
`)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.Fatalf("nft: %v\n%s", err, out)
	}
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Open("/var/run/netns/"+r.natNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = netlink.ConntrackTableFlush(netlink.ConntrackTable)
		}
		errs <- err
	}()
	if err := <-errs; err != nil {
		r.Fatalf("have the NAT forget: %v", err)
	}
}

// remote is where charon of g expects its peer.
func (r *ikeRig) remote(g *ikeGateway) string {
	if r.nat && g.me == 2 {
		return natAddr
	}
	return fmt.Sprintf("192.0.2.%d", g.peer)
}

// dropped returns how many packets g dropped for a reason.
func (g *ikeGateway) dropped(reason string) uint64 {
	g.r.Helper()
	var list []control.DropInfo
	if err := g.show("drops", &list); err != nil {
		g.r.Fatal(err)
	}
	for _, d := range list {
		if d.Reason == reason {
			return d.Total
		}
	}
	g.r.Fatalf("no reason %q", reason)
	return 0
}

// encaps is the ports of ESP in UDP as `ip xfrm` shows them of gateway g's SAs.
func (g *ikeGateway) encaps() [][]string {
	g.r.Helper()
	out := g.r.output("ip", "netns", "exec", g.ns, g.r.ctl, "--socket", g.path("control.sock"), "keyd", "--", "ip", "xfrm", "state")
	return regexp.MustCompile(`encap type espinudp sport (\d+) dport (\d+)`).FindAllStringSubmatch(out, -1)
}

// TestThroughNAT: charons find the NAT between them and use ESP in UDP. While
// nothing is sent, keepalives are. When the NAT forgets and chooses another
// port, the first authentic packet tells it to the daemon on the far side, which
// moves its SA there (RFC 3948; RFC 7296, section 2.23).
func TestThroughNAT(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "spigot/cmd/spigot", "spigot/cmd/spigotctl").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	r := newIKERig(t, bin, true)
	defer r.explain()
	r.esp = "aes128gcm16"
	a, b := r.gateways[0], r.gateways[1]
	startCharon(r, b)
	startCharon(r, a)
	answered := func() bool { return r.ping("-c", "1", "-W", "1") == nil }
	r.await("an answer through the NAT", answered)
	if err := r.lossless("-c", "20", "-i", "0.02"); err != nil {
		t.Fatal(err)
	}
	moved := func(from, to string) bool {
		n := 0
		for _, e := range b.encaps() {
			for _, port := range e[1:] {
				if port != "4500" && port >= from && port <= to {
					n++
				}
			}
		}
		return n == 2 // one a direction
	}
	if !moved("2000", "2999") {
		t.Fatalf("b's SAs are in UDP by %v", b.encaps())
	}
	r.await("keepalives of the idle peer", func() bool { return b.dropped("nat_keepalive") >= 2 })

	r.masquerade("3000-3999")
	r.await("an answer through the NAT that has forgotten", answered)
	r.await("b's SAs to move", func() bool { return moved("3000", "3999") })
	if err := r.lossless("-c", "20", "-i", "0.02"); err != nil {
		t.Fatal(err)
	}
	for _, g := range r.gateways {
		for _, reason := range []string{"auth_failed", "replay_seen", "replay_old", "wrong_sa_mode"} {
			if n := g.dropped(reason); n != 0 {
				t.Errorf("gateway %d dropped %d packets as %s", g.me, n, reason)
			}
		}
	}
	r.stop()
}
