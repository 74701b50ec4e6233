package killpoint

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tutti/consensus"
)

func vote(k consensus.Kind, view consensus.View, block byte) consensus.Statement {
	st := consensus.Statement{Kind: k, View: view}
	if k != consensus.Nullify {
		st.Block = consensus.Hash{block}
	}
	return st
}

func payload(st consensus.Statement) []byte {
	v := consensus.Vote{Statement: st, Validator: 1}
	return v.Append([]byte{0x01})
}

// TestGate: what leaves, and when the validator dies.
func TestGate(t *testing.T) {
	for _, tc := range []struct {
		plan  Plan
		left  int // payloads, of all
		death int // the payload in whose sending it dies, from 1
		to    int
	}{
		{Plan{Kind: Notarize, Nth: 1, Point: Before}, 0, 1, 0},
		{Plan{Kind: Notarize, Nth: 1, Point: All}, 3, 3, 3},
		{Plan{Kind: Notarize, Nth: 1, Point: Some, Seed: 1}, 1, 3, 1},
		{Plan{Kind: Notarize, Nth: 1, Point: Some, Seed: 3}, 2, 3, 2},
		{Plan{Kind: Finalize, Nth: 1, Point: Before}, 3, 4, 0},
		{Plan{Kind: Notarize, Again: true, Nth: 1, Point: All}, 9, 9, 3},
		{Plan{Kind: Notarize, Nth: 2, Point: All}, 9, 0, 0},
		{Plan{}, 9, 0, 0},
	} {
		t.Run(tc.plan.String(), func(t *testing.T) {
			left, sent, died := 0, 0, 0
			var d Death
			g := NewGate(1, 4, tc.plan, func(got Death) { d, died = got, sent })
			for _, st := range []consensus.Statement{vote(consensus.Notarize, 7, 1), vote(consensus.Finalize, 7, 1), vote(consensus.Notarize, 7, 1)} {
				for _, to := range []int{0, 2, 3} {
					sent++
					g.Send(to, payload(st), func() { left++ })
				}
			}
			if left != tc.left || died != tc.death || len(d.To) != tc.to {
				t.Errorf("%d left, died at %d, sent to %v; want %d, %d, %d", left, died, d.To, tc.left, tc.death, tc.to)
			}
			var again Death
			if err := json.Unmarshal(d.Encode(), &again); err != nil || !reflect.DeepEqual(again, d) {
				t.Errorf("%+v came back as %+v: %v", d, again, err)
			}
		})
	}
}

// TestGateWaits: a message to one member alone ends when nothing follows.
func TestGateWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var died atomic.Int32
		g := NewGate(1, 4, Plan{Kind: Notarize, Nth: 1, Point: All}, func(Death) { died.Add(1) })
		g.Send(2, payload(vote(consensus.Notarize, 7, 1)), func() {})
		if time.Sleep(settles / 2); died.Load() != 0 {
			t.Error("died at once")
		}
		if time.Sleep(settles); died.Load() != 1 || !g.Dead() {
			t.Errorf("died %d times", died.Load())
		}
	})
}

// TestAnswer: before, or after it has left.
func TestAnswer(t *testing.T) {
	for _, p := range []Point{Before, All} {
		died := 0
		g := NewGate(1, 4, Plan{Kind: Run, Nth: 2, Point: p}, func(Death) { died++ })
		if leaves, dying := g.Answer(0, []byte{0x22, 1}); !leaves || dying != nil {
			t.Error("the first one")
		}
		if leaves, dying := g.Answer(0, []byte{0x21, 1}); !leaves || dying != nil {
			t.Error("another kind")
		}
		leaves, dying := g.Answer(0, []byte{0x22, 1})
		if leaves != (p == All) || (dying != nil) != leaves {
			t.Errorf("%s: leaves %v", p, leaves)
		}
		if dying != nil {
			dying()
		}
		if died != 1 {
			t.Errorf("%s: died %d times", p, died)
		}
	}
}

// TestVotes agrees with consensus.Contradict about every pair of votes of two views.
func TestVotes(t *testing.T) {
	var all []consensus.Statement
	for _, k := range []consensus.Kind{consensus.Notarize, consensus.Nullify, consensus.Finalize} {
		for view := range consensus.View(2) {
			all = append(all, vote(k, view, 1), vote(k, view, 2))
		}
	}
	for _, a := range all {
		for _, b := range all {
			var v Votes
			if v.Add(Cast{1, a}) != nil || v.Add(Cast{2, b}) != nil {
				t.Errorf("%+v and %+v of two validators", a, b)
			}
			if got := v.Add(Cast{1, b}) != nil; got != consensus.Contradict(a, b) {
				t.Errorf("%+v and %+v: %v", a, b, got)
			}
		}
	}
}

// TestDraw: every target is drawn with every point that it has.
func TestDraw(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	got := map[string]bool{}
	for _, target := range Targets() {
		for range 100 {
			p := target.Draw(r)
			got[p.Target()+string(p.Point)] = true
		}
	}
	if want := 3*2*len(Sent()) + 2*len(Answers()); len(got) != want {
		t.Errorf("%d of %d", len(got), want)
	}
}

// TestTally counts what it appends, of its own commit and place only, and neither failures nor canaries.
func TestTally(t *testing.T) {
	a := Tally{t.TempDir() + "/t", "c1", "engine"}
	b := Tally{a.Path, "c1", "process"}
	for _, err := range []error{
		a.Append(1, "run", map[Point]int{Before: 3, All: 2}, time.Second, Passed),
		a.Append(2, "run", map[Point]int{Some: 1}, time.Second, "FAIL: two\nblocks"),
		a.Append(3, "run", map[Point]int{Some: 1}, time.Second, Canary+" convicted"),
		b.Append(4, "run", map[Point]int{Some: 7}, time.Second, Passed),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if done, bad, err := a.Done(); done["run"] != 5 || bad != 1 || err != nil {
		t.Errorf("%v, %d bad, %v", done, bad, err)
	}
	if done, bad, err := b.Done(); done["run"] != 7 || bad != 0 || err != nil {
		t.Errorf("%v, %d bad, %v", done, bad, err)
	}
}

// TestHeard: lines come back as they were.
func TestHeard(t *testing.T) {
	for _, h := range []Heard{
		{From: 2, Sum: Sum{1}},
		{From: 0, Sum: Sum{2}, Votes: []Cast{{3, vote(consensus.Finalize, 9, 4)}, {1, vote(consensus.Nullify, 9, 0)}}},
	} {
		if got, err := ParseHeard(h.Line()); err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("%+v came back as %+v: %v", h, got, err)
		}
	}
	for _, line := range []string{"", "1", "x y", "1 zz", "1 " + Heard{}.Line()[2:] + " 1:2", "1 " + Heard{}.Line()[2:] + " 1:2:3:4:5:ff"} {
		if h, err := ParseHeard(line); err == nil {
			t.Errorf("%q is %+v", line, h)
		}
	}
}

// FuzzHeard: what is read is written the same, whatever the line.
func FuzzHeard(f *testing.F) {
	f.Add(Heard{From: 1, Sum: Sum{2}, Votes: []Cast{{3, vote(consensus.Finalize, 9, 4)}}}.Line())
	f.Fuzz(func(t *testing.T, line string) {
		h, err := ParseHeard(line)
		if err != nil {
			return
		}
		if again, err := ParseHeard(h.Line()); err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("%+v came back as %+v: %v", h, again, err)
		}
	})
}
