package pipeline_test

import (
	"bytes"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/spd"
)

// Sources that no router forwards stay where they are, from either side and out
// of a tunnel too, whatever the policies cover.
func TestMartianSources(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	for _, sel := range anyToAny() {
		id := a.addPolicy(spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect, Template: templateOf(out.Src, out.Dst)})
		if err := a.db.Bind(id, out); err != nil {
			t.Fatal(err)
		}
		b.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Bypass})
	}
	for _, row := range []struct {
		src     string
		martian bool
	}{
		{"0.0.0.0", true}, {"0.255.255.255", true}, {"1.0.0.0", false},
		{"126.255.255.255", false}, {"127.0.0.1", true}, {"128.0.0.0", false},
		{"169.253.255.255", false}, {"169.254.0.1", true}, {"169.255.0.0", false},
		{"223.255.255.255", false}, {"224.0.0.1", true}, {"239.255.255.255", true}, {"240.0.0.1", false},
		{"255.255.255.254", false}, {"255.255.255.255", true},
		{"::1", true}, {"::2", false}, {"fe7f::1", false}, {"fe80::1", true}, {"febf::1", true}, {"fec0::1", false},
		{"feff::1", false}, {"ff00::1", true}, {"ff02::1", true},
	} {
		src := netip.MustParseAddr(row.src)
		frame := func(dst4, dst6 netip.Addr) []byte {
			if src.Is4() {
				return udp4(src, dst4, 64, 100)
			}
			return udp6(src, dst6, 64, 100)
		}
		t.Run(row.src, func(t *testing.T) {
			a.t, b.t = t, t
			fromLAN, fromWire := a.values(), b.values()
			sealed := a.outOf(frame(hostB4, hostB6))
			clear := b.into(frame(hostB4, hostB6))
			if (sealed == nil) != row.martian || (clear == nil) != row.martian {
				t.Errorf("sealed: %t, forwarded in clear: %t: %v, %v", sealed != nil, clear != nil, a.drops(), b.drops())
			}
			if row.martian {
				a.onlyDrop(fromLAN, counter.Martian)
				b.onlyDrop(fromWire, counter.Martian)
			}
		})
	}
	a.t, b.t = t, t
}

// A peer whose gateway lets a martian into the tunnel does not get it out of here.
func TestMartianOutOfATunnel(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	loopback := netip.MustParseAddr("127.0.0.1")
	sel := selector(one(loopback), netB4)
	id := a.addPolicy(spd.Policy{Dir: spd.Out, Sel: sel, Action: spd.Protect, Template: templateOf(out.Src, out.Dst)})
	if err := a.db.Bind(id, out); err != nil {
		t.Fatal(err)
	}
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: sel, Action: spd.Bypass})
	m := make([]fib.Inject, 1) // what the gateway itself sends is not asked where it is from
	m[0].Policy = true
	m[0].Len = uint16(copy(m[0].Data[:], udp4(loopback, hostB4, 64, 100)[14:]))
	if a.cfg.Injects.Push(m) != 1 {
		t.Fatal("ring is full")
	}
	a.w.Turn()
	sealed := a.wire.Take()
	if len(sealed) != 1 {
		t.Fatalf("not sealed: %v", a.drops())
	}
	before := b.values()
	if b.into(sealed[0]) != nil {
		t.Error("it left")
	}
	b.onlyDrop(before, counter.Martian)
}

// Hostile input 7: ESP that arrives on the protected side is none of the
// gateway's, though it has the SA: it is not opened there.
func TestESPOnTheProtectedSide(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	a.protect(aes128gcm)
	_, in := b.protect(aes128gcm)
	sealed := a.outOf(udp4(hostA4, hostB4, 64, 100))
	inside := bytes.Clone(sealed)
	copy(inside, mac(0xa0))
	before := b.values()
	if b.outOf(inside) != nil {
		t.Error("it left")
	}
	b.onlyDrop(before, counter.NoPolicy)
	b.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(one(gwA4), one(gwB4)), Action: spd.Bypass})
	before = b.values()
	if b.outOf(inside) != nil {
		t.Error("it left, by a policy")
	}
	b.onlyDrop(before, counter.HostLocal)
	if in.Seq() != 0 {
		t.Errorf("number %d was taken for received", in.Seq())
	}
	if b.into(sealed) == nil {
		t.Errorf("from the wire it is not opened: %v", b.drops())
	}
}
