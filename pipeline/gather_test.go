package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// Transport mode between the gateways themselves.
var gates = []tunnel{
	{spi: 0x1000, enc: "aes-gcm-16", encLen: 20, window: 64, gate: true},
	{spi: 0x1000, enc: "aes-gcm-16", encLen: 20, window: 64, gate: true, udp: true},
	{spi: 0x1000, integ: "hmac-sha2-256-128", authLen: 32, window: 64, gate: true, ah: true},
}

// datagram is a UDP packet of size bytes from host a to host b, as a stack makes
// it that may cut it.
func datagram(v6 bool, size int) []byte {
	if v6 {
		return udp6(gwA6, gwB6, 64, size)[14:]
	}
	return clearDF(udp4(gwA4, gwB4, 64, size))[14:]
}

// cutByHost cuts ip into fragments as the host's kernel does.
func cutByHost(ip []byte, mtu int, id byte) (pieces [][]byte) {
	head := 20
	if ip[0]>>4 == 6 {
		head = 40
	}
	for body, at := ip[head:], 0; at < len(body); {
		n := min((mtu-head-8)&^7, len(body)-at)
		more := uint16(0)
		if at+n < len(body) {
			more = 1
		}
		p := bytes.Clone(ip[:head])
		if head == 20 {
			binary.BigEndian.PutUint16(p[2:], uint16(head+n))
			p[4], p[5] = 0xbe, id
			binary.BigEndian.PutUint16(p[6:], more<<13|uint16(at/8))
			p = fixSum4(append(make([]byte, 14), p...))[14:]
		} else {
			p[6] = 44
			p = append(p, ip[6], 0, byte(at>>8), byte(at)|byte(more), 1, 2, 3, id)
			binary.BigEndian.PutUint16(p[4:], uint16(8+n))
		}
		pieces = append(pieces, append(p, body[at:at+n]...))
		at += n
	}
	return pieces
}

// taken returns what the host got, put together where it is in fragments.
func (h *host) taken(t *testing.T) []byte {
	t.Helper()
	got, ports := h.gets()
	for i := range got {
		if ports[i] != fib.Secured {
			t.Fatalf("by port %d", ports[i])
		}
		frame := make([]byte, 14, 14+len(got[i]))
		if frame[12] = 8; got[i][0]>>4 == 6 {
			frame[12], frame[13] = 0x86, 0xdd
		}
		got[i] = append(frame, got[i]...)
	}
	switch len(got) {
	case 0:
		return nil
	case 1:
		return got[0][14:]
	}
	return joined(t, got, fib.HostSize)[14:]
}

// A datagram that the host has cut is one packet of an SA in transport mode (RFC
// 4303, sections 3.1.1 and 3.3.4): it is cut again once it is sealed, and arrives
// as it was, whatever its length.
func TestHostsFragmentsInTransportMode(t *testing.T) {
	for _, tn := range gates {
		for _, tn.outer6 = range []bool{false, true} {
			a, b := newHostOf(t, 'a', 64, tn), newHostOf(t, 'b', 64, tn)
			for _, row := range []struct{ size, mtu, path int }{
				{3000, 1400, 1500}, {3000, 1280, 1300}, {1420, 1300, 1500}, {4096, 1400, 1500}, {5000, 1400, 1500}, {65000, 1400, 1500},
			} {
				a.setMTU(row.path)
				ip := datagram(tn.outer6, row.size)
				sent := a.sends(cutByHost(ip, row.mtu, 0xef)...)
				for a.cfg.Host.Sent.Len() > 0 { // more than a turn takes
					sent = append(sent, a.sends()...)
				}
				if v := a.values(); len(sent) == 0 || v.Waiting != 0 {
					t.Fatalf("%v: of %d bytes %d packets left: %v", tn, row.size, len(sent), a.drops())
				}
				for _, f := range sent {
					if len(f)-14 > row.path {
						t.Fatalf("%v: %d bytes on a path of %d", tn, len(f)-14, row.path)
					}
					b.wireIn(f)
				}
				if got := b.taken(t); !bytes.Equal(got, ip) {
					t.Errorf("%v: of %d bytes arrived %d: %v", tn, row.size, len(got), b.drops())
				}
			}
		}
	}
}

// Under a tunnel each fragment is a packet of the SA.
func TestHostsFragmentsInTunnelMode(t *testing.T) {
	a, b := newHost(t, 'a', 32), newHost(t, 'b', 32)
	for _, p := range cutByHost(datagram(false, 3000), 1400, 1) {
		sealed := a.sends(p)
		if len(sealed) != 1 {
			t.Fatalf("%d packets left: %v", len(sealed), a.drops())
		}
		b.wireIn(sealed[0])
		if got, _ := b.gets(); len(got) != 1 || !bytes.Equal(got[0], p) {
			t.Errorf("arrived %x: %v", got, b.drops())
		}
	}
}

// As many datagrams as a turn may complete; half of one, which waits; and one that
// the host has no room for, of which it gets nothing.
func TestManyFragmentsOfTheHost(t *testing.T) {
	tn := gates[0]
	a, b := newHostOf(t, 'a', 64, tn), newHostOf(t, 'b', 2, tn)
	ip := datagram(false, 2000)
	var all [][]byte
	for k := range byte(8) {
		all = append(all, cutByHost(ip, 1400, k)...)
	}
	clean := a.values()
	if sent := a.sends(all...); len(sent) != 2*8 {
		t.Errorf("%d packets left", len(sent))
	}
	if a.onlyDrop(clean, counter.NumReasons); t.Failed() {
		t.Log(a.drops())
	}
	half := cutByHost(ip, 1400, 99)
	if sent := a.sends(half[1]); len(sent) != 0 || a.values().Waiting != 1 {
		t.Errorf("%d packets left of one half", len(sent))
	}
	if sent := a.sends(half[0]); len(sent) != 2 || a.values().Waiting != 0 {
		t.Errorf("%d packets left of both halves: %v", len(sent), a.drops())
	}
	long := a.sends(cutByHost(datagram(false, 9000), 1400, 100)...)
	before := b.values()
	for _, f := range long {
		b.wireIn(f)
	}
	if got, _ := b.gets(); len(got) != 0 {
		t.Errorf("the host got %d packets", len(got))
	}
	b.onlyDrop(before, counter.HostFull)
}

func TestHostsFragmentsAllocateNothing(t *testing.T) {
	tn := gates[0]
	a, b := newHostOf(t, 'a', 64, tn), newHostOf(t, 'b', 64, tn)
	var msgs []fib.HostPacket
	for _, p := range cutByHost(datagram(false, 5000), 1400, 1) {
		var m fib.HostPacket
		m.Len = uint16(copy(m.Data[:], p))
		msgs = append(msgs, m)
	}
	send := func() { a.cfg.Host.Sent.Push(msgs); a.w.Turn() }
	if n := testing.AllocsPerRun(20, send); n != 0 {
		t.Errorf("%v allocations for a datagram of the host", n)
	}
	sealed := a.wire.Take()
	for i := range sealed {
		sealed[i] = retarget(sealed[i])
	}
	var got [4]fib.HostPacket
	for _, f := range sealed[:4] { // the first datagram takes what is needed
		b.wire.Inject(f)
	}
	b.w.Turn()
	next, n := 4, b.cfg.Host.Got.Pop(got[:])
	if a := testing.AllocsPerRun(15, func() {
		for range 4 {
			b.wire.Inject(sealed[next])
			next++
		}
		b.w.Turn()
		n += b.cfg.Host.Got.Pop(got[:])
	}); a != 0 || n != 2*next/4 {
		t.Errorf("%v allocations for a datagram to the host, of %d %d packets arrived", a, next/4, n)
	}
}

// newOpaqueHost is a host with an SA for what goes to gateway b, SPI 0x1000, and
// one for later fragments of that, SPI 0x2000, both in transport mode.
func newOpaqueHost(t *testing.T) *host {
	t.Helper()
	l, other := newLone(t, 'a'), gates[0]
	other.spi = 0x2000
	out, _ := l.pair(other)
	sel := port(selector(one(gwA4), one(gwB4)), 0)
	sel.SrcPort, sel.DstPort = flow.OpaquePort, flow.OpaquePort
	if err := l.db.Bind(l.addPolicy(spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect, Template: naming(&out.SA)}), out); err != nil {
		t.Fatal(err)
	}
	return hosted(t, l, 64, gates[0])
}

// A datagram goes by the policy for its ports, which its first fragment alone
// shows, and not by that of its last, for which there is an SA of its own.
func TestHostsDatagramsGoByTheirPorts(t *testing.T) {
	a := newOpaqueHost(t)
	for _, backwards := range []bool{false, true} {
		pieces := cutByHost(datagram(false, 3000), 1400, 1)
		if backwards {
			slices.Reverse(pieces)
		}
		sent := a.sends(pieces...)
		if len(sent) == 0 {
			t.Fatalf("nothing left: %v", a.drops())
		}
		if spi := binary.BigEndian.Uint32(sent[0][34:]); spi != 0x1000 {
			t.Errorf("backwards %t: left by SPI %#x, want 0x1000", backwards, spi)
		}
	}
}

// What the policies want may change while fragments wait: the datagram leaves as
// they want it when it is whole, in clear or not at all.
func TestPoliciesChangeWhileTheHostsFragmentsWait(t *testing.T) {
	for _, action := range []spd.Action{spd.Bypass, spd.Discard} {
		a, ip := newOpaqueHost(t), datagram(false, 3000)
		pieces := cutByHost(ip, 1400, 1)
		if sent := a.sends(pieces[0]); len(sent) != 0 || a.values().Waiting != 1 {
			t.Fatalf("%d packets left: %v", len(sent), a.drops())
		}
		a.addPolicy(spd.Policy{Dir: spd.Out, Sel: port(selector(one(gwA4), one(gwB4)), 2000), Action: action})
		out := a.policies[spd.Out]
		a.policies[spd.Out] = append([]*spd.Policy{out[len(out)-1]}, out[:len(out)-1]...)
		a.publishPolicies()
		before := a.values()
		switch sent := a.sends(pieces[1:]...); {
		case action == spd.Discard:
			if a.onlyDrop(before, counter.PolicyDiscard); len(sent) != 0 {
				t.Errorf("%d packets left", len(sent))
			}
		case len(sent) < 2 || !bytes.Equal(joined(t, sent, 1500)[34:], ip[20:]):
			t.Errorf("left in %d packets: %v", len(sent), a.drops())
		}
		if v := a.values(); v.Waiting != 0 {
			t.Errorf("%d fragments wait", v.Waiting)
		}
	}
}

// Nobody on the wire can put a fragment into a datagram of the host's.
func TestNobodyCompletesTheHostsDatagrams(t *testing.T) {
	l := newGroupLone(t, 'a')
	p := cast(tunnel{spi: 0x3000, enc: "aes-gcm-16", encLen: 20, window: 64, gate: true}, gwA6, inner6)
	out, err := sad.NewOutbound(p)
	if err == nil {
		err = l.db.AddOutbound(out)
	}
	if err == nil {
		err = l.db.Bind(l.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(one(gwA6), groups6), Action: spd.Protect, Template: naming(&out.SA)}), out)
	}
	if err != nil {
		t.Fatal(err)
	}
	a := hosted(t, l, 32, aes128gcm)
	pieces := cutByHost(udp6(gwA6, inner6, 64, 2000)[14:], 1400, 7)
	forged := castFrame(gwA6, inner6, 64, len(pieces[1]))
	copy(forged[14:], pieces[1])
	forged[14+40] = 50 // says that it is of ESP
	if sent := a.sends(pieces[0]); len(sent) != 0 {
		t.Fatalf("%d packets left of a half", len(sent))
	}
	if got := a.all(a.wire, a.wire, forged); len(got) != 0 || a.values().Waiting != 2 {
		t.Errorf("%d packets left, %d fragments wait: %v", len(got), a.values().Waiting, a.drops())
	}
	if sent := a.sends(pieces[1]); len(sent) == 0 {
		t.Errorf("the datagram does not leave: %v", a.drops())
	}
}

// A sealed IPv6 packet is cut behind its options, those for the destination too,
// so that each fragment tells that it is of ESP (RFC 8200, section 4.1, and what
// Linux does): what has options in front arrives as what has none.
func TestOptionsStayInFrontOfFragments(t *testing.T) {
	for _, tn := range gates {
		tn.outer6, tn.outer.DF = true, sad.DFClear
		for _, h := range headers {
			if !h.v6 || h.kind == 44 {
				continue
			}
			a, b := newHostOf(t, 'a', 32, tn), newHostOf(t, 'b', 32, tn)
			a.out.SetPathMTU(700, false)
			inner := withExtension(udp6(gwA6, gwB6, 64, 1300), h.kind, h.ext)[14:]
			frames := a.sends(inner)
			for _, f := range frames {
				if at := 14 + 40 + len(h.ext); f[at] == 60 || len(f)-14 > 700 {
					t.Errorf("%v, %s: a fragment has headers %x", tn, h.name, f[14:at+8])
				}
				b.wireIn(f)
			}
			if got := b.taken(t); len(frames) < 2 || !bytes.Equal(got, inner) {
				t.Errorf("%v, %s: of %d fragments %d bytes arrived: %v", tn, h.name, len(frames), len(got), b.drops())
			}
		}
	}
}
