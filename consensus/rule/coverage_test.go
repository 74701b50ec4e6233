package rule

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// row is what the package comment of simplex says covers a rule.
type row struct {
	proved []string // obligations
	tested []string // tests as folder.Name or folder.Name/part
}

var (
	ruleHead = regexp.MustCompile(`(?m)^R(\d+)\. `)
	rowHead  = regexp.MustCompile(`^\tR(\d+) +(.*)$`)
	testName = regexp.MustCompile(`^(Test|Fuzz)`)
	mention  = regexp.MustCompile(`\bR(\d+)\b`)
)

// coverage takes the package comment apart into the numbers of its rules and the rows of its table.
func coverage(doc string) (rules []int, rows map[int]row, err error) {
	for _, m := range ruleHead.FindAllStringSubmatch(doc, -1) {
		n, _ := strconv.Atoi(m[1])
		rules = append(rules, n)
	}
	_, table, found := strings.Cut(doc, "# What covers each rule\n")
	if table, _, _ = strings.Cut(table, "\n# "); !found {
		return nil, nil, errors.New("the package comment has no section \"What covers each rule\"")
	}
	text := map[int]string{}
	at := 0
	for line := range strings.Lines(table) {
		m := rowHead.FindStringSubmatch(strings.TrimRight(line, "\n"))
		switch {
		case m != nil:
			if at, _ = strconv.Atoi(m[1]); text[at] != "" {
				return nil, nil, fmt.Errorf("R%d has two rows", at)
			}
			text[at] = m[2]
		case at > 0 && strings.HasPrefix(line, "\t"):
			text[at] += " " + strings.TrimSpace(line)
		}
	}
	rows = map[int]row{}
	for n, t := range text {
		proved, tested, _ := strings.Cut(t, "tested:")
		rows[n] = row{split(strings.TrimPrefix(proved, "proved:")), split(tested)}
	}
	return rules, rows, nil
}

func split(list string) (names []string) {
	for _, n := range strings.Split(list, ",") {
		if n = strings.TrimSpace(n); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// sources is what the tree has.
type sources struct {
	tests    map[string]string // by folder.Name: the text of the file, in which parts are looked for
	mentions map[int]string    // numbers in comments as R17: the file
	texts    func(folder, name string) bool
}

// complaints says what is wrong with the table, or with what refers to the rules.
func complaints(doc string, obligations []Obligation, s sources) (all []string) {
	complain := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	rules, rows, err := coverage(doc)
	if err != nil {
		return []string{err.Error()}
	}
	for i, n := range rules {
		if n != i+1 {
			complain("R%d comes where R%d should", n, i+1)
		}
		if len(rows[n].tested) == 0 {
			complain("R%d names no test that covers it", n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(rows)) {
		if !slices.Contains(rules, n) {
			complain("the table has a row for R%d, which is no rule", n)
		}
		for _, name := range rows[n].proved {
			if !slices.ContainsFunc(obligations, func(o Obligation) bool { return o.Name == name && slices.Contains(o.Of, n) }) {
				complain("R%d names the obligation %s, and there is none of that name about it", n, name)
			}
		}
		for _, name := range rows[n].tested {
			whole, part, _ := strings.Cut(name, "/")
			folder, _, _ := strings.Cut(whole, ".")
			if text, ok := s.tests[whole]; !ok {
				complain("R%d names the test %s, and there is none", n, whole)
			} else if part != "" && !strings.Contains(text, strconv.Quote(part)) && !s.texts(folder, part) {
				complain("R%d names %s, and the test has no such part", n, name)
			}
		}
	}
	for _, o := range obligations {
		for _, n := range o.Of {
			if !slices.Contains(rows[n].proved, o.Name) {
				complain("the obligation %s is about R%d, whose row does not name it", o.Name, n)
			}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(s.mentions)) {
		if !slices.Contains(rules, n) {
			complain("%s speaks of R%d, which is no rule", s.mentions[n], n)
		}
	}
	return all
}

// readTree reads the tests in consensus, and the comments there and wherever else rules are spoken of.
func readTree(t *testing.T) (doc string, s sources) {
	t.Helper()
	const top = "../.."
	s = sources{tests: map[string]string{}, mentions: map[int]string{}, texts: func(folder, name string) bool {
		_, err := os.Stat(filepath.Join("..", folder, "testdata", "traces", name))
		return err == nil
	}}
	note := func(path, text string) {
		for _, m := range mention.FindAllStringSubmatch(text, -1) {
			n, _ := strconv.Atoi(m[1])
			s.mentions[n] = path
		}
	}
	for _, part := range []string{"consensus", "appliance", "bench"} {
		err := filepath.WalkDir(filepath.Join(top, part), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if strings.Contains(path, "testdata/traces") {
				for line := range strings.Lines(string(content)) {
					if strings.HasPrefix(line, "#") {
						note(path, line)
					}
				}
			}
			if !strings.HasSuffix(path, ".go") {
				return nil
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, content, parser.ParseComments)
			if err != nil {
				return err
			}
			for _, c := range f.Comments {
				note(path, c.Text())
			}
			if strings.HasSuffix(path, "simplex/doc.go") {
				doc = f.Doc.Text()
			}
			if part == "consensus" && strings.HasSuffix(path, "_test.go") {
				for _, d := range f.Decls {
					if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && testName.MatchString(fn.Name.Name) {
						s.tests[filepath.Base(filepath.Dir(path))+"."+fn.Name.Name] = string(content)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return doc, s
}

// TestVerifyEveryRuleIsCovered: the package comment of simplex names, for each of its rules, obligations and tests that
// exist, and nothing speaks of a rule that does not.
func TestVerifyEveryRuleIsCovered(t *testing.T) {
	doc, s := readTree(t)
	if len(s.tests) < 50 || len(s.mentions) < 10 {
		t.Fatalf("found %d tests and %d numbers of rules: is the tree still where it was?", len(s.tests), len(s.mentions))
	}
	for _, c := range complaints(doc, Obligations(Simplex()), s) {
		t.Error(c)
	}
	rules, rows, err := coverage(doc)
	if err != nil {
		t.Fatal(err)
	}
	r := Simplex()
	for _, list := range r.lists() {
		for _, c := range *list {
			if !slices.Contains(rules, c.Of) {
				t.Errorf("the clause %s is of R%d, which is no rule", c.Name, c.Of)
			}
		}
	}
	for _, tw := range Twins() {
		if !slices.Contains(rules, tw.Of) {
			t.Errorf("the twin %s breaks R%d, which is no rule", tw.Name, tw.Of)
		}
	}
	proved, tested := 0, 0
	for _, r := range rows {
		proved, tested = proved+len(r.proved), tested+len(r.tested)
	}
	t.Logf("%d rules, covered by obligations %d times and by tests %d times", len(rules), proved, tested)
}

// TestCoverageComplains is its canary.
func TestCoverageComplains(t *testing.T) {
	const whole = "P.\n\nR1. View. One.\n\nR2. Propose. Two.\n\n# What covers each rule\n\nText.\n\n" +
		"\tR1   proved: start\n\t     tested: a.TestOne, a.TestTwo/part,\n\t     a.TestTwo/trace\n\tR2   tested: a.TestTwo\n\n# Next\n"
	obligations := []Obligation{{Name: "start", Of: []int{1}}}
	tree := func() sources {
		return sources{
			tests: map[string]string{"a.TestOne": "", "a.TestTwo": `t.Run("part")`}, mentions: map[int]string{2: "x.go"},
			texts: func(folder, name string) bool { return folder == "a" && name == "trace" },
		}
	}
	if c := complaints(whole, obligations, tree()); c != nil {
		t.Fatalf("of a whole table: %q", c)
	}
	for _, tc := range []struct{ old, with, want string }{
		{"# What covers", "# Who covers", "no section"},
		{"a.TestTwo\n\n", "\n\n", "R2 names no test"},
		{"\tR2   tested: a.TestTwo\n", "", "R2 names no test"},
		{"R2. Propose", "R3. Propose", "R3 comes where R2 should"},
		{"\tR2  ", "\tR3  ", "a row for R3"},
		{"\tR2  ", "\tR1  ", "R1 has two rows"},
		{"proved: start", "proved: begin", "the obligation begin"},
		{"proved: start", "", "start is about R1, whose row does not name it"},
		{"R2   tested", "R2   proved: start tested", "the obligation start"},
		{"a.TestOne", "b.TestOne", "the test b.TestOne"},
		{"TestTwo/part", "TestTwo/other", "no such part"},
		{"TestTwo/trace", "TestTwo/race", "no such part"},
	} {
		text := strings.Replace(whole, tc.old, tc.with, 1)
		if c := complaints(text, obligations, tree()); text == whole || !strings.Contains(strings.Join(c, "\n"), tc.want) {
			t.Errorf("%q for %q: %q, want %q", tc.with, tc.old, c, tc.want)
		}
	}
	s := tree()
	s.mentions[7] = "y.go"
	if c := complaints(whole, obligations, s); len(c) != 1 || c[0] != "y.go speaks of R7, which is no rule" {
		t.Errorf("of a comment with a wrong number: %q", c)
	}
}
