package asavie

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/pmd"
)

const (
	chunk     = 2048
	etherType = 0x88b5 // for experiments (IEEE 802): nobody else's traffic
)

// newNamespace gives the test a network namespace of its own. It has no name,
// and ends with the test's thread, however the test ends.
func newNamespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace (root is needed): %v", err)
	}
}

// addVeth adds a pair of interfaces that are up.
func addVeth(t testing.TB, name, peer string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer}); err != nil {
		t.Fatalf("add %s and %s: %v", name, peer, err)
	}
	setLink(t, name, netlink.LinkSetUp)
	setLink(t, peer, netlink.LinkSetUp)
}

func setLink(t testing.TB, name string, set func(netlink.Link) error) {
	t.Helper()
	if err := set(findLink(t, name)); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func findLink(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// program redirects all packets of a registered queue. It is a Registrar.
type program struct {
	sockets *ebpf.Map
	held    int // registrations that were not taken back
}

func (p *program) Register(queue, fd int) error {
	p.held++
	return p.sockets.Put(uint32(queue), uint32(fd))
}

func (p *program) Unregister(queue, _ int) error {
	p.held--
	return p.sockets.Delete(uint32(queue))
}

// attach attaches a program to the interface called name.
func attach(t testing.TB, name string, flags link.XDPAttachFlags) *program {
	t.Helper()
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sockets.Close() })
	const queueIndex, pass = 16, 2 // offset in struct xdp_md; XDP_PASS
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, queueIndex, asm.Word),
		asm.LoadMapPtr(asm.R1, sockets.FD()),
		asm.Mov.Imm(asm.R3, pass),
		asm.FnRedirectMap.Call(),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: findLink(t, name).Attrs().Index, Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &program{sockets: sockets}
}

// host is a raw socket on an interface: the far end of a port.
type host struct {
	t  testing.TB
	fd int
}

func newHost(t testing.TB, name string) host {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		t.Fatal(err)
	}
	protocol := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, etherType))
	err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: findLink(t, name).Attrs().Index})
	if err != nil {
		t.Fatal(err)
	}
	return host{t, fd}
}

// packet returns a broadcast frame of size bytes, of which the content depends
// on number.
func packet(number uint32, size int) []byte {
	p := make([]byte, size)
	copy(p, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01")
	binary.BigEndian.PutUint16(p[12:], etherType)
	binary.BigEndian.PutUint32(p[14:], number)
	for i := 18; i < size; i++ {
		p[i] = byte(int(number) + i)
	}
	return p
}

// send sends n packets that are numbered from first.
func (h host) send(first, n, size int) {
	h.t.Helper()
	for i := first; i < first+n; i++ {
		if _, err := unix.Write(h.fd, packet(uint32(i), size)); err != nil {
			h.t.Fatalf("send packet %d: %v", i, err)
		}
	}
}

// receive returns what has come since.
func (h host) receive() [][]byte {
	var all [][]byte
	buf := make([]byte, 4096)
	for {
		n, from, err := unix.Recvfrom(h.fd, buf, 0)
		if err != nil {
			return all
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
			all = append(all, append([]byte(nil), buf[:n]...))
		}
	}
}

func newPool(t testing.TB, n int) *pmd.Pool {
	t.Helper()
	pool, err := pmd.NewPool(&pmd.Memory{Bytes: make([]byte, n*chunk)}, chunk)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

// closeAll closes ports and checks that nothing of them is left.
func closeAll(t testing.TB, pool *pmd.Pool, ports ...*Port) {
	t.Helper()
	for _, p := range ports {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if p.registrar.(*program).held != 0 {
			t.Errorf("%s is registered after Close", p.info.Name)
		}
	}
	if pool.Len() != pool.Cap() || pool.Bad() != 0 {
		t.Errorf("%d of %d frames home, %d refused", pool.Len(), pool.Cap(), pool.Bad())
	}
	noRings(t)
}

// noRings fails the test if rings of this test are mapped without a port.
func noRings(t testing.TB) {
	t.Helper()
	all, err := mappings()
	if err != nil || len(all) != 0 {
		t.Errorf("%d rings mapped: %v", len(all), err)
	}
}

func mustOpen(t testing.TB, o Options) *Port {
	t.Helper()
	p, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() }) // of a test that fails
	return p
}

// gateway is two ports in a namespace, with a host at the far end of each.
type gateway struct {
	testing.TB
	pool         *pmd.Pool
	red, blue    *Port
	hostR, hostB host
}

func newGateway(t testing.TB, frames int, o Options) *gateway {
	t.Helper()
	newNamespace(t)
	// A silent wire: no router solicitations. Not there without IPv6.
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	addVeth(t, "red0", "host-r")
	addVeth(t, "blue0", "host-b")
	g := &gateway{TB: t, pool: newPool(t, frames)}
	o.Pool = g.pool
	o.Interface, o.Registrar = "red0", attach(t, "red0", link.XDPDriverMode)
	g.red = mustOpen(t, o)
	o.Interface, o.Registrar = "blue0", attach(t, "blue0", link.XDPDriverMode)
	g.blue = mustOpen(t, o)
	g.hostR, g.hostB = newHost(t, "host-r"), newHost(t, "host-b")
	return g
}

// turn carries a burst each way and returns how many frames moved.
func (g *gateway) turn() int {
	return g.carry(g.red, g.blue) + g.carry(g.blue, g.red)
}

func (g *gateway) carry(from, to *Port) int {
	var fs [batch]pmd.Frame
	n := from.Rx(fs[:])
	for _, f := range fs[to.Tx(fs[:n]):n] {
		g.pool.Put(f.Base)
	}
	from.Flush()
	to.Flush()
	return n
}

// until turns until done, for two seconds at most.
func (g *gateway) until(what string, done func() bool) {
	g.Helper()
	for end := time.Now().Add(2 * time.Second); !done(); {
		if g.turn() == 0 && time.Now().After(end) {
			g.Fatalf("%s: did not happen\nred0 %+v\nblue0 %+v", what, g.red.Stats(), g.blue.Stats())
		}
	}
}
