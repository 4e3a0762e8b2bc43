package control

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// keyedPolicy is an outbound policy for traffic to dst.
func keyedPolicy(dst string, edit ...func(*PolicyParams)) PolicyParams {
	p := PolicyParams{Policy: *protect(dst)}
	for _, f := range edit {
		f(&p)
	}
	return p
}

func inDir(d spd.Dir) func(*PolicyParams) { return func(p *PolicyParams) { p.Dir = d } }

func (p *PolicyParams) name() PolicyName { return PolicyName{p.Dir, p.Sel} }

func TestPolicyOperations(t *testing.T) {
	one := keyedPolicy("10.2.0.0/16", func(p *PolicyParams) { p.Flags, p.Opaque = 5, "kept" })
	other := keyedPolicy("10.2.0.0/16", func(p *PolicyParams) { p.Priority, p.Level = 9, spd.Use })
	for _, c := range []struct {
		name  string
		do    func(*Keying) error
		is    error
		errno syscall.Errno
		left  int // policies of daemons
	}{
		{"add the same", func(k *Keying) error { _, err := k.AddPolicy(daemon, one); return err }, ErrExists, syscall.EEXIST, 1},
		{"add another of the selector", func(k *Keying) error { _, err := k.AddPolicy(daemon, other); return err }, ErrExists, syscall.EEXIST, 1},
		{"add for another direction", func(k *Keying) error {
			_, err := k.AddPolicy(daemon, keyedPolicy("10.2.0.0/16", inDir(spd.In)))
			return err
		}, nil, 0, 2},
		{"add where the configuration has one", func(k *Keying) error { _, err := k.AddPolicy(daemon, keyedPolicy("10.9.0.0/16")); return err }, nil, 0, 2},
		{"add forward", func(k *Keying) error {
			_, err := k.AddPolicy(daemon, keyedPolicy("10.2.0.0/16", inDir(Fwd)))
			return err
		}, nil, 0, 2},
		{"add in no direction", func(k *Keying) error {
			_, err := k.AddPolicy(daemon, keyedPolicy("10.2.0.0/16", inDir(3)))
			return err
		}, ErrInvalid, syscall.EINVAL, 1},
		{"add with an empty range", func(k *Keying) error {
			_, err := k.AddPolicy(daemon, keyedPolicy("10.2.0.0/16", func(p *PolicyParams) { p.Sel.DstPort = flow.PortRange{Lo: 2, Hi: 1} }))
			return err
		}, ErrInvalid, syscall.EINVAL, 1},
		{"one SA a flow", func(k *Keying) error {
			_, err := k.AddPolicy(daemon, keyedPolicy("10.3.0.0/16", perFlow))
			return err
		}, nil, 0, 2},
		{"one SA a flow, inbound", func(k *Keying) error {
			_, err := k.AddPolicy(daemon, keyedPolicy("10.3.0.0/16", perFlow, inDir(spd.In)))
			return err
		}, ErrInvalid, syscall.EINVAL, 1},
		{"update", func(k *Keying) error {
			was, _ := k.Policy(one.name())
			id, err := k.UpdatePolicy(daemon, other)
			if is, _ := k.PolicyID(id); is.ID != was.ID || is.Priority != 9 || is.Level != spd.Use || is.Flags != 0 {
				t.Errorf("updated to %+v", is)
			}
			return err
		}, nil, 0, 1},
		{"update of nothing adds", func(k *Keying) error { _, err := k.UpdatePolicy(daemon, keyedPolicy("10.3.0.0/16")); return err }, nil, 0, 2},
		{"bad update", func(k *Keying) error {
			_, err := k.UpdatePolicy(daemon, keyedPolicy("10.2.0.0/16", func(p *PolicyParams) { p.Template.Proto = 6 }))
			return err
		}, ErrInvalid, syscall.EINVAL, 1},
		{"get", func(k *Keying) error {
			p, err := k.Policy(one.name())
			if p.Owner != daemon || p.Flags != 5 || p.Opaque != "kept" || p.Static || p.ID == 0 || p.Created.IsZero() {
				t.Errorf("got %+v", p)
			}
			return err
		}, nil, 0, 1},
		{"get the configuration's by selector", func(k *Keying) error {
			static := keyedPolicy("10.9.0.0/16")
			_, err := k.Policy(static.name())
			return err
		}, ErrNotFound, syscall.ESRCH, 1},
		{"get the configuration's by ID", func(k *Keying) error {
			p, err := k.PolicyID(1)
			if !p.Static || p.Name != "to 10.9.0.0/16" {
				t.Errorf("got %+v", p)
			}
			return err
		}, nil, 0, 1},
		{"get no ID", func(k *Keying) error { _, err := k.PolicyID(99); return err }, ErrNotFound, syscall.ESRCH, 1},
		{"delete", func(k *Keying) error {
			p, err := k.DeletePolicy(daemon, one.name())
			if p.Flags != 5 {
				t.Errorf("deleted %+v", p)
			}
			return err
		}, nil, 0, 0},
		{"delete twice", func(k *Keying) error {
			_, _ = k.DeletePolicy(daemon, one.name())
			_, err := k.DeletePolicy(daemon, one.name())
			return err
		}, ErrNotFound, syscall.ESRCH, 0},
		{"delete by ID", func(k *Keying) error {
			p, _ := k.Policy(one.name())
			_, err := k.DeletePolicyID(daemon, p.ID)
			return err
		}, nil, 0, 0},
		{"delete no ID", func(k *Keying) error { _, err := k.DeletePolicyID(daemon, 99); return err }, ErrNotFound, syscall.ESRCH, 1},
		{"delete the configuration's", func(k *Keying) error { _, err := k.DeletePolicyID(daemon, 1); return err }, ErrStatic, syscall.EPERM, 1},
	} {
		g := newGateway(t)
		g.see()
		g.load(t, protect("10.9.0.0/16"))
		g.key(t, func(k *Keying) {
			if _, err := k.AddPolicy(daemon, one); err != nil {
				t.Fatal(err)
			}
			err := c.do(k)
			if !errors.Is(err, c.is) || (err == nil) != (c.is == nil) || Errno(err) != c.errno {
				t.Errorf("%s: %v (%v), want %v (%v)", c.name, err, Errno(err), c.is, c.errno)
			}
			if keyed, static := k.PolicyCount(); keyed[0]+keyed[1]+keyed[2] != c.left || static != 1 {
				t.Errorf("%s: %d and %d policies are left, want %d and 1", c.name, keyed, static, c.left)
			}
		})
		now := g.spd.Load()
		keyed, _ := (&Keying{g.Controller}).PolicyCount()
		if out, in := len(now.Out.Policies()), len(now.In.Policies()); out != keyed[spd.Out]+1 || in != keyed[spd.In] {
			t.Errorf("%s: workers see %d outbound and %d inbound, want %d and %d: those of Linux's forward direction have no effect",
				c.name, out, in, keyed[spd.Out]+1, keyed[spd.In])
		}
	}
}

// TestTheOrderOfPolicies holds who comes first: lower priorities, and among
// equals the configuration, then who was added first. A reload changes nothing
// about it.
func TestTheOrderOfPolicies(t *testing.T) {
	g := newGateway(t)
	g.see()
	prio := func(n uint32) func(*PolicyParams) { return func(p *PolicyParams) { p.Priority = n } }
	g.key(t, func(k *Keying) {
		for _, p := range []PolicyParams{
			keyedPolicy("10.5.0.0/16", prio(5)), keyedPolicy("10.3.0.0/16"), keyedPolicy("10.4.0.0/16"), keyedPolicy("10.1.0.0/16", prio(1)),
		} {
			if _, err := k.AddPolicy(daemon, p); err != nil {
				t.Fatal(err)
			}
		}
	})
	hold := func(when string, want ...string) {
		t.Helper()
		var got []string
		for _, p := range g.spd.Load().Out.Policies() {
			got = append(got, p.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	hold("daemon alone", "to 10.3.0.0/16", "to 10.4.0.0/16", "to 10.1.0.0/16", "to 10.5.0.0/16")
	g.load(t, protect("10.0.0.0/8"), protect("10.7.0.0/16", func(p *spd.Policy) { p.Priority = 5 }))
	want := []string{"to 10.0.0.0/8", "to 10.3.0.0/16", "to 10.4.0.0/16", "to 10.1.0.0/16", "to 10.7.0.0/16", "to 10.5.0.0/16"}
	hold("loaded", want...)
	g.load(t, protect("10.0.0.0/8"), protect("10.7.0.0/16", func(p *spd.Policy) { p.Priority = 5 }))
	hold("loaded again", want...)
	g.key(t, func(k *Keying) {
		if _, err := k.UpdatePolicy(daemon, keyedPolicy("10.1.0.0/16")); err != nil {
			t.Fatal(err)
		}
		if _, err := k.UpdatePolicy(daemon, keyedPolicy("10.3.0.0/16", func(p *PolicyParams) { p.Level = spd.Use })); err != nil {
			t.Fatal(err)
		}
	})
	hold("updated", "to 10.0.0.0/8", "to 10.3.0.0/16", "to 10.4.0.0/16", "to 10.1.0.0/16", "to 10.7.0.0/16", "to 10.5.0.0/16")
	if p := g.spd.Load().Out.Policies()[1]; p.Level != spd.Use {
		t.Errorf("updated in its place: %+v", p)
	}
}

// TestAnUpdatedPolicyFindsItsSA: its template is another one, its ID the same.
func TestAnUpdatedPolicyFindsItsSA(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.key(t, func(k *Keying) {
		_, err := k.AddPolicy(daemon, keyedPolicy("10.2.0.0/16"))
		err = errors.Join(err, k.AddSA(daemon, keyedSA(300, here, peer, func(p *SAParams) { p.Reqid = 7 })))
		err = errors.Join(err, k.AddSA(daemon, keyedSA(301, here, peer, func(p *SAParams) { p.Reqid = 8 })))
		if err != nil {
			t.Fatal(err)
		}
	})
	for _, c := range []struct{ reqid, spi, want uint32 }{
		{0, 0, 301}, {7, 0, 300}, {9, 0, 0}, {8, 0, 301},
		{0, 300, 300}, {8, 301, 301}, {8, 300, 0}, {0, 302, 0},
	} {
		g.key(t, func(k *Keying) {
			p := keyedPolicy("10.2.0.0/16", func(p *PolicyParams) { p.Template.Reqid, p.Template.SPI = c.reqid, c.spi })
			if _, err := k.UpdatePolicy(daemon, p); err != nil {
				t.Fatal(err)
			}
		})
		if got := g.boundTo(t, "to 10.2.0.0/16"); got != c.want {
			t.Errorf("reqid %d, SPI %d: bound to %d, want %d", c.reqid, c.spi, got, c.want)
		}
	}
	g.key(t, func(k *Keying) { k.FlushPolicies(daemon) })
	if n := len(g.offers.wants); n != 0 || len(slices.Collect(func(yield func(uint32) bool) {
		for id := range g.db.Bindings() {
			if !yield(id) {
				return
			}
		}
	})) != 0 {
		t.Errorf("%d kinds of SA are still wanted, or bound", n)
	}
}

// TestOneCallIsOneEdit: whatever a call changes workers see at once.
func TestOneCallIsOneEdit(t *testing.T) {
	g := newGateway(t)
	g.see()
	spdGen, sadGen := g.spd.Load().Out.Gen(), g.sad.Load().Gen
	g.key(t, func(k *Keying) {
		for i := range uint32(20) {
			if err := k.AddSA(daemon, keyedSA(300+i, here, peer)); err != nil {
				t.Fatal(err)
			}
			p := keyedPolicy("10.2.0.0/16", func(p *PolicyParams) { p.Sel.DstPort = flow.PortRange{Lo: uint16(i), Hi: uint16(i)} })
			if _, err := k.AddPolicy(daemon, p); err != nil {
				t.Fatal(err)
			}
		}
		if g.spd.Load().Out.Gen() != spdGen || g.sad.Load().Gen != sadGen {
			t.Error("workers see half of it")
		}
	})
	if now := g.spd.Load(); now.Out.Gen() != spdGen+1 || len(now.Out.Policies()) != 20 {
		t.Errorf("%d policies in generation %d, want 20 in %d", len(now.Out.Policies()), now.Out.Gen(), spdGen+1)
	}
	if gen := g.sad.Load().Gen; gen != sadGen+1 {
		t.Errorf("SAD of generation %d, want %d", gen, sadGen+1)
	}
	spdNow, sadNow := g.spd.Load(), g.sad.Load()
	g.key(t, func(k *Keying) { _, _ = k.SA(id(300, peer), false); _ = k.DumpPolicies() })
	if g.spd.Load() != spdNow || g.sad.Load() != sadNow {
		t.Error("questions publish")
	}
}

func TestPoliciesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t)
		g.see()
		g.key(t, func(k *Keying) {
			for _, dir := range []spd.Dir{spd.Out, spd.In, Fwd} {
				p := keyedPolicy("10.2.0.0/16", inDir(dir), func(p *PolicyParams) { p.Soft, p.Hard = 5, 10 })
				if _, err := k.AddPolicy(daemon, p); err != nil {
					t.Fatal(err)
				}
			}
		})
		for _, c := range []struct{ soft, hard, left int }{{0, 0, 3}, {3, 0, 3}, {3, 0, 3}, {3, 3, 0}, {3, 3, 0}} {
			time.Sleep(3 * time.Second)
			g.Do(func() { g.chores(time.Now()) })
			soft, hard := 0, 0
			for _, e := range g.hear(EventPolicyExpire) {
				if e.Hard {
					hard++
				} else {
					soft++
				}
			}
			if soft != c.soft || hard != c.hard || len(g.spds.byID) != c.left {
				t.Errorf("%d soft and %d hard expiries, %d left, want %+v", soft, hard, len(g.spds.byID), c)
			}
		}
	})
}

func TestAPolicyKnowsWhenItWasUsed(t *testing.T) {
	g := newGateway(t)
	g.see()
	p := keyedPolicy("10.2.0.0/16")
	g.key(t, func(k *Keying) {
		_, err := k.AddPolicy(daemon, p)
		if err = errors.Join(err, k.AddSA(daemon, keyedSA(300, here, peer))); err != nil {
			t.Fatal(err)
		}
	})
	used := func() time.Time {
		var v Policy
		g.key(t, func(k *Keying) { v, _ = k.Policy(p.name()) })
		return v.Used
	}
	if !used().IsZero() {
		t.Error("used before its first packet")
	}
	for i := range 3 {
		now := g.start.Add(time.Duration(i) * time.Minute)
		g.list()[0].out.Count(1, 1)
		g.Do(func() { g.chores(now) })
		g.Do(func() { g.chores(now.Add(time.Second)) })
		if !used().Equal(now) {
			t.Errorf("used %v, want %v", used(), now)
		}
	}
}

func TestKeyingAfterCloseIsRefused(t *testing.T) {
	g := newGateway(t)
	g.Close()
	ran := false
	if err := g.Keying(func(*Keying) { ran = true }); !errors.Is(err, ErrClosed) || ran {
		t.Errorf("%v, ran %v", err, ran)
	}
	if got := Errno(sad.ErrParams); got != syscall.EINVAL {
		t.Errorf("an error of another kind is %v", got)
	}
}
