package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/pmd"
	"spigot/sad"
)

// fate is what has become of a packet.
type fate uint8

const (
	alive   fate = iota
	dropped      // counted under its reason, the frame goes home
	punted       // the slow path has a copy, the frame goes home
	sent         // a port owns the frame
	cutUp        // goes on as its fragments, the frame goes home
	held         // the worker keeps the frame until the packet's SA is there
	parted       // waits for the rest of its datagram, the frame goes home
)

// packet is one frame on its way through the stages.
type packet struct {
	chunk []byte // the frame's chunk: headroom, packet, tailroom
	base  uint32 // pmd.Frame.Base
	l2    int    // where the frame starts in chunk, as received
	l3    int    // where the IP header starts in chunk
	size  int    // length of the frame in bytes, as received
	info  wire.IPInfo
	tuple flow.Tuple

	out *sad.Outbound // seal under this SA; nil: leaves in clear
	in  *sad.Inbound  // came by this SA; nil: came in clear
	hop *fib.Hop

	seq    uint64        // inbound: the full sequence number
	esp    int           // inbound: where the ESP packet starts in chunk
	espEnd int           // inbound: where it ends
	first  *sad.Outbound // cutFirst: the SA of its fragments
	fate   fate
	cut    cutMode
	giant  bool // chunk is no frame's
	local  bool // made by the gateway: its TTL stays
	reason counter.Reason
}

// ip returns the packet from its IP header to the end that the header says.
func (p *packet) ip() []byte { return p.chunk[p.l3 : p.l3+int(p.info.Len)] }

// Burst is up to MaxBurst packets that go through the stages together. It
// belongs to one worker, which uses it again and again.
type Burst struct {
	port   int // index of the port that received it
	n      int
	pkts   [MaxBurst]packet
	live   [MaxBurst]uint8 // indices of the packets that are alive, in order
	nlive  int
	cuts   bool // there are packets to be cut, or giants
	giants int  // buffers in use
	holes  bool // live lists packets that are not alive any more
	more   bool // from the wire: there is AH in it, or what came out of ESP is AH or ESP
}

// load starts a new burst with frames, which came in by port.
func (b *Burst) load(port int, pool *pmd.Pool, frames []pmd.Frame) {
	b.port, b.n, b.nlive = port, len(frames), len(frames)
	b.holes, b.cuts, b.more = false, false, false
	b.giants = 0
	for i := range frames {
		p := &b.pkts[i]
		p.chunk = pool.ChunkOf(frames[i])
		p.base = frames[i].Base
		p.l2, p.size = int(frames[i].Off), int(frames[i].Len)
		p.out, p.in, p.hop = nil, nil, nil
		p.fate, p.cut, p.giant, p.local, p.reason = alive, whole, false, false, counter.None
		b.live[i] = uint8(i)
	}
}

// Drop ends packet i for reason. Its frame goes home when the burst finishes.
func (b *Burst) Drop(i uint8, reason counter.Reason) { b.end(i, dropped, reason) }

func (b *Burst) end(i uint8, f fate, reason counter.Reason) {
	p := &b.pkts[i]
	p.fate, p.reason = f, reason
	b.holes = true
}

// Live returns the indices of the packets that no stage has ended yet. A stage
// ranges over it once; ends that it makes show in the next call.
func (b *Burst) Live() []uint8 {
	if b.holes {
		n := 0
		for _, i := range b.live[:b.nlive] {
			if b.pkts[i].fate == alive {
				b.live[n] = i
				n++
			}
		}
		b.nlive, b.holes = n, false
	}
	return b.live[:b.nlive]
}
