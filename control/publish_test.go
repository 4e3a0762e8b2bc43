package control

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"spigot/control/ipsecconf"
	"spigot/internal/tables"
	"spigot/sad"
	"spigot/spd"
)

// editionRules is how many rules an edition has.
const editionRules = 24

// edition is one of two configurations that say everything differently: rule k
// goes to network k in edition 0 and to its neighbour's in edition 1, under
// SAs of the edition's own, whose SPIs and reqids are 1000 apart.
func edition(n uint32) *ipsecconf.Config {
	c := new(ipsecconf.Config)
	for k := range uint32(editionRules) {
		id := 1000*(n+1) + k
		name := func(p *sad.Params) { p.Reqid, p.Name = id, fmt.Sprint(id) }
		c.SAs = append(c.SAs, sa(id, here, peer, name), sa(id+500, peer, here, name))
		c.Policies = append(c.Policies, protect(fmt.Sprintf("10.2.%d.0/24", k^n), func(p *spd.Policy) { p.Template.Reqid = id }))
	}
	return c
}

// editionOf says which edition is published, and what is wrong with it.
func editionOf(t *tables.Tables) (n uint32, wrong string) {
	policies := t.SPD.Out.Policies()
	if len(policies) != editionRules {
		return 0, fmt.Sprintf("%d policies, want %d", len(policies), editionRules)
	}
	n = policies[0].Template.Reqid/1000 - 1
	dst := addr(here)
	for _, p := range policies {
		id := p.Template.Reqid
		out, in, other := t.SAD.Outbound(p.ID), t.SAD.Inbound(id+500, &dst, 50), t.SAD.Inbound(id+500+1000-2000*n, &dst, 50)
		switch {
		case id/1000-1 != n:
			return n, fmt.Sprintf("policy %d beside those of edition %d", id, n)
		case out == nil || out.SPI != id:
			return n, fmt.Sprintf("policy %d has the SA %v", id, out)
		case in == nil || other != nil:
			return n, fmt.Sprintf("edition %d has the inbound SAs %v and %v", n, in, other)
		}
	}
	return n, ""
}

// TestAPacketNeverSeesHalfOfALoad: whatever moment a worker looks at the
// tables, policies, their SAs and the inbound SAs are of one configuration;
// and of one that has an error, nothing is ever there.
func TestAPacketNeverSeesHalfOfALoad(t *testing.T) {
	g := newGateway(t)
	g.see()
	load := func(n uint32) {
		if err := g.Load(edition(n)); err != nil {
			t.Fatal(err)
		}
	}
	load(0)
	var stop atomic.Bool
	var looked [2]int
	var worker sync.WaitGroup
	worker.Go(func() {
		for last := (*tables.Tables)(nil); !stop.Load(); {
			now := g.ipsec.Load()
			if now == last {
				continue
			}
			last = now
			n, wrong := editionOf(now)
			if wrong != "" {
				t.Error(wrong)
				return
			}
			looked[n]++
		}
	})
	for i := range uint32(12) {
		load((i + 1) % 2)
		bad := edition(i % 2)
		bad.Policies = append(bad.Policies, protect("10.9.0.0/16", func(p *spd.Policy) { p.Template = spd.Template{} }))
		before := g.ipsec.Load()
		if g.Load(bad) == nil {
			t.Fatal("a policy without a template is accepted")
		}
		if g.ipsec.Load() != before {
			t.Fatal("a load with an error publishes")
		}
	}
	stop.Store(true)
	worker.Wait()
	if looked[0]+looked[1] < 2 {
		t.Errorf("looked at %v", looked)
	}
}

// TestOnePublication: an edit of SAs and policies is one step for workers.
func TestOnePublication(t *testing.T) {
	g := newGateway(t)
	g.see()
	var seen []*tables.Tables
	look := func() {
		if now := g.ipsec.Load(); len(seen) == 0 || seen[len(seen)-1] != now {
			seen = append(seen, now)
		}
	}
	look()
	var id uint32
	g.key(t, func(k *Keying) {
		if err := k.AddSA(daemon, keyedSA(300, here, peer)); err != nil {
			t.Fatal(err)
		}
		id, _ = k.AddPolicy(daemon, keyedPolicy("10.2.0.0/16"))
		look()
	})
	look()
	g.key(t, func(k *Keying) {
		if _, err := k.DeletePolicyID(daemon, id); err != nil {
			t.Fatal(err)
		}
		look()
	})
	look()
	if len(seen) != 3 {
		t.Fatalf("%d publications, want 3", len(seen))
	}
	if now := seen[1]; len(now.SPD.Out.Policies()) != 1 || now.SAD.Outbound(id) == nil {
		t.Error("the policy came without its SA")
	}
	if now := seen[2]; len(now.SPD.Out.Policies()) != 0 || now.SAD.Outbound(id) != nil {
		t.Error("the binding of a policy outlives it")
	}
}
