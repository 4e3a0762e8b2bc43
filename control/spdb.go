package control

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"spigot/internal/flow"
	"spigot/spd"
)

// maxPolicies bounds the SPD.
const maxPolicies = 1 << 20

// policy is one entry of the SPD.
type policy struct {
	rule    *spd.Policy // immutable; of Fwd, workers do not know it
	params  PolicyParams
	owner   Origin
	created time.Time
	order   uint64
	soft    bool // its soft lifetime has been announced
	// The SAs of each of its flows, if they have their own (spd.Policy.PFP), in the
	// order in which they were added: the newest is in use.
	flows map[flow.Tuple][]*record
}

// policies is the SPD by ID, and what is to be published of it.
type policies struct {
	byID   map[uint32]*policy
	byName map[PolicyName]*policy // those of key daemons
	mortal map[uint32]*policy     // those with a lifetime
	lastID uint32
	added  uint64
	edits  [2]spdEdit   // by direction
	gone   []*policy    // to be unbound with the next tables
	tables spd.Snapshot // compiled last: what workers see, but for the length of edit
}

// spdEdit is what a table is to become.
type spdEdit struct {
	gone []uint32
	add  map[uint32]*policy
	anew bool // add is all there is to be
}

// AddPolicy adds a policy of a key daemon and returns its ID. It is ErrExists
// if a daemon's policy has the same direction and selector, whatever else
// differs.
//
// A policy comes after those of its priority that are there, and so after the
// configuration's.
func (k *Keying) AddPolicy(by Origin, p PolicyParams) (id uint32, err error) {
	if old := k.c.spds.byName[PolicyName{p.Dir, p.Sel}]; old != nil {
		return 0, fmt.Errorf("add policy: %w: policy %d has the same direction and selector: update it", ErrExists, old.rule.ID)
	}
	return k.setPolicy(by, p, nil, EventPolicy)
}

// UpdatePolicy makes p the policy of its direction and selector, in place of
// the one there is, whose ID it keeps, or as a new one.
func (k *Keying) UpdatePolicy(by Origin, p PolicyParams) (id uint32, err error) {
	return k.setPolicy(by, p, k.c.spds.byName[PolicyName{p.Dir, p.Sel}], EventPolicyUpdate)
}

// setPolicy puts a policy in the place of old, which may be nil.
func (k *Keying) setPolicy(by Origin, params PolicyParams, old *policy, kind EventKind) (uint32, error) {
	s := &k.c.spds
	if old == nil && len(s.byID) >= maxPolicies {
		return 0, fmt.Errorf("set policy: %w: there are %d policies: delete some", ErrLimit, len(s.byID))
	}
	rule := params.Policy
	rule.Static = false
	if rule.ID = s.lastID + 1; old != nil {
		rule.ID = old.rule.ID
	}
	if err := checkPolicy(&rule, &params); err != nil {
		return 0, err
	}
	params.Policy = rule
	p := &policy{rule: &rule, params: params, owner: by, created: k.c.clock.now()}
	if old != nil {
		k.c.dropPolicy(old)
	} else {
		s.lastID++
	}
	k.c.addPolicy(p)
	k.c.undoable(func() { k.c.restorePolicy(p, old) })
	k.c.tellPolicy(kind, by, p)
	return rule.ID, nil
}

// checkPolicy says what is wrong with a daemon's policy.
func checkPolicy(rule *spd.Policy, params *PolicyParams) error {
	checked := *rule
	if checked.Dir == Fwd {
		checked.Dir = spd.In
	}
	if err := checked.Check(); err != nil {
		return refused("set policy", err)
	}
	return nil
}

// DeletePolicy deletes a daemon's policy by direction and selector and returns
// what it was.
func (k *Keying) DeletePolicy(by Origin, name PolicyName) (Policy, error) {
	p := k.c.spds.byName[name]
	if p == nil {
		return Policy{}, fmt.Errorf("delete policy: %w: none of that direction and selector: list the policies", ErrNotFound)
	}
	return k.deletePolicy(by, p), nil
}

// DeletePolicyID deletes a policy by ID and returns what it was. It is
// ErrStatic for one of the configuration.
func (k *Keying) DeletePolicyID(by Origin, id uint32) (Policy, error) {
	p := k.c.spds.byID[id]
	switch {
	case p == nil:
		return Policy{}, fmt.Errorf("delete policy: %w: none has ID %d: list the policies", ErrNotFound, id)
	case p.rule.Static:
		return Policy{}, fmt.Errorf("delete policy: %w: policy %d (%s): change the configuration", ErrStatic, id, p.rule.Name)
	}
	return k.deletePolicy(by, p), nil
}

func (k *Keying) deletePolicy(by Origin, p *policy) Policy {
	was := k.c.policyOf(p)
	k.c.dropPolicy(p)
	k.c.tellPolicy(EventPolicyDelete, by, p)
	return was
}

// Policy returns a daemon's policy by direction and selector.
func (k *Keying) Policy(name PolicyName) (Policy, error) {
	p := k.c.spds.byName[name]
	if p == nil {
		return Policy{}, fmt.Errorf("get policy: %w: none of that direction and selector: list the policies", ErrNotFound)
	}
	return k.c.policyOf(p), nil
}

// PolicyID returns a policy, of a daemon or of the configuration, by ID.
func (k *Keying) PolicyID(id uint32) (Policy, error) {
	p := k.c.spds.byID[id]
	if p == nil {
		return Policy{}, fmt.Errorf("get policy: %w: none has ID %d: list the policies", ErrNotFound, id)
	}
	return k.c.policyOf(p), nil
}

// FlushPolicies deletes all policies but those of the configuration and returns
// how many it were. Subscribers hear of it once.
func (k *Keying) FlushPolicies(by Origin) int {
	n := len(k.c.spds.byName)
	for _, p := range k.c.spds.byName {
		k.c.dropPolicy(p)
	}
	k.c.tellEvent(Event{Kind: EventPolicyFlush, By: by})
	return n
}

// PolicyCount returns how many policies there are: of key daemons, by direction
// (spd.Out, spd.In, Fwd), and of the configuration.
func (k *Keying) PolicyCount() (keyed [3]int, static int) {
	for _, p := range k.c.spds.byID {
		if p.rule.Static {
			static++
		} else {
			keyed[p.rule.Dir]++
		}
	}
	return keyed, static
}

// DumpPolicies starts a walk over all policies that there are now, the
// configuration's too, in the order in which they were added.
func (k *Keying) DumpPolicies() *PolicyDump {
	d := &PolicyDump{c: k.c, list: make([]*policy, 0, len(k.c.spds.byID))}
	for _, p := range k.c.spds.byID {
		d.list = append(d.list, p)
	}
	slices.SortFunc(d.list, func(p, q *policy) int { return cmp.Compare(p.order, q.order) })
	return d
}

// PolicyDump is a walk over the SPD as it was when the walk began. It costs a
// pointer a policy; its reader goes as slowly as it likes. Its methods belong
// to one goroutine and must not be called in Controller.Keying.
type PolicyDump struct {
	c    *Controller
	list []*policy
}

// Len returns how many policies are still to come.
func (d *PolicyDump) Len() int { return len(d.list) }

// Next returns the next policies, as many as fit buf, and how many they are: 0
// at the end. A policy that was deleted since is shown as it was.
func (d *PolicyDump) Next(buf []Policy) int {
	n := min(len(buf), len(d.list))
	d.c.Do(func() {
		for i, p := range d.list[:n] {
			buf[i] = d.c.policyOf(p)
		}
	})
	clear(d.list[:n])
	d.list = d.list[n:]
	return n
}

// policyOf describes p.
func (c *Controller) policyOf(p *policy) Policy {
	v := Policy{PolicyParams: p.params, Owner: p.owner, Created: c.clock.wall(p.created)}
	if out := c.db.Bound(p.rule.ID); out != nil {
		if r := c.sas.byID[idOf(&out.SA)]; r != nil {
			v.Used = c.clock.wall(r.last)
		}
	}
	return v
}

// addPolicy puts p into the SPD.
func (c *Controller) addPolicy(p *policy) {
	s, id := &c.spds, p.rule.ID
	s.added++
	p.order = s.added
	s.byID[id] = p
	if !p.rule.Static {
		s.byName[PolicyName{p.rule.Dir, p.rule.Sel}] = p
	}
	if p.params.Hard != 0 || p.params.Soft != 0 {
		s.mortal[id] = p
	}
	if p.rule.Dir == Fwd {
		return
	}
	e := &s.edits[p.rule.Dir]
	if e.add == nil {
		e.add = map[uint32]*policy{}
	}
	e.add[id] = p
	c.groups.protects(p.rule, 1)
	c.seek(p)
}

// restorePolicy undoes that p took the place of old, which may be nil.
func (c *Controller) restorePolicy(p, old *policy) {
	c.dropPolicy(p)
	if old != nil {
		order := old.order
		c.addPolicy(old)
		old.order = order
	}
}

// dropPolicy takes p out of the SPD.
func (c *Controller) dropPolicy(p *policy) {
	s, id := &c.spds, p.rule.ID
	delete(s.byID, id)
	delete(s.mortal, id)
	if !p.rule.Static {
		delete(s.byName, PolicyName{p.rule.Dir, p.rule.Sel})
	}
	if p.rule.Dir == Fwd {
		return
	}
	e := &s.edits[p.rule.Dir]
	delete(e.add, id)
	e.gone = append(e.gone, id)
	s.gone = append(s.gone, p)
	c.groups.protects(p.rule, -1)
	c.forsake(p)
}

// edit runs f, which changes SADB and SPD, and publishes what came of it: all
// of it at once, so that no packet meets the half.
func (c *Controller) edit(f func()) {
	_ = c.db.Batch(func() error {
		f()
		c.rebind()
		c.compile()
		return nil
	})
	if c.cfg.IPsec.Load().SPD != c.spds.tables { // no SA has changed, nor a binding
		c.cfg.IPsec.Store(c.spds.tables, c.db.Snapshot())
	}
	if c.groups.changed {
		c.tellGroups()
	}
	c.deliver()
}

// compile makes the tables that the SPD has become, to be published with the
// SAD, and takes their SAs from the policies that have left.
func (c *Controller) compile() {
	s := &c.spds
	for dir, table := range map[spd.Dir]**spd.Table{spd.Out: &s.tables.Out, spd.In: &s.tables.In} {
		e := &s.edits[dir]
		if len(e.gone) == 0 && len(e.add) == 0 {
			continue
		}
		build := func() (*spd.Table, error) { return spd.Edit(*table, e.gone, e.rules()) }
		if e.anew {
			build = func() (*spd.Table, error) { return spd.Compile(*table, e.rules()) }
		}
		t, err := build()
		if err != nil { // each was checked when it came
			c.log.Error("compile the SPD: policies are as before", "err", err)
			continue
		}
		*table, *e = t, spdEdit{}
	}
	for _, p := range s.gone {
		c.unbind(p)
	}
	s.gone = nil
}

// rules returns the policies to be added in their order.
func (e *spdEdit) rules() []*spd.Policy {
	list := make([]*policy, 0, len(e.add))
	for _, p := range e.add {
		list = append(list, p)
	}
	slices.SortFunc(list, func(p, q *policy) int { return cmp.Compare(p.order, q.order) })
	rules := make([]*spd.Policy, len(list))
	for i, p := range list {
		rules[i] = p.rule
	}
	return rules
}

// expirePolicies judges the lifetimes of policies: what has reached the hard one
// leaves, what has reached the soft one is announced once.
func (c *Controller) expirePolicies(now time.Time) {
	for _, p := range c.spds.mortal {
		age := now.Sub(p.created)
		hard := p.params.Hard != 0 && age >= seconds(p.params.Hard)
		soft := p.params.Soft != 0 && age >= seconds(p.params.Soft) && !p.soft
		if !hard && !soft {
			continue
		}
		p.soft = true
		if c.heard(EventPolicyExpire, 0) {
			v := c.policyOf(p)
			c.tellEvent(Event{Kind: EventPolicyExpire, Policy: &v, Hard: hard})
		}
		if hard {
			c.dropPolicy(p)
		}
	}
}
