package control

import (
	"slices"
	"testing"
	"time"

	"spigot/control/ipsecconf"
	"spigot/sad"
	"spigot/spd"
)

// forDSCP is for packets of these codepoints alone.
func forDSCP(dscps ...uint8) func(*sad.Params) {
	return func(p *sad.Params) { p.ForDSCP = sad.CodepointsOf(dscps...) }
}

// TestClassesOfTheConfiguration: a policy has the newest SA for each codepoint, and
// what a reload changes of one class leaves the SAs of the others, and their
// sequence numbers, alone.
func TestClassesOfTheConfiguration(t *testing.T) {
	g := newGateway(t)
	g.see()
	const pol = "to 10.2.0.0/16"
	// uses checks the SPIs for codepoints 46, 34 and 0, and which of the SAs before
	// are the same still.
	var had sad.Classes
	uses := func(step string, voice, video, rest uint32, same ...uint8) {
		t.Helper()
		var list []PolicyInfo
		g.Do(func() { list = g.reportPolicies() })
		i := slices.IndexFunc(list, func(p PolicyInfo) bool { return p.Name == pol })
		sa, classes := g.sad.Load().OutboundsOn(list[i].ID, 1)
		if classes == nil {
			classes = new(sad.Classes)
		}
		got := [3]uint32{spiOf(classes[46]), spiOf(classes[34]), spiOf(sa)}
		if got != [3]uint32{voice, video, rest} || classes[0] != nil {
			t.Errorf("%s: SPIs %d for 46, 34 and the rest, want %d", step, got, [3]uint32{voice, video, rest})
		}
		if list[i].BoundSPI != rest || slices.Contains(list[i].DSCPSPIs, voice) != (voice != 0) {
			t.Errorf("%s: reported as %d and %d", step, list[i].BoundSPI, list[i].DSCPSPIs)
		}
		for _, d := range same {
			if classes[d] != had[d] {
				t.Errorf("%s: the SA for codepoint %d is another one", step, d)
			}
		}
		had = *classes
	}
	rest, voice, both := sa(300, here, peer), sa(301, here, peer, forDSCP(46)), sa(302, here, peer, forDSCP(34, 46))
	g.load(t, protect("10.2.0.0/16"), rest, both, voice, sa(303, peer, here, forDSCP(46)))
	uses("the newest for each", 301, 302, 300)
	had[34].Reserve(1000)
	g.load(t, protect("10.2.0.0/16"), rest, both, voice, sa(304, here, peer, forDSCP(46)))
	uses("one rekeyed", 304, 302, 300, 34)
	g.load(t, protect("10.2.0.0/16"), rest, both, voice)
	uses("the new one gone", 301, 302, 300, 34)
	if n := had[34].Seq(); n != 1000 {
		t.Errorf("the other class is at number %d, want 1000", n)
	}
	g.load(t, protect("10.2.0.0/16"), rest, sa(302, here, peer, forDSCP(34)), voice)
	uses("another set", 301, 302, 300, 46)
	had[46].Advance(lastSeq(&had[46].SA))
	g.round(time.Now())
	uses("one used up", 0, 302, 300, 34)
	g.load(t, protect("10.2.0.0/16"), sa(302, here, peer, forDSCP(34)))
	uses("none for the rest", 0, 302, 0, 34)
	g.load(t, protect("10.2.0.0/16"), sa(302, here, peer))
	uses("no classes", 0, 0, 302)
}

func spiOf(sa *sad.Outbound) uint32 {
	if sa == nil {
		return 0
	}
	return sa.SPI
}

// What SAs for some codepoints are reported as, and that no policy uses them which
// wants several SAs, or one for each flow.
func TestClassesAreReported(t *testing.T) {
	g := newGateway(t)
	g.see()
	bundle := protect("10.2.0.0/16")
	bundle.SetTemplates(bundle.Template, spd.Template{Proto: 51, Mode: spd.Transport, Src: addr(here), Dst: addr(peer), Reqid: 9})
	perFlow := protect("10.3.0.0/16", func(p *spd.Policy) { p.PFP = spd.PFPAll })
	g.load(t, bundle, perFlow, protect("10.4.0.0/16"), sa(301, here, peer, forDSCP(46, 34)), sa(302, peer, here, forDSCP(46)))
	list := g.reportSAs()
	if len(list) != 2 || !slices.Equal(list[0].ForDSCP, []int{34, 46}) || len(list[0].Policies) != 1 || list[1].ForDSCP != nil {
		t.Errorf("reported as %+v", list)
	}
	if n := g.log.count("has no use for an SA"); n != 2 {
		t.Errorf("%d policies without use for it, want 2", n)
	}
	before := len(list)
	if err := g.Load(&ipsecconf.Config{}); err != nil {
		t.Fatal(err)
	}
	if list = g.reportSAs(); len(list) != 0 {
		t.Errorf("%d of %d SAs are left", len(list), before)
	}
}
