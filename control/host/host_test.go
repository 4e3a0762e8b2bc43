package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/internal/fib"
)

// newNS gives the test a network namespace of its own, with a loopback that is
// up. It has no name and ends with the test's thread.
func newNS(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network namespace of one's own (needs root): %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"10.1.0.1/32", "fd01::1/128"} {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(lo, a); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T) *Device {
	t.Helper()
	d, err := Open(Config{
		Name: "enc0", Workers: 2, Log: slog.New(slog.DiscardHandler),
		Deliver: func(int, []byte) error { return io.ErrClosedPipe },
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func plan(mtu int, lines ...string) control.HostPlan {
	p := control.HostPlan{MTU: mtu}
	for i := 0; i < len(lines); i += 2 {
		r := control.HostRoute{Dst: netip.MustParsePrefix(lines[i])}
		if lines[i+1] != "" {
			r.Src = netip.MustParseAddr(lines[i+1])
		}
		p.Routes = append(p.Routes, r)
	}
	return p
}

// held is what the kernel has in the device's table, and how many rules lead there.
func held(t *testing.T) (routes []string, rules int) {
	t.Helper()
	for _, family := range families {
		list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: Table}, netlink.RT_FILTER_TABLE)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			text := r.Dst.String()
			if r.Type != unix.RTN_THROW {
				text += " " + r.Src.String()
			}
			routes = append(routes, text)
		}
		all, err := netlink.RuleList(family)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Priority == PriorityIKE || r.Priority == PriorityHost {
				rules++
			}
		}
	}
	slices.Sort(routes)
	return routes, rules
}

// The kernel's table is what the last plan says; what somebody who was killed has
// left is swept away, and nothing is left in the end.
func TestRoutesFollowThePlan(t *testing.T) {
	newNS(t)
	d := open(t)
	for _, step := range []struct {
		plan control.HostPlan
		mtu  int
		want []string
	}{
		{plan(1400), 1400, nil},
		{plan(1400, "10.2.0.0/16", "10.1.0.1", "fd02::/64", "fd01::1"), 1400, []string{"10.2.0.0/16 10.1.0.1", "fd02::/64 fd01::1"}},
		{plan(900, "0.0.0.0/0", "10.1.0.1", "10.1.0.0/16", "", "fd01::/64", ""), 1280,
			[]string{"0.0.0.0/0 10.1.0.1", "10.1.0.0/16", "fd01::/64"}},
		{plan(9000, "10.1.0.0/16", "10.1.0.1"), fib.HostSize, []string{"10.1.0.0/16 10.1.0.1"}},
	} {
		if err := d.carryOut(step.plan); err != nil {
			t.Fatal(err)
		}
		got, rules := held(t)
		if !slices.Equal(got, step.want) || rules != 6 {
			t.Errorf("%v, and %d rules; want %v", got, rules, step.want)
		}
		if link, err := netlink.LinkByName("enc0"); err != nil || link.Attrs().MTU != step.mtu {
			t.Errorf("MTU %d, want %d (%v)", link.Attrs().MTU, step.mtu, err)
		}
	}
	if _, err := Open(Config{Name: "enc0", Workers: 1}); !errors.Is(err, ErrDevice) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second one: %v", err)
	}
	for _, f := range d.tun { // it is killed
		f.Close()
	}
	if err := open(t).Close(); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if got, rules := held(t); len(got)+rules != 0 {
		t.Errorf("left: %v, %d rules", got, rules)
	}
}

// A second gateway of the namespace gets no device, and leaves the first one's rules
// and routes alone.
func TestOneGatewayForEachNamespace(t *testing.T) {
	newNS(t)
	d := open(t)
	if err := d.carryOut(plan(1400, "10.2.0.0/16", "10.1.0.1")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Name: "enc1", Workers: 1}); !errors.Is(err, ErrDevice) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second one: %v", err)
	}
	if got, rules := held(t); len(got) != 1 || rules != 6 {
		t.Errorf("the first one has %v, %d rules", got, rules)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	other, err := Open(Config{Name: "enc1", Workers: 1})
	if err != nil {
		t.Fatalf("when the first one has left: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}

// Packets go both ways, by the device: what the host sends to a destination of
// the plan comes to a worker, and what a worker has received is the host's.
func TestPacketsCrossTheDevice(t *testing.T) {
	newNS(t)
	d := open(t)
	if err := d.carryOut(plan(1400, "10.2.0.0/16", "10.1.0.1")); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	if err := unix.Sendto(fd, []byte("out"), 0, &unix.SockaddrInet4{Port: 7, Addr: [4]byte{10, 2, 0, 9}}); err != nil {
		t.Fatal(err)
	}
	m := make([]fib.HostPacket, 1)
	for until := time.Now().Add(30 * time.Second); d.Link(0).Sent.Pop(m)+d.Link(1).Sent.Pop(m) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the host's packet does not come")
		}
	}
	ip := bytes.Clone(m[0].Data[:m[0].Len])
	if len(ip) != 31 || string(ip[28:]) != "out" || !bytes.Equal(ip[12:20], []byte{10, 1, 0, 1, 10, 2, 0, 9}) {
		t.Fatalf("the host sends % x", ip)
	}
	// The answer: ends and ports change places, and with them no checksum changes
	// but that of UDP, which says that there is none.
	copy(ip[12:], []byte{10, 2, 0, 9, 10, 1, 0, 1})
	copy(ip[20:], []byte{0, 7, ip[20], ip[21], 0, 11, 0, 0})
	copy(ip[28:], "in.")
	m[0].Port, m[0].Len = fib.Secured, uint16(copy(m[0].Data[:], ip))
	d.Link(1).Got.Push(m)
	d.Link(1).Tell.Ring()
	var buf [16]byte
	n, _, err := unix.Recvfrom(fd, buf[:], 0)
	if err != nil || string(buf[:n]) != "in." {
		t.Errorf("the host gets %q, %v", buf[:n], err)
	}
	m[0].Port = 1 // in clear: Deliver refuses
	d.Link(0).Got.Push(m)
	d.Link(0).Tell.Ring()
	for until := time.Now().Add(30 * time.Second); d.lost.Load() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d packets were not taken", d.lost.Load())
		}
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestForWorkers(t *testing.T) {
	packet := func(first byte, at int, dst ...byte) []byte {
		b := make([]byte, 60)
		b[0] = first
		copy(b[at:], dst)
		return b
	}
	for name, row := range map[string]struct {
		b    []byte
		want bool
	}{
		"v4": {packet(0x45, 16, 10), true}, "v4 broadcast": {packet(0x45, 16, 255, 255, 255, 255), false}, "class E": {packet(0x45, 16, 240), false},
		"v4 group": {packet(0x45, 16, 239), true}, "v4 group of a link": {packet(0x45, 16, 224), false},
		"IGMP": {packet(0x45, 9, 2, 0, 0, 10, 0, 0, 1, 239), false},
		"v6":   {packet(0x60, 24, 0xfd), true}, "v6 group": {packet(0x60, 6, append([]byte{17, 9}, packet(0, 16, 0xff, 0x15)[:18]...)...), true},
		"v6 group of a link": {packet(0x60, 24, 0xff, 2), false}, "MLD": {packet(0x60, 24, 0xff, 0x15), false},
		"nothing": {nil, false}, "19 bytes": {packet(0x45, 16, 10)[:19], false}, "39 bytes": {packet(0x60, 24, 0xfd)[:39], false},
		"version 5": {packet(0x50, 16, 10), false},
	} {
		if forWorkers(row.b) != row.want {
			t.Errorf("%s: %t", name, !row.want)
		}
	}
}

func TestANameThatIsNone(t *testing.T) {
	newNS(t)
	if _, err := Open(Config{Name: "longer-than-15-bytes", Workers: 1}); !errors.Is(err, ErrDevice) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat("/sys/class/net/longer-than-15-"); err == nil {
		t.Error("a device was made")
	}
}
