package page

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"tutti/bench/report"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func read(t *testing.T, name string) *report.Report {
	t.Helper()
	f, err := os.Open(filepath.Join("../report/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := report.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func pageOf(t *testing.T, r *report.Report, others ...*report.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, r, others...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestGolden holds the page of the report that bench/report's golden files have, beside another, and of an empty one.
func TestGolden(t *testing.T) {
	full, larger := read(t, "full.json"), read(t, "full.json")
	larger.Scenario.Shards, larger.Result.TPS, larger.Checks = 4, 15_000, larger.Checks[:1]
	for name, got := range map[string]string{"full.html": pageOf(t, full, larger), "bare.html": pageOf(t, read(t, "bare.json"))} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s: rewrite with -update only on purpose:\n%s", name, d)
		}
	}
}

// TestWhole looks for anything that comes from elsewhere, and for what somebody needs who does not see the drawing.
func TestWhole(t *testing.T) {
	r := read(t, "full.json")
	r.Details.Command = `tutti bench --api http://127.0.0.1:9700 '<script>alert(1)</script>'` // text, not an address and not a script
	text := pageOf(t, r, read(t, "full.json"))
	root, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	ids, headings, drawings := map[string]int{}, 0, 0
	var wanted []string
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script", "link", "img", "iframe", "object", "embed", "image", "use", "base", "form":
			t.Errorf("there is a <%s>", n.Data)
		case "style":
			if regexp.MustCompile(`(?i)url\(|@import|expression`).MatchString(n.FirstChild.Data) {
				t.Error("a style comes from elsewhere")
			}
		case "h1", "h2", "h3":
			headings++
		case "svg":
			drawings++
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "src" || a.Key == "href" || a.Key == "srcset" || strings.HasPrefix(a.Key, "on") || a.Key == "style":
				t.Errorf("<%s> has %s=%q", n.Data, a.Key, a.Val)
			case strings.Contains(a.Val, "//"):
				t.Errorf("<%s> names %q", n.Data, a.Val)
			case a.Key == "id":
				ids[a.Val]++
			case a.Key == "aria-labelledby":
				wanted = append(wanted, strings.Fields(a.Val)...)
			}
		}
	}
	for _, id := range wanted {
		if ids[id] != 1 {
			t.Errorf("%d elements have the id %q that labels another", ids[id], id)
		}
	}
	if headings < 8 || drawings < 5 || strings.Contains(text, "NaN") {
		t.Errorf("%d headings, %d drawings", headings, drawings)
	}
}

// TestLook holds the colours to those of the dashboard.
func TestLook(t *testing.T) {
	style, err := os.ReadFile("../../appliance/dashboard/page/style.css")
	if err != nil {
		t.Fatal(err)
	}
	colours, _, ok := strings.Cut(string(style), "* {")
	if !ok || !strings.Contains(source, colours) {
		t.Error("the page's colours are not those of the dashboard")
	}
}

// TestCommitted makes pages of all results that are kept in the tree.
func TestCommitted(t *testing.T) {
	paths, err := filepath.Glob("../results/*-[0-9].json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no results: %v", err)
	}
	for _, path := range paths {
		if text := pageOf(t, read(t, filepath.Join("../../results", filepath.Base(path)))); !strings.Contains(text, "</html>") {
			t.Errorf("%s makes no page", path)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		from, to float64
		want     []float64
	}{
		{0, 1, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{-5, 30, []float64{0, 10, 20, 30}},
		{0, 8480, []float64{0, 2000, 4000, 6000, 8000}},
	} {
		if d := cmp.Diff(c.want, ticks(c.from, c.to), cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })); d != "" {
			t.Errorf("%v to %v: %s", c.from, c.to, d)
		}
	}
}

// TestGaps draws no line over what was not measured, and a dot of a line where a value stands alone.
func TestGaps(t *testing.T) {
	same := func(v float64) float64 { return v }
	nan := math.NaN()
	if got, want := path([]float64{0, 1, 2, 3, 4}, []float64{1, 2, nan, 4, nan}, same, same), "M0.0 1.0L1.0 2.0M3.0 4.0h.1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestPercentiles(t *testing.T) {
	c := percentiles(&report.Distribution{UpToMs: []report.Value{100, 200, 400}, Count: []uint64{90, 9, 1}})
	if d := cmp.Diff([][]string{{"50", "100"}, {"90", "100"}, {"99", "200"}}, c.quantiles()); d != "" {
		t.Error(d)
	}
	if percentiles(nil) != nil {
		t.Error("a curve of nothing")
	}
}

type full404 struct{}

func (full404) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteFails(t *testing.T) {
	if Write(full404{}, read(t, "bare.json")) == nil {
		t.Error("a failed write is not reported")
	}
}
