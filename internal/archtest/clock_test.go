package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wallClock names what makes of a time.Time one of the wall clock, which somebody
// may set.
var wallClock = []string{"Unix", "UnixMilli", "UnixMicro", "UnixNano", "UTC", "Local", "In", "AddDate"}

// forPeople lists where the gateway may do so: what it tells others.
var forPeople = map[string]string{
	"control/pfkey/convert.go": "CURRENT of a DUMP",
	"control/xfrm/convert.go":  "curlft of a state",
	"pmd/capture/port.go":      "time stamps of packets",
}

// TestNobodyGoesByTheWallClock: of what runs in the gateway, nothing is decided by a
// clock that jumps. control.TestTheWallClockJumps shows the same at work.
func TestNobodyGoesByTheWallClock(t *testing.T) {
	found := map[string]bool{}
	for _, p := range list(t) {
		if from := folder(p.ImportPath); from == "" || from == "cmd" || from == "bench" || from == "internal/uml" {
			continue
		}
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			path := strings.TrimPrefix(p.ImportPath, "spigot/") + "/" + name
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(wallClock, s.Sel.Name) && isCall(f, s) {
					found[path] = true
					if forPeople[path] == "" {
						t.Errorf("%s calls %s: control's clock and time.Since go by time that passes", fset.Position(s.Pos()), s.Sel.Name)
					}
				}
				return true
			})
		}
	}
	for path := range forPeople {
		if !found[path] {
			t.Errorf("%s does not call any of these any more", path)
		}
	}
}

// isCall says whether f calls s.
func isCall(f *ast.File, s *ast.SelectorExpr) (is bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok && c.Fun == s {
			is = true
		}
		return !is
	})
	return is
}
