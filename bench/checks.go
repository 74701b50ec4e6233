package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/bench/load"
	"tutti/bench/openloop"
	"tutti/bench/report"
	"tutti/consensus"
)

// Names of the checks.
const (
	checkRoots    = "state_root_agrees"
	checkSupply   = "supply_conserved"
	checkKept     = "finalised_kept"
	checkLost     = "none_lost"
	checkInvalid  = "no_invalid_accepted"
	checkBalances = "balances_match"
	checkStood    = "rate_stood"
	checkReplay   = "replayable"
)

const (
	agreeWithin  = 20 * time.Second // for all validators to show one height, and for receipts to arrive
	askEvery     = 100 * time.Millisecond
	auditSample  = 64   // accounts whose balance is compared
	maxSightings = 4096 // heights remembered while validators are compared
)

// checks makes all checks. The error says only that there was no time to make them.
func (b *bench) checks(ctx context.Context, t *target, s session, m *measurement, stretches []report.Stretch) (out []report.Check, err error) {
	add := func(name string, bad error, good string) {
		k := report.Check{Name: name, OK: bad == nil, Detail: good}
		if bad != nil {
			k.Detail = strings.ReplaceAll(bad.Error(), "\n", "; ")
		}
		out = append(out, k)
	}
	good, bad := t.compare(ctx)
	add(checkRoots, bad, good)
	good, bad = t.supply(ctx)
	add(checkSupply, bad, good)
	good, bad = t.kept(ctx, s.Sample())
	add(checkKept, bad, good)
	o, total := m.outcome, s.Totals()
	bad = nil
	if total.Lost > 0 {
		bad = fmt.Errorf("%d of %d transactions, warm-up included, were accepted and neither final nor expired %s after the load ended", total.Lost, total.Submitted, o.Drain.Round(time.Second))
	}
	add(checkLost, bad, fmt.Sprintf("%s transactions accounted for, warm-up included", report.Number(float64(total.Submitted))))
	bad = nil
	accepted, wrong := o.InvalidAccepted, o.Rejected[string(api.WrongSignature)]
	for _, o := range o.Then {
		accepted, wrong = accepted+o.InvalidAccepted, wrong+o.Rejected[string(api.WrongSignature)]
	}
	if accepted > 0 {
		bad = fmt.Errorf("%d wrongly signed transactions were accepted", accepted)
	}
	add(checkInvalid, bad, fmt.Sprintf("%s wrongly signed ones refused", report.Number(float64(wrong))))
	judgeStretches(stretches, add)
	if b.Rate == 0 {
		bad = nil
		if why := b.verdict(m.rate, o); why != "" {
			bad = fmt.Errorf("%s tx/s passed in a short trial but not in full (%s): the network or other work on this machine is not steady", report.Number(m.rate), why)
		}
		add(checkStood, bad, fmt.Sprintf("%s tx/s, the highest rate tried that did", report.Number(m.rate)))
	}
	if t.own != nil {
		good, bad = t.audit(ctx, b.Seed, s)
		add(checkBalances, bad, good)
	}
	return out, ctx.Err()
}

// sighting is a state root that a validator showed.
type sighting struct {
	root proof.Digest
	by   map[string]bool
}

// compare polls the validators until in each shard all have shown the same root at one height.
func (t *target) compare(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, agreeWithin)
	defer cancel()
	all := slices.Concat(t.nodes...)
	seen := make([]map[consensus.Height]*sighting, len(t.nodes))
	for s := range seen {
		seen[s] = map[consensus.Height]*sighting{}
	}
	agreed := make([]consensus.Height, len(t.nodes))
	for {
		var failed error
		for i, x := range t.samples(ctx) {
			if x.err != nil {
				failed = x.err
				continue
			}
			v, height := all[i], x.status.StateHeight
			at := seen[v.shard][height]
			if at == nil && len(seen[v.shard]) < maxSightings {
				at = &sighting{x.status.StateRoot, map[string]bool{}}
				seen[v.shard][height] = at
			}
			if at == nil {
				continue
			}
			if at.root != x.status.StateRoot {
				return "", fmt.Errorf("shard %d at height %d: %s has root %s, others %s", v.shard, height, v.name, x.status.StateRoot, at.root)
			}
			if at.by[v.name] = true; len(at.by) == len(t.nodes[v.shard]) {
				agreed[v.shard] = height
			}
		}
		if !slices.Contains(agreed, 0) {
			return fmt.Sprintf("%d validators, at heights %s", len(all), strings.Trim(fmt.Sprint(agreed), "[]")), nil
		}
		if !openloop.Wait(ctx, askEvery) {
			return "", errors.Join(fmt.Errorf("the validators of a shard showed no common height within %s", agreeWithin), failed)
		}
	}
}

// supply asks until nothing is on its way between shards, or for some time, and adds up.
func (t *target) supply(ctx context.Context) (good string, err error) {
	ctx, cancel := context.WithTimeout(ctx, agreeWithin)
	defer cancel()
	for {
		text, settled, wrong := t.addUp(t.samples(ctx))
		switch {
		case wrong == nil:
			good, err = text, nil
		case !errors.Is(wrong, errUnsteady):
			return "", wrong
		case good == "" && (err == nil || ctx.Err() == nil): // what was found says more than that time ran out
			err = wrong
		}
		if settled || !openloop.Wait(ctx, askEvery) {
			return good, err
		}
	}
}

// errUnsteady says that validators were asked at moments that do not fit together, or did not answer.
var errUnsteady = errors.New("the shards can not be added up")

// addUp checks the identity of every validator and of all shards together. settled says that no receipt is on its way.
func (t *target) addUp(samples []sample) (good string, settled bool, err error) {
	var have, in, out, genesis uint64
	var received, sent uint64
	all, done := slices.Concat(t.nodes...), map[consensus.ShardID]bool{}
	for i, x := range samples {
		v, s := all[i], x.status.Supply
		switch {
		case x.err != nil:
			return "", false, fmt.Errorf("%w: %w", errUnsteady, x.err)
		case !s.Conserved():
			return "", false, fmt.Errorf("%s at height %d: %+v does not add up", v.name, x.status.FinalHeight, s)
		case t.own != nil && s.Genesis != t.own.Genesis.Supplies[v.shard]:
			return "", false, fmt.Errorf("%s says that genesis gave its shard %d, the genesis file says %d", v.name, s.Genesis, t.own.Genesis.Supplies[v.shard])
		}
		if done[v.shard] {
			continue
		}
		done[v.shard] = true
		have += s.Balances + s.Fees + s.Deposits + s.Treasury
		in, out, genesis = in+s.Inflow, out+s.Outflow, genesis+s.Genesis
		for _, l := range x.status.Links {
			received, sent = received+l.Received, sent+l.Sent
		}
	}
	switch {
	case genesis != t.genesis.Accounts.Total:
		return "", false, fmt.Errorf("the shards together began with %d, the genesis file says %d", genesis, t.genesis.Accounts.Total)
	case in > out || received > sent: // one may have been asked after it received what the other sent after it was asked
		return "", false, fmt.Errorf("%w: they received %d units in %d transfers, and sent %d in %d", errUnsteady, in, received, out, sent)
	case have+(out-in) != genesis || received == sent && in != out:
		return "", false, fmt.Errorf("%d held and %d on the way is not the supply of %d", have, out-in, genesis)
	}
	return fmt.Sprintf("%s units, %s of them on the way between shards", report.Number(float64(genesis)), report.Number(float64(out-in))), received == sent, nil
}

// kept asks every validator for the blocks of the sample, ascending, and verifies what it gets. One that says that it has
// pruned what lies below, as its retention or a state sync may want, need not prove that, as long as another one does.
func (t *target) kept(ctx context.Context, sample [][]load.Seen) (string, error) {
	var group sync.WaitGroup
	all := slices.Concat(t.nodes...)
	errs := make([]error, len(all))
	from := make([]int, len(all)) // in the sample, the first that a validator still has
	for i, v := range all {
		group.Go(func() {
			for j, b := range sample[v.shard] {
				k, err := v.client.Block(ctx, v.shard, b.Height)
				if errors.Is(err, &api.Error{Code: api.Pruned}) && from[i] == j {
					from[i]++
					continue
				}
				if err == nil && k.Header.Hash() != b.Hash {
					err = fmt.Errorf("has block %s, the client saw %s final", k.Header.Hash(), b.Hash)
				}
				if err != nil {
					errs[i] = fmt.Errorf("%s, block %d: %w", v.name, b.Height, err)
					return
				}
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	proven, pruned := 0, 0
	for shard, row := range t.nodes {
		lowest := len(sample[shard])
		for range row {
			lowest = min(lowest, from[0])
			pruned += from[0]
			proven += len(sample[shard]) - from[0]
			from = from[1:]
		}
		if lowest > 0 {
			return "", fmt.Errorf("shard %d, block %d: every validator has pruned it: make storage.retention_blocks larger for so long a run", shard, sample[shard][lowest-1].Height)
		}
	}
	detail := fmt.Sprintf("%d blocks proven by %d validators", proven, len(all))
	if pruned > 0 {
		detail += fmt.Sprintf("; %d times one had pruned it", pruned)
	}
	return detail, nil
}

// audit compares balances with what the client saw settle. Each account is asked of another validator of its shard,
// again if that is behind.
func (t *target) audit(ctx context.Context, seed uint64, s session) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, agreeWithin)
	defer cancel()
	random := rand.New(rand.NewPCG(seed, 2))
	n := min(auditSample, int(t.accounts))
	for k := range n {
		account := uint32(random.Uint64N(t.accounts))
		row := t.nodes[t.shardOf(account)]
		v, want := row[k%len(row)], int64(t.crowd.Balance)+s.Delta(account)
		for {
			a, err := v.client.Account(ctx, t.ids[t.first+uint64(account)])
			if err == nil && int64(a.Balance) == want {
				break
			}
			if !openloop.Wait(ctx, askEvery) {
				return "", errors.Join(fmt.Errorf("account %d of the crowd holds %d on %s, the transfers that settled leave it %d", account, a.Balance, v.name, want), err)
			}
		}
	}
	return fmt.Sprintf("%d accounts hold what the settled transfers leave them", n), nil
}
