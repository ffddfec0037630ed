package rules

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layers says what each top-level folder may import of the others, apart from
// itself. The hub and the protocols never meet: cmd joins them.
var layers = map[string][]string{
	"drivers":   {},
	"protocols": {"drivers"},
	"hub":       {"drivers"},
	"image":     {"drivers"},
	"agent":     {"drivers", "protocols", "hub", "image"},
	"hil":       {"drivers", "protocols", "hub", "image", "agent", "fleet"},
	"cmd":       {"drivers", "protocols", "hub", "image", "agent", "fleet", "hil"},
}

// testLayers adds what tests of a folder may import besides: the bench's
// simulated plant and faults.
var testLayers = map[string][]string{
	"drivers":   {"hil"},
	"protocols": {"hil"},
	"hub":       {"hil"},
}

// contracts are the packages that hold a contract: standard library and other
// contracts only, no goroutines, no I/O.
var contracts = []string{"hub", "protocols", "protocols/point", "drivers/i2c", "drivers/spi", "drivers/sensor"}

// impure are the functions that only drivers, cmd, hil and tests may call; the
// rest is given a clock and a disk.
var impure = map[string][]string{
	"time": {"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Since", "Until"},
	"os":   {"Open", "OpenFile", "Create", "ReadFile", "WriteFile", "Rename", "Remove", "RemoveAll", "Mkdir", "MkdirAll", "ReadDir", "Stat", "Lstat"},
}

// pureFolders are the folders in which impure functions are forbidden.
var pureFolders = []string{"protocols", "hub", "image", "agent", "fleet"}

// blurry are package names that say nothing.
var blurry = []string{"util", "utils", "common", "helper", "helpers", "manager", "base", "misc", "lib", "shared"}

const maxLines = 900

type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	Doc          string
	Module       *struct{ Path string }
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

// folder returns the package's path below the module, "" for another module's.
func folder(path string) string {
	if rest, ok := strings.CutPrefix(path, "holdfast/"); ok {
		return rest
	}
	return ""
}

func top(f string) string { return strings.SplitN(f, "/", 2)[0] }

func under(f, pattern string) bool {
	if p, ok := strings.CutSuffix(pattern, "/..."); ok {
		return f == p || strings.HasPrefix(f, p+"/")
	}
	return f == pattern
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Doc,Imports,TestImports,XTestImports,GoFiles,TestGoFiles,XTestGoFiles", "holdfast/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages only", len(pkgs))
	}
	return pkgs
}

func TestLayers(t *testing.T) {
	for _, p := range list(t) {
		from := folder(p.ImportPath)
		check := func(imports []string, also []string, kind string) {
			for _, imp := range imports {
				to := folder(imp)
				if to == "" || top(to) == top(from) {
					continue
				}
				if !slices.Contains(layers[top(from)], top(to)) && !slices.Contains(also, top(to)) {
					t.Errorf("%s%s imports %s: %s may not import %s", from, kind, to, top(from), top(to))
				}
			}
		}
		check(p.Imports, nil, "")
		check(p.TestImports, testLayers[top(from)], " (test)")
		check(p.XTestImports, testLayers[top(from)], " (test)")
	}
}

func TestOnlyCmdImportsTables(t *testing.T) {
	for _, p := range list(t) {
		from := folder(p.ImportPath)
		for _, imp := range p.Imports {
			to := folder(imp)
			if !strings.HasSuffix(to, "/all") || top(from) == "cmd" || top(from) == "hil" {
				continue
			}
			// The adapter for what the machine itself has is the one that must
			// know every chip.
			if from == "protocols/local" && to == "drivers/sensor/all" {
				continue
			}
			t.Errorf("%s imports the table %s; only cmd chooses implementations", from, to)
		}
	}
}

func TestContractsArePure(t *testing.T) {
	pkgs := list(t)
	for _, c := range contracts {
		i := slices.IndexFunc(pkgs, func(p pkg) bool { return folder(p.ImportPath) == c })
		if i < 0 {
			t.Errorf("contract package %s does not exist", c)
			continue
		}
		p := pkgs[i]
		for _, imp := range p.Imports {
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
				t.Errorf("contract %s imports %s from outside", c, imp)
			}
			if f := folder(imp); f != "" && !slices.Contains(contracts, f) && f != "drivers/clock" && f != "drivers/disk" {
				t.Errorf("contract %s imports %s, which is no contract", c, f)
			}
		}
		eachFile(t, p, p.GoFiles, func(name string, file *ast.File, fset *token.FileSet) {
			ast.Inspect(file, func(n ast.Node) bool {
				if g, ok := n.(*ast.GoStmt); ok {
					t.Errorf("%s: a contract starts no goroutine", fset.Position(g.Pos()))
				}
				return true
			})
		})
	}
}

func eachFile(t *testing.T, p pkg, files []string, f func(name string, file *ast.File, fset *token.FileSet)) {
	t.Helper()
	for _, name := range files {
		path := filepath.Join(p.Dir, name)
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		f(path, file, fset)
	}
}

func TestThirdParty(t *testing.T) {
	used := map[string]bool{}
	for _, p := range list(t) {
		from := folder(p.ImportPath)
		check := func(imports []string, inTest bool) {
			for _, imp := range imports {
				if folder(imp) != "" || !strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
					continue
				}
				i := slices.IndexFunc(thirdParty, func(r struct {
					module  string
					folders []string
					test    bool
					reason  string
				}) bool {
					return imp == r.module || strings.HasPrefix(imp, r.module+"/")
				})
				if i < 0 {
					t.Errorf("%s imports %s, which the third-party table does not list", from, imp)
					continue
				}
				row := thirdParty[i]
				used[row.module] = true
				if inTest {
					continue
				}
				if row.test {
					t.Errorf("%s imports %s outside a test", from, imp)
				}
				if !slices.ContainsFunc(row.folders, func(pat string) bool { return under(from, pat) }) {
					t.Errorf("%s imports %s, which only %s may", from, imp, strings.Join(row.folders, ", "))
				}
			}
		}
		check(p.Imports, false)
		check(p.TestImports, true)
		check(p.XTestImports, true)
	}
	for _, r := range thirdParty {
		if !used[r.module] {
			t.Errorf("the third-party table lists %s, which nothing imports", r.module)
		}
		if r.reason == "" {
			t.Errorf("the third-party table gives no reason for %s", r.module)
		}
	}
}

// TestClockAndDiskAreInjected looks for calls of impure functions by the
// package's import name.
func TestClockAndDiskAreInjected(t *testing.T) {
	for _, p := range list(t) {
		from := folder(p.ImportPath)
		if !slices.Contains(pureFolders, top(from)) || isTestSupport(p.Name) {
			continue
		}
		eachFile(t, p, p.GoFiles, func(name string, file *ast.File, fset *token.FileSet) {
			ast.Inspect(file, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				id, ok := sel.X.(*ast.Ident)
				if ok && id.Obj == nil && slices.Contains(impure[id.Name], sel.Sel.Name) {
					t.Errorf("%s: %s.%s: take an injected clock or disk", fset.Position(n.Pos()), id.Name, sel.Sel.Name)
				}
				return true
			})
		})
	}
}

// isTestSupport reports whether a package exists for tests alone, by its name.
func isTestSupport(name string) bool { return strings.HasSuffix(name, "test") }

func TestNoInit(t *testing.T) {
	for _, p := range list(t) {
		eachFile(t, p, p.GoFiles, func(name string, file *ast.File, fset *token.FileSet) {
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s: no init functions: wire in cmd", fset.Position(f.Pos()))
				}
			}
		})
	}
}

func TestDocsAndNames(t *testing.T) {
	for _, p := range list(t) {
		from := folder(p.ImportPath)
		if p.Doc == "" {
			t.Errorf("%s has no package comment", from)
		}
		if slices.Contains(blurry, p.Name) {
			t.Errorf("%s: %q says nothing about what is in it", from, p.Name)
		}
		if p.Name == "main" {
			continue
		}
		eachFile(t, p, p.GoFiles, func(name string, file *ast.File, fset *token.FileSet) {
			for _, d := range file.Decls {
				for _, missing := range undocumented(d) {
					t.Errorf("%s: exported %s has no comment", fset.Position(d.Pos()), missing)
				}
			}
		})
	}
}

// undocumented returns the exported names that a declaration makes without a
// comment on them or on their group.
func undocumented(d ast.Decl) []string {
	var names []string
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return names
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	x := d.Recv.List[0].Type
	for {
		switch y := x.(type) {
		case *ast.StarExpr:
			x = y.X
		case *ast.IndexExpr:
			x = y.X
		case *ast.Ident:
			return y.IsExported()
		default:
			return true
		}
	}
}

func TestFileSizes(t *testing.T) {
	for _, p := range list(t) {
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			data, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(data), "\n"); n > maxLines {
				t.Errorf("%s/%s has %d lines; the bound is %d", folder(p.ImportPath), name, n, maxLines)
			}
		}
	}
}

func TestGoModHasNoReplace(t *testing.T) {
	data, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(data), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "replace") {
			t.Errorf("go.mod:%d: no replace directives: what is built here is what others get", i+1)
		}
	}
}
