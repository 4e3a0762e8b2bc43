package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/pmd/memport"
	"spigot/sad"
	"spigot/spd"
)

var suites = []tunnel{
	{spi: 0x1000, enc: "aes-gcm-16", encLen: 20, window: 64},
	{spi: 0x1000, enc: "aes-gcm-16", encLen: 36, window: 1024, esn: true},
	{spi: 0x1000, enc: "chacha20-poly1305", encLen: 36, window: 64},
	{spi: 0x1000, enc: "null", integ: "hmac-sha2-256-128", authLen: 32, window: 64},
	{spi: 0x1000, enc: "aes-cbc", encLen: 16, integ: "hmac-sha2-256-128", authLen: 32, window: 64},
	{spi: 0x1000, enc: "aes-cbc", encLen: 32, integ: "hmac-sha2-256-128", authLen: 32, window: 4096, esn: true},
	{spi: 0x1000, enc: "aes-gcm-16", encLen: 36, window: 1024, esn: true, udp: true},
	{spi: 0x1000, enc: "aes-cbc", encLen: 32, integ: "hmac-sha2-384-192", authLen: 48, window: 64, udp: true},
}

// Every algorithm, every combination of inner and outer family, both ways:
// what host a sends is what host b gets, but for a TTL two lower, and what the
// wire sees is ESP.
func TestPacketsCrossTheTunnelUnchanged(t *testing.T) {
	for _, tn := range suites {
		for _, tn.outer6 = range []bool{false, true} {
			t.Run(tn.String(), func(t *testing.T) {
				a, b := newLone(t, 'a'), newLone(t, 'b')
				a.protect(tn)
				b.protect(tn)
				for size := 48; size < 1400; size += 37 {
					crosses(t, a, b, udp4(hostA4, hostB4, 64, size), udp4(hostA4, hostB4, 62, size), tn)
					crosses(t, a, b, udp6(hostA6, hostB6, 64, size), udp6(hostA6, hostB6, 62, size), tn)
					crosses(t, b, a, udp4(hostB4, hostA4, 64, size), udp4(hostB4, hostA4, 62, size), tn)
					crosses(t, b, a, udp6(hostB6, hostA6, 64, size), udp6(hostB6, hostA6, 62, size), tn)
				}
			})
		}
	}
}

func crosses(t *testing.T, from, to *lone, sent, want []byte, tn tunnel) {
	t.Helper()
	wire := from.outOf(sent)
	if wire == nil {
		t.Fatalf("%d bytes did not leave: %v", len(sent), from.drops())
	}
	proto, esp := wire[14+9], wire[14+20:]
	if tn.outer6 {
		proto, esp = wire[14+6], wire[14+40:]
	}
	if tn.udp {
		esp = inUDP(t, wire, proto)
	} else if proto != 50 {
		t.Fatalf("protocol %d on the wire", proto)
	}
	if tn.enc != "null" && bytes.Contains(esp, []byte("the quick")) {
		t.Fatal("cleartext on the wire")
	}
	got := to.into(wire)
	if got == nil {
		t.Fatalf("%d bytes did not arrive: %v", len(sent), to.drops())
	}
	if !bytes.Equal(got[14:], want[14:]) {
		t.Fatalf("arrived\n%x\nwant\n%x", got[14:], want[14:])
	}
	if !bytes.Equal(got[:6], mac(1)) || !bytes.Equal(got[6:12], mac(0xa0)) {
		t.Fatalf("Ethernet header %x", got[:14])
	}
}

// inUDP returns the ESP packet in frame, which must be a right UDP datagram.
func inUDP(t *testing.T, frame []byte, proto byte) []byte {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	udp, ok := p.TransportLayer().(*layers.UDP)
	if proto != 17 || !ok || udp.SrcPort != 4500 || udp.DstPort != 4500 || int(udp.Length) != 8+len(udp.Payload) {
		t.Fatalf("no ESP in UDP on the wire: %v", p)
	}
	if p.NetworkLayer().LayerType() == layers.LayerTypeIPv4 {
		if udp.Checksum != 0 {
			t.Fatalf("checksum %#x over IPv4: RFC 3948 wants none", udp.Checksum)
		}
		return udp.Payload
	}
	if err := udp.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	if err, res := udp.VerifyChecksum(); err != nil || !res.Valid {
		t.Fatalf("checksum over IPv6: %v %+v", err, res)
	}
	return udp.Payload
}

// drops lists what g dropped, for failure messages.
func (g *gateway) drops() map[string]uint64 {
	m := map[string]uint64{}
	v := g.values()
	for r, n := range v.Drops {
		if n > 0 {
			m[counter.Reason(r).String()] = n
		}
	}
	return m
}

// RFC 6040, section 4.2, normal mode: rows are the inner codepoint, columns the outer.
func TestCongestionMarksCrossTheTunnel(t *testing.T) {
	const drop = 0xff
	want := [4][4]byte{ // Not-ECT, ECT(1), ECT(0), CE
		{0, 0, 0, drop},
		{1, 1, 1, 3},
		{2, 1, 2, 3},
		{3, 3, 3, 3},
	}
	for inner := range byte(4) {
		for outer := range byte(4) {
			a, b := newLone(t, 'a'), newLone(t, 'b')
			a.protect(aes128gcm)
			b.protect(aes128gcm)
			f := udp4(hostA4, hostB4, 64, 100)
			f[15] = 0xb8 | inner
			wire := a.outOf(fixSum4(f))
			if wire[15] != 0xb8|inner {
				t.Fatalf("outer TOS %#x, inner %#x", wire[15], 0xb8|inner)
			}
			wire[15] = wire[15]&^3 | outer
			before := b.values()
			got := b.into(fixSum4(wire))
			if want[inner][outer] == drop {
				if got != nil {
					t.Errorf("inner %d outer %d: delivered", inner, outer)
				}
				b.onlyDrop(before, counter.BadECN)
				continue
			}
			if got == nil || got[15] != 0xb8|want[inner][outer] || sum(got[14:34]) != 0xffff {
				t.Errorf("inner %d outer %d: got %x, want ECN %d", inner, outer, got, want[inner][outer])
			}
		}
	}
}

func TestOuterHeader(t *testing.T) {
	a := newLone(t, 'a')
	a.protect(aes128gcm)
	f := udp4(hostA4, hostB4, 64, 100)
	wire := a.outOf(f)
	if wire[14+6]&0x40 == 0 {
		t.Error("DF was not copied")
	}
	if wire[14+8] != 64 {
		t.Errorf("outer TTL %d", wire[14+8])
	}
	if sum(wire[14:34]) != 0xffff {
		t.Error("outer checksum is wrong")
	}
	f[14+6] = 0
	wire = a.outOf(fixSum4(f))
	if wire[14+6]&0x40 != 0 || binary.BigEndian.Uint16(wire[14+4:]) == 0 {
		t.Errorf("without DF: flags %#x, ID %x", wire[14+6], wire[14+4:14+6])
	}
	if got := binary.BigEndian.Uint32(wire[14+20+4:]); got != 2 {
		t.Errorf("second packet has sequence number %d", got)
	}
}

// The largest packet that fits leaves; one byte more is answered with exactly
// that size.
func TestTooBigNamesTheExactMTU(t *testing.T) {
	for _, tn := range suites {
		for _, tn.outer6 = range []bool{false, true} {
			a := newLone(t, 'a')
			out, _ := a.protect(tn)
			for _, mtu := range []int{1500, 1499, 1498, 1497, 1496, 1400, 1380} {
				a.setMTU(mtu)
				fits := out.Geo.MaxInner(mtu)
				wire := a.outOf(udp4(hostA4, hostB4, 64, fits))
				if wire == nil || len(wire)-14 > mtu {
					t.Fatalf("%v: %d bytes do not fit MTU %d: %d on the wire", tn, fits, mtu, len(wire)-14)
				}
				if got := a.outOf(udp4(hostA4, hostB4, 64, fits+1)); got != nil {
					t.Fatalf("%v: %d bytes leave at MTU %d as %d", tn, fits+1, mtu, len(got)-14)
				}
				var p [1]fib.Punt
				if a.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntTooBig || int(p[0].MTU) != fits || p[0].Secured || p[0].Port != 0 {
					t.Fatalf("%v: MTU %d: punt kind %d mtu %d", tn, mtu, p[0].Kind, p[0].MTU)
				}
				if want := udp4(hostA4, hostB4, 64, fits+1)[14:]; !bytes.Equal(p[0].Data[:p[0].Len], want) {
					t.Fatal("the punt does not quote the packet as it arrived")
				}
			}
		}
	}
}

func TestTTLThatRunsOutIsPunted(t *testing.T) {
	for _, side := range []string{"out", "in"} {
		a, b := newLone(t, 'a'), newLone(t, 'b')
		a.protect(aes128gcm)
		b.protect(aes128gcm)
		g := a
		ttl := byte(1)
		if side == "in" {
			g, ttl = b, 2
		}
		wire := a.outOf(udp4(hostA4, hostB4, ttl, 100))
		if side == "out" && wire != nil {
			t.Fatal("a packet with TTL 1 left")
		}
		if side == "in" && b.into(wire) != nil {
			t.Fatal("a packet with TTL 1 was delivered")
		}
		var p [1]fib.Punt
		if g.cfg.Punts.Pop(p[:]) != 1 || p[0].Kind != fib.PuntTTL || p[0].Secured != (side == "in") {
			t.Fatalf("%s: punt %d secured %t", side, p[0].Kind, p[0].Secured)
		}
	}
}

func TestMissingSAIsAskedForOnce(t *testing.T) {
	a := newLone(t, 'a')
	levels := []struct {
		level   spd.Level
		asks    bool
		passes  bool
		dstPort uint16
	}{
		{spd.Require, true, false, 1},
		{spd.Acquire, true, true, 2},
		{spd.Use, false, true, 3},
		{spd.DontAcq, false, false, 4},
	}
	for _, l := range levels {
		sel := selector(netA4, netB4)
		sel.DstPort.Lo, sel.DstPort.Hi = l.dstPort, l.dstPort
		id := a.addPolicy(spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect, Level: l.level, Template: templateOf(addr(gwA4), addr(gwB4))})
		asked := 0
		for range 10 {
			f := udp4(hostA4, hostB4, 64, 100)
			binary.BigEndian.PutUint16(f[14+22:], l.dstPort)
			if got := a.outOf(f) != nil; got != l.passes {
				t.Errorf("level %d: passed in clear: %t", l.level, got)
			}
			var m [2]spd.AcquireRequest
			n := a.cfg.Acquires.Pop(m[:])
			asked += n
			if n > 0 && (m[0].Policy != id || m[0].Flow.Src != addr(hostA4) || m[0].Flow.DstPort != l.dstPort) {
				t.Errorf("level %d: asked for %+v", l.level, m[0])
			}
		}
		if want := map[bool]int{true: 1, false: 0}[l.asks]; asked != want {
			t.Errorf("level %d: asked %d times, want %d", l.level, asked, want)
		}
	}
}

func TestSlowPathPackets(t *testing.T) {
	a := newLone(t, 'a')
	a.protect(aes128gcm)
	inject := func(ip []byte, policy bool) {
		m := []fib.Inject{{Policy: policy, Len: uint16(len(ip))}}
		copy(m[0].Data[:], ip)
		a.cfg.Injects.Push(m)
		a.w.Turn()
	}
	inject(udp4(gwA4, hostA4, 64, 100)[14:], false)
	if got := a.host.Take(); len(got) != 1 || got[0][14+8] != 64 {
		t.Errorf("to the host: %x", got)
	}
	inject(udp4(hostA4, hostB4, 64, 100)[14:], true)
	if got := a.wire.Take(); len(got) != 1 || got[0][14+9] != 50 {
		t.Errorf("through the SPD: %x", got)
	}
	before := a.values()
	inject([]byte{1, 2, 3}, true)
	a.onlyDrop(before, counter.Runt)
}

func TestBypassLeavesAsItCame(t *testing.T) {
	a := newLone(t, 'a')
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netB4), Action: spd.Bypass})
	a.addPolicy(spd.Policy{Dir: spd.In, Sel: selector(netB4, netA4), Action: spd.Bypass})
	got := a.outOf(udp4(hostA4, hostB4, 64, 500))
	if want := udp4(hostA4, hostB4, 63, 500); got == nil || !bytes.Equal(got[14:], want[14:]) {
		t.Errorf("out: %x", got)
	}
	got = a.into(udp4(hostB4, hostA4, 64, 500))
	if want := udp4(hostB4, hostA4, 63, 500); got == nil || !bytes.Equal(got[14:], want[14:]) {
		t.Errorf("in: %x", got)
	}
}

// Short frames are padded by Ethernet; the padding is not part of the packet.
// Hosts on both sides may speak ESP with each other: the gateway holds no SA of
// theirs and judges their packets by the SPD.
func TestESPOfOthersIsTheSPDs(t *testing.T) {
	b := newLone(t, 'b')
	b.protect(aes128gcm)
	esp := fixSum4(change(udp4(hostA4, hostB4, 64, 100), 14+9, 50))
	fragment := fixSum4(change(esp, 14+6, 0x20, 0))
	for _, frame := range [][]byte{esp, fragment} {
		before := b.values()
		if got := b.into(frame); got != nil {
			t.Errorf("protected, it came in clear as %x", got)
		}
		b.onlyDrop(before, counter.InPolicyClear)
	}
	sel := selector(netA4, netB4)
	sel.Proto = 50
	b.policies[spd.In] = nil
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Bypass})
	for _, frame := range [][]byte{esp, fragment} {
		if got := b.into(frame); got == nil || !bytes.Equal(got[14+20:], frame[14+20:]) {
			t.Errorf("let through, it arrived as %x: %v", got, b.drops())
		}
	}
}

func TestEthernetPaddingIsNotSealed(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	b.protect(aes128gcm)
	f := append(udp4(hostA4, hostB4, 64, 30), make([]byte, 16)...)
	got := b.into(a.outOf(f))
	if want := udp4(hostA4, hostB4, 62, 30); !bytes.Equal(got[14:], want[14:]) {
		t.Errorf("got %x", got)
	}
}

// A replaced SA: the new one seals from the next turn on, the old one still opens.
func TestRekeyLosesNothing(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	b.protect(aes128gcm)
	inFlight := a.outOf(udp4(hostA4, hostB4, 64, 100))

	next := aes128gcm
	next.spi = 0x2000
	out, err := sad.NewOutbound(next.params(true))
	if err != nil {
		t.Fatal(err)
	}
	in, err := sad.NewInbound(next.params(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.db.AddInbound(in); err != nil {
		t.Fatal(err)
	}
	if err := a.db.AddOutbound(out); err != nil {
		t.Fatal(err)
	}
	if err := a.db.Bind(1, out); err != nil {
		t.Fatal(err)
	}
	fresh := a.outOf(udp4(hostA4, hostB4, 64, 100))
	if spi := binary.BigEndian.Uint32(fresh[34:]); spi != 0x2000 {
		t.Errorf("sealed under SPI %#x", spi)
	}
	if b.into(fresh) == nil || b.into(inFlight) == nil {
		t.Errorf("lost a packet: %v", b.drops())
	}
}

func TestZeroAllocationsAPacket(t *testing.T) {
	for _, tn := range suites {
		pool := newPool(t, 512)
		templates := [][]byte{udp4(hostA4, hostB4, 64, 100), udp6(hostA6, hostB6, 64, 1000)}
		red, err := memport.NewGenerator(memport.GeneratorOptions{Options: memport.Options{Pool: pool, MAC: mac(0xa0)}, Templates: templates})
		if err != nil {
			t.Fatal(err)
		}
		black, err := memport.NewGenerator(memport.GeneratorOptions{Options: memport.Options{Pool: pool, MAC: mac(0xa1)}})
		if err != nil {
			t.Fatal(err)
		}
		g := newGateway(t, 'a', pool, queues{red, black})
		g.protect(tn)
		g.w.Turn()
		if n := testing.AllocsPerRun(100, func() { g.w.Turn() }); n != 0 {
			t.Errorf("%v: %v allocations a turn outbound", tn, n)
		}
		if v := g.values(); v.Tx < 3000 || v.Dropped() != 0 {
			t.Errorf("%v: tx %d, drops %v", tn, v.Tx, g.drops())
		}
		g.home()
	}
}

func TestZeroAllocationsInbound(t *testing.T) {
	for _, tn := range suites {
		a := newLone(t, 'a')
		a.protect(tn)
		var sealed [][]byte
		for range 4096 {
			sealed = append(sealed, retarget(a.outOf(udp4(hostA4, hostB4, 64, 100))))
		}
		pool := newPool(t, 512)
		black, err := memport.NewGenerator(memport.GeneratorOptions{Options: memport.Options{Pool: pool, MAC: mac(0xa1)}, Templates: sealed})
		if err != nil {
			t.Fatal(err)
		}
		red, err := memport.NewGenerator(memport.GeneratorOptions{Options: memport.Options{Pool: pool, MAC: mac(0xa0)}})
		if err != nil {
			t.Fatal(err)
		}
		g := newGateway(t, 'b', pool, queues{red, black})
		g.protect(tn)
		g.w.Turn()
		if n := testing.AllocsPerRun(100, func() { g.w.Turn() }); n != 0 {
			t.Errorf("%v: %v allocations a turn inbound", tn, n)
		}
		if v := g.values(); v.Tx < 3000 || v.Dropped() != 0 {
			t.Errorf("%v: tx %d, drops %v", tn, v.Tx, g.drops())
		}
		g.home()
	}
}

// An SA that is deleted with packets in flight: they are dropped and counted,
// its key is wiped only when the worker has passed a turn.
func TestDeleteWithPacketsInFlight(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	_, in := b.protect(aes128gcm)
	sealed := a.outOf(udp4(hostA4, hostB4, 64, 100))
	reader := b.cfg.Epoch
	reader.Online()
	if err := b.db.Remove(in.SPI, in.Dst, 50); err != nil {
		t.Fatal(err)
	}
	if b.epochs.Reap() != 1 {
		t.Error("the SA was freed under a worker that may hold it")
	}
	before := b.values()
	if b.into(sealed) != nil {
		t.Error("a deleted SA opened a packet")
	}
	b.onlyDrop(before, counter.UnknownSPI)
	if b.epochs.Reap() != 0 {
		t.Error("the SA is not freed after a turn")
	}
	reader.Offline()
}

// One outbound SA on two workers at once: no sequence number is used twice,
// and one inbound SA on two workers accepts each packet once.
func TestOneSAOnTwoWorkers(t *testing.T) {
	const packets = 2000
	tn := aes128gcm
	tn.window = 2 * packets
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(tn)
	b.protect(tn)
	senders, receivers := []*lone{a, a.sibling()}, []*lone{b, b.sibling()}

	var sealed [2][][]byte
	each(func(k int) {
		for range packets {
			sealed[k] = append(sealed[k], senders[k].outOf(udp4(hostA4, hostB4, 64, 100)))
		}
	})
	all := append(append([][]byte{}, sealed[0]...), sealed[1]...)
	seen := map[uint32]bool{}
	for _, f := range all {
		seen[binary.BigEndian.Uint32(f[14+24:])] = true
	}
	if len(seen) != 2*packets || !seen[1] || !seen[2*packets] {
		t.Fatalf("%d distinct sequence numbers for %d packets", len(seen), 2*packets)
	}

	var delivered [2]int
	each(func(k int) {
		for _, f := range all {
			if receivers[k].into(f) != nil {
				delivered[k]++
			}
		}
	})
	if delivered[0]+delivered[1] != 2*packets {
		t.Errorf("%d + %d packets accepted, want %d", delivered[0], delivered[1], 2*packets)
	}
}

// each runs f(0) and f(1) at once.
func each(f func(k int)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(1)
	}()
	f(0)
	<-done
}
