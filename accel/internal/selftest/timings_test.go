package selftest

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// example is the golden file's content.
func example() *Timings {
	return &Timings{
		Format: timingsFormat, Machine: "amd64 A CPU, features 00, microcode 0x1", Code: "00ff",
		Operations: []Timed{
			{Name: "add numbers", Backends: []TimedBackend{
				{Name: "slow", Costs: []Cost{{Size: 1, Ns: 40}, {Size: 8, Ns: 40, Guessed: true}}},
				{Name: "fast", Costs: []Cost{{Size: 1, Ns: 400.5}, {Size: 8, Ns: 3}}},
			}},
			{Name: "none works", Backends: []TimedBackend{}},
		},
	}
}

func TestTimingsGolden(t *testing.T) {
	got, err := example().encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "timings.golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the format changed; if that is meant, run with -update and review (-want +got):\n%s", diff)
	}
	back, err := decodeTimings(want)
	if err != nil || !reflect.DeepEqual(back, example()) {
		t.Errorf("decoded as %+v, %v", back, err)
	}
}

func TestDecodeTimings(t *testing.T) {
	good, err := example().encode()
	if err != nil {
		t.Fatal(err)
	}
	changed := func(old, new string) string { return strings.Replace(string(good), old, new, 1) }
	for name, c := range map[string]struct{ text, want string }{
		"nothing":        {"", "EOF"},
		"cut short":      {string(good[:len(good)/2]), "EOF"},
		"not JSON":       {"\x00\x01", "invalid character"},
		"more":           {string(good) + "{}", "something follows"},
		"huge":           {string(good) + strings.Repeat(" ", maxTimingsBytes), "over 65536 bytes"},
		"another format": {changed("timings 1", "timings 2"), "format"},
		"unknown field":  {changed(`"machine"`, `"engine"`), "unknown field"},
		"no name":        {changed(`"slow"`, `""`), "operation 0, backend 0: bad name"},
		"zero cost":      {changed("400.5", "0"), "operation 0, backend 1: bad cost 0"},
		"negative cost":  {changed("400.5", "-1"), "bad cost"},
		"endless cost":   {changed("400.5", "1e300"), "bad cost"},
		"size 0":         {changed(`"size": 1`, `"size": 0`), "bad cost"},
		"sizes down":     {changed(`"size": 8`, `"size": 1`), "bad cost 1"},
		"no costs":       {`{"format":"` + timingsFormat + `","operations":[{"name":"a","backends":[{"name":"b"}]}]}`, "or 0 costs"},
		"many":           {`{"format":"` + timingsFormat + `","operations":[` + strings.Repeat(`{},`, 64) + `{}]}`, "65 operations"},
	} {
		if got, err := decodeTimings([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, error %v, want %q", name, got, err, c.want)
		}
	}
}

// FuzzDecodeTimings: any file is refused, or within all bounds and the same after being written again.
func FuzzDecodeTimings(f *testing.F) {
	b, err := example().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":"` + timingsFormat + `","operations":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeTimings(b)
		if err != nil {
			return
		}
		text, err := got.encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > maxTimingsBytes {
			return // indented, a valid file may be longer than it came
		}
		again, err := decodeTimings(text)
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if !reflect.DeepEqual(got, again) {
			t.Errorf("%+v became %+v", got, again)
		}
		for _, op := range got.Operations {
			for _, b := range op.Backends {
				if got.costs(op.Name, b.Name) == nil {
					t.Errorf("%s by %s is lost", op.Name, b.Name)
				}
			}
		}
	})
}

// TestTimingsFile: what one process writes the next one reads, unless it runs elsewhere or the file is damaged.
func TestTimingsFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := ReadTimings(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	mine := Collect([]Verdict{
		{Operation: "a", Backend: "x", Costs: []Cost{{Size: 1, Ns: 2}}},
		{Operation: "a", Backend: "off"},
		{Operation: "b", Backend: "x", Costs: []Cost{{Size: 4, Ns: 3}}},
	}, nil)
	if err := mine.Write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := ReadTimings(dir)
	if err != nil || !reflect.DeepEqual(got, mine) {
		t.Errorf("read %+v, %v", got, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
	next := Collect([]Verdict{{Operation: "a", Backend: "x"}, {Operation: "a", Backend: "off", Costs: []Cost{{Size: 1, Ns: 9}}}}, got)
	if c := next.costs("a", "x"); len(c) != 1 || c[0].Ns != 2 || len(next.costs("a", "off")) != 1 || next.costs("b", "x") != nil {
		t.Errorf("collected with an older file: %+v", next)
	}
	for _, change := range []func(*Timings){
		func(t *Timings) { t.Machine += " and a half" },
		func(t *Timings) { t.Code = "x" + t.Code[1:] },
	} {
		other := *mine
		change(&other)
		if err := other.Write(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTimings(dir); !errors.Is(err, ErrElsewhere) {
			t.Errorf("of another machine or build: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, TimingsFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTimings(dir); err == nil || !strings.Contains(err.Error(), TimingsFile+" is damaged: ") {
		t.Errorf("damaged: %v", err)
	}
	blocked := filepath.Join(dir, TimingsFile, "x") // below a file
	if err := mine.Write(blocked); err == nil {
		t.Error("wrote below a file")
	}
}

// TestKnown: costs from the file take the place of measuring if they cover every eligible backend at the right sizes;
// known answers are given all the same.
func TestKnown(t *testing.T) {
	a, b := fake{name: "a", each: 10}, fake{name: "b", each: 20}
	liar := fake{name: "b", each: 20, err: errors.New("2+2=5")}
	costs := func(ns float64) (c []Cost) {
		for _, size := range DefaultSizes() {
			c = append(c, Cost{Size: size, Ns: ns})
		}
		return c
	}
	known := &Timings{Operations: []Timed{{Name: "add numbers (fast)", Backends: []TimedBackend{
		{"a", costs(7)}, {"b", costs(5)}, {"short", costs(1)[:3]},
	}}}}
	for _, tc := range []struct {
		name       string
		candidates []Named
		want       string
		cached     bool
	}{
		{"known", []Named{a, b}, "1:b", true},
		{"known, one is wrong now", []Named{a, liar}, "1:a", true},
		{"one is new", []Named{a, b, fake{name: "c", each: 30}}, "1:a", false},
		{"other sizes", []Named{a, fake{name: "short", each: 30}}, "1:a", false},
	} {
		var bench bench
		got := choose(bench.operation(), surroundings{setting: setting(t, ""), known: known, clock: bench.clock}, tc.candidates)
		if describe(got) != tc.want || got.Verdicts()[0].Cached != tc.cached || (len(bench.runs) == 0) != tc.cached {
			t.Errorf("%s: table %q, want %q, runs %v\n%+v", tc.name, describe(got), tc.want, bench.runs, got.Verdicts())
		}
	}
}

func TestMicrocode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpuinfo")
	if got := microcode(path); got != "unknown" {
		t.Errorf("without a file: %q", got)
	}
	for text, want := range map[string]string{
		"processor\t: 0\nmicrocode\t: 0x1000065\nflags: a\n": "0x1000065",
		"processor\t: 0\n": "unknown",
		strings.Repeat("x: y\n", 2000) + "microcode: 7\n": "unknown",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := microcode(path); got != want {
			t.Errorf("%.20q: %q, want %q", text, got, want)
		}
	}
	if m, c := machine(), code(); m != machine() || c != code() || len(m) > 500 {
		t.Errorf("machine %q, code %q", m, c)
	}
}
