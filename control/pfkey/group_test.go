package pfkey

import (
	"testing"

	"spigot/control"
)

// PF_KEY does not say which way an SA to a group goes: its source does, the
// gateway's own or another, or any of many senders. It comes back as it was set.
func TestSAsToGroups(t *testing.T) {
	for _, row := range []struct {
		src, dst string
		mode     uint8
		want     control.Direction
	}{
		{"192.0.2.1", "239.9.9.9", ModeTunnel, control.Outbound},
		{"192.0.2.1", "239.9.9.9", ModeTransport, control.Outbound},
		{"192.0.2.2", "239.9.9.9", ModeTunnel, control.Inbound},
		{"192.0.2.2", "239.9.9.9", ModeTransport, control.Inbound},
		{"0.0.0.0", "239.9.9.9", ModeTunnel, control.Inbound},
		{"0.0.0.0", "239.9.9.9", ModeTransport, control.Inbound},
		{"2001:db8::2", "ff15::9", ModeTunnel, control.Inbound},
		{"::", "ff15::9", ModeTunnel, control.Inbound},
	} {
		r := newRig(t)
		p := r.connect(t, 0)
		add := with(addSA(0x1000), func(m *Message) { m.Src, m.Dst, m.SA2.Mode = host(row.src), host(row.dst), row.mode })
		p.ok(add)
		got := p.ok(&Message{Type: Get, SAType: ESP, Seq: 9, PID: 1, Has: 1<<ExtSA | addresses, SA: SA{SPI: 0x1000}, Src: add.Src, Dst: add.Dst})
		if got.Src.Addr != add.Src.Addr || got.Dst.Addr != add.Dst.Addr || got.SA2.Mode != row.mode {
			t.Errorf("%+v: comes back from %v to %v, mode %d", row, got.Src.Addr, got.Dst.Addr, got.SA2.Mode)
		}
		err := r.control.Keying(func(k *control.Keying) {
			sa, err := k.SA(add.saID(), false)
			if err != nil || sa.Direction != row.want {
				t.Errorf("%+v: direction %d, %v; want %d", row, sa.Direction, err, row.want)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
