package bench_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// namespace is a network namespace. It has no name: the kernel removes it with
// all that is in it when nobody holds it any more, and so even when the process
// panics or is killed.
type namespace struct {
	fd netns.NsHandle
	nl *netlink.Handle
}

func newNamespace(b testing.TB) *namespace {
	b.Helper()
	n := new(namespace)
	err := <-onThread(func() (err error) {
		n.fd, err = netns.New()
		return err
	})
	if err != nil {
		b.Fatalf("a network namespace of one's own: %v (run as root)", err)
	}
	b.Cleanup(func() { n.fd.Close() })
	if n.nl, err = netlink.NewHandleAt(n.fd); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(n.nl.Close)
	if err := n.do(silence); err != nil {
		b.Fatal(err)
	}
	return n
}

// silence keeps the interfaces that will be made in the calling thread's
// namespace from sending anything of their own: router solicitations,
// duplicate address detection.
func silence() error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
		return nil
	}
	return err
}

// onThread runs f on an OS thread of its own, which ends with f. The channel
// gives what f returned, and is closed.
func onThread(f func() error) <-chan error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		ended <- f()
		close(ended)
	}()
	return ended
}

// do runs f in the namespace.
func (n *namespace) do(f func() error) error {
	return <-onThread(func() error {
		if err := netns.Set(n.fd); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// veth joins the namespaces n and far by a pair of interfaces, both up. The one
// in n is called name and has the address mac.
func (n *namespace) veth(b testing.TB, name string, mac [6]byte, far *namespace, peer string) {
	b.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, mac[:]
	err := n.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(far.fd)})
	if err != nil {
		b.Fatalf("add %s and %s: %v", name, peer, err)
	}
	n.up(b, name)
	far.up(b, peer)
}

func (n *namespace) up(b testing.TB, name string) {
	b.Helper()
	if err := n.nl.LinkSetUp(n.link(b, name)); err != nil {
		b.Fatalf("set %s up: %v", name, err)
	}
}

func (n *namespace) link(b testing.TB, name string) netlink.Link {
	b.Helper()
	l, err := n.nl.LinkByName(name)
	if err != nil {
		b.Fatalf("find %s: %v", name, err)
	}
	return l
}

// received returns how many packets came in by the interface called name: its
// rx_packets.
func (n *namespace) received(b testing.TB, name string) uint64 {
	b.Helper()
	return n.link(b, name).Attrs().Statistics.RxPackets
}
