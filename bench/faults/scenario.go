package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/appliance/localnet"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// Rate is the load of the fault scenario in signed transfers a second, over all shards.
const Rate = 2000

// scenarioSize is the network of the fault scenario: eight processes, one transfer in five to the other shard.
var scenarioSize = size{
	shards: 2, validators: 4, accounts: 40_000, probes: 400, cross: 0.2, rate: Rate,
}

// Result is how a run went.
type Result struct {
	Seed   uint64
	Proofs int // asked for again after the faults, and given
	Took   time.Duration
	Wrongs []string // why it failed; none: it passed
}

// Patience with a machine that may be busy with other work. What is waited for takes a few seconds on a free one.
const (
	goesOn   = 90 * time.Second // until finality goes on after a fault
	catchUp  = 90 * time.Second // until a restarted node is back
	standing = 5 * time.Second  // without finality, to believe that there is none: more than two view timers
)

// scenario is one run of the fault scenario.
type scenario struct {
	*world
	held []*proof.Finality // proofs that clients hold
}

// Faults runs the fault scenario once, with its files in a new folder below dir, which is kept when something went wrong.
// The error says that it could not run; what clients saw go wrong is in the Result.
func Faults(ctx context.Context, binary, dir string, seed uint64, logf func(string, ...any)) (r Result, err error) {
	began := time.Now()
	r.Seed = seed
	w, err := open(ctx, localnet.Options{Binary: binary}, dir, scenarioSize, seed, logf)
	if err != nil {
		return r, err
	}
	defer func() {
		r.Wrongs, r.Proofs, r.Took = w.witness.Wrongs(), w.witness.Reverified(), time.Since(began)
	}()
	defer func() { err = errors.Join(err, w.close()) }()
	s := &scenario{world: w}
	if err := s.run(ctx); err != nil {
		w.orderly()
		w.witness.Wrong("%v", err)
	}
	return r, ctx.Err()
}

func (s *scenario) run(ctx context.Context) error {
	if err := s.calm(ctx); err != nil {
		return err
	}
	stages := []struct {
		name string
		run  func(context.Context) error
	}{
		{"one validator killed", s.killOne},
		{"the accepting node killed", s.killAcceptor},
		{"two of four stopped", s.stopTwo},
		{"everything killed", s.killAll},
	}
	s.random.Shuffle(len(stages), func(i, j int) { stages[i], stages[j] = stages[j], stages[i] })
	for _, stage := range stages {
		began := time.Now()
		if err := stage.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", stage.name, err)
		}
		s.logf("%s: %.1f s, final heights %v", stage.name, time.Since(began).Seconds(), s.witness.Heights())
		if wrongs := s.witness.Wrongs(); len(wrongs) > 0 {
			return fmt.Errorf("after %s", stage.name)
		}
	}
	if err := s.calm(ctx); err != nil {
		return err
	}
	return s.settle(ctx)
}

// calm waits until transfers of the load have become final on every shard for a while.
func (s *scenario) calm(ctx context.Context) error {
	from, at := s.witness.Executed(), time.Now()
	for shard := range s.shards {
		if err := s.grows(ctx, consensus.ShardID(shard), 5, goesOn); err != nil {
			return err
		}
	}
	if !await(ctx, goesOn, s.witness.News, func() bool { return s.witness.Executed() >= from+2*Rate }) {
		return fmt.Errorf("%d transfers became final in %s", s.witness.Executed()-from, goesOn)
	}
	s.logf("calm: %d transfers final in %.1f s", s.witness.Executed()-from, time.Since(at).Seconds())
	return nil
}

// drawNode draws a node, and its shard.
func (s *scenario) drawNode() (*apiNode, consensus.ShardID) {
	n := s.nodes[s.random.IntN(len(s.nodes))]
	return n, n.shard
}

// killOne kills one validator, sees finality go on without it, restarts it and sees it vote.
func (s *scenario) killOne(ctx context.Context) error {
	victim, shard := s.drawNode()
	if err := s.kill(victim.name); err != nil {
		return err
	}
	began := time.Now()
	if err := s.passes(ctx, shard, s.judged(ctx, shard, victim.name)+8, goesOn); err != nil {
		return fmt.Errorf("without %s: %w", victim.name, err)
	}
	s.logf("8 blocks without %s in %.1f s", victim.name, time.Since(began).Seconds())
	return s.comeBack(ctx, victim)
}

// judged is the height of the highest block that nodes of a shard know of, but for some that are down.
func (s *scenario) judged(ctx context.Context, shard consensus.ShardID, down ...string) (height consensus.Height) {
	for _, n := range s.shards[shard] {
		if slices.Contains(down, n.Name()) {
			continue
		}
		if status, err := n.Status(ctx); err != nil {
			s.witness.Wrong("%s, with %v down: %v", n.Name(), down, err)
		} else {
			height = max(height, status.Height)
		}
	}
	return height
}

// comeBack restarts a validator that was killed and waits until it has caught up and votes again.
func (s *scenario) comeBack(ctx context.Context, n *apiNode) error {
	since := s.judged(ctx, n.shard, n.name) // whatever it had voted for is not above
	began := time.Now()
	if err := s.net.Restart(n.name); err != nil {
		return err
	}
	if err := s.finalAt(ctx, n, since, catchUp); err != nil {
		return err
	}
	there := time.Since(began)
	index := slices.Index(s.all(n.shard), n.name)
	if err := s.seenVoting(ctx, n.shard, index, began); err != nil {
		return err
	}
	seen := time.Since(began)
	if err := s.signs(ctx, n.shard, index, since); err != nil {
		return err
	}
	s.logf("%s: caught up %.1f s after its start, seen voting after %.1f s, in a certificate after %.1f s",
		n.name, there.Seconds(), seen.Seconds(), time.Since(began).Seconds())
	s.silent(n.name)
	return nil
}

// seenVoting waits until the other validators' status shows votes of one, cast after it began, for blocks at the tip.
func (s *scenario) seenVoting(ctx context.Context, shard consensus.ShardID, index int, began time.Time) error {
	var last api.ValidatorStatus
	if await(ctx, catchUp, nil, func() bool {
		for i, n := range s.shards[shard] {
			if i == index {
				continue
			}
			age := time.Since(began).Milliseconds()
			status, err := n.Status(ctx)
			if err != nil || len(status.Validators) <= index {
				return false
			}
			last = status.Validators[index]
			if !last.Connected || last.LastVoteMs < 0 || last.LastVoteMs >= age || last.Lag > 4 {
				return false
			}
		}
		return true
	}) {
		return nil
	}
	return fmt.Errorf("the others do not see validator %d of shard %d vote: %+v", index, shard, last)
}

// signs waits until a certificate above a height, made by another validator, has the signature of one.
func (s *scenario) signs(ctx context.Context, shard consensus.ShardID, index int, above consensus.Height) error {
	at := above + 1
	if await(ctx, catchUp, s.witness.News, func() bool {
		for ; at <= s.witness.Height(shard); at++ {
			for i, n := range s.shards[shard] {
				if i == index {
					continue
				}
				c, err := n.Block(ctx, at)
				if err != nil {
					return false // it may be behind
				}
				if c.Block.Final.Cert.Signers.Has(index) {
					return true
				}
			}
		}
		return false
	}) {
		return nil
	}
	return fmt.Errorf("no certificate of blocks %d to %d has the signature of validator %d of shard %d", above+1, at-1, index, shard)
}

// probesAtOnce are submitted to the node that dies.
const probesAtOnce = 20

// probe makes transfers from accounts of a shard that pay nothing else, to anybody.
func (s *scenario) probe(shard consensus.ShardID, n int) (txs []tx.Signed) {
	expiry := uint32(s.witness.Height(shard)) + 1000
	for ; len(txs) < n; s.nextProbe++ {
		from := s.size.accounts + s.nextProbe
		if s.trust.ShardOf(s.ids[from]) != shard {
			continue
		}
		to := s.ids[s.random.Uint64N(s.size.accounts)]
		t := tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: s.ids[from], To: to, Amount: 1 + s.random.Uint64N(1000), Expiry: expiry}}
		t.Signature = s.net.Crowd.Key(from).Sign(t.Message(tx.Hash(s.net.Genesis.Hash())))
		txs = append(txs, t)
	}
	return txs
}

// killAcceptor submits to one node, kills it, and submits the same bytes elsewhere. Each transfer takes effect once.
func (s *scenario) killAcceptor(ctx context.Context) error {
	victim, shard := s.drawNode()
	txs := s.probe(shard, probesAtOnce)
	one, err := client.New(client.Options{URLs: []string{victim.url}, Trust: s.trust, HTTP: s.http})
	if err != nil {
		return err
	}
	for i, err := range one.Submit(ctx, txs) {
		if err != nil {
			return fmt.Errorf("%s refuses transfer %d: %w", victim.name, i, err)
		}
	}
	if err := s.net.Kill(victim.name); err != nil {
		return err
	}
	s.orderly()
	var urls []string
	for _, n := range s.nodes {
		if n != victim {
			urls = append(urls, n.url)
		}
	}
	others, err := client.New(client.Options{URLs: urls, Trust: s.trust, HTTP: s.http})
	if err != nil {
		return err
	}
	states := map[api.State]int{}
	for i := range txs {
		t, err := others.Transaction(ctx, shard, txs[i].TxID(tx.Hash(s.net.Genesis.Hash())))
		if err != nil {
			return err
		}
		states[t.State]++
	}
	s.logf("%s died; its transfers are, for the others: %v", victim.name, states)
	for i, err := range others.Submit(ctx, txs) {
		if err != nil && !errors.Is(err, &api.Error{Code: api.NonceTooLow}) {
			return fmt.Errorf("another node refuses transfer %d: %w", i, err)
		}
	}
	if err := s.once(ctx, others, txs); err != nil {
		return err
	}
	if err := s.comeBack(ctx, victim); err != nil || states[api.Final]+states[api.Credited] < len(txs) {
		return err
	}
	return s.killAcceptor(ctx) // it had died too late
}

// once waits for the proofs of first transfers of accounts, and checks that each took effect once.
func (s *scenario) once(ctx context.Context, c *client.Client, txs []tx.Signed) error {
	wait, cancel := context.WithTimeout(ctx, goesOn)
	defer cancel()
	for i := range txs {
		p, f, err := c.Await(wait, &txs[i])
		if err != nil {
			return fmt.Errorf("transfer %d: %w", i, err)
		}
		if !p.Success || !p.Settled {
			s.witness.Wrong("transfer %s: success %t, settled %t", p.ID, p.Success, p.Settled)
		}
		s.held = append(s.held, f)
	}
	for i, err := range c.Submit(ctx, txs) {
		if !errors.Is(err, &api.Error{Code: api.NonceTooLow}) && err != nil {
			return fmt.Errorf("transfer %d, submitted once more: %w", i, err)
		}
	}
	fee := s.net.Genesis.Genesis.Parameters.Fees[0]
	for i := range txs {
		var a api.Account
		if !await(wait, goesOn, nil, func() (told bool) { // a node may be a block behind
			var err error
			a, err = c.Account(wait, txs[i].From)
			return err == nil && a.Nonce > 0
		}) {
			return fmt.Errorf("account %s has nonce %d after its first transfer", txs[i].From, a.Nonce)
		}
		if want := s.net.Crowd.Balance - txs[i].Amount - fee; a.Nonce != 1 || a.Balance != want {
			s.witness.Wrong("account %s paid once and has nonce %d and %d units, %d were expected", a.ID, a.Nonce, a.Balance, want)
		}
	}
	return nil
}

// stopTwo stops two validators of four, paused or killed, and sees that nothing becomes final until one is back.
func (s *scenario) stopTwo(ctx context.Context) error {
	_, shard := s.drawNode()
	names := s.all(shard)
	s.random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	down, up := names[:2], names[2:]
	stop, resume := s.net.Pause, s.net.Continue
	if s.random.IntN(2) == 0 {
		stop, resume = s.kill, s.net.Restart
	}
	if err := stop(down...); err != nil {
		return err
	}
	if err := s.standsStill(ctx, shard, up); err != nil {
		return err
	}
	began := time.Now()
	first, second := down[:1], down[1:]
	if err := resume(first...); err != nil {
		return err
	}
	if err := s.passes(ctx, shard, s.judged(ctx, shard, down...)+3, goesOn); err != nil {
		return fmt.Errorf("with %s back: %w", first[0], err)
	}
	s.logf("finality is back %.1f s after %s", time.Since(began).Seconds(), first[0])
	if err := resume(second...); err != nil {
		return err
	}
	for _, name := range down {
		if err := s.finalAt(ctx, s.node(name), s.witness.Height(shard), catchUp); err != nil {
			return err
		}
	}
	return nil
}

// standsStill waits until what was on its way has arrived, and then sees that the final heights of a shard's nodes stay
// while another shard goes on.
func (s *scenario) standsStill(ctx context.Context, shard consensus.ShardID, up []string) error {
	heights := func() (out []consensus.Height) {
		for _, name := range up {
			status, err := s.node(name).Status(ctx)
			if err != nil {
				s.witness.Wrong("%s, with two others stopped: %v", name, err)
				return nil
			}
			out = append(out, status.FinalHeight)
		}
		return append(out, s.witness.Height(shard))
	}
	last, since := heights(), time.Now()
	if !await(ctx, goesOn, nil, func() bool {
		if now := heights(); !slices.Equal(now, last) {
			last, since = now, time.Now()
		}
		return time.Since(since) > standing
	}) {
		s.witness.Wrong("with two of four stopped shard %d does not stand still: %v", shard, last)
	}
	other := consensus.ShardID((int(shard) + 1) % len(s.shards))
	if err := s.grows(ctx, other, 5, goesOn); err != nil {
		return err
	}
	if now := heights(); !slices.Equal(now, last) {
		s.witness.Wrong("with two of four stopped shard %d had final heights %v, later %v", shard, last, now)
	}
	return nil
}

// killAll kills everything at once and starts it again.
func (s *scenario) killAll(ctx context.Context) error {
	told := s.witness.Heights()
	if err := s.kill(s.net.Names...); err != nil {
		return err
	}
	if err := s.net.Restart(s.net.Names...); err != nil {
		return err
	}
	began := time.Now()
	for _, n := range s.nodes {
		if err := s.finalAt(ctx, n, told[n.shard], catchUp); err != nil {
			return err
		}
	}
	back := time.Since(began)
	for i := range s.shards {
		shard := consensus.ShardID(i)
		if err := s.passes(ctx, shard, s.judged(ctx, shard)+3, goesOn); err != nil {
			return err
		}
	}
	s.logf("all are back after %.1f s, finality goes on after %.1f s", back.Seconds(), time.Since(began).Seconds())
	return nil
}

// settle ends the load and checks everything that clients were told.
func (s *scenario) settle(ctx context.Context) error {
	lasted, err := s.endLoad()
	if err != nil {
		return err
	}
	o := s.outcome
	s.logf("load: %d due in %.1f s, %d final, %d expired, %d unsent, rejected %v, retried %v", o.Due, lasted.Seconds(), o.Finalised, o.Expired, o.Unsent, o.Rejected, o.Retried)
	if offered := float64(o.Due-o.Unsent) / lasted.Seconds(); offered < 0.95*Rate {
		s.witness.Wrong("the load was %.0f transfers a second, %d are wanted", offered, Rate)
	}
	if o.Lost+o.Returned+o.Expired+o.RejectedSum() > 0 {
		s.witness.Wrong("of %d transfers %d were accepted and got lost, %d came back, %d expired, were refused: %v", o.Due, o.Lost, o.Returned, o.Expired, o.Rejected)
	}
	s.witness.CheckSupply(ctx, s.shards, s.supply())
	began := time.Now()
	each(s.nodes, func(n *apiNode) {
		s.witness.CheckKept(ctx, n, span{1, s.witness.Height(n.shard)})
		s.witness.CheckHeld(ctx, n, alone(s.trust), s.held)
		s.witness.CheckRoot(ctx, n)
		s.witness.CheckAccounts(ctx, n, s.sample(n.shard))
	})
	s.logf("checked %d blocks, proofs and accounts in %.1f s", s.witness.Reverified(), time.Since(began).Seconds())
	s.orderly()
	return nil
}
