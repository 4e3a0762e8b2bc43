package sad

import (
	"fmt"
	"slices"
)

// A bundle is several SAs that one policy applies, one around the other (RFC
// 4301, section 4.1). A Snapshot shows it as an Outbound that stands for all of
// them: Bundle lists them, Dst is where the outermost sends to, and it has no
// protocol, key or sequence number of its own.

// MaxBundle is how many SAs a bundle has at most.
const MaxBundle = 4

// BindBundle makes the policy use sas together from now on, the innermost
// first. One of them is what Bind does. It is ErrNoSA if one of sas was not
// added or is removed, and ErrParams for more than MaxBundle, or for none.
func (db *DB) BindBundle(policy uint32, sas []*Outbound) error {
	if len(sas) == 1 {
		return db.Bind(policy, sas[0])
	}
	if len(sas) == 0 || len(sas) > MaxBundle {
		return fmt.Errorf("bind SAs to policy %d: %w: %d of them: a bundle has up to %d", policy, ErrParams, len(sas), MaxBundle)
	}
	entries := make([]*outEntry, len(sas))
	for i, sa := range sas {
		var err error
		if entries[i], err = db.entryOf(policy, sa); err != nil {
			return err
		}
	}
	if db.bound[policy] == entries[0] && slices.Equal(db.outer[policy], entries[1:]) {
		return nil
	}
	db.unbind(policy)
	for _, e := range entries {
		e.policies[policy] = true
	}
	db.bound[policy], db.outer[policy] = entries[0], entries[1:]
	db.draft.out.set(db.edit(), policy, newBundle(sas), db.draft.seed.policy)
	db.commit()
	return nil
}

// newBundle returns what stands for sas.
func newBundle(sas []*Outbound) *Outbound {
	b := &Outbound{Bundle: slices.Clone(sas)}
	b.Src, b.Dst, b.Name = sas[0].Src, sas[0].Dst, sas[0].Name
	for _, sa := range sas {
		if sa.Tunnel {
			b.Src, b.Dst = sa.Src, sa.Dst
		}
	}
	return b
}

// MaxInner returns the largest packet that fits mtu, and the path of the
// outermost SA, once the bundle's SAs are around it. head is the length of its IP header, which those in transport mode
// leave in front; 0 if there is none.
func (sa *Outbound) MaxInner(mtu, head int) int {
	mtu = min(mtu, sa.Bundle[len(sa.Bundle)-1].PathMTU())
	for i, one := range slices.Backward(sa.Bundle) {
		front := 0
		if !one.Tunnel {
			front = sa.headUnder(i, head)
		}
		mtu = front + one.Geo.MaxInner(mtu-front)
	}
	return mtu
}

// headUnder returns the length of the IP header of what the bundle's SA in place
// i is given: the last tunnel's, or the packet's own.
func (sa *Outbound) headUnder(i, head int) int {
	for _, inner := range slices.Backward(sa.Bundle[:i]) {
		if inner.Tunnel {
			return int(inner.Geo.Outer)
		}
	}
	return head
}
