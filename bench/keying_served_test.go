package bench_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"spigot/control"
)

// BenchmarkKeyingGateway has a key daemon add b.N SAs and as many policies,
// 2,000 at least, to a `spigot run` by one of its sockets, while spigen sends
// through it from one veth to another, at the rate that the name says. What is
// lost before the gateway found its ring full, what is lost behind it veth's.
//
// The gateway's worker has the last core; the rest of the gateway, spigen and
// the daemon share the others.
func BenchmarkKeyingGateway(b *testing.B) {
	allowed := cores(b)
	bin := build(b)
	for _, d := range dialects {
		for _, kpps := range []int{100, 200} {
			b.Run(fmt.Sprintf("dialect=%s/kpps=%d", d.name, kpps), func(b *testing.B) {
				s := newServed(b, bin, allowed)
				s.measure(b, d.dial(b, s.dir), max(b.N, fewest), kpps)
			})
		}
	}
}

// TestKeyingLosesNothing is the same with fewer entries and packets: what the
// gateway takes from its port it sends on, whatever is keyed meanwhile.
func TestKeyingLosesNothing(t *testing.T) {
	allowed := cores(t)
	bin := build(t)
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			s := newServed(t, bin, allowed)
			stop := s.offer(t, 10)
			c := d.dial(t, s.dir)
			c.add(t, 1000)
			s.holds(t, 1000)
			c.flushAll(t)
			s.holds(t, 0)
			stop()
			got := s.settle(t)
			if got.gateway.Dropped+got.gateway.Punted+got.gateway.Acquires > 0 || got.gateway.Rx == 0 {
				t.Errorf("of %d packets the gateway dropped %v, punted %d, and asked for %d SAs", got.gateway.Rx,
					got.gateway.Drops, got.gateway.Punted, got.gateway.Acquires)
			}
			if got.gateway.Tx != got.gateway.Rx || got.arrived == 0 {
				t.Errorf("of %d packets that the gateway took from its port it sent %d, and %d arrived", got.gateway.Rx, got.gateway.Tx, got.arrived)
			}
		})
	}
}

// build builds the commands and returns their folder.
func build(b testing.TB) string {
	b.Helper()
	dir := b.TempDir()
	out, err := exec.Command("go", "build", "-o", dir+"/", "spigot/cmd/spigot", "spigot/cmd/spigen").CombinedOutput()
	if err != nil {
		b.Fatalf("build the commands: %v\n%s", err, out)
	}
	return dir
}

// served is a `spigot run` between two wires: src == red | gateway | black == dst.
type served struct {
	bin, dir  string
	hosts, gw *namespace
	first     int // core
	api       http.Client
	pid       int
	thread    int // of the worker
}

// servedConf has the SA that carries the traffic. Its key must not be taken from here.
const servedConf = `flow esp out from 10.1.0.0/16 to 10.2.0.0/16 local 192.0.2.1 peer 192.0.2.2 reqid 1
esp tunnel from 192.0.2.1 to 192.0.2.2 spi 0x1000 enc aes-128-gcm enckey 0x0707070707070707070707070707070707070707 reqid 1
`

func newServed(b testing.TB, bin string, allowed []int) *served {
	b.Helper()
	last := allowed[len(allowed)-1]
	s := &served{bin: bin, dir: b.TempDir(), hosts: newNamespace(b), gw: newNamespace(b), first: allowed[0]}
	s.gw.veth(b, "red", redMAC, s.hosts, "src")
	s.gw.veth(b, "black", blackMAC, s.hosts, "dst")
	sink(b, s.hosts, "dst")
	s.network(b)
	conf := fmt.Sprintf("ports: [{name: red, side: protected}, {name: black, side: wire}]\nworkers: {cores: [%d]}\n"+
		"control: {socket: %s/c, pfkey: %[2]s/pfkey, xfrm: %[2]s/xfrm}\nipsec: ipsec.conf\nallow_manual_aead: true\nlog: {level: warn}\n",
		last, s.dir)
	for name, text := range map[string]string{"gw.yaml": conf, "ipsec.conf": servedConf} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s.api.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.dir+"/c")
	}}
	s.run(b, last)
	return s
}

// network gives the gateway's interfaces what forwarding needs.
func (s *served) network(b testing.TB) {
	b.Helper()
	black := s.gw.link(b, "black").Attrs().Index
	lo := s.gw.link(b, "lo")
	far := s.hosts.link(b, "dst").Attrs().HardwareAddr
	for _, err := range []error{
		s.gw.nl.LinkSetUp(lo),
		s.gw.nl.AddrAdd(s.gw.link(b, "red"), &netlink.Addr{IPNet: ipNet("10.1.0.1/16")}),
		s.gw.nl.AddrAdd(s.gw.link(b, "black"), &netlink.Addr{IPNet: ipNet("192.0.2.1/24")}),
		s.gw.nl.NeighSet(&netlink.Neigh{LinkIndex: black, State: netlink.NUD_PERMANENT, IP: net.ParseIP("192.0.2.2"), HardwareAddr: far}),
		s.gw.nl.RouteAdd(&netlink.Route{LinkIndex: black, Dst: ipNet("10.2.0.0/16"), Gw: net.ParseIP("192.0.2.2")}),
	} {
		if err != nil {
			b.Fatalf("set up the gateway's network: %v", err)
		}
	}
}

func ipNet(s string) *net.IPNet {
	ip, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err) // it is a constant
	}
	n.IP = ip
	return n
}

// start runs a command in n until b ends, or until it is stopped.
func (n *namespace) start(b testing.TB, cmd *exec.Cmd) {
	b.Helper()
	if err := n.do(cmd.Start); err != nil {
		b.Fatal(err)
	}
}

// run starts the gateway and waits until it forwards.
func (s *served) run(b testing.TB, last int) {
	b.Helper()
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(s.bin, "spigot"), "run", "--config", filepath.Join(s.dir, "gw.yaml"))
	cmd.Stderr = &log
	s.gw.start(b, cmd)
	b.Cleanup(func() {
		check(b, cmd.Process.Signal(syscall.SIGTERM))
		check(b, cmd.Wait())
		if log.Len() > 0 {
			b.Logf("the gateway says:\n%s", &log)
		}
	})
	s.pid = cmd.Process.Pid
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var st control.StatusInfo
		if err := s.get(control.PathStatus, &st); err == nil && st.Mirrored && st.Neighbours > 0 && st.WaitingSAs == 0 {
			break
		}
		if time.Now().After(end) {
			b.Fatalf("the gateway does not come up:\n%s", &log)
		}
	}
	for end := time.Now().Add(patience); s.thread == 0; time.Sleep(10 * time.Millisecond) {
		if s.thread = s.threadOn(b, last); time.Now().After(end) {
			b.Fatalf("no thread of the gateway has core %d alone", last)
		}
	}
}

// threadOn returns the gateway's thread that may run on core only, 0 if there is none.
func (s *served) threadOn(b testing.TB, core int) int {
	b.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, t := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", s.pid, t.Name()))
		if err == nil && strings.Contains(string(text), fmt.Sprintf("Cpus_allowed_list:\t%d\n", core)) {
			n, _ := strconv.Atoi(t.Name()) // it is a number
			return n
		}
	}
	return 0
}

// get asks the gateway.
func (s *served) get(path string, v any) error {
	r, err := s.api.Get("http://spigot" + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(v)
}

// offer has spigen send that many thousand packets a second until stop.
func (s *served) offer(b testing.TB, kpps int) (stop func()) {
	b.Helper()
	var log bytes.Buffer
	cmd := exec.Command("nice", "-n", "-20", filepath.Join(s.bin, "spigen"), "--tx", "src", "--src", hostA.String(), "--dst", hostB.String(),
		"--dst-mac", net.HardwareAddr(redMAC[:]).String(), "--size", "66", "--rate", strconv.Itoa(1000*kpps), "--flows", "64",
		"--tx-cpu", strconv.Itoa(s.first), "--duration", "10m", "--quiet")
	cmd.Stderr = &log
	s.hosts.start(b, cmd)
	from := s.hosts.received(b, "dst")
	for end := time.Now().Add(patience); s.hosts.received(b, "dst") == from; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			b.Fatalf("no packet arrives: %s", &log)
		}
	}
	return func() {
		check(b, cmd.Process.Signal(syscall.SIGTERM))
		if err := cmd.Wait(); err != nil {
			b.Errorf("spigen: %v: %s", err, &log)
		}
	}
}

// tally is what became of the packets.
type tally struct {
	offered, arrived uint64
	gateway          control.WorkerInfo
	waited           time.Duration
	at               time.Time
}

// tally counts now.
func (s *served) tally(b testing.TB) tally {
	b.Helper()
	var workers []control.WorkerInfo
	if err := s.get(control.PathWorkers, &workers); err != nil {
		b.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/schedstat", s.pid, s.thread))
	if err != nil {
		b.Fatal(err)
	}
	t := tally{offered: s.gw.received(b, "red"), arrived: s.hosts.received(b, "dst"), gateway: workers[0], at: time.Now()}
	var ran time.Duration
	if _, err := fmt.Sscan(string(text), &ran, &t.waited); err != nil {
		b.Fatalf("read schedstat %q: %v", text, err)
	}
	return t
}

// settle waits until no packet is on its way any more and counts.
func (s *served) settle(b testing.TB) tally {
	b.Helper()
	t := s.tally(b)
	for {
		time.Sleep(50 * time.Millisecond)
		next := s.tally(b)
		if next.arrived == t.arrived && next.offered == t.offered && next.gateway.Rx == t.gateway.Rx {
			return next
		}
		t = next
	}
}

// holds fails b unless there are n SAs and n policies beside the configuration's.
func (s *served) holds(b testing.TB, n int) {
	b.Helper()
	var sas []control.SAInfo
	var policies []control.PolicyInfo
	if err := s.get(control.PathSAs, &sas); err != nil {
		b.Fatal(err)
	}
	if err := s.get(control.PathPolicy, &policies); err != nil {
		b.Fatal(err)
	}
	if len(sas) != n+1 || len(policies) != n+1 {
		b.Fatalf("%d SAs and %d policies, want %d of each", len(sas), len(policies), n+1)
	}
}

func (s *served) measure(b *testing.B, c *keyDaemon, n, kpps int) {
	stop := s.offer(b, kpps)
	before := s.tally(b)
	b.ResetTimer()
	t0 := time.Now()
	addSA, addPolicy := c.add(b, n)
	t1 := time.Now()
	c.flushAll(b)
	flush := time.Since(t1)
	b.StopTimer()
	took := time.Since(t0)
	stop()
	after := s.settle(b)
	b.ReportMetric(0, "ns/op") // of what would it be?
	b.ReportMetric(float64(n)/addSA.Seconds(), "SAs/s")
	b.ReportMetric(float64(n)/addPolicy.Seconds(), "policies/s")
	b.ReportMetric(flush.Seconds()*1e3, "flush-ms")
	b.ReportMetric(float64(after.offered)/1e6, "Mpackets")
	b.ReportMetric(float64(after.offered-before.offered)/after.at.Sub(before.at).Seconds()/1e3, "offered-kpps")
	b.ReportMetric(float64(after.offered)-float64(after.gateway.Rx), "lost-before")
	b.ReportMetric(float64(after.gateway.Tx)-float64(after.arrived), "lost-behind")
	b.ReportMetric(float64(after.gateway.Dropped), "dropped")
	b.ReportMetric((after.waited-before.waited).Seconds()/took.Seconds()*100, "waited-%")
}

// keyDaemon is a key daemon at a socket of the gateway.
type keyDaemon struct {
	dialect
	conn  net.Conn
	errno func(answer []byte) (syscall.Errno, error)
}

// window is how many requests are under way.
const window = 64

// ask sends n requests and takes as many answers, each of which must say success.
func (c *keyDaemon) askAll(b testing.TB, n int, request func(int) []byte) time.Duration {
	b.Helper()
	free := make(chan struct{}, window)
	sent := make(chan error, 1)
	t0 := time.Now()
	go func() {
		for i := range n {
			free <- struct{}{}
			if _, err := c.conn.Write(request(i)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	buf := make([]byte, 64<<10)
	for i := range n {
		k, err := c.conn.Read(buf)
		if err != nil {
			b.Fatalf("answer %d of %d: %v", i, n, err)
		}
		if errno, err := c.errno(buf[:k]); err != nil || errno != 0 {
			b.Fatalf("answer %d of %d: %v %v", i, n, errno, err)
		}
		<-free
	}
	if err := <-sent; err != nil {
		b.Fatal(err)
	}
	return time.Since(t0)
}

func (c *keyDaemon) add(b testing.TB, n int) (sas, policies time.Duration) {
	b.Helper()
	sas = c.askAll(b, n, func(i int) []byte { return c.addSA(keyedSA(i)) })
	return sas, c.askAll(b, n, func(i int) []byte { return c.addPolicy(keyedPolicy(i)) })
}

func (c *keyDaemon) flushAll(b testing.TB) {
	b.Helper()
	all := c.flush()
	c.askAll(b, len(all), func(i int) []byte { return all[i] })
}

func dialPFKEY(b testing.TB, dir string) *keyDaemon {
	return &keyDaemon{pfkeyClient{TB: b}, dial(b, dir+"/pfkey"), func(answer []byte) (syscall.Errno, error) {
		if len(answer) < 16 {
			return 0, fmt.Errorf("%d bytes are no PF_KEY message", len(answer))
		}
		return syscall.Errno(answer[2]), nil
	}}
}

func dialXFRM(b testing.TB, dir string) *keyDaemon {
	return &keyDaemon{xfrmClient{}, dial(b, dir+"/xfrm"), func(answer []byte) (syscall.Errno, error) {
		if len(answer) < 20 || binary.NativeEndian.Uint16(answer[4:]) != syscall.NLMSG_ERROR {
			return 0, fmt.Errorf("no acknowledgement: % x", answer)
		}
		return syscall.Errno(-int32(binary.NativeEndian.Uint32(answer[16:]))), nil
	}}
}

func dial(b testing.TB, path string) net.Conn {
	b.Helper()
	conn, err := net.Dial("unixpacket", path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { check(b, conn.Close()) })
	return conn
}
