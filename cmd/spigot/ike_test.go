package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spigot/control"
)

// Two gateways whose SAs Debian's own key daemons negotiate:
//
//	host a --- red0 [gateway a] wire0 --- wire0 [gateway b] red0 --- host b
//	10.1.0.2              192.0.2.1       192.0.2.2              10.2.0.2
func TestKeyDaemons(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "spigot/cmd/spigot", "spigot/cmd/spigotctl").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		name  string
		a, b  daemon
		esp   string // charon's proposal
		want  control.SAInfo
		encap bool // ESP in UDP, as if there were a NAT
		dies  bool // the daemon of gateway a is killed in the end
	}{
		{"charon and charon", startCharon, startCharon, "aes256gcm16-esn", control.SAInfo{Suite: "aes-gcm-16-256", ESN: true}, false, false},
		{"charon and charon by UDP", startCharon, startCharon, "aes128gcm16", control.SAInfo{Suite: "aes-gcm-16-128"}, true, true},
		{"iked and iked", startIked, startIked, "", control.SAInfo{Suite: "aes-cbc-256/hmac-sha2-384-192"}, false, false},
		{"charon and iked", startCharon, startIked, "aes256-sha384", control.SAInfo{Suite: "aes-cbc-256/hmac-sha2-384-192"}, false, false},
		{"iked and charon", startIked, startCharon, "aes256-sha384", control.SAInfo{Suite: "aes-cbc-256/hmac-sha2-384-192"}, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newIKERig(t, bin, false) // one after the other: each has six busy processes
			defer r.explain()
			r.esp, r.encap = tt.esp, tt.encap
			tt.b(r, r.gateways[1])
			tt.a(r, r.gateways[0])
			r.holdAcquire()
			if err := r.lossless("-c", "20", "-i", "0.02"); err != nil {
				t.Errorf("by the first SA: %v", err)
			}
			first := r.holdSAs(tt.want)
			r.holdIPXfrm(first)
			r.holdRekey(first)
			r.holdNoDrop("unknown_spi")
			r.holdIperf()
			if tt.dies {
				r.holdDeath()
			} else {
				r.holdHardExpiry()
			}
			r.stop()
		})
	}
}

// holdAcquire holds that there is no SA, and that the first packet makes one:
// both daemons wait for it.
func (r *ikeRig) holdAcquire() {
	r.Helper()
	if sas := slices.Concat(r.gateways[0].sas(), r.gateways[1].sas()); len(sas) != 0 {
		r.Fatalf("SAs before the first packet: %+v", sas)
	}
	r.await("an answer to a ping", func() bool { return r.ping("-c", "1", "-W", "1") == nil })
	if s := r.gateways[0].status().Stats; s.AcquiresSent == 0 {
		r.Errorf("nobody was asked for the SA: %+v", s)
	}
}

// holdRekey holds that SAs are replaced at their soft lifetime, of which
// first are the SPIs, and that no packet is lost by it.
func (r *ikeRig) holdRekey(first []uint32) {
	r.Helper()
	if err := r.lossless("-c", "300", "-i", "0.01", "-s", "1000"); err != nil {
		r.Errorf("while SAs were rekeyed: %v", err)
	}
	r.await("the end of the first SA", func() bool { return !slices.Contains(spis(r.gateways[0].sas(), control.DirOut), first[0]) })
	if s := r.gateways[0].status().Stats; s.SoftExpired == 0 || s.HardExpired != 0 {
		r.Errorf("%d soft and %d hard expiries: want soft ones only", s.SoftExpired, s.HardExpired)
	}
}

// holdIperf holds that TCP passes, while SAs are rekeyed.
func (r *ikeRig) holdIperf() {
	r.Helper()
	server := exec.Command("ip", "netns", "exec", r.hosts[1], "iperf3", "-s")
	if err := server.Start(); err != nil {
		r.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	type report struct {
		Error string
		End   struct {
			Received struct{ Bytes float64 } `json:"sum_received"`
		}
	}
	// Bytes, and not a time: how long they take is the machine's affair. The server
	// does not count what is still on its way when the client has sent all.
	const size, window = 500_000, 20_000
	client := []string{"netns", "exec", r.hosts[0], "timeout", "30", "iperf3", "-c", "10.2.0.2", "-J",
		"-n", strconv.Itoa(size), "-w", strconv.Itoa(window), "-l", "5000", "-b", "2M"}
	var out []byte
	defer func() {
		if r.Failed() {
			r.Logf("iperf3: %s", out)
		}
	}()
	var got report
	r.await("iperf3", func() bool { // its server too
		var err error
		out, err = exec.Command("ip", client...).Output()
		got = report{}
		return err == nil && json.Unmarshal(out, &got) == nil && got.Error == "" // which exits 0, too
	})
	if got.End.Received.Bytes < size/2 {
		r.Errorf("iperf3: %.0f of %d bytes have come", got.End.Received.Bytes, size)
	}
}

// settle waits until the daemons have brought every rekeying to its end: each
// gateway has one SA a direction. Charon repeats a request that it did not take
// up, being busy with another one, after seconds. An SPI that iked has reserved
// for an exchange that failed stays for a minute, and does not count.
func (r *ikeRig) settle() {
	r.Helper()
	r.await("the end of the rekeyings", func() bool {
		a, b := r.gateways[0].sas(), r.gateways[1].sas()
		return len(spis(a, control.DirOut)) == 1 && len(spis(a, control.DirIn)) == 1 &&
			slices.Equal(spis(a, control.DirOut), spis(b, control.DirIn)) &&
			slices.Equal(spis(a, control.DirIn), spis(b, control.DirOut))
	})
}

// holdHardExpiry holds that an SA that nobody replaces, since the other daemon
// has stopped answering, is gone at its hard lifetime, and that the daemon is told.
func (r *ikeRig) holdHardExpiry() {
	r.Helper()
	r.settle()
	a, b := r.gateways[0], r.gateways[1]
	b.signal(unix.SIGSTOP)
	defer b.signal(unix.SIGCONT)
	before := a.status().Stats.HardExpired
	had := spis(a.sas(), control.DirOut)
	r.await("the hard lifetime's end", func() bool {
		_ = r.ping("-c", "100", "-i", "0.002", "-s", "1000", "-W", "0.1") // answers end with the SAs
		return !slices.ContainsFunc(spis(a.sas(), control.DirOut), func(spi uint32) bool { return slices.Contains(had, spi) })
	})
	if s := a.status().Stats; s.HardExpired == before {
		r.Errorf("SAs %#x did not end by their hard lifetime: %+v", had, s)
	}
	r.await("the daemon to be told", func() bool { return toldHard.MatchString(a.log(1)) })
}

// holdDeath holds that the SAs of a daemon that was killed carry packets on, and
// end at their hard lifetime all the same.
func (r *ikeRig) holdDeath() {
	r.Helper()
	r.settle()
	a, b := r.gateways[0], r.gateways[1]
	b.signal(unix.SIGSTOP) // it would replace the SAs, or try to
	defer b.signal(unix.SIGCONT)
	a.signal(unix.SIGKILL)
	_ = a.running[1].Wait() // it was killed
	had := spis(a.sas(), control.DirOut)
	if err := r.lossless("-c", "20", "-i", "0.02"); err != nil || len(had) == 0 {
		r.Errorf("by SAs %#x, whose daemon is dead: %v", had, err)
	}
	r.await("the hard lifetime's end", func() bool {
		_ = r.ping("-c", "100", "-i", "0.002", "-s", "1000", "-W", "0.1") // answers end with the SAs
		return len(spis(a.sas(), control.DirOut)) == 0
	})
}

// toldHard is what charon and iked write when they hear of a hard expiry.
var toldHard = regexp.MustCompile(`creating delete job for CHILD_SA|pfkey_process: SA .* is expired`)

// daemon starts a key daemon on a gateway and configures it.
type daemon func(*ikeRig, *ikeGateway)

// ikeGateway is a gateway and its key daemon.
type ikeGateway struct {
	r        *ikeRig
	ns, dir  string
	me, peer int // 1 or 2
	running  []*exec.Cmd
}

// ikeRig is two gateways and two hosts.
type ikeRig struct {
	*testing.T
	spigot, ctl string
	esp         string
	encap       bool
	nat         bool // between the gateways, in front of a: natNS
	natNS       string
	hosts       [2]string // namespaces
	gateways    [2]*ikeGateway
}

// newIKERig starts two gateways without any policies, with a NAT between them or
// without one; bin has the programs.
func newIKERig(t *testing.T, bin string, nat bool) *ikeRig {
	t.Helper()
	r := &ikeRig{T: t, nat: nat, ctl: filepath.Join(bin, "spigotctl"), spigot: filepath.Join(bin, "spigot")}
	id := fmt.Sprintf("spigoti-%d-%d", os.Getpid(), networks.Add(1))
	for _, side := range []string{"ha", "ga", "gb", "hb"} {
		r.ip("netns add " + id + side)
		t.Cleanup(func() {
			if err := ip("netns del " + id + side); err != nil {
				t.Error(err)
			}
		})
	}
	r.hosts = [2]string{id + "ha", id + "hb"}
	if nat {
		r.natBetween(id)
	} else {
		r.ip("link add wire0 netns " + id + "ga type veth peer name wire0 netns " + id + "gb")
	}
	for i, side := range []string{"a", "b"} {
		g := &ikeGateway{r: r, ns: id + "g" + side, dir: t.TempDir(), me: i + 1, peer: 2 - i}
		r.gateways[i] = g
		host := id + "h" + side
		for _, args := range []string{
			"link add red0 netns " + g.ns + " type veth peer name eth0 netns " + host,
			fmt.Sprintf("-n %s addr add 10.%d.0.1/24 dev red0", g.ns, g.me),
			fmt.Sprintf("-n %s addr add 192.0.2.%d/24 dev wire0", g.ns, g.me),
			fmt.Sprintf("-n %s addr add 10.%d.0.2/24 dev eth0", host, g.me),
			"-n " + g.ns + " link set lo up",
			"-n " + g.ns + " link set red0 up",
			"-n " + g.ns + " link set wire0 up",
			"-n " + host + " link set eth0 up",
			fmt.Sprintf("-n %s route add default via 10.%d.0.1", host, g.me),
		} {
			r.ip(args)
		}
		// A veth leaves checksums to the receiving kernel, which is none here.
		r.output("ip", "netns", "exec", host, "ethtool", "-K", "eth0", "tx", "off")
	}
	for i, g := range r.gateways {
		g.write("gw.yaml", fmt.Sprintf(`
ports:
  - {name: red0, side: protected}
  - {name: wire0, side: wire}
workers: {cores: [%d]}
control: {socket: %q, nat_keepalive: 2}
idle: {policy: adaptive, turns: 50}
`, i%runtime.NumCPU(), g.path("control.sock")))
		g.start(nil, r.spigot, "run", "--config", g.path("gw.yaml"))
	}
	for _, g := range r.gateways {
		r.await("the gateway", func() bool {
			var s control.StatusInfo
			return g.show("status", &s) == nil && s.Mirrored
		})
	}
	return r
}

// startCharon runs strongSwan's charon, whose policies are traps. It is a copy,
// since a profile of AppArmor confines the original to its own folders.
func startCharon(r *ikeRig, g *ikeGateway) {
	g.write("strongswan.conf", fmt.Sprintf(`
charon-systemd {
  load = random nonce openssl kdf pem pkcs1 x509 pubkey socket-default kernel-netlink vici
  install_routes = no
  install_virtual_ip = no
  delete_rekeyed_delay = 1
  journal { default = -1 }
  plugins { vici { socket = unix://%s } }
  filelog { stderr { default = 1 } }
}
swanctl { load = pem pkcs1 x509 pubkey openssl random }
`, g.path("vici")))
	g.write("swanctl.conf", fmt.Sprintf(`
connections { net {
  version = 2
  local_addrs = 192.0.2.%[1]d
  remote_addrs = %[5]s
  proposals = aes128-sha256-ecp256
  encap = %[4]v
  local { auth = psk
    id = gw%[1]d }
  remote { auth = psk
    id = gw%[2]d }
  children { net {
    local_ts = 10.%[1]d.0.0/24
    remote_ts = 10.%[2]d.0.0/24
    esp_proposals = %[3]s
    start_action = trap
    rekey_bytes = 100000
    rand_bytes = 0
    life_bytes = 400000 } }
} }
secrets { ike-1 { id-1 = gw1
  id-2 = gw2
  secret = "no secret" } }
`, g.me, g.peer, r.esp, r.encap, r.remote(g)))
	env := []string{"STRONGSWAN_CONF=" + g.path("strongswan.conf"), "SWANCTL_DIR=" + g.dir}
	g.start(env, r.ctl, "--socket", g.path("control.sock"), "keyd", "--", g.copyOf("charon-systemd"))
	swanctl := g.copyOf("swanctl")
	r.await("charon", func() bool {
		cmd := exec.Command(swanctl, "--load-all", "--noprompt", "--uri", "unix://"+g.path("vici"))
		cmd.Env = append(os.Environ(), env...)
		return cmd.Run() == nil
	})
}

// startIked runs OpenIKED. It makes no traps, but answers an ACQUIRE if it has a
// policy for that flow: gateway a gets the flow as on OpenBSD, by ipsec.conf.
// The SAs of gateway a are the shorter ones, so that it is the one to rekey.
func startIked(r *ikeRig, g *ikeGateway) {
	lifetime := map[int]string{1: "lifetime 3h bytes 100K"}[g.me]
	g.write("iked.conf", fmt.Sprintf(`
ikev2 "net" passive esp from 10.%[1]d.0.0/24 to 10.%[2]d.0.0/24 local 192.0.2.%[1]d peer 192.0.2.%[2]d \
  ikesa auth hmac-sha2-256 enc aes-128 prf hmac-sha2-256 group ecp256 childsa auth hmac-sha2-384 enc aes-256 \
  srcid gw%[1]d dstid gw%[2]d %[3]s psk "no secret"
`, g.me, g.peer, lifetime))
	g.start(nil, r.ctl, "--socket", g.path("control.sock"), "keyd", "--",
		"iked", "-d", "-vv", "-f", g.path("iked.conf"), "-s", g.path("iked.sock"))
	// It says when it has all of its configuration.
	r.await("iked", func() bool { return strings.Contains(g.log(1), "stickyaddress") })
	if g.me == 1 {
		g.write("flow.conf", "flow esp out from 10.1.0.0/24 to 10.2.0.0/24 local 192.0.2.1 peer 192.0.2.2 type require\n")
		r.output(r.ctl, "--socket", g.path("control.sock"), "load", g.path("flow.conf"))
	}
}

// holdSAs holds that each gateway has an SA a direction, the same ones, of the
// suite that want has. It returns the SPIs of gateway a, outbound ones first.
func (r *ikeRig) holdSAs(want control.SAInfo) []uint32 {
	r.Helper()
	a, b := r.gateways[0].sas(), r.gateways[1].sas()
	for _, sa := range slices.Concat(a, b) {
		if sa.Suite != want.Suite || sa.ESN != want.ESN || sa.Mode != "tunnel" || sa.Packets == 0 {
			r.Errorf("SA %#x is %+v, want %+v with packets", sa.SPI, sa, want)
		}
	}
	out, in := spis(a, control.DirOut), spis(a, control.DirIn)
	if len(out) != 1 || len(in) != 1 || !slices.Equal(out, spis(b, control.DirIn)) || !slices.Equal(in, spis(b, control.DirOut)) {
		r.Fatalf("SAs of a: %+v\nof b: %+v", a, b)
	}
	return slices.Concat(out, in)
}

func spis(sas []control.SAInfo, direction string) (list []uint32) {
	for _, sa := range sas {
		if sa.Direction == direction {
			list = append(list, sa.SPI)
		}
	}
	return list
}

// holdIPXfrm holds that iproute2 shows the SAs and the policies of gateway a.
func (r *ikeRig) holdIPXfrm(want []uint32) {
	r.Helper()
	g := r.gateways[0]
	state := r.output(r.ctl, "--socket", g.path("control.sock"), "keyd", "--", "ip", "xfrm", "state")
	var got []uint32
	for _, m := range regexp.MustCompile(`spi (0x[0-9a-f]+)`).FindAllStringSubmatch(state, -1) {
		if spi, err := strconv.ParseUint(m[1], 0, 32); err == nil {
			got = append(got, uint32(spi))
		}
	}
	slices.Sort(got)
	if sorted := slices.Sorted(slices.Values(want)); !slices.Equal(got, sorted) {
		r.Errorf("ip xfrm state has SPIs %#x, want %#x:\n%s", got, sorted, state)
	}
	if strings.Contains(state, "encap type espinudp sport 4500 dport 4500") != r.encap {
		r.Errorf("ESP in UDP should be %v:\n%s", r.encap, state)
	}
	policy := r.output(r.ctl, "--socket", g.path("control.sock"), "keyd", "--", "ip", "xfrm", "policy")
	for _, line := range []string{"src 10.1.0.0/24 dst 10.2.0.0/24", "dir out", "dir in", "tmpl src 192.0.2.1 dst 192.0.2.2"} {
		if !strings.Contains(policy, line) {
			r.Errorf("ip xfrm policy has no %q:\n%s", line, policy)
		}
	}
}

func (r *ikeRig) holdNoDrop(reason string) {
	r.Helper()
	for _, g := range r.gateways {
		var drops []control.DropInfo
		if err := g.show("drops", &drops); err != nil {
			r.Fatal(err)
		}
		for _, d := range drops {
			if d.Reason == reason && d.Total > 0 {
				r.Errorf("gateway %d dropped %d packets: %s", g.me, d.Total, d.Text)
			}
		}
	}
}

// explain shows what gateways dropped, if the test has failed.
func (r *ikeRig) explain() {
	for _, g := range r.gateways {
		var drops []control.DropInfo
		if !r.Failed() || g.show("drops", &drops) != nil {
			return
		}
		for _, d := range drops {
			if d.Total > 0 {
				r.Logf("gateway %d dropped %d packets: %s", g.me, d.Total, d.Text)
			}
		}
		for _, what := range []string{"workers", "ports", "sa"} {
			out, err := exec.Command(r.ctl, "--socket", g.path("control.sock"), "show", what).CombinedOutput()
			r.Logf("gateway %d: show %s: %v\n%s", g.me, what, err, out)
		}
	}
}

// stop ends the daemons, which delete their SAs, and then the gateways.
func (r *ikeRig) stop() {
	r.Helper()
	for _, g := range r.gateways {
		if g.running[1].ProcessState != nil {
			continue // it has died before, and left what has not expired yet
		}
		g.terminate(1)
		// An SPI for an exchange that had no answer may stay; it expires by itself.
		sas := slices.DeleteFunc(g.sas(), func(sa control.SAInfo) bool { return sa.Direction == "larval" })
		if len(sas) != 0 {
			r.Errorf("gateway %d has SAs that its daemon left: %+v", g.me, sas)
		}
	}
	for _, g := range r.gateways {
		g.terminate(0)
	}
}

// start runs a command in the gateway's namespace until the test ends; its
// output is shown if the test fails.
func (g *ikeGateway) start(env []string, argv ...string) {
	i := len(g.running)
	log, err := os.Create(g.path(fmt.Sprintf("log.%d", i)))
	if err != nil {
		g.r.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("ip", append([]string{"netns", "exec", g.ns}, argv...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // for signal
	if err := cmd.Start(); err != nil {
		g.r.Fatal(err)
	}
	g.running = append(g.running, cmd)
	g.r.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			_ = cmd.Wait()
		}
		if g.r.Failed() {
			g.r.Logf("gateway %d, %s:\n%s", g.me, filepath.Base(argv[0]), g.log(i))
		}
	})
}

// log returns what the i-th command has written so far.
func (g *ikeGateway) log(i int) string {
	text, err := os.ReadFile(g.path(fmt.Sprintf("log.%d", i)))
	if err != nil {
		g.r.Error(err)
	}
	return string(text)
}

// signal sends sig to all processes of the key daemon.
func (g *ikeGateway) signal(sig unix.Signal) {
	g.r.Helper()
	if err := unix.Kill(-g.running[1].Process.Pid, sig); err != nil {
		g.r.Error(err)
	}
}

// terminate ends the i-th command with SIGTERM and holds that it ends well.
func (g *ikeGateway) terminate(i int) {
	g.r.Helper()
	cmd := g.running[i]
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		g.r.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		g.r.Errorf("gateway %d: %v: %v", g.me, cmd.Args[4:], err)
	}
}

// show asks the gateway.
func (g *ikeGateway) show(what string, into any) error {
	out, err := exec.Command(g.r.ctl, "--socket", g.path("control.sock"), "show", what, "-o", "json").Output()
	if err != nil {
		return err
	}
	return json.Unmarshal(out, into)
}

func (g *ikeGateway) status() (s control.StatusInfo) {
	g.r.Helper()
	if err := g.show("status", &s); err != nil {
		g.r.Fatal(err)
	}
	return s
}

func (g *ikeGateway) sas() (list []control.SAInfo) {
	g.r.Helper()
	if err := g.show("sa", &list); err != nil {
		g.r.Fatal(err)
	}
	return list
}

func (g *ikeGateway) path(name string) string { return filepath.Join(g.dir, name) }

func (g *ikeGateway) write(name, text string) {
	g.r.Helper()
	if err := os.WriteFile(g.path(name), []byte(text), 0o600); err != nil {
		g.r.Fatal(err)
	}
}

// copyOf returns the path of a copy of a program.
func (g *ikeGateway) copyOf(name string) string {
	g.r.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		g.r.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		g.r.Fatal(err)
	}
	if err := os.WriteFile(g.path(name), text, 0o700); err != nil {
		g.r.Fatal(err)
	}
	return g.path(name)
}

func (r *ikeRig) ip(args string) {
	r.Helper()
	if err := ip(args); err != nil {
		r.Fatal(err)
	}
}

// ping pings host b from host a and fails if an answer is missing.
func (r *ikeRig) ping(args ...string) error {
	argv := append([]string{"netns", "exec", r.hosts[0], "ping"}, append(args, "10.2.0.2")...)
	out, err := exec.Command("ip", argv...).CombinedOutput()
	if err == nil && !bytes.Contains(out, []byte(" 0% packet loss")) {
		err = fmt.Errorf("answers are missing")
	}
	if err != nil {
		return fmt.Errorf("ping: %w\n%s", err, out)
	}
	return nil
}

// lossless pings host b from host a and fails if an answer is lost. Ping waits
// for the last ones as long as two of the others took, which on a busy machine
// may not do: what comes later host a's kernel has counted.
func (r *ikeRig) lossless(args ...string) error {
	r.Helper()
	asked, answered := r.echoes()
	err := r.ping(args...)
	if err == nil {
		return nil
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if q, a := r.echoes(); a-answered == q-asked {
			r.Logf("late, and not lost: %v", err)
			return nil
		}
	}
	return err
}

// echoes returns how many echo requests host a has sent, and how many answers it
// has got.
func (r *ikeRig) echoes() (asked, answered int) {
	r.Helper()
	var names []string
	for line := range strings.Lines(r.output("ip", "netns", "exec", r.hosts[0], "cat", "/proc/net/snmp")) {
		fields := strings.Fields(line)
		if fields[0] != "Icmp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			switch name {
			case "OutEchos":
				asked, _ = strconv.Atoi(fields[i])
			case "InEchoReps":
				answered, _ = strconv.Atoi(fields[i])
			}
		}
	}
	return asked, answered
}

func (r *ikeRig) output(argv ...string) string {
	r.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		r.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

func (r *ikeRig) await(what string, ready func() bool) {
	r.Helper()
	for end := time.Now().Add(60 * time.Second); !ready(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("%s: not in time", what)
		}
	}
}
