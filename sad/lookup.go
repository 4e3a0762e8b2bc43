package sad

import (
	"fmt"

	"spigot/internal/flow"
)

// Lookup says what names an inbound SA beside its SPI and protocol, and so
// which packets it is for (RFC 4301, section 4.1). Where several SAs have one
// SPI, a packet's is the one that says most of it.
type Lookup uint8

const (
	ByDst    Lookup = iota // the destination, as for all that PF_KEY and XFRM can say
	BySrcDst               // destination and source
	BySPI                  // nothing else: whatever address of the host the packet came to
)

// String returns the word of ipsec.conf for l.
func (l Lookup) String() string {
	switch l {
	case ByDst:
		return "dst"
	case BySrcDst:
		return "src"
	case BySPI:
		return "spi"
	}
	return fmt.Sprintf("lookup %d", uint8(l))
}

// check says what is wrong with l for p.
func (l Lookup) check(p *Params) string {
	switch {
	case l > BySPI:
		return l.String() + ": there are ByDst, BySrcDst and BySPI"
	case l == BySrcDst && !isHost(p.Src):
		return fmt.Sprintf("lookup by source, which is %v: give the one address that the packets come from", p.Src)
	}
	return ""
}

// place is where an inbound SA is found: dst is zero for BySPI, and src but for
// BySrcDst.
type place struct {
	id
	src flow.Addr
}

func (k place) String() string {
	if k.src.IsZero() {
		return k.id.String()
	}
	return fmt.Sprintf("SPI %#x proto %d %v -> %v", k.spi, k.proto, k.src, k.dst)
}

func placeOf(sa *Inbound) place {
	k := place{id: id{sa.Dst, sa.SPI, sa.Proto}}
	switch sa.Lookup {
	case BySrcDst:
		k.src = sa.Src
	case BySPI:
		k.dst = flow.Addr{}
	}
	return k
}

func (s *seed) place(k *place) uint64 {
	return mix(s.id(&k.id)^k.src.Hi, mix(k.src.Lo^s[1], s[2])^s[3])
}

// lookups is the part of a Snapshot that not every gateway has.
type lookups struct {
	bySource table[place, Inbound]
	sourced  table[id, struct{}] // what bySource has, without the sources
	bySPI    int                 // SAs in the Snapshot's in with no destination
}

// Find returns the SA for a packet from src to dst with spi, or nil: the one
// with the longest match. only says that the answer is the same for all
// sources, and that dst names it.
func (s *Snapshot) Find(spi uint32, dst, src *flow.Addr, proto uint8) (sa *Inbound, only bool) {
	k := id{*dst, spi, proto}
	h := s.seed.id(&k)
	only = true
	if s.lookups.bySource.len != 0 && s.lookups.sourced.get(h, &k) != nil {
		only = false
		p := place{k, *src}
		if sa = s.lookups.bySource.get(s.seed.place(&p), &p); sa != nil {
			return sa, false
		}
	}
	if sa = s.in.get(h, &k); sa != nil || s.lookups.bySPI == 0 {
		return sa, only && sa != nil
	}
	k.dst = flow.Addr{}
	return s.in.get(s.seed.id(&k), &k), false
}

// put gives k the SA, or with nil takes it away.
func (db *DB) put(k place, sa *Inbound) {
	s, gen := &db.draft, db.edit()
	if k.src.IsZero() {
		was := s.in.len
		s.in.set(gen, k.id, sa, s.seed.id)
		if k.dst.IsZero() {
			s.lookups.bySPI += s.in.len - was
		}
		return
	}
	s.lookups.bySource.set(gen, k, sa, s.seed.place)
	mark := new(struct{})
	if sa != nil {
		db.sources[k.id]++
	} else if db.sources[k.id]--; db.sources[k.id] == 0 {
		delete(db.sources, k.id)
		mark = nil
	}
	s.lookups.sourced.set(gen, k.id, mark, s.seed.id)
}

// RemoveInbound forgets sa, as Remove does, and no other.
func (db *DB) RemoveInbound(sa *Inbound) error {
	k := placeOf(sa)
	if e := db.in[k]; e == nil || e.sa != sa {
		return fmt.Errorf("remove inbound SA: %w: %v", ErrNoSA, k)
	}
	delete(db.in, k)
	db.put(k, nil)
	db.gone = append(db.gone, sa.Key)
	db.commit()
	return nil
}
