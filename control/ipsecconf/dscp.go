package ipsecconf

import (
	"fmt"

	"spigot/sad"
)

// codepoints reads one codepoint, or a list of them in braces.
func (c *cursor) codepoints() (set sad.Codepoints, err *Error) {
	given := once{}
	err = c.list("a codepoint", func() *Error {
		t, err := c.text("a codepoint")
		if err != nil {
			return err
		}
		n, err := parseNumber(t.text, t.pos, "codepoint", 0, 63)
		if err != nil {
			return err
		}
		set |= sad.CodepointsOf(uint8(n))
		return given.take(token{pos: t.pos, text: fmt.Sprintf("codepoint %d", n)})
	})
	return set, err
}
