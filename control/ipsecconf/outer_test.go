package ipsecconf

import (
	"strings"
	"testing"

	"spigot/sad"
)

// What an SA may say of its outer header, and how a report says it again.
func TestOuterHeaderOptions(t *testing.T) {
	sa := "esp from 192.0.2.1 to 192.0.2.2 spi 300:301 enc null authkey " + k32 + ":" + k32 + " "
	same := new(sad.DSCPMap)
	for i := range same {
		same[i] = uint8(i)
	}
	mapped := *same
	mapped[46], mapped[10] = 34, 0
	for _, c := range []struct {
		text string
		want sad.Outer
		dscp *sad.DSCPMap
	}{
		{text: ""},
		{text: "df set", want: sad.Outer{DF: sad.DFSet}},
		{text: "df clear", want: sad.Outer{DF: sad.DFClear}},
		{text: "dscp 0", dscp: sad.DSCPSet(0)},
		{text: "dscp 46", dscp: sad.DSCPSet(46)},
		{text: "dscp { 10:0, 46:34 }", dscp: &mapped},
		{text: "ecn off", want: sad.Outer{NoECN: true}},
		{text: "ttl 255", want: sad.Outer{TTL: 255}},
		{text: "flowlabel copy", want: sad.Outer{Label: sad.LabelCopy}},
		{text: "flowlabel hash", want: sad.Outer{Label: sad.LabelHash}},
		{text: "decapdscp copy", want: sad.Outer{DecapDSCP: true}},
		{text: "fragment before", want: sad.Outer{SplitFirst: true}},
		{text: "mss path", want: sad.Outer{MSS: sad.MSSPath}},
		{text: "mss 1360", want: sad.Outer{MSS: 1360}},
		{text: "dummy 20", want: sad.Outer{Dummy: 20}},
		{text: "tfc-pad mtu", want: sad.Outer{TFC: sad.TFCPath}},
		{text: "tfc-pad 512", want: sad.Outer{TFC: 512}},
		{text: "df clear dscp 46 ecn off ttl 9 flowlabel hash decapdscp copy", dscp: sad.DSCPSet(46),
			want: sad.Outer{DF: sad.DFClear, NoECN: true, TTL: 9, Label: sad.LabelHash, DecapDSCP: true}},
	} {
		got, err := read(sa + c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		for _, p := range got.SAs {
			if text := p.Outer.String(); text != c.text {
				t.Errorf("%q is reported as %q", c.text, text)
			}
			dscp := p.Outer.DSCP
			if (dscp == nil) != (c.dscp == nil) || dscp != nil && *dscp != *c.dscp {
				t.Errorf("%s: DSCP %v", c.text, dscp)
			}
			if p.Outer.DSCP = nil; p.Outer != c.want {
				t.Errorf("%s: %+v", c.text, p.Outer)
			}
		}
	}
	for _, text := range []string{"df copy", "dscp copy", "ecn on", "flowlabel zero", "decapdscp keep", "fragment after"} {
		if got, err := read(sa + text); err != nil || got.SAs[0].Outer != (sad.Outer{}) {
			t.Errorf("%s, the default: %+v, %v", text, got, err)
		}
	}
}

func TestOuterHeaderMistakes(t *testing.T) {
	const sa = "esp from 192.0.2.1 to 192.0.2.2 "
	for _, c := range []struct{ text, want string }{
		{sa + "df on", `t.conf:1:36: found "on": want one of copy, set, clear`},
		{sa + "df set df set", `t.conf:1:40: "df" is given twice: leave one out`},
		{sa + "dscp 64", `t.conf:1:38: codepoint is "64": want a number from 0 to 63`},
		{sa + "dscp { 1 }", `t.conf:1:40: codepoint in front of ":" is "": want a number from 0 to 63`},
		{sa + "dscp { 1:2 1:3 }", `t.conf:1:44: "codepoint 1" is given twice: leave one out`},
		{sa + "tfc-pad 0", `t.conf:1:41: tfc-pad is "0": want a number from 1 to 65534`},
		{sa + "mss 100", `t.conf:1:37: mss is "100": want a number from 456 to 65534`},
		{sa + "ttl 0", `t.conf:1:37: ttl is "0": want a number from 1 to 255`},
		{strings.Replace(sa, "esp", "esp transport", 1) + "spi 300 enc null authkey " + k32 + " df clear",
			`t.conf:1:133: there is no outer header in transport mode: leave out df, dscp, ecn, ttl, flowlabel, decapdscp, fragment, mss, tfc-pad, dummy`},
	} {
		if _, err := read(c.text); err == nil || err.Error() != c.want {
			t.Errorf("%s:\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}
