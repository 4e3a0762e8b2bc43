package afxdp

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// The actions of XDP, from linux/bpf.h.
const (
	actionDrop     = 1
	actionPass     = 2
	actionRedirect = 4
)

// redirects says whether a verdict sends the packet to the queue's socket.
func redirects(v Verdict) bool { return v >= RedirectShort && v <= RedirectTest }

var (
	here4  = netip.MustParseAddr("198.51.100.1")
	there4 = netip.MustParseAddr("203.0.113.7")
	here6  = netip.MustParseAddr("2001:db8:1::1")
	there6 = netip.MustParseAddr("2001:db8:2::7")
	link6  = netip.MustParseAddr("fe80::7")

	saGroup4  = netip.MustParseAddr("239.1.1.1") // of an inbound SA
	saGroup6  = netip.MustParseAddr("ff15::1")
	allGroup4 = netip.MustParseAddr("239.2.3.4") // that a policy protects
	allGroup6 = netip.MustParseAddr("ff05::7")
)

// machine runs a program on packets without a device. Queue 0 has a socket.
type machine struct {
	*Steering
	before Verdicts
}

func newMachine(t *testing.T, o SteeringOptions, socket bool) *machine {
	t.Helper()
	newNS(t)
	veth(t, "m", "far_m", 1)
	m := &machine{Steering: newSteering(t, "m", o)}
	if err := m.SetLocal([]netip.Addr{here4, here6}); err != nil {
		t.Fatal(err)
	}
	groups := Groups{
		IPsec: []netip.Addr{saGroup4, saGroup6},
		All:   []netip.Prefix{netip.MustParsePrefix("239.2.0.0/16"), netip.MustParsePrefix("ff00::/12"), netip.MustParsePrefix("224.0.0.0/23")},
	}
	if err := m.SetGroups(groups); err != nil {
		t.Fatal(err)
	}
	if !socket {
		return m
	}
	// A socket that is bound to nothing will do for the map.
	u := newUMEM(t, 64)
	s := &Socket{umem: u, pool: u.pool, fd: -1}
	if err := u.admit(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.release(); err != nil {
			t.Error(err)
		}
	})
	var err error
	if s.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	if err := registerMemory(s.fd, u.pool.Mem(), u.pool.Chunk()); err != nil {
		t.Fatal(err)
	}
	if err := s.mapRings(Options{RxSize: 2, TxSize: 2, FillSize: 2, CompSize: 2}); err != nil {
		t.Fatal(err)
	}
	if err := m.Register(0, s.fd); err != nil {
		t.Fatal(err)
	}
	return m
}

// run returns what the program did with the packet, and the verdict that it
// counted: exactly one.
func (m *machine) run(t testing.TB, packet []byte) (action uint32, v Verdict) {
	t.Helper()
	action, err := m.objs.prog.Run(&ebpf.RunOptions{Data: packet})
	if err != nil {
		t.Fatal(err)
	}
	after, err := m.Counters()
	if err != nil {
		t.Fatal(err)
	}
	v = NumVerdicts
	for i := range after {
		switch after[i] - m.before[i] {
		case 0:
		case 1:
			if v != NumVerdicts {
				t.Errorf("counted both as %s and as %s", v, Verdict(i))
			}
			v = Verdict(i)
		default:
			t.Errorf("counted %d times as %s", after[i]-m.before[i], Verdict(i))
		}
	}
	m.before = after
	return action, v
}

// ext is an IPv6 extension header of 8*(n+1) bytes before one of type next.
func ext(next byte, n int, payload []byte) []byte {
	h := make([]byte, 8*(n+1))
	h[0], h[1] = next, byte(n)
	return append(h, payload...)
}

func frag6(next byte, offset uint16, payload []byte) []byte {
	return append([]byte{next, 0, byte(offset >> 8), byte(offset), 1, 2, 3, 4}, payload...)
}

func group(frame []byte) []byte {
	frame[0] |= 1
	return frame
}

// withID is an Ethernet frame with an IPv4 packet that has this ID.
func withID(id byte, ip []byte) []byte {
	ip[5] = id
	return eth(0x0800, ip)
}

// cut leaves the first n bytes behind the Ethernet header.
func cut(frame []byte, n int) []byte { return frame[:14+n] }

var (
	spi      = []byte{0, 0, 1, 0, 0, 0, 0, 1, 9, 9, 9, 9}
	marker   = []byte{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}
	icmp     = func(typ byte) []byte { return []byte{typ, 0, 0, 0, 0, 0, 0, 0} }
	bytes8   = make([]byte, 8)
	tooBig4  = func(quote []byte) []byte { return append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, quote...) }
	from4500 = func(payload []byte) []byte {
		return append([]byte{0x11, 0x94, 0x11, 0x94, 0, byte(8 + len(payload)), 0, 0}, payload...)
	}
	cases = []struct {
		name   string
		packet []byte
		want   Verdict
	}{
		{"no EtherType we know", eth(0x88cc, bytes8), PassEtherType},
		{"802.3 length for a type", eth(0x0040, bytes8), PassEtherType},
		{"bare Ethernet header", eth(0x88cc, nil), PassEtherType},
		{"one VLAN tag", eth(0x8100, append([]byte{0, 5, 8, 0}, ip4(17, there4, 0, 0, udp(9, nil))...)), PassVLAN},
		{"service tag", eth(0x88a8, append([]byte{0, 5, 8, 0}, ip4(17, there4, 0, 0, udp(9, nil))...)), PassVLAN},
		{"tag cut off", eth(0x8100, []byte{0, 0}), PassVLAN},
		{"priority tag, ARP", eth(0x8100, append([]byte{0x60, 0, 8, 6}, make([]byte, 28)...)), PassARP},
		{"priority tag, this host", eth(0x8100, append([]byte{0x60, 0, 8, 0}, ip4(17, here4, 0, 0, udp(9, nil))...)), PassLocal},
		{"priority tag, transit", eth(0x8100, append([]byte{0x60, 0, 8, 0}, ip4(17, there4, 0, 0, udp(9, nil))...)), RedirectTransit},
		{"priority service tag, v6 transit", eth(0x88a8, append([]byte{0, 0, 0x86, 0xdd}, frame6(17, there6, udp(9, nil))[14:]...)), RedirectTransit},
		{"two priority tags", eth(0x88a8, append([]byte{0, 0, 0x81, 0, 0, 0, 8, 0}, ip4(17, there4, 0, 0, udp(9, nil))...)), RedirectShort},
		{"ARP", eth(0x0806, make([]byte, 28)), PassARP},
		{"ARP to all", group(eth(0x0806, make([]byte, 28))), PassARP},

		{"v4 to a group MAC", group(frame4(17, there4, udp(9, nil))), PassGroup},
		{"v4 multicast", frame4(17, netip.MustParseAddr("224.0.0.5"), udp(9, nil)), PassGroup},
		{"v4 last multicast", frame4(17, netip.MustParseAddr("239.255.255.255"), udp(9, nil)), PassGroup},
		{"v4 broadcast", frame4(17, netip.MustParseAddr("255.255.255.255"), udp(68, nil)), PassGroup},
		{"v4 to class E", frame4(17, netip.MustParseAddr("240.0.0.1"), udp(9, nil)), RedirectTransit},
		{"v4 before multicast", frame4(17, netip.MustParseAddr("223.255.255.255"), udp(9, nil)), RedirectTransit},
		{"v6 to a group MAC", group(frame6(17, there6, udp(9, nil))), PassGroup},
		{"v6 multicast", frame6(17, netip.MustParseAddr("ff15::9"), udp(9, nil)), PassGroup},
		{"v6 solicitation to its group", frame6(58, netip.MustParseAddr("ff02::1:ff00:1"), icmp(135)), PassGroup},

		{"v4 ESP to an SA's group", group(frame4(50, saGroup4, spi)), RedirectGroup},
		{"v4 ESP to an SA's group by this port's MAC", frame4(50, saGroup4, spi), RedirectGroup},
		{"v4 AH to an SA's group, options", group(eth(0x0800, ip4(51, saGroup4, 0, 8, make([]byte, 24)))), RedirectGroup},
		{"v4 ESP to an SA's group, first fragment", group(eth(0x0800, ip4(50, saGroup4, 0x2000, 0, spi))), RedirectGroup},
		{"v4 ESP to an SA's group, later fragment", group(eth(0x0800, ip4(50, saGroup4, 0x0003, 0, bytes8))), RedirectGroup},
		{"v4 priority tag, ESP to an SA's group", group(eth(0x8100, append([]byte{0x60, 0, 8, 0}, ip4(50, saGroup4, 0, 0, spi)...))), RedirectGroup},
		{"v4 ESP to the group beside", group(frame4(50, netip.MustParseAddr("239.1.1.2"), spi)), PassGroup},
		{"v4 UDP to an SA's group", group(frame4(17, saGroup4, udp(9, nil))), PassGroup},
		{"v4 IGMP to an SA's group", group(frame4(2, saGroup4, bytes8)), PassGroup},
		{"v4 UDP to a policy's group", group(frame4(17, allGroup4, udp(9, nil))), RedirectGroup},
		{"v4 later fragment to a policy's group", group(eth(0x0800, ip4(17, allGroup4, 0x0003, 0, bytes8))), RedirectGroup},
		{"v4 IGMP to a policy's group", group(frame4(2, allGroup4, bytes8)), PassGroup},
		{"v4 last of a policy's groups", group(frame4(17, netip.MustParseAddr("239.2.255.255"), udp(9, nil))), RedirectGroup},
		{"v4 behind a policy's groups", group(frame4(17, netip.MustParseAddr("239.3.0.0"), udp(9, nil))), PassGroup},
		{"v4 to this link's routers, though a policy says so", group(frame4(89, netip.MustParseAddr("224.0.0.5"), bytes8)), PassGroup},
		{"v4 beside this link's groups", group(frame4(17, netip.MustParseAddr("224.0.1.1"), udp(9, nil))), RedirectGroup},
		{"v6 ESP to an SA's group", group(frame6(50, saGroup6, spi)), RedirectGroup},
		{"v6 AH to an SA's group, extensions", group(frame6(60, saGroup6, ext(51, 0, make([]byte, 24)))), RedirectGroup},
		{"v6 ESP to an SA's group, first fragment", group(frame6(44, saGroup6, frag6(50, 1, spi))), RedirectGroup},
		{"v6 ESP to an SA's group, later fragment", group(frame6(44, saGroup6, frag6(50, 0x0100, bytes8))), RedirectGroup},
		{"v6 ESP to the group beside", group(frame6(50, netip.MustParseAddr("ff15::2"), spi)), PassGroup},
		{"v6 UDP to an SA's group", group(frame6(17, saGroup6, udp(9, nil))), PassGroup},
		{"v6 ping to an SA's group", group(frame6(58, saGroup6, icmp(128))), PassGroup},
		{"v6 MLD to an SA's group", group(frame6(0, saGroup6, ext(58, 0, icmp(130)))), PassGroup},
		{"v6 UDP to a policy's group", group(frame6(17, allGroup6, udp(9, nil))), RedirectGroup},
		{"v6 ping to a policy's group", group(frame6(58, allGroup6, icmp(128))), RedirectGroup},
		{"v6 fragment of ICMP to a policy's group", group(frame6(44, allGroup6, frag6(58, 0x0100, bytes8))), RedirectGroup},
		{"v6 MLD to a policy's group", group(frame6(0, allGroup6, ext(58, 0, icmp(131)))), PassGroup},
		{"v6 to this link, though a policy says so", group(frame6(89, netip.MustParseAddr("ff02::5"), bytes8)), PassGroup},
		{"v6 to this link, a solicitation", group(frame6(58, netip.MustParseAddr("ff02::1:ff00:1"), icmp(135))), PassGroup},
		{"v6 to this host, though a policy says so", group(frame6(17, netip.MustParseAddr("ff01::1"), udp(9, nil))), PassGroup},
		{"v6 to a scope that is reserved", group(frame6(17, netip.MustParseAddr("ff00::1"), udp(9, nil))), PassGroup},
		{"v6 group, half an extension", cut(frame6(60, saGroup6, ext(50, 0, spi)), 47), RedirectShort},

		{"v4 transit", frame4(6, there4, make([]byte, 20)), RedirectTransit},
		{"v4 transit, options", eth(0x0800, ip4(6, there4, 0, 8, make([]byte, 20))), RedirectTransit},
		{"v4 transit, first fragment", eth(0x0800, ip4(17, there4, 0x2000, 0, udp(9, bytes8))), RedirectTransit},
		{"v4 transit, later fragment", eth(0x0800, ip4(17, there4, 0x0003, 0, bytes8)), RedirectTransit},
		{"v4 transit ESP", frame4(50, there4, spi), RedirectTransit},
		{"v4 transit IKE", frame4(17, there4, udp(500, bytes8)), RedirectTransit},
		{"v4 transit keepalive", frame4(17, there4, udp(4500, []byte{0xff})), RedirectTransit},
		{"v4 transit, no payload", frame4(59, there4, nil), RedirectTransit},
		{"v6 transit", frame6(6, there6, make([]byte, 20)), RedirectTransit},
		{"v6 transit, extensions", frame6(0, there6, ext(43, 0, ext(17, 2, udp(9, nil)))), RedirectTransit},
		{"v6 transit fragment", frame6(44, there6, frag6(17, 1, udp(9, nil))), RedirectTransit},
		{"v6 transit ESP", frame6(50, there6, spi), RedirectTransit},
		{"v6 transit solicitation", frame6(58, there6, icmp(135)), RedirectTransit},
		{"v6 to another's link address", frame6(6, link6, make([]byte, 20)), RedirectTransit},
		{"v6 fragment to another's link address", frame6(44, link6, frag6(17, 1, bytes8)), RedirectTransit},
		{"v6 ESP to another's link address", frame6(50, link6, spi), RedirectTransit},
		{"v6 after link-local", frame6(58, netip.MustParseAddr("fec0::1"), icmp(135)), RedirectTransit},

		{"router solicitation", frame6(58, here6, icmp(133)), PassND},
		{"router advertisement", frame6(58, link6, icmp(134)), PassND},
		{"neighbour solicitation", frame6(58, here6, icmp(135)), PassND},
		{"neighbour advertisement", frame6(58, link6, icmp(136)), PassND},
		{"redirect", frame6(58, link6, icmp(137)), PassND},
		{"MLD query, hop-by-hop", frame6(0, link6, ext(58, 0, icmp(130))), PassND},
		{"MLD report", frame6(58, link6, icmp(131)), PassND},
		{"MLD done", frame6(58, link6, icmp(132)), PassND},
		{"MLDv2 report", frame6(58, here6, icmp(143)), PassND},
		{"echo request", frame6(58, here6, icmp(128)), PassLocal},
		{"echo request to another's link address", frame6(58, link6, icmp(128)), RedirectTransit},
		{"inverse discovery is not ours", frame6(58, here6, icmp(141)), PassLocal},

		{"v4 ESP", frame4(50, here4, spi), RedirectESP},
		{"v4 ESP, options", eth(0x0800, ip4(50, here4, 0, 4, spi)), RedirectESP},
		{"v4 ESP, first fragment", eth(0x0800, ip4(50, here4, 0x2000, 0, spi)), RedirectESP},
		{"v4 ESP, later fragment", eth(0x0800, ip4(50, here4, 0x00b9, 0, bytes8)), RedirectESP},
		{"v4 ESP, nothing in it", frame4(50, here4, nil), RedirectESP},
		{"v4 AH", frame4(51, here4, make([]byte, 24)), RedirectAH},
		{"v4 AH, later fragment", eth(0x0800, ip4(51, here4, 0x00b9, 0, bytes8)), RedirectAH},
		{"v6 ESP", frame6(50, here6, spi), RedirectESP},
		{"v6 ESP, destination options", frame6(60, here6, ext(50, 1, spi)), RedirectESP},
		{"v6 ESP, first fragment", frame6(44, here6, frag6(50, 1, spi)), RedirectESP},
		{"v6 ESP, later fragment", frame6(44, here6, frag6(50, 0x0100, bytes8)), RedirectESP},
		{"v6 AH", frame6(51, here6, make([]byte, 24)), RedirectAH},
		{"v6 AH, hop-by-hop", frame6(0, here6, ext(51, 0, make([]byte, 24))), RedirectAH},
		{"v6 AH, later fragment", frame6(44, here6, frag6(51, 0x0100, bytes8)), RedirectAH},

		// In this order: what the first fragment is the later ones are.
		{"v4 later UDP fragment that overtook the first", eth(0x0800, ip4(17, here4, 0x2003, 0, bytes8)), PassFragment},
		{"v4 first fragment of ESP in UDP", eth(0x0800, ip4(17, here4, 0x2000, 0, udp(4500, spi))), RedirectUDPESP},
		{"v4 last fragment of ESP in UDP", eth(0x0800, ip4(17, here4, 0x0003, 0, bytes8)), RedirectUDPESP},
		{"v4 last UDP fragment of another datagram", withID(7, ip4(17, here4, 0x0003, 0, bytes8)), PassFragment},
		{"v4 first fragment of IKE", eth(0x0800, ip4(17, here4, 0x2000, 0, udp(4500, marker))), PassIKE},
		{"v4 last fragment of IKE", eth(0x0800, ip4(17, here4, 0x0003, 0, bytes8)), PassIKE},
		{"v4 first fragment of DNS", eth(0x0800, ip4(17, here4, 0x2000, 0, udp(53, spi))), PassFragment},
		{"v4 first fragment without the SPI", eth(0x0800, ip4(17, here4, 0x2000, 0, udp(4500, nil))), PassFragment},
		{"v4 don't fragment is no fragment", eth(0x0800, ip4(17, here4, 0x4000, 0, udp(4500, spi))), RedirectUDPESP},
		{"v4 TCP fragment", eth(0x0800, ip4(6, here4, 0x2003, 0, bytes8)), PassFragment},
		{"v6 later UDP fragment that overtook the first", frame6(44, here6, frag6(17, 0x0101, bytes8)), PassFragment},
		{"v6 first fragment of ESP in UDP", frame6(44, here6, frag6(17, 1, udp(4500, spi))), RedirectUDPESP},
		{"v6 last fragment of ESP in UDP", frame6(44, here6, frag6(17, 0x0100, bytes8)), RedirectUDPESP},
		{"v6 first fragment of IKE", frame6(44, here6, frag6(17, 1, udp(500, spi))), PassIKE},
		{"v6 last fragment of IKE", frame6(44, here6, frag6(17, 0x0100, bytes8)), PassIKE},
		{"v6 last fragment that looks like a header", frame6(44, here6, frag6(60, 0x0100, bytes8)), PassFragment},
		{"v6 atomic fragment is none (RFC 6946)", frame6(44, here6, frag6(17, 0, udp(500, bytes8))), PassIKE},

		{"v4 IKE", frame4(17, here4, udp(500, bytes8)), PassIKE},
		{"v4 IKE, options", eth(0x0800, ip4(17, here4, 0, 40, udp(500, bytes8))), PassIKE},
		{"v4 IKE on 4500", frame4(17, here4, udp(4500, marker)), PassIKE},
		{"v4 marker alone", frame4(17, here4, udp(4500, marker[:4])), PassIKE},
		{"v4 ESP in UDP", frame4(17, here4, udp(4500, spi)), RedirectUDPESP},
		{"v4 ESP in UDP, SPI alone", frame4(17, here4, udp(4500, spi[:4])), RedirectUDPESP},
		{"v4 ESP in UDP, options", eth(0x0800, ip4(17, here4, 0, 12, udp(4500, spi))), RedirectUDPESP},
		{"v4 keepalive", frame4(17, here4, udp(4500, []byte{0xff})), RedirectKeepalive},
		{"v4 keepalive, padded to 60", append(frame4(17, here4, udp(4500, []byte{0xff})), make([]byte, 17)...), RedirectKeepalive},
		{"v4 one other byte", frame4(17, here4, udp(4500, []byte{0xfe})), RedirectShort},
		{"v4 three bytes, padded with zeros", append(frame4(17, here4, udp(4500, []byte{0, 0, 0})), make([]byte, 15)...), RedirectShort},
		{"v4 nothing on 4500", frame4(17, here4, udp(4500, nil)), RedirectShort},
		{"v4 from 4500 is not to it", frame4(17, here4, append([]byte{0x11, 0x94, 0, 53, 0, 20, 0, 0}, spi...)), PassLocal},
		{"v6 IKE", frame6(17, here6, udp(500, bytes8)), PassIKE},
		{"v6 IKE on 4500", frame6(17, here6, udp(4500, marker)), PassIKE},
		{"v6 ESP in UDP", frame6(17, here6, udp(4500, spi)), RedirectUDPESP},
		{"v6 ESP in UDP, extensions", frame6(0, here6, ext(60, 0, ext(17, 3, udp(4500, spi)))), RedirectUDPESP},
		{"v6 keepalive", frame6(17, here6, udp(4500, []byte{0xff})), RedirectKeepalive},

		{"v4 ICMP: ESP too big", frame4(1, here4, tooBig4(ip4(50, there4, 0, 0, spi))), RedirectPMTU},
		{"v4 ICMP: ESP too big, options", frame4(1, here4, tooBig4(ip4(50, there4, 0, 8, spi))), RedirectPMTU},
		{"v4 ICMP: AH too big", frame4(1, here4, tooBig4(ip4(51, there4, 0, 0, spi))), RedirectPMTU},
		{"v4 ICMP: ESP in UDP too big", frame4(1, here4, tooBig4(ip4(17, there4, 0, 0, from4500(spi)))), RedirectPMTU},
		{"v4 ICMP: IKE too big", frame4(1, here4, tooBig4(ip4(17, there4, 0, 0, from4500(marker)))), PassLocal},
		{"v4 ICMP: UDP too big, SPI not quoted", frame4(1, here4, tooBig4(ip4(17, there4, 0, 0, from4500(nil)))), PassLocal},
		{"v4 ICMP: DNS too big", frame4(1, here4, tooBig4(ip4(17, there4, 0, 0, udp(53, spi)))), PassLocal},
		{"v4 ICMP: TCP too big", frame4(1, here4, tooBig4(ip4(6, there4, 0, 0, make([]byte, 20)))), PassLocal},
		{"v4 ICMP: too big, no quote", frame4(1, here4, tooBig4(nil)), PassLocal},
		{"v4 ICMP: ESP's port unreachable", frame4(1, here4, append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, ip4(50, there4, 0, 0, spi)...)), PassLocal},
		{"v4 ICMP: another's ESP too big", frame4(1, there4, tooBig4(ip4(50, there4, 0, 0, spi))), RedirectTransit},
		{"v6 ICMP: ESP too big", frame6(58, here6, append(icmp(2), ip6(50, there6, spi)...)), RedirectPMTU},
		{"v6 ICMP: fragment of ESP too big", frame6(58, here6, append(icmp(2), ip6(44, there6, frag6(50, 1, spi))...)), RedirectPMTU},
		{"v6 ICMP: ESP in UDP too big", frame6(58, here6, append(icmp(2), ip6(17, there6, from4500(spi))...)), RedirectPMTU},
		{"v6 ICMP: IKE too big", frame6(58, here6, append(icmp(2), ip6(17, there6, from4500(marker))...)), PassLocal},
		{"v6 ICMP: half a fragment header", frame6(58, here6, append(icmp(2), ip6(44, there6, bytes8[:4])...)), PassLocal},
		{"v6 ICMP: ESP's time exceeded", frame6(58, here6, append(icmp(3), ip6(50, there6, spi)...)), PassLocal},

		{"v4 ssh", frame4(6, here4, make([]byte, 20)), PassLocal},
		{"v4 ping", frame4(1, here4, icmp(8)), PassLocal},
		{"v4 DNS", frame4(17, here4, udp(53, bytes8)), PassLocal},
		{"v6 ssh", frame6(6, here6, make([]byte, 20)), PassLocal},
		{"v6 DNS", frame6(17, here6, udp(53, bytes8)), PassLocal},
		{"v6 seven extensions", frame6(60, here6, ext(60, 0, ext(60, 0, ext(60, 0, ext(60, 0, ext(60, 0, ext(60, 0, ext(50, 0, spi)))))))), PassLocal},

		{"v4 type, no header", eth(0x0800, nil), RedirectShort},
		{"v4 19 bytes", cut(frame4(50, here4, spi), 19), RedirectShort},
		{"v4 version 6", eth(0x0800, ip6(17, here6, udp(9, nil))), RedirectShort},
		{"v4 header length 16", eth(0x0800, append([]byte{0x44}, make([]byte, 40)...)), RedirectShort},
		{"v4 UDP without its header", cut(frame4(17, here4, udp(500, nil)), 27), RedirectShort},
		{"v4 4500 without the SPI that its length promises", cut(frame4(17, here4, udp(4500, spi)), 31), RedirectShort},
		{"v4 keepalive without its byte", cut(frame4(17, here4, udp(4500, []byte{0xff})), 28), RedirectShort},
		{"v6 type, no header", eth(0x86dd, nil), RedirectShort},
		{"v6 39 bytes", cut(frame6(50, here6, spi), 39), RedirectShort},
		{"v6 version 4", eth(0x86dd, append([]byte{0x45}, make([]byte, 60)...)), RedirectShort},
		{"v6 half an extension", cut(frame6(60, here6, ext(17, 0, udp(9, nil))), 47), RedirectShort},
		{"v6 extension that leaves the packet", frame6(60, here6, append([]byte{17, 255}, make([]byte, 30)...)), RedirectShort},
		{"v6 half an ICMP header", cut(frame6(58, here6, icmp(135)), 43), RedirectShort},
	}
)

// TestSteer is the table of what goes to the sockets and what to the kernel.
func TestSteer(t *testing.T) {
	t.Parallel()
	m := newMachine(t, SteeringOptions{}, true)
	for _, c := range cases {
		action, v := m.run(t, c.packet)
		want := uint32(actionPass)
		if redirects(c.want) {
			want = actionRedirect
		}
		if v != c.want || action != want {
			t.Errorf("%s: action %d, %s; want %d, %s", c.name, action, v, want, c.want)
		}
	}
}

// TestSteerNoSocket: without a socket on the queue, everything goes to the
// kernel, or what was meant for a socket is dropped.
func TestSteerNoSocket(t *testing.T) {
	t.Parallel()
	for _, o := range []SteeringOptions{{}, {DropUnbound: true}} {
		m := newMachine(t, o, false)
		unbound := uint32(actionPass)
		if o.DropUnbound {
			unbound = actionDrop
		}
		for _, c := range cases {
			action, v := m.run(t, c.packet)
			want, wantAction := c.want, uint32(actionPass)
			if redirects(c.want) {
				want, wantAction = NoSocket, unbound
			}
			if v != want || action != wantAction {
				t.Errorf("%+v: %s: action %d, %s; want %d, %s", o, c.name, action, v, wantAction, want)
			}
		}
	}
}

// TestSteerGarbage: whatever the packet, the program decides once, and does
// what it counted.
func TestSteerGarbage(t *testing.T) {
	t.Parallel()
	for _, o := range []SteeringOptions{{}, {TestPort: testPort}} {
		m := newMachine(t, o, true)
		rapid.Check(t, func(rt *rapid.T) {
			p := append([]byte(nil), cases[rapid.IntRange(0, len(cases)-1).Draw(rt, "case")].packet...)
			p = p[:rapid.IntRange(14, len(p)).Draw(rt, "length")]
			for range rapid.IntRange(0, 3).Draw(rt, "bytes") {
				p[rapid.IntRange(0, len(p)-1).Draw(rt, "at")] = rapid.Byte().Draw(rt, "byte")
			}
			action, v := m.run(t, p)
			if v >= NumVerdicts || v == NoSocket || redirects(v) != (action == actionRedirect) || !redirects(v) && action != actionPass {
				rt.Errorf("% x: action %d, %s", p, action, v)
			}
		})
	}
}

// TestGenerator: a traffic generator's port takes its test traffic only.
func TestGenerator(t *testing.T) {
	t.Parallel()
	m := newMachine(t, SteeringOptions{TestPort: testPort}, true)
	for _, c := range []struct {
		name   string
		packet []byte
		want   Verdict
	}{
		{"v4 to the port", frame4(17, there4, udp(testPort, bytes8)), RedirectTest},
		{"v4 to the port of this host", frame4(17, here4, udp(testPort, bytes8)), RedirectTest},
		{"v6 to the port", frame6(17, there6, udp(testPort, bytes8)), RedirectTest},
		{"the other byte order", frame4(17, there4, udp(testPort<<8&0xff00|testPort>>8, bytes8)), PassOther},
		{"v4 to another port", frame4(17, there4, udp(testPort+1, bytes8)), PassOther},
		{"v6 to another port", frame6(17, there6, udp(testPort+1, bytes8)), PassOther},
		{"v4 TCP", frame4(6, there4, udp(testPort, make([]byte, 12))), PassOther},
		{"v6 TCP", frame6(6, there6, udp(testPort, make([]byte, 12))), PassOther},
		{"v4 ESP", frame4(50, there4, spi), PassOther},
		{"v4 options", eth(0x0800, ip4(17, there4, 0, 4, udp(testPort, nil))), PassOther},
		{"v4 fragment", eth(0x0800, ip4(17, there4, 0x2000, 0, udp(testPort, bytes8))), PassOther},
		{"v4 short", cut(frame4(17, there4, udp(testPort, nil)), 27), PassOther},
		{"v6 short", cut(frame6(17, there6, udp(testPort, nil)), 47), PassOther},
		{"ARP", eth(0x0806, make([]byte, 28)), PassOther},
	} {
		action, v := m.run(t, c.packet)
		want := uint32(actionPass)
		if redirects(c.want) {
			want = actionRedirect
		}
		if v != c.want || action != want {
			t.Errorf("%s: action %d, %s; want %d, %s", c.name, action, v, want, c.want)
		}
	}
}
