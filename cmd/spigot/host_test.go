package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spigot/control"
)

// A hostRig is two gateways, each of which is a host, too:
//
//	red0 [gateway a] wire0 --- wire0 [gateway b] red0
//	10.1.0.1  192.0.2.1         192.0.2.2  10.2.0.1
//	fd01::1   2001:db8::1       2001:db8::2 fd02::1
type hostRig struct {
	*testing.T
	bin  string
	side [2]*hostGateway
}

type hostGateway struct {
	r       *hostRig
	ns, dir string
	spigot  *exec.Cmd
	log     bytes.Buffer
}

const (
	authA, authB = "0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "0x100102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	encA, encB   = "0x000102030405060708090a0b0c0d0e0f", "0x100102030405060708090a0b0c0d0e0f"
)

// newHostRig starts both gateways with conf, in which ME and PEER are numbers.
func newHostRig(t *testing.T, conf string) *hostRig {
	t.Helper()
	r := &hostRig{T: t, bin: t.TempDir()}
	if out, err := exec.Command("go", "build", "-o", r.bin, "spigot/cmd/spigot", "spigot/cmd/spigotctl").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	id := fmt.Sprintf("spigoth-%d-%d", os.Getpid(), networks.Add(1))
	for i, side := range []string{"a", "b"} {
		g := &hostGateway{r: r, ns: id + side, dir: t.TempDir()}
		r.side[i] = g
		r.ip("netns add " + g.ns)
		t.Cleanup(func() {
			if err := ip("netns del " + g.ns); err != nil {
				t.Error(err)
			}
		})
	}
	r.ip("link add wire0 netns " + r.side[0].ns + " type veth peer name wire0 netns " + r.side[1].ns)
	for i, g := range r.side {
		me, peer := i+1, 2-i
		for _, args := range []string{
			"link set lo up",
			"link add red0 type veth peer name red1",
			fmt.Sprintf("addr add 10.%d.0.1/24 dev red0", me),
			fmt.Sprintf("addr add fd0%d::1/64 dev red0 nodad", me),
			fmt.Sprintf("addr add 192.0.2.%d/24 dev wire0", me),
			fmt.Sprintf("addr add 2001:db8::%d/64 dev wire0 nodad", me),
			"link set red0 up", "link set red1 up", "link set wire0 up",
			fmt.Sprintf("route add 10.%d.0.0/24 via 192.0.2.%d", peer, peer),
			fmt.Sprintf("route add fd0%d::/64 via 2001:db8::%d", peer, peer),
		} {
			r.ip("-n " + g.ns + " " + args)
		}
		g.exec("ethtool", "-K", "wire0", "tx", "off")
		text := strings.NewReplacer("ME", fmt.Sprint(me), "PEER", fmt.Sprint(peer)).Replace(conf)
		if err := os.WriteFile(g.path("ipsec.conf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		g.start()
	}
	return r
}

func (g *hostGateway) path(name string) string { return filepath.Join(g.dir, name) }

// start runs the gateway, and waits until it has its routes.
func (g *hostGateway) start() {
	g.r.Helper()
	g.spigot = exec.Command("ip", "netns", "exec", g.ns, filepath.Join(g.r.bin, "spigot"), "run",
		"--port", "red0:protected", "--port", "wire0:wire", "--socket", g.path("sock"), "--pfkey", "", "--xfrm", "",
		"--idle", "adaptive", "--enc", "enc0", "--ipsec-conf", g.path("ipsec.conf"))
	g.spigot.Stdout, g.spigot.Stderr = &g.log, &g.log
	if err := g.spigot.Start(); err != nil {
		g.r.Fatal(err)
	}
	g.r.Cleanup(func() {
		if g.spigot.ProcessState == nil {
			_ = g.spigot.Process.Kill()
			_ = g.spigot.Wait()
		}
		if g.r.Failed() {
			g.r.Logf("%s:\n%s", g.ns, &g.log)
		}
	})
	g.r.await("routes by enc0", func() bool {
		out, err := exec.Command("ip", "-n", g.ns, "route", "show", "table", "5050").Output()
		return err == nil && bytes.Contains(out, []byte("enc0"))
	})
}

// stop ends the gateway and holds that nothing of it is left.
func (g *hostGateway) stop() {
	g.r.Helper()
	if err := g.spigot.Process.Signal(unix.SIGTERM); err != nil {
		g.r.Fatal(err)
	}
	if err := g.spigot.Wait(); err != nil {
		g.r.Errorf("%s: %v", g.ns, err)
	}
	for _, args := range []string{"-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "link"} {
		out := g.exec("ip", strings.Fields(args)...)
		if strings.Contains(out, "5050") || strings.Contains(out, "enc0") || strings.Contains(out, "ipproto") {
			g.r.Errorf("ip %s, after the end:\n%s", args, out)
		}
	}
}

func (r *hostRig) ip(args string) {
	r.Helper()
	if err := ip(args); err != nil {
		r.Fatal(err)
	}
}

func (r *hostRig) await(what string, ready func() bool) {
	r.Helper()
	for end := time.Now().Add(60 * time.Second); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("%s: not in time", what)
		}
	}
}

// exec runs a command in the gateway's namespace.
func (g *hostGateway) exec(name string, args ...string) string {
	g.r.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", g.ns, name}, args...)...).CombinedOutput()
	if err != nil {
		g.r.Fatalf("%s: %s %v: %v\n%s", g.ns, name, args, err, out)
	}
	return string(out)
}

// ping says whether to answers; from is "" for the host's choice.
func (g *hostGateway) ping(to, from string, args ...string) bool {
	argv := append([]string{"netns", "exec", g.ns, "ping", "-q", "-c", "1", "-w", "10"}, args...)
	if from != "" {
		argv = append(argv, "-I", from)
	}
	return exec.Command("ip", append(argv, to)...).Run() == nil
}

// drops returns how many packets the gateway dropped for a reason.
func (g *hostGateway) drops(reason string) uint64 {
	g.r.Helper()
	out, err := exec.Command(filepath.Join(g.r.bin, "spigotctl"), "--socket", g.path("sock"), "show", "drops", "--all", "-o", "json").Output()
	if err != nil {
		g.r.Fatal(err)
	}
	var list []control.DropInfo
	if err := json.Unmarshal(out, &list); err != nil {
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

// in runs f on a thread in the gateway's namespace.
func (g *hostGateway) in(f func() error) error {
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Open("/var/run/netns/"+g.ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		errs <- err
	}()
	return <-errs
}

// transfer carries n bytes by TCP from g to addr, which is the other gateway's.
func (r *hostRig) transfer(from, to *hostGateway, addr string, n int) {
	r.Helper()
	var ln net.Listener
	var conn net.Conn
	err := to.in(func() (err error) { ln, err = net.Listen("tcp", net.JoinHostPort(addr, "7007")); return err })
	if err != nil {
		r.Fatal(err)
	}
	defer ln.Close()
	got := make(chan string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		b, err := io.ReadAll(c)
		sum := 0
		for i, x := range b {
			if x == byte(i*31) {
				sum++
			}
		}
		got <- fmt.Sprintf("%d of %d right, %v", sum, len(b), err)
	}()
	err = from.in(func() (err error) {
		conn, err = net.DialTimeout("tcp", net.JoinHostPort(addr, "7007"), 30*time.Second)
		return err
	})
	if err != nil {
		r.Fatalf("to %s: %v", addr, err)
	}
	defer conn.Close()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 31)
	}
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := conn.Write(b); err != nil {
		r.Fatal(err)
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	if want, is := fmt.Sprintf("%d of %d right, <nil>", n, n), <-got; is != want {
		r.Errorf("to %s: %s", addr, is)
	}
}

// count adds a counter of packets that come in by dev to nftables.
func (g *hostGateway) count(dev, name string) {
	g.r.Helper()
	g.exec("nft", "add", "table", "inet", "t")
	g.exec("nft", "add", "chain", "inet", "t", "in", "{ type filter hook input priority 0; }")
	g.exec("nft", "add", "counter", "inet", "t", name)
	g.exec("nft", "add", "rule", "inet", "t", "in", "iifname", dev, "meta", "l4proto", "{ tcp, icmp, icmpv6 }", "counter", "name", name)
}

func (g *hostGateway) counted(name string) (n int) {
	g.r.Helper()
	out := g.exec("nft", "list", "counter", "inet", "t", name)
	if _, err := fmt.Sscanf(out[strings.Index(out, "packets"):], "packets %d", &n); err != nil {
		g.r.Fatalf("%v: %s", err, out)
	}
	return n
}

// sas are the two SAs of a rig.
func sas(mode string) string {
	return fmt.Sprintf("esp %s from 192.0.2.1 to 192.0.2.2 spi 0x1001 auth hmac-sha2-256 enc aes authkey %s enckey %s\n"+
		"esp %s from 192.0.2.2 to 192.0.2.1 spi 0x1002 auth hmac-sha2-256 enc aes authkey %s enckey %s\n",
		mode, authA, encA, mode, authB, encB)
}

// The hosts talk through a tunnel between their inner addresses, both families.
// nftables sees on enc0 what was received securely, and there only that; what
// comes in clear to a protected address is dropped, and what a policy lets in
// clear comes in by its port. IKE goes around all of it.
func TestHostsInTunnelMode(t *testing.T) {
	r := newHostRig(t, sas("tunnel")+`
flow esp from 10.ME.0.0/24 to 10.PEER.0.0/24 local 192.0.2.ME peer 192.0.2.PEER
flow esp from fd0ME::/64 to fd0PEER::/64 local 192.0.2.ME peer 192.0.2.PEER
flow from 2001:db8::ME to 2001:db8::PEER type bypass
`)
	a, b := r.side[0], r.side[1]
	b.count("enc0", "secured")
	b.count("wire0", "clear")
	for _, to := range []string{"10.2.0.1", "fd02::1"} {
		r.await("an answer from "+to, func() bool { return a.ping(to, "") })
	}
	if b.counted("secured") < 2 || b.counted("clear") != 0 {
		t.Errorf("%d packets received securely, %d in clear", b.counted("secured"), b.counted("clear"))
	}
	for _, size := range []string{"0", "1000", "3000"} { // the last in fragments, made by the host
		if !a.ping("10.2.0.1", "", "-s", size) || !b.ping("fd01::1", "", "-s", size) {
			t.Errorf("%s bytes are not answered", size)
		}
	}
	r.transfer(a, b, "10.2.0.1", 1<<20)
	r.transfer(b, a, "fd01::1", 1<<20)

	// A policy lets IPv6 between the outer addresses in clear: it comes by its port.
	if !a.ping("2001:db8::2", "") || b.counted("clear") == 0 {
		t.Errorf("bypassed: %d packets came in clear", b.counted("clear"))
	}
	// None lets IPv4: nothing is answered, and nothing gets to the host.
	clear, before := b.counted("clear"), b.drops("no_policy")
	if a.ping("192.0.2.2", "", "-w", "1") {
		t.Error("without a policy, and answered")
	}
	r.await("no_policy", func() bool { return b.drops("no_policy") > before })
	// CVE-2019-14899: from the wire, to an address within the tunnel.
	before = b.drops("in_policy_clear")
	a.forge("10.1.0.77", "10.2.0.1")
	r.await("in_policy_clear", func() bool { return b.drops("in_policy_clear") > before })
	if b.counted("clear") != clear {
		t.Errorf("%d packets got in", b.counted("clear")-clear)
	}
	// IKE between the same addresses gets to the host whatever the policies say.
	r.askIKE(a, b, "192.0.2.2")

	a.stop()
	b.stop()
}

// The hosts' own packets in transport mode, and IKE beside them in clear.
func TestHostsInTransportMode(t *testing.T) {
	r := newHostRig(t, sas("transport")+"flow esp from 192.0.2.ME to 192.0.2.PEER mode transport\n")
	a, b := r.side[0], r.side[1]
	b.count("enc0", "secured")
	b.count("wire0", "clear")
	r.await("an answer", func() bool { return a.ping("192.0.2.2", "") })
	r.transfer(a, b, "192.0.2.2", 1<<20)
	r.transfer(b, a, "192.0.2.1", 1<<20)
	if b.counted("secured") < 100 || b.counted("clear") != 0 {
		t.Errorf("%d packets received securely, %d in clear", b.counted("secured"), b.counted("clear"))
	}
	r.askIKE(a, b, "192.0.2.2")
	// One that was killed leaves rules, of which the next one gets rid.
	if err := a.spigot.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = a.spigot.Wait()
	a.start()
	a.stop()
	b.stop()
}

// askIKE has b's host answer a datagram from port 500 to port 500, in clear.
func (r *hostRig) askIKE(a, b *hostGateway, to string) {
	r.Helper()
	var client, server net.PacketConn
	for _, end := range []struct {
		g    *hostGateway
		conn *net.PacketConn
	}{{a, &client}, {b, &server}} {
		err := end.g.in(func() (err error) { *end.conn, err = net.ListenPacket("udp4", ":500"); return err })
		if err != nil {
			r.Fatal(err)
		}
		defer (*end.conn).Close()
	}
	peer := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), 500))
	if _, err := client.WriteTo([]byte("hello"), peer); err != nil {
		r.Fatal(err)
	}
	var buf [16]byte
	_ = server.SetReadDeadline(time.Now().Add(30 * time.Second))
	n, from, err := server.ReadFrom(buf[:])
	if err != nil || string(buf[:n]) != "hello" {
		r.Fatalf("IKE: %q, %v", buf[:n], err)
	}
	if _, err := server.WriteTo([]byte("you"), from); err != nil {
		r.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, _, err := client.ReadFrom(buf[:]); err != nil || string(buf[:n]) != "you" {
		r.Fatalf("IKE: %q, %v", buf[:n], err)
	}
}

// forge sends an echo request from src to dst in clear by wire0.
func (g *hostGateway) forge(src, dst string) {
	g.r.Helper()
	err := g.in(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.BindToDevice(fd, "wire0"); err != nil {
			return err
		}
		p := make([]byte, 28)
		p[0], p[8], p[9], p[20], p[22], p[23] = 0x45, 64, 1, 8, 0xf7, 0xff
		s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
		copy(p[12:], s[:])
		copy(p[16:], d[:])
		return unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: d})
	})
	if err != nil {
		g.r.Fatal(err)
	}
}
