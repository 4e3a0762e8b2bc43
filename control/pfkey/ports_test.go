package pfkey

import (
	"errors"
	"net/netip"
	"testing"

	"spigot/control"
	"spigot/internal/flow"
	"spigot/spd"
)

// An ICMP type stands in the source's port and the code in the destination's, as
// in Linux, 0 being any.
func TestICMPTypeAndCodeAreThePorts(t *testing.T) {
	for _, proto := range []uint8{protoICMP, protoICMPv6} {
		for _, row := range []struct {
			typ, code uint16
			want      flow.PortRange
			ok        bool
		}{
			{0, 0, flow.AnyPort, true},
			{8, 0, flow.PortRange{Lo: 0x0800, Hi: 0x08ff}, true},
			{3, 4, flow.PortRange{Lo: 0x0304, Hi: 0x0304}, true},
			{255, 255, flow.PortRange{Lo: 0xffff, Hi: 0xffff}, true},
			{0, 4, flow.PortRange{}, false},
			{256, 0, flow.PortRange{}, false},
			{3, 256, flow.PortRange{}, false},
		} {
			m := spdUpdate()
			m.Src.Proto, m.Dst.Proto, m.Src.Port, m.Dst.Port = proto, proto, row.typ, row.code
			n, err := m.policyName()
			if (err == nil) != row.ok {
				t.Errorf("type %d, code %d: %v", row.typ, row.code, err)
			}
			if row.ok && (n.Sel.SrcPort != row.want || n.Sel.DstPort != flow.AnyPort || n.Sel.Proto != proto) {
				t.Errorf("type %d, code %d of protocol %d: %+v, want %v", row.typ, row.code, proto, n.Sel, row.want)
			}
		}
	}
}

// What PF_KEY cannot say of ports is shown as any, and no message is made that
// would say something else.
func TestPortsThatPFKEYCannotSay(t *testing.T) {
	opaque, one := flow.OpaquePort, flow.PortRange{Lo: 80, Hi: 80}
	for _, row := range []struct {
		name         string
		proto        uint8
		sport, dport flow.PortRange
		typ, code    uint16 // what is shown
		ok           bool
	}{
		{"any", 17, flow.AnyPort, flow.AnyPort, 0, 0, true},
		{"a port", 17, flow.AnyPort, one, 0, 80, true},
		{"ports", 17, flow.PortRange{Lo: 1, Hi: 9}, one, 0, 80, false},
		{"OPAQUE", 17, opaque, opaque, 0, 0, false},
		{"one of them OPAQUE", 17, flow.AnyPort, opaque, 0, 0, false},
		{"type 8", protoICMP, flow.PortRange{Lo: 0x0800, Hi: 0x08ff}, flow.AnyPort, 8, 0, true},
		{"type 3, code 4", protoICMP, flow.PortRange{Lo: 0x0304, Hi: 0x0304}, flow.AnyPort, 3, 4, true},
		{"type 3, code 0", protoICMP, flow.PortRange{Lo: 0x0300, Hi: 0x0300}, flow.AnyPort, 3, 0, false},
		{"type 0", protoICMP, flow.PortRange{Lo: 0, Hi: 0x00ff}, flow.AnyPort, 0, 0, false},
		{"type 0, code 4", protoICMP, flow.PortRange{Lo: 4, Hi: 4}, flow.AnyPort, 0, 0, false},
		{"types 3 to 4", protoICMP, flow.PortRange{Lo: 0x0300, Hi: 0x04ff}, flow.AnyPort, 0, 0, false},
		{"OPAQUE type", protoICMP, opaque, flow.AnyPort, 0, 0, false},
	} {
		p := &spd.Policy{ID: 1, Dir: spd.Out, Action: spd.Discard, Sel: flow.Selector{
			Src: flow.RangeOf(netip.MustParsePrefix("10.1.0.0/16")), Dst: flow.RangeOf(netip.MustParsePrefix("10.2.0.0/16")),
			SrcPort: row.sport, DstPort: row.dport, Proto: row.proto}}
		m, err := SPDAddOf(p)
		if (err == nil) != row.ok || err != nil && !errors.Is(err, ErrNoWord) {
			t.Errorf("%s: made as %+v, %v", row.name, m, err)
		}
		m = new(Message)
		m.describePolicy(&control.Policy{PolicyParams: control.PolicyParams{Policy: *p}})
		if m.Src.Port != row.typ || m.Dst.Port != row.code {
			t.Errorf("%s: shown as %d, %d, want %d, %d", row.name, m.Src.Port, m.Dst.Port, row.typ, row.code)
		}
	}
}
