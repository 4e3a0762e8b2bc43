package spd

import (
	"errors"
	"fmt"

	"spigot/internal/flow"
)

// ErrPolicy is what Compile wraps when a policy cannot be: the message names
// the policy and says how to mend it.
var ErrPolicy = errors.New("spd: bad policy")

// IP protocol numbers that a Template may name.
const (
	protoESP = 50
	protoAH  = 51
)

// Check says what is wrong with p by itself. The error wraps ErrPolicy.
func (p *Policy) Check() error {
	if p.ID == 0 {
		return p.bad("its ID is 0: give it a number of its own")
	}
	if p.Dir > In || p.Action > Protect || p.Level > DontAcq {
		return p.bad("direction %d, action %d or level %d is none of this package's: use its constants", p.Dir, p.Action, p.Level)
	}
	if err := p.checkSelector(); err != nil {
		return err
	}
	if err := p.checkPFP(); err != nil {
		return err
	}
	if p.PerCPU && (p.Dir != Out || p.Action != Protect || p.Bundle != nil || p.PFP != 0) {
		return p.bad("it wants an SA for each worker, which only an outbound policy can that protects by one SA for all its flows")
	}
	if p.Action != Protect {
		return nil
	}
	if p.Bundle != nil {
		return p.checkBundle()
	}
	return p.checkTemplate(&p.Template)
}

func (p *Policy) checkSelector() error {
	s := &p.Sel
	for _, r := range [...]struct {
		side string
		addr flow.AddrRange
	}{{"source", s.Src}, {"destination", s.Dst}} {
		if r.addr.Lo.Is4() != r.addr.Hi.Is4() {
			return p.bad("its %s range %v-%v mixes IPv4 and IPv6: write one policy a family", r.side, r.addr.Lo, r.addr.Hi)
		}
		if r.addr.Hi.Less(r.addr.Lo) {
			return p.bad("its %s range %v-%v is upside down: swap its ends", r.side, r.addr.Lo, r.addr.Hi)
		}
	}
	if fault := s.PortsFault(); fault != "" {
		return p.bad("its %s", fault)
	}
	if s.Src.Lo.Is4() != s.Dst.Lo.Is4() {
		return p.bad("its source %v and destination %v are of different families and match nothing: write one policy a family", s.Src, s.Dst)
	}
	return nil
}

func (p *Policy) checkTemplate(t *Template) error {
	if t.Proto == 0 {
		return p.bad("it says protect and has no template: give one, or bypass or discard")
	}
	if t.Proto != protoESP && t.Proto != protoAH {
		return p.bad("its template names protocol %d: use 50 for ESP or 51 for AH", t.Proto)
	}
	if t.Mode > Transport {
		return p.bad("its template's mode %d is none of this package's: use Tunnel or Transport", t.Mode)
	}
	if !t.Src.IsZero() && !t.Dst.IsZero() && t.Src.Is4() != t.Dst.Is4() {
		return p.bad("its template goes from %v to %v, which are of different families: give both ends one family", t.Src, t.Dst)
	}
	return nil
}

// bad is ErrPolicy about p, whose name and number stand in the message.
func (p *Policy) bad(format string, args ...any) error {
	name := p.Name
	if name == "" {
		name = "without a name"
	}
	return fmt.Errorf("%w: policy %s (ID %d): %s", ErrPolicy, name, p.ID, fmt.Sprintf(format, args...))
}
