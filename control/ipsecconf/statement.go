package ipsecconf

import (
	"slices"
	"strconv"
	"strings"
)

// cursor walks over the tokens of a statement. The last one is its end.
type cursor struct {
	toks []token
	i    int
}

// peek returns the next token.
func (c *cursor) peek() token { return c.toks[c.i] }

// next returns the next token and goes on; it stays at the end.
func (c *cursor) next() token {
	t := c.toks[c.i]
	if t.kind != end {
		c.i++
	}
	return t
}

// accept goes on if the next token is that word or mark.
func (c *cursor) accept(text string) bool {
	if c.peek().is(text) {
		c.i++
		return true
	}
	return false
}

// text returns the next token if it is a word or in quotes; what says what it
// should be.
func (c *cursor) text(what string) (token, *Error) {
	t := c.peek()
	if t.kind != word && t.kind != quoted {
		return t, errorAt(t.pos, "found %v: want %s", t, what)
	}
	return c.next(), nil
}

// finish says what is left over.
func (c *cursor) finish() *Error {
	if t := c.peek(); t.kind != end {
		return errorAt(t.pos, "found %v: want the end of the line", t)
	}
	return nil
}

// number reads a decimal or 0x number between lo and hi.
func (c *cursor) number(what string, lo, hi uint64) (uint64, *Error) {
	t, err := c.text(what)
	if err != nil {
		return 0, err
	}
	return parseNumber(t.text, t.pos, what, lo, hi)
}

func parseNumber(s string, pos Position, what string, lo, hi uint64) (uint64, *Error) {
	digits, base := s, 10
	if d, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		digits, base = d, 16
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil || n < lo || n > hi {
		return 0, errorAt(pos, "%s is %s: want a number from %d to %d", what, show(s), lo, hi)
	}
	return n, nil
}

// list calls item for the next thing, or for each thing in braces.
func (c *cursor) list(what string, item func() *Error) *Error {
	at := c.peek()
	if !c.accept("{") {
		return item()
	}
	n := 0
	for !c.accept("}") {
		if c.peek().kind == end {
			return errorAt(at.pos, "\"{\" is not closed: add \"}\" behind the list")
		}
		if c.peek().is("{") {
			return errorAt(c.peek().pos, "a list within a list: leave out the inner braces")
		}
		if err := item(); err != nil {
			return err
		}
		c.accept(",")
		n++
	}
	if n == 0 {
		return errorAt(at.pos, "the list is empty: want %s in it", what)
	}
	return nil
}

// once refuses an option that was given before.
type once map[string]bool

func (o once) take(t token) *Error {
	if o[t.text] {
		return errorAt(t.pos, "%s is given twice: leave one out", show(t.text))
	}
	o[t.text] = true
	return nil
}

// What belongs to a key daemon, or to no SA of ours, and what to do instead.
var elsewhere = map[string]string{
	"ike":    "keys that are negotiated come from a key daemon: write this into the daemon's own configuration (iked.conf, swanctl.conf)",
	"tcpmd5": "TCP MD5 signatures belong to the TCP of the host, not to a gateway: remove the rule",
	"ipcomp": "compression (IPComp) is not offered: leave it out on both peers",
	"ipip":   "IP in IP without ESP is not offered: use esp in tunnel mode",
}

var statements = []string{"flow", "esp", "ah", "include", "name = \"value\""}

// statement reads one statement.
func (p *parser) statement(c *cursor) *Error {
	t := c.next()
	if t.kind == word && c.peek().is("=") {
		return p.define(t, c)
	}
	switch {
	case t.is("include"):
		return p.include(c)
	case t.is("flow"):
		return p.flow(t.pos, c)
	case t.is("esp"):
		return p.sa(t.pos, protoESP, c)
	case t.is("ah"):
		return p.sa(t.pos, protoAH, c)
	}
	if why := elsewhere[t.text]; t.kind == word && why != "" {
		return errorAt(t.pos, "%s", why)
	}
	return errorAt(t.pos, "unknown statement %v: %s", t, oneOf(statements))
}

var reserved = []string{"flow", "esp", "ah", "ike", "tcpmd5", "ipcomp", "ipip", "include", "from", "to", "any"}

// define reads a macro's value. A value without quotes may be of several words.
func (p *parser) define(name token, c *cursor) *Error {
	c.next()
	if c.peek().kind == end {
		return errorAt(name.pos, "macro %v has no value: write it behind \"=\"", name)
	}
	if slices.Contains(reserved, name.text) {
		return errorAt(name.pos, "%v cannot be a macro's name, because it is a keyword: choose another", name)
	}
	for i := range len(name.text) {
		if !isName(name.text[i]) || i == 0 && '0' <= name.text[0] && name.text[0] <= '9' {
			return errorAt(name.pos, "%v cannot be a macro's name: use letters, digits and \"_\", a letter first", name)
		}
	}
	var words []string
	for t := c.next(); t.kind != end; t = c.next() {
		words = append(words, t.text)
	}
	p.macros.value[name.text] = strings.Join(words, " ")
	return nil
}

// include reads another file in the place of the statement.
func (p *parser) include(c *cursor) *Error {
	t, err := c.text("the name of a file")
	if err == nil {
		err = c.finish()
	}
	if err != nil {
		return err
	}
	name := p.relative(p.reading[len(p.reading)-1], t.text)
	if slices.Contains(p.reading, name) {
		return errorAt(t.pos, "%s includes itself, by way of %s: remove one include", show(name), strings.Join(p.reading, ", "))
	}
	if p.opened++; len(p.reading) >= maxIncludes || p.opened > maxFiles {
		return errorAt(t.pos, "includes are more than %d deep or more than %d in all: join some files", maxIncludes, maxFiles)
	}
	f, cause := p.read(name, maxFile)
	if cause != nil {
		return &Error{t.pos, "include: " + cause.Error(), cause}
	}
	p.file(name, f)
	return nil
}
