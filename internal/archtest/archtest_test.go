// Package archtest holds the architecture as tests: the arrows between the
// folders and the budgets of docs/architecture.md.
package archtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// row gives each folder its row; a package imports lower rows only. A folder
// stands for the packages below it unless they have a line of their own.
var row = map[string]int{
	"cmd": 6, "bench": 6,
	"control": 5, "pipeline": 5,
	"internal/tables": 4,
	"spd":             3, "sad": 3,
	"pmd/afxdp": 3, "pmd/asavie": 3, "pmd/memport": 3, "pmd/capture": 3, "pmd/fault": 3,
	"crypto": 2, "pmd": 2,
	"internal/fib": 1,
	"ring":         0, "internal/wire": 0, "internal/flow": 0, "internal/counter": 0,
	"internal/epoch": 0, "internal/tsc": 0, "internal/affinity": 0, "internal/uml": 0,
}

// sameRow lists the imports within a row that the architecture allows: parts
// of one room, and leaves that build on the vocabulary of other leaves.
var sameRow = map[[2]string]bool{
	{"control", "control"}:                true,
	{"cmd", "cmd"}:                        true,
	{"internal/uml", "internal/uml"}:      true,
	{"internal/wire", "internal/flow"}:    true,
	{"internal/wire", "internal/counter"}: true,
}

// never lists imports that the rows would allow and the design does not.
var never = map[[2]string]string{
	{"pipeline", "crypto"}:      "the pipeline names no algorithm",
	{"pipeline", "pmd/afxdp"}:   "the pipeline knows pmd.Port only",
	{"pipeline", "pmd/asavie"}:  "the pipeline knows pmd.Port only",
	{"pipeline", "pmd/memport"}: "the pipeline knows pmd.Port only",
	{"pipeline", "pmd/capture"}: "the pipeline knows pmd.Port only",
	{"pipeline", "pmd/fault"}:   "the pipeline knows pmd.Port only",
	{"control", "pmd/afxdp"}:    "the slow path knows pmd.Port only",
}

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Imports    []string
	GoFiles    []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles", "spigot/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 15 {
		t.Fatalf("go list found %d packages only", len(pkgs))
	}
	return pkgs
}

// folder returns the line of row that path belongs to, "" if none.
func folder(path string) string {
	path = strings.TrimPrefix(path, "spigot/")
	for path != "." && path != "/" {
		if _, ok := row[path]; ok {
			return path
		}
		path = filepath.Dir(path)
	}
	return ""
}

func TestArrows(t *testing.T) {
	for _, p := range list(t) {
		from := folder(p.ImportPath)
		if from == "" {
			if p.ImportPath != "spigot/internal/archtest" && len(p.GoFiles) > 0 {
				t.Errorf("%s has no place in docs/architecture.md", p.ImportPath)
			}
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, "spigot/") {
				continue
			}
			to := folder(imp)
			edge := [2]string{from, to}
			switch {
			case to == "":
				t.Errorf("%s imports %s, which has no place", p.ImportPath, imp)
			case never[edge] != "":
				t.Errorf("%s imports %s: %s", p.ImportPath, imp, never[edge])
			case row[to] >= row[from] && !sameRow[edge]:
				t.Errorf("%s (row %d) imports %s (row %d): arrows point down only", p.ImportPath, row[from], imp, row[to])
			}
		}
	}
}

func TestNoCgoAndUnsafeInItsPlace(t *testing.T) {
	for _, p := range list(t) {
		for _, name := range p.GoFiles {
			file := filepath.Join(p.Dir, name)
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, imp := range f.Imports {
				switch {
				case imp.Path.Value == `"C"`:
					t.Errorf("%s uses cgo", file)
				case imp.Path.Value == `"unsafe"` && !strings.HasSuffix(name, "_unsafe.go"):
					t.Errorf("%s imports unsafe: that belongs in a file named *_unsafe.go", file)
				}
			}
		}
	}
}

const (
	maxFileLines = 500
	maxFuncLines = 70
)

func TestBudgets(t *testing.T) {
	each(t, func(path string, src []byte) {
		if lines := bytes.Count(src, []byte("\n")); lines > maxFileLines {
			t.Errorf("%s has %d lines, budget %d", path, lines, maxFileLines)
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			fn, ok := n.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				return true
			}
			if lines := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; lines > maxFuncLines {
				t.Errorf("%s: %s has %d lines, budget %d", path, fn.Name.Name, lines, maxFuncLines)
			}
			return true
		})
	})
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	each(t, func(path string, src []byte) {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name.Name == "main" {
			return
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc == nil {
					t.Errorf("%s: %s has no comment", fset.Position(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				undocumented(t, fset, d)
			}
		}
	})
}

func undocumented(t *testing.T, fset *token.FileSet, d *ast.GenDecl) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc == nil && d.Doc == nil {
				t.Errorf("%s: type %s has no comment", fset.Position(s.Pos()), s.Name.Name)
			}
		case *ast.ValueSpec:
			if s.Names[0].IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
				t.Errorf("%s: %s has no comment", fset.Position(s.Pos()), s.Names[0].Name)
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

// each calls f for every Go file of the project that people wrote and that is
// no test.
func each(t *testing.T, f func(path string, src []byte)) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !generated(src) {
			seen++
			f(path, src)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 30 {
		t.Fatalf("found %d Go files only", seen)
	}
}

func generated(src []byte) bool {
	line, _ := bufio.NewReader(bytes.NewReader(src)).ReadString('\n')
	return strings.HasPrefix(line, "// Code generated ") && strings.HasSuffix(line, "DO NOT EDIT.\n")
}

// docs/protocol.md names tests by folder; those of a program by its name. Each
// is there.
func TestProtocolPageNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`([a-z][a-z/]*)\.(Test[A-Za-z0-9]+)([^A-Za-z0-9.]|\. |\.\n)`).FindAllStringSubmatch(string(page), -1)
	if len(names) < 20 {
		t.Fatalf("found %d names of tests only", len(names))
	}
	for _, name := range names {
		dir := "../../" + name[1]
		if name[1] == "spigot" {
			dir = "../../cmd/spigot"
		}
		files, err := filepath.Glob(dir + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(file string) bool {
			src, err := os.ReadFile(file)
			return err == nil && bytes.Contains(src, []byte("\nfunc "+name[2]+"("))
		}) {
			t.Errorf("docs/protocol.md: there is no %s in %s", name[2], dir)
		}
	}
}
