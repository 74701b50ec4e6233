package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"tutti/appliance/localnet"
	"tutti/bench/openloop"
	"tutti/consensus"
	"tutti/state/tx"
)

// crashSize is the network of the crash campaign, but for its accounts.
var crashSize = size{shards: 2, validators: 4, cross: 0.3, rate: 300, eachNode: true}

// runsAHome is how many crashes a network goes through before everything is checked and a new one is made.
const runsAHome = 20

// Crashes is the crash campaign: each run kills everything once or twice under load. Make it with its exported fields set,
// use it from one goroutine, and close it.
type Crashes struct {
	Binary   string // of a build that loses what was not synced
	Dir      string // to make the networks' folders in; those of failed ones are kept
	Accounts uint64 // of all shards together; few are back sooner
	Logf     func(format string, args ...any)

	world *world
	runs  int // in this world
}

// plan is how a run crashes.
type plan struct {
	when  string        // after what
	after time.Duration // how long; of "next" how long before it
	alone time.Duration // one node of each shard dies so much later than the others, and may tell clients what those never knew
	again time.Duration // second crash, so long after the restart; 0: none
	apart bool          // the nodes that told clients last start after the others have gone on without them
}

// draw draws a plan. The moments cover the stages of a commit: from a submission over the votes, up to a block's finality
// at the node where it comes first, and on to the others'; and the recovery from a crash. Half of the plans aim at the few
// milliseconds in which one node can know a block to be final and no other does, and let that node live long enough to tell.
func draw(r *rand.Rand) (p plan) {
	ms := func(n int) time.Duration { return time.Duration(r.IntN(n*1000)) * time.Microsecond }
	switch r.IntN(10) {
	case 0:
		p.when, p.after = "any", ms(1200)
	case 1:
		p.when, p.after = "told", ms(220)
	case 2:
		p.when = "told"
	case 3:
		p.when, p.after = "told", ms(20)
	case 4:
		p.when, p.again = "told", 20*time.Millisecond+ms(1500)
	default:
		p.when, p.after, p.alone = "next", 5*time.Millisecond+ms(60), aloneFor
	}
	p.apart = p.alone > 0 || r.IntN(2) == 0
	return p
}

// aloneFor is enough to count the votes that have arrived, make the block durable, and tell.
const aloneFor = 300 * time.Millisecond

func (p plan) String() string {
	sign := "+"
	if p.when == "next" {
		sign = "-"
	}
	text := fmt.Sprintf("%s%s%.1fms", p.when, sign, p.after.Seconds()*1000)
	if p.alone > 0 {
		text += fmt.Sprintf(" alone %.0fms", p.alone.Seconds()*1000)
	}
	if p.again > 0 {
		text += fmt.Sprintf(" restart+%.0fms", p.again.Seconds()*1000)
	}
	if p.apart {
		text += " apart"
	}
	return text
}

// Run crashes once, or twice, and checks. detail says when. The error says that the campaign could not go on.
func (c *Crashes) Run(ctx context.Context, seed uint64) (r Result, detail string, err error) {
	began := time.Now()
	r.Seed = seed
	random := rand.New(rand.NewPCG(seed, 0xc4))
	p := draw(random)
	if c.world == nil {
		sz := crashSize
		sz.accounts = c.Accounts
		if c.world, err = open(ctx, localnet.Options{Binary: c.Binary}, c.Dir, sz, seed, c.Logf); err != nil {
			return r, "", err
		}
		c.runs = 0
	}
	w := c.world
	before := w.witness.Reverified()
	if err := c.run(ctx, p, random); err != nil {
		w.witness.Wrong("%v", err)
	}
	if c.runs++; c.runs == runsAHome && len(w.witness.Wrongs()) == 0 {
		if err := c.all(ctx); err != nil {
			w.witness.Wrong("%v", err)
		}
	}
	w.orderly()
	r.Wrongs, r.Proofs, r.Took = w.witness.Wrongs(), w.witness.Reverified()-before, time.Since(began)
	if len(r.Wrongs) > 0 || c.runs == runsAHome {
		c.world, err = nil, w.close()
	}
	return r, p.String(), errors.Join(err, ctx.Err())
}

// Close ends the network, if one runs.
func (c *Crashes) Close() error {
	if c.world == nil {
		return nil
	}
	w := c.world
	c.world = nil
	return w.close()
}

func (c *Crashes) run(ctx context.Context, p plan, random *rand.Rand) error {
	w := c.world
	from := w.witness.Executed()
	if !await(ctx, goesOn, w.witness.News, func() bool { return w.witness.Executed() > from+crashSize.shards }) {
		return errors.New("no transfer of the load becomes final")
	}
	if err := c.moment(ctx, p, random); err != nil {
		return err
	}
	if err := c.crash(ctx, p, random); err != nil {
		return err
	}
	if p.again > 0 {
		if err := w.net.Restart(w.net.Names...); err != nil {
			return err
		}
		if !openloop.Wait(ctx, p.again) {
			return ctx.Err()
		}
		if err := w.net.Kill(w.net.Names...); err != nil {
			return err
		}
		w.orderly()
	}
	if err := c.restart(ctx, p.apart); err != nil {
		c.compare(ctx)
		return err
	}
	return c.check(ctx, random)
}

// compare asks the nodes that run for the newest blocks that clients were told of.
func (c *Crashes) compare(ctx context.Context) {
	w := c.world
	each(w.nodes, func(n *apiNode) {
		tip := w.witness.Height(n.shard)
		if w.net.Alive(n.name) && w.finalAt(ctx, n, tip, time.Second) == nil {
			w.witness.CheckKept(ctx, n, span{tip - min(tip, recentBlocks), tip})
		}
	})
}

// moment waits for the moment of a plan.
func (c *Crashes) moment(ctx context.Context, p plan, random *rand.Rand) error {
	w := c.world
	if p.when == "any" {
		openloop.Wait(ctx, p.after)
		return ctx.Err()
	}
	shard := consensus.ShardID(random.IntN(len(w.shards)))
	if err := w.grows(ctx, shard, 1, goesOn); err != nil {
		return err
	}
	after := p.after
	if p.when == "next" {
		after = w.witness.pace(shard) - after
	}
	if after > 0 {
		openloop.Wait(ctx, after)
	}
	return ctx.Err()
}

// crash kills everything.
func (c *Crashes) crash(ctx context.Context, p plan, random *rand.Rand) error {
	w := c.world
	first := w.net.Names
	if p.alone > 0 {
		at := random.IntN(w.size.validators)
		first = nil
		for _, nodes := range w.shards {
			for i, n := range nodes {
				if i != at {
					first = append(first, n.Name())
				}
			}
		}
	}
	if err := w.net.Kill(first...); err != nil {
		return err
	}
	if p.alone > 0 && !openloop.Wait(ctx, p.alone) {
		return ctx.Err()
	}
	var last []string
	for _, name := range w.net.Names {
		if !slices.Contains(first, name) {
			last = append(last, name)
		}
	}
	err := w.net.Kill(last...)
	w.orderly()
	return err
}

// lastWords is for clients to read what nodes wrote before they died.
const lastWords = 50 * time.Millisecond

// restart starts all nodes and waits until each has made final again what clients were told. With apart those that told
// clients their shard's last block first wait until the others have gone on alone, for whom it is easiest to contradict
// them.
func (c *Crashes) restart(ctx context.Context, apart bool) error {
	w := c.world
	openloop.Wait(ctx, lastWords)
	w.stopFollowing()
	told := w.witness.Heights()
	last := slices.Clone(w.net.Names[:0])
	if apart {
		for shard, h := range told {
			if t, ok := w.witness.at(consensus.ShardID(shard), h); ok {
				last = append(last, t.by)
			}
		}
	}
	first := slices.DeleteFunc(slices.Clone(w.net.Names), func(name string) bool { return slices.Contains(last, name) })
	err := c.start(ctx, told, first)
	w.startFollowing(ctx)
	if err == nil {
		err = c.start(ctx, told, last)
	}
	if err != nil {
		return err
	}
	for shard, h := range told {
		if err := w.passes(ctx, consensus.ShardID(shard), h+1, goesOn); err != nil {
			return err
		}
	}
	return nil
}

// start starts nodes and waits until they have made final what clients were told, and more.
func (c *Crashes) start(ctx context.Context, told []consensus.Height, names []string) error {
	w := c.world
	if err := w.net.Restart(names...); err != nil {
		return err
	}
	for _, name := range names {
		n := w.node(name)
		if err := w.finalAt(ctx, n, told[n.shard]+1, catchUp); err != nil {
			return err
		}
	}
	return nil
}

// What each node is asked after a crash: the blocks at the tip that clients were told of, older ones, accounts.
const (
	recentBlocks  = 12
	olderBlocks   = 6
	crashAccounts = 3
)

func (c *Crashes) check(ctx context.Context, random *rand.Rand) error {
	w := c.world
	var older [][]span
	var accounts [][]tx.ID
	for shard := range w.shards {
		tip := w.witness.Height(consensus.ShardID(shard))
		spans := []span{{tip - min(tip, recentBlocks), tip}}
		for range olderBlocks {
			h := 1 + consensus.Height(random.Uint64N(uint64(tip)))
			spans = append(spans, span{h, h})
		}
		var ids []tx.ID
		for len(ids) < crashAccounts {
			if id := w.ids[random.IntN(len(w.ids))]; int(w.trust.ShardOf(id)) == shard {
				ids = append(ids, id)
			}
		}
		older, accounts = append(older, spans), append(accounts, ids)
	}
	each(w.nodes, func(n *apiNode) {
		for _, s := range older[n.shard] {
			w.witness.CheckKept(ctx, n, s)
		}
		w.witness.CheckRoot(ctx, n)
		w.witness.CheckAccounts(ctx, n, accounts[n.shard])
	})
	return ctx.Err()
}

// all ends the load and checks everything that this network's clients were told.
func (c *Crashes) all(ctx context.Context) error {
	w := c.world
	if _, err := w.endLoad(); err != nil {
		return err
	}
	w.witness.CheckSupply(ctx, w.shards, w.supply())
	each(w.nodes, func(n *apiNode) {
		w.witness.CheckKept(ctx, n, span{1, w.witness.Height(n.shard)})
		w.witness.CheckAccounts(ctx, n, w.sample(n.shard))
	})
	return ctx.Err()
}
