package pfkey

import (
	"testing"

	"golang.org/x/sys/unix"

	"spigot/control"
)

// FuzzHandle has a server handle what anybody may send, each message twice:
// what comes back is well formed, echoes the request, and has no keys but where
// they belong.
func FuzzHandle(f *testing.F) {
	for _, e := range golden(f) {
		f.Add(e.b)
	}
	for _, m := range []*Message{
		addSA(0x1000), with(addSA(0x1000), func(m *Message) { m.Type = Update }), spdUpdate(), register(ESP),
		{Type: SPDGet, Has: 1 << ExtPolicy, Policy: Policy{ID: 1}}, {Type: SPDDump}, {Type: Promisc, SAType: 1},
		{Type: Dump, Has: 1 << ExtFilter, Filter: Filter{Family: unix.AF_INET}},
	} {
		f.Add(m.Append(nil))
	}
	r := newRig(f, func(c *Config) { c.Log = nil })
	f.Fuzz(func(t *testing.T, b []byte) {
		p := r.connect(t, 0)
		defer p.Close()
		p.Handle(addSA(0x300).Append(nil), spdUpdate().Append(nil))
		p.received()
		for range 2 {
			request, _ := Decode(b)
			errno := p.Handle(b)
			answers := p.received()
			if errno != 0 && len(answers) != 0 {
				t.Fatalf("%v and %d answers", errno, len(answers))
			}
			for _, a := range answers {
				if a.Type != request.Type || a.PID != request.PID || a.Seq != request.Seq && a.Type != Dump && a.Type != SPDDump {
					t.Fatalf("answer to %v: %v", request, a)
				}
				if a.Errno != 0 && a.Has != 0 || a.Has&keys != 0 && a.Type != Get && a.Type != Dump {
					t.Fatalf("answer to %v with extensions %v", request, a.Has)
				}
			}
		}
		_ = r.control.Keying(func(k *control.Keying) {
			k.FlushSAs(control.Origin{}, 0)
			k.FlushPolicies(control.Origin{})
		})
	})
}
