package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tutti/accel"
	"tutti/appliance/config"
)

// configureAccel puts the operator's setting into force: that of the home's options, where there are some that can be
// read, or the environment's. Timings are kept in the home, or for a user without one in the user's cache folder. It
// returns that folder ("" for none) and what the operator should know.
func (a *app) configureAccel(h config.Home) (dir string, notes []string, err error) {
	s := accel.Settings{}
	if c, err := config.Load(h.Config()); err == nil {
		s.Use = c.Accel.Use
	}
	if config.CheckFormat(string(h), config.HomeFormat) == nil {
		s.Dir = string(h)
	} else if cache, err := os.UserCacheDir(); err == nil {
		s.Dir = filepath.Join(cache, "tutti")
	}
	notes, err = accel.Configure(s)
	return s.Dir, notes, err
}

// accelReport is what `tutti doctor accel --json` prints.
type accelReport struct {
	CPU        accel.CPU        `json:"cpu"`
	Timings    accelTimings     `json:"timings"`
	Operations []accelOperation `json:"operations"`
	Words      []string         `json:"words"` // that the setting may be made of, features first
}

type accelTimings struct {
	Folder string   `json:"folder"` // where they are kept; empty if nowhere
	Cached bool     `json:"cached"` // all come from an earlier process
	Notes  []string `json:"notes"`
}

type accelOperation struct {
	Name     string          `json:"name"`
	Item     string          `json:"item"`
	Uses     []accelUse      `json:"uses"`     // by batch size
	Backends []accel.Verdict `json:"backends"` // in order of preference
}

// accelUse is the backend for batches of From to To items; To is 0 for no end.
type accelUse struct {
	From    int    `json:"from"`
	To      int    `json:"to,omitempty"`
	Backend string `json:"backend"`
}

func doctorAccelCommand(a *app) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "accel",
		Short: "Show which cryptographic kernels this machine has and which are used for how many items",
		Long: `Show which cryptographic kernels this machine has, what became of their self-tests, how long each takes in batches of
several sizes, and which is used at which size and why. A kernel that gives a wrong answer is left out; a node runs as long
as one is left for each operation.

The setting, from $TUTTI_ACCEL or else from accel.use in the home's config.toml, leaves out CPU features (-avx512ifma,
-avx512, -avx2) and kernels (merkle=-gohashtree), or insists on a kernel (ed25519=voi-batch). Timings are kept in
accel-timings.json and taken anew when CPU or program change.

Exit status 1 if an operation has no kernel left.`,
		Example: "  tutti doctor accel\n  TUTTI_ACCEL=-avx512 tutti doctor accel\n  tutti doctor accel --json",
		Args:    arguments(),
		RunE: func(*cobra.Command, []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			dir, notes, err := a.configureAccel(h)
			if err != nil {
				return err
			}
			verdicts := accel.SelfTest()
			r := newAccelReport(accel.Detect(), verdicts, dir, notes)
			if a.json {
				err = a.printJSON(r)
			} else {
				a.printAccel(r)
			}
			return errors.Join(err, accel.Ready(verdicts))
		},
	})
}

func newAccelReport(cpu accel.CPU, verdicts []accel.Verdict, dir string, notes []string) accelReport {
	r := accelReport{CPU: cpu, Timings: accelTimings{Folder: dir, Cached: true, Notes: append([]string{}, notes...)}}
	for _, v := range verdicts {
		n := len(r.Operations)
		if n == 0 || r.Operations[n-1].Name != v.Operation {
			r.Operations = append(r.Operations, accelOperation{Name: v.Operation, Item: v.Item, Uses: []accelUse{}})
			n++
		}
		op := &r.Operations[n-1]
		op.Backends = append(op.Backends, v)
		for _, s := range v.Uses {
			op.Uses = append(op.Uses, accelUse{s.From, s.To, v.Backend})
		}
		r.Timings.Cached = r.Timings.Cached && (v.Cached || len(v.Costs) == 0)
	}
	for _, op := range r.Operations {
		slices.SortFunc(op.Uses, func(a, b accelUse) int { return a.From - b.From })
	}
	features, backends := accel.Names()
	r.Words = append(features, backends...)
	return r
}

// features are those words of the setting that leave out a feature.
func (r accelReport) features() []string {
	n := slices.IndexFunc(r.Words, func(w string) bool { return !strings.HasPrefix(w, "-") })
	return r.Words[:max(n, 0)]
}

// printAccel prints the report for people.
func (a *app) printAccel(r accelReport) {
	t := newTable()
	t.row("processor", fmt.Sprintf("%s, %d hardware threads", r.CPU.Name, r.CPU.Usable))
	t.row("features", strings.Join(r.CPU.Features, " "))
	if len(r.CPU.Missing) > 0 {
		t.row("missing", strings.Join(r.CPU.Missing, " "))
	}
	if len(r.CPU.Off) > 0 {
		t.row("switched off", a.colour(warn, strings.Join(r.CPU.Off, " ")))
	}
	if r.CPU.Setting != "" {
		t.row("setting", r.CPU.Setting)
	}
	source := "measured in this process"
	if r.Timings.Cached {
		source = "from an earlier process"
	}
	if r.Timings.Folder != "" {
		source += ", kept in " + r.Timings.Folder
	}
	t.row("timings", source)
	for _, note := range slices.Concat(r.Timings.Notes, r.CPU.Notes) {
		t.row("note", note)
	}
	t.write(a.stdout)
	guessed := false
	for _, op := range r.Operations {
		guessed = a.printOperation(op) || guessed
	}
	a.say("")
	if guessed {
		a.say("~ was not measured, for lack of time or of any prospect: the figure of the size before it.")
	}
	t = newTable()
	t.row("can be left out", strings.Join(r.features(), " "))
	t.row("can be chosen", strings.Join(r.Words[len(r.features()):], " "))
	t.write(a.stdout)
}

// printOperation prints the crossover table of one operation and reports whether it has figures that are guesses.
func (a *app) printOperation(op accelOperation) (guessed bool) {
	var sizes []int
	for _, v := range op.Backends {
		if len(v.Costs) > 0 && sizes == nil {
			for _, c := range v.Costs {
				sizes = append(sizes, c.Size)
			}
		}
	}
	a.say("\n%s: %s", op.Name, usesText(op.Uses))
	right := make([]int, len(sizes))
	heading := []string{"  ns per " + op.Item}
	for k, size := range sizes {
		right[k], heading = k+1, append(heading, "of "+number(size))
	}
	t := newTable(right...)
	t.row(append(heading, "used for", "")...)
	for _, v := range op.Backends {
		cells := []string{"  " + v.Backend}
		for k := range sizes {
			switch {
			case k >= len(v.Costs):
				cells = append(cells, "-")
			case v.Costs[k].Guessed:
				cells, guessed = append(cells, "~"+nsText(v.Costs[k].Ns)), true
			default:
				cells = append(cells, nsText(v.Costs[k].Ns))
			}
		}
		uses, reason := "-", v.Reason
		if v.Chosen {
			uses = a.colour(good, spansText(v.Uses))
		} else if v.Failed {
			reason = a.colour(bad, reason)
		}
		t.row(append(cells, uses, reason)...)
	}
	t.write(a.stdout)
	return guessed
}

// spansText lists ranges of sizes.
func spansText(spans []accel.Span) string {
	var parts []string
	for _, s := range spans {
		parts = append(parts, s.String())
	}
	return strings.Join(parts, ", ")
}

// usesText says in one line what an operation uses.
func usesText(uses []accelUse) string {
	if len(uses) == 0 {
		return "nothing is left"
	}
	var parts []string
	for _, u := range uses {
		switch {
		case u.To == 0 && u.From <= 1:
			parts = append(parts, u.Backend)
		case u.To == 0:
			parts = append(parts, "then "+u.Backend)
		default:
			parts = append(parts, fmt.Sprintf("%s up to %s", u.Backend, number(u.To)))
		}
	}
	return strings.Join(parts, ", ")
}

// nsText writes nanoseconds with a decimal where it matters.
func nsText(ns float64) string {
	if ns < 100 {
		return strconv.FormatFloat(ns, 'f', 1, 64)
	}
	return number(int64(ns + 0.5))
}
