package sad

import (
	"fmt"
	"slices"
)

// An SA may be made for one worker (RFC 9611): of a policy that has such SAs, each
// worker uses the one that was made for it, so that its sequence numbers are never
// shared between cores, and the others use the fallback, an SA for all.

// MaxCPU is the highest Params.CPU.
const MaxCPU = 1024

// OutboundOn returns the SA that the worker cpu, counted from 1, uses for the
// policy with that ID: its own, else the fallback, or nil.
func (s *Snapshot) OutboundOn(policy uint32, cpu uint16) *Outbound {
	sa := s.out.get(s.seed.policy(&policy), &policy)
	if sa != nil && sa.cpus != nil {
		return sa.on(cpu)
	}
	return sa
}

// on is OutboundOn of what stands for the SAs of a policy.
func (sa *Outbound) on(cpu uint16) *Outbound {
	if int(cpu) < len(sa.cpus) && sa.cpus[cpu] != nil {
		return sa.cpus[cpu]
	}
	return sa.cpus[0]
}

// BindPerCPU makes the policy use, from now on, each of own on the worker that it
// was made for, and fallback, which may be nil, on the others. It is ErrNoSA if one
// of them was not added or is removed, and ErrParams if fallback is for one worker,
// or one of own for all, or two for the same.
func (db *DB) BindPerCPU(policy uint32, fallback *Outbound, own []*Outbound) error {
	if len(own) == 0 {
		return db.Bind(policy, fallback)
	}
	var cpus []*outEntry
	put := func(cpu uint16, sa *Outbound) error {
		e, err := db.entryOf(policy, sa, cpu)
		if err != nil {
			return err
		}
		for len(cpus) <= int(cpu) {
			cpus = append(cpus, nil)
		}
		if cpus[cpu] != nil {
			return fmt.Errorf("bind SAs to policy %d: %w: two for worker %d: bind the newer one", policy, ErrParams, cpu-1)
		}
		cpus[cpu] = e
		return nil
	}
	for _, sa := range own {
		if sa.CPU == 0 {
			return fmt.Errorf("bind SAs to policy %d: %w: %v is for all workers: make it the fallback", policy, ErrParams, sa)
		}
		if err := put(sa.CPU, sa); err != nil {
			return err
		}
	}
	if fallback != nil {
		if err := put(0, fallback); err != nil {
			return err
		}
	}
	if slices.Equal(db.cpus[policy], cpus) {
		return nil
	}
	db.bindCPUs(policy, cpus)
	db.commit()
	return nil
}

// bindCPUs binds the entries, by the worker, the fallback in front; nil: none.
func (db *DB) bindCPUs(policy uint32, cpus []*outEntry) {
	db.unbind(policy)
	all := &Outbound{cpus: make([]*Outbound, len(cpus))}
	for i, e := range cpus {
		if e != nil {
			e.policies[policy] = true
			all.cpus[i] = e.sa
		}
	}
	if cpus[0] != nil {
		db.bound[policy] = cpus[0]
	}
	db.cpus[policy] = cpus
	db.draft.out.set(db.edit(), policy, all, db.draft.seed.policy)
}

// leave has the policy do without e: of SAs for single workers the others stay.
func (db *DB) leave(policy uint32, e *outEntry) {
	var rest []*outEntry
	own := false
	for i, other := range db.cpus[policy] {
		if other == e {
			other = nil
		}
		own = own || i > 0 && other != nil
		rest = append(rest, other)
	}
	switch {
	case own:
		db.bindCPUs(policy, rest)
	case rest != nil:
		db.bind(policy, rest[0])
	default:
		db.bind(policy, nil)
	}
}
