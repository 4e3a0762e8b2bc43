package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"spigot/control"
	"spigot/internal/fib"
)

// jumboMTU is that of the links; what a tunnel leaves of it, by the family outside:
// ESP with AES-GCM-8 has 8+8 bytes in front, pads to 4 and ends with 2+8.
const jumboMTU = 9000

var jumboInner = [2]int{8954, 8934}

// Packets as long as the link takes cross between two gateways, and between one and
// a Linux kernel, in several buffers on the way in and out: of all lengths around the
// ends of buffers, among short ones, in streams, and onto a path that becomes
// narrower, whose senders are told or whose packets are cut. Every gateway ends with
// all frames home (startGateway).
func TestJumboFrames(t *testing.T) {
	t.Parallel()
	for name, linux := range map[string]bool{"Linux": true, "Spigot": false} {
		t.Run(name, func(t *testing.T) {
			r := newPathRigOf(t, linux, jumboMTU)
			stream := int64(smallStream)
			if linux { // a guest is slow
				stream /= 4
			}
			r.routed()
			r.longest(9984)
			for outer := range plen {
				r.tunnel(outer)
				r.pings(outer)
				r.stream(stream, r.host, hostAddr[outer], innerAddr[outer], nil)
			}
			r.clear()
			r.stream(stream, r.host, hostAddr[0], innerAddr[0], func() { r.shrink(1500) })
			r.stream(stream, r.far, innerAddr[1], hostAddr[1], nil)
			if out, err := r.ping(0, 8000, "dont"); err != nil {
				t.Errorf("8000 bytes, to be cut for a path of 1500: %v\n%s", err, out)
			}
			for _, p := range r.ports() {
				if s := p.Stats; s.RxJumbo == 0 || s.RxGiant+s.JumboEmpty+s.BadDesc+s.TxErrors != 0 {
					t.Errorf("%s: %+v", p.Name, s)
				}
			}
		})
	}
}

// pings sends packets of both families and of all interesting lengths through the
// tunnel over the outer family.
func (r *pathRig) pings(outer int) {
	r.Helper()
	told := [2]string{"mtu = ", "mtu="} // in the words of ping
	for f := range plen {
		what := fmt.Sprintf("bytes in IPv%d, outside %s", 4+2*f, pathNear[outer])
		head := [2]int{28, 48}[f] // IP and ICMP
		most := jumboInner[outer]
		sizes := []int{100, 1500, most - 1, most}
		for _, at := range []int{1792 - 14, 2*1792 - 14, 2048 - 14, 4096 - 14, 8192 - 14} { // a buffer's end, a chunk's
			sizes = append(sizes, at-1, at, at+1, at-54, at-55, at-74, at-75)
		}
		for _, size := range sizes {
			if out, err := r.ping(f, size-head, "do"); err != nil {
				r.Errorf("%d %s: %v\n%s", size, what, err, out)
			}
		}
		if out, err := r.ping(f, most+1-head, "do"); err == nil || !strings.Contains(out, told[f]+fmt.Sprint(most)) {
			r.Errorf("%d %s: %v\n%s", most+1, what, err, out)
		}
		if out, err := r.ping(f, 20000, "dont"); err != nil { // in fragments of the host's, to whom the MTU was told
			r.Errorf("20000 %s: %v\n%s", what, err, out)
		}
	}
}

// clear has the path's router, whom a policy lets, send the gateway's own host more
// than its kernel takes from the gateway in one: it is told, and sends less.
func (r *pathRig) clear() {
	r.Helper()
	if err := r.gateway.key(fmt.Sprintf("xfrm policy add src %s dst %s dir in action allow\n", pathRouter[0][0], pathNear[0])); err != nil {
		r.Fatal(err)
	}
	ping := func(payload int) (string, error) {
		out, err := exec.Command("ip", "netns", "exec", r.id+"m", "ping", "-c", "1", "-w", "10", "-M", "do", "-s", fmt.Sprint(payload),
			pathNear[0]).CombinedOutput()
		return string(out), err
	}
	const most = fib.ClearSize - 14
	if out, err := ping(8000); err == nil || !strings.Contains(out, fmt.Sprint("mtu = ", most)) {
		r.Errorf("8000 bytes in clear for the host: %v\n%s", err, out)
	}
	if out, err := ping(most - 28); err != nil {
		r.Errorf("%d bytes in clear for the host: %v\n%s", most, err, out)
	}
}

// ports asks the gateway for its ports.
func (r *pathRig) ports() (ports []control.PortInfo) {
	r.Helper()
	if err := r.gateway.show("ports", &ports); err != nil {
		r.Fatal(err)
	}
	return ports
}

// longest fails unless each port of the gateway receives frames of that many bytes.
func (r *pathRig) longest(want int) {
	r.Helper()
	for _, p := range r.ports() {
		if p.Longest != want || p.NoJumbo != "" {
			r.Fatalf("%s takes %d bytes, want %d: %s", p.Name, p.Longest, want, p.NoJumbo)
		}
	}
}

// ping sends payload bytes in ICMP from the host to the far one, and is an error
// without an answer; how is ping's -M: do sets DF, dont lets its kernel cut the packet.
func (r *pathRig) ping(f, payload int, how string) (output string, err error) {
	out, err := exec.Command("ip", "netns", "exec", r.id+"h", "ping", [2]string{"-4", "-6"}[f], "-c", "1", "-w", "10",
		"-M", how, "-s", fmt.Sprint(payload), innerAddr[f]).CombinedOutput()
	return string(out), err
}
