package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"spigot/control"
	"spigot/internal/uml"
)

// peerRig is a gateway whose peer is a Linux kernel:
//
//	host --- red0 [gateway] wire0 --- vec0 [guest]
//	10.1.0.2          192.0.2.1       192.0.2.2, 10.2.0.2
//	fd01::2        2001:db8::1     2001:db8::2, fd02::2
type peerRig struct {
	*lab
	gateway     *labGateway
	host, guest *uml.Agent
	self        *uml.Agent        // the gateway's own end, beside spigot
	dropped     map[string]uint64 // what the gateway had dropped when the case began
	refused     map[string]uint64 // what the guest's stack had refused then
}

// Addresses by family: v4, v6.
var (
	hostAddr  = [2]string{"10.1.0.2", "fd01::2"}
	innerAddr = [2]string{"10.2.0.2", "fd02::2"} // of the guest, behind its tunnel
	nearAddr  = [2]string{"192.0.2.1", "2001:db8::1"}
	farAddr   = [2]string{"192.0.2.2", "2001:db8::2"}
)

// newPeerRig starts all three: h the host, g the gateway, and p, from which
// the guest sees the wire.
func newPeerRig(t *testing.T) *peerRig {
	t.Helper()
	l := newLab(t, "hgp")
	l.cable("h eth0", "g red0")
	l.cable("g wire0", "p vec0")
	for _, args := range []string{
		"h addr add 10.1.0.2/24 dev eth0", "h addr add fd01::2/64 dev eth0",
		"h route add default via 10.1.0.1", "h route add default via fd01::1",
		"g addr add 10.1.0.1/24 dev red0", "g addr add fd01::1/64 dev red0",
		"g addr add 192.0.2.1/24 dev wire0", "g addr add 2001:db8::1/64 dev wire0",
		"g route add 10.2.0.0/24 via 192.0.2.2", "g route add fd02::/64 via 2001:db8::2",
	} {
		l.ip(args[:1], args[2:])
	}
	r := &peerRig{lab: l, gateway: l.startGateway("g"), host: l.startAgent("h"), guest: l.boot("p"), self: l.startAgent("g")}
	if err := runBatch(r.guest, `
link set lo up
link set vec0 up
addr add 10.2.0.2/32 dev lo
addr add fd02::2/128 dev lo
addr add 192.0.2.2/24 dev vec0
addr add 2001:db8::2/64 dev vec0 nodad
route add 10.1.0.0/24 via 192.0.2.1 src 10.2.0.2
route add fd01::/64 via 2001:db8::1 src fd02::2
`); err != nil {
		t.Fatal(err)
	}
	r.meet()
	return r
}

// meet makes neighbours known for good, so that no packet waits for one.
func (r *peerRig) meet() {
	r.Helper()
	answer, err := r.guest.Call(uml.Request{Read: "/sys/class/net/vec0/address"})
	if err != nil {
		r.Fatal(err)
	}
	guest := strings.TrimSpace(answer.Output)
	for i := range nearAddr {
		if err := runBatch(r.guest, fmt.Sprintf("neigh replace %s lladdr %s dev vec0 nud permanent", nearAddr[i], r.mac("g", "wire0"))); err != nil {
			r.Fatal(err)
		}
		r.neighbour("g", "wire0", farAddr[i], guest)
		r.neighbour("g", "red0", hostAddr[i], r.mac("h", "eth0"))
		r.neighbour("h", "eth0", [2]string{"10.1.0.1", "fd01::1"}[i], r.mac("g", "red0"))
	}
	// Until the gateway has heard of them, too.
	r.await("the neighbours", func() bool {
		var status control.StatusInfo
		return r.gateway.show("status", &status) == nil && status.Neighbours >= 2*len(nearAddr)
	})
}

// key keys both sides, each with its own batch.
func (r *peerRig) key(gateway, guest string) error {
	return both(func() error { return r.gateway.key(gateway) }, func() error { return runBatch(r.guest, guest) })
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

var saLines = regexp.MustCompile(`spi 0x([0-9a-f]{8})\(|(\d+)\(packets\)\n\t  add`)

// guestTraffic asks a guest what its SAs have carried.
func guestTraffic(guest *uml.Agent) (traffic, error) {
	out, err := guest.Run("", "ip", "-s", "xfrm", "state")
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

// guestErrors counts what a guest's stack has refused.
func guestErrors(guest *uml.Agent) (map[string]uint64, error) {
	answer, err := guest.Call(uml.Request{Read: "/proc/net/xfrm_stat"})
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
