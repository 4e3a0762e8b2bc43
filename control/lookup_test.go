package control

import (
	"errors"
	"testing"

	"spigot/sad"
)

// TestLookupsOfTheConfiguration: SAs that differ in what names them stand
// beside one another, are shown with it, leave one by one, and are no daemon's.
func TestLookupsOfTheConfiguration(t *testing.T) {
	by := func(l sad.Lookup, key byte) func(*sad.Params) {
		return func(p *sad.Params) { p.Lookup, p.EncKey[0] = l, key }
	}
	src, dst, spi := sa(300, peer, here, by(sad.BySrcDst, 1)), sa(300, peer, here, by(sad.ByDst, 2)), sa(300, peer, here, by(sad.BySPI, 3))
	g := newGateway(t)
	g.see()
	g.load(t, src, dst, spi)
	var shown []string
	for _, info := range g.reportSAs() {
		shown = append(shown, info.Lookup)
	}
	if len(shown) != 3 || shown[0] != "src" || shown[1] != "" || shown[2] != "spi" {
		t.Errorf("shown with %q", shown)
	}
	local, from, other := addr(here), addr(peer), addr("198.51.100.9")
	find := func(src, dst string) sad.Lookup {
		t.Helper()
		to, from := addr(dst), addr(src)
		found, _ := g.sad.Load().Find(300, &to, &from, 50)
		if found == nil {
			t.Fatalf("no SA for %s -> %s", src, dst)
		}
		return found.Lookup
	}
	if got := [...]sad.Lookup{find(peer, here), find("198.51.100.9", here), find(peer, "10.1.0.1")}; got != [...]sad.Lookup{sad.BySrcDst, sad.ByDst, sad.BySPI} {
		t.Errorf("found by %v", got)
	}
	g.key(t, func(k *Keying) {
		if _, err := k.DeleteSA(daemon, id(300, here)); !errors.Is(err, ErrStatic) {
			t.Errorf("a daemon deletes it: %v", err)
		}
	})
	g.load(t, src, spi)
	if got, _ := g.sad.Load().Find(300, &local, &other, 50); got == nil || got.Lookup != sad.BySPI {
		t.Errorf("with the one by destination gone: %v", got)
	}
	g.load(t, spi)
	if got, only := g.sad.Load().Find(300, &local, &from, 50); got == nil || got.Lookup != sad.BySPI || only {
		t.Errorf("with the one by source gone: %v", got)
	}
	if err := g.Load(conf(spi, sa(300, peer, "10.1.0.1", by(sad.BySPI, 4)))); !errors.Is(err, sad.ErrExists) {
		t.Errorf("two by one SPI alone: %v", err)
	}
	if err := g.Load(conf(sa(300, peer, here, by(sad.BySPI+1, 5)))); !errors.Is(err, sad.ErrParams) {
		t.Errorf("a lookup there is not: %v", err)
	}
}
