package sad

import (
	"fmt"

	"spigot/internal/flow"
)

// flowID is a flow of a policy that has an SA for each of its flows.
type flowID struct {
	policy uint32
	flow   flow.Tuple // but for the fields that the policy does not take from packets
}

func (s *seed) flow(k *flowID) uint64 {
	t := &k.flow
	rest := uint64(k.policy)<<32 | uint64(t.SrcPort)<<16 | uint64(t.DstPort)
	kind := uint64(t.Proto) << 1
	if t.NoPorts {
		kind++
	}
	return mix(mix(t.Src.Lo^s[0], t.Dst.Lo^s[1])^rest, mix(t.Src.Hi^s[2], t.Dst.Hi^s[3])^kind)
}

// OutboundFlow returns the SA that is bound to that flow of the policy, or nil.
func (s *Snapshot) OutboundFlow(policy uint32, f *flow.Tuple) *Outbound {
	k := flowID{policy, *f}
	return s.flows.get(s.seed.flow(&k), &k)
}

// BindFlow makes one flow of the policy use sa from now on; nil leaves it without
// an SA. It is ErrNoSA if sa was not added or is removed.
func (db *DB) BindFlow(policy uint32, f flow.Tuple, sa *Outbound) error {
	var e *outEntry
	if sa != nil {
		k := id{sa.Dst, sa.SPI, sa.Proto}
		if e = db.out[k]; e == nil || e.sa != sa {
			return fmt.Errorf("bind SA to a flow of policy %d: %w: %v: add it first", policy, ErrNoSA, k)
		}
	}
	k := flowID{policy, f}
	if db.flows[k] == e {
		return nil
	}
	db.bindFlow(k, e)
	db.commit()
	return nil
}

func (db *DB) bindFlow(k flowID, e *outEntry) {
	if was := db.flows[k]; was != nil {
		delete(was.flows, k)
		delete(db.flows, k)
	}
	var sa *Outbound
	if e != nil {
		if e.flows == nil {
			e.flows = map[flowID]bool{}
		}
		e.flows[k] = true
		db.flows[k] = e
		sa = e.sa
	}
	db.draft.flows.set(db.edit(), k, sa, db.draft.seed.flow)
}

// BoundFlow returns the SA that the flow of the policy uses, or nil.
func (db *DB) BoundFlow(policy uint32, f flow.Tuple) *Outbound {
	if e := db.flows[flowID{policy, f}]; e != nil {
		return e.sa
	}
	return nil
}
