package pipeline_test

import (
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/spd"
)

// An ICMP error quotes the packet. A host that forges a source beyond the wire
// must not have the gateway send the quote there in clear.
func TestForgedSourceIsNotAnswered(t *testing.T) {
	a := newLone(t, 'a')
	any4 := netip.MustParsePrefix("0.0.0.0/0")
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(any4, netB4), Action: spd.Bypass})
	a.setMTU(1000)
	for _, src := range []netip.Addr{gwB4, gwA4, netip.MustParseAddr("203.0.113.9")} {
		for _, row := range []struct {
			frame  []byte
			reason counter.Reason
		}{
			{udp4(src, hostB4, 1, 100), counter.TTLExpired},
			{udp4(src, hostB4, 64, 1001), counter.TooBig},
		} {
			before := a.values()
			a.outOf(row.frame)
			a.onlyDrop(before, row.reason)
		}
	}
	if n := a.cfg.Punts.Len(); n != 0 {
		t.Errorf("%d answers were asked for", n)
	}
}

// A scan of the hosts' network asks for every address of it; others still get
// their answers.
func TestScanLeavesRoomForAnswers(t *testing.T) {
	a := newLone(t, 'a')
	any4 := netip.MustParsePrefix("0.0.0.0/0")
	a.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(any4, any4), Action: spd.Bypass})
	for i := range byte(32) {
		a.outOf(udp4(hostA4, netip.AddrFrom4([4]byte{10, 1, 9, i}), 64, 100))
	}
	before := a.values()
	a.outOf(udp4(hostA4, hostB4, 1, 100))
	if got := a.values(); got.Punted != before.Punted+1 {
		t.Errorf("behind a scan, a packet was not answered: %v", a.drops())
	}
}
