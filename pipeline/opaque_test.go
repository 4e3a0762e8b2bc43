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

// separated gives l what RFC 4301, section 7.2, has: from a to b an SA for UDP to
// port 2000, and one for fragments of UDP and TCP that show no ports. The SPI of
// the latter is that of the tunnel fragments.
func (l *lone) separated(inside, outside netip.Prefix) {
	l.t.Helper()
	ported := port(selector(inside, outside), 2000)
	opaque := ported
	opaque.SrcPort, opaque.DstPort = flow.OpaquePort, flow.OpaquePort
	tcp := opaque
	tcp.Proto = 6
	for i, sels := range [][]flow.Selector{{ported}, {opaque, tcp}} {
		tn := []tunnel{aes128gcm, fragments}[i]
		p := tn.params(true)
		p.Reqid = uint32(20 + i)
		if l.side == 'a' {
			out, err := sad.NewOutbound(p)
			if err == nil {
				err = l.db.AddOutbound(out)
			}
			for k := 0; k < len(sels) && err == nil; k++ {
				err = l.db.Bind(l.addPolicy(spd.Policy{Dir: spd.Out, Sel: sels[k], Action: spd.Protect, Template: naming(&out.SA)}), out)
			}
			if err != nil {
				l.t.Fatal(err)
			}
			continue
		}
		p.Selectors = sels
		in, err := sad.NewInbound(p)
		if err == nil {
			err = l.db.AddInbound(in)
		}
		if err != nil {
			l.t.Fatal(err)
		}
		for _, sel := range sels {
			l.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Protect, Template: naming(&in.SA)})
		}
	}
}

// fragments is the tunnel for what shows no ports.
var fragments = tunnel{spi: 0x2000, enc: "aes-gcm-16", encLen: 20, window: 64}

// bySA checks that frame leaves by the SA with SPI spi, and returns what leaves.
func (l *lone) bySA(what string, frame []byte, spi uint32) []byte {
	l.t.Helper()
	got := l.outOf(frame)
	if got == nil {
		l.t.Fatalf("%s: %v", what, l.drops())
	}
	if s := binary.BigEndian.Uint32(got[14+20:]); s != spi {
		l.t.Errorf("%s: left by SA %#x, want %#x", what, s, spi)
	}
	return got
}

// Fragments behind the first go by an SA of their own, whose ports are OPAQUE
// (RFC 4301, section 7.2), in whatever order they come; the first one and whole
// datagrams by that of their port.
func TestFragmentsGoByTheOpaqueSA(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		a, b := newLone(t, 'a'), newLone(t, 'b')
		here, there, inside, outside := hostA4, hostB4, netA4, netB4
		if v6 {
			here, there, inside, outside = hostA6, hostB6, netA6, netB6
		}
		a.separated(inside, outside)
		b.separated(inside, outside)
		to := func(id, n uint16) [2][]byte { return pieces(here, there, id, n) }
		for _, step := range []struct {
			what  string
			frame []byte
			spi   uint32
		}{
			{"the first", to(1, 2000)[0], aes128gcm.spi},
			{"the second", to(1, 2000)[1], fragments.spi},
			{"a second before its first", to(2, 2000)[1], fragments.spi},
			{"a first behind its second", to(2, 2000)[0], aes128gcm.spi},
			{"a second of another port", to(3, 3000)[1], fragments.spi},
		} {
			if b.into(a.bySA(step.what, step.frame, step.spi)) == nil {
				t.Errorf("v6 %t, %s: %v", v6, step.what, b.drops())
			}
		}
		a.drop("the first of another port", a.outOf, to(4, 3000)[0], counter.NoPolicy)
	}
}

// An SA for fragments carries nothing else, and that of a port fragments only
// with their first one; what could overwrite flags of TCP gets by none.
func TestOpaqueSACarriesFragmentsOnly(t *testing.T) {
	b := newLone(t, 'b')
	b.separated(netA4, netB4)
	ported, opaque := newLone(t, 'a'), newLone(t, 'a') // which seal whatever they get
	ported.protect(aes128gcm)
	opaque.protect(fragments)
	whole := udp4(hostA4, hostB4, 64, 100)
	binary.BigEndian.PutUint16(whole[34+2:], 2000)
	b.drop("a datagram", b.into, opaque.outOf(whole), counter.SelectorMismatch)
	b.drop("a first fragment", b.into, opaque.outOf(pieces(hostA4, hostB4, 1, 2000)[0]), counter.SelectorMismatch)
	b.drop("a second without its first, by the port's SA", b.into, ported.outOf(pieces(hostA4, hostB4, 2, 2000)[1]), counter.Fragment)
	for k, frame := range pieces(hostA4, hostB4, 3, 2000) {
		if b.into(ported.outOf(frame)) == nil {
			t.Errorf("fragment %d by the port's SA: %v", k, b.drops())
		}
	}
	at := func(proto, offset byte) []byte { // in units of eight bytes
		return fixSum4(change(change(pieces(hostA4, hostB4, 5, 2000)[1], 14+6, 0, offset), 14+9, proto))
	}
	b.drop("TCP's flags", b.into, opaque.outOf(at(6, 1)), counter.Fragment)
	b.drop("a protocol that it is not for", b.into, opaque.outOf(at(132, 2)), counter.Fragment)
	for _, frame := range [][]byte{at(6, 2), at(17, 1)} {
		if b.into(opaque.outOf(frame)) == nil {
			t.Errorf("%x: %v", frame[:34], b.drops())
		}
	}
}

func TestOpaqueFragmentsAllocateNothing(t *testing.T) {
	a := newLone(t, 'a')
	a.separated(netA4, netB4)
	frames := pieces(hostA4, hostB4, 1, 2000)
	if n := testing.AllocsPerRun(100, func() {
		a.host.Inject(frames[0])
		a.host.Inject(frames[1])
		a.w.Turn()
	}); n > 2 { // the tap's copies
		t.Errorf("%v allocations", n)
	}
	a.wire.Take()
}
