package ipsecconf

import (
	"math"
	"slices"
	"strings"

	"spigot/internal/flow"
	"spigot/sad"
)

// saRule is a manual SA as it is written, with the one of the opposite
// direction: index 0 is forth, 1 is back.
type saRule struct {
	pos        Position
	proto      uint8
	ends       [2]flow.Addr
	transport  bool
	spi        [2]uint32
	spiPos     [2]Position
	enc, auth  *algorithm
	authPos    Position
	encKey     [2]key
	authKey    [2]key
	esnPos     Position
	esn        bool
	replay     int
	reqid      uint32
	soft, hard sad.Lifetime
	lifePos    Position
	align4     bool
	align4Pos  Position
	lookup     sad.Lookup
	cpu        uint16 // counted from 1; 0: all
	cpuPos     Position
	forDSCP    sad.Codepoints
	dscpPos    Position
	outer      sad.Outer
	outerPos   Position
}

// seen is what the rules so far hold, to find what must not be there twice.
type seen struct {
	sa     map[identity]Position
	key    map[string]Position // of counter-mode ciphers
	shared map[string]bool     // files that were warned of
}

// identity is what tells SAs apart (RFC 4301, section 4.1).
type identity struct {
	spi      uint32
	dst, src flow.Addr // src: where the lookup goes by it, too; dst: unless it goes by the SPI alone
	proto    uint8
}

func identityOf(sa *sad.Params) identity {
	id := identity{spi: sa.SPI, dst: sa.Dst, proto: sa.Proto}
	switch sa.Lookup {
	case sad.BySrcDst:
		id.src = sa.Src
	case sad.BySPI:
		id.dst = flow.Addr{}
	}
	return id
}

func newSeen() seen {
	return seen{map[identity]Position{}, map[string]Position{}, map[string]bool{}}
}

// sa reads a manual SA of proto; the cursor is behind "esp" or "ah".
func (p *parser) sa(pos Position, proto uint8, c *cursor) *Error {
	r := saRule{pos: pos, proto: proto}
	if !c.accept("tunnel") {
		r.transport = c.accept("transport")
	}
	h, err := c.hosts(false)
	if err != nil {
		return err
	}
	if err := r.readEnds(&h); err != nil {
		return err
	}
	given := once{}
	for c.peek().kind != end {
		if err := p.saOption(&r, c.next(), c, given); err != nil {
			return err
		}
	}
	if err := r.check(); err != nil {
		return err
	}
	return p.addSAs(&r)
}

// readEnds takes the ends of r from h. To a group many senders may have one SA.
func (r *saRule) readEnds(h *hosts) (err *Error) {
	toGroup := len(h.dst) == 1 && h.dst[0].IsGroups()
	if anySender := toGroup && isAny(h.src); !anySender {
		if r.ends[0], err = oneHost(h.src, h.srcPos); err != nil {
			return err
		}
	}
	if r.ends[1], err = oneHost(h.dst, h.dstPos); err != nil || r.ends[0].IsZero() {
		return err
	}
	if r.ends[0].IsGroup() {
		return errorAt(h.srcPos, "%v is a multicast group, and packets come from hosts: give the sender's address", r.ends[0])
	}
	if r.ends[0].Is4() != r.ends[1].Is4() {
		return errorAt(h.dstPos, "an SA from %v to %v: both ends must be of one family", r.ends[0], r.ends[1])
	}
	return nil
}

// oneHost returns the only address of an SA's end.
func oneHost(ranges []flow.AddrRange, pos Position) (flow.Addr, *Error) {
	if len(ranges) != 1 || !isHost(ranges[0]) || ranges[0].Lo.Netip().IsUnspecified() {
		return flow.Addr{}, errorAt(pos, "an SA goes from one host to one host: give a single address (networks belong into a flow)")
	}
	return ranges[0].Lo, nil
}

var saOptions = slices.Concat([]string{"spi", "auth", "enc", "authkey", "enckey", "esn", "replay", "reqid", "lookup", "lifetime", "align4", "cpu", "for-dscp"}, outerOptions)

// saOption reads the option t.
func (p *parser) saOption(r *saRule, t token, c *cursor, given once) (err *Error) {
	if t.kind == word && t.text != "lifetime" {
		if err := given.take(t); err != nil {
			return err
		}
	}
	var n uint64
	switch {
	case t.is("spi"):
		err = r.readSPI(c)
	case t.is("auth"):
		r.authPos = c.peek().pos
		r.auth, err = c.choose(integrities)
	case t.is("enc") && r.proto == protoAH:
		err = errorAt(t.pos, "AH does not encrypt: leave enc out, or write esp")
	case t.is("enc"):
		r.enc, err = c.choose(encryptions)
	case t.is("authkey"):
		r.authKey[0], r.authKey[1], err = p.keys(c)
	case t.is("enckey"):
		r.encKey[0], r.encKey[1], err = p.keys(c)
	case t.is("esn"):
		r.esn, r.esnPos = true, t.pos
	case t.is("replay"):
		n, err = c.number("replay window", 0, sad.MaxWindow)
		r.replay = int(n)
	case t.is("reqid"):
		n, err = c.number("reqid", 1, math.MaxUint32)
		r.reqid = uint32(n)
	case t.is("lookup"):
		r.lookup, err = readLookup(c)
	case t.is("lifetime"):
		r.lifePos = t.pos
		err = r.lifetime(c)
	case t.kind == word && slices.Contains(outerOptions, t.text):
		err = r.readOuter(t, c)
	case t.is("align4"):
		r.align4, r.align4Pos = true, t.pos
	case t.is("cpu"):
		n, err = c.number("cpu", 0, sad.MaxCPU-1)
		r.cpu, r.cpuPos = uint16(n)+1, t.pos
	case t.is("for-dscp"):
		r.dscpPos = t.pos
		r.forDSCP, err = c.codepoints()
	case t.is("bundle"):
		err = errorAt(t.pos, "SAs are bundled by the flow that uses them: write \"bundle\" there")
	case !strings.ContainsFunc(t.text, func(c rune) bool { return c > 0x7f || !isHex(byte(c)) }):
		err = errorAt(t.pos, "unknown option: %s: if it is a part of a key, remove the blank in front of it", hidden)
	default:
		err = errorAt(t.pos, "unknown option %v of an SA: %s", t, oneOf(saOptions))
	}
	return err
}

// readLookup reads what names an inbound SA beside its SPI.
func readLookup(c *cursor) (sad.Lookup, *Error) {
	words := []string{sad.ByDst.String(), sad.BySrcDst.String(), sad.BySPI.String()}
	t := c.next()
	if i := slices.IndexFunc(words, t.is); i >= 0 {
		return sad.Lookup(i), nil
	}
	return 0, errorAt(t.pos, "found %v: an inbound SA goes by its destination, by its source, too, or by its SPI alone: %s", t, oneOf(words))
}

// readSPI reads "X" or "X:Y".
func (r *saRule) readSPI(c *cursor) *Error {
	t, err := c.text("an SPI")
	if err != nil {
		return err
	}
	parts := strings.Split(t.text, ":")
	if len(parts) > 2 {
		return errorAt(t.pos, "there are more than two SPIs: one is for each direction")
	}
	at := t.pos
	for i, s := range parts {
		n, err := parseNumber(s, at, "SPI", 256, math.MaxUint32) // RFC 4303, section 2.1: 1-255 are reserved
		if err != nil {
			return err
		}
		r.spi[i], r.spiPos[i] = uint32(n), at
		at.Col += len(s) + 1
	}
	return nil
}

// lifetime reads "soft" or "hard" and the bounds behind it.
func (r *saRule) lifetime(c *cursor) *Error {
	life := &r.soft
	if !c.accept("soft") {
		if !c.accept("hard") {
			return errorAt(c.peek().pos, "found %v: want soft or hard", c.peek())
		}
		life = &r.hard
	}
	units := []string{"seconds", "useseconds", "bytes", "packets"}
	fields := []*uint64{&life.Seconds, &life.UseSeconds, &life.Bytes, &life.Packets}
	for n := 0; ; n++ {
		t := c.peek()
		i := slices.IndexFunc(units, t.is)
		if i < 0 && n > 0 {
			return nil
		}
		if i < 0 {
			return errorAt(t.pos, "found %v: %s and a number", t, oneOf(units))
		}
		c.next()
		if *fields[i] != 0 {
			return errorAt(t.pos, "%v is given twice: leave one out", t)
		}
		v, err := c.number(units[i], 1, math.MaxUint64)
		if err != nil {
			return err
		}
		*fields[i] = v
	}
}

// check says what is missing and what does not go together.
func (r *saRule) check() *Error {
	switch {
	case r.proto == protoAH:
		r.enc = &nothing
	case r.enc == nil:
		r.enc = named(encryptions, defaultEncryption)
	}
	switch {
	case r.spi[0] == 0:
		return errorAt(r.pos, "the SA has no SPI: add \"spi 0x1000\", or \"spi 0x1000:0x1001\" for both directions")
	case r.enc.aead && r.auth != nil:
		return errorAt(r.authPos, "%s authenticates by itself: leave %q out", r.enc.name, "auth "+r.auth.name)
	case r.enc.aead && r.authKey[0].bytes != nil:
		return errorAt(r.authKey[0].pos, "%s has one key, the enckey: leave authkey out", r.enc.name)
	case r.auth != nil && r.auth.salt > 0 && r.proto != protoAH:
		return errorAt(r.authPos, "%s is for ah: with esp, \"enc aes-128-gmac\" does the same", r.auth.name)
	case r.align4 && (r.proto != protoAH || !r.ends[0].Is4()):
		return errorAt(r.align4Pos, "align4 is for ah over IPv4: leave it out")
	case !r.enc.aead && r.auth == nil:
		r.auth = named(integrities, defaultIntegrity)
	}
	if r.spi[1] != 0 && r.ends[1].IsGroup() {
		return errorAt(r.spiPos[1], "nothing comes back from the group %v: leave the second SPI out, and give each sender an SA", r.ends[1])
	}
	if r.esn && r.replay == 0 {
		return errorAt(r.esnPos, "esn needs the replay window, which tells the high half of sequence numbers (RFC 4303, A2): add \"replay 64\" or more")
	}
	if r.cpu != 0 && r.outer.Dummy != 0 {
		return errorAt(r.cpuPos, "dummy packets go by the SA that serves all workers: leave out cpu, or dummy")
	}
	if r.forDSCP != 0 && (r.cpu != 0 || r.outer.Dummy != 0) {
		return errorAt(r.dscpPos, "an SA for some codepoints is for all workers, and sends no dummy packets: leave out for-dscp, or cpu and dummy")
	}
	if r.transport && r.outerPos != (Position{}) {
		return errorAt(r.outerPos, "there is no outer header in transport mode: leave out %s", strings.Join(outerOptions, ", "))
	}
	if err := r.checkKeys("enckey", r.enc, &r.encKey); err != nil {
		return err
	}
	if r.auth != nil {
		if err := r.checkKeys("authkey", r.auth, &r.authKey); err != nil {
			return err
		}
	}
	return r.checkLifetimes()
}

// checkKeys says which of an algorithm's keys is missing, too many or of the
// wrong length.
func (r *saRule) checkKeys(option string, a *algorithm, keys *[2]key) *Error {
	for i, k := range keys {
		direction := [2]string{"", " of the opposite direction, behind \":\","}[i]
		switch {
		case r.spi[i] == 0 && k.bytes != nil:
			return errorAt(k.pos, "the %s%s is there, but no second SPI: add it behind the first, \"spi X:Y\"", option, direction)
		case r.spi[i] == 0 || slices.Contains(a.keys, len(k.bytes)):
		case slices.Contains(a.keys, 0):
			return errorAt(k.pos, "%s takes no key: leave %s out", a.name, option)
		case k.bytes == nil:
			return errorAt(r.spiPos[i], "the %s%s is missing: %s takes %s in hex", option, direction, a.name, a.lengths())
		default:
			return errorAt(k.pos, "the %s%s has %d bytes: %s takes %s", option, direction, len(k.bytes), a.name, a.lengths())
		}
	}
	return nil
}

// checkLifetimes says which soft lifetime is not below its hard one.
func (r *saRule) checkLifetimes() *Error {
	for _, l := range []struct {
		unit       string
		soft, hard uint64
	}{
		{"seconds", r.soft.Seconds, r.hard.Seconds},
		{"useseconds", r.soft.UseSeconds, r.hard.UseSeconds},
		{"bytes", r.soft.Bytes, r.hard.Bytes},
		{"packets", r.soft.Packets, r.hard.Packets},
	} {
		if l.hard != 0 && l.soft >= l.hard {
			return errorAt(r.lifePos, "the soft lifetime of %d %s never comes before the hard one of %d: lower it", l.soft, l.unit, l.hard)
		}
	}
	return nil
}

// once refuses a key that sa, made of r, must not share with another SA.
func (p *parser) once(sa *sad.Params, r *saRule, i int) *Error {
	k := sa.CounterKey()
	if k == nil {
		return nil
	}
	a, at := r.enc, r.encKey[i].pos
	if r.proto == protoAH {
		a, at = r.auth, r.authKey[i].pos
	}
	if before, ok := p.seen.key[string(k)]; ok {
		return errorAt(at, "this is the key at %v, too: %s would use one IV twice with it, which betrays both packets; "+
			"give each SA and direction its own key", before, a.name)
	}
	p.seen.key[string(k)] = at
	return nil
}

// addSAs makes the SAs of r.
func (p *parser) addSAs(r *saRule) *Error {
	var made []*sad.Params
	for i := range r.spi {
		if r.spi[i] == 0 {
			continue
		}
		sa := &sad.Params{
			SPI: r.spi[i], Proto: r.proto, Src: r.ends[i], Dst: r.ends[1-i], Tunnel: !r.transport,
			Encryption: r.enc.to, EncKey: r.encKey[i].bytes, AuthKey: r.authKey[i].bytes,
			ESN: r.esn, Window: r.replay, Reqid: r.reqid, Soft: r.soft, Hard: r.hard, Lookup: r.lookup, Outer: r.outer, Name: r.pos.name(),
			Align4: r.align4, CPU: r.cpu, ForDSCP: r.forDSCP,
		}
		if r.auth != nil {
			sa.Integrity = r.auth.to
		}
		id := identityOf(sa)
		if at, ok := p.seen.sa[id]; ok {
			return errorAt(r.spiPos[i], "an SA of this protocol with SPI %#x to %v is at %v already: choose another SPI", sa.SPI, sa.Dst, at)
		}
		p.seen.sa[id] = r.spiPos[i]
		if err := p.once(sa, r, i); err != nil {
			return err
		}
		made = append(made, sa)
	}
	p.config.SAs = append(p.config.SAs, made...)
	return nil
}
