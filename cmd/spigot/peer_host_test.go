package main

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"spigot/internal/uml"
)

// What the gateway's own host and Linux's exchange: datagrams that fit, and
// longer ones, which either side cuts before or after they are sealed. All of
// them are on their way at once; the guest's socket holds about 80 packets, those
// that the guest sends among them, and loses what is over that.
var (
	ownUDP  = []int{0, 1, 100, 1300, 1460, 3000, 20000}
	ownEcho = []int{56, 1300, 3000, 20000}
)

const ownStream = 4 << 20

// ownBatch keys the gateway, or the guest, for what the two send each other from
// their own addresses of a family.
func ownBatch(mode string, family int, guest bool) string {
	var b strings.Builder
	b.WriteString("xfrm state flush\nxfrm policy flush\n")
	near, far := nearAddr[family], farAddr[family]
	for i, ends := range [][2]string{{near, far}, {far, near}} {
		fmt.Fprintf(&b, "xfrm state add src %s dst %s proto esp spi %#x reqid 1 mode %s flag esn replay-window 128 %s\n",
			ends[0], ends[1], 0x3000+i, mode, fmt.Sprintf(espGCM, i))
		dir := [2]string{"out", "in"}[i]
		if guest {
			dir = [2]string{"in", "out"}[i]
		}
		fmt.Fprintf(&b, "xfrm policy add src %s dst %s dir %s tmpl src %[1]s dst %[2]s proto esp reqid 1 mode %[4]s\n", ends[0], ends[1], dir, mode)
	}
	return b.String()
}

// watcher counts the packets that tcpdump sees on enc0, by who sends them.
type watcher struct {
	cmd       *exec.Cmd
	near, far atomic.Int64
	stopped   chan struct{}
}

// watch starts a watcher in the gateway's namespace.
func (r *peerRig) watch(near, far string) *watcher {
	r.Helper()
	w := &watcher{stopped: make(chan struct{})}
	w.cmd = exec.Command("ip", "netns", "exec", r.id+"g", "tcpdump", "-i", "enc0", "-nlq", "-B", "8192", "--immediate-mode", "host", far)
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	said, err := w.cmd.StderrPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		r.Fatal(err)
	}
	for s := bufio.NewScanner(said); s.Scan() && !strings.Contains(s.Text(), "listening on enc0"); {
	}
	go func() {
		defer close(w.stopped)
		for s := bufio.NewScanner(out); s.Scan(); {
			// 18:00:00.000000 IP6 2001:db8::1.4242 > 2001:db8::2.9: tcp 1394
			_, ends, _ := strings.Cut(s.Text(), " IP")
			switch sender, _, _ := strings.Cut(strings.TrimLeft(ends, "6 "), " "); {
			case strings.HasPrefix(sender, near):
				w.near.Add(1)
			case strings.HasPrefix(sender, far):
				w.far.Add(1)
			}
		}
	}()
	return w
}

// stop ends w.
func (w *watcher) stop() {
	_ = w.cmd.Process.Signal(unix.SIGTERM)
	<-w.stopped
	_ = w.cmd.Wait() // it was killed
}

// counters has nftables count what the gateway's host receives, by device.
func (r *peerRig) counters() {
	r.Helper()
	r.exec("g", "nft", "add table inet t; add counter inet t secured; add counter inet t clear; "+
		"add chain inet t in { type filter hook input priority 0; }; "+
		"add rule inet t in iifname enc0 counter name secured; "+
		"add rule inet t in iifname wire0 meta l4proto { tcp, udp, icmp, esp } counter name clear; "+
		"add rule inet t in iifname wire0 icmpv6 type { echo-request, echo-reply } counter name clear")
}

func (r *peerRig) counted(name string) (n int) {
	r.Helper()
	out, err := exec.Command("ip", "netns", "exec", r.id+"g", "nft", "list", "counter", "inet", "t", name).Output()
	if at := strings.Index(string(out), "packets"); err == nil && at >= 0 {
		_, err = fmt.Sscanf(string(out[at:]), "packets %d", &n)
	}
	if err != nil {
		r.Fatalf("counter %s: %v: %s", name, err, out)
	}
	return n
}

// The host behind enc0 and a Linux kernel talk to each other from their own
// addresses, in transport mode and by a tunnel between the same: datagrams up to
// the longest, which are cut on the way, and TCP, each asked by either. tcpdump
// and nftables see all of it on enc0, and nothing of it by the wire's port.
func TestLinuxAndTheHost(t *testing.T) {
	t.Parallel()
	r := newPeerRig(t)
	r.counters()
	for _, mode := range []string{"transport", "tunnel"} {
		for f := range nearAddr {
			t.Run(fmt.Sprintf("%s over IPv%d", mode, 4+2*f), func(t *testing.T) {
				defer r.within(t)()
				near, far := nearAddr[f], farAddr[f]
				if err := r.key(ownBatch(mode, f, false), ownBatch(mode, f, true)); err != nil {
					t.Fatal(err)
				}
				r.await("the gateway's own way to the guest", func() bool {
					out, err := exec.Command("ip", "-n", r.id+"g", "route", "get", far, "from", near).Output()
					return err == nil && strings.Contains(string(out), "enc0")
				})
				before, err := r.gateway.drops()
				if err != nil {
					t.Fatal(err)
				}
				w, secured := r.watch(near, far), r.counted("secured")
				r.talk(near, far)
				w.stop()
				after, err := r.gateway.drops()
				if err != nil {
					t.Fatal(err)
				}
				if bad := since(before, after); len(bad) > 0 {
					t.Errorf("the gateway refused: %s", strings.Join(bad, ", "))
				}
				// Of each stream some hundred segments and their acknowledgements.
				secured = r.counted("secured") - secured
				if secured < 500 || r.counted("clear") != 0 || w.near.Load() < 500 || w.far.Load() < 500 {
					t.Errorf("nftables counts %d packets on enc0 and %d on wire0; tcpdump sees %d from the host and %d for it",
						secured, r.counted("clear"), w.near.Load(), w.far.Load())
				}
			})
		}
	}
}

// talk has the host at near and the guest at far send each other datagrams, and
// streams.
func (r *peerRig) talk(near, far string) {
	r.Helper()
	for _, ask := range []struct {
		name     string
		agent    *uml.Agent
		from, to string
	}{{"the host", r.self, near, far}, {"the guest", r.guest, far, near}} {
		answer, err := ask.agent.Call(uml.Request{Probe: &uml.Probe{From: ask.from, To: ask.to, UDP: ownUDP, Echo: ownEcho, Seconds: probeSeconds}})
		if p := answer.Report; err != nil || p.Sent != int64(len(ownUDP)+len(ownEcho)) || p.Intact != p.Sent {
			r.Errorf("asked by %s: %d of %d came back: %v, %v", ask.name, p.Intact, p.Sent, p.Trouble, err)
		}
		answer, err = ask.agent.Call(uml.Request{Send: &uml.Send{From: ask.from, To: ask.to, Bytes: ownStream, Seconds: streamSeconds}})
		if p := answer.Report; err != nil || p.Intact != ownStream {
			r.Errorf("sent by %s: %d bytes of %d: %v", ask.name, p.Intact, ownStream, err)
		}
	}
}
