package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// places knows where each part of the configuration was written: at a line and
// column of the file, or in a flag. Parts are named as in "ports[0].side".
type places struct {
	file  string
	tree  *ast.File
	flags map[string]string // by part: the flag that set it
}

// parse reads the file's text, which must be one YAML document.
func (p *places) parse(text []byte) error {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return err
	}
	if len(tree.Docs) > 1 {
		return fmt.Errorf("holds %d YAML documents; the configuration is one", len(tree.Docs))
	}
	p.tree = tree
	return nil
}

// empty says whether the file holds nothing.
func (p *places) empty() bool {
	return len(p.tree.Docs) == 0 || p.tree.Docs[0].Body == nil || p.tree.Docs[0].Body.Type() == ast.NullType
}

// byFlag notes that flag set part.
func (p *places) byFlag(part, flag string) {
	if p.flags == nil {
		p.flags = make(map[string]string)
	}
	p.flags[part] = flag
}

// of returns where part stands, or where the nearest part around it does.
func (p *places) of(part string) string {
	for ; part != ""; part = around(part) {
		if flag, ok := p.flags[part]; ok {
			return flag
		}
		if pos := p.position(part); pos != nil {
			return fmt.Sprintf("%s:%d:%d", p.file, pos.Line, pos.Column)
		}
	}
	if p.file != "" {
		return p.file
	}
	return "command line"
}

// position returns where part begins in the file, or nil.
func (p *places) position(part string) *token.Position {
	if p.tree == nil {
		return nil
	}
	path, err := yaml.PathString("$." + part)
	if err != nil {
		return nil
	}
	node, err := path.FilterFile(p.tree)
	if err != nil || node == nil || firstToken(node) == nil {
		return nil
	}
	return firstToken(node).Position
}

// around returns the part that part belongs to: ports[0].side, ports[0], ports, "".
func around(part string) string { return part[:max(strings.LastIndexAny(part, ".["), 0)] }

// firstToken returns the token that begins node; the library's own answer for
// a block mapping is the first colon.
func firstToken(node ast.Node) *token.Token {
	switch n := node.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return node.GetToken()
}

// kindOf names t for people.
func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list"
	}
	return "a mapping"
}

// problems collects what is wrong with a configuration, so that a person sees
// all of it at once.
type problems struct {
	at   *places
	list []string
}

// add notes a problem with part.
func (p *problems) add(part, format string, args ...any) {
	p.list = append(p.list, fmt.Sprintf("%s: %s: ", p.at.of(part), part)+fmt.Sprintf(format, args...))
}

// err returns the problems, one a line, or nil.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	return errors.New(strings.Join(p.list, "\n"))
}
