package pipeline

import (
	"encoding/binary"

	"spigot/internal/counter"
	"spigot/internal/wire"
	"spigot/pmd"
)

// cutMode says whether and where a packet is cut into fragments.
type cutMode uint8

const (
	whole     cutMode = iota
	wasCut            // whole again: its sender has cut it, and so may the gateway
	cutClear          // it leaves in clear, by a link that is too narrow
	cutFirst          // before it is sealed: each fragment is a packet of the SA
	cutSealed         // after it is sealed: the peer puts it together and opens it
)

// hideFirst takes from the packets that are cut before they are sealed their SA,
// which their fragments get, so that seal leaves them alone.
func (b *Burst) hideFirst() {
	for _, i := range b.Live() {
		if p := &b.pkts[i]; p.cut == cutFirst {
			p.first, p.out = p.out, nil
		}
	}
}

// cut replaces each packet of b that is to be cut by its fragments, which leave
// ahead of the rest of b, in a burst of their own. What is whole it moves to a
// frame, if it is in none.
func (w *Worker) cut(b *Burst) {
	f := &w.fragments
	f.start(b.port)
	for _, i := range b.Live() {
		p := &b.pkts[i]
		if p.cut <= wasCut {
			if !p.giant {
				continue
			}
			if r := w.shrink(p); r != counter.None {
				b.Drop(i, r)
			}
			continue
		}
		if r := w.cutPacket(f, p); r != counter.None {
			b.Drop(i, r)
			continue
		}
		b.end(i, cutUp, counter.None)
	}
	w.leave(f)
}

// leave carries the fragments in f the rest of the way.
func (w *Worker) leave(f *Burst) {
	w.seal(f)
	w.send(f)
	w.finish(f)
	f.start(f.port)
}

// start empties b for packets that the worker makes itself.
func (b *Burst) start(port int) {
	b.port, b.n, b.nlive, b.giants = port, 0, 0, 0
	b.holes, b.cuts = false, false
}

// add appends a packet in the chunk at base, alive, to b, which has room.
func (b *Burst) add(pool *pmd.Pool, base uint32) *packet {
	p := &b.pkts[b.n]
	*p = packet{base: base, chunk: pool.ChunkOf(pmd.Frame{Base: base})}
	b.live[b.nlive] = uint8(b.n)
	b.n++
	b.nlive++
	return p
}

// sealTail is at least what seal appends to a packet: padding, trailer and ICV.
const sealTail = 64

// cutPacket adds the fragments of p to f, and has f leave whenever it is full.
// Nothing leaves unless p can be cut.
func (w *Worker) cutPacket(f *Burst, p *packet) counter.Reason {
	mtu := int(p.hop.MTU)
	sa := p.out
	switch p.cut {
	case cutSealed:
		mtu, sa = p.outerMTU(), nil
	case cutFirst:
		p.out = p.first // of whom pathMTU is
		mtu, sa = p.pathMTU(), p.first
	}
	var c cutter
	if !c.start(p.ip(), w.fragmentRoom(int(p.info.Len), mtu)) {
		return counter.TooBig
	}
	w.fragmentID++
	c.id = w.fragmentID
	for c.more() {
		if f.n == MaxBurst {
			w.leave(f)
		}
		base, ok := w.cfg.Pool.GetFor(wire.EthernetLen + c.longest() + sealTail)
		if !ok {
			return counter.PoolEmpty
		}
		w.c.Fragments++
		q := f.add(w.cfg.Pool, base)
		q.l3 = l3Off
		n := c.next(q.chunk[q.l3:])
		q.hop, q.out, q.tuple, q.info = p.hop, sa, p.tuple, p.info
		q.info.Len, q.info.Fragment = uint16(n), true
	}
	return counter.None
}

// cutter cuts an IP packet into fragments (RFC 791, section 3.2; RFC 8200,
// section 4.5). A fragment can be cut again if it is IPv4.
type cutter struct {
	packet  []byte
	headLen uint16 // what goes in front of each fragment: headers, and IPv6's fragment header
	body    int    // where what is cut starts in packet
	at      int    // how much of it is done
	step    int    // bytes a fragment, a multiple of 8
	offset  int    // of the body in the datagram: not 0 for an IPv4 fragment
	open    bool   // packet is a fragment and not the last
	id      uint32 // IPv6: of the datagram
	next6   int    // IPv6: where the byte is that announces the fragment header
}

// start prepares to cut packet for mtu; it is false where that is impossible.
func (c *cutter) start(packet []byte, mtu int) bool {
	c.packet = packet
	if packet[0]>>4 == 6 {
		c.body, c.next6 = wire.IPv6Len, 6
		// Every node on the way reads hop-by-hop options. Destination options would
		// hide from receivers what later fragments are of; Linux keeps them in front, too.
		for packet[c.next6] == wire.ProtoHopByHop || packet[c.next6] == wire.ProtoDstOpts {
			c.next6, c.body = c.body, c.body+(int(packet[c.body+1])+1)*8
		}
		c.headLen = uint16(c.body + wire.FragmentLen)
	} else {
		h := wire.IPv4(packet)
		c.body, c.headLen = h.HeaderLen(), uint16(h.HeaderLen())
		c.offset, c.open = h.FragmentOffset(), h.MoreFragments()
	}
	c.step = (mtu - int(c.headLen)) &^ 7
	return c.step > 0
}

// pieces is how many fragments start has found.
func (c *cutter) pieces() int { return (len(c.packet) - c.body + c.step - 1) / c.step }

func (c *cutter) more() bool { return c.body+c.at < len(c.packet) }

// longest returns how long the next fragment can be.
func (c *cutter) longest() int { return int(c.headLen) + min(c.step, len(c.packet)-c.body-c.at) }

// next writes the next fragment to buf and returns its length.
func (c *cutter) next(buf []byte) int {
	rest := c.packet[c.body+c.at:]
	last := len(rest) <= c.step
	rest = rest[:min(len(rest), c.step)]
	var head int
	if c.packet[0]>>4 == 6 {
		head = c.head6(buf, len(rest), !last)
	} else {
		head = c.head4(buf, len(rest), !last || c.open)
	}
	c.at += len(rest)
	return head + copy(buf[head:], rest)
}

// head4 writes the header of an IPv4 fragment with n bytes. Fragments but the
// first have those options only that say that they want to be copied.
func (c *cutter) head4(buf []byte, n int, more bool) int {
	head := copy(buf, c.packet[:c.body])
	if c.at != 0 && head > wire.IPv4Len {
		head = wire.IPv4Len + copiedOptions(buf[wire.IPv4Len:head])
		buf[0] = 4<<4 | byte(head/4)
	}
	offset := uint16((c.offset + c.at) / 8)
	if more {
		offset |= 1 << 13
	}
	binary.BigEndian.PutUint16(buf[2:], uint16(head+n))
	binary.BigEndian.PutUint16(buf[6:], offset) // without DF: that is why it is cut
	wire.IPv4(buf).UpdateChecksum()
	return head
}

// copiedOptions moves the options whose copied flag is set (RFC 791, section 3.1)
// to the front of opts, pads them and returns their length.
func copiedOptions(opts []byte) int {
	n := 0
	for at := 0; at < len(opts) && opts[at] != 0; {
		size := 1
		if opts[at] != 1 { // but for no-operation, a length follows
			if at+1 >= len(opts) || opts[at+1] < 2 || at+int(opts[at+1]) > len(opts) {
				break
			}
			size = int(opts[at+1])
		}
		if opts[at]&0x80 != 0 {
			n += copy(opts[n:], opts[at:at+size])
		}
		at += size
	}
	for n%4 != 0 {
		opts[n] = 0
		n++
	}
	return n
}

// head6 writes the headers of an IPv6 fragment with n bytes.
func (c *cutter) head6(buf []byte, n int, more bool) int {
	head := copy(buf, c.packet[:c.body])
	wire.FragmentHeader(buf[head:]).Put(buf[c.next6], c.at, more, c.id)
	buf[c.next6] = wire.ProtoFragment
	head += wire.FragmentLen
	wire.IPv6(buf).SetPayloadLen(uint16(head - wire.IPv6Len + n))
	return head
}
