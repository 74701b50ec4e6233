package protection_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/protection"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

var (
	update = flag.Bool("update", false, "rewrite the golden files in testdata/")
	seeds  = flag.Uint64("seeds", 60, "histories of votes that TestVerifyRoundTrip makes")
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// self is validator 2 of 4.
func self() *protection.Validator {
	return &protection.Validator{Chain: simtest.Chain, Committee: simtest.Committee(1, 1, 1, 1, 1), Keys: simtest.NewKeys(4), Index: 2}
}

func statement(k consensus.Kind, view consensus.View, block byte) consensus.Statement {
	st := consensus.Statement{Kind: k, Shard: 3, View: view}
	if k != consensus.Nullify {
		st.Block = consensus.Hash{block, 0xbb}
	}
	return st
}

func vote(st consensus.Statement) consensus.Vote {
	return consensus.Vote{Statement: st, Validator: 2, Signature: simtest.NewKeys(4).Signer(2).Sign(consensus.VoteMessage(simtest.Chain, st))}
}

func voted(k consensus.Kind, view consensus.View, block byte) simplex.Record {
	v := vote(statement(k, view, block))
	return simplex.Record{Vote: &v}
}

func finalization(view consensus.View) simplex.Record {
	return simplex.Record{Cert: &consensus.Certificate{Statement: statement(consensus.Finalize, view, 1), Signers: consensus.Signers{7}}}
}

// sample is a log: final at view 40, and votes above.
func sample() []simplex.Record {
	return []simplex.Record{
		voted(consensus.Nullify, 17, 0), finalization(40), voted(consensus.Notarize, 41, 1), voted(consensus.Nullify, 41, 0),
		voted(consensus.Notarize, 42, 2), voted(consensus.Finalize, 42, 2), voted(consensus.Notarize, 43, 3),
	}
}

// TestGolden pins the files.
func TestGolden(t *testing.T) {
	v := self()
	for name, form := range map[string]protection.Form{"exact": protection.Exact, "standard": protection.Standard} {
		got, err := v.Export(v.Records(sample(), 38), form)
		must(t, err)
		path := "testdata/" + name + ".json"
		if *update {
			must(t, os.MkdirAll("testdata", 0o755))
			must(t, os.WriteFile(path, got, 0o644))
		}
		want, err := os.ReadFile(path)
		must(t, err)
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s changed (rewrite with -update only on purpose):\n%s", path, d)
		}
	}
}

// TestRead reads files as other tools write them, and ours with something wrong.
func TestRead(t *testing.T) {
	v := self()
	exact, err := v.Export(v.Records(sample(), 38), protection.Exact)
	must(t, err)
	change := func(old, with string) string {
		if strings.Count(string(exact), old) == 0 {
			t.Fatalf("%q is not in the file", old)
		}
		return strings.Replace(string(exact), old, with, 1)
	}
	const head = `{"metadata":{"interchange_format_version":"5","genesis_validators_root":"0xROOT"},"data":[`
	foreign := func(data string) string {
		key := v.Committee.Validators[2].Key
		s := strings.Replace(head, "ROOT", v.Chain.String(), 1) + data + "]}"
		return strings.ReplaceAll(s, "KEY", fmt.Sprintf("0x%x", key))
	}
	root := func(b byte) string { return "0x" + strings.Repeat(fmt.Sprintf("%02x", b), 32) }
	for _, tc := range []struct {
		name, file string
		want       error
		bar        consensus.View
		votes      int
		conflict   string
	}{
		{name: "ours", file: string(exact), bar: 40, votes: 5},
		{name: "minimal", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"81952"}],"signed_attestations":[{"source_epoch":"2290","target_epoch":"3007"}]}`), bar: 81954},
		{name: "complete", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"8","signing_root":"` + root(1) + `"},{"slot":"9","signing_root":"` + root(2) +
			`"}],"signed_attestations":[{"source_epoch":"2","target_epoch":"12","signing_root":"` + root(3) + `"}]}`), bar: 14},
		{name: "nothing signed", file: foreign(`{"pubkey":"KEY","signed_blocks":[],"signed_attestations":[]}`)},
		{name: "unknown fields", file: foreign(`{"pubkey":"KEY","note":{"a":[1,2]},"signed_blocks":[{"slot":"8","x":1}],"signed_attestations":[]}`), bar: 10},
		{name: "two objects for a key", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"8"}],"signed_attestations":[]},{"pubkey":"KEY","signed_blocks":[{"slot":"9"}],"signed_attestations":[]}`), bar: 11},
		{name: "other keys beside", file: foreign(`{"pubkey":"` + root(1) + strings.Repeat("00", 16) + `","signed_blocks":[{"slot":"99"}],"signed_attestations":[]},{"pubkey":"KEY","signed_blocks":[{"slot":"9"}],"signed_attestations":[]}`), bar: 11},
		{name: "two roots in a slot", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"8","signing_root":"` + root(1) + `"},{"slot":"8","signing_root":"` + root(2) + `"}],"signed_attestations":[]}`), bar: 10, conflict: "two signed_blocks"},
		{name: "two roots of a target", file: foreign(`{"pubkey":"KEY","signed_blocks":[],"signed_attestations":[{"source_epoch":"0","target_epoch":"12","signing_root":"` + root(3) + `"},{"source_epoch":"0","target_epoch":"12","signing_root":"` + root(4) + `"}]}`), bar: 14, conflict: "two signed_attestations"},
		{name: "an entry that no vote of ours accounts for", file: change(`"signed_blocks": [`, `"signed_blocks": [{"slot":"43","signing_root":"`+root(1)+`"},`), bar: 45, conflict: "two signed_blocks"},
		{name: "an entry above all", file: change(`"signed_blocks": [`, `"signed_blocks": [{"slot":"50","signing_root":"`+root(1)+`"},`), bar: 52},

		{name: "not JSON", file: "slashing", want: protection.ErrMalformed},
		{name: "empty", file: "", want: protection.ErrMalformed},
		{name: "cut", file: string(exact[:len(exact)-4]), want: protection.ErrMalformed},
		{name: "trailing", file: string(exact) + "{}", want: protection.ErrMalformed},
		{name: "null", file: "null", want: protection.ErrMalformed},
		{name: "no data", file: `{"metadata":{"interchange_format_version":"5","genesis_validators_root":"` + root(1) + `"}}`, want: protection.ErrMalformed},
		{name: "version 4", file: change(`"5"`, `"4"`), want: protection.ErrMalformed},
		{name: "another chain", file: strings.Replace(string(exact), v.Chain.String(), strings.Repeat("11", 32), 1), want: protection.ErrOtherChain},
		{name: "another key", file: foreign(`{"pubkey":"` + root(1) + strings.Repeat("00", 16) + `","signed_blocks":[],"signed_attestations":[]}`), want: protection.ErrOtherKey},
		{name: "no key", file: foreign(""), want: protection.ErrOtherKey},
		{name: "another shard", file: change(`"shard": "3"`, `"shard": "4"`), want: protection.ErrOtherShard},
		{name: "a later epoch", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"` + strconv.FormatUint(1<<40|5, 10) + `"}],"signed_attestations":[]}`), want: protection.ErrEpoch},
		{name: "a field twice", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"8"}],"signed_attestations":[],"signed_blocks":[]}`), want: protection.ErrMalformed},
		{name: "a field twice in another case", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"8"}],"signed_attestations":[],"Signed_Blocks":[]}`), want: protection.ErrMalformed},
		{name: "a field that folds to ours", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"8","` + "\u017f" + `lot":"1"}],"signed_attestations":[]}`), want: protection.ErrMalformed},
		{name: "no attestations", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"8"}]}`), want: protection.ErrMalformed},
		{name: "a slot that is a number", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":8}],"signed_attestations":[]}`), want: protection.ErrMalformed},
		{name: "a slot in hex", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"0x8"}],"signed_attestations":[]}`), want: protection.ErrMalformed},
		{name: "a slot below zero", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"-8"}],"signed_attestations":[]}`), want: protection.ErrMalformed},
		{name: "leading zeros", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"08"}],"signed_attestations":[]}`), want: protection.ErrMalformed},
		{name: "no slot", file: foreign(`{"pubkey":"KEY","signed_blocks":[{}],"signed_attestations":[]}`), want: protection.ErrMalformed},
		{name: "a source above its target", file: foreign(`{"pubkey":"KEY","signed_blocks":[],"signed_attestations":[{"source_epoch":"5","target_epoch":"4"}]}`), want: protection.ErrMalformed},
		{name: "a short root", file: foreign(`{"pubkey":"KEY","signed_blocks":[{"slot":"8","signing_root":"0x01"}],"signed_attestations":[]}`), want: protection.ErrMalformed},
		{name: "a short key", file: foreign(`{"pubkey":"0x01","signed_blocks":[],"signed_attestations":[]}`), want: protection.ErrMalformed},
		{name: "a field of tutti's that is not known", file: change(`"shard":`, `"more": 1, "shard":`), want: protection.ErrMalformed},
		{name: "a vote with a bad signature", file: change(`"0x01000300`, `"0x01000301`), want: protection.ErrMalformed},
		{name: "deep", file: strings.Repeat("[", 100), want: protection.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := v.Read([]byte(tc.file), protection.State{})
			if tc.name == "a vote with a bad signature" { // which has another epoch, or shard
				if err == nil {
					t.Error("taken")
				}
				return
			}
			if !errors.Is(err, tc.want) {
				t.Fatalf("err %v, want %v", err, tc.want)
			}
			if s.Bar != tc.bar || len(s.Votes) != tc.votes || (tc.conflict == "") != (len(s.Conflicts) == 0) ||
				len(s.Conflicts) > 0 && !strings.Contains(s.Conflicts[0], tc.conflict) {
				t.Errorf("read %+v", s)
			}
		})
	}
}

// TestSignatures: a vote binds only who signed it.
func TestSignatures(t *testing.T) {
	v := self()
	forged := vote(statement(consensus.Finalize, 50, 1))
	forged.Signature[3]++
	b, err := v.Export(protection.State{Bar: 40, Votes: []consensus.Vote{forged}}, protection.Exact)
	must(t, err)
	if _, err := v.Read(b, protection.State{}); !errors.Is(err, protection.ErrMalformed) || !strings.Contains(err.Error(), "not signed") {
		t.Errorf("a forged vote: %v", err)
	}
	other := simtest.NewKeys(4).Signer(1)
	theirs := vote(statement(consensus.Finalize, 50, 1))
	theirs.Validator, theirs.Signature = 1, other.Sign(consensus.VoteMessage(simtest.Chain, theirs.Statement))
	if b, err = v.Export(protection.State{Bar: 40, Votes: []consensus.Vote{theirs}}, protection.Exact); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Read(b, protection.State{}); !errors.Is(err, protection.ErrMalformed) {
		t.Errorf("another validator's vote: %v", err)
	}
}

// TestConflicts: what contradicts itself bars everything, and is said.
func TestConflicts(t *testing.T) {
	v := self()
	held := v.Records([]simplex.Record{finalization(40), voted(consensus.Finalize, 42, 1), voted(consensus.Notarize, 44, 1)}, 0)
	for name, r := range map[string]simplex.Record{
		"two finalize": voted(consensus.Finalize, 42, 2), "finalize and nullify": voted(consensus.Nullify, 42, 0), "two notarize": voted(consensus.Notarize, 44, 9),
	} {
		b, err := v.Export(v.Records([]simplex.Record{finalization(39), r}, 0), protection.Exact)
		must(t, err)
		s, err := v.Read(b, held)
		must(t, err)
		c, merged := v.Change(held, s)
		if len(merged.Conflicts) != 1 || merged.Bar != 46 || len(merged.Votes) != 0 || c.Floor == nil || c.Floor.View != 46 || len(c.Votes) != 0 {
			t.Errorf("%s: %+v, change %+v", name, merged, c)
		}
		if _, err := v.Export(merged, protection.Exact); err == nil {
			t.Errorf("%s: exported", name)
		}
	}
	legal, err := v.Export(v.Records([]simplex.Record{finalization(40), voted(consensus.Notarize, 42, 9), voted(consensus.Nullify, 44, 0)}, 0), protection.Exact)
	must(t, err)
	s, err := v.Read(legal, held)
	must(t, err)
	if c, merged := v.Change(held, s); len(merged.Conflicts) > 0 || c.Floor != nil || len(c.Votes) != 2 {
		t.Errorf("legal votes: %+v, change %+v", merged, c)
	}
}

// history is a validator that votes at random but legally, as the machine may (R8), with what its log holds at each moment.
type history struct {
	rng   *rand.Rand
	cast  []consensus.Vote
	final consensus.View
	log   *blocklog.Log
	fs    *vfs.MemFS
}

func openLog(tb testing.TB, fs vfs.FS) *blocklog.Log {
	tb.Helper()
	l, err := blocklog.Open(blocklog.Options{FS: fs, Dir: "log", Chain: simtest.Chain, Shard: 3, Create: true, Retention: 64, VoteLogBytes: 300})
	must(tb, err)
	return l
}

// step casts some votes that are legal, or makes a view final.
func (h *history) step(tb testing.TB) {
	at := h.final + 1 + consensus.View(h.rng.IntN(8))
	if h.rng.IntN(6) == 0 {
		h.final = at
		cert := finalization(at)
		for _, v := range h.cast {
			if v.View == at && v.Kind == consensus.Finalize {
				cert.Cert.Block = v.Block
			}
		}
		must(tb, h.log.AppendRecord(cert))
		must(tb, h.log.Sync())
		return
	}
	st := statement(consensus.Kind(1+h.rng.IntN(3)), at, byte(1+h.rng.IntN(2)))
	if !permits(h.records(tb), st) {
		return
	}
	v := vote(st)
	h.cast = append(h.cast, v)
	must(tb, h.log.AppendRecord(simplex.Record{Vote: &v}))
	must(tb, h.log.Sync())
}

// records is what a restart would read.
func (h *history) records(tb testing.TB) []simplex.Record { return restarted(tb, h.fs) }

func restarted(tb testing.TB, fs *vfs.MemFS) []simplex.Record {
	tb.Helper()
	l := openLog(tb, fs.CrashClone(vfs.CrashCloneCfg{}))
	defer l.Close()
	return l.Records()
}

// permits is R8 and R17 for a log: what a machine that starts with these records may still sign.
func permits(records []simplex.Record, st consensus.Statement) bool {
	for _, r := range records {
		switch {
		case r.Cert != nil && r.Cert.Kind == consensus.Finalize && st.View <= r.Cert.View:
			return false
		case r.Floor != nil && st.View <= r.Floor.View:
			return false
		case r.Vote != nil && r.Vote.View == st.View:
			if k := r.Vote.Kind; k == st.Kind || k+st.Kind == consensus.Nullify+consensus.Finalize || k == consensus.Nullify && st.Kind == consensus.Notarize {
				return false
			}
		}
	}
	return true
}

// foreign is the minimal reader of EIP-3076: the highest slot, source and target of a file bar all below.
type foreign struct{ slot, source, target uint64 }

func readForeign(tb testing.TB, b []byte) (f foreign) {
	tb.Helper()
	var in struct {
		Data []struct {
			Blocks []struct {
				Slot uint64 `json:"slot,string"`
			} `json:"signed_blocks"`
			Attestations []struct {
				Source uint64 `json:"source_epoch,string"`
				Target uint64 `json:"target_epoch,string"`
			} `json:"signed_attestations"`
		} `json:"data"`
	}
	must(tb, json.Unmarshal(b, &in))
	for _, x := range in.Data[0].Blocks {
		f.slot = max(f.slot, x.Slot)
	}
	for _, x := range in.Data[0].Attestations {
		f.source, f.target = max(f.source, x.Source), max(f.target, x.Target)
	}
	return f
}

func (f foreign) permits(st consensus.Statement) bool {
	if st.Kind == consensus.Notarize {
		return uint64(st.View) > f.slot
	}
	return uint64(st.View) > f.target && f.source == 0
}

// rivals are the statements that are slashable beside a vote, and the vote's own again.
func rivals(v consensus.Vote) []consensus.Statement {
	out := []consensus.Statement{v.Statement}
	switch v.Kind {
	case consensus.Nullify:
		out = append(out, statement(consensus.Finalize, v.View, 1), statement(consensus.Finalize, v.View, 2))
	default:
		out = append(out, statement(v.Kind, v.View, 3))
		if v.Kind == consensus.Finalize {
			out = append(out, statement(consensus.Nullify, v.View, 0))
		}
	}
	return out
}

// TestVerifyRoundTrip: whatever a validator has signed, and whatever log its file is imported into (an empty one, an old copy
// of its own, its own), nothing that is slashable beside that can be signed afterwards: not by us, in either form of the
// file, and not by a foreign reader of the minimal rules. Into its own log it changes nothing; into an empty one it loses
// nothing.
func TestVerifyRoundTrip(t *testing.T) {
	v := self()
	votes, raised := 0, 0
	for seed := range *seeds {
		rng := rand.New(rand.NewPCG(seed, 7))
		fs := vfs.NewCrashableMem()
		h := &history{rng: rng, fs: fs, log: openLog(t, fs)}
		steps, copied := 5+rng.IntN(40), (*vfs.MemFS)(nil)
		for k := range steps {
			h.step(t)
			if k == steps/2 {
				copied = fs.CrashClone(vfs.CrashCloneCfg{})
			}
		}
		votes += len(h.cast)
		state := v.Records(h.records(t), 0)
		for _, form := range []protection.Form{protection.Exact, protection.Standard} {
			b, err := v.Export(state, form)
			must(t, err)
			if again, err := v.Export(v.Records(h.records(t), 0), form); err != nil || !bytes.Equal(b, again) {
				t.Fatalf("seed %d: two exports differ: %v", seed, err)
			}
			other := readForeign(t, b)
			for name, into := range map[string]*vfs.MemFS{"an empty log": vfs.NewCrashableMem(), "an old copy": copied.CrashClone(vfs.CrashCloneCfg{}), "its own log": fs.CrashClone(vfs.CrashCloneCfg{})} {
				before, after := importInto(t, v, into, b)
				if name == "its own log" && !cmp.Equal(before, after) {
					t.Fatalf("seed %d: its own file changes a log from %+v to %+v", seed, before, after)
				}
				if name == "an empty log" && form == protection.Exact && !cmp.Equal(v.Records(after, 0), state) {
					t.Fatalf("seed %d: %+v became %+v", seed, state, v.Records(after, 0))
				}
				if v.Records(after, 0).Bar > state.Bar {
					raised++
				}
				for _, c := range h.cast {
					for _, st := range rivals(c) {
						if permits(after, st) || other.permits(st) {
							t.Fatalf("seed %d, into %s: after %s of view %d, %s of view %d may be signed (ours %v, foreign %v)",
								seed, name, c.Kind, c.View, st.Kind, st.View, permits(after, st), other.permits(st))
						}
					}
				}
				starts(t, after)
			}
		}
		must(t, h.log.Close())
	}
	if uint64(votes) < 5**seeds || uint64(raised) < *seeds/4 {
		t.Errorf("only %d votes, and %d bars raised", votes, raised)
	}
}

// importInto makes durable in a log what a file says, and takes the power away.
func importInto(tb testing.TB, v *protection.Validator, fs *vfs.MemFS, b []byte) (before, after []simplex.Record) {
	tb.Helper()
	l := openLog(tb, fs)
	before = l.Records()
	held := v.Records(before, 0)
	s, err := v.Read(b, held)
	must(tb, err)
	c, merged := v.Change(held, s)
	if !c.Empty() {
		must(tb, l.Protect(c.Floor, c.Votes))
	}
	after = restarted(tb, fs)
	must(tb, l.Close())
	if got := v.Records(after, 0); got.Bar != merged.Bar || !cmp.Equal(got.Votes, merged.Votes) {
		tb.Fatalf("the log holds %+v, wanted %+v", got, merged)
	}
	return before, after
}

// starts: a machine takes the records, and votes above them.
func starts(tb testing.TB, records []simplex.Record) {
	tb.Helper()
	c := simtest.Committee(1, 1, 1, 1, 1)
	m, _, err := simplex.New(simplex.Config{
		Chain: simtest.Chain, Root: simtest.Genesis(c), Committee: c, Keys: simtest.NewKeys(4), Signer: simtest.NewKeys(4).Signer(2), Index: 2, Log: records,
	})
	must(tb, err)
	v := self()
	bar := v.Records(records, 0).Bar
	for range 100 { // the timers, and what others would answer
		view := m.Status().View
		r := m.Step(simplex.TimerFired{View: view})
		if i := slices.IndexFunc(r.Persist.Records, func(r simplex.Record) bool { return r.Vote != nil }); i >= 0 {
			if st := r.Persist.Records[i].Vote.Statement; !permits(records, st) {
				tb.Fatalf("a machine signs %s in view %d: %+v", st.Kind, st.View, records)
			} else if st.View > bar {
				return
			}
		}
		st := statement(consensus.Nullify, view, 0)
		nullification := consensus.Certificate{Statement: st, Signers: consensus.NewSigners(4)}
		var sigs []consensus.Signature
		for _, i := range []int{0, 1, 3} {
			nullification.Signers.Add(i)
			sigs = append(sigs, simtest.NewKeys(4).Signer(i).Sign(consensus.VoteMessage(simtest.Chain, st)))
		}
		nullification.Signature, err = simtest.NewKeys(4).Aggregate(sigs)
		must(tb, err)
		m.Step(simplex.CertificateReceived{From: 1, Cert: nullification})
	}
	tb.Fatalf("a machine does not vote above %d", bar)
}

// FuzzRead: a file of any content is refused, or read into a state that exports to a file that reads the same.
func FuzzRead(f *testing.F) {
	v := self()
	for _, form := range []protection.Form{protection.Exact, protection.Standard} {
		b, err := v.Export(v.Records(sample(), 38), form)
		must(f, err)
		f.Add(b)
	}
	f.Add([]byte(`{"metadata":{"interchange_format_version":"5","genesis_validators_root":"0x00"},"data":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := v.Read(b, protection.State{})
		if err != nil || len(s.Conflicts) > 0 {
			return
		}
		again, err := v.Export(s, protection.Exact)
		if err != nil {
			return // a bar beyond all numbers
		}
		back, err := v.Read(again, protection.State{})
		must(t, err)
		if !cmp.Equal(s, back) {
			t.Fatalf("%+v became %+v", s, back)
		}
	})
}
