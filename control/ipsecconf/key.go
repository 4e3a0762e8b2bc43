package ipsecconf

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
)

// key is key material and where it came from.
type key struct {
	bytes []byte
	pos   Position
}

// keys reads "K", "K:K", or `file "path"`, `file "path:path"`: the key of an SA
// and that of the opposite direction, which has no bytes if it was not given.
func (p *parser) keys(c *cursor) (forth, back key, err *Error) {
	fromFile := c.accept("file")
	t := c.peek()
	if t.kind != word && t.kind != quoted {
		return forth, back, errorAt(t.pos, "found %v: want a key in hex, or file \"path\"", t)
	}
	c.next()
	read := p.hexKey
	if fromFile {
		read = p.keyFile
	}
	first, second, two := strings.Cut(t.text, ":")
	if forth, err = read(token{t.kind, first, t.pos}); err != nil || !two {
		return forth, back, err
	}
	at := t.pos
	if t.kind == word { // the column of what is behind the colon
		at.Col += len(first) + 1
	}
	back, err = read(token{t.kind, second, at})
	return forth, back, err
}

// hexKey reads a key that stands in the configuration.
func (p *parser) hexKey(t token) (key, *Error) {
	if p.mode&readSecret != 0 {
		p.warnShared(t.pos)
	}
	return decodeKey([]byte(t.text), t.pos, "the key")
}

// keyFile reads a key that stands in a file of its own.
func (p *parser) keyFile(t token) (key, *Error) {
	name := p.relative(p.reading[len(p.reading)-1], t.text)
	f, err := p.read(name, maxKeyFile)
	if err != nil {
		return key{}, &Error{t.pos, "key file: " + err.Error(), err}
	}
	defer clear(f.data)
	if f.mode&readSecret != 0 {
		return key{}, errorAt(t.pos, "key file %s has mode %04o, so that others can get at the key: chmod 600 it", show(name), f.mode.Perm())
	}
	return decodeKey(bytes.TrimSpace(f.data), t.pos, "the key in "+show(name))
}

// decodeKey decodes hex digits, with 0x in front or without. Its errors say
// where the digits go wrong but never what they are.
func decodeKey(s []byte, pos Position, what string) (key, *Error) {
	if len(s) >= 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
	}
	if i := slices.IndexFunc(s, func(b byte) bool { return !isHex(b) }); i >= 0 {
		return key{}, errorAt(pos, "%s is not hex: digit %d is none of 0-9, a-f", what, i+1)
	}
	switch {
	case len(s) == 0:
		return key{}, errorAt(pos, "%s is empty: give its bytes in hex", what)
	case len(s)%2 != 0:
		return key{}, errorAt(pos, "%s has %d hex digits: two make a byte, one is missing", what, len(s))
	}
	b := make([]byte, hex.DecodedLen(len(s)))
	if _, err := hex.Decode(b, s); err != nil {
		return key{}, errorAt(pos, "%s is not hex", what)
	}
	return key{b, pos}, nil
}

// warnShared warns, once a file, of keys that others can read.
func (p *parser) warnShared(pos Position) {
	if !p.seen.shared[pos.File] {
		p.seen.shared[pos.File] = true
		p.warn(pos, "keys stand in a file of mode %04o, which others can get at: chmod 600 it, or use authkey and enckey file", p.mode.Perm())
	}
}
