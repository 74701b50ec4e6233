package sim_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tutti/consensus"
	"tutti/consensus/sim"
	"tutti/consensus/simplex"
	"tutti/consensus/trace"
)

var traceTo = flag.String("traces", "", "TestVerifyTraces leaves its traces of seed 1 in this folder")

// recorded runs a seed and keeps the traces of all lives of its honest hosts.
func recorded(t *testing.T, o sim.Options) []*bytes.Buffer {
	t.Helper()
	var all []*bytes.Buffer
	var writers []*trace.Writer
	o.Record = func(int) *trace.Writer {
		all = append(all, new(bytes.Buffer))
		writers = append(writers, trace.NewWriter(all[len(all)-1], 256<<20))
		return writers[len(writers)-1]
	}
	if _, err := sim.Run(o); err != nil {
		t.Logf("%v", err)
	}
	for _, w := range writers {
		if w.Err() != nil {
			t.Error(w.Err())
		}
	}
	return all
}

// TestVerifyTraces: every life of every honest machine of these seeds, restarts from whatever a crash left included, is one
// that a fresh machine takes step by step.
func TestVerifyTraces(t *testing.T) {
	lives, steps, votes := 0, 0, 0
	for s := uint64(1); s <= uint64(max(*seeds/50, 2)); s++ {
		o, says := losing(s)
		for i, b := range recorded(t, o) {
			if *traceTo != "" && s == 1 {
				if err := os.WriteFile(filepath.Join(*traceTo, fmt.Sprint(i)), b.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r, err := trace.Check(b, o.Chain, o.Committee, o.Keys)
			if err != nil || r.Torn {
				t.Fatalf("seed %d (%s), life %d: %v, %+v", s, says, i, err, r)
			}
			lives, steps, votes = lives+1, steps+r.Steps, votes+r.Votes
		}
	}
	t.Logf("%d lives, %d steps, %d votes", lives, steps, votes)
}

// TestVerifyTraceTwins: the trace of a machine that is broken in one way is refused.
func TestVerifyTraceTwins(t *testing.T) {
	drop := func(set func(r *simplex.Ready)) sim.Maker {
		return breaking(func(b *broken, _ sim.Env) { b.after = set })
	}
	for name, tc := range map[string]struct {
		honest sim.Maker
		wants  string
	}{
		"one nullify more": {breaking(func(b *broken, e sim.Env) {
			b.after = func(r *simplex.Ready) {
				for _, o := range r.Send {
					if o.Vote == nil || o.Vote.Kind != consensus.Finalize {
						continue
					}
					st := consensus.Statement{Kind: consensus.Nullify, Shard: o.Vote.Shard, Epoch: o.Vote.Epoch, View: o.Vote.View}
					v := consensus.Vote{Statement: st, Validator: o.Vote.Validator, Signature: e.Config.Signer.Sign(consensus.VoteMessage(e.Config.Chain, st))}
					r.Persist.Records = append(r.Persist.Records, simplex.Record{Vote: &v})
				}
			}
		}), "the node votes nullify"},
		"votes that are not logged":  {drop(func(r *simplex.Ready) { r.Persist.Records = nil }), "the node did not"},
		"blocks that are not logged": {drop(func(r *simplex.Ready) { r.Persist.Blocks = nil }), "something else"},
		"timers that are too long": {drop(func(r *simplex.Ready) {
			for i, a := range r.Apply {
				if timer, ok := a.(simplex.SetTimer); ok {
					timer.After *= 2
					r.Apply[i] = timer
				}
			}
		}), "something else"},
		"a signature of another key": {breaking(func(b *broken, e sim.Env) {
			b.after = func(r *simplex.Ready) {
				for i, rec := range r.Persist.Records {
					if rec.Vote != nil {
						v := *rec.Vote
						v.Signature[3]++
						r.Persist.Records[i].Vote = &v
					}
				}
			}
		}), "not signed"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(1, four)
			o.Faults = storm
			o.Honest = tc.honest
			refused := 0
			for _, b := range recorded(t, o) {
				_, err := trace.Check(b, o.Chain, o.Committee, o.Keys)
				if errors.Is(err, trace.ErrRefused) && strings.Contains(err.Error(), tc.wants) {
					refused++
				} else if err != nil {
					t.Errorf("another error: %v", err)
				}
			}
			if refused == 0 {
				t.Error("no trace is refused")
			}
		})
	}
}
