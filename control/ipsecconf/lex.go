package ipsecconf

import "strings"

// kind is what a token is. Marks stand for themselves.
type kind uint8

const (
	word kind = iota
	quoted
	mark // { } , = (
	end  // of the statement
)

type token struct {
	kind kind
	text string
	pos  Position
}

// is says whether t is that word or mark.
func (t token) is(text string) bool { return (t.kind == word || t.kind == mark) && t.text == text }

// String describes t for an error.
func (t token) String() string {
	if t.kind == end {
		return "the end of the line"
	}
	return show(t.text)
}

// Bounds of what the macros of one configuration may unfold into.
const (
	maxMacroDepth = 16
	maxMacroWords = 1 << 19
)

// macros are the macros defined so far, and how many tokens may still come of
// them: a few macros that use each other can stand for more than memory holds.
type macros struct {
	value map[string]string
	left  int
}

// lexer cuts a text into statements.
type lexer struct {
	text  string
	off   int
	pos   Position // of text[off]
	fixed bool     // text is a macro's value: pos does not move
	depth int      // of macros
	*macros
}

// statement returns the tokens of the next statement with an end behind them.
// Without an error, an empty statement is the end of the text; after an error
// the lexer stands behind the line.
func (l *lexer) statement() ([]token, *Error) {
	var toks []token
	var open []Position // braces
	for {
		l.skipBlank()
		switch c := l.peek(); {
		case c == 0 && l.off >= len(l.text):
			if len(open) > 0 {
				return toks, errorAt(open[0], "\"{\" is not closed: add \"}\" behind the list")
			}
			return append(toks, token{end, "", l.pos}), nil
		case c == '\n':
			at := l.pos
			l.next()
			if len(open) == 0 && len(toks) > 0 {
				return append(toks, token{end, "", at}), nil
			}
		default:
			more, err := l.token()
			if err != nil {
				l.skipLine()
				return toks, err
			}
			for _, t := range more {
				if t.is("{") {
					open = append(open, t.pos)
				} else if t.is("}") && len(open) > 0 {
					open = open[:len(open)-1]
				}
			}
			toks = append(toks, more...)
		}
	}
}

// token reads one token, or all tokens of a macro.
func (l *lexer) token() ([]token, *Error) {
	at := l.pos
	if l.depth > 0 {
		l.left--
	}
	if l.left < 0 {
		return nil, errorAt(at, "the macros stand for more than %d words: use address ranges instead of lists", maxMacroWords)
	}
	switch c := l.peek(); {
	case strings.IndexByte("{},=()", c) >= 0:
		l.next()
		return []token{{mark, string(c), at}}, nil
	case c == '"' || c == '\'':
		text, err := l.quoted()
		return []token{{quoted, text, at}}, err
	case c == '$':
		return l.macro()
	case isWord(c):
		return []token{{word, l.word(), at}}, nil
	}
	return nil, errorAt(at, "character %q does not belong here: put it in quotes or remove it", l.peek())
}

// macro reads "$name" and whatever stands for it.
func (l *lexer) macro() ([]token, *Error) {
	at := l.pos
	l.next()
	start := l.off
	for isName(l.peek()) {
		l.next()
	}
	name := l.text[start:l.off]
	value, ok := l.value[name]
	switch {
	case name == "":
		return nil, errorAt(at, "\"$\" without the name of a macro: write $name")
	case !ok:
		return nil, errorAt(at, "macro %s is not defined: write NAME = \"...\" above this line", show(name))
	case l.depth >= maxMacroDepth:
		return nil, errorAt(at, "macro %s uses itself, or macros are more than %d deep", show(name), maxMacroDepth)
	}
	sub := lexer{text: value, pos: at, fixed: true, depth: l.depth + 1, macros: l.macros}
	var toks []token
	for sub.skipBlank(); sub.off < len(sub.text); sub.skipBlank() {
		if sub.peek() == '\n' {
			sub.next()
			continue
		}
		more, err := sub.token()
		if err != nil {
			return nil, err
		}
		toks = append(toks, more...)
	}
	if n := len(toks); n > 0 && toks[n-1].kind == word && isWord(l.peek()) {
		toks[n-1].text += l.word() // $net/24
	}
	return toks, nil
}

// quoted reads a string in quotes. A backslash takes the quote after it.
func (l *lexer) quoted() (string, *Error) {
	at, quote := l.pos, l.peek()
	l.next()
	var b strings.Builder
	for {
		c := l.peek()
		if c == '\n' || c == 0 {
			return "", errorAt(at, "the string is not closed: add %c on this line", quote)
		}
		l.next()
		if c == quote {
			return b.String(), nil
		}
		if c == '\\' && (l.peek() == quote || l.peek() == '\\') {
			c = l.peek()
			l.next()
		}
		b.WriteByte(c)
	}
}

func (l *lexer) word() string {
	start := l.off
	for isWord(l.peek()) {
		l.next()
	}
	return l.text[start:l.off]
}

// skipBlank skips blanks, comments and line ends behind a backslash.
func (l *lexer) skipBlank() {
	for l.off < len(l.text) {
		rest := l.text[l.off:]
		switch {
		case rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r':
			l.next()
		case rest[0] == '#':
			for l.off < len(l.text) && l.peek() != '\n' {
				l.next()
			}
		case strings.HasPrefix(rest, "\\\n"):
			l.next()
			l.next()
		case strings.HasPrefix(rest, "\\\r\n"):
			l.next()
			l.next()
			l.next()
		default:
			return
		}
	}
}

// skipLine goes behind the end of the statement's line.
func (l *lexer) skipLine() {
	for l.off < len(l.text) {
		c := l.peek()
		l.next()
		if c == '\n' {
			return
		}
		if c == '\\' && l.peek() == '\n' {
			l.next()
		}
	}
}

// peek returns the next byte, 0 at the end.
func (l *lexer) peek() byte {
	if l.off >= len(l.text) {
		return 0
	}
	return l.text[l.off]
}

// next goes to the next byte.
func (l *lexer) next() {
	if l.off >= len(l.text) {
		return
	}
	c := l.text[l.off]
	l.off++
	switch {
	case l.fixed:
	case c == '\n':
		l.pos.Line++
		l.pos.Col = 1
	default:
		l.pos.Col++
	}
}

func isName(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// isWord says whether c may stand in a word without quotes.
func isWord(c byte) bool {
	return c > ' ' && c != 0x7f && strings.IndexByte("{},=()#$\"'\\", c) < 0
}
