package pipeline_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// TestEachFlowHasItsSA: of a policy that takes its SAs' selectors from packets,
// two flows ask for two SAs, and each packet is sealed by the SA of its own.
func TestEachFlowHasItsSA(t *testing.T) {
	other := netip.MustParseAddr("10.2.0.11")
	for _, row := range []struct {
		name string
		pfp  spd.PFP
		asks int // of one, another destination, one again
	}{
		{"all", spd.PFPAll, 2},
		{"the destination", spd.PFPDst, 2},
		{"the source, which is one", spd.PFPSrc, 1},
	} {
		l := newLone(t, 'a')
		pol := spd.Policy{Dir: spd.Out, Sel: selector(netA4, netB4), Action: spd.Protect,
			Template: templateOf(addr(gwA4), addr(gwB4)), PFP: row.pfp}
		pol.ID = l.addPolicy(pol)
		var asked []flow.Tuple
		for _, dst := range []netip.Addr{hostB4, other, hostB4} {
			if l.outOf(udp4(hostA4, dst, 64, 100)) != nil {
				t.Errorf("%s: a packet to %v left without an SA", row.name, dst)
			}
			var req [4]spd.AcquireRequest
			for _, r := range req[:l.cfg.Acquires.Pop(req[:])] {
				asked = append(asked, pol.FlowOf(&r.Flow))
			}
		}
		if len(asked) != row.asks {
			t.Errorf("%s: %d acquires, want %d", row.name, len(asked), row.asks)
		}
		if n := l.values().Drops[counter.NoSA]; n != 3 {
			t.Errorf("%s: %d packets without an SA, want 3", row.name, n)
		}
		for i, f := range asked {
			p := aes128gcm.params(true)
			p.SPI += uint32(i)
			out, err := sad.NewOutbound(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.db.AddOutbound(out); err != nil {
				t.Fatal(err)
			}
			if err := l.db.BindFlow(pol.ID, f, out); err != nil {
				t.Fatal(err)
			}
		}
		for i, dst := range []netip.Addr{hostB4, other, hostB4, other} {
			want := aes128gcm.spi + uint32(i%2*(row.asks-1))
			frame := l.outOf(udp4(hostA4, dst, 64, 100))
			if frame == nil {
				t.Fatalf("%s: a packet to %v is lost", row.name, dst)
			}
			if got := binary.BigEndian.Uint32(frame[34:]); got != want {
				t.Errorf("%s: to %v by SPI %#x, want %#x", row.name, dst, got, want)
			}
		}
	}
}

// TestFragmentsGoByTheirDatagramsSA: later fragments, which have no ports, follow
// the first one of their datagram.
func TestFragmentsGoByTheirDatagramsSA(t *testing.T) {
	l := newLone(t, 'a')
	id := l.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netB4), Action: spd.Protect,
		Template: templateOf(addr(gwA4), addr(gwB4)), PFP: spd.PFPProto | spd.PFPPorts})
	out, err := sad.NewOutbound(aes128gcm.params(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.db.AddOutbound(out); err != nil {
		t.Fatal(err)
	}
	frames := pieces(hostA4, hostB4, 1, 3000)
	first := binary.BigEndian.Uint16(frames[0][34:])
	if err := l.db.BindFlow(id, flow.Tuple{Proto: 17, SrcPort: first, DstPort: 3000}, out); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if l.outOf(f) == nil {
			t.Errorf("fragment %d is lost: %v", i, l.drops())
		}
	}
	l.drop("of another flow", l.outOf, pieces(hostA4, hostB4, 2, 3001)[0], counter.NoSA)
}

// TestAScanLeavesRoomForOthers: the acquires of many flows fill half of the ring
// at the most.
func TestAScanLeavesRoomForOthers(t *testing.T) {
	l := newLone(t, 'a')
	l.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netB4), Action: spd.Protect,
		Template: templateOf(addr(gwA4), addr(gwB4)), PFP: spd.PFPDst})
	other := l.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA6, netB6), Action: spd.Protect,
		Template: templateOf(addr(gwA4), addr(gwB4))})
	for i := range 4 * l.cfg.Acquires.Cap() {
		l.outOf(udp4(hostA4, netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), 64, 100))
	}
	l.outOf(udp6(hostA6, hostB6, 64, 100))
	got := make([]spd.AcquireRequest, l.cfg.Acquires.Cap())
	n := l.cfg.Acquires.Pop(got)
	if n != len(got)/2+1 || got[n-1].Policy != other {
		t.Errorf("%d of %d places are taken, the last by policy %d; want half, and one by policy %d", n, len(got), got[n-1].Policy, other)
	}
}

// TestPacketsOfFlowsDoNotAllocate is the worst case of a protect policy: no two
// packets of a burst have one SA.
func TestPacketsOfFlowsDoNotAllocate(t *testing.T) {
	l := newLone(t, 'a')
	pol := spd.Policy{Dir: spd.Out, Sel: selector(netA4, netB4), Action: spd.Protect,
		Template: templateOf(addr(gwA4), addr(gwB4)), PFP: spd.PFPDst}
	pol.ID = l.addPolicy(pol)
	var frames [][]byte
	for i := range byte(16) {
		dst := netip.AddrFrom4([4]byte{10, 2, 0, i + 1})
		p := aes128gcm.params(true)
		p.SPI += uint32(i)
		out, err := sad.NewOutbound(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.db.AddOutbound(out); err != nil {
			t.Fatal(err)
		}
		if err := l.db.BindFlow(pol.ID, flow.Tuple{Dst: addr(dst)}, out); err != nil {
			t.Fatal(err)
		}
		frames = append(frames, udp4(hostA4, dst, 64, 100))
	}
	n := testing.AllocsPerRun(10, func() { // the wire has room for that
		for _, f := range frames {
			l.host.Inject(f)
		}
		l.w.Turn()
	})
	if n != 0 {
		t.Errorf("%v allocations a burst", n)
	}
	if got := len(l.wire.Take()); got != 11*len(frames) { // one run is to warm up
		t.Errorf("%d packets left, want %d", got, 11*len(frames))
	}
}
