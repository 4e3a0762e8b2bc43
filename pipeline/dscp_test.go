package pipeline_test

import (
	"encoding/binary"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/sad"
	"spigot/spd"
)

// marked gives the packet in frame a DSCP, with ECT(0) beside it.
func marked(frame []byte, dscp uint8) []byte {
	wire.SetTOS(frame[14:], dscp<<2|2)
	return frame
}

// classed is a gateway with a policy for both families, and SAs for some codepoints.
type classed struct {
	*lone
	pols [2]uint32
}

func newClassed(t *testing.T, level spd.Level) *classed {
	t.Helper()
	c := &classed{lone: newLone(t, 'a')}
	for i, sel := range []spd.Policy{{Sel: selector(netA4, netB4)}, {Sel: selector(netA6, netB6)}} {
		sel.Dir, sel.Action, sel.Level, sel.Template = spd.Out, spd.Protect, level, templateOf(addr(gwA4), addr(gwB4))
		c.pols[i] = c.addPolicy(sel)
	}
	return c
}

// add adds an SA for these codepoints, or for all, that is in no use yet.
func (c *classed) add(spi uint32, dscps ...uint8) *sad.Outbound {
	c.t.Helper()
	p := aes128gcm.params(true)
	p.SPI, p.ForDSCP = spi, sad.CodepointsOf(dscps...)
	out, err := sad.NewOutbound(p)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.db.AddOutbound(out); err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *classed) bind(rest *sad.Outbound, own ...*sad.Outbound) {
	c.t.Helper()
	for _, pol := range c.pols {
		if err := c.db.BindSeveral(pol, rest, own); err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestEachCodepointHasItsSA: packets of one policy leave by the SA that is for
// their DSCP, IPv4 and IPv6, each SA with sequence numbers of its own, also those
// of one burst; and a class whose SA is replaced goes on by the new one.
func TestEachCodepointHasItsSA(t *testing.T) {
	c := newClassed(t, spd.Require)
	rest, voice, video := c.add(0x2000), c.add(0x2001, 46), c.add(0x2002, 34, 36)
	seq := map[uint32]uint32{}
	leaves := func(step string, spis map[uint8]uint32) {
		t.Helper()
		var want []uint32
		for _, dscp := range []uint8{0, 46, 34, 46, 46, 36, 63} {
			for _, frame := range [][]byte{udp4(hostA4, hostB4, 64, 100), udp6(hostA6, hostB6, 64, 100)} {
				if !c.host.Inject(marked(frame, dscp)) {
					t.Fatal("tap is full")
				}
				if spis[dscp] != 0 {
					want = append(want, spis[dscp])
				}
			}
		}
		c.w.Turn()
		got := c.wire.Take()
		if len(got) != len(want) {
			t.Fatalf("%s: %d packets left, want %d: %v", step, len(got), len(want), c.drops())
		}
		for i, frame := range got {
			spi, n := binary.BigEndian.Uint32(frame[34:]), binary.BigEndian.Uint32(frame[38:])
			if seq[spi]++; spi != want[i] || n != seq[spi] {
				t.Errorf("%s: packet %d left by SPI %#x as number %d, want %#x and %d", step, i, spi, n, want[i], seq[want[i]])
			}
		}
	}
	c.bind(rest, voice, video)
	all := map[uint8]uint32{0: 0x2000, 46: 0x2001, 34: 0x2002, 36: 0x2002, 63: 0x2000}
	leaves("two classes", all)
	leaves("again", all)

	fresh := c.add(0x2003, 46)
	c.bind(rest, fresh, voice, video)
	leaves("one is rekeyed", map[uint8]uint32{0: 0x2000, 46: 0x2003, 34: 0x2002, 36: 0x2002, 63: 0x2000})
	if err := c.db.Remove(fresh.SPI, fresh.Dst, fresh.Proto); err != nil {
		t.Fatal(err)
	}
	leaves("the new one is gone", map[uint8]uint32{0: 0x2000, 46: 0x2000, 34: 0x2002, 36: 0x2002, 63: 0x2000})

	c.bind(nil, voice)
	before := c.values()
	leaves("none for the rest", map[uint8]uint32{46: 0x2001})
	if n := c.values().Drops[counter.NoSA] - before.Drops[counter.NoSA]; n != 8 {
		t.Errorf("%d packets without an SA, want 8", n)
	}
	if n := c.cfg.Acquires.Len(); n != 2 {
		t.Errorf("%d acquires, want one for each policy", n)
	}
	frame := marked(udp4(hostA4, hostB4, 64, 100), 46)
	if n := testing.AllocsPerRun(10, func() {
		c.host.Inject(frame)
		c.w.Turn()
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
	c.wire.Take()
}

// TestWhatHasNoClass leaves as its policy says: in clear where that uses an SA only
// if there is one.
func TestWhatHasNoClass(t *testing.T) {
	c := newClassed(t, spd.Use)
	c.bind(nil, c.add(0x2001, 46))
	for dscp, proto := range map[uint8]byte{46: 50, 0: 17, 45: 17} {
		frame := c.outOf(marked(udp4(hostA4, hostB4, 64, 100), dscp))
		if frame == nil || frame[14+9] != proto {
			t.Errorf("codepoint %d: left as %x, want protocol %d", dscp, frame, proto)
		}
	}
}

// What arrives is clamped to the path of the SA that its answers take, which are
// taken to have its codepoint.
func TestSegmentSizeOfEachClass(t *testing.T) {
	tn := aes128gcm
	tn.outer.MSS = sad.MSSPath
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(tn)
	b.protect(aes128gcm)
	c := &classed{lone: a, pols: [2]uint32{1, 3}} // those that protect has made
	voice := c.add(0x2001, 46)
	c.bind(out, voice)
	out.SetPathMTU(1400, false)
	voice.SetPathMTU(1000, false)
	for dscp, sa := range map[uint8]*sad.Outbound{0: out, 46: voice, 34: out} {
		got := mssOf(t, a.into(b.outOf(marked(syn(t, false, true, 1460, 0x12), dscp))))
		if want := sa.Geo.MaxInner(sa.PathMTU()) - 40; got != want {
			t.Errorf("codepoint %d: announced as %d, want %d", dscp, got, want)
		}
	}
}
