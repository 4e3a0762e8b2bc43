package main

import (
	"bytes"
	"fmt"
	"slices"

	"spigot/control/pfkey"
)

// saKey names an SA (RFC 4301, section 4.1).
type saKey struct {
	typ pfkey.SAType
	spi uint32
	dst pfkey.Address
}

// policyKey names a policy for PF_KEY.
type policyKey struct {
	dir      uint8
	src, dst pfkey.Address
}

func saKeyOf(m *pfkey.Message) saKey         { return saKey{m.SAType, m.SA.SPI, m.Dst} }
func policyKeyOf(m *pfkey.Message) policyKey { return policyKey{m.Policy.Dir, m.Src, m.Dst} }

// plan says what is missing at the gateway: SAs first, since a policy without
// one would ask for it.
func (l *loader) plan(w *wanted) (*plan, error) {
	p := &plan{}
	if err := l.planSAs(p, w.sas); err != nil {
		return nil, err
	}
	if err := l.planPolicies(p, w.policies); err != nil {
		return nil, err
	}
	return p, nil
}

func (l *loader) planSAs(p *plan, steps []step) error {
	have, err := l.dump(pfkey.Dump)
	if err != nil {
		return err
	}
	there := make(map[saKey]*pfkey.Message)
	for _, m := range have {
		defer m.Wipe()
		there[saKeyOf(m)] = m
	}
	from := make(map[saKey]string)
	for _, s := range steps {
		key := saKeyOf(s.m)
		if other, twice := from[key]; twice {
			return fmt.Errorf("%s: SPI %#x for %v is that of %s, too: give each SA its own", s.from, key.spi, key.dst, other)
		}
		from[key] = s.from
		switch old := there[key]; {
		case old == nil:
			p.steps = append(p.steps, s)
		case !sameSA(old, s.m):
			return fmt.Errorf("%s: the gateway has another SA with SPI %#x for %v: choose another SPI, or delete that first",
				s.from, key.spi, key.dst)
		}
	}
	return nil
}

// sameSA says whether two messages are about one SA. One of the gateway's own
// configuration shows no keys: then they are not compared.
func sameSA(old, m *pfkey.Message) bool {
	shown := len(old.EncKey)+len(old.AuthKey) > 0
	return old.SA.Enc == m.SA.Enc && old.SA.Auth == m.SA.Auth && old.SA2.Mode == m.SA2.Mode && old.SA2.Reqid == m.SA2.Reqid &&
		old.Src == m.Src && (!shown || bytes.Equal(old.EncKey, m.EncKey) && bytes.Equal(old.AuthKey, m.AuthKey))
}

func (l *loader) planPolicies(p *plan, steps []step) error {
	have, err := l.dump(pfkey.SPDDump)
	if err != nil {
		return err
	}
	there := make(map[policyKey]*pfkey.Message)
	for _, m := range have {
		there[policyKeyOf(m)] = m
	}
	from := make(map[policyKey]string)
	for _, s := range steps {
		key := policyKeyOf(s.m)
		if other, twice := from[key]; twice {
			return fmt.Errorf("%s: direction and selector are those of %s, too: the second would never be reached", s.from, other)
		}
		from[key] = s.from
		s.old = there[key]
		if s.old != nil {
			if samePolicy(s.old, s.m) {
				continue
			}
			s.m.Type = pfkey.SPDUpdate
		}
		p.steps = append(p.steps, s)
	}
	return nil
}

func samePolicy(old, m *pfkey.Message) bool {
	a, b := &old.Policy, &m.Policy
	return a.Kind == b.Kind && a.Priority == b.Priority && a.PFP == b.PFP && slices.Equal(a.Requests, b.Requests)
}
