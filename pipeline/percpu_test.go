package pipeline_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"spigot/sad"
	"spigot/spd"
)

// TestEachWorkerHasItsSA: of a policy with a fallback and an SA for the second
// worker alone, each worker seals by its own, and neither takes sequence numbers
// of the other. Without a fallback the first one asks for an SA.
func TestEachWorkerHasItsSA(t *testing.T) {
	first := newLone(t, 'a')
	pol := first.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netB4), Action: spd.Protect,
		Template: templateOf(addr(gwA4), addr(gwB4))})
	second := first.sibling()
	add := func(spi uint32, cpu uint16) *sad.Outbound {
		t.Helper()
		p := aes128gcm.params(true)
		p.SPI, p.CPU = spi, cpu
		out, err := sad.NewOutbound(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := first.db.AddOutbound(out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	fallback, own := add(0x2000, 0), add(0x2002, 2)
	bind := func(fallback *sad.Outbound, own ...*sad.Outbound) {
		t.Helper()
		if err := first.db.BindSeveral(pol, fallback, own); err != nil {
			t.Fatal(err)
		}
	}
	seals := func(l *lone, spi, seq uint32) {
		t.Helper()
		frame := l.outOf(udp4(hostA4, hostB4, 64, 100))
		switch {
		case frame == nil && spi != 0:
			t.Errorf("worker %d lost a packet", l.cpu-1)
		case frame != nil:
			if gotSPI, gotSeq := binary.BigEndian.Uint32(frame[34:]), binary.BigEndian.Uint32(frame[38:]); gotSPI != spi || gotSeq != seq {
				t.Errorf("worker %d sent SPI %#x number %d, want %#x number %d", l.cpu-1, gotSPI, gotSeq, spi, seq)
			}
		}
	}
	bind(fallback, own)
	for seq := range uint32(3) {
		seals(first, 0x2000, seq+1)
		seals(second, 0x2002, seq+1)
	}
	bind(nil, own)
	seals(first, 0, 0)
	seals(second, 0x2002, 4)
	if n := first.cfg.Acquires.Len(); n != 1 {
		t.Errorf("%d acquires of the first worker, want 1", n)
	}
	bind(fallback)
	seals(first, 0x2000, 4)
	seals(second, 0x2000, 5)
	bind(fallback, own)
	if n := second.cfg.Acquires.Len(); n != 0 {
		t.Errorf("%d acquires of the second worker, want none", n)
	}
	frame := udp4(hostA4, hostB4, 64, 100)
	if n := testing.AllocsPerRun(10, func() {
		second.host.Inject(frame)
		second.w.Turn()
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
	if n, seq := len(second.wire.Take()), own.Seq(); n != 11 || seq != 15 { // one run is to warm up
		t.Errorf("%d packets left, the last of them number %d; want 11 and 15", n, seq)
	}
}

// TestAWorkerAsksForItsSA where the policy wants one for each: it goes on with the
// one for all meanwhile, and asks no more when it has its own.
func TestAWorkerAsksForItsSA(t *testing.T) {
	l := newLone(t, 'a')
	out, _ := l.pair(aes128gcm)
	pol := l.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(netA4, netB4), Action: spd.Protect, PerCPU: true,
		Template: templateOf(addr(gwA4), addr(gwB4))})
	l = l.sibling()
	p := aes128gcm.params(true)
	p.SPI, p.CPU = 0x2002, l.cpu
	own, err := sad.NewOutbound(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.db.AddOutbound(own); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name     string
		fallback *sad.Outbound
		own      []*sad.Outbound
		spi      uint32 // 0: none left
		asks     []uint16
	}{
		{"none at all", nil, nil, 0, []uint16{0}},
		{"one for all", out, nil, out.SPI, []uint16{l.cpu}},
		{"one for all still", out, nil, out.SPI, nil},
		{"its own", out, []*sad.Outbound{own}, own.SPI, nil},
	} {
		if err := l.db.BindSeveral(pol, row.fallback, row.own); err != nil {
			t.Fatal(err)
		}
		frame, spi := l.outOf(udp4(hostA4, hostB4, 64, 100)), uint32(0)
		if frame != nil {
			spi = binary.BigEndian.Uint32(frame[34:])
		}
		var req [4]spd.AcquireRequest
		var asks []uint16
		for _, r := range req[:l.cfg.Acquires.Pop(req[:])] {
			asks = append(asks, r.CPU)
		}
		if spi != row.spi || !slices.Equal(asks, row.asks) {
			t.Errorf("%s: SPI %#x and acquires for %d, want %#x and %d", row.name, spi, asks, row.spi, row.asks)
		}
	}
}
