package spd

// MaxBundle is how many SAs a policy may put around one packet.
const MaxBundle = 4

// Bundle names the SAs that a policy applies one around the other (RFC 4301,
// section 4.1), the innermost first; a Template without Proto ends it. It has
// two or more.
type Bundle [MaxBundle]Template

// Len returns how many SAs b names.
func (b *Bundle) Len() int {
	for i := range b {
		if b[i].Proto == 0 {
			return i
		}
	}
	return len(b)
}

// Templates returns the SAs that p wants, the innermost first: one, or a
// bundle's; none if it does not protect. The slice is the caller's.
func (p *Policy) Templates() []Template {
	switch {
	case p.Action != Protect:
		return nil
	case p.Bundle == nil:
		return []Template{p.Template}
	}
	b := *p.Bundle
	return b[:p.Bundle.Len()]
}

// SetTemplates makes p want these SAs, the innermost first: at most MaxBundle,
// of which the others are lost.
func (p *Policy) SetTemplates(all ...Template) {
	p.Template, p.Bundle = Template{}, nil
	switch len(all) {
	case 0:
	case 1:
		p.Template = all[0]
	default:
		p.Bundle = new(Bundle)
		copy(p.Bundle[:], all)
	}
}

// checkBundle says what is wrong with p's bundle.
func (p *Policy) checkBundle() error {
	if p.Template != (Template{}) {
		return p.bad("it has a template and a bundle: give one of them")
	}
	n := p.Bundle.Len()
	if n < 2 {
		return p.bad("its bundle names %d SAs: give two or more, or a template", n)
	}
	for i := range p.Bundle {
		if i >= n && p.Bundle[i] != (Template{}) {
			return p.bad("its bundle has a template behind its end: leave no gaps")
		}
		if i < n {
			if err := p.checkTemplate(&p.Bundle[i]); err != nil {
				return err
			}
		}
	}
	return nil
}
