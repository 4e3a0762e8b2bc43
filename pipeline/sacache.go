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

// lookup returns the ESP SA for (spi, dst), or nil. An entry is used only
// under the snapshot that it was read from, so it never outlives its SA.
func (c *saCache) lookup(s *sad.Snapshot, spi uint32, dst *flow.Addr) *sad.Inbound {
	if c.gen != s.Gen {
		clear(c.way[:])
		c.gen = s.Gen
	}
	way := &c.way[spi%saCacheSize]
	if sa := *way; sa != nil && sa.SPI == spi && sa.Dst == *dst {
		return sa
	}
	sa := s.Inbound(spi, dst, wire.ProtoESP)
	if sa != nil {
		*way = sa
	}
	return sa
}
