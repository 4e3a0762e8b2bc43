package afxdp

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// other does to the interface's XDP link what another process with its id can
// do.
func other(t *testing.T, s *Steering, do func(link.Link) error) {
	t.Helper()
	info, err := s.link.Info()
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.NewFromID(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := do(l); err != nil {
		t.Fatal(err)
	}
}

// TestReattach: a program that another process detached or replaced is
// noticed, and traffic flows again once it is back.
func TestReattach(t *testing.T) {
	t.Parallel()
	for name, sabotage := range map[string]func(*testing.T, *rig){
		"detached": func(t *testing.T, r *rig) {
			other(t, r.sa, link.Link.Detach)
		},
		"replaced": func(t *testing.T, r *rig) {
			stranger, err := load(SteeringOptions{TestPort: 1}, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			other(t, r.sa, func(l link.Link) error { return l.Update(stranger.prog) })
			if err := stranger.Close(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1024, Options{FillSize: 128})
			seen := map[uint32]int{}
			works := func(first uint32) {
				t.Helper()
				send(t, r.in, first, 10, 100)
				if !r.until(func() bool { collect(t, r.out, seen); return seen[first+9] == 1 }) {
					t.Fatalf("frames from %d did not arrive", first)
				}
			}
			works(0)
			if err := r.sa.Check(); err != nil {
				t.Fatalf("Check of an attached program: %v", err)
			}
			if err := r.sa.Reattach(); err != nil {
				t.Fatalf("Reattach of an attached program: %v", err)
			}
			sabotage(t, r)
			if err := r.sa.Check(); !errors.Is(err, ErrDetached) {
				t.Errorf("Check: %v, want %v", err, ErrDetached)
			}
			send(t, r.in, 100, 10, 100)
			if n := r.turn(); n != 0 {
				t.Errorf("received %d frames without a program", n)
			}
			if err := r.sa.Reattach(); err != nil {
				t.Fatalf("Reattach: %v", err)
			}
			if err := r.sa.Check(); err != nil {
				t.Errorf("Check after Reattach: %v", err)
			}
			works(200)
			r.home()
		})
	}
}

// TestReattachTaken: a program that somebody attached after detaching ours
// stays, and the error says so.
func TestReattachTaken(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 1)
	s := newSteering(t, "p", SteeringOptions{})
	if _, err := Attach("p", SteeringOptions{}); !errors.Is(err, ErrProgramTaken) || !strings.Contains(err.Error(), "ip link set dev p xdp off") {
		t.Errorf("second Attach: %v", err)
	}
	other(t, s, link.Link.Detach)
	thief := newSteering(t, "p", SteeringOptions{TestPort: 1})
	if err := s.Reattach(); !errors.Is(err, ErrProgramTaken) {
		t.Errorf("Reattach: %v", err)
	}
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Reattach(); err != nil {
		t.Errorf("Reattach after the other left: %v", err)
	}
}

// TestAttachModes: the driver's refusal leads to the generic program, unless
// the caller wants the driver or nothing.
func TestAttachModes(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 1)
	// A veth takes no program in the driver while its peer sends what does not
	// fit a page.
	if err := netlink.LinkSetMTU(linkByName(t, "far"), 9000); err != nil {
		t.Fatal(err)
	}
	for _, m := range []Mode{Copy, ZeroCopy} {
		if _, err := Attach("p", SteeringOptions{Mode: m}); !errors.Is(err, ErrMode) {
			t.Errorf("Attach %s: %v, want %v", m, err, ErrMode)
		}
	}
	for _, m := range []Mode{Auto, Generic} {
		s, err := Attach("p", SteeringOptions{Mode: m})
		if err != nil {
			t.Fatalf("Attach %s: %v", m, err)
		}
		if s.Mode() != Generic || (s.Native() != nil) != (m == Auto) || s.Interface() != "p" {
			t.Errorf("Attach %s: %s on %s (%v)", m, s.Mode(), s.Interface(), s.Native())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := Attach("p", SteeringOptions{Mode: 9}); !errors.Is(err, ErrOptions) {
		t.Errorf("Attach mode 9: %v", err)
	}
	if _, err := Attach("nope", SteeringOptions{}); !errors.Is(err, ErrNoInterface) {
		t.Errorf("Attach to nothing: %v", err)
	}
}

// TestSetLocal: the set is what the last call said.
func TestSetLocal(t *testing.T) {
	t.Parallel()
	m := newMachine(t, SteeringOptions{}, true)
	a4, b4 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 := netip.MustParseAddr("2001:db8::a"), netip.MustParseAddr("fe80::b")
	for _, set := range [][]netip.Addr{
		{a4, a6}, {a4, b4, a6, b6}, {b4}, {b4, b4}, {}, {netip.AddrFrom16(a4.As16()), b6.WithZone("eth0")}, nil,
	} {
		if err := m.SetLocal(set); err != nil {
			t.Fatalf("SetLocal(%v): %v", set, err)
		}
		want := map[netip.Addr]bool{}
		for _, a := range set {
			want[a.Unmap().WithZone("")] = true
		}
		for _, a := range []netip.Addr{a4, b4, a6, b6} {
			p, local := frame6(6, a, make([]byte, 20)), PassLocal
			if a.Is4() {
				p = frame4(6, a, make([]byte, 20))
			}
			if !want[a] {
				local = RedirectTransit
			}
			if _, v := m.run(t, p); v != local {
				t.Errorf("after SetLocal(%v), %s: %s, want %s", set, a, v, local)
			}
		}
	}
	if err := m.SetLocal([]netip.Addr{{}}); !errors.Is(err, ErrOptions) {
		t.Errorf("SetLocal of the zero Addr: %v", err)
	}
	many := make([]netip.Addr, 5000)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
	}
	if err := m.SetLocal(many); err == nil {
		t.Error("SetLocal took more addresses than there is room for")
	}
	if err := m.SetLocal([]netip.Addr{a4}); err != nil || len(m.local) != 1 {
		t.Errorf("SetLocal after too many: %d addresses (%v)", len(m.local), err)
	}
}

// TestSteeringClosed: everything says so, and the interface is free.
func TestSteeringClosed(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 1)
	s := newSteering(t, "p", SteeringOptions{})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, counters := s.Counters()
	for name, err := range map[string]error{
		"Check": s.Check(), "Reattach": s.Reattach(), "SetLocal": s.SetLocal(nil),
		"Register": s.Register(0, 0), "Counters": counters,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v, want %v", name, err, ErrClosed)
		}
	}
	if err := s.Unregister(0, 0); err != nil {
		t.Errorf("Unregister: %v", err)
	}
	newSteering(t, "p", SteeringOptions{})
}

// TestQueues: what the driver says, or that it does not.
func TestQueues(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 3)
	if n, err := Queues("p"); n != 3 || err != nil {
		t.Errorf("Queues = %d, %v; want 3", n, err)
	}
	if _, err := Queues("nope"); !errors.Is(err, ErrNoInterface) {
		t.Errorf("Queues of nothing: %v", err)
	}
}

// TestNames: reports can rely on them.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for v := range NumVerdicts {
		name := v.String()
		if name == "" || name == "unknown" || seen[name] || strings.HasPrefix(name, "redirect_") != redirects(v) {
			t.Errorf("verdict %d is called %q", v, name)
		}
		seen[name] = true
	}
	if NumVerdicts.String() != "unknown" || Mode(9).String() != "unknown" {
		t.Error("a name for what does not exist")
	}
	for m := Auto; m <= Generic; m++ {
		if got, err := ParseMode(m.String()); got != m || err != nil {
			t.Errorf("ParseMode(%q) = %v, %v", m, got, err)
		}
	}
	if m, err := ParseMode(""); m != Auto || err != nil {
		t.Errorf("ParseMode of nothing = %v, %v", m, err)
	}
	if _, err := ParseMode("zero-copy"); !errors.Is(err, ErrOptions) {
		t.Errorf("ParseMode(zero-copy): %v", err)
	}
}
