package pipeline

import (
	"math/bits"
	"time"

	"spigot/internal/counter"
	"spigot/internal/flow"
	"spigot/internal/wire"
)

// The bounds of a reassembler. What is over them pushes out what is oldest, the
// source's own first: a datagram whose fragments follow each other is together
// long before a flood has gone around once.
const (
	maxDatagrams  = 512              // incomplete ones
	maxPerSource  = maxDatagrams / 4 // of sources that share a bucket
	maxPieces     = 64               // fragments of one datagram
	leastPiece    = 48               // bytes of a fragment but the last: what an MTU of 68 leaves (RFC 791)
	reassemblyAge = 15 * time.Second // RFC 791, section 3.2
	sourceBuckets = 64
	keyBuckets    = 1024
)

// reassembler puts datagrams for the gateway that arrived in fragments together
// again (RFC 4301, section 7; RFC 791, section 3.2; RFC 8200, section 4.5). It
// belongs to one worker. Fragments are copied into memory of its own, 1 MB of
// 2 KB blocks in the usual case, and 5 MB with jumbo frames for packets of 9,000
// bytes, so that their frames go home at once; it is taken when the first fragment
// comes, and nothing is allocated after that.
//
// Fragments that overlap end their datagram, and all of it that is still to come
// (RFC 5722). One that is there twice is dropped, and nothing else.
type reassembler struct {
	c    *counter.Worker
	seed uint64
	size int // of a block: of the longest frame

	blocks     []byte
	freeBlocks []uint16
	data       []datagram
	free       []uint16
	byKey      [keyBuckets]uint16 // chains by datagram.chain; 0 ends one, else a datagram's number + 1
	all        ages
	bySource   [sourceBuckets]ages
}

// The lists that a datagram is in.
const (
	listAll = iota
	listSource
	numLists
)

// ages is a list of datagrams, oldest first.
type ages struct{ oldest, newest, n uint16 }

// link is a datagram's place in a list; 0 is none, else a number + 1.
type link struct{ older, newer uint16 }

// datagramKey names a datagram. IPv6 knows no protocol in it. spi is portMemory's,
// and lane, but for the host's own.
type datagramKey struct {
	src, dst flow.Addr
	id       uint32
	spi      uint32
	proto    uint8
	lane     uint8
}

// datagram is one that is incomplete.
type datagram struct {
	key    datagramKey
	born   time.Duration
	total  int   // bytes behind the header, -1 until the last fragment is there
	got    int   // of these
	end    int   // of the piece that reaches farthest
	seen   uint8 // ECN codepoints, a bit each
	dead   bool  // it has no pieces and will not have any
	n      int
	pieces [maxPieces]piece
	chain  uint16
	links  [numLists]link
}

// piece is a fragment that is kept: the IP packet as it came.
type piece struct {
	at    uint16 // of its payload in the datagram
	size  uint16 // of its payload
	head  uint16 // bytes in front of it
	block uint16
}

// fragment is one that has just come.
type fragment struct {
	key  datagramKey
	ip   []byte
	head int // bytes in front of its payload
	at   int // of the payload in the datagram
	more bool
	ecn  uint8
}

func newReassembler(c *counter.Worker, seed uint64, frame int) *reassembler {
	return &reassembler{c: c, seed: spread(seed), size: frame}
}

// allocate takes the memory.
func (r *reassembler) allocate() {
	r.blocks = make([]byte, maxDatagrams*r.size)
	r.data = make([]datagram, maxDatagrams)
	for i := range uint16(maxDatagrams) {
		r.freeBlocks, r.free = append(r.freeBlocks, i), append(r.free, i)
	}
}

// add takes f, which has come at now. It returns the datagram that f completes,
// for join, or 0 when others are still to come. On a reason, f is to be dropped.
func (r *reassembler) add(f *fragment, now time.Duration) (done uint16, reason counter.Reason) {
	if r.data == nil {
		r.allocate()
	}
	r.sweep(now)
	size := len(f.ip) - f.head
	at := r.find(&f.key)
	if at == 0 {
		at = r.begin(&f.key, now)
	}
	d := &r.data[at-1]
	if d.dead {
		return 0, counter.BadFragment
	}
	if reason := d.judge(f, size); reason != counter.None {
		if !d.repeats(f, size) {
			r.kill(d, reason)
		}
		return 0, reason
	}
	block, ok := r.block(at)
	if !ok {
		return 0, counter.FragmentEvicted
	}
	copy(r.blocks[int(block)*r.size:], f.ip)
	d.keep(f, size, block)
	r.c.Waiting++
	if d.got != d.total {
		return 0, counter.None
	}
	return at, counter.None
}

// length returns how long the datagram done is.
func (r *reassembler) length(done uint16) int {
	d := &r.data[done-1]
	for i := range d.pieces[:d.n] {
		if p := &d.pieces[i]; p.at == 0 {
			return int(p.head) + d.total // or less: IPv6 has a fragment header in front
		}
	}
	return d.total
}

// join copies the datagram done to dst, forgets it and returns its length. dst
// may be too short; on a reason, the fragment that completed it is to be dropped.
func (r *reassembler) join(done uint16, dst []byte) (n int, reason counter.Reason) {
	d := &r.data[done-1]
	if reason = counter.Giant; r.length(done) <= len(dst) {
		n, reason = r.write(d, dst)
	}
	r.c.Waiting -= uint64(d.n)
	if reason != counter.None {
		r.c.Drops[reason] += uint64(d.n - 1)
	} else {
		r.c.Joined += uint64(d.n - 1)
	}
	d.n = r.release(d)
	r.end(done)
	return n, reason
}

// judge says why f cannot be a piece of d.
func (d *datagram) judge(f *fragment, size int) counter.Reason {
	end := f.at + size
	switch {
	case size == 0, f.more && (size%8 != 0 || size < leastPiece), end+f.head > 0xffff, d.n == maxPieces:
		return counter.BadFragment
	case d.total >= 0 && (end > d.total || !f.more && end != d.total), !f.more && end < d.end:
		return counter.BadFragment
	}
	for i := range d.pieces[:d.n] {
		if p := &d.pieces[i]; f.at < int(p.at)+int(p.size) && int(p.at) < end {
			return counter.BadFragment
		}
	}
	return counter.None
}

// repeats says whether there is a piece in f's place already.
func (d *datagram) repeats(f *fragment, size int) bool {
	for i := range d.pieces[:d.n] {
		if p := &d.pieces[i]; int(p.at) == f.at && int(p.size) == size {
			return true
		}
	}
	return false
}

// keep makes f, which lies in block, a piece of d.
func (d *datagram) keep(f *fragment, size int, block uint16) {
	d.pieces[d.n] = piece{uint16(f.at), uint16(size), uint16(f.head), block}
	d.n++
	d.got += size
	d.end = max(d.end, f.at+size)
	d.seen |= 1 << f.ecn
	if !f.more {
		d.total = f.at + size
	}
}

// write copies d, which is complete, to dst: the first fragment's header, and the
// payloads of all.
func (r *reassembler) write(d *datagram, dst []byte) (n int, reason counter.Reason) {
	head := 0
	for i := range d.pieces[:d.n] {
		if p := &d.pieces[i]; p.at == 0 {
			head = wholeHeader(dst, r.blocks[int(p.block)*r.size:][:p.head])
		}
	}
	for i := range d.pieces[:d.n] {
		p := &d.pieces[i]
		copy(dst[head+int(p.at):], r.blocks[int(p.block)*r.size+int(p.head):][:p.size])
	}
	n = head + d.total
	if dst[0]>>4 == 4 {
		wire.IPv4(dst).SetTotalLen(uint16(n))
	} else {
		wire.IPv6(dst).SetPayloadLen(uint16(n - wire.IPv6Len))
	}
	// A congestion mark on any is one on all, and must not be on what has no ECN (RFC
	// 3168, section 5.3).
	if d.seen>>wire.CE&1 != 0 {
		if d.seen>>wire.NotECT&1 != 0 {
			return 0, counter.BadECN
		}
		setCE(dst)
	}
	return n, counter.None
}

// wholeHeader writes the header of the datagram whose first fragment has this one
// and returns its length.
func wholeHeader(dst, first []byte) int {
	if first[0]>>4 == 4 {
		n := copy(dst, first)
		wire.IPv4(dst).SetFragment(0, false)
		return n
	}
	n := copy(dst, first[:len(first)-wire.FragmentLen])
	at, next := 6, wire.IPv6Len // where a header's type is, and where it lies
	for dst[at] != wire.ProtoFragment {
		at, next = next, next+(int(dst[next+1])+1)*8
	}
	dst[at] = wire.FragmentHeader(first[n:]).NextHeader()
	return n
}

func setCE(ip []byte) {
	if ip[0]>>4 == 4 {
		wire.IPv4(ip).SetECN(wire.CE)
	} else {
		wire.IPv6(ip).SetECN(wire.CE)
	}
}

// block takes a block for datagram number at-1; others have to go where there is
// none. It is false if that one is the oldest itself.
func (r *reassembler) block(at uint16) (uint16, bool) {
	for len(r.freeBlocks) == 0 {
		if r.all.oldest == at {
			r.evict(at)
			return 0, false
		}
		r.evict(r.all.oldest)
	}
	b := r.freeBlocks[len(r.freeBlocks)-1]
	r.freeBlocks = r.freeBlocks[:len(r.freeBlocks)-1]
	return b, true
}

// release gives d's blocks back and returns how many pieces it has then: none.
func (r *reassembler) release(d *datagram) int {
	for i := range d.pieces[:d.n] {
		r.freeBlocks = append(r.freeBlocks, d.pieces[i].block)
	}
	return 0
}

// kill drops d's pieces for reason; what is still to come of it will be, too.
func (r *reassembler) kill(d *datagram, reason counter.Reason) {
	r.c.Waiting -= uint64(d.n)
	r.c.Drops[reason] += uint64(d.n)
	d.n = r.release(d)
	d.dead = true
}

// evict forgets datagram number at-1 to make room.
func (r *reassembler) evict(at uint16) {
	r.kill(&r.data[at-1], counter.FragmentEvicted)
	r.end(at)
}

// sweep forgets the datagrams that have waited for too long.
func (r *reassembler) sweep(now time.Duration) {
	for at := r.all.oldest; at != 0 && now-r.data[at-1].born >= reassemblyAge; at = r.all.oldest {
		r.kill(&r.data[at-1], counter.FragmentTimeout)
		r.end(at)
	}
}

// hash tells a key's bucket, and its source's.
func (r *reassembler) hash(k *datagramKey) (key, source uint64) {
	source = fold(k.src.Hi^r.seed, k.src.Lo^0x9e3779b97f4a7c15)
	key = fold(fold(k.dst.Hi^source, k.dst.Lo^r.seed)^uint64(k.id)<<8^uint64(k.proto), r.seed)
	return key % keyBuckets, source % sourceBuckets
}

// spread makes of a seed a factor for fold, which wants bits all over.
func spread(seed uint64) uint64 { return (seed^0x94d049bb133111eb)*0x9e3779b97f4a7c15 | 1 }

// fold mixes a and b: the two halves of their product.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// find returns the number + 1 of the datagram k, or 0.
func (r *reassembler) find(k *datagramKey) uint16 {
	key, _ := r.hash(k)
	at := r.byKey[key]
	for at != 0 && r.data[at-1].key != *k {
		at = r.data[at-1].chain
	}
	return at
}

// has says whether fragments of the datagram k wait for others.
func (r *reassembler) has(k *datagramKey) bool { return r.data != nil && r.find(k) != 0 }

// begin makes a datagram k and returns its number + 1.
func (r *reassembler) begin(k *datagramKey, now time.Duration) uint16 {
	key, source := r.hash(k)
	if s := &r.bySource[source]; s.n >= maxPerSource {
		r.evict(s.oldest)
	} else if len(r.free) == 0 {
		r.evict(r.all.oldest)
	}
	at := r.free[len(r.free)-1] + 1
	r.free = r.free[:len(r.free)-1]
	d := &r.data[at-1]
	d.key, d.born, d.total, d.got, d.end, d.seen, d.dead, d.n = *k, now, -1, 0, 0, 0, false, 0
	d.chain, r.byKey[key] = r.byKey[key], at
	r.append(&r.all, at, listAll)
	r.append(&r.bySource[source], at, listSource)
	return at
}

// end forgets datagram number at-1, which has no pieces.
func (r *reassembler) end(at uint16) {
	key, source := r.hash(&r.data[at-1].key)
	p := &r.byKey[key]
	for *p != at {
		p = &r.data[*p-1].chain
	}
	*p = r.data[at-1].chain
	r.remove(&r.all, at, listAll)
	r.remove(&r.bySource[source], at, listSource)
	r.free = append(r.free, at-1)
}

func (r *reassembler) append(l *ages, at uint16, which int) {
	r.data[at-1].links[which] = link{older: l.newest}
	if l.newest != 0 {
		r.data[l.newest-1].links[which].newer = at
	} else {
		l.oldest = at
	}
	l.newest = at
	l.n++
}

func (r *reassembler) remove(l *ages, at uint16, which int) {
	k := r.data[at-1].links[which]
	if k.older != 0 {
		r.data[k.older-1].links[which].newer = k.newer
	} else {
		l.oldest = k.newer
	}
	if k.newer != 0 {
		r.data[k.newer-1].links[which].older = k.older
	} else {
		l.newest = k.older
	}
	l.n--
}
