package xfrm

// The structures of linux/xfrm.h, 64-bit, in the header's order. They are
// packed by hand: holes are pad.

// The lengths of structures, in bytes, as a compiler lays them out.
const (
	usersaIDLen       = 24
	usersaInfoLen     = 224
	userSPIInfoLen    = 232
	userpolicyIDLen   = 64
	userpolicyInfoLen = 168
	userAcquireLen    = 280
	userExpireLen     = 232
	userPolExpireLen  = 176
	usersaFlushLen    = 1
	aeventIDLen       = 48
	userReportLen     = 60
	tmplLen           = 64
	algoLen           = 68
	replayESNLen      = 24
)

// address is xfrm_address_t: an IPv4 address in the first four bytes, or an
// IPv6 address. The family stands elsewhere.
type address [16]byte

// selector is struct xfrm_selector.
type selector struct {
	dst, src         address
	dport, dportMask uint16
	sport, sportMask uint16
	family           uint16
	plenDst, plenSrc uint8
	proto            uint8
	ifindex          uint32
	user             uint32
}

func (s *selector) wire(w *wire) {
	w.raw(s.dst[:])
	w.raw(s.src[:])
	w.be16(&s.dport)
	w.be16(&s.dportMask)
	w.be16(&s.sport)
	w.be16(&s.sportMask)
	w.u16(&s.family)
	w.u8(&s.plenDst)
	w.u8(&s.plenSrc)
	w.u8(&s.proto)
	w.pad(3)
	w.u32(&s.ifindex)
	w.u32(&s.user)
}

// id is struct xfrm_id.
type id struct {
	dst   address
	spi   uint32
	proto uint8
}

func (i *id) wire(w *wire) {
	w.raw(i.dst[:])
	w.be32(&i.spi)
	w.u8(&i.proto)
	w.pad(3)
}

// infinite is XFRM_INF: no bound.
const infinite = ^uint64(0)

// lifetimeCfg is struct xfrm_lifetime_cfg.
type lifetimeCfg struct {
	softBytes, hardBytes     uint64
	softPackets, hardPackets uint64
	softAdd, hardAdd         uint64 // seconds since it was added; 0: no bound
	softUse, hardUse         uint64 // seconds since its first use; 0: no bound
}

func (l *lifetimeCfg) wire(w *wire) {
	for _, v := range []*uint64{&l.softBytes, &l.hardBytes, &l.softPackets, &l.hardPackets,
		&l.softAdd, &l.hardAdd, &l.softUse, &l.hardUse} {
		w.u64(v)
	}
}

// lifetimeCur is struct xfrm_lifetime_cur. Times are seconds since 1970.
type lifetimeCur struct{ bytes, packets, added, used uint64 }

func (l *lifetimeCur) wire(w *wire) {
	w.u64(&l.bytes)
	w.u64(&l.packets)
	w.u64(&l.added)
	w.u64(&l.used)
}

// usersaInfo is struct xfrm_usersa_info.
type usersaInfo struct {
	sel    selector
	id     id
	src    address
	lft    lifetimeCfg
	cur    lifetimeCur
	stats  [3]uint32 // replay window misses, replays, failed integrity checks
	seq    uint32    // of the acquire that it answers
	reqid  uint32
	family uint16
	mode   uint8
	window uint8 // in packets; 0 where an attribute has it
	flags  uint8
}

func (s *usersaInfo) wire(w *wire) {
	s.sel.wire(w)
	s.id.wire(w)
	w.raw(s.src[:])
	s.lft.wire(w)
	s.cur.wire(w)
	for i := range s.stats {
		w.u32(&s.stats[i])
	}
	w.u32(&s.seq)
	w.u32(&s.reqid)
	w.u16(&s.family)
	w.u8(&s.mode)
	w.u8(&s.window)
	w.u8(&s.flags)
	w.pad(7)
}

// usersaID is struct xfrm_usersa_id.
type usersaID struct {
	dst    address
	spi    uint32
	family uint16
	proto  uint8
}

func (s *usersaID) wire(w *wire) {
	w.raw(s.dst[:])
	w.be32(&s.spi)
	w.u16(&s.family)
	w.u8(&s.proto)
	w.pad(1)
}

// userSPIInfo is struct xfrm_userspi_info.
type userSPIInfo struct {
	info     usersaInfo
	min, max uint32
}

func (s *userSPIInfo) wire(w *wire) {
	s.info.wire(w)
	w.u32(&s.min)
	w.u32(&s.max)
}

// aeventID is struct xfrm_aevent_id.
type aeventID struct {
	sa    usersaID
	src   address
	flags uint32
	reqid uint32
}

func (a *aeventID) wire(w *wire) {
	a.sa.wire(w)
	w.raw(a.src[:])
	w.u32(&a.flags)
	w.u32(&a.reqid)
}

// userpolicyInfo is struct xfrm_userpolicy_info.
type userpolicyInfo struct {
	sel      selector
	lft      lifetimeCfg
	cur      lifetimeCur
	priority uint32
	index    uint32
	dir      uint8
	action   uint8
	flags    uint8
	share    uint8
}

func (p *userpolicyInfo) wire(w *wire) {
	p.sel.wire(w)
	p.lft.wire(w)
	p.cur.wire(w)
	w.u32(&p.priority)
	w.u32(&p.index)
	w.u8(&p.dir)
	w.u8(&p.action)
	w.u8(&p.flags)
	w.u8(&p.share)
	w.pad(4)
}

// userpolicyID is struct xfrm_userpolicy_id.
type userpolicyID struct {
	sel   selector
	index uint32
	dir   uint8
}

func (p *userpolicyID) wire(w *wire) {
	p.sel.wire(w)
	w.u32(&p.index)
	w.u8(&p.dir)
	w.pad(3)
}

// userAcquire is struct xfrm_user_acquire.
type userAcquire struct {
	id                     id
	src                    address
	sel                    selector
	policy                 userpolicyInfo
	aalgos, ealgos, calgos uint32
	seq                    uint32
}

func (a *userAcquire) wire(w *wire) {
	a.id.wire(w)
	w.raw(a.src[:])
	a.sel.wire(w)
	a.policy.wire(w)
	w.u32(&a.aalgos)
	w.u32(&a.ealgos)
	w.u32(&a.calgos)
	w.u32(&a.seq)
}

// userExpire is struct xfrm_user_expire.
type userExpire struct {
	state usersaInfo
	hard  uint8
}

func (e *userExpire) wire(w *wire) {
	e.state.wire(w)
	w.u8(&e.hard)
	w.pad(7)
}

// userPolExpire is struct xfrm_user_polexpire.
type userPolExpire struct {
	policy userpolicyInfo
	hard   uint8
}

func (e *userPolExpire) wire(w *wire) {
	e.policy.wire(w)
	w.u8(&e.hard)
	w.pad(7)
}

// userMapping is struct xfrm_user_mapping.
type userMapping struct {
	id             usersaID
	reqid          uint32
	oldSrc, newSrc address
	oldPort        uint16
	newPort        uint16
}

func (m *userMapping) wire(w *wire) {
	m.id.wire(w)
	w.u32(&m.reqid)
	w.raw(m.oldSrc[:])
	w.raw(m.newSrc[:])
	w.be16(&m.oldPort)
	w.be16(&m.newPort)
}

// tmpl is struct xfrm_user_tmpl.
type tmpl struct {
	id                     id
	family                 uint16
	src                    address
	reqid                  uint32
	mode, share, optional  uint8
	aalgos, ealgos, calgos uint32
}

func (t *tmpl) wire(w *wire) {
	t.id.wire(w)
	w.u16(&t.family)
	w.pad(2)
	w.raw(t.src[:])
	w.u32(&t.reqid)
	w.u8(&t.mode)
	w.u8(&t.share)
	w.u8(&t.optional)
	w.pad(1)
	w.u32(&t.aalgos)
	w.u32(&t.ealgos)
	w.u32(&t.calgos)
}

// encap is struct xfrm_encap_tmpl.
type encap struct {
	typ          uint16
	sport, dport uint16
	original     address
}

func (e *encap) wire(w *wire) {
	w.u16(&e.typ)
	w.be16(&e.sport)
	w.be16(&e.dport)
	w.pad(2)
	w.raw(e.original[:])
}

// replayState is struct xfrm_replay_state.
type replayState struct{ oseq, seq, bitmap uint32 }

func (r *replayState) wire(w *wire) {
	w.u32(&r.oseq)
	w.u32(&r.seq)
	w.u32(&r.bitmap)
}

// maxBitmap is how many words a bitmap may have: XFRMA_REPLAY_ESN_MAX bits
// (CVE-2017-7184 is what happens without).
const maxBitmap = 4096 / 32

// replayESN is struct xfrm_replay_state_esn.
type replayESN struct {
	oseq, seq     uint32
	oseqHi, seqHi uint32
	window        uint32   // in packets
	bitmap        []uint32 // at most maxBitmap words
}

func (r *replayESN) wire(w *wire) {
	words := uint32(len(r.bitmap))
	w.u32(&words)
	w.u32(&r.oseq)
	w.u32(&r.seq)
	w.u32(&r.oseqHi)
	w.u32(&r.seqHi)
	w.u32(&r.window)
	if !w.put {
		if w.err == nil && words > maxBitmap {
			w.err = refuse(eINVAL, "replay bitmap of %d words: at most %d", words, maxBitmap)
		}
		if w.err != nil {
			return
		}
		r.bitmap = make([]uint32, words)
		if len(w.b) == 0 {
			return // a window that nothing was received in
		}
	}
	for i := range r.bitmap {
		w.u32(&r.bitmap[i])
	}
}

// algo is struct xfrm_algo, or, with a bits of its own, xfrm_algo_auth and
// xfrm_algo_aead.
type algo struct {
	name  string
	sized bool   // has bits
	bits  uint32 // of the ICV
	key   []byte // aliases what it is read from
}

func (a *algo) wire(w *wire) {
	var name [64]byte
	copy(name[:len(name)-1], a.name)
	w.raw(name[:])
	keyBits := uint32(len(a.key)) * 8
	w.u32(&keyBits)
	if a.sized {
		w.u32(&a.bits)
	}
	if w.put {
		w.raw(a.key)
		return
	}
	a.name = cString(name[:])
	n := (uint64(keyBits) + 7) / 8
	if w.err == nil && uint64(len(w.b)) < n {
		w.err = refuse(eINVAL, "key of %d bits in an attribute with %d bytes of it", keyBits, len(w.b))
	}
	if w.err == nil && keyBits%8 != 0 {
		w.err = refuse(eINVAL, "key of %d bits, which are no bytes", keyBits)
	}
	if w.err == nil {
		a.key = w.field(int(n))
	}
}

// cString returns b up to its first zero, or without its last byte.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 || i == len(b)-1 {
			return string(b[:i])
		}
	}
	return ""
}

// spdInfo is struct xfrmu_spdinfo: the counts of policies, in, out and forward,
// of the system and of sockets.
type spdInfo [6]uint32

func (s *spdInfo) wire(w *wire) {
	for i := range s {
		w.u32(&s[i])
	}
}

// hashInfo is struct xfrmu_spdhinfo and xfrmu_sadhinfo: buckets of a hash.
type hashInfo struct{ count, limit uint32 }

func (h *hashInfo) wire(w *wire) {
	w.u32(&h.count)
	w.u32(&h.limit)
}

// threshold is struct xfrmu_spdhthresh.
type threshold struct{ local, remote uint8 }

func (t *threshold) wire(w *wire) {
	w.u8(&t.local)
	w.u8(&t.remote)
}

// nlError is struct nlmsgerr with the header of the request.
type nlError struct {
	errno   uint32 // negative
	request header
}

func (e *nlError) wire(w *wire) {
	w.u32(&e.errno)
	e.request.wire(w)
}

// addressFilter is struct xfrm_address_filter.
type addressFilter struct {
	src, dst         address
	family           uint16
	plenSrc, plenDst uint8
}

func (f *addressFilter) wire(w *wire) {
	w.raw(f.src[:])
	w.raw(f.dst[:])
	w.u16(&f.family)
	w.u8(&f.plenSrc)
	w.u8(&f.plenDst)
}
