package memport

import (
	"fmt"

	"spigot/pmd"
)

// GeneratorOptions describes a Generator.
type GeneratorOptions struct {
	Options

	// Templates are the packets that Rx hands out, round and round. Each fits
	// a chunk behind the headroom. None: Rx returns nothing, the port only sinks.
	Templates [][]byte

	// HeaderOnly, when above zero, copies only that many bytes of a template
	// into its frame, whose length is still the template's. The rest of the
	// frame is what lay there before: for work that does not look at payloads.
	HeaderOnly int

	// OnWrap, if set, is called each time the whole list was handed out: by
	// the Rx that begins the next round, before it takes a frame, so that
	// packets of two rounds are never in one burst and those of the last round
	// are done with.
	OnWrap func()

	// Sink, if set, sees every packet that Tx takes. It must not keep the bytes.
	Sink func(packet []byte)
}

// Generator is an endless source and sink of packets. It implements pmd.Port.
type Generator struct {
	info   pmd.Info
	pool   *pmd.Pool
	list   []template
	next   int // of list
	onWrap func()
	sink   func([]byte)
	bases  [256]uint32 // scratch
	count  pmd.Counters
}

// template is a packet: the bytes to copy, and the length to announce.
type template struct {
	bytes  []byte
	length uint16
}

// NewGenerator returns a Generator. It keeps the templates, and does not
// change them.
func NewGenerator(o GeneratorOptions) (*Generator, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.HeaderOnly < 0 {
		return nil, fmt.Errorf("%w: HeaderOnly is %d", ErrOptions, o.HeaderOnly)
	}
	g := &Generator{info: o.info(), pool: o.Pool, onWrap: o.OnWrap, sink: o.Sink}
	for i, t := range o.Templates {
		if room := o.Pool.Chunk() - pmd.Headroom; len(t) > room {
			return nil, fmt.Errorf("%w: template %d has %d bytes and a frame has room for %d: use larger frames", ErrOptions, i, len(t), room)
		}
		length := uint16(len(t))
		if o.HeaderOnly > 0 {
			t = t[:min(len(t), o.HeaderOnly)]
		}
		g.list = append(g.list, template{t, length})
	}
	return g, nil
}

// Rx hands out copies of the next templates.
func (g *Generator) Rx(fs []pmd.Frame) int {
	if len(g.list) == 0 {
		return 0
	}
	want := min(len(fs), len(g.bases))
	if g.onWrap != nil {
		if g.next == len(g.list) {
			g.onWrap()
			g.next = 0
		}
		want = min(want, len(g.list)-g.next)
	}
	bases := g.bases[:g.pool.Get(g.bases[:want])]
	fs = fs[:len(bases)]
	mem, next, octets := g.pool.Mem(), g.next, uint64(0)
	for i, base := range bases {
		if next == len(g.list) {
			next = 0
		}
		t := &g.list[next]
		next++
		copy(mem[int(base)+pmd.Headroom:], t.bytes)
		fs[i] = pmd.Frame{Base: base, Off: pmd.Headroom, Len: t.length}
		octets += uint64(t.length)
	}
	g.next = next
	g.count.RxPackets += uint64(len(bases))
	g.count.RxBytes += octets
	return len(bases)
}

// Tx takes all frames, counts them and returns them to the pool.
func (g *Generator) Tx(fs []pmd.Frame) int {
	octets := uint64(0)
	for _, f := range fs {
		if g.sink != nil {
			g.sink(g.pool.Bytes(f))
		}
		octets += uint64(f.Len)
		g.pool.Put(f.Base)
	}
	g.count.TxPackets += uint64(len(fs))
	g.count.TxBytes += octets
	g.count.TxDone += uint64(len(fs))
	return len(fs)
}

// Flush publishes the counters.
func (g *Generator) Flush() { g.count.Publish() }

// FD returns -1: there is nothing to poll.
func (g *Generator) FD() int { return -1 }

// Info describes the port.
func (g *Generator) Info() pmd.Info { return g.info }

// Stats returns the counters as of the last Flush.
func (g *Generator) Stats() pmd.Stats { return g.count.Load() }

// Close publishes the counters; a Generator holds no frames.
func (g *Generator) Close() error {
	g.count.Publish()
	return nil
}

var _ pmd.Port = (*Generator)(nil)
