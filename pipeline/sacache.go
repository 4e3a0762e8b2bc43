package pipeline

import (
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/sad"
)

// saCache is a worker's direct-mapped cache in front of the SAD, by SPI. SPIs
// are chosen by the receiver, at random or in a row: their low bits spread.
type saCache struct {
	gen uint64
	way [saCacheSize]*sad.Inbound
}

const saCacheSize = 1024

// lookup returns the ESP SA of a packet, or nil. An entry is used only under the
// snapshot that it was read from, so it never outlives its SA. What does not
// depend on SPI and destination alone is no entry.
func (c *saCache) lookup(s *sad.Snapshot, spi uint32, t *flow.Tuple) *sad.Inbound {
	if c.gen != s.Gen {
		clear(c.way[:])
		c.gen = s.Gen
	}
	way := &c.way[spi%saCacheSize]
	if sa := *way; sa != nil && sa.SPI == spi && sa.Dst == t.Dst {
		return sa
	}
	sa, only := s.Find(spi, &t.Dst, &t.Src, wire.ProtoESP)
	if only {
		*way = sa
	}
	return sa
}
