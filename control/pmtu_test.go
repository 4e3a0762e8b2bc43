package control

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"spigot/internal/fib"
	"spigot/sad"
)

// tunnelled is a gateway with one outbound SA, SPI 0x1000, that has sent 5,000
// packets.
func tunnelled(t *testing.T, edit ...func(*sad.Params)) (*gateway, *sad.Outbound) {
	t.Helper()
	g := newGateway(t)
	g.see()
	src, dst := "192.0.2.1", "192.0.2.2"
	p := sa(0x1000, src, dst, edit...)
	g.load(t, p)
	out := g.db.FindOutbound(0x1000, p.Dst, 50)
	if out == nil || !out.Advance(5000) {
		t.Fatal("no SA")
	}
	return g, out
}

func over6(p *sad.Params) { p.Src, p.Dst = addr("2001:db8::1"), addr("2001:db8::2") }

func inUDP(p *sad.Params) {
	p.Encap = sad.Encap{Type: sad.EncapUDP, SrcPort: 4500, DstPort: 4501}
}

// quote is the start of a packet of size bytes under SPI 0x1000, number seq.
func quote(p func(*sad.Params), size int, seq uint32) []byte {
	q := make([]byte, 20, 100)
	q[0], q[9] = 0x45, 50
	binary.BigEndian.PutUint16(q[2:], uint16(size))
	copy(q[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	var params sad.Params
	p(&params)
	if !params.Dst.IsZero() {
		q = make([]byte, 40, 100)
		q[0], q[6] = 0x60, 50
		binary.BigEndian.PutUint16(q[4:], uint16(size-40))
		params.Src.Put16(q[8:])
		params.Dst.Put16(q[24:])
	}
	if params.Encap.Type != 0 {
		q[9] = 17
		q = append(q, 0x11, 0x94, 0x11, 0x95, 0, 0, 0, 0)
	}
	q = append(q, 0, 0, 0x10, 0)
	return append(binary.BigEndian.AppendUint32(q, seq), 0xee, 0xee, 0xee, 0xee)
}

// tooBig is the ICMP error about q from a router.
func tooBig(t *testing.T, q []byte, mtu int) []byte {
	t.Helper()
	if q[0]>>4 == 4 {
		ip := ip4("198.51.100.7", "192.0.2.1", layers.IPProtocolICMPv4)
		m := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: uint16(mtu)}
		return build(t, ip, m, gopacket.Payload(q))
	}
	ip := ip6("2001:db8:7::7", "2001:db8::1", layers.IPProtocolICMPv6)
	m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(2, 0)}
	if err := m.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	return build(t, ip, m, gopacket.Payload(append(binary.BigEndian.AppendUint32(nil, uint32(mtu)), q...)))
}

func (g *gateway) report(packet []byte, now time.Time) {
	p := &fib.Punt{Kind: fib.PuntPMTU, Port: 1}
	p.Len = uint16(copy(p.Data[:], packet))
	g.Do(func() { g.punt(0, p, now) })
}

// What a router may say of a path, and what is believed of it (RFC 4301, section
// 8.2.1; RFC 1191; RFC 8201). A want of 65535 is: nothing.
func TestPathMTUFromICMP(t *testing.T) {
	plain := func(*sad.Params) {}
	const nothing = 65535
	for _, r := range []struct {
		name      string
		sa        func(*sad.Params)
		size, mtu int
		seq       uint32
		want      int
		fragments bool
	}{
		{"the last packet", plain, 1500, 1400, 5000, 1400, false},
		{"the first packet", plain, 1500, 1400, 1, 1400, false},
		{"one that was not sent", plain, 1500, 1400, 5001, nothing, false},
		{"number 0", plain, 1500, 1400, 0, nothing, false},
		{"one far off", plain, 1500, 1400, 1 << 31, nothing, false},
		{"it did fit", plain, 1400, 1400, 5000, nothing, false},
		{"the least", plain, 1500, 576, 5000, 576, false},
		{"less than the least", plain, 1500, 575, 5000, 576, true},
		{"68", plain, 1500, 68, 5000, 576, true},
		{"an old router, which does not say", plain, 1500, 0, 5000, 1492, false},
		{"the same for a packet of 1006", plain, 1006, 0, 5000, 576, true},
		{"ESP in UDP", inUDP, 1500, 1400, 5000, 1400, false},
		{"IPv6", over6, 1500, 1400, 5000, 1400, false},
		{"IPv6, the least", over6, 1500, 1280, 5000, 1280, false},
		{"IPv6, 1279", over6, 1500, 1279, 5000, nothing, false},
		{"IPv6, 68", over6, 1500, 68, 5000, nothing, false},
		{"IPv6, 0", over6, 1500, 0, 5000, nothing, false},
		{"IPv6, 2^32-1", over6, 1500, 1<<32 - 1, 5000, nothing, false},
	} {
		g, out := tunnelled(t, r.sa)
		g.report(tooBig(t, quote(r.sa, r.size, r.seq), r.mtu), time.Now())
		if out.PathMTU() != r.want || out.PathFragments() != r.fragments {
			t.Errorf("%s: %d, fragments %t; want %d, %t", r.name, out.PathMTU(), out.PathFragments(), r.want, r.fragments)
		}
		lowered := uint64(1)
		if r.want == nothing {
			lowered = 0
		}
		if g.stats.PathsLowered != lowered || g.stats.PathsRefused != 1-lowered {
			t.Errorf("%s: counted %+v", r.name, g.stats)
		}
		for _, info := range g.reportSAs() {
			if want := r.want % nothing; info.PathMTU != want {
				t.Errorf("%s: reported %d", r.name, info.PathMTU)
			}
		}
	}
}

// Forged and broken messages: hostile input 9. Each is one that is believed, with
// one thing changed.
func TestForgedPathMTU(t *testing.T) {
	plain := func(*sad.Params) {}
	good := func() []byte { return tooBig(t, quote(plain, 1500, 5000), 1400) }
	with := func(at int, b ...byte) []byte {
		q := quote(plain, 1500, 5000)
		copy(q[at:], b)
		return tooBig(t, q, 1400)
	}
	raw := func(at int, b ...byte) []byte {
		p := good()
		copy(p[at:], b)
		return p
	}
	rows := map[string][]byte{
		"unknown SPI":         with(20, 0, 0, 0x20, 0),
		"another destination": with(16, 192, 0, 2, 3),
		"another source":      with(12, 192, 0, 2, 9),
		"AH":                  with(9, 51),
		"ESP in UDP":          with(9, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0x11, 0x94, 0x11, 0x95),
		"TCP":                 with(9, 6),
		"a later fragment":    with(6, 0, 5),
		"wrong checksum":      raw(22, 1, 1),
		"port unreachable":    raw(21, 3),
		"not IPv4":            with(0, 0x65),
		"IPv6 in it":          with(0, 0x60),
	}
	for n := 1; n < 28; n++ {
		rows[fmt.Sprintf("%d bytes quoted", n)] = tooBig(t, quote(plain, 1500, 5000)[:n], 1400)
	}
	for name, packet := range rows {
		g, out := tunnelled(t)
		g.report(packet, time.Now())
		if out.PathKnown() || g.stats.PathsRefused != 1 {
			t.Errorf("%s: path MTU %d, %+v", name, out.PathMTU(), g.stats)
		}
	}
	g, out := tunnelled(t)
	g.report(nil, time.Now())
	g.report(good()[:20], time.Now())
	if out.PathKnown() || g.stats.PathsRefused != 2 {
		t.Errorf("%+v", g.stats)
	}
	if g.report(good(), time.Now()); out.PathMTU() != 1400 {
		t.Error("the good one is not believed")
	}
	g, out = tunnelled(t, inUDP)
	q := quote(inUDP, 1500, 5000)
	q[21]++
	if g.report(tooBig(t, q, 1400), time.Now()); out.PathKnown() {
		t.Error("wrong ports are believed")
	}
}

// A path MTU only goes down, and is forgotten after ten minutes.
func TestPathMTUAges(t *testing.T) {
	plain := func(*sad.Params) {}
	g, out := tunnelled(t)
	start := time.Now()
	say := func(mtu int, at time.Duration) {
		g.report(tooBig(t, quote(plain, 1500, 5000), mtu), start.Add(at))
	}
	after := func(d time.Duration, want int) {
		t.Helper()
		g.Do(func() { g.chores(start.Add(d)) })
		if out.PathMTU() != want {
			t.Errorf("after %v: %d, want %d", d, out.PathMTU(), want)
		}
	}
	say(1300, 0)
	say(1400, time.Minute)
	say(1300, time.Minute)
	after(time.Minute, 1300)
	say(300, 2*time.Minute)
	say(576, 3*time.Minute)
	if after(11*time.Minute, 576); !out.PathFragments() {
		t.Error("routers may not fragment any more")
	}
	after(12*time.Minute, 65535)
	if g.stats.PathsLowered != 2 || g.stats.PathsRefused != 3 || g.stats.PathsRaised != 1 || out.PathFragments() {
		t.Errorf("%+v", g.stats)
	}
	say(1200, 12*time.Minute)
	if g.load(t); len(g.paths) != 0 {
		t.Errorf("%d paths are kept of SAs that have left", len(g.paths))
	}
	after(30*time.Minute, 1200) // gone, and nobody minds
	if g.stats.PathsRaised != 1 {
		t.Errorf("%+v", g.stats)
	}
}
