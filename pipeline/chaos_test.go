package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/pmd"
	"spigot/sad"
	"spigot/spd"
)

// chaos is two gateways that face one another, hosts of their own behind enc0
// and all, whose SAs, policies, MTUs and path MTUs somebody changes all the time.
type chaos struct {
	*testing.T
	*rand.Rand
	sides [2]*host
	spi   uint32
}

// pick returns one of list.
func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// suite is an SA of any kind.
func (c *chaos) suite() tunnel {
	tn := pick(c.Rand,
		tunnel{enc: "aes-gcm-16", encLen: 20},
		tunnel{enc: "aes-cbc", encLen: 16, integ: "hmac-sha2-512-256", authLen: 64},
		tunnel{enc: "null", integ: "hmac-sha2-256-128", authLen: 32},
		tunnel{ah: true, integ: "hmac-sha2-256-128", authLen: 32})
	c.spi += 2
	tn.spi, tn.window, tn.esn, tn.outer6 = c.spi, 64, c.IntN(3) == 0, c.IntN(2) == 0
	tn.udp = !tn.ah && c.IntN(4) == 0
	switch c.IntN(5) {
	case 0:
		tn.gate = true
	case 1:
		tn.host = true
	default:
		tn.outer = sad.Outer{
			DF: pick(c.Rand, sad.DFCopy, sad.DFSet, sad.DFClear), SplitFirst: c.IntN(2) == 0, MSS: pick[uint16](c.Rand, 0, 1000, sad.MSSPath),
			TFC: pick[uint16](c.Rand, 0, 0, 600, sad.TFCPath), DecapDSCP: c.IntN(2) == 0, Label: pick(c.Rand, sad.LabelCopy, sad.LabelHash),
		}
	}
	return tn
}

// rekey gives both gateways an SA of one kind, or a bundle, for what policy k of
// each says, one way.
func (c *chaos) rekey(k int, fromA bool) {
	n := pick(c.Rand, 1, 1, 1, 2, 3)
	var outs []*sad.Outbound
	from, to := c.sides[0], c.sides[1]
	if !fromA {
		from, to = to, from
	}
	var templates []spd.Template
	for range n {
		tn := c.suite()
		out, err := sad.NewOutbound(tn.params(fromA))
		if err != nil {
			c.Fatal(err)
		}
		in, err := sad.NewInbound(tn.params(fromA))
		if err != nil {
			c.Fatal(err)
		}
		if from.db.AddOutbound(out) != nil || to.db.AddInbound(in) != nil {
			c.Fatal("an SPI twice")
		}
		outs, templates = append(outs, out), append(templates, naming(&out.SA))
	}
	ids := [2]uint32{}
	for i, side := range []*host{from, to} {
		p := *side.policies[spd.Dir(i)][k]
		p.Bundle, p.Action = nil, spd.Protect
		p.SetTemplates(templates...)
		ids[i] = p.ID
		side.policies[spd.Dir(i)][k] = &p
		side.publishPolicies()
	}
	if err := from.db.BindBundle(ids[0], outs); err != nil {
		c.Fatal(err)
	}
	if n == 1 && c.IntN(2) == 0 { // and another for a codepoint
		p := aes128gcm.params(fromA)
		c.spi += 2
		p.SPI, p.ForDSCP = c.spi, sad.CodepointsOf(uint8(c.IntN(2)))
		own, err := sad.NewOutbound(p)
		if err == nil {
			err = from.db.AddOutbound(own)
		}
		if err == nil {
			err = from.db.BindSeveral(ids[0], outs[0], []*sad.Outbound{own})
		}
		if err != nil {
			c.Fatal(err)
		}
	}
}

// change changes something.
func (c *chaos) change() {
	side := c.sides[c.IntN(2)]
	switch c.IntN(12) {
	case 0:
		side.setMTUs(pick(c.Rand, 1500, 9000, 576, 60000), pick(c.Rand, 1500, 9000, 1280, 600, 60000))
	case 3:
		for out := range side.db.Outbounds() {
			if c.IntN(4) == 0 {
				out.SetPathMTU(pick(c.Rand, 576, 1280, 1400, 4000), c.IntN(2) == 0)
			}
		}
	case 4:
		for out := range side.db.Outbounds() {
			if c.IntN(8) == 0 {
				_ = side.db.Remove(out.SPI, out.Dst, out.Proto)
			}
		}
	case 5:
		for in := range side.db.Inbounds() {
			if c.IntN(8) == 0 {
				_ = side.db.RemoveInbound(in)
			}
		}
	case 6:
		list := side.policies[spd.Dir(c.IntN(2))]
		k := c.IntN(len(list))
		p := *list[k]
		p.Action = pick(c.Rand, spd.Protect, spd.Protect, spd.Bypass, spd.Discard)
		list[k] = &p
		side.publishPolicies()
	default:
		c.rekey(c.IntN(len(side.policies[spd.Out])), side.side == 'a')
	}
	side.epochs.Reap()
}

// packet is a frame from a host of side, or what looks like one.
func (c *chaos) packet(side *host) []byte {
	src4, dst4, src6, dst6 := hostA4, hostB4, hostA6, hostB6
	if c.IntN(3) == 0 {
		src4, dst4, src6, dst6 = gwA4, gwB4, gwA6, gwB6
	}
	if side.side == 'b' {
		src4, dst4, src6, dst6 = dst4, src4, dst6, src6
	}
	size := pick(c.Rand, 60, 100, 576, 1280, 1400, 1500, 1750, 2000, 4000, 8900) + c.IntN(40)
	f := udp4(src4, dst4, 64, size)
	if c.IntN(2) == 0 {
		f = udp6(src6, dst6, 64, size)
	} else if c.IntN(2) == 0 {
		f = clearDF(f)
	}
	return marked(f, uint8(c.IntN(3)))
}

// hurt does to a frame what happens on a bad wire, or by a bad peer.
func (c *chaos) hurt(f []byte) []byte {
	f = bytes.Clone(f)
	switch c.IntN(12) {
	case 0:
		return f[:c.IntN(len(f)+1)]
	case 1:
		f[14+c.IntN(min(len(f)-14, 60))] ^= byte(1 << c.IntN(8))
	case 2:
		if f[14]>>4 == 4 {
			binary.BigEndian.PutUint16(f[14+6:], uint16(c.IntN(1<<14)))
			return fixSum4(f)
		}
	case 3:
		f[14+9] = pick[byte](c.Rand, 50, 51, 17, 44, 1, 58)
		if f[14]>>4 == 4 {
			return fixSum4(f)
		}
	}
	return f
}

// turn lets all send something, and carries what leaves to the other side.
func (c *chaos) turn() {
	for _, side := range c.sides {
		for range c.IntN(8) {
			side.host.Inject(c.hurt(c.packet(side)))
		}
		for range c.IntN(4) {
			ip := c.packet(side)[14:]
			pieces := [][]byte{ip}
			if c.IntN(2) == 0 {
				pieces = cutByHost(ip, pick(c.Rand, 600, 1400), byte(c.IntN(4)))
			}
			for _, p := range pieces {
				m := make([]fib.HostPacket, 1)
				m[0].Len = uint16(copy(m[0].Data[:], p))
				side.cfg.Host.Sent.Push(m)
			}
		}
		side.w.Turn()
	}
	for i, side := range c.sides {
		for _, f := range side.wire.Take() {
			for range pick(c.Rand, 0, 1, 1, 1, 1, 1, 1, 2) {
				c.sides[1-i].wire.Inject(c.hurt(retarget(f)))
			}
		}
		side.host.Take()
		for m := make([]fib.HostPacket, 16); side.cfg.Host.Got.Pop(m) > 0; {
		}
		for m := make([]fib.Punt, 16); side.cfg.Punts.Pop(m) > 0; {
		}
		for m := make([]spd.AcquireRequest, 16); side.cfg.Acquires.Pop(m) > 0; {
		}
	}
}

// TestEverythingAtOnce: whatever changes under packets of any length, with SAs of
// any kind and in bundles, whatever comes, nothing ends the worker, no frame is
// lost, and each packet is counted once.
func TestEverythingAtOnce(t *testing.T) {
	for seed := range uint64(4) {
		c := &chaos{T: t, Rand: rand.New(rand.NewPCG(seed, 1)), spi: 0x10000}
		j := jumbos
		if seed%2 == 0 {
			j = pmd.Jumbo{}
		}
		for i, side := range []byte{'a', 'b'} {
			l := newLoneOf(t, side, 512)
			if j.Count > 0 {
				l = newJumbo(t, side, j)
			}
			c.sides[i] = hosted(t, l, 64, aes128gcm)
			for _, dir := range []spd.Dir{spd.Out, spd.In} { // OPAQUE and ports, in front
				sel := port(selector(netip.PrefixFrom(addr4(i), 8), netip.PrefixFrom(addr4(1-i), 8)), 2000)
				opaque := sel
				opaque.SrcPort, opaque.DstPort = flow.OpaquePort, flow.OpaquePort
				for _, s := range []flow.Selector{sel, opaque} {
					if dir == spd.In {
						s = s.Mirrored()
					}
					l.addPolicy(spd.Policy{Dir: dir, Sel: s, Action: spd.Protect, Template: naming(&c.sides[i].out.SA)})
				}
				all := l.policies[dir]
				l.policies[dir] = append(slices.Clone(all[len(all)-2:]), all[:len(all)-2]...)
			}
			l.publishPolicies()
		}
		for range 800 {
			if c.IntN(6) == 0 {
				c.change()
			}
			c.turn()
		}
		for _, side := range c.sides {
			if v := side.values(); v.Tx == 0 || v.Joined == 0 || v.Fragments == 0 || v.Punted == 0 {
				t.Errorf("seed %d: not all of it happened: %+v", seed, v)
			}
		}
	}
}

func addr4(i int) netip.Addr { return []netip.Addr{hostA4, hostB4}[i] }
