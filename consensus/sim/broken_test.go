package sim_test

import (
	"strings"
	"testing"
	"time"

	"tutti/consensus"
	"tutti/consensus/sim"
	"tutti/consensus/simplex"
)

// The checker must be able to fail: each of these machines is broken on purpose, and must be caught.

// broken is a machine whose events and wishes a test tampers with.
type broken struct {
	*simplex.Machine
	before func(simplex.Event) []simplex.Event
	after  func(*simplex.Ready)
}

func (b *broken) Step(e simplex.Event) simplex.Ready {
	events := []simplex.Event{e}
	if b.before != nil {
		events = b.before(e)
	}
	var all simplex.Ready
	for _, e := range events {
		r := b.Machine.Step(e)
		all.Persist.Blocks = append(all.Persist.Blocks, r.Persist.Blocks...)
		all.Persist.Records = append(all.Persist.Records, r.Persist.Records...)
		all.Send, all.Apply = append(all.Send, r.Send...), append(all.Apply, r.Apply...)
	}
	if b.after != nil {
		b.after(&all)
	}
	return all
}

func breaking(set func(*broken, sim.Env)) sim.Maker {
	return func(e sim.Env) (sim.Participant, simplex.Ready, error) {
		m, r, err := simplex.New(e.Config)
		if err != nil {
			return nil, r, err
		}
		b := &broken{Machine: m}
		set(b, e)
		if b.after != nil {
			b.after(&r)
		}
		return b, r, nil
	}
}

// gullible keys take any aggregate for good.
type gullible struct{ consensus.Keys }

func (gullible) VerifyAggregate(consensus.Signers, []byte, consensus.Signature) bool { return true }

// half makes a certificate of every statement that half of the power has voted for.
func half(b *broken, e sim.Env) {
	votes := make(map[consensus.Statement]map[int]bool)
	count := func(v consensus.Vote) []simplex.Event {
		if votes[v.Statement] == nil {
			votes[v.Statement] = make(map[int]bool)
		}
		votes[v.Statement][int(v.Validator)] = true
		var p consensus.Power
		all := consensus.NewSigners(len(e.Config.Committee.Validators))
		for i, val := range e.Config.Committee.Validators {
			all.Add(i)
			if votes[v.Statement][i] {
				p += val.Power
			}
		}
		if 2*p < e.Config.Committee.Total() {
			return nil
		}
		return []simplex.Event{simplex.CertificateReceived{From: -1, Cert: consensus.Certificate{Statement: v.Statement, Signers: all}}}
	}
	var own []simplex.Event
	b.before = func(ev simplex.Event) []simplex.Event {
		events := append([]simplex.Event{ev}, own...)
		own = nil
		switch ev := ev.(type) {
		case simplex.VoteReceived:
			events = append(events, count(ev.Vote)...)
		case simplex.ProposalReceived:
			events = append(events, count(ev.Proposal.Vote)...)
		case simplex.PartReceived:
			events = append(events, count(ev.Part.Vote)...)
		}
		return events
	}
	b.after = func(r *simplex.Ready) {
		for _, o := range r.Send {
			if o.Vote != nil {
				own = append(own, count(*o.Vote)...)
			}
		}
	}
}

// lowered is an honest machine whose floor is so far above the certificate that it was made from, instead of FloorMargin;
// below 0 there is no floor.
func lowered(above int) sim.Maker {
	return func(e sim.Env) (sim.Participant, simplex.Ready, error) {
		var log []simplex.Record
		for _, r := range e.Config.Log {
			if f := r.Floor; f != nil && above < 0 {
				continue
			} else if f != nil {
				r.Floor = &simplex.Floor{Shard: f.Shard, Epoch: f.Epoch, View: f.View - simplex.FloorMargin + consensus.View(above)}
			}
			log = append(log, r)
		}
		e.Config.Log = log
		return sim.Honest(e)
	}
}

func TestBrokenTwins(t *testing.T) {
	judgeAll := func(b *broken, _ sim.Env) {
		b.before = func(e simplex.Event) []simplex.Event {
			if j, ok := e.(simplex.Judged); ok {
				e = simplex.Judged{Block: j.Block, Valid: true}
			}
			return []simplex.Event{e}
		}
	}
	unlogged := func(b *broken, _ sim.Env) {
		b.after = func(r *simplex.Ready) { r.Persist.Records = nil }
	}
	bodyless := func(b *broken, _ sim.Env) {
		b.after = func(r *simplex.Ready) { r.Persist.Blocks = nil }
	}
	deaf := func(b *broken, _ sim.Env) { // repeats nothing
		b.before = func(e simplex.Event) []simplex.Event {
			if _, ok := e.(simplex.Tick); ok {
				return nil
			}
			return []simplex.Event{e}
		}
	}
	eager := func(b *broken, e sim.Env) { // nullifies what it has voted final
		b.after = func(r *simplex.Ready) {
			for _, o := range r.Send {
				if o.Vote != nil && o.Vote.Kind == consensus.Finalize {
					st := o.Vote.Statement
					st.Kind, st.Block = consensus.Nullify, consensus.Hash{}
					v := consensus.Vote{Statement: st, Validator: o.Vote.Validator, Signature: e.Config.Signer.Sign(consensus.VoteMessage(e.Config.Chain, st))}
					r.Persist.Records = append(r.Persist.Records, simplex.Record{Vote: &v})
					r.Send = append(r.Send, simplex.Outbound{To: simplex.ToAll, Vote: &v})
				}
			}
		}
	}
	impatient := func(b *broken, _ sim.Env) { // asks for nothing that is missing
		b.after = func(r *simplex.Ready) {
			kept := r.Apply[:0:0]
			for _, a := range r.Apply {
				switch a.(type) {
				case simplex.Fetch, simplex.SyncNeeded:
				default:
					kept = append(kept, a)
				}
			}
			r.Apply = kept
		}
	}
	selfish := func(b *broken, e sim.Env) { // passes no part of others' proposals on
		b.after = func(r *simplex.Ready) {
			kept := r.Send[:0:0]
			for _, o := range r.Send {
				if o.Part == nil || int(o.Part.Vote.Validator) == e.Config.Index {
					kept = append(kept, o)
				}
			}
			r.Send = kept
		}
	}
	for _, tc := range []struct {
		name  string
		set   func(*sim.Options)
		wants string // part of the error; several may come first
	}{
		{"quorum of a half", func(o *sim.Options) {
			o.Honest = breaking(half)
			o.Keys = gullible{o.Keys}
			o.Skip = "committed loss"
			o.Faults.Partition = 3 * time.Second
		}, "agreement"},
		{"quorum of a half, durability", func(o *sim.Options) {
			o.Honest = breaking(half)
			o.Keys = gullible{o.Keys}
		}, "committed loss"},
		{"restart forgets votes", func(o *sim.Options) {
			o.ForgetLog = true
			o.Faults.Crash = time.Second
		}, "sends two"},
		{"floor ignored", func(o *sim.Options) {
			o.Honest = lowered(-1)
			o.Faults.Lose, o.Faults.Down = 2*time.Second, 100*time.Millisecond
		}, "sends two"},
		{"floor ignored, finality", func(o *sim.Options) {
			o.Honest = lowered(-1)
			o.Faults.Lose, o.Faults.Down = 2*time.Second, 100*time.Millisecond
			o.Skip = "sends two"
		}, "both nullifies and finalizes"},
		{"floor without the margin", func(o *sim.Options) {
			o.Honest = lowered(0)
			o.Faults.Lose, o.Faults.Down = 2*time.Second, 100*time.Millisecond
		}, "both nullifies and finalizes"},
		{"votes not logged", func(o *sim.Options) { o.Honest = breaking(unlogged) }, "not in its synced vote log"},
		{"blocks not logged", func(o *sim.Options) { o.Honest = breaking(bodyless) }, "not in its synced block log"},
		{"invalid bodies certified", func(o *sim.Options) {
			o.Honest = breaking(judgeAll)
			o.Adversaries = map[int]sim.Maker{0: sim.BadBody}
		}, "verdict"},
		{"nullify after finalize", func(o *sim.Options) { o.Honest = breaking(eager) }, "both nullifies and finalizes"},
		{"parts are not passed on", func(o *sim.Options) { o.Honest = breaking(selfish) }, "passes its part on to 0"},
		{"nothing is repeated", func(o *sim.Options) { o.Honest = breaking(deaf) }, "liveness"},
		{"nothing is fetched", func(o *sim.Options) { o.Honest = breaking(impatient) }, "liveness"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const most = 80
			for s := uint64(1); s <= most; s++ {
				o := options(s, four)
				o.Faults = storm
				tc.set(&o)
				if _, err := sim.Run(o); err != nil && strings.Contains(err.Error(), tc.wants) {
					t.Logf("seed %d: %v", s, err)
					return
				} else if err != nil {
					t.Logf("seed %d, another check: %v", s, err)
				}
			}
			t.Fatalf("not caught in %d seeds", most)
		})
	}
}
