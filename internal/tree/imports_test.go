package tree

import (
	"slices"
	"strings"
	"testing"
)

// rule says what a folder, with all below it, may import of ours.
type rule struct {
	folder string
	may    []string // folders, each with all below it; nil is everything
	why    string
}

// rules has one entry per folder with Go code; the longest folder that holds a package counts.
var rules = []rule{
	{"accel", []string{"accel"}, "accel imports nothing of ours: kernels stand alone"},
	{"netstack", []string{"accel", "netstack"}, "netstack may import accel only: it carries bytes and does not know what they mean"},
	{"state", []string{"accel", "state"}, "state may import accel only: it is given ordered transactions and does not know who ordered them"},
	{"consensus", []string{"accel", "consensus"}, "consensus may import accel only, never state or netstack: a payload is bytes and a digest to it, and a message goes where an interface of its own takes it"},
	{"appliance", nil, "appliance may import every engine"},
	{"image", []string{"image", "appliance/config"}, "image may import appliance/config only: it packs the product and does not run it"},
	{"bench", nil, "bench may import anything"},
	{"internal/plant", []string{}, "internal/plant imports nothing of ours: it builds what it is told"},
	{"internal/tree", []string{}, "internal/tree imports nothing of ours: it is about the source, not the program"},
}

// plantFolder may be imported by every test, and by nothing else.
const (
	plantFolder = "internal/plant"
	plantRule   = "only tests import internal/plant: it puts bugs into programs"
)

const benchRule = "only appliance/cmd/tutti imports bench: no product code depends on a benchmark"

// under reports whether folder is dir or below it.
func under(folder, dir string) bool { return folder == dir || strings.HasPrefix(folder, dir+"/") }

// broken is the rule that an import of ours breaks, both ends as folders from the root, or "".
func broken(from, to string) string {
	if under(to, "bench") && !under(from, "bench") && from != "appliance/cmd/tutti" {
		return benchRule
	}
	if to == plantFolder {
		return plantRule
	}
	var r *rule
	for i := range rules {
		if under(from, rules[i].folder) && (r == nil || len(rules[i].folder) > len(r.folder)) {
			r = &rules[i]
		}
	}
	switch {
	case r == nil:
		return "no rule for this folder: packages live in the folders that ARCHITECTURE.md names; add a rule in internal/tree only with a new folder there"
	case r.may == nil || slices.ContainsFunc(r.may, func(dir string) bool { return under(to, dir) }):
		return ""
	}
	return r.why
}

// complaint is what a bad import prints, or "".
func complaint(from, to string) string {
	rule := broken(from, to)
	if rule == "" {
		return ""
	}
	return module + "/" + from + " imports " + module + "/" + to + "\n\trule: " + rule
}

func TestImportDirections(t *testing.T) {
	edges := 0
	for _, p := range packages(t) {
		from, ours := strings.CutPrefix(p.ImportPath, module+"/")
		if !ours {
			continue
		}
		seen := map[string]bool{}
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			to, ours := strings.CutPrefix(imported, module+"/")
			if !ours || to == from || seen[to] {
				continue
			}
			seen[to] = true
			edges++
			if to == plantFolder && !slices.Contains(p.Imports, imported) {
				continue
			}
			if c := complaint(from, to); c != "" {
				t.Error(c)
			}
		}
	}
	if edges < 5 {
		t.Errorf("saw %d imports among our packages: is go list still asked the right question?", edges)
	}
}

// TestImportRules is the canary: good edges pass, and each bad one prints the rule that it breaks.
func TestImportRules(t *testing.T) {
	for _, tc := range []struct{ from, to, want string }{
		{"accel", "accel/bls", ""},
		{"accel/bls", "state/tx", "accel imports nothing of ours"},
		{"netstack/p2p", "accel/ed25519", ""},
		{"netstack/p2p", "consensus", "netstack may import accel only"},
		{"state/verify", "accel/ed25519", ""},
		{"state/ledger", "netstack", "state may import accel only"},
		{"consensus/engine", "consensus", ""},
		{"consensus/engine", "state/tx", "never state or netstack"},
		{"consensus/sim", "netstack/simnet", "never state or netstack"},
		{"appliance/node", "consensus/engine", ""},
		{"appliance/node", "bench", "only appliance/cmd/tutti imports bench"},
		{"appliance/cmd/tutti", "bench/load", ""},
		{"appliance/cmd/other", "bench", "only appliance/cmd/tutti imports bench"},
		{"image", "appliance/config", ""},
		{"image/boot", "appliance/node", "image may import appliance/config only"},
		{"image", "appliance/configuration", "image may import appliance/config only"},
		{"bench", "appliance/client", ""},
		{"internal/tree", "accel", "internal/tree imports nothing of ours"},
		{"consensus/sim", "internal/plant", "only tests import internal/plant"},
		{"internal/plant", "accel", "internal/plant imports nothing of ours"},
		{"stateful", "accel", "no rule for this folder"},
	} {
		got := complaint(tc.from, tc.to)
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s -> %s: %q, want %q", tc.from, tc.to, got, tc.want)
		}
	}
	const example = "tutti/consensus/engine imports tutti/netstack\n\trule: consensus may import accel only, never state or netstack: "
	if got := complaint("consensus/engine", "netstack"); !strings.HasPrefix(got, example) {
		t.Errorf("a bad import prints\n%s\nwant\n%s...", got, example)
	}
}
