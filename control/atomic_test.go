package control

import (
	"errors"
	"reflect"
	"testing"

	"spigot/spd"
)

// TestAtomicUndoes: whatever the steps before the one that fails, SADB, SPD
// and what workers see are as before, and nobody hears of it.
func TestAtomicUndoes(t *testing.T) {
	failed := errors.New("the last step")
	other := func(p *PolicyParams) { p.Level, p.Priority = spd.Use, 7 }
	for _, c := range []struct {
		name  string
		steps func(*Keying) error
	}{
		{"no step", func(*Keying) error { return nil }},
		{"an SA", func(k *Keying) error { return k.AddSA(daemon, keyedSA(400, here, peer)) }},
		{"an inbound SA", func(k *Keying) error { return k.AddSA(daemon, keyedSA(401, peer, here)) }},
		{"an SA that waits", func(k *Keying) error { return k.AddSA(daemon, keyedSA(402, "203.0.113.1", "203.0.113.2")) }},
		{"a policy", func(k *Keying) error { _, err := k.AddPolicy(daemon, keyedPolicy("10.9.0.0/16")); return err }},
		{"a policy for the kernel's eyes", func(k *Keying) error {
			_, err := k.AddPolicy(daemon, keyedPolicy("10.9.0.0/16", inDir(Fwd)))
			return err
		}},
		{"another policy in place of one", func(k *Keying) error { _, err := k.UpdatePolicy(daemon, keyedPolicy("10.2.0.0/16", other)); return err }},
		{"the same twice", func(k *Keying) error {
			_, err := k.UpdatePolicy(daemon, keyedPolicy("10.2.0.0/16", other))
			_, again := k.UpdatePolicy(daemon, keyedPolicy("10.2.0.0/16"))
			return errors.Join(err, again)
		}},
		{"a newer SA for a policy", func(k *Keying) error { return k.AddSA(daemon, keyedSA(403, here, peer)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t)
			g.see()
			g.key(t, func(k *Keying) {
				err := k.AddSA(daemon, keyedSA(300, here, peer))
				for _, dst := range []string{"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"} {
					_, e := k.AddPolicy(daemon, keyedPolicy(dst))
					err = errors.Join(err, e)
				}
				if err != nil {
					t.Fatal(err)
				}
			})
			all := func() []any {
				return []any{g.reportSAs(), g.reportPolicies(), len(g.offers.wants), g.waiting, g.ids()}
			}
			before, told := all(), len(g.heard())
			g.key(t, func(k *Keying) {
				err := k.Atomic(func() error {
					if err := c.steps(k); err != nil {
						t.Fatal(err)
					}
					return failed
				})
				if err != failed {
					t.Errorf("got %v, want the error of the last step", err)
				}
			})
			if after := all(); !reflect.DeepEqual(ageless(before), ageless(after)) {
				t.Errorf("before\n%+v\nafter\n%+v", before, after)
			}
			if n := len(g.heard()); n != told {
				t.Errorf("%d events of what did not happen", n-told)
			}
			g.key(t, func(k *Keying) {
				if err := k.Atomic(func() error { return c.steps(k) }); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
}

// ids lists the policies in the order of a dump.
func (g *gateway) ids() (ids []uint32) {
	var d *PolicyDump
	_ = g.Keying(func(k *Keying) { d = k.DumpPolicies() }) // it is not closed
	for _, p := range d.list {
		ids = append(ids, p.rule.ID)
	}
	return ids
}

// heard returns all events so far.
func (g *gateway) heard() []Event {
	g.hear(EventSA)
	return g.news
}

// ageless takes the ages from what all returns.
func ageless(all []any) []any {
	for i := range all[0].([]SAInfo) {
		all[0].([]SAInfo)[i].AgeSeconds = 0
	}
	return all
}
