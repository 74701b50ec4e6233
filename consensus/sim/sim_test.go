package sim_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tutti/accel/bls"
	"tutti/consensus"
	"tutti/consensus/sim"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

func options(seed uint64, powers []consensus.Power) sim.Options {
	c := simtest.Committee(seed, powers...)
	o := sim.Options{Seed: seed, Chain: simtest.Chain, Committee: c, Genesis: simtest.Genesis(c), Keys: simtest.NewKeys(len(powers))}
	for i := range powers {
		o.Signers = append(o.Signers, simtest.NewKeys(len(powers)).Signer(i))
	}
	return o
}

var (
	four    = []consensus.Power{1, 1, 1, 1}
	seven   = []consensus.Power{1, 1, 1, 1, 1, 1, 1}
	unequal = []consensus.Power{9, 3, 5, 1, 4, 2, 7} // 31: a quorum is 21
	storm   = sim.Faults{
		For: 40 * time.Second, Drop: 0.1, Duplicate: 0.05, Delay: 60 * time.Millisecond,
		Partition: 15 * time.Second, Crash: 8 * time.Second, Down: 8 * time.Second, SlowDisk: 0.02, SlowApp: 0.05,
	}
)

// draw is what a seed stands for: committee, adversaries and faults.
func draw(seed uint64) (sim.Options, string) {
	rng := rand.New(rand.NewPCG(seed, 1))
	powers := [][]consensus.Power{four, seven, unequal}[seed%3]
	o := drawn{options(seed, powers)}
	o.Faults = storm
	o.Faults.Drop *= 3 * rng.Float64()
	o.Faults.Delay = time.Duration(float64(o.Faults.Delay) * 8 * rng.Float64() * rng.Float64())
	if rng.IntN(2) == 0 { // little room: block sync and the small bodies come into play
		o.Limits = simplex.Limits{Window: 3, Depth: 2, TailDepth: 200, TailBody: 100, Reach: 2}
	}
	o.Adversaries = make(map[int]sim.Maker)
	names := []string{}
	for name := range sim.Adversaries() {
		if name != "trespasser" { // which comes with epochs
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var bad consensus.Power
	says := fmt.Sprintf("n=%d", len(powers))
	for range rng.IntN(4) {
		i := rng.IntN(len(powers))
		if o.Adversaries[i] == nil && 3*(bad+powers[i]) < o.Committee.Total() {
			bad += powers[i]
			name := names[rng.IntN(len(names))]
			o.Adversaries[i] = sim.Adversaries()[name]
			says += fmt.Sprintf(" %d=%s", i, name)
		}
	}
	if seed%4 == 2 {
		says += o.epochs(rng)
	}
	return o.Options, says
}

// drawn are options in the making.
type drawn struct{ sim.Options }

// epochs has a run go through short epochs: in each the first member leaves, and another comes.
func (o *drawn) epochs(rng *rand.Rand) string {
	n := len(o.Committee.Validators)
	all := n + 2
	e := &sim.Epochs{Length: consensus.Height(2 + rng.IntN(7)), Late: 0.5 + 0.45*rng.Float64()}
	for i := range n {
		e.First = append(e.First, i)
	}
	says := ""
	if i := rng.IntN(2 * n); i < n { // and one who does not let go
		says = fmt.Sprintf(" %d=trespasser", i)
		o.Adversaries[i] = sim.Trespasser
		var bad consensus.Power
		for k := range o.Adversaries {
			bad += o.Committee.Validators[k].Power
		}
		if 3*bad >= o.Committee.Total() {
			o.Adversaries = map[int]sim.Maker{i: sim.Trespasser}
		}
	}
	for k := 1; k < 16; k++ {
		era := sim.Era{}
		var powers []consensus.Power
		for i := range n {
			m := (k + i) % all
			era.Members, powers = append(era.Members, m), append(powers, o.Committee.Validators[m%n].Power)
		}
		era.Committee, era.Keys = simtest.Members(consensus.Epoch(k), rng.Uint64(), era.Members, powers), simtest.KeysOf(era.Members)
		e.Later = append(e.Later, era)
		var bad consensus.Power
		for i, m := range era.Members {
			if o.Adversaries[m] == nil {
				continue
			}
			if bad += powers[i]; 3*bad >= era.Committee.Total() {
				bad -= powers[i]
				delete(o.Adversaries, m)
			}
		}
	}
	o.Epochs, o.Signers = e, nil
	for i := range all {
		o.Signers = append(o.Signers, simtest.NewKeys(all).Signer(i))
	}
	return fmt.Sprintf("%s epochs of %d", says, e.Length)
}

func TestVerifySeeds(t *testing.T) {
	sum := campaign(t, "TestVerifySeeds", *seeds, draw)
	t.Logf("%s; evidence in %d seeds; %d epochs ended, with %d echoes", sum, sum.convicted, sum.epochs, sum.echoes)
	if *seed == 0 && *seeds >= 40 && (sum.epochs < *seeds || sum.echoes < *seeds/4 || sum.synced == 0) {
		t.Errorf("%d epochs with %d echoes in %d seeds: this test tests little", sum.epochs, sum.echoes, *seeds)
	}
}

// losing is a seed with disks that are lost, among fewer adversaries than draw has.
func losing(seed uint64) (sim.Options, string) {
	o, says := draw(seed)
	for i := range o.Committee.Validators {
		var bad, most consensus.Power
		for k, v := range o.Committee.Validators {
			if o.Adversaries[k] != nil {
				bad += v.Power
			} else {
				most = max(most, v.Power)
			}
		}
		if !o.Committee.IsQuorum(o.Committee.Total() - bad - most) {
			delete(o.Adversaries, i)
		}
	}
	o.Faults.Lose = 8 * time.Second
	if o.Epochs != nil {
		o.Epochs, o.Signers = nil, o.Signers[:len(o.Committee.Validators)]
	}
	return o, says
}

// TestVerifyLostDisks: validators lose their disks again and again, join with a floor and another's state, and vote again. All
// checks stay on: what they say never contradicts what they said before the loss.
func TestVerifyLostDisks(t *testing.T) {
	n := *lost
	if n == 0 {
		n = (*seeds + 1) / 2
	}
	sum := campaign(t, "TestVerifyLostDisks", n, losing)
	t.Logf("%s; %d disks lost, %d joined and voted before the next loss, all vote at the end", sum, sum.lost, sum.joined)
	if *seed == 0 && sum.joined < n {
		t.Errorf("%d of %d lost disks in %d seeds: this test tests little", sum.joined, sum.lost, n)
	}
}

// FuzzSeed lets the fuzzer look for a bad seed.
func FuzzSeed(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		o, says := draw(seed)
		if r, err := sim.Run(o); err != nil {
			t.Fatalf("seed %d (%s): %v\nreport %+v", seed, says, err, r)
		}
	})
}

// TestDeterminism: a seed is one run, to the byte.
func TestDeterminism(t *testing.T) {
	run := func() (trace [32]byte) {
		h := sha256.New()
		o, _ := draw(5)
		o.Trace = func(f string, a ...any) { fmt.Fprintf(h, f+"\n", a...) }
		if _, err := sim.Run(o); err != nil {
			t.Fatal(err)
		}
		return [32]byte(h.Sum(nil))
	}
	if a, b := run(), run(); a != b {
		t.Errorf("two runs of one seed: %x and %x", a, b)
	}
}

// TestCalm pins what an undisturbed shard costs: no view is given up, and a block takes one proposal, two rounds of
// votes and at most four certificates sent to all.
func TestCalm(t *testing.T) {
	for _, powers := range [][]consensus.Power{{1}, four, seven, unequal} {
		r, err := sim.Run(options(7, powers))
		if err != nil {
			t.Fatal(err)
		}
		n, views := len(powers), int(r.View)
		t.Logf("n=%d: height %d, %d views in %v: %v", n, r.Height, r.View, r.Took, r.Messages)
		if r.Nullify != 0 || len(r.Evidence)+len(r.Blamed) != 0 {
			t.Errorf("n=%d: %d nullify votes, evidence %v, blame %v", n, r.Nullify, r.Evidence, r.Blamed)
		}
		for what, most := range map[string]int{
			"proposal": views * (n - 1), "part": views * (n - 1) * (n - 1), "notarize": views * (n - 1) * (n - 1), "finalize": views * n * (n - 1), "certificate": views * 4 * n,
		} {
			if r.Messages[what] > most {
				t.Errorf("n=%d: %d messages %s in %d views, at most %d", n, r.Messages[what], what, views, most)
			}
		}
	}
}

// TestAdversaries runs each adversary alone against four and seven, in a calm network and a storm, and names what
// must come of it.
func TestAdversaries(t *testing.T) {
	convicted := map[string]bool{"equivocator": true, "doublefinaliser": true, "forker": true, "latenullifier": true, "oldparent": true, "spammer": true}
	blamed := map[string]bool{"forger": true, "replayer": true, "forker": true, "badencoder": true}
	for name, make := range sim.Adversaries() {
		t.Run(name, func(t *testing.T) {
			evidence, blames := 0, 0
			for _, s := range []uint64{0, 1, 3, 4} {
				o := options(s, [][]consensus.Power{four, seven, unequal}[s/2])
				if s%2 == 0 {
					o.Faults = storm
				} else {
					o.Faults.For = 20 * time.Second
				}
				bad := []int{1, 5, 0}[s/2] // 1, 1 and 9 of 4, 7 and 31
				o.Adversaries = map[int]sim.Maker{bad: make}
				r, err := sim.Run(o)
				if err != nil {
					t.Fatalf("run %d: %v", s, err)
				}
				evidence, blames = evidence+r.Evidence[bad], blames+len(r.Blamed[bad])
			}
			if convicted[name] != (evidence > 0) || blamed[name] != (blames > 0) {
				t.Errorf("%d pieces of evidence, %d blames", evidence, blames)
			}
		})
	}
}

// TestFarBehind: a node that slept for hundreds of blocks, under the limits of the product, comes back by block sync.
func TestFarBehind(t *testing.T) {
	o := options(6, seven)
	o.Faults = sim.Faults{For: 3 * time.Minute, Crash: 20 * time.Second, Down: 40 * time.Second}
	r, err := sim.Run(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("height %d, %d restarts, %d syncs", r.Height, r.Restarts, r.Synced)
	if r.Height < 200 || r.Synced == 0 {
		t.Errorf("height %d, %d syncs: this test tests nothing", r.Height, r.Synced)
	}
}

// TestRealKeys runs the product's signatures.
func TestRealKeys(t *testing.T) {
	o := options(3, four)
	validators := slices.Clone(o.Committee.Validators)
	for i := range validators {
		key, err := bls.NewSecretKey(bytes.Repeat([]byte{byte(i + 1)}, 32))
		if err != nil {
			t.Fatal(err)
		}
		validators[i].Key, o.Signers[i] = key.Public(), consensus.NewSigner(key)
	}
	c, err := consensus.NewCommittee(3, 0, consensus.Hash{}, validators)
	if err != nil {
		t.Fatal(err)
	}
	if o.Keys, err = consensus.NewKeys(c); err != nil {
		t.Fatal(err)
	}
	o.Committee, o.Genesis = c, simtest.Genesis(c)
	o.Adversaries = map[int]sim.Maker{2: sim.Forger}
	o.Faults = sim.Faults{For: 2 * time.Second, Drop: 0.05}
	r, err := sim.Run(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("height %d, view %d, forger blamed %d times", r.Height, r.View, len(r.Blamed[2]))
}
