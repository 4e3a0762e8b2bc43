package afxdp

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// newNS gives the test a network namespace of its own. It has no name and ends
// with the test's thread, whatever happens to the test.
func newNS(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network namespace of one's own (needs root): %v", err)
	}
	// A silent wire: no router solicitations or duplicate address detection.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// veth makes a pair of interfaces, both up, with that many queues each.
func veth(t testing.TB, name, peer string, queues int) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumRxQueues, attrs.NumTxQueues = name, queues, queues
	err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: peer,
		PeerNumRxQueues: uint32(queues), PeerNumTxQueues: uint32(queues),
	})
	if err != nil {
		t.Fatalf("add %s and %s: %v", name, peer, err)
	}
	setUp(t, name, true)
	setUp(t, peer, true)
}

func setUp(t testing.TB, name string, up bool) {
	t.Helper()
	set := netlink.LinkSetDown
	if up {
		set = netlink.LinkSetUp
	}
	if err := set(linkByName(t, name)); err != nil {
		t.Fatalf("set %s up %v: %v", name, up, err)
	}
}

func linkByName(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func htons(v uint16) int { return int(v<<8 | v>>8) }

// packetSocket opens a raw socket on the interface called name.
func packetSocket(t testing.TB, name string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		t.Fatal(err)
	}
	sa := &unix.SockaddrLinklayer{Protocol: uint16(htons(unix.ETH_P_IP)), Ifindex: linkByName(t, name).Attrs().Index}
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	return fd
}

const testPort = 4242

// numbered is a UDP packet in an Ethernet frame of size bytes, number n.
func numbered(n uint32, size int) []byte {
	f := frame4(17, netip.MustParseAddr("192.0.2.9"), udp(testPort, make([]byte, size-14-20-8)))
	binary.BigEndian.PutUint32(f[14+20+8:], n)
	for i := 14 + 20 + 8 + 4; i < len(f); i++ {
		f[i] = byte(int(n) + i)
	}
	return f
}

// number returns the number of a frame made by numbered, if it is intact.
func number(f []byte) (uint32, bool) {
	if len(f) < 14+20+8+4 {
		return 0, false
	}
	n := binary.BigEndian.Uint32(f[14+20+8:])
	want := numbered(n, len(f))
	for i := range f {
		if f[i] != want[i] {
			return n, false
		}
	}
	return n, true
}

// send writes frames first to first+n-1 to the packet socket.
func send(t testing.TB, fd int, first, n uint32, size int) {
	t.Helper()
	for i := range n {
		for {
			_, err := unix.Write(fd, numbered(first+i, size))
			if err == nil {
				break
			}
			if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
				t.Fatalf("send: %v", err)
			}
		}
	}
}

// collect reads what arrived at the packet socket: which numbers, intact.
func collect(t testing.TB, fd int, into map[uint32]int) {
	t.Helper()
	buf := make([]byte, 65536)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		num, ok := number(buf[:n])
		if !ok {
			t.Errorf("a frame of %d bytes arrived that was not sent so", n)
		}
		into[num]++
	}
}

// rig is a gateway of two ports in a namespace:
//
//	in -> far_a == a | worker | b == far_b -> out
type rig struct {
	testing.TB
	umem   *UMEM
	pool   *pmd.Pool
	sa, sb *Steering
	a, b   *Socket
	in     int
	out    int
	fs     [64]pmd.Frame
	refuse int // frames that b did not take
}

func newUMEM(t testing.TB, chunks int) *UMEM { return newJumboUMEM(t, chunks, 2048, pmd.Jumbo{}) }

func newJumboUMEM(t testing.TB, chunks, size int, j pmd.Jumbo) *UMEM {
	t.Helper()
	mem, err := pmd.Map(chunks*size + j.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mem.Close(); err != nil {
			t.Error(err)
		}
	})
	pool, err := pmd.NewJumboPool(mem, size, j)
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUMEM(pool)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func newSteering(t testing.TB, name string, o SteeringOptions) *Steering {
	t.Helper()
	s, err := Attach(name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newSocket(t testing.TB, o Options) *Socket {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newRig(t testing.TB, chunks int, o Options) *rig {
	t.Helper()
	newNS(t)
	veth(t, "a", "far_a", 1)
	veth(t, "b", "far_b", 1)
	r := &rig{TB: t, umem: newUMEM(t, chunks)}
	r.pool = r.umem.Pool()
	r.sa = newSteering(t, "a", SteeringOptions{})
	r.sb = newSteering(t, "b", SteeringOptions{})
	o.UMEM = r.umem
	o.Interface, o.Steering = "a", r.sa
	r.a = newSocket(t, o)
	o.Interface, o.Steering = "b", r.sb
	r.b = newSocket(t, o)
	r.in, r.out = packetSocket(t, "far_a"), packetSocket(t, "far_b")
	return r
}

// turn carries one burst from a to b.
func (r *rig) turn() int {
	n := r.a.Rx(r.fs[:])
	took := r.b.Tx(r.fs[:n])
	for _, f := range r.fs[took:n] {
		r.pool.Put(f.Base)
		r.refuse++
	}
	r.b.Flush()
	r.a.Flush()
	return n
}

// until turns until ok or for two seconds.
func (r *rig) until(ok func() bool) bool {
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		r.turn()
		if ok() {
			return true
		}
	}
	return false
}

// home closes the ports and checks that every frame is in the pool, once.
func (r *rig) home() {
	r.Helper()
	for _, s := range []*Socket{r.a, r.b} {
		if err := s.Close(); err != nil {
			r.Error(err)
		}
	}
	if r.pool.Len() != r.pool.Cap() || r.pool.Bad() != 0 {
		r.Errorf("%d of %d frames home, %d returned in error", r.pool.Len(), r.pool.Cap(), r.pool.Bad())
	}
}

// The parts of packets.

func eth(typ uint16, payload []byte) []byte {
	f := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	return append(binary.BigEndian.AppendUint16(f, typ), payload...)
}

func udp(port uint16, payload []byte) []byte {
	u := binary.BigEndian.AppendUint16([]byte{0x30, 0x39}, port)
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(payload)))
	return append(append(u, 0, 0), payload...)
}

func ip4(proto byte, dst netip.Addr, frag uint16, options int, payload []byte) []byte {
	h := make([]byte, 20+options)
	h[0] = 0x40 | byte(len(h)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(payload)))
	binary.BigEndian.PutUint16(h[6:], frag)
	h[8], h[9] = 64, proto
	copy(h[12:], net.IPv4(192, 0, 2, 1).To4())
	copy(h[16:], dst.AsSlice())
	return append(h, payload...)
}

func ip6(next byte, dst netip.Addr, payload []byte) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	src := netip.MustParseAddr("2001:db8::1").As16()
	copy(h[8:], src[:])
	copy(h[24:], dst.AsSlice())
	return append(h, payload...)
}

func frame4(proto byte, dst netip.Addr, payload []byte) []byte {
	return eth(0x0800, ip4(proto, dst, 0, 0, payload))
}

func frame6(next byte, dst netip.Addr, payload []byte) []byte {
	return eth(0x86dd, ip6(next, dst, payload))
}
