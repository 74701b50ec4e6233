package tree

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "rewrite NOTICE")

// root is the repository, seen from this package's folder, where go test runs tests.
const root = "../.."

// module is the path of our module.
const module = "tutti"

// listed is what we ask of `go list` about a package.
type listed struct {
	ImportPath   string
	Standard     bool
	DepOnly      bool // needed by one of ours, not ours
	Imports      []string
	TestImports  []string
	XTestImports []string
	Module       *struct {
		Path, Version, Dir string
		Replace            *struct{ Path, Version, Dir string }
	}
}

// list is every package of ours and everything that the build for Linux on x86-64 takes in, wherever the test runs.
var list = sync.OnceValues(func() ([]listed, error) {
	cmd := exec.Command("go", "list", "-e", "-deps",
		"-json=ImportPath,Standard,DepOnly,Imports,TestImports,XTestImports,Module", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, &stderr)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		all = append(all, p)
	}
})

func packages(t *testing.T) []listed {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// source is one text file of the tree.
type source struct {
	path string // from the root, with slashes
	text []byte
	file *ast.File // of Go files, with comments; nil for others
	fset *token.FileSet
}

func (s *source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// folder is the path of the folder that holds the file.
func (s *source) folder() string { return filepath.ToSlash(filepath.Dir(s.path)) }

func (s *source) at(p token.Pos) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(p).Line)
}

// suffixes and names of files that people write.
var written = map[string]bool{
	".go": true, ".s": true, ".c": true, ".h": true, ".sh": true, ".js": true, ".css": true, ".html": true,
	".toml": true, ".yml": true, ".yaml": true, "Makefile": true, "run": true,
}

// newSource parses one file.
func newSource(path string, text []byte) (*source, error) {
	s := &source{path: path, text: text, fset: token.NewFileSet()}
	if strings.HasSuffix(path, ".go") {
		var err error
		if s.file, err = parser.ParseFile(s.fset, path, text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// tree is every written file but those in testdata, build output and hidden folders (of which .ci is ours).
var tree = sync.OnceValues(func() ([]*source, error) {
	var all []*source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			hidden := strings.HasPrefix(name, ".") && path != root && name != ".ci"
			if hidden || name == "testdata" || name == "bin" || name == "vendor" || name == "node_modules" {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !written[filepath.Ext(name)] && !written[name] {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		s, err := newSource(filepath.ToSlash(rel), text)
		if err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	return all, err
})

func sources(t *testing.T) []*source {
	t.Helper()
	all, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	return all
}
