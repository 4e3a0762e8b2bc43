package ipsecconf

import (
	"errors"
	"fmt"
	"strings"
)

// ErrConfig is what every error about the text of a configuration wraps.
var ErrConfig = errors.New("ipsecconf: bad configuration")

// maxErrors is how many errors are collected before reading stops.
const maxErrors = 20

// Position is a place in a file. Line and column count from 1, the column in
// bytes. Within a macro's value it is where the macro was used.
type Position struct {
	File      string
	Line, Col int
}

// String formats p as file:line:column.
func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// name is the position as rules are named after it: file:line.
func (p Position) name() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// Error is one thing wrong with a configuration. It never shows a key.
type Error struct {
	Position
	Message string // what, and how to mend it
	Cause   error  // or nil
}

// Error formats e as file:line:column: message.
func (e *Error) Error() string { return e.Position.String() + ": " + e.Message }

// Unwrap gives ErrConfig and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrConfig}
	}
	return []error{ErrConfig, e.Cause}
}

// Errors is what is wrong with a configuration, in the order of reading; it is
// never empty.
type Errors []*Error

// Error formats e, one error a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the errors one by one.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i := range e {
		all[i] = e[i]
	}
	return all
}

func errorAt(pos Position, format string, args ...any) *Error {
	return &Error{Position: pos, Message: fmt.Sprintf(format, args...)}
}

// maxShown is how much of a word an error shows, in bytes.
const maxShown = 40

// hidden stands for what is not shown.
const hidden = "a word that looks like a key (not shown)"

// show quotes a word for an error, unless it may be a key that stands where
// none belongs.
func show(word string) string {
	if looksSecret(word) {
		return hidden
	}
	if len(word) > maxShown {
		return fmt.Sprintf("%q...", word[:maxShown])
	}
	return fmt.Sprintf("%q", word)
}

// looksSecret says whether word has a run of hex digits as long as no name and
// no address has: it may be a piece of a key.
func looksSecret(word string) bool {
	const longest = 7
	run := 0
	for i := range len(word) {
		if !isHex(word[i]) {
			run = 0
		} else if run++; run > longest {
			return true
		}
	}
	return false
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

// oneOf lists words for an error.
func oneOf(words []string) string { return "want one of " + strings.Join(words, ", ") }
