package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/internal/uml"
)

// lab is a place for tests: network namespaces and what runs in them. All of it
// ends with the test, however that ends.
type lab struct {
	*testing.T
	dir   string
	id    string // of the namespaces: their names without the last letter
	agent string // path of the program
	mtu   int    // of cables; 0: as the kernel has it

	gateways []*labGateway
}

// newLab makes namespaces, one a letter.
func newLab(t *testing.T, sides string) *lab {
	t.Helper()
	l := &lab{T: t, dir: t.TempDir(), id: fmt.Sprintf("spigotp-%d-%d", os.Getpid(), networks.Add(1))}
	if out, err := exec.Command("go", "build", "-o", l.dir, "spigot/cmd/spigot", "spigot/cmd/spigotctl").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var err error
	if l.agent, err = uml.Build(l.dir); err != nil {
		t.Fatal(err)
	}
	for _, side := range strings.Split(sides, "") {
		if err := ip("netns add " + l.id + side); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := ip("netns del " + l.id + side); err != nil {
				t.Error(err)
			}
		})
		for _, key := range []string{"ipv6/conf/default/accept_dad", "ipv6/conf/default/router_solicitations", "ipv4/ip_forward"} {
			l.exec(side, "sysctl", "-qw", "net/"+key+"=0")
		}
		l.ip(side, "link set lo up")
	}
	return l
}

// ip runs ip in a namespace.
func (l *lab) ip(side, args string) {
	l.Helper()
	if err := ip("-n " + l.id + side + " " + args); err != nil {
		l.Fatal(err)
	}
}

// exec runs a program in a namespace.
func (l *lab) exec(side string, argv ...string) {
	l.Helper()
	if out, err := exec.Command("ip", append([]string{"netns", "exec", l.id + side}, argv...)...).CombinedOutput(); err != nil {
		l.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// cable joins two interfaces, each named as "side name". A veth hands over
// packets as their sender has them: unfinished checksums and joined segments
// would be sealed as they are.
func (l *lab) cable(a, b string) {
	l.Helper()
	aSide, aName, _ := strings.Cut(a, " ")
	bSide, bName, _ := strings.Cut(b, " ")
	l.ip(aSide, fmt.Sprintf("link add %s type veth peer name %s netns %s", aName, bName, l.id+bSide))
	for _, end := range [][2]string{{aSide, aName}, {bSide, bName}} {
		l.exec(end[0], "ethtool", "-K", end[1], "tx", "off", "tso", "off", "gso", "off", "gro", "off")
		if l.mtu != 0 {
			l.ip(end[0], fmt.Sprintf("link set %s mtu %d", end[1], l.mtu))
		}
		l.ip(end[0], "link set "+end[1]+" up")
	}
}

// neighbour makes a neighbour behind dev known for good.
func (l *lab) neighbour(of, dev, address, mac string) {
	l.Helper()
	l.ip(of, fmt.Sprintf("neigh replace %s lladdr %s dev %s nud permanent", address, mac, dev))
}

// mac returns the address of an interface of the lab.
func (l *lab) mac(side, dev string) string {
	l.Helper()
	out, err := exec.Command("ip", "netns", "exec", l.id+side, "cat", "/sys/class/net/"+dev+"/address").Output()
	if err != nil {
		l.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// await polls until something is there.
func (l *lab) await(what string, ready func() bool) {
	l.Helper()
	for end := time.Now().Add(time.Minute); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("%s: not in time", what)
		}
	}
}

// startAgent starts an agent in a namespace.
func (l *lab) startAgent(side string) *uml.Agent {
	l.Helper()
	a, err := uml.StartAgent(l.id+side, l.agent)
	return l.keep(a, err)
}

// boot boots a guest whose vec0 is that of a namespace.
func (l *lab) boot(side string) *uml.Agent {
	l.Helper()
	dir := filepath.Join(l.dir, "guest"+side)
	if err := os.Mkdir(dir, 0o700); err != nil {
		l.Fatal(err)
	}
	mtu := l.mtu
	if mtu == 0 {
		mtu = 1500
	}
	a, err := uml.Boot(l.id+side, "vec0", mtu, dir, l.agent)
	return l.keep(a, err)
}

func (l *lab) keep(a *uml.Agent, err error) *uml.Agent {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if err := a.Close(); err != nil {
			l.Error(err)
		}
	})
	return a
}

// labGateway is a running spigot.
type labGateway struct {
	lab    *lab
	socket string
}

// startGateway starts spigot in a namespace, where it has the ports red0 and
// wire0, the host behind it and, as yet, no policies.
func (l *lab) startGateway(side string) *labGateway {
	l.Helper()
	return l.startGatewayWith(side, `
host: {enc: enc0}
allow_legacy: true # HMAC-SHA1 is one of those to judge
`)
}

// startGatewayWith is startGateway with another rest of the configuration.
func (l *lab) startGatewayWith(side, rest string) *labGateway {
	l.Helper()
	dir := filepath.Join(l.dir, "gateway"+side)
	if err := os.Mkdir(dir, 0o700); err != nil {
		l.Fatal(err)
	}
	g := &labGateway{l, filepath.Join(dir, "control.sock")}
	config := filepath.Join(dir, "gw.yaml")
	text := fmt.Sprintf(`
ports:
  - {name: red0, side: protected}
  - {name: wire0, side: wire}
control: {socket: %q}
idle: {policy: adaptive, turns: 50}
%s
`, g.socket, rest)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		l.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command("ip", "netns", "exec", l.id+side, filepath.Join(l.dir, "spigot"), "run", "--config", config)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		if err := cmd.Wait(); err != nil {
			l.Errorf("gateway %s ended badly: %v", side, err)
		}
		if l.Failed() {
			l.Logf("the log of gateway %s:\n%s", side, &log)
		}
	})
	l.await("gateway "+side, func() bool {
		var s control.StatusInfo
		return g.show("status", &s) == nil && s.Mirrored
	})
	l.gateways = append(l.gateways, g)
	return g
}

// show asks the gateway, as spigotctl does.
func (g *labGateway) show(what string, into any) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", g.socket)
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: time.Minute}
	answer, err := client.Get("http://gateway/v1/" + what)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("show %s: %s", what, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

// key runs ip with a batch against the gateway.
func (g *labGateway) key(batch string) error {
	cmd := exec.Command(filepath.Join(g.lab.dir, "spigotctl"), "--socket", g.socket, "keyd", "--", "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip against the gateway: %w\n%s\n%s", err, out, batch)
	}
	return nil
}

// traffic is the packets that SAs carried, by SPI.
type traffic map[uint32]uint64

// traffic asks the gateway what its SAs have carried.
func (g *labGateway) traffic() (traffic, error) {
	var sas []control.SAInfo
	if err := g.show("sa", &sas); err != nil {
		return nil, err
	}
	t := traffic{}
	for _, sa := range sas {
		t[sa.SPI] += sa.Packets
	}
	return t, nil
}

// drops counts what the gateway has dropped, by reason.
func (g *labGateway) drops() (map[string]uint64, error) {
	var drops []control.DropInfo
	if err := g.show("drops", &drops); err != nil {
		return nil, err
	}
	counts := make(map[string]uint64)
	for _, d := range drops {
		counts[d.Reason] = d.Total
	}
	return counts, nil
}

// runBatch runs ip with a batch in an agent's place.
func runBatch(a *uml.Agent, batch string) error {
	if _, err := a.Run(batch, "ip", "-batch", "-"); err != nil {
		return fmt.Errorf("%w\n%s", err, batch)
	}
	return nil
}
