package ipsecconf

import (
	"strings"

	"spigot/sad"
)

// The words for what an SA does with its outer header.
var (
	dfWords    = []string{sad.DFCopy.String(), sad.DFSet.String(), sad.DFClear.String()}
	labelWords = []string{sad.LabelZero.String(), sad.LabelCopy.String(), sad.LabelHash.String()}
	ecnWords   = []string{"on", "off"}
	decapWords = []string{"keep", "copy"}
	cutWords   = []string{"after", "before"}
)

// outerOptions are the options of an SA that readOuter reads.
var outerOptions = []string{"df", "dscp", "ecn", "ttl", "flowlabel", "decapdscp", "fragment", "mss", "tfc-pad", "dummy"}

// readOuter reads the option t, one of outerOptions.
func (r *saRule) readOuter(t token, c *cursor) (err *Error) {
	r.outerPos = t.pos
	o := &r.outer
	var n int
	switch t.text {
	case "df":
		n, err = c.word(dfWords)
		o.DF = sad.DF(n)
	case "dscp":
		o.DSCP, err = c.dscp()
	case "ecn":
		n, err = c.word(ecnWords)
		o.NoECN = n == 1
	case "ttl":
		var ttl uint64
		ttl, err = c.number("ttl", 1, 255)
		o.TTL = uint8(ttl)
	case "flowlabel":
		n, err = c.word(labelWords)
		o.Label = sad.FlowLabel(n)
	case "decapdscp":
		n, err = c.word(decapWords)
		o.DecapDSCP = n == 1
	case "fragment":
		n, err = c.word(cutWords)
		o.SplitFirst = n == 1
	case "mss":
		o.MSS = sad.MSSPath
		if !c.accept("path") {
			var mss uint64
			mss, err = c.number("mss", sad.MinMSS, sad.MSSPath-1)
			o.MSS = uint16(mss)
		}
	case "dummy":
		var rate uint64
		rate, err = c.number("dummy packets a second", 1, sad.MaxDummy)
		o.Dummy = uint16(rate)
	case "tfc-pad":
		o.TFC = sad.TFCPath
		if !c.accept("mtu") {
			var least uint64
			least, err = c.number("tfc-pad", 1, sad.TFCPath-1)
			o.TFC = uint16(least)
		}
	}
	return err
}

// word reads one of words and returns which.
func (c *cursor) word(words []string) (int, *Error) {
	t := c.peek()
	for i, w := range words {
		if c.accept(w) {
			return i, nil
		}
	}
	return 0, errorAt(t.pos, "found %v: %s", t, oneOf(words))
}

// dscp reads "copy", one codepoint for all, or a list of "inner:outer".
func (c *cursor) dscp() (*sad.DSCPMap, *Error) {
	if c.accept("copy") {
		return nil, nil
	}
	const what = `copy, a codepoint, or a list of "inner:outer"`
	m := new(sad.DSCPMap)
	for i := range m {
		m[i] = uint8(i)
	}
	braces := c.peek().is("{")
	given := once{}
	err := c.list("a pair of codepoints", func() *Error {
		t, err := c.text(what)
		if err != nil {
			return err
		}
		inner, outer, pair := strings.Cut(t.text, ":")
		if !pair {
			inner, outer = "", t.text
		}
		to, err := parseNumber(outer, t.pos, "codepoint", 0, 63)
		if err != nil {
			return err
		}
		if !pair && !braces {
			*m = *sad.DSCPSet(uint8(to))
			return nil
		}
		from, err := parseNumber(inner, t.pos, "codepoint in front of \":\"", 0, 63)
		if err != nil {
			return err
		}
		m[from] = uint8(to)
		return given.take(token{pos: t.pos, text: "codepoint " + inner})
	})
	return m, err
}
