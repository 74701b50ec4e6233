package propagation

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/shred/shredtest"
)

// models are the texts of the models by name.
func models(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range []string{"bodies", "receipts", "epochs"} {
		text, err := os.ReadFile(name + ".pml")
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(text)
	}
	return out
}

var (
	standsFor = regexp.MustCompile(`(?m)\bas ([a-z0-9_/]+\.go): (.*?)( \*/.*)?$`)
	twinName  = regexp.MustCompile(`\bTWIN_([A-Z_]+)`)
)

// strays lists what a model stands for and the tree does not have. It also counts what it looked for.
func strays(model string, read func(file string) (string, error)) (missing []string, seen int) {
	for _, m := range standsFor.FindAllStringSubmatch(model, -1) {
		seen++
		if text, err := read(m[1]); err != nil {
			missing = append(missing, err.Error())
		} else if !strings.Contains(text, m[2]) {
			missing = append(missing, m[1]+" has no "+m[2])
		}
	}
	return missing, seen
}

// TestVerifyModelsStandForCode: what the models name is in the code as they have it.
func TestVerifyModelsStandForCode(t *testing.T) {
	root := filepath.Join("..", "..")
	read := func(file string) (string, error) {
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		return string(b), err
	}
	for name, text := range models(t) {
		missing, seen := strays(text, read)
		for _, what := range missing {
			t.Errorf("%s.pml stands for code that has changed: %s: is the model still right? Then name the new code", name, what)
		}
		if want := strings.Count(text, ".go: "); seen != want || seen < 5 {
			t.Errorf("%s.pml: %d of %d places in the code were found", name, seen, want)
		}
	}
	const model = "/* R1. as a/b.go: x := 1 */\n * as a/c.go: y(2)\n"
	if missing, seen := strays(model, func(string) (string, error) { return "x := 1", nil }); seen != 2 || !slices.Equal(missing, []string{"a/c.go has no y(2)"}) {
		t.Errorf("%d places, of which are missing: %q", seen, missing)
	}
}

// TestVerifyTwinsAreListed: the table has all twins that there are in the models, and no others.
func TestVerifyTwinsAreListed(t *testing.T) {
	listed := map[string]bool{}
	for _, tw := range twins {
		listed[tw.model+" "+tw.name] = true
	}
	there := map[string]bool{}
	for name, text := range models(t) {
		for _, m := range twinName.FindAllStringSubmatch(text, -1) {
			if there[name+" "+m[1]] = true; !listed[name+" "+m[1]] {
				t.Errorf("%s.pml has the twin %s, which is not in the table", name, m[1])
			}
		}
	}
	for tw := range listed {
		if !there[tw] {
			t.Errorf("the table has %s, which is in no model", tw)
		}
	}
}

// TestVerifyParts: what bodies.pml says of the parts of any set of validators is what consensus/shred does with them. Fewer than K
// shards make nothing, K make the body, or the verdict that there is none if one shard is spoilt, whichever they are; and
// more than a third of the power has K.
func TestVerifyParts(t *testing.T) {
	for name, s := range cases {
		t.Run(name, func(t *testing.T) {
			c := s.committee()
			body := []byte(strings.Repeat("a body in parts ", 300))
			good, err := shred.Cut(c, body)
			if err != nil {
				t.Fatal(err)
			}
			bad := shredtest.Spoil(c, body, 0)
			h := &consensus.Header{Body: good.Ref()}
			spoilt := &consensus.Header{Body: bad.Ref}
			for set := range 1 << len(s.powers) {
				var power consensus.Power
				count := 0
				whole, err := shred.NewAssembly(c, h.Body)
				if err != nil {
					t.Fatal(err)
				}
				none, err := shred.NewAssembly(c, spoilt.Body)
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range s.powers {
					if set>>i&1 == 0 {
						continue
					}
					power += p
					count += shards(c, i)
					if whole.Wants(i) {
						if err := errors.Join(whole.Add(good.Part(i, h, consensus.Vote{})), none.Add(bad.Part(i, spoilt, consensus.Vote{}))); err != nil {
							t.Fatal(err)
						}
					}
				}
				enough := count >= c.Code().K()
				if 3*power > c.Total() && !enough {
					t.Errorf("set %04b has more than a third, and %d shards of %d", set, count, c.Code().K())
				}
				if whole.Ready() != enough || none.Ready() != enough {
					t.Errorf("set %04b: ready %t and %t, the model says %t", set, whole.Ready(), none.Ready(), enough)
				}
				if !enough {
					continue
				}
				if got, err := whole.Rebuild(); err != nil || string(got.Body()) != string(body) {
					t.Errorf("set %04b: %v", set, err)
				}
				if _, err := none.Rebuild(); !errors.Is(err, shred.ErrMalformed) {
					t.Errorf("set %04b under a root of nothing: %v", set, err)
				}
			}
			if 3*s.powers[s.faulty] > c.Total() {
				t.Error("more than a third is faulty")
			}
		})
	}
}
