package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/internal/uml"
)

// peerRig is a gateway whose peer is a Linux kernel:
//
//	host --- red0 [gateway] wire0 --- vec0 [guest]
//	10.1.0.2          192.0.2.1       192.0.2.2, 10.2.0.2
//	fd01::2        2001:db8::1     2001:db8::2, fd02::2
type peerRig struct {
	*testing.T
	ctl, socket string
	id          string // of the namespaces: their names without the last letter
	host, guest *uml.Agent
	drops       map[string]uint64 // what the gateway had dropped when the case began
	errors      map[string]uint64 // what the guest's stack had refused then
}

// Addresses by family: v4, v6.
var (
	hostAddr  = [2]string{"10.1.0.2", "fd01::2"}
	innerAddr = [2]string{"10.2.0.2", "fd02::2"} // of the guest, behind its tunnel
	nearAddr  = [2]string{"192.0.2.1", "2001:db8::1"}
	farAddr   = [2]string{"192.0.2.2", "2001:db8::2"}
)

// newPeerRig starts all three. They end with the test, however it ends.
func newPeerRig(t *testing.T) *peerRig {
	t.Helper()
	dir := t.TempDir()
	r := &peerRig{T: t, ctl: filepath.Join(dir, "spigotctl"), socket: filepath.Join(dir, "control.sock"),
		id: fmt.Sprintf("spigotp-%d-%d", os.Getpid(), networks.Add(1))}
	if out, err := exec.Command("go", "build", "-o", dir, "spigot/cmd/spigot", "spigot/cmd/spigotctl").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	agent, err := uml.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	r.makeNetwork()
	r.startGateway(dir, filepath.Join(dir, "spigot"))
	start := func(what string, a *uml.Agent, err error) *uml.Agent {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Cleanup(func() {
			if err := a.Close(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
		return a
	}
	a, err := uml.StartAgent(r.id+"h", agent)
	r.host = start("host", a, err)
	a, err = uml.Boot(r.id+"p", "vec0", filepath.Join(dir, "guest"), agent)
	r.guest = start("guest", a, err)
	r.settle()
	return r
}

// makeNetwork makes the namespaces h of the host, g of the gateway and p, from
// which the guest sees the wire.
func (r *peerRig) makeNetwork() {
	r.Helper()
	for _, side := range []string{"h", "g", "p"} {
		r.ip("netns add " + r.id + side)
		r.Cleanup(func() {
			if err := ip("netns del " + r.id + side); err != nil {
				r.Error(err)
			}
		})
		for _, key := range []string{"net/ipv6/conf/default/accept_dad", "net/ipv6/conf/default/router_solicitations", "net/ipv4/ip_forward"} {
			r.output("ip", "netns", "exec", r.id+side, "sysctl", "-qw", key+"=0")
		}
		r.ip("-n " + r.id + side + " link set lo up")
	}
	r.cable("h", "eth0", "g", "red0")
	r.cable("g", "wire0", "p", "vec0")
	for _, args := range []string{
		"h addr add 10.1.0.2/24 dev eth0", "h addr add fd01::2/64 dev eth0",
		"h route add default via 10.1.0.1", "h route add default via fd01::1",
		"g addr add 10.1.0.1/24 dev red0", "g addr add fd01::1/64 dev red0",
		"g addr add 192.0.2.1/24 dev wire0", "g addr add 2001:db8::1/64 dev wire0",
		"g route add 10.2.0.0/24 via 192.0.2.2", "g route add fd02::/64 via 2001:db8::2",
	} {
		r.ip("-n " + r.id + args)
	}
}

// cable joins two namespaces. A veth hands over packets as their sender has
// them: unfinished checksums and joined segments would be sealed as they are.
func (r *peerRig) cable(aNS, a, bNS, b string) {
	r.Helper()
	r.ip(fmt.Sprintf("-n %s link add %s type veth peer name %s netns %s", r.id+aNS, a, b, r.id+bNS))
	for ns, dev := range map[string]string{r.id + aNS: a, r.id + bNS: b} {
		r.output("ip", "netns", "exec", ns, "ethtool", "-K", dev, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
		r.ip("-n " + ns + " link set " + dev + " up")
	}
}

// startGateway starts spigot without any policies.
func (r *peerRig) startGateway(dir, spigot string) {
	r.Helper()
	config := filepath.Join(dir, "gw.yaml")
	text := fmt.Sprintf(`
ports:
  - {name: red0, side: protected}
  - {name: wire0, side: wire}
control: {socket: %q}
idle: {policy: adaptive, turns: 50}
`, r.socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command("ip", "netns", "exec", r.id+"g", spigot, "run", "--config", config)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		if err := cmd.Wait(); err != nil {
			r.Errorf("the gateway ended badly: %v", err)
		}
		if r.Failed() {
			r.Logf("the gateway's log:\n%s", &log)
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var s control.StatusInfo
		if r.show("status", &s) == nil && s.Mirrored {
			return
		}
		if time.Now().After(end) {
			r.Fatalf("the gateway does not run in time:\n%s", &log)
		}
	}
}

// settle gives the guest its addresses, and makes neighbours known for good.
func (r *peerRig) settle() {
	r.Helper()
	r.in(r.guest, `
link set lo up
link set vec0 up
addr add 10.2.0.2/32 dev lo
addr add fd02::2/128 dev lo
addr add 192.0.2.2/24 dev vec0
addr add 2001:db8::2/64 dev vec0 nodad
route add 10.1.0.0/24 via 192.0.2.1 src 10.2.0.2
route add fd01::/64 via 2001:db8::1 src fd02::2
`)
	mac := func(a *uml.Agent, dev string) string {
		answer, err := a.Call(uml.Request{Read: "/sys/class/net/" + dev + "/address"})
		if err != nil {
			r.Fatal(err)
		}
		return strings.TrimSpace(answer.Output)
	}
	var ports []control.PortInfo
	if err := r.show("ports", &ports); err != nil {
		r.Fatal(err)
	}
	for i := range nearAddr {
		r.in(r.guest, fmt.Sprintf("neigh replace %s lladdr %s dev vec0 nud permanent", nearAddr[i], ports[1].MAC))
		r.ip(fmt.Sprintf("-n %sg neigh replace %s lladdr %s dev wire0 nud permanent", r.id, farAddr[i], mac(r.guest, "vec0")))
		r.ip(fmt.Sprintf("-n %sg neigh replace %s lladdr %s dev red0 nud permanent", r.id, hostAddr[i], mac(r.host, "eth0")))
		r.ip(fmt.Sprintf("-n %sh neigh replace %s lladdr %s dev eth0 nud permanent", r.id, [2]string{"10.1.0.1", "fd01::1"}[i], ports[0].MAC))
	}
}

// in runs ip with a batch in an agent's place.
func (r *peerRig) in(a *uml.Agent, batch string) {
	r.Helper()
	if err := runBatch(a, batch); err != nil {
		r.Fatalf("%v\n%s", err, batch)
	}
}

func runBatch(a *uml.Agent, batch string) error {
	_, err := a.Run(batch, "ip", "-batch", "-")
	return err
}

// keyGateway runs ip with a batch against the gateway.
func (r *peerRig) keyGateway(batch string) error {
	cmd := exec.Command(r.ctl, "--socket", r.socket, "keyd", "--", "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip against the gateway: %w\n%s", err, out)
	}
	return nil
}

// key keys both sides, each with its own batch.
func (r *peerRig) key(gateway, guest string) error {
	return both(func() error { return r.keyGateway(gateway) }, func() error { return runBatch(r.guest, guest) })
}

// both runs f and g at once.
func both(f, g func() error) error {
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = f() })
	wg.Go(func() { errs[1] = g() })
	wg.Wait()
	return errors.Join(errs[:]...)
}

// traffic is the packets and bytes that an SA carried, by its SPI.
type traffic map[uint32]uint64

// gatewayTraffic asks the gateway what its SAs have carried.
func (r *peerRig) gatewayTraffic() (traffic, error) {
	var sas []control.SAInfo
	if err := r.show("sa", &sas); err != nil {
		return nil, err
	}
	t := traffic{}
	for _, sa := range sas {
		t[sa.SPI] += sa.Packets
	}
	return t, nil
}

var saLines = regexp.MustCompile(`spi 0x([0-9a-f]{8})\(|(\d+)\(packets\)\n\t  add`)

// guestTraffic asks the guest.
func (r *peerRig) guestTraffic() (traffic, error) {
	out, err := r.guest.Run("", "ip", "-s", "xfrm", "state")
	if err != nil {
		return nil, err
	}
	t := traffic{}
	var spi uint64
	for _, m := range saLines.FindAllStringSubmatch(out, -1) {
		if m[1] != "" {
			spi, err = strconv.ParseUint(m[1], 16, 32)
		} else {
			t[uint32(spi)], err = strconv.ParseUint(m[2], 10, 64)
		}
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// gatewayDrops counts what the gateway has dropped. What is sent to everybody
// on the wire, as neighbour discovery is, has no policy and counts for nothing.
func (r *peerRig) gatewayDrops() (map[string]uint64, error) {
	var drops []control.DropInfo
	if err := r.show("drops", &drops); err != nil {
		return nil, err
	}
	counts := make(map[string]uint64)
	for _, d := range drops {
		counts[d.Reason] = d.Total
	}
	return counts, nil
}

// guestErrors counts what the guest's stack has refused.
func (r *peerRig) guestErrors() (map[string]uint64, error) {
	answer, err := r.guest.Call(uml.Request{Read: "/proc/net/xfrm_stat"})
	if err != nil {
		return nil, err
	}
	counts := make(map[string]uint64)
	words := strings.Fields(answer.Output)
	for i := 0; i+1 < len(words); i += 2 {
		if counts[words[i]], err = strconv.ParseUint(words[i+1], 10, 64); err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// since lists what grew from before to now.
func since(before, now map[string]uint64) (grown []string) {
	for name, n := range now {
		if n != before[name] {
			grown = append(grown, fmt.Sprintf("%s %d", name, n-before[name]))
		}
	}
	return grown
}

// show asks the gateway.
func (r *peerRig) show(what string, into any) error {
	out, err := exec.Command(r.ctl, "--socket", r.socket, "show", what, "-o", "json").Output()
	if err != nil {
		return fmt.Errorf("spigotctl show %s: %w", what, err)
	}
	return json.Unmarshal(out, into)
}

func (r *peerRig) ip(args string) {
	r.Helper()
	if err := ip(args); err != nil {
		r.Fatal(err)
	}
}

func (r *peerRig) output(argv ...string) string {
	r.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		r.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}
