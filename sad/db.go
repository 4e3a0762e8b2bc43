package sad

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"

	"spigot/crypto"
	"spigot/internal/epoch"
	"spigot/internal/flow"
)

// id is what names an SA (RFC 4301, section 4.1).
type id struct {
	dst   flow.Addr
	spi   uint32
	proto uint8
}

func (k id) String() string { return fmt.Sprintf("SPI %#x proto %d -> %v", k.spi, k.proto, k.dst) }

func (s *seed) id(k *id) uint64 {
	return mix(mix(k.dst.Hi^s[0], k.dst.Lo^s[1])^s[2], (uint64(k.spi)<<8|uint64(k.proto))^s[3])
}

func (s *seed) policy(k *uint32) uint64 { return mix(uint64(*k)^s[0], s[1]) }

// Snapshot is the SAD as workers see it: the inbound SAs, and which outbound
// SA each policy uses. It does not change. An SA that came from a Snapshot may
// be used until the worker passes the end of its turn (package epoch).
type Snapshot struct {
	Gen  uint64 // counts up from 1 with each Snapshot of a DB
	seed seed
	in   table[id, Inbound]
	out  table[uint32, Outbound]
	// The outbound SAs of policies that have one for each of their flows.
	flows table[flowID, Outbound]
	// The inbound SAs that are being negotiated.
	early   table[id, struct{}]
	lookups lookups
}

// Inbound returns the SA that spi, dst and proto name, or nil. A packet's may be
// another one: see Find.
func (s *Snapshot) Inbound(spi uint32, dst *flow.Addr, proto uint8) *Inbound {
	k := id{*dst, spi, proto}
	return s.in.get(s.seed.id(&k), &k)
}

// Outbound returns the SA that is bound to the policy with that ID, or nil; where
// workers or codepoints have SAs of their own, the one for all others.
func (s *Snapshot) Outbound(policy uint32) *Outbound { return s.OutboundOn(policy, 0) }

// DB is the SADB: the writer's side of the Snapshots. Its methods belong to
// one goroutine, the slow path, which also reaps the epoch.Domain.
type DB struct {
	epochs  *epoch.Domain
	publish func(*Snapshot)
	now     *Snapshot // published last
	draft   Snapshot  // what the next one will be
	batch   bool
	edited  bool // draft differs from now

	added uint64 // SAs ever added
	in    map[place]*inEntry
	out   map[id]*outEntry
	bound map[uint32]*outEntry   // by policy; the innermost of a bundle
	outer map[uint32][]*outEntry // by policy: the others of a bundle
	flows map[flowID]*outEntry
	gone  []*crypto.Key        // of SAs removed since the last publication
	dying map[*crypto.Key]bool // of SAs that workers may still hold

	sources map[id]int          // how many of in there are by source
	several map[uint32]*several // by policy: nil where one SA serves all
}

type inEntry struct {
	sa    *Inbound
	order uint64
}

type outEntry struct {
	sa       *Outbound
	order    uint64
	policies map[uint32]bool // bound to it
	flows    map[flowID]bool // bound to it
}

// NewDB returns an empty DB. Each edit calls publish with a new Snapshot,
// which must be what workers load from then on; NewDB itself does so with an
// empty one. d is the domain of these workers.
func NewDB(d *epoch.Domain, publish func(*Snapshot)) *DB {
	db := &DB{epochs: d, publish: publish, dying: map[*crypto.Key]bool{}}
	db.draft.seed = seed{rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64()}
	db.empty()
	db.commit()
	return db
}

func (db *DB) empty() {
	db.in, db.out = map[place]*inEntry{}, map[id]*outEntry{}
	db.sources, db.draft.lookups = map[id]int{}, lookups{}
	db.bound, db.outer = map[uint32]*outEntry{}, map[uint32][]*outEntry{}
	db.several, db.flows = map[uint32]*several{}, map[flowID]*outEntry{}
	db.draft = Snapshot{Gen: db.draft.Gen, seed: db.draft.seed}
}

// Snapshot returns what was published last.
func (db *DB) Snapshot() *Snapshot { return db.now }

// commit publishes the draft, then retires the keys of what is not in it.
func (db *DB) commit() {
	db.edited = true
	if db.batch {
		return
	}
	db.edited = false
	db.draft.Gen++
	s := db.draft
	db.now = &s
	db.publish(&s)
	for _, k := range db.gone {
		db.dying[k] = true
		db.epochs.Retire(func() {
			k.Zero()
			delete(db.dying, k)
		})
	}
	db.gone = nil
}

// Batch publishes all edits that f makes as one Snapshot, when f returns: for
// a rekey whose steps must be seen together, or for many SAs at once. Without
// edits it publishes nothing. What f returns, Batch returns; it does not undo
// edits.
func (db *DB) Batch(f func() error) error {
	if db.batch {
		return f()
	}
	db.batch = true
	defer func() {
		if db.batch = false; db.edited {
			db.commit()
		}
	}()
	return f()
}

// edit is the generation of the Snapshot that edits go to.
func (db *DB) edit() uint64 { return db.draft.Gen + 1 }

// adopt takes sa over, once: a removed SA's key is dead or about to die.
func (db *DB) adopt(sa *SA) error {
	if sa.adopted {
		return fmt.Errorf("%w: %v was added before: make a new SA", ErrExists, sa)
	}
	sa.adopted = true
	db.added++
	return nil
}

// AddInbound adds sa, which is the DB's from then on. It is ErrExists if there
// is an inbound SA of the same protocol, SPI and what else its Lookup goes by;
// then sa stays the caller's, who zeroes its Key.
func (db *DB) AddInbound(sa *Inbound) error {
	k := placeOf(sa)
	if db.in[k] != nil {
		return fmt.Errorf("add inbound SA: %w: %v: remove it first, or choose another SPI", ErrExists, k)
	}
	if err := db.adopt(&sa.SA); err != nil {
		return fmt.Errorf("add inbound SA: %w", err)
	}
	db.in[k] = &inEntry{sa, db.added}
	db.put(k, sa)
	db.draft.early.set(db.edit(), id{sa.Dst, sa.SPI, sa.Proto}, nil, db.draft.seed.id)
	db.commit()
	return nil
}

// AddOutbound adds sa, which is the DB's from then on and carries nothing until
// it is bound to a policy; so nothing is published. It is ErrExists if there is
// an outbound SA of the same SPI, destination and protocol; then sa stays the
// caller's, who zeroes its Key.
func (db *DB) AddOutbound(sa *Outbound) error {
	k := id{sa.Dst, sa.SPI, sa.Proto}
	if db.out[k] != nil {
		return fmt.Errorf("add outbound SA: %w: %v: remove it first, or let the peer choose another SPI", ErrExists, k)
	}
	if err := db.adopt(&sa.SA); err != nil {
		return fmt.Errorf("add outbound SA: %w", err)
	}
	db.out[k] = &outEntry{sa: sa, order: db.added, policies: map[uint32]bool{}}
	return nil
}

// Bind makes the policy use sa from now on; nil leaves it without an SA. It is
// ErrNoSA if sa was not added or is removed, and ErrParams if it is not for all.
func (db *DB) Bind(policy uint32, sa *Outbound) error {
	var e *outEntry
	if sa != nil {
		var err error
		if e, err = db.entryOf(policy, sa); err != nil {
			return err
		}
	}
	if db.bound[policy] == e && db.outer[policy] == nil && db.several[policy] == nil {
		return nil
	}
	db.bind(policy, e)
	db.commit()
	return nil
}

// entryOf returns the entry of sa, which is to be bound to the policy for all.
func (db *DB) entryOf(policy uint32, sa *Outbound) (*outEntry, error) {
	if !sa.ForAll() {
		return nil, fmt.Errorf("bind SA to policy %d: %w: %v is for one worker, or some codepoints, alone: use BindSeveral",
			policy, ErrParams, sa)
	}
	e, err := db.entry(sa)
	if err != nil {
		return nil, fmt.Errorf("bind SA to policy %d: %w", policy, err)
	}
	return e, nil
}

// entry returns the entry of sa.
func (db *DB) entry(sa *Outbound) (*outEntry, error) {
	k := id{sa.Dst, sa.SPI, sa.Proto}
	e := db.out[k]
	if e == nil || e.sa != sa {
		return nil, fmt.Errorf("%w: %v: add it first", ErrNoSA, k)
	}
	return e, nil
}

// unbind leaves the policy without SAs in the DB's maps.
func (db *DB) unbind(policy uint32) {
	if was := db.bound[policy]; was != nil {
		delete(was.policies, policy)
		delete(db.bound, policy)
	}
	for _, was := range db.outer[policy] {
		delete(was.policies, policy)
	}
	delete(db.outer, policy)
	if s := db.several[policy]; s != nil {
		for was := range s.own {
			delete(was.policies, policy)
		}
	}
	delete(db.several, policy)
}

func (db *DB) bind(policy uint32, e *outEntry) {
	db.unbind(policy)
	var sa *Outbound
	if e != nil {
		e.policies[policy] = true
		db.bound[policy] = e
		sa = e.sa
	}
	db.draft.out.set(db.edit(), policy, sa, db.draft.seed.policy)
}

// Remove forgets the SA of that identity, in whichever direction it is (both,
// if the gateway talks to itself), and unbinds it from its policies, and with it
// the others of a bundle. Its key
// is zeroed by a later epoch.Domain.Reap. It is ErrNoSA if there is none.
func (db *DB) Remove(spi uint32, dst flow.Addr, proto uint8) error {
	k := id{dst, spi, proto}
	in, out := db.in[place{id: k}], db.out[k]
	if in == nil && out == nil {
		return fmt.Errorf("remove SA: %w: %v", ErrNoSA, k)
	}
	if in != nil {
		delete(db.in, place{id: k})
		db.put(place{id: k}, nil)
		db.gone = append(db.gone, in.sa.Key)
	}
	if out != nil {
		for policy := range maps.Clone(out.policies) {
			db.leave(policy, out)
		}
		for k := range maps.Clone(out.flows) {
			db.bindFlow(k, nil)
		}
		delete(db.out, k)
		db.gone = append(db.gone, out.sa.Key)
	}
	db.commit()
	return nil
}

// FindInbound returns the inbound SA of that identity, or nil.
func (db *DB) FindInbound(spi uint32, dst flow.Addr, proto uint8) *Inbound {
	if e := db.in[place{id: id{dst, spi, proto}}]; e != nil {
		return e.sa
	}
	return nil
}

// FindOutbound returns the outbound SA of that identity, or nil.
func (db *DB) FindOutbound(spi uint32, dst flow.Addr, proto uint8) *Outbound {
	if e := db.out[id{dst, spi, proto}]; e != nil {
		return e.sa
	}
	return nil
}

// Bound returns the SA that the policy with that ID uses, or nil; of a bundle,
// the innermost; where workers or codepoints have SAs of their own, the one for all
// others.
func (db *DB) Bound(policy uint32) *Outbound {
	if e := db.bound[policy]; e != nil {
		return e.sa
	}
	return nil
}

// Inbounds yields the inbound SAs in the order in which they were added. The
// loop may edit the DB; it sees the SAs that were there at its start.
func (db *DB) Inbounds() iter.Seq[*Inbound] {
	return func(yield func(*Inbound) bool) {
		es := slices.SortedFunc(maps.Values(db.in), func(a, b *inEntry) int { return cmp.Compare(a.order, b.order) })
		for _, e := range es {
			if !yield(e.sa) {
				return
			}
		}
	}
}

// Outbounds yields the outbound SAs in the order in which they were added. The
// loop may edit the DB; it sees the SAs that were there at its start.
func (db *DB) Outbounds() iter.Seq[*Outbound] {
	return func(yield func(*Outbound) bool) {
		es := slices.SortedFunc(maps.Values(db.out), func(a, b *outEntry) int { return cmp.Compare(a.order, b.order) })
		for _, e := range es {
			if !yield(e.sa) {
				return
			}
		}
	}
}

// Bindings yields the policies that have an SA, by ID, and that SA, or the
// innermost of a bundle; and then those that have SAs for single workers, or for
// codepoints, with each of these. The loop may edit the DB; it sees the bindings
// that were there at its start.
func (db *DB) Bindings() iter.Seq2[uint32, *Outbound] {
	return func(yield func(uint32, *Outbound) bool) {
		bound, several := maps.Clone(db.bound), maps.Clone(db.several)
		for _, policy := range slices.Sorted(maps.Keys(bound)) {
			if !yield(policy, bound[policy].sa) {
				return
			}
		}
		for _, policy := range slices.Sorted(maps.Keys(several)) {
			seen := map[*outEntry]bool{}
			for e := range several[policy].own {
				if !seen[e] && !yield(policy, e.sa) {
					return
				}
				seen[e] = true
			}
		}
	}
}

// AppendUsers appends the IDs of the policies that use sa, alone or with others, in
// order: none if it was not added or is removed.
func (db *DB) AppendUsers(ids []uint32, sa *Outbound) []uint32 {
	e, err := db.entry(sa)
	if err != nil {
		return ids
	}
	return slices.AppendSeq(ids, slices.Values(slices.Sorted(maps.Keys(e.policies))))
}

// Close publishes an empty Snapshot and zeroes all keys at once, also those
// that wait for workers. The workers must have stopped. The DB is empty then.
func (db *DB) Close() {
	for _, e := range db.in {
		db.gone = append(db.gone, e.sa.Key)
	}
	for _, e := range db.out {
		db.gone = append(db.gone, e.sa.Key)
	}
	db.empty()
	db.batch = false
	db.commit()
	for k := range db.dying {
		k.Zero()
	}
}
