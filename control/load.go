package control

import (
	"fmt"

	"spigot/control/ipsecconf"
	"spigot/sad"
	"spigot/spd"
)

// draft is a configuration that is checked and built, and not yet in force.
type draft struct {
	policies []*spd.Policy // all, in order
	out, in  *spd.Table
	manual   []*manual               // all SAs of the configuration
	fresh    map[*manual]bool        // those that the configuration before did not have
	asked    map[*manual]*sad.Params // what the configuration says of each
}

// Load makes conf the configuration, in place of the one loaded before: all of
// it, or, with an error, nothing. Policies and SAs that conf shares with the
// one before live on untouched, with their IDs, sequence numbers and counters.
// conf stays the caller's, who wipes its keys.
func (c *Controller) Load(conf *ipsecconf.Config) error {
	var err error
	c.Do(func() {
		if c.closed {
			err = ErrClosed
			return
		}
		var d *draft
		if d, err = c.draft(conf); err == nil {
			c.install(d)
		}
	})
	if err != nil {
		return fmt.Errorf("load configuration: %w", err)
	}
	return nil
}

// draft checks and builds conf. It changes nothing that workers can see.
func (c *Controller) draft(conf *ipsecconf.Config) (*draft, error) {
	if err := c.checkKeys(conf.SAs); err != nil {
		return nil, err
	}
	d := &draft{fresh: map[*manual]bool{}, asked: map[*manual]*sad.Params{}}
	err := c.draftSAs(d, conf.SAs)
	if err == nil {
		err = c.draftPolicies(d, conf.Policies)
	}
	if err != nil {
		for m := range d.fresh {
			m.discard()
		}
		return nil, err
	}
	return d, nil
}

func (c *Controller) draftSAs(d *draft, sas []*sad.Params) error {
	have := make(map[digest]*manual)
	for _, m := range c.pending {
		have[m.digest] = m
	}
	taken := make(map[identity]string)
	for _, r := range c.sas {
		if r.manual != nil {
			have[r.manual.digest] = r.manual
		} else {
			taken[r.id()] = r.name
		}
	}
	for _, p := range sas {
		id := identity{p.SPI, p.Dst, p.Proto}
		if other, twice := taken[id]; twice {
			return fmt.Errorf("%w: SAs %s and %s have one SPI, destination and protocol: give each its own SPI",
				sad.ErrExists, other, nameOf(p))
		}
		taken[id] = nameOf(p)
		m, err := c.draftSA(d, p, have)
		if err != nil {
			return fmt.Errorf("SA %s: %w", nameOf(p), err)
		}
		if m != nil {
			d.manual = append(d.manual, m)
			d.asked[m] = p
		}
	}
	return nil
}

// draftSA finds the SA that p describes in have, or makes it; nil if it is to
// stay away.
func (c *Controller) draftSA(d *draft, p *sad.Params, have map[digest]*manual) (*manual, error) {
	dg := c.digestOf(p)
	if m := have[dg]; m != nil {
		return m, nil
	}
	if c.spent[dg] {
		c.log.Warn("SA stays away: its lifetime has ended; give it new keys", "sa", nameOf(p))
		return nil, nil
	}
	m, err := c.newManual(p, dg)
	if err != nil {
		return nil, err
	}
	if c.usedKeys[m.key] {
		m.discard()
		return nil, fmt.Errorf("%w: its encryption key was another SA's, or this one's before a change, and the new SA "+
			"would send the same IVs again: give it a new key", ErrManualKey)
	}
	d.fresh[m] = true
	return m, nil
}

// draftPolicies numbers and compiles the policies. One that is in force keeps
// its number, and with it what workers have cached.
func (c *Controller) draftPolicies(d *draft, policies []*spd.Policy) error {
	have := make(map[spd.Policy][]*spd.Policy)
	now := c.cfg.SPD.Load()
	for _, t := range []*spd.Table{now.Out, now.In} {
		for _, p := range t.Policies() {
			if !p.Static { // a key daemon's: not the configuration's to remove
				d.policies = append(d.policies, p)
				continue
			}
			key := *p
			key.ID, key.Name = 0, ""
			have[key] = append(have[key], p)
		}
	}
	for _, p := range policies {
		q := *p
		q.ID, q.Name, q.Static = 0, "", true
		key := q
		q.Name = p.Name // a line of a file: it may change without the policy
		if old := have[key]; len(old) > 0 {
			q.ID, have[key] = old[0].ID, old[1:]
		} else {
			c.lastID++
			q.ID = c.lastID
		}
		d.policies = append(d.policies, &q)
	}
	var out, in []*spd.Policy
	for _, p := range d.policies {
		if p.Dir == spd.Out {
			out = append(out, p)
		} else {
			in = append(in, p)
		}
	}
	var err error
	if d.out, err = spd.Compile(now.Out, out); err == nil {
		d.in, err = spd.Compile(now.In, in)
	}
	return err
}

// install puts d in force. The SAs come first: a worker loads the SPD before
// the SAD, so the policy that it finds has its SA.
func (c *Controller) install(d *draft) {
	keep := make(map[*manual]bool, len(d.manual))
	for _, m := range d.manual {
		keep[m] = true
	}
	gone := c.policies
	c.policies = make(map[uint32]*spd.Policy, len(d.policies))
	for _, p := range d.policies {
		c.policies[p.ID] = p
		delete(gone, p.ID)
	}
	_ = c.db.Batch(func() error {
		c.remove(func(r *record) bool { return r.manual != nil && !keep[r.manual] })
		for _, m := range c.pending {
			if !keep[m] {
				m.wipe()
			}
		}
		c.pending = nil
		for _, m := range d.manual {
			p := d.asked[m]
			m.params.Name, m.params.Soft, m.params.Hard = p.Name, p.Soft, p.Hard
			switch {
			case m.rec == nil:
				c.pending = append(c.pending, m)
			case !d.fresh[m]:
				m.rec.describe(p)
			default:
				if err := c.insert(m.rec); err != nil {
					c.log.Error("add a manual SA", "sa", nameOf(&m.params), "err", err)
					m.discard()
				}
			}
		}
		c.rebind()
		return nil
	})
	c.cfg.SPD.Store(&spd.Snapshot{Out: d.out, In: d.in})
	_ = c.db.Batch(func() error {
		for id := range gone {
			if err := c.db.Bind(id, nil); err != nil {
				c.log.Error("unbind a policy that is gone", "policy", id, "err", err)
			}
		}
		return nil
	})
	c.forgetAnswered()
	for _, m := range c.pending {
		c.tellUnknown(m)
	}
	c.log.Info("configuration is in force", "policies", len(d.policies), "sas", len(d.manual), "waiting", len(c.pending))
}
