package spd

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestTemplates(t *testing.T) {
	esp, ah := Template{Proto: 50, Mode: Transport, Reqid: 1}, Template{Proto: 51, Mode: Transport, Reqid: 2}
	for _, all := range [][]Template{{esp}, {esp, ah}, {esp, ah, esp}, {esp, ah, esp, ah}} {
		p := policy(1, between("10.1.0.0/16", "10.2.0.0/16"))
		p.Action = Protect
		p.SetTemplates(all...)
		if err := p.Check(); err != nil {
			t.Errorf("%d templates: %v", len(all), err)
		}
		if got := p.Templates(); !slices.Equal(got, all) {
			t.Errorf("got %v, want %v", got, all)
		}
		if p.Bundle != nil != (len(all) > 1) || p.Bundle != nil && p.Template.Proto != 0 {
			t.Errorf("%d templates: a bundle and a template at once, or neither", len(all))
		}
		p.Action = Bypass
		if got := p.Templates(); got != nil {
			t.Errorf("bypass wants %v", got)
		}
		p.SetTemplates()
		if p.Template != (Template{}) || p.Bundle != nil {
			t.Error("templates stay behind")
		}
	}
}

func TestBadBundles(t *testing.T) {
	esp := Template{Proto: 50}
	for _, c := range []struct {
		name   string
		b      Bundle
		single Template
		says   string
	}{
		{"empty", Bundle{}, Template{}, "0 SAs"},
		{"one", Bundle{esp}, Template{}, "1 SAs"},
		{"a template beside it", Bundle{esp, esp}, esp, "one of them"},
		{"a gap", Bundle{esp, esp, {}, esp}, Template{}, "gaps"},
		{"a gap that names no protocol", Bundle{esp, esp, {Reqid: 1}}, Template{}, "gaps"},
		{"IPComp", Bundle{esp, {Proto: 108}}, Template{}, "protocol 108"},
		{"no such mode", Bundle{{Proto: 51, Mode: 7}, esp}, Template{}, "mode 7"},
	} {
		p := policy(1, between("10.1.0.0/16", "10.2.0.0/16"))
		p.Action = Protect
		p.Template, p.Bundle = c.single, &c.b
		if err := p.Check(); !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v does not say %q", c.name, err, c.says)
		}
	}
}
