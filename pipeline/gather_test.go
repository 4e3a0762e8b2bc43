package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
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
