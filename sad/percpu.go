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
// policy with that ID: its own, else the fallback, or nil. Packets of some
// codepoints may have another one: see OutboundsOn.
func (s *Snapshot) OutboundOn(policy uint32, cpu uint16) *Outbound {
	sa, _ := s.OutboundsOn(policy, cpu)
	return sa
}

// BindSeveral makes the policy use, from now on, each of own on the worker, or for
// the codepoints, that it was made for, and fallback, which may be nil, for the
// rest. Of several for one codepoint it is the first. It is ErrNoSA if one of them
// was not added or is removed, and ErrParams if fallback is not for all, or one of
// own is, or two are for the same worker.
func (db *DB) BindSeveral(policy uint32, fallback *Outbound, own []*Outbound) error {
	if len(own) == 0 {
		return db.Bind(policy, fallback)
	}
	s := &several{cpus: []*outEntry{nil}}
	if fallback != nil {
		e, err := db.entryOf(policy, fallback)
		if err != nil {
			return err
		}
		s.cpus[0] = e
	}
	for _, sa := range own {
		if sa.ForAll() {
			return fmt.Errorf("bind SAs to policy %d: %w: %v is for all workers and packets: make it the fallback", policy, ErrParams, sa)
		}
		e, err := db.entry(sa)
		if err == nil {
			err = s.put(e)
		}
		if err != nil {
			return fmt.Errorf("bind SAs to policy %d: %w", policy, err)
		}
	}
	if was := db.several[policy]; was != nil && slices.Equal(was.cpus, s.cpus) && was.dscp == s.dscp {
		return nil
	}
	db.bindSeveral(policy, s)
	db.commit()
	return nil
}

func (db *DB) bindSeveral(policy uint32, s *several) {
	db.unbind(policy)
	if s.cpus[0] != nil {
		s.cpus[0].policies[policy] = true
		db.bound[policy] = s.cpus[0]
	}
	for e := range s.own {
		e.policies[policy] = true
	}
	db.several[policy] = s
	db.draft.out.set(db.edit(), policy, &Outbound{choice: s.choice()}, db.draft.seed.policy)
}

// leave has the policy do without e: of several SAs the others stay.
func (db *DB) leave(policy uint32, e *outEntry) {
	s := db.several[policy]
	if s == nil {
		db.bind(policy, nil)
		return
	}
	without := func(list []*outEntry) {
		for i := range list {
			if list[i] == e {
				list[i] = nil
			}
		}
	}
	rest := &several{slices.Clone(s.cpus), s.dscp}
	without(rest.cpus)
	without(rest.dscp[:])
	own := false
	for range rest.own {
		own = true
	}
	if own {
		db.bindSeveral(policy, rest)
	} else {
		db.bind(policy, rest.cpus[0])
	}
}
