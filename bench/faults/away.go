package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"tutti/appliance/config"
	"tutti/appliance/localnet"
	"tutti/appliance/node"
	"tutti/bench/endless"
	"tutti/bench/load"
	"tutti/bench/openloop"
	"tutti/bench/workload"
	"tutti/consensus"
	"tutti/consensus/killpoint"
)

// Away has a validator come back from being away, under load, and measures how long it takes from the start of its process until
// its signature is in a certificate of a final block that another node shows. It is never helped: no flag, no command.
type Away struct {
	Binary   string // of a build with the tags tutti_unsynced and tutti_kills, and the bug "contradicts" planted
	Dir      string // to make the networks' folders in; those of failed ones are kept
	Rate     float64
	Long     time.Duration // the long absence
	Blocks   uint64        // the longest one
	At       uint64        // where it began
	Keep     int           // blocks that the others keep then
	Accounts uint64
	Logf     func(format string, args ...any)
}

// Return is how one went.
type Return struct {
	From   string
	Lacked consensus.Height // final blocks of the others that it did not have
	Voted  time.Duration
}

// Run plays the absences of a running network: one block, a long time, as the author of a block that the others gave up, and
// with a state that contradicts a final block.
func (a *Away) Run(ctx context.Context, seed uint64) (all []Return, wrongs []string, err error) {
	sz := size{shards: 1, validators: 4, accounts: a.Accounts, rate: a.Rate}
	k := &Kills{Binary: a.Binary, Dir: a.Dir, Target: killpoint.Target{Kind: killpoint.Whole}, Seed: seed, Logf: a.Logf}
	if err := k.open(ctx, localnet.Options{}, sz); err != nil {
		return nil, nil, err
	}
	w := k.w
	defer func() { err = errors.Join(err, w.close(), os.RemoveAll(k.dir)) }()
	for _, play := range []struct {
		from string
		run  func(context.Context, *Kills) (Return, error)
	}{
		{"one block", func(ctx context.Context, k *Kills) (Return, error) { return a.absent(ctx, k, 1, 0) }},
		{a.Long.String(), func(ctx context.Context, k *Kills) (Return, error) { return a.absent(ctx, k, 1, a.Long) }},
		{"a block of its own that the others gave up", a.forked},
		{"a state that contradicts a final block", a.contradicts},
	} {
		r, err := play.run(ctx, k)
		if r.From = play.from; err != nil {
			w.witness.Wrong("%s: %v", play.from, err)
		}
		if len(w.witness.Wrongs()) > 0 {
			return all, w.witness.Wrongs(), nil
		}
		a.Logf("%s: %d blocks behind, in a certificate after %.2f s", r.From, r.Lacked, r.Voted.Seconds())
		all = append(all, r)
	}
	if _, err := w.endLoad(); err != nil {
		return all, nil, err
	}
	w.witness.CheckSupply(ctx, w.shards, w.supply())
	each(w.nodes, func(n *apiNode) {
		kept := span{1, w.witness.Height(0)}
		if n == w.nodes[k.victim] { // it tells no blocks below the state that it copied
			kept.from = k.copied
		}
		w.witness.CheckKept(ctx, n, kept)
		w.witness.CheckRoot(ctx, n)
		w.witness.CheckAccounts(ctx, n, w.sample(0))
	})
	return all, w.witness.Wrongs(), nil
}

// absent kills the victim, and starts it again when the others have gone on for some blocks and some time.
func (a *Away) absent(ctx context.Context, k *Kills, blocks consensus.Height, long time.Duration) (r Return, err error) {
	w := k.w
	if err := w.net.Kill(k.name()); err != nil {
		return r, err
	}
	had := w.witness.Height(0)
	if !openloop.Wait(ctx, long) {
		return r, ctx.Err()
	}
	if err := w.passes(ctx, 0, had+blocks, goesOn); err != nil {
		return r, err
	}
	return a.back(ctx, k, had)
}

// back starts the victim, which had blocks up to a height, and waits until it signs above all that is final now.
func (a *Away) back(ctx context.Context, k *Kills, had consensus.Height) (r Return, err error) {
	above := k.w.witness.Height(0)
	began := time.Now()
	if err := k.w.net.Restart(k.name()); err != nil {
		return r, err
	}
	if err := k.signs(ctx, above); err != nil {
		return r, err
	}
	r = Return{Lacked: above - had, Voted: time.Since(began)}
	return r, k.judge(ctx)
}

// forked has the victim die when it has logged a proposal of its own and nobody was sent it, and come back when the others have
// given the view up and gone on.
func (a *Away) forked(ctx context.Context, k *Kills) (r Return, err error) {
	w := k.w
	from := w.witness.Height(0)
	if err := k.write(killpoint.Plan{Kind: killpoint.Whole, Nth: 1, Point: killpoint.Before}); err != nil {
		return r, err
	}
	if err := k.provoke(ctx); err != nil {
		return r, err
	}
	d, err := k.death()
	if err != nil {
		return r, err
	}
	had := w.witness.Height(0)
	if err := w.passes(ctx, 0, had+3, goesOn); err != nil {
		return r, err
	}
	other := w.nodes[(k.victim+1)%len(w.nodes)]
	top := w.witness.Height(0)
	if err := w.finalAt(ctx, other, top, goesOn); err != nil { // another one told of it
		return r, err
	}
	for h := from + 1; h <= top; h++ {
		if c, err := other.Block(ctx, h); err != nil {
			return r, err
		} else if c.Header.View == d.View {
			return r, fmt.Errorf("block %d is the one of view %d that nobody was sent", h, d.View)
		}
	}
	return a.back(ctx, k, had)
}

// contradicts starts the victim with a bug that makes it call a final block invalid, once. It has to halt, keep what it had
// aside, copy the state and go on.
func (a *Away) contradicts(ctx context.Context, k *Kills) (r Return, err error) {
	w := k.w
	if err := w.net.Kill(k.name()); err != nil {
		return r, err
	}
	if err := os.Setenv("TUTTI_PLANTED", "contradicts"); err != nil {
		return r, err
	}
	defer os.Unsetenv("TUTTI_PLANTED")
	if err := w.net.Restart(k.name()); err != nil {
		return r, err
	}
	kept := filepath.Join(string(w.net.Home), "nodes", k.name(), "data", "state.damaged-1")
	if !await(ctx, goesOn, nil, func() bool {
		_, err := os.Stat(kept)
		return err == nil
	}) {
		return r, fmt.Errorf("%s did not move its state to %s", k.name(), kept)
	}
	began, above := time.Now(), w.witness.Height(0)
	if err := k.signs(ctx, above); err != nil {
		return r, err
	}
	r.Voted, k.copied = time.Since(began), w.witness.Height(0)
	w.logged[k.name()] = 1 << 40 // it has complained, rightly
	return r, k.judge(ctx)
}

// Epochs has a validator come back that was away for many epochs, of whose blocks the others keep the newest only: it follows their
// hand-overs, copies the state and carries its votes over. Everybody has a seat in each epoch.
func (a *Away) Epochs(ctx context.Context, seed uint64) (r Return, err error) {
	k := &Kills{Binary: a.Binary, Dir: a.Dir, Target: killpoint.Target{Kind: killpoint.Whole}, Seed: seed, Logf: a.Logf}
	opt := localnet.Options{
		EpochBlocks: awayEpoch, IntervalMs: 30,
		Config: func(c *config.Config) { unlimited(c); c.Storage.RetentionBlocks = awayKeep },
	}
	if err := k.open(ctx, opt, size{shards: 1, validators: 4, accounts: a.Accounts, rate: a.Rate}); err != nil {
		return r, err
	}
	w := k.w
	defer func() {
		if err != nil {
			w.witness.Wrong("%v", err)
		}
		err = errors.Join(err, w.close(), os.RemoveAll(k.dir))
	}()
	if err := w.passes(ctx, 0, awayEpoch+awayEpoch/4, goesOn); err != nil {
		return r, err
	}
	if err := w.net.Kill(k.name()); err != nil {
		return r, err
	}
	had := w.witness.Height(0)
	for h := had; h < had+awayFor; h += awayEpoch {
		if err := w.passes(ctx, 0, h, goesOn); err != nil {
			return r, err
		}
	}
	r, err = a.back(ctx, k, had)
	r.From = fmt.Sprintf("%d epochs", r.Lacked/awayEpoch)
	if _, told := w.nodes[k.victim].Block(ctx, had+1); err == nil && told == nil {
		err = fmt.Errorf("%s has block %d, which nobody keeps: it did not copy the state", k.name(), had+1)
	}
	if err == nil && len(w.witness.Wrongs()) > 0 {
		err = errors.New(w.witness.Wrongs()[0])
	}
	return r, err
}

// Of Epochs.
const (
	awayEpoch = 50                            // blocks of an epoch
	awayKeep  = 100                           // blocks that are kept at least
	awayFor   = awayKeep + 1024 + 2*awayEpoch // blocks after which they are not: a file of the block log holds up to 1,024
)

// Million has a validator come back that has not seen the last Blocks blocks, of which the others keep few.
func (a *Away) Million(ctx context.Context, seed uint64) (r Return, err error) {
	victim := rand.New(rand.NewPCG(seed, 0xa3)).IntN(4)
	dir, err := os.MkdirTemp(a.Dir, "tutti-away-")
	if err != nil {
		return r, err
	}
	port, err := localnet.FreePorts(4)
	if err != nil {
		return r, err
	}
	name := fmt.Sprintf("s0v%d", victim)
	opt := localnet.Options{
		Home: filepath.Join(dir, "net"), Shards: 1, Validators: 4, Accounts: a.Accounts, APIPort: port, Binary: a.Binary,
		Began: time.Now().Add(-24 * time.Hour), Absent: []string{name},
		Config: func(c *config.Config) { unlimited(c); c.Storage.RetentionBlocks = a.Keep },
	}
	made, err := localnet.Prepare(opt)
	if err != nil {
		return r, err
	}
	homes := endless.Homes{Genesis: made.Genesis, Blocks: a.Blocks, Away: victim, At: a.At, Keep: a.Keep, Report: func(h uint64) { a.Logf("block %d", h) }}
	for _, name := range made.Names {
		homes.Homes = append(homes.Homes, config.Home(filepath.Join(opt.Home, "nodes", name)))
	}
	began := time.Now()
	if err := homes.Make(ctx); err != nil {
		return r, err
	}
	a.Logf("%d blocks in %.0f s", a.Blocks, time.Since(began).Seconds())
	net, err := localnet.Start(ctx, opt)
	if err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, net.Close())
		if err == nil {
			err = os.RemoveAll(dir)
		}
	}()
	trust, err := node.Trust(net.Genesis)
	if err != nil {
		return r, err
	}
	stop, err := a.pay(ctx, net, load.Target{Trust: trust, APIs: net.APIs, Fee: net.Genesis.Parameters.Fees[0]}, seed)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: asksAtOnce}}
	defer client.CloseIdleConnections()
	nodes := make([]*apiNode, len(net.Names))
	for i, name := range net.Names {
		nodes[i] = &apiNode{name: name, url: net.URL(name), trust: trust, http: client}
	}
	witness := nodes[(victim+1)%len(nodes)]
	status, err := witness.Status(ctx)
	if err != nil {
		return r, err
	}
	at := status.FinalHeight
	began = time.Now()
	if err := net.Restart(name); err != nil {
		return r, err
	}
	r = Return{From: fmt.Sprintf("%d blocks", a.Blocks-a.At), Lacked: at - consensus.Height(a.At)}
	for h := at + 1; ; {
		if name, why, ok := net.Died(); ok {
			return r, fmt.Errorf("%s ended by itself: %s", name, why)
		}
		if time.Since(began) > catchUp {
			return r, fmt.Errorf("no certificate of blocks %d to %d has the signature of %s", at+1, h, name)
		}
		if status, err := witness.Status(ctx); err != nil || status.FinalHeight < h {
			if !openloop.Wait(ctx, askEvery) {
				return r, ctx.Err()
			}
			continue
		}
		c, err := witness.Block(ctx, h)
		if err != nil {
			return r, err
		}
		if c.Block.Final.Cert.Signers.Has(victim) {
			r.Voted = time.Since(began)
			return r, same(ctx, witness, nodes[victim], h)
		}
		h++
	}
}

// same compares what two nodes prove about a height, once it is final on both: one may be a block ahead.
func same(ctx context.Context, a, b *apiNode, h consensus.Height) error {
	var hashes [2]consensus.Hash
	for i, n := range []*apiNode{a, b} {
		if err := reaches(ctx, n, h, catchUp, always); err != nil {
			return err
		}
		c, err := n.Block(ctx, h)
		if err != nil {
			return err
		}
		hashes[i] = c.Header.Hash()
	}
	if hashes[0] != hashes[1] {
		return fmt.Errorf("%s and %s have different blocks at height %d", a.name, b.name, h)
	}
	return nil
}

// pay sends transfers until stop is called.
func (a *Away) pay(ctx context.Context, net *localnet.Network, to load.Target, seed uint64) (stop func() error, err error) {
	to.Crowd, err = workload.NewCrowd(ctx, net.Crowd, net.Population.CrowdIDs(), 0, a.Accounts, net.Genesis.Hash(), nil)
	if err != nil {
		return nil, err
	}
	session, err := load.Open(ctx, load.Options{
		Target: to, Fresh: true, Patience: -1, ExpiryBlocks: 1000,
		Workload: workload.Options{Kind: workload.Uniform, Seed: seed, Shards: 1, Accounts: int(a.Accounts), Window: 2},
	})
	if err != nil {
		return nil, err
	}
	ended, done := make(chan struct{}), make(chan error, 1)
	go func() {
		o, err := session.Run(ctx, load.Phase{Rate: a.Rate, Stop: ended, Drain: settleWithin})
		if err == nil && o.Lost > 0 {
			err = fmt.Errorf("%d transfers were accepted and got lost", o.Lost)
		}
		done <- err
	}()
	return func() error {
		close(ended)
		return errors.Join(<-done, session.Close())
	}, nil
}
