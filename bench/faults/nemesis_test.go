package faults

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tutti/bench/lan"
)

// TestSchedules: every kind of nemesis is drawn, each ends within the span, a build gets those alone that it can play, a
// seed draws the same each time, and the shares of shards, sizes and builds are there.
func TestSchedules(t *testing.T) {
	builds, sizes := map[string]bool{}, map[string]bool{}
	seen := map[string]int{}
	for seed := range uint64(300) {
		o := BoxOptions{Seed: seed, Product: "product", Unsynced: "unsynced", Clock: true}
		p := planBox(o)
		builds[fmt.Sprint(p.binary, p.power)] = true
		sizes[fmt.Sprint(p.size.shards, p.size.validators)] = true
		again := planBox(o)
		for i, n := range p.nemeses {
			seen[n.kind]++
			if n.at < 0 || n.lasts <= 0 || n.at+n.lasts > p.span {
				t.Errorf("seed %d: %s does not lie in %s", seed, n, p.span)
			}
			if n.String() != again.nemeses[i].String() {
				t.Errorf("seed %d: %s, drawn again %s", seed, n, again.nemeses[i])
			}
			for _, k := range kinds {
				if k.name == n.kind && (k.unsynced || k.clock) && !p.unsynced {
					t.Errorf("seed %d: %s on the product", seed, n)
				}
			}
		}
	}
	for _, k := range kinds {
		if seen[k.name] == 0 {
			t.Errorf("no %s in 300 schedules", k.name)
		}
	}
	if len(builds) != 3 || !sizes["1 4"] || !sizes["2 4"] || !sizes["1 7"] {
		t.Errorf("builds %v, sizes %v", builds, sizes)
	}
}

// TestLinksOfNemeses: a partition cuts both ways between its sides and nowhere else, what loses one way does not the other,
// and what acts together adds up.
func TestLinksOfNemeses(t *testing.T) {
	sw, err := lan.New(4)
	if err != nil {
		t.Skip(err)
	}
	defer sw.Close()
	b := &box{lan: sw, links: map[*nemesis]func(from, to int) lan.Link{}}
	for seed := range uint64(200) {
		d := &drawing{Rand: rand.New(rand.NewPCG(seed, 1)), nodes: 4}
		split, way := &nemesis{}, &nemesis{}
		d.partition(split)
		d.oneWay(way)
		for _, n := range []*nemesis{split, way} {
			if err := n.begin(b); err != nil {
				t.Fatal(err)
			}
		}
		cuts, lossy := 0, 0
		for from := range 4 {
			for to := range 4 {
				if b.links[split](from, to).Cut {
					cuts++
				}
				if l := b.links[way](from, to); from != to && l.Cut || l.Loss > 0 {
					lossy++
				}
				if b.links[split](from, to).Cut != b.links[split](to, from).Cut {
					t.Fatalf("%s: not symmetric", split.what)
				}
				if (b.links[split](from, to).Cut || b.links[way](from, to).Cut) != b.between(from, to).Cut {
					t.Fatalf("%s and %s: from %d to %d", split.what, way.what, from, to)
				}
			}
		}
		if cuts != 6 && cuts != 8 || lossy == 0 {
			t.Fatalf("%s cuts %d links, %s loses on %d", split.what, cuts, way.what, lossy)
		}
		for _, n := range []*nemesis{split, way} {
			if err := n.end(b); err != nil {
				t.Fatal(err)
			}
		}
		if len(b.links) > 0 || b.between(0, 1) != (lan.Link{}) {
			t.Fatal("a nemesis that has ended acts")
		}
	}
	b.links[&nemesis{}], b.links[&nemesis{}] = at([]int{0}, lan.Link{Delay: time.Second}), at([]int{1}, lan.Link{Delay: time.Second})
	if got := b.between(0, 1).Delay; got != 2*time.Second {
		t.Errorf("two delays make %s", got)
	}
}

// TestFallen: a process that ends by itself is a complaint, unless its disk is or was full and it says so.
func TestFallen(t *testing.T) {
	b := &box{world: &world{}}
	full := &machine{name: "s0v0", full: 1}
	freed := &machine{name: "s0v1", filled: time.Now()}
	long := &machine{name: "s0v2", filled: time.Now().Add(-2 * fallsIn)}
	b.machines = []*machine{full, freed, long, {name: "s0v3"}}
	says := []byte("tutti: the disk of " + filepath.Join("nodes", "s0v0") + " is full: free space there and start again")
	for k, want := range []bool{true, true, false, false} {
		if got := b.explained(b.machines[k].name, says); got != want {
			t.Errorf("%s may say that its disk is full: %t", b.machines[k].name, got)
		}
		if b.explained(b.machines[k].name, []byte("panic: something else")) {
			t.Errorf("%s may panic", b.machines[k].name)
		}
	}
}

// TestStall: the longest time without a block counts the beginning and the end.
func TestStall(t *testing.T) {
	start := time.Now()
	after := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	for _, c := range []struct {
		blocks []int
		end    int
		want   int
	}{{nil, 5, 5}, {[]int{4, 5}, 6, 4}, {[]int{1, 4}, 5, 3}, {[]int{1, 2}, 9, 7}} {
		w := NewWitness(1, nil, nil, nil)
		for _, s := range c.blocks {
			w.chains[0] = append(w.chains[0], told{at: after(s)})
		}
		if got := w.Stall(start, after(c.end)); got != time.Duration(c.want)*time.Second {
			t.Errorf("blocks after %v s, end after %d: %s", c.blocks, c.end, got)
		}
	}
}

// TestBoxResults: runs add up since the last one that failed, canaries do not count, and failures stay in sight.
func TestBoxResults(t *testing.T) {
	r := BoxResults{filepath.Join(t.TempDir(), "r.tsv"), "c1"}
	run := BoxResult{Result: Result{Seed: 5, Took: 90 * time.Second}, Nemeses: "kill*2"}
	bad := run
	bad.Wrongs = []string{"two final\nblocks"}
	before, failing := BoxResults{r.Path, "c0"}, BoxResults{r.Path, "c-1"}
	for _, step := range []error{
		failing.Append(run, ""), failing.Append(bad, ""), before.Append(run, ""), r.Append(bad, canary+" caught"), r.Append(run, ""),
		before.Append(run, ""),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if all, here, failures, err := r.Done(); err != nil || all != 270*time.Second || here != 90*time.Second || failures != 0 {
		t.Errorf("%s, %s, %d failures, %v", all, here, failures, err)
	}
	if err := r.Append(bad, ""); err != nil {
		t.Fatal(err)
	}
	if all, here, failures, err := r.Done(); err != nil || all != 0 || here != 0 || failures != 1 {
		t.Errorf("after a failure: %s, %s, %d failures, %v", all, here, failures, err)
	}
	if all, _, _, err := (BoxResults{filepath.Join(t.TempDir(), "none"), "c1"}).Done(); all != 0 || err != nil {
		t.Errorf("of no file: %s, %v", all, err)
	}
	if !strings.HasPrefix(boxHead, "commit\tseed") {
		t.Error(boxHead)
	}
}
