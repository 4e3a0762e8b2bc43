package control

import (
	"cmp"
	"fmt"
	"slices"

	"spigot/control/ipsecconf"
	"spigot/sad"
	"spigot/spd"
)

// draft is a configuration that is checked and built, and not yet in force.
type draft struct {
	policies []*policy               // those of the configuration, in order
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
	taken := make(map[SAID]string)
	for r := range c.sas.all {
		if r.manual != nil {
			have[r.manual.digest] = r.manual
		} else {
			taken[r.id] = r.name
		}
	}
	for _, p := range sas {
		id := idOfParams(p)
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

// draftPolicies numbers and checks the policies. One that is in force keeps its
// number, and with it what workers have cached.
func (c *Controller) draftPolicies(d *draft, rules []*spd.Policy) error {
	have := make(map[asWritten][]*policy)
	for _, p := range c.spds.byID {
		if p.rule.Static {
			key := written(p.rule)
			have[key] = append(have[key], p)
		}
	}
	for _, old := range have { // equal ones keep their order
		slices.SortFunc(old, func(p, q *policy) int { return cmp.Compare(p.order, q.order) })
	}
	for _, p := range rules {
		q := *p
		q.Static = true
		key := written(&q)
		created := c.clock.now()
		if old := have[key]; len(old) > 0 {
			q.ID, created, have[key] = old[0].rule.ID, old[0].created, old[1:]
		} else {
			c.spds.lastID++
			q.ID = c.spds.lastID
		}
		if err := q.Check(); err != nil {
			return err
		}
		d.policies = append(d.policies, &policy{rule: &q, params: PolicyParams{Policy: q}, created: created})
	}
	return nil
}

// asWritten is what makes a policy of the configuration the same one after a
// reload.
type asWritten struct {
	rule   spd.Policy
	bundle spd.Bundle
}

// written leaves out of p its number, and its name: a line of a file, which may
// change without the policy.
func written(p *spd.Policy) asWritten {
	w := asWritten{rule: *p}
	if p.Bundle != nil {
		w.bundle = *p.Bundle
	}
	w.rule.ID, w.rule.Name, w.rule.Bundle = 0, "", nil
	return w
}

// install puts d in force.
func (c *Controller) install(d *draft) {
	c.edit(func() {
		c.installSAs(d)
		c.installPolicies(d)
	})
	for _, m := range c.pending {
		c.tellUnknown(m)
	}
	c.tellUnused(d)
	c.log.Info("configuration is in force", "policies", len(d.policies), "sas", len(d.manual), "waiting", len(c.pending))
}

func (c *Controller) installSAs(d *draft) {
	keep := make(map[*manual]bool, len(d.manual))
	for _, m := range d.manual {
		keep[m] = true
	}
	for r := range c.sas.all {
		if r.manual != nil && !keep[r.manual] {
			c.remove(r)
		}
	}
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
			c.sas.bound(m.rec)
		default:
			if err := c.insert(m.rec); err != nil {
				c.log.Error("add a manual SA", "sa", nameOf(&m.params), "err", err)
				m.discard()
			}
		}
	}
}

// installPolicies makes the draft's policies those of the configuration. At
// equal priority they come before the daemons': what an operator has written
// down is not for a peer to negotiate away.
func (c *Controller) installPolicies(d *draft) {
	var daemons []*policy
	for _, p := range c.spds.byID {
		if !p.rule.Static {
			daemons = append(daemons, p)
		}
		c.dropPolicy(p)
	}
	slices.SortFunc(daemons, func(p, q *policy) int { return cmp.Compare(p.order, q.order) })
	for _, p := range append(d.policies, daemons...) {
		c.addPolicy(p)
	}
	for dir := range c.spds.edits {
		c.spds.edits[dir].anew = true
	}
}
