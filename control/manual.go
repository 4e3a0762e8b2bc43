package control

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"spigot/sad"
)

// manual is an SA of the configuration. Neither ipsec.conf nor PF_KEY says
// which direction an SA is for; the host's addresses do.
type manual struct {
	digest digest
	key    digest     // of the encryption key, for a counter-mode cipher; else zero
	params sad.Params // the keys are wiped once the SA is made
	rec    *record    // nil while the direction is not known
	told   bool       // that it is
}

// digest tells keys and manual SAs apart without keeping the keys.
type digest [sha256.Size]byte

func (c *Controller) newSecret() { _, _ = rand.Read(c.secret[:]) } // never fails: crypto/rand

// digestOf returns the digest of what cannot change in an SA without making it
// another one: all of p but its name, which is a line of a file, and lifetimes.
func (c *Controller) digestOf(p *sad.Params) digest {
	q := *p
	q.Name, q.Soft, q.Hard = "", sad.Lifetime{}, sad.Lifetime{}
	text, _ := json.Marshal(&q) // plain fields; the keys are left out
	return c.mac(text, p.EncKey, p.AuthKey)
}

// mac returns the digest of parts under a secret of this process.
func (c *Controller) mac(parts ...[]byte) digest {
	h := hmac.New(sha256.New, c.secret[:])
	for _, part := range parts {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	return digest(h.Sum(nil))
}

// directionOf tells the direction of an SA between these addresses. In
// transport mode the source may be left open.
func (c *Controller) directionOf(p *sad.Params) Direction {
	switch {
	case c.local[p.Dst]:
		return Inbound
	case p.Dst.IsGroup():
		return c.directionToGroup(p)
	case c.local[p.Src], c.view != nil && p.Src.IsZero() && !p.Tunnel:
		return Outbound
	}
	return DirectionUnknown
}

// newManual makes the SA that p describes if its direction is known; else it
// only makes sure that it can be made.
func (c *Controller) newManual(p *sad.Params, d digest) (*manual, error) {
	m := &manual{digest: d, params: *p}
	m.params.EncKey, m.params.AuthKey = slices.Clone(p.EncKey), slices.Clone(p.AuthKey)
	m.params.Selectors = slices.Clone(p.Selectors)
	if key := p.CounterKey(); key != nil {
		m.key = c.mac(key)
	}
	dir := c.directionOf(p)
	if err := m.make(dir, c.clock.now()); err != nil {
		m.wipe()
		return nil, err
	}
	return m, nil
}

// make makes the SA for dir, added now, and wipes the keys; for a direction that
// is not known yet it tries both and keeps the keys, as for one that can change:
// see Controller.turn.
func (m *manual) make(dir Direction, now time.Time) error {
	r := &record{id: idOfParams(&m.params), manual: m, added: now}
	r.describe(&m.params)
	var err error
	switch dir {
	case Inbound:
		r.in, err = sad.NewInbound(&m.params)
		r.window = m.params.Window
	case Outbound:
		r.out, err = sad.NewOutbound(&m.params)
	default:
		return tryBoth(&m.params)
	}
	if err != nil {
		return err
	}
	m.rec = r
	if r.in == nil || !r.in.Dst.IsGroup() {
		m.wipe()
	}
	return nil
}

// wipe zeroes the copies of the keys that are not yet, or no longer, an SA's.
func (m *manual) wipe() {
	clear(m.params.EncKey)
	clear(m.params.AuthKey)
	m.params.EncKey, m.params.AuthKey = nil, nil
}

// discard undoes make for an SA that never was in the SADB.
func (m *manual) discard() {
	m.wipe()
	if m.rec != nil {
		m.rec.sa().Key.Zero()
		m.rec = nil
	}
}

// placePending adds the SAs whose direction the host's addresses tell now.
func (c *Controller) placePending() {
	waiting := c.pending[:0]
	for _, m := range c.pending {
		dir := c.directionOf(&m.params)
		if dir == DirectionUnknown {
			waiting = append(waiting, m)
			c.tellUnknown(m)
			continue
		}
		err := m.make(dir, c.clock.now())
		if err == nil {
			err = c.insert(m.rec)
		}
		if err != nil { // it could be made before; there is nobody to return this to
			c.log.Error("add a manual SA", "sa", m.params, "err", err)
			m.discard()
		}
	}
	clear(c.pending[len(waiting):])
	c.pending = waiting
}

// tellUnknown logs once that m waits, when the host's addresses are known.
func (c *Controller) tellUnknown(m *manual) {
	if m.told || c.view == nil {
		return
	}
	m.told = true
	c.log.Warn("SA waits: neither its source nor its destination is an address of this host, so it is neither "+
		"inbound nor outbound; add the address, or mend the SA", "sa", m.params)
}

// checkKeys refuses algorithms that are not allowed, and keys that would make
// two packets share key and IV: a counter-mode cipher falls to that at once (RFC
// 4106, section 8; RFC 7634, section 4). The IV is the sequence number, which
// starts at 1 with each start of the process, and with each SA.
func (c *Controller) checkKeys(sas []*sad.Params) error {
	seen := make(map[digest]string)
	for _, p := range sas {
		if err := c.checkLegacy(p); err != nil {
			return fmt.Errorf("SA %s: %w", nameOf(p), err)
		}
		counted := p.CounterKey()
		if counted == nil {
			continue
		}
		if !c.cfg.AllowManualAEAD {
			return fmt.Errorf("%w: SA %s uses %s: a counter-mode cipher must never see an IV twice under one key, and a "+
				"restart of the gateway would start again at IV 1: use aes-cbc with an hmac, or a key daemon, or take "+
				"the risk with --allow-manual-aead and new keys for each start", ErrManualKey, nameOf(p), p.Encryption+p.Integrity)
		}
		key := c.mac(counted)
		if other, twice := seen[key]; twice {
			return fmt.Errorf("%w: SAs %s and %s have the same encryption key and would send the same IVs: "+
				"give each SA a key of its own", ErrManualKey, other, nameOf(p))
		}
		seen[key] = nameOf(p)
	}
	return nil
}

// nameOf names an SA of the configuration for people.
func nameOf(p *sad.Params) string {
	text := fmt.Sprintf("SPI %#x %v -> %v", p.SPI, p.Src, p.Dst)
	if p.Name == "" {
		return text
	}
	return p.Name + " (" + text + ")"
}
