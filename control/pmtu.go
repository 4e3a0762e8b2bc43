package control

import (
	"time"

	"spigot/internal/counter"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/sad"
)

// Of the paths that ICMP tells of. Anybody can send such a message: RFC 4301,
// sections 6.1 and 8.2.1, want what it says to be held against the SAs, and to
// have bounds.
const (
	// leastPath4 is the narrowest IPv4 path that is believed. What is narrower yet is
	// left to the routers on it, which may fragment then. An IPv6 path has at least
	// minMTU6 (RFC 8201, section 4).
	leastPath4 = 576
	// quoteAge is by how many packets what a message quotes may lie behind what the
	// SA has sent: a tenth of a second at ten million a second.
	quoteAge = 1 << 20
)

// pathReport is what an ICMP error says of a path.
type pathReport struct {
	src, dst flow.Addr // of the packet that it quotes
	proto    uint8
	size     int        // of that packet
	udp      wire.Ports // of ESP in UDP; else nil
	spi, seq uint32
	mtu      int // what the next hop takes; 0: an old router, which does not say
}

// learnPath lowers the path MTU of the SA that packet, an ICMP error, is about.
func (c *Controller) learnPath(packet []byte, now time.Time) {
	r, ok := readPathReport(packet)
	if !ok {
		c.stats.PathsRefused++
		return
	}
	sa := c.db.FindOutbound(r.spi, r.dst, r.proto)
	if sa == nil || !r.isAbout(sa) {
		c.stats.PathsRefused++
		return
	}
	mtu, fragments, ok := r.clamped()
	if known := sa.PathMTU(); !ok || mtu > known || mtu == known && (!fragments || sa.PathFragments()) {
		c.stats.PathsRefused++
		return
	}
	c.log.Info("path of an SA is narrower", "sa", &sa.SA, "mtu", mtu, "was", sa.PathMTU())
	sa.SetPathMTU(mtu, fragments)
	c.paths[pathOf(sa)] = now
	c.stats.PathsLowered++
}

// pathOf is the name by which paths has sa.
func pathOf(sa *sad.Outbound) SAID { return SAID{SPI: sa.SPI, Dst: sa.Dst, Proto: sa.Proto} }

// forgetPaths has those SAs try a larger path MTU that have not done so for long.
func (c *Controller) forgetPaths(now time.Time) {
	for id, since := range c.paths {
		if now.Sub(since) < c.cfg.PathMTULife {
			continue
		}
		delete(c.paths, id)
		if sa := c.db.FindOutbound(id.SPI, id.Dst, id.Proto); sa != nil && sa.PathKnown() {
			sa.ForgetPathMTU()
			c.stats.PathsRaised++
		}
	}
}

// readPathReport reads an ICMP error that says that a packet is too big, as far
// as an SA can be told by it.
func readPathReport(ip []byte) (r pathReport, ok bool) {
	var t flow.Tuple
	info, reason := wire.Classify(ip, &t)
	if reason != counter.None || info.Fragment {
		return r, false
	}
	m := wire.ICMP(ip[info.HeaderLen:info.Len])
	if m.Valid() != counter.None {
		return r, false
	}
	q := m.Body()
	switch {
	case !info.V6 && info.Proto == wire.ProtoICMP:
		ok = m.Type() == wire.ICMPUnreachable && m.Code() == wire.ICMPFragNeeded &&
			wire.Checksum(m) == 0 && len(q) >= wire.IPv4Len && q[0]>>4 == 4
		if ok {
			h := wire.IPv4(q)
			r.src, r.dst, r.size, r.mtu = h.Src(), h.Dst(), h.TotalLen(), m.MTU4()
		}
	case info.V6 && info.Proto == wire.ProtoICMPv6:
		ok = m.Type() == wire.ICMPv6PacketTooBig &&
			wire.UpperChecksum(t.Src, t.Dst, wire.ProtoICMPv6, m) == 0 && len(q) >= wire.IPv6Len && q[0]>>4 == 6
		if ok {
			h := wire.IPv6(q)
			r.src, r.dst, r.size, r.mtu = h.Src(), h.Dst(), h.TotalLen(), m.MTU6()
		}
	}
	return r, ok && r.readUpper(q)
}

// readUpper reads SPI and sequence number of the packet that starts at q.
func (r *pathReport) readUpper(q []byte) bool {
	proto, b, ok := wire.Quoted(q)
	if !ok {
		return false
	}
	if r.proto = proto; proto == wire.ProtoUDP && len(b) >= wire.UDPLen {
		r.udp, b = wire.Ports(b), b[wire.UDPLen:]
		r.proto = wire.ProtoESP
	}
	switch {
	case r.proto == wire.ProtoESP && len(b) >= wire.ESPLen:
		r.spi, r.seq = wire.ESP(b).SPI(), wire.ESP(b).Seq()
	case r.proto == wire.ProtoAH && r.udp == nil && len(b) >= wire.AHLen:
		r.spi, r.seq = wire.AH(b).SPI(), wire.AH(b).Seq()
	default:
		return false
	}
	return true
}

// isAbout says whether sa has sent the packet that r quotes, of late, and whether
// that one did not fit what r says.
func (r *pathReport) isAbout(sa *sad.Outbound) bool {
	if sa.Src != r.src || (sa.Encap.Type != 0) != (r.udp != nil) {
		return false
	}
	if r.udp != nil && (r.udp.Src() != sa.Encap.SrcPort || r.udp.Dst() != sa.Encap.DstPort) {
		return false
	}
	sent := sa.Seq()
	age := uint64(uint32(sent) - r.seq)
	return age < quoteAge && age < sent && r.mtu < r.size
}

// clamped returns the path MTU that r stands for, and whether the path is
// narrower than that.
func (r *pathReport) clamped() (mtu int, fragments, ok bool) {
	if !r.dst.Is4() {
		return r.mtu, false, r.mtu >= minMTU6
	}
	mtu = r.mtu
	if mtu == 0 {
		mtu = plateauBelow(r.size)
	}
	return max(mtu, leastPath4), mtu < leastPath4, true
}

// plateauBelow returns the largest usual MTU that is smaller than size (RFC 1191,
// section 7.1).
func plateauBelow(size int) int {
	for _, mtu := range [...]int{32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296} {
		if mtu < size {
			return mtu
		}
	}
	return minMTU4
}
