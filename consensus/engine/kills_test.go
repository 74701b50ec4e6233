package engine

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/consensus"
	"tutti/consensus/killpoint"
)

// The flags make a campaign of TestKills; `make soak-kills` gives them.
var (
	kills       = flag.Int("kills", 0, "kills of each kind at this commit, those in -results included; 0: the short version")
	killResults = flag.String("results", "", "file to append to")
	killCommit  = flag.String("commit", "", "the commit")
	killSeed    = flag.Uint64("seed", 0, "seed of the first network; 0: a fresh one for each")
)

// macKeys are signatures that cost nothing: digests of who signs what, summed. A fifth of the networks has real ones.
type macKeys struct{}

type macSigner int

func (s macSigner) Sign(msg []byte) (sig consensus.Signature) {
	sum := sha256.Sum256(append([]byte{byte(s)}, msg...))
	copy(sig[:], sum[:])
	return sig
}

func (macKeys) Verify(i int, msg []byte, sig consensus.Signature) bool {
	return sig == macSigner(i).Sign(msg)
}

func (macKeys) VerifyAggregate(signers consensus.Signers, msg []byte, sig consensus.Signature) bool {
	var sum consensus.Signature
	for i := range 8 * len(signers) {
		if signers.Has(i) {
			one := macSigner(i).Sign(msg)
			for k := range sum {
				sum[k] ^= one[k]
			}
		}
	}
	return sum == sig
}

func (macKeys) Aggregate(sigs []consensus.Signature) (sum consensus.Signature, err error) {
	for _, one := range sigs {
		for k := range sum {
			sum[k] ^= one[k]
		}
	}
	return sum, nil
}

// killing is a cluster whose members are killed, one at a time, while they send. The wire's mutex guards the fields that its
// hook uses.
type killing struct {
	*cluster
	random *rand.Rand // of the test's goroutine
	gates  []*killpoint.Gate
	died   chan killed
	shards atomic.Bool // leaders send their bodies in shards

	votes   killpoint.Votes
	pair    *[2]killpoint.Cast
	signed  []consensus.Height // by member: the highest block whose finalization it signed, on the wire
	mute    bool               // no proposal arrives
	lossy   bool               // few finalize votes and finalizations arrive
	chance  *rand.Rand
	forgets func(vfs.FS) vfs.FS // the planted bug; nil: none

	mu       sync.Mutex
	evidence []string
}

// killed is what is left of a member.
type killed struct {
	death killpoint.Death
	fs    *vfs.MemFS
	disk  *toyDisk
}

// jury is an Observer that hears of contradictions.
type jury struct {
	deaf
	k  *killing
	at int
}

func (j jury) Evidence(a, b consensus.Vote) {
	j.k.mu.Lock()
	defer j.k.mu.Unlock()
	j.k.evidence = append(j.k.evidence, fmt.Sprintf("member %d has evidence against %d: %s and %s of view %d", j.at, a.Validator, a.Kind, b.Kind, a.View))
}

func (j jury) Conflict(a, b consensus.Certificate) {
	j.k.mu.Lock()
	defer j.k.mu.Unlock()
	j.k.evidence = append(j.k.evidence, fmt.Sprintf("member %d: a %s and a %s of view %d", j.at, a.Kind, b.Kind, a.View))
}

func newKilling(t *testing.T, seed uint64, real bool, forgets func(vfs.FS) vfs.FS) *killing {
	const n = 4
	k := &killing{
		cluster: newCluster(t, n), random: rand.New(rand.NewPCG(seed, 1)), chance: rand.New(rand.NewPCG(seed, 2)), died: make(chan killed, 1),
		signed: make([]consensus.Height, n), gates: make([]*killpoint.Gate, n), forgets: forgets,
	}
	if !real {
		k.keys = macKeys{}
		for i := range n {
			k.signers[i] = macSigner(i)
		}
	}
	k.options = func(i int, c *Config) {
		c.Observer = jury{k: k, at: i}
		k.nodes[i].app.refer = func(body []byte) consensus.BodyRef {
			if k.shards.Load() {
				return k.committee.ShardsRef(body)
			}
			return k.committee.BodyRef(body)
		}
	}
	k.wire.sent = k.passes
	k.wire.asked = k.asks
	for i := range n {
		must(t, k.begin(i))
	}
	return k
}

// begin starts a member with a gate of its own. With the planted bug its log may be beyond reading.
func (k *killing) begin(i int) error {
	n := k.nodes[i]
	n.view = n.fs
	if k.forgets != nil {
		n.view = k.forgets(n.fs)
	}
	percent := k.random.IntN(101)
	if k.forgets != nil {
		percent = 0 // else damage shows that nothing was synced
	}
	rng := rand.New(rand.NewPCG(k.random.Uint64(), 3))
	gate := killpoint.NewGate(i, len(k.nodes), killpoint.Plan{}, func(d killpoint.Death) {
		disk := n.disk.copy() // before the log, which it must not be ahead of
		k.died <- killed{d, n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), disk}
	})
	k.wire.mu.Lock()
	k.gates[i] = gate
	k.wire.mu.Unlock()
	e, err := Start(k.tb.Context(), k.config(i))
	if err != nil {
		return err
	}
	n.Engine = e
	return nil
}

// passes is the wire's hook.
func (k *killing) passes(from, to int, class Class, payload []byte) (pass bool) {
	k.gates[from].Send(to, payload, func() { pass = true })
	if !pass {
		return false
	}
	cast := killpoint.Read(payload)
	if pair := k.votes.Add(cast...); pair != nil && k.pair == nil {
		k.pair = pair
	}
	finalize := class == ClassVote && cast[0].Statement.Kind == consensus.Finalize
	return !(k.mute && class == ClassProposal) && !(k.lossy && finalize && k.chance.IntN(5) > 0)
}

// asks is the wire's hook for requests.
func (k *killing) asks(from, to int, req []byte) ([]byte, error, bool) {
	k.wire.mu.Lock()
	gate, peer := k.gates[to], k.wire.ports[to]
	handler, up := peer.handler, peer.up && k.wire.ports[from].up
	k.wire.mu.Unlock()
	if !up || handler == nil || gate.Dead() {
		return nil, context.DeadlineExceeded, true
	}
	b, err := handler(k.tb.Context(), from, req)
	if err != nil {
		return nil, err, true
	}
	leaves, dying := gate.Answer(from, b)
	if !leaves {
		return nil, context.DeadlineExceeded, true
	}
	if dying != nil {
		time.AfterFunc(time.Millisecond, dying)
	}
	return b, nil, true
}

// plugged connects or disconnects members that run.
func (k *killing) plugged(up bool, is ...int) {
	k.wire.mu.Lock()
	defer k.wire.mu.Unlock()
	for _, i := range is {
		k.wire.ports[i].up = up
	}
}

func (k *killing) weather(mute, lossy bool) {
	k.wire.mu.Lock()
	defer k.wire.mu.Unlock()
	k.mute, k.lossy = mute, lossy
}

// wrong says what has gone wrong so far, "" for nothing. convicted says that there are two votes that contradict each other.
func (k *killing) wrong() (what string, convicted bool) {
	k.wire.mu.Lock()
	pair := k.pair
	k.wire.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case pair != nil:
		return fmt.Sprintf("member %d sent two votes that contradict each other: %+v and %+v", pair[0].Validator, pair[0].Statement, pair[1].Statement), true
	case len(k.evidence) > 0:
		return k.evidence[0], true
	}
	for i, n := range k.nodes {
		if err := n.Err(); err != nil {
			return fmt.Sprintf("member %d: %v", i, err), false
		}
	}
	var longest []consensus.Hash
	for i, n := range k.nodes {
		chain := n.disk.chainOf()
		for h := range min(len(chain), len(longest)) {
			if chain[h] != longest[h] {
				return fmt.Sprintf("member %d finalised another block at height %d", i, h+1), false
			}
		}
		if len(chain) > len(longest) {
			longest = chain
		}
	}
	return "", false
}

// Bounds in the time of the bubble.
const (
	killWithin   = 5 * time.Minute // until the message of a plan is sent
	returnWithin = 2 * time.Minute // until the victim signs again
)

// one kills a member once and sees it come back. The error says what went wrong.
func (k *killing) one(target killpoint.Target) (d killpoint.Death, err error) {
	victim := k.random.IntN(len(k.nodes))
	k.shards.Store(target.Kind == killpoint.Parts || target.Kind == killpoint.Relay)
	k.gates[victim].Arm(target.Draw(k.random))
	end, ok := k.provoke(target, victim)
	if !ok {
		k.gates[victim].Arm(killpoint.Plan{})
		if what, _ := k.wrong(); what != "" {
			return d, fmt.Errorf("%s", what)
		}
		return d, fmt.Errorf("member %d sent no %v within %s", victim, target, killWithin)
	}
	n := k.nodes[victim]
	k.wire.unplug(victim)
	_ = n.Close() // in the void
	_ = n.log.Close()
	n.fs, n.disk = end.fs, end.disk
	k.weather(false, false)
	if err := k.begin(victim); err != nil {
		return end.death, err
	}
	since := consensus.Height(0)
	for _, o := range k.nodes {
		h, _ := o.disk.final()
		since = max(since, h)
	}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if what, _ := k.wrong(); what != "" {
			return end.death, fmt.Errorf("%s", what)
		}
		if k.signs(victim, since) {
			return end.death, nil
		}
		if time.Since(began) > returnWithin {
			return end.death, fmt.Errorf("member %d does not sign again: %+v", victim, n.Status())
		}
	}
}

// signs reports whether a finalization of a block above a height that another member logged has a member's signature.
func (k *killing) signs(victim int, above consensus.Height) bool {
	for i, n := range k.nodes {
		if i == victim {
			continue
		}
		final, _ := n.log.Final()
		for h := above + 1; h <= final; h++ {
			if _, cert, err := n.log.Finalization(h); err == nil && cert.Signers.Has(victim) {
				return true
			}
		}
	}
	return false
}

// provoke makes the victim send what it is to die of: it is asked for something, or the network is disturbed.
func (k *killing) provoke(target killpoint.Target, victim int) (killed, bool) {
	others := make([]int, 0, 3)
	for i := range k.nodes {
		if i != victim {
			others = append(others, i)
		}
	}
	nullify := target.Kind == killpoint.Nullify || target.Kind == killpoint.Nullification
	for began := time.Now(); time.Since(began) < killWithin; {
		var away []int
		calm, rough := time.Duration(k.random.IntN(600))*time.Millisecond, time.Duration(0)
		switch {
		case target.Answers():
			calm = 100 * time.Millisecond
			k.ask(target.Kind, others[k.random.IntN(len(others))], victim)
		case nullify && !(target.Again && target.Kind == killpoint.Nullify):
			rough = time.Duration(2500+k.random.IntN(4000)) * time.Millisecond
		case target.Again:
			if rough = time.Duration(1200+k.random.IntN(3000)) * time.Millisecond; nullify {
				rough *= 3 // no quorum of nullify votes for some views' timers
			}
			k.random.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
			away = others[:2]
		}
		// A notarization is repeated while its block is not final: cutting two off seldom hits just then, so half the rounds lose votes.
		lossy := target.Again && (target.Kind == killpoint.Finalize || target.Kind == killpoint.Notarization && k.random.IntN(2) == 0)
		k.weather(false, lossy)
		if end, ok := k.dies(calm); ok {
			return end, true
		}
		k.weather(nullify && away == nil, lossy)
		k.plugged(false, away...)
		end, ok := k.dies(rough)
		k.plugged(true, away...)
		if ok {
			return end, true
		}
		if what, _ := k.wrong(); what != "" {
			return killed{}, false
		}
	}
	return killed{}, false
}

func (k *killing) dies(within time.Duration) (killed, bool) {
	select {
	case end := <-k.died:
		return end, true
	case <-time.After(within):
		return killed{}, false
	}
}

// ask has a member ask another for something that it has.
func (k *killing) ask(kind killpoint.Kind, from, to int) {
	height, hash := k.nodes[to].disk.final()
	if height == 0 {
		return
	}
	req := request{typ: typeGetRun, from: height}
	switch kind {
	case killpoint.Block:
		req = request{typ: typeGetBlock, hash: hash}
	case killpoint.Headers:
		req = request{typ: typeGetHeaders, hash: hash, most: 10}
	}
	k.wire.mu.Lock()
	port := k.wire.ports[from]
	k.wire.mu.Unlock()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = port.Request(ctx, to, req.encode())
	}()
}

// end ends all members.
func (k *killing) end() {
	for i, n := range k.nodes {
		k.wire.unplug(i)
		_ = n.Close()
		_ = n.log.Close()
	}
}

// killsANetwork is how many kills a network goes through before a new one is made.
const killsANetwork = 100

// killRound makes a network and kills its members n times. It says how many of them at which point, and what went wrong.
func killRound(t *testing.T, target killpoint.Target, n int, seed uint64, real bool, forgets func(vfs.FS) vfs.FS) (points map[killpoint.Point]int, wrong string, convicted bool) {
	points = map[killpoint.Point]int{}
	synctest.Test(t, func(t *testing.T) {
		k := newKilling(t, seed, real, forgets)
		defer k.end()
		for range n {
			d, err := k.one(target)
			if d.Of > 0 || d.Plan.Point == killpoint.Before {
				at := killpoint.Some
				switch len(d.To) {
				case 0:
					at = killpoint.Before
				case d.Of:
					at = killpoint.All
				}
				points[at]++
			}
			if err != nil {
				_, convicted = k.wrong()
				wrong = err.Error()
				return
			}
		}
	})
	return points, wrong, convicted
}

// TestKills kills members while they send each kind of message, before, in the midst and after it, over a file system that
// keeps a random part of what was not synced. No two votes that ever left a member contradict each other, no member has
// evidence, none stops, and the victim signs again. A few kills of each kind, or as many as -kills says.
func TestKills(t *testing.T) {
	tally := killpoint.Tally{Path: *killResults, Commit: *killCommit, Where: "engine"}
	for _, target := range killpoint.Targets() {
		name := killpoint.Plan{Kind: target.Kind, Again: target.Again}.Target()
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			for round := 0; ; round++ {
				n := 2
				if *kills > 0 {
					done, _, err := tally.Done()
					must(t, err)
					if n = min(*kills-done[name], killsANetwork); n <= 0 {
						return
					}
				} else if round > 0 {
					return
				}
				seed := uint64(rand.Uint32())
				if *killSeed != 0 {
					seed = *killSeed + uint64(round)
				}
				began := time.Now()
				points, wrong, _ := killRound(t, target, n, seed, round%5 == 4, nil)
				outcome := killpoint.Passed
				if wrong != "" {
					t.Errorf("seed %d: %s", seed, wrong)
					outcome = "FAIL: " + wrong
				}
				t.Logf("seed %d: %v, %.1f s", seed, points, time.Since(began).Seconds())
				if *kills > 0 {
					must(t, tally.Append(seed, name, points, time.Since(began), outcome))
				}
				if wrong != "" {
					return
				}
			}
		})
	}
}

// forgetful is a file system on which no append to the vote log is ever synced: the planted bug of TestKillsCatch. The first sync of
// a file, which ends its making, is done.
type forgetful struct{ vfs.FS }

type forgetfulFile struct {
	vfs.File
	votes bool
	syncs *atomic.Int32
}

func (f forgetful) file(name string, fl vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return forgetfulFile{fl, strings.HasPrefix(filepath.Base(name), "votes"), new(atomic.Int32)}, nil
}

func (f forgetful) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	fl, err := f.FS.Create(name, c)
	return f.file(name, fl, err)
}

func (f forgetful) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	fl, err := f.FS.OpenReadWrite(name, c, o...)
	return f.file(name, fl, err)
}

func (f forgetfulFile) Sync() error {
	if f.votes && f.syncs.Add(1) > 1 {
		return nil
	}
	return f.File.Sync()
}

func (f forgetfulFile) SyncData() error { return f.Sync() }

// TestKillsCatch is the canary: a member that does not sync its votes has to be convicted within a number of kills. Most members
// stop by themselves when they hear of the vote that they forgot (R18), which is noticed too; those that speak first, as leaders do,
// are convicted. Who forgets a nullify seldom is: in three of 1,074 kills.
func TestKillsCatch(t *testing.T) {
	for kind, convictedWithin := range map[killpoint.Kind]int{killpoint.Whole: 200, killpoint.Parts: 200, killpoint.Nullify: 5000} {
		target := killpoint.Target{Kind: kind}
		t.Run(string(target.Kind), func(t *testing.T) {
			count, stops := 0, 0
			for seed := uint64(1); count < convictedWithin; seed++ {
				began := time.Now()
				points, wrong, convicted := killRound(t, target, convictedWithin-count, seed, false, func(fs vfs.FS) vfs.FS { return forgetful{fs} })
				for _, n := range points {
					count += n
				}
				if convicted {
					t.Logf("convicted in kill %d, after %d networks that stopped otherwise: %s", count, stops, wrong)
					if *kills > 0 {
						tally := killpoint.Tally{Path: *killResults, Commit: *killCommit, Where: "engine"}
						must(t, tally.Append(seed, string(target.Kind), points, time.Since(began), fmt.Sprintf("%s no sync of votes, convicted in kill %d: %s", killpoint.Canary, count, wrong)))
					}
					return
				}
				if wrong != "" {
					stops++
				}
			}
			t.Errorf("no vote was synced, and %d kills convicted nobody, after %d networks that stopped otherwise", count, stops)
		})
	}
}
