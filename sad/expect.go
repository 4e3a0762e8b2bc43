package sad

import "spigot/internal/flow"

// Expected says whether the SPI is one that the gateway has promised to a peer
// and has no keys for yet: packets with it are early, not lost.
func (s *Snapshot) Expected(spi uint32, dst *flow.Addr, proto uint8) bool {
	k := id{*dst, spi, proto}
	return s.early.get(s.seed.id(&k), &k) != nil
}

// Expect says that an inbound SA of that identity is being negotiated. It ends
// with AddInbound or Forget.
func (db *DB) Expect(spi uint32, dst flow.Addr, proto uint8) {
	db.draft.early.set(db.edit(), id{dst, spi, proto}, new(struct{}), db.draft.seed.id)
	db.commit()
}

// Forget undoes Expect.
func (db *DB) Forget(spi uint32, dst flow.Addr, proto uint8) {
	db.draft.early.set(db.edit(), id{dst, spi, proto}, nil, db.draft.seed.id)
	db.commit()
}
