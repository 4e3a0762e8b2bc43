package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"spigot/internal/uml"
)

// pathRig is a tunnel over a path that is not what it should be:
//
//	host --- red0 [gateway] wire0 --- near0 [path] far0 --- the peer
//	10.1.0.2          192.0.2.1                      198.51.100.2, 10.2.0.2
//	fd01::2      2001:db8:1::1                    2001:db8:2::2, fd02::2
//
// The path is a kernel that forwards, or an agent that carries frames badly. The
// peer is a guest, or another gateway with a host behind it.
type pathRig struct {
	*lab
	gateway   *labGateway
	host, far *uml.Agent         // the ends of a connection
	key       func(string) error // keys the peer
}

// The ends of the tunnel and the path's addresses, by family.
var (
	pathNear   = [2]string{"192.0.2.1", "2001:db8:1::1"}
	pathFar    = [2]string{"198.51.100.2", "2001:db8:2::2"}
	pathRouter = [2][2]string{{"192.0.2.254", "2001:db8:1::fe"}, {"198.51.100.254", "2001:db8:2::fe"}}
	pathNet    = [2][2]string{{"192.0.2.0/24", "2001:db8:1::/64"}, {"198.51.100.0/24", "2001:db8:2::/64"}}
	hostNet    = [2][2]string{{"10.1.0.0/24", "fd01::/64"}, {"10.2.0.0/24", "fd02::/64"}}
	plen       = [2]string{"/24", "/64"}
)

// newPathRig makes the path m between the host h with its gateway g and the
// peer: a guest, or a gateway p with its host k.
func newPathRig(t *testing.T, linux bool) *pathRig { return newPathRigOf(t, linux, 0) }

// newPathRigOf is newPathRig with links of that MTU, if it is not 0.
func newPathRigOf(t *testing.T, linux bool, mtu int) *pathRig {
	t.Helper()
	sides := "hgm"
	if !linux {
		sides += "pk"
	}
	r := &pathRig{lab: newLab(t, sides)}
	r.mtu = mtu
	r.side("g", "h", 0)
	r.cable("g wire0", "m near0")
	for f := range plen {
		r.ip("g", "addr add "+pathNear[f]+plen[f]+" dev wire0")
	}
	if linux {
		r.cable("m far0", "m vec0")
	} else {
		r.side("p", "k", 1)
		r.cable("p wire0", "m far0")
		for f := range plen {
			r.ip("p", "addr add "+pathFar[f]+plen[f]+" dev wire0")
		}
	}
	for f := range plen {
		r.ip("m", "addr add "+pathRouter[0][f]+plen[f]+" dev near0")
		r.ip("m", "addr add "+pathRouter[1][f]+plen[f]+" dev far0")
		r.ip("g", fmt.Sprintf("route add %s via %s", pathNet[1][f], pathRouter[0][f]))
		r.ip("g", fmt.Sprintf("route add %s via %s", hostNet[1][f], pathRouter[0][f]))
		if !linux {
			r.ip("p", fmt.Sprintf("route add %s via %s", pathNet[0][f], pathRouter[1][f]))
			r.ip("p", fmt.Sprintf("route add %s via %s", hostNet[0][f], pathRouter[1][f]))
		}
	}
	r.gateway, r.host = r.startGateway("g"), r.startAgent("h")
	if linux {
		r.startGuest()
	} else {
		peer := r.startGateway("p")
		r.far, r.key = r.startAgent("k"), peer.key
	}
	return r
}

// side joins a gateway and the host behind it, whose network has the number i.
func (r *pathRig) side(gateway, host string, i int) {
	r.Helper()
	r.cable(host+" eth0", gateway+" red0")
	for f := range plen {
		router := strings.TrimSuffix(strings.TrimSuffix(hostNet[i][f], "0/24"), "/64") + "1"
		r.ip(gateway, "addr add "+router+plen[f]+" dev red0")
		r.ip(host, "addr add "+[2]string{hostAddr[f], innerAddr[f]}[i]+plen[f]+" dev eth0")
		r.ip(host, "route add default via "+router)
	}
}

func (r *pathRig) startGuest() {
	r.Helper()
	r.far = r.boot("m")
	r.key = func(batch string) error { return runBatch(r.far, batch) }
	batch := "link set lo up\nlink set vec0 up\n"
	for f := range plen {
		batch += fmt.Sprintf("addr add %s%s dev lo\naddr add %s%s dev vec0 nodad\n", innerAddr[f], [2]string{"/32", "/128"}[f], pathFar[f], plen[f])
		batch += fmt.Sprintf("route add %s via %s\nroute add %s via %s src %s\n", pathNet[0][f], pathRouter[1][f], hostNet[0][f], pathRouter[1][f], innerAddr[f])
	}
	if err := runBatch(r.far, batch); err != nil {
		r.Fatal(err)
	}
}

// routed makes the path one that a kernel forwards on.
func (r *pathRig) routed() {
	r.Helper()
	r.exec("m", "sysctl", "-qw", "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
}

// shrink lets no packet of more than mtu bytes pass from then on. The path's
// kernel tells senders by ICMP.
func (r *pathRig) shrink(mtu int) {
	r.Helper()
	for i, dev := range []string{"near0", "far0"} {
		for f := range plen {
			metric := [2]string{"", " metric 256"}[f] // the kernel's own, to be replaced
			r.ip("m", fmt.Sprintf("route replace %s dev %s proto kernel%s mtu lock %d", pathNet[i][f], dev, metric, mtu))
		}
	}
}

// crossed makes the path one that an agent carries frames on: the gateways see
// each other as the router. Of a thousand frames it loses some, and some are
// overtaken.
func (r *pathRig) crossed(lose, overtaken int) {
	r.Helper()
	answer, err := r.far.Call(uml.Request{Exec: []string{"cat", "/sys/class/net/vec0/address"}})
	far := strings.TrimSpace(answer.Output)
	if err != nil {
		far = r.mac("p", "wire0")
	}
	for f := range plen {
		r.neighbour("g", "wire0", pathRouter[0][f], far)
		entry := fmt.Sprintf("neigh replace %s lladdr %s dev %%s nud permanent", pathRouter[1][f], r.mac("g", "wire0"))
		if err == nil {
			if err := runBatch(r.far, fmt.Sprintf(entry, "vec0")); err != nil {
				r.Fatal(err)
			}
		} else {
			r.ip("p", fmt.Sprintf(entry, "wire0"))
		}
	}
	cross := uml.Cross{Ports: [2]string{"near0", "far0"}, Lose: lose, Overtaken: overtaken, Seed: 1}
	if _, err := r.startAgent("m").Call(uml.Request{Cross: &cross}); err != nil {
		r.Fatal(err)
	}
}

// tunnel keys both ends for tunnels over the outer family.
func (r *pathRig) tunnel(outer int) {
	r.Helper()
	t := espTransforms()[0]
	near, far := pathNear[outer], pathFar[outer]
	states := "xfrm state flush\n"
	for i, ends := range [][2]string{{near, far}, {far, near}} {
		states += fmt.Sprintf("xfrm state add src %s dst %s proto esp spi %#x reqid 1 mode tunnel flag af-unspec flag esn replay-window 128%s\n",
			ends[0], ends[1], 0x1000+i, t.line(fmt.Sprint(outer, i)))
	}
	policies := func(i int) string {
		text := "xfrm policy flush\n"
		a, b := near, far
		if i == 1 {
			a, b = far, near
		}
		for f := range plen {
			text += fmt.Sprintf("xfrm policy add src %s dst %s dir out tmpl src %s dst %s proto esp reqid 1 mode tunnel\n",
				hostNet[i][f], hostNet[1-i][f], a, b)
			text += fmt.Sprintf("xfrm policy add src %s dst %s dir in tmpl src %s dst %s proto esp reqid 1 mode tunnel\n",
				hostNet[1-i][f], hostNet[i][f], b, a)
		}
		return text
	}
	if err := both(func() error { return r.gateway.key(states + policies(0)) }, func() error { return r.key(states + policies(1)) }); err != nil {
		r.Fatal(err)
	}
}

// What a connection carries, in bytes. A guest takes 5 MB or 10 a second, so
// that the large ones are for make test-matrix; make test has small ones instead.
const (
	smallStream = 16 << 20
	largeStream = 1 << 30
)

func large() int64 {
	if os.Getenv("SPIGOT_MATRIX") == "full" {
		return largeStream
	}
	return smallStream
}

// streamSeconds bounds a transfer: what stalls does not end in a day.
const streamSeconds = 900

// stream sends n bytes by TCP from one end to the other and calls half in the
// middle. Where the transfer is over before its middle was seen, as it may be on
// a busy machine, a longer one follows.
func (r *pathRig) stream(n int64, from *uml.Agent, src, dst string, half func()) {
	r.Helper()
	for !r.streamOnce(n, from, src, dst, half) {
		if n *= 4; n > largeStream {
			r.Fatalf("%s to %s: the middle of %d bytes was not seen", src, dst, n/4)
		}
	}
}

// streamOnce says whether it has called half, if there is one.
func (r *pathRig) streamOnce(n int64, from *uml.Agent, src, dst string, half func()) bool {
	r.Helper()
	done := make(chan struct{})
	var answer uml.Answer
	var err error
	before := r.carried()
	go func() {
		defer close(done)
		answer, err = from.Call(uml.Request{Send: &uml.Send{From: src, To: dst, Bytes: n, Seconds: streamSeconds}})
	}()
	called := half == nil
	for over := false; !called && !over; {
		select {
		case <-done:
			over = true
		case <-time.After(5 * time.Millisecond):
			if r.carried()-before > uint64(n/2) {
				half()
				called = true
			}
		}
	}
	<-done
	p := answer.Report
	r.Logf("%s to %s: %d bytes in %.1f s, %.1f MB/s, longest standstill %.2f s", src, dst, p.Intact, p.Duration, float64(n)/p.Duration/1e6, p.Stall)
	if err != nil || p.Intact != n {
		r.Fatalf("%s to %s: %+v: %v", src, dst, p, err)
	}
	return called
}

// carried is how many bytes the gateway's SAs have carried.
func (r *pathRig) carried() (n uint64) {
	r.Helper()
	var sas []struct{ Bytes uint64 }
	if err := r.gateway.show("sa", &sas); err != nil {
		r.Fatal(err)
	}
	for _, sa := range sas {
		n += sa.Bytes
	}
	return n
}

// each runs test for a Linux peer and for a gateway as the peer.
func eachPeer(t *testing.T, test func(t *testing.T, r *pathRig)) {
	t.Parallel()
	for name, linux := range map[string]bool{"Linux": true, "Spigot": false} {
		t.Run(name, func(t *testing.T) {
			test(t, newPathRig(t, linux))
		})
	}
}

// A path that loses a packet of a hundred, and lets others overtake one of a
// hundred, is slow and loses nothing of a stream.
func TestLinuxOverALossyPath(t *testing.T) {
	eachPeer(t, func(t *testing.T, r *pathRig) {
		r.crossed(10, 10)
		r.tunnel(0)
		r.stream(large(), r.host, hostAddr[0], innerAddr[0], nil)
		r.stream(smallStream, r.far, innerAddr[1], hostAddr[1], nil)
	})
}

// A path whose MTU shrinks in mid-transfer tells the gateways, which tell the
// hosts what fits: the transfer goes on.
func TestLinuxOverAShrinkingPath(t *testing.T) {
	eachPeer(t, func(t *testing.T, r *pathRig) {
		r.routed()
		for outer, n := range []int64{large(), smallStream} {
			r.shrink(1500)
			r.tunnel(outer)
			r.stream(n, r.host, hostAddr[outer], innerAddr[outer], func() { r.shrink(1400) })
			r.stream(smallStream, r.far, innerAddr[1-outer], hostAddr[1-outer], func() { r.shrink(1300) })
		}
	})
}
