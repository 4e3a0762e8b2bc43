package pipeline

import (
	"spigot/internal/wire"
	"spigot/pmd"
	"spigot/sad"
)

// A packet that is longer than a chunk lies in a jumbo frame of the pool, if that has
// some, and no stage knows the difference. What follows is how one gets there that
// came in a chunk, or in none.

// l3Off is where the worker puts an IP header in a chunk.
const l3Off = pmd.Headroom + wire.EthernetLen

// widen moves p, which outgrows its chunk, to a jumbo frame. It is false, and p as it
// was, if there is none free, or p lies in no chunk.
func (w *Worker) widen(p *packet) bool {
	if len(p.chunk) != w.cfg.Pool.Chunk() {
		return false
	}
	base, ok := w.cfg.Pool.GetJumbo()
	if !ok {
		return false
	}
	chunk := w.cfg.Pool.ChunkOf(pmd.Frame{Base: base})
	copy(chunk, p.chunk)
	w.cfg.Pool.Put(p.base)
	p.base, p.chunk = base, chunk
	return true
}

// encapsulateWide is encapsulate in a jumbo frame, for p whose chunk has no room for
// what goes around it.
func (w *Worker) encapsulateWide(p *packet, sa *sad.Outbound, seq uint32) []byte {
	if !w.widen(p) {
		return nil
	}
	return p.encapsulate(sa, seq)
}

// fragmentRoom returns how long a fragment of a packet of size bytes may be that is
// cut for mtu: what a chunk holds, or a jumbo frame if there are enough of those.
func (w *Worker) fragmentRoom(size, mtu int) int {
	const around = l3Off + sealTail
	pool := w.cfg.Pool
	room := pool.Chunk() - around
	if mtu <= room {
		return mtu
	}
	if large := min(mtu, pool.Longest()-around); size/large < pool.JumboLen() {
		return large
	}
	return room
}
