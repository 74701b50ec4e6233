package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/localnet"
	"tutti/bench/openloop"
	"tutti/consensus"
	"tutti/consensus/killpoint"
)

// killsSize is the network of the kill campaign.
var killsSize = size{shards: 1, validators: 4, accounts: 400, rate: 40}

const (
	killsFolder = "TUTTI_KILLS"    // names the folder by which the rig speaks with the build (appliance/node/kills.go)
	killWithin  = 60 * time.Second // until the message of a plan is sent
	atOnce      = 4                // of so many plans one is there when the process starts, so that its first messages count
	votesWithin = 60 * time.Second // until the victim's signature is in a certificate again
	pauseLong   = 3 * time.Second  // others stand still, for messages to be sent again
	pauseVotes  = 8 * time.Second  // the same for nullify votes: some views' timers
	lookAgain   = 5 * time.Millisecond
)

// Kills is the campaign of validators that die while they send. Make it with its exported fields set, use it from one
// goroutine, and close it. While it exists, the environment of processes that are started names its folder.
type Kills struct {
	Binary string // of a build with the tags tutti_unsynced and tutti_kills
	Dir    string // to make the networks' folders in; those of failed ones are kept
	Target killpoint.Target
	Seed   uint64
	Logf   func(format string, args ...any)

	w         *world
	dir       string // of the files
	random    *rand.Rand
	victim    int
	heard     []int64 // bytes of each member's file that were read
	votes     killpoint.Votes
	next      *killpoint.Plan  // is there already
	copied    consensus.Height // the victim may tell no blocks below
	convicted bool
}

// Open makes a network.
func (k *Kills) Open(ctx context.Context) error { return k.open(ctx, localnet.Options{}, killsSize) }

func (k *Kills) open(ctx context.Context, opt localnet.Options, sz size) (err error) {
	opt.Binary = k.Binary
	k.random = rand.New(rand.NewPCG(k.Seed, 0x111))
	k.victim, k.heard = k.random.IntN(killsSize.validators), make([]int64, killsSize.validators)
	if k.dir, err = os.MkdirTemp(k.Dir, "tutti-kills-"); err != nil {
		return err
	}
	if err := os.Setenv(killsFolder, k.dir); err != nil {
		return err
	}
	k.w, err = open(ctx, opt, k.Dir, sz, k.Seed, k.Logf)
	return err
}

func (k *Kills) name() string { return k.w.nodes[k.victim].name }

// Convicted reports whether there are two votes of a validator that contradict each other, or evidence.
func (k *Kills) Convicted() bool { return k.convicted }

// Wrongs is what went wrong.
func (k *Kills) Wrongs() []string { return k.w.witness.Wrongs() }

// Kill has the victim die once, and come back. The error, and Wrongs, say what went wrong.
func (k *Kills) Kill(ctx context.Context) (d killpoint.Death, err error) {
	w := k.w
	if k.next == nil {
		if err := k.plan(); err != nil {
			return d, err
		}
	}
	k.next = nil
	if err := k.provoke(ctx); err != nil {
		return d, errors.Join(err, k.judge(ctx))
	}
	if d, err = k.death(); err != nil {
		return d, err
	}
	if k.random.IntN(atOnce) == 0 {
		if err := k.plan(); err != nil {
			return d, err
		}
	}
	above := w.witness.Height(0)
	if err := w.net.Restart(k.name()); err != nil {
		return d, err
	}
	if k.next == nil {
		if err := k.signs(ctx, above); err != nil {
			return d, errors.Join(err, k.judge(ctx))
		}
	}
	return d, k.judge(ctx)
}

// death is how the victim died.
func (k *Kills) death() (d killpoint.Death, err error) {
	b, err := os.ReadFile(k.file("death", k.victim))
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	return d, errors.Join(err, os.Remove(k.file("death", k.victim)))
}

// plan draws the next plan.
func (k *Kills) plan() error {
	p := k.Target.Draw(k.random)
	k.next = &p
	return k.write(p)
}

// write gives the victim a plan.
func (k *Kills) write(p killpoint.Plan) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	made := filepath.Join(k.dir, "made")
	if err := os.WriteFile(made, b, 0o644); err != nil {
		return err
	}
	return os.Rename(made, k.file("plan", k.victim))
}

func (k *Kills) file(name string, i int) string {
	return filepath.Join(k.dir, fmt.Sprintf("%s-%d", name, i))
}

// flag makes or removes a file that all processes look for.
func (k *Kills) flag(name string, there bool, content string) error {
	path := filepath.Join(k.dir, name)
	if there {
		return os.WriteFile(path, []byte(content), 0o644)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// provoke disturbs the network until the victim has died.
func (k *Kills) provoke(ctx context.Context) (err error) {
	t := k.Target
	nullify := t.Kind == killpoint.Nullify || t.Kind == killpoint.Nullification
	mute := nullify && (!t.Again || t.Kind == killpoint.Nullification)
	lossy := t.Again && t.Kind == killpoint.Finalize
	defer func() {
		err = errors.Join(err, k.flag("ask", false, ""), k.flag("mute", false, ""), k.flag("lossy", false, ""))
	}()
	if err := errors.Join(k.flag("ask", t.Answers(), fmt.Sprintf("%d %s", k.victim, t.Kind)), k.flag("lossy", lossy, "")); err != nil {
		return err
	}
	late := time.Now().Add(killWithin)
	for {
		if dead, err := k.dies(ctx, time.Duration(k.random.IntN(400))*time.Millisecond); dead || err != nil {
			return err
		}
		if time.Now().After(late) {
			return fmt.Errorf("%s did not die of a message (%s) within %s", k.name(), killpoint.Plan{Kind: t.Kind, Again: t.Again}.Target(), killWithin)
		}
		var away []string
		long := 500 * time.Millisecond
		switch {
		case mute:
			long = pauseVotes
		case t.Again:
			if long = pauseLong; nullify {
				long = pauseVotes
			}
			others := slices.DeleteFunc(slices.Clone(k.w.net.Names), func(n string) bool { return n == k.name() })
			k.random.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
			away = others[:2]
		}
		if err := errors.Join(k.flag("mute", mute, ""), k.w.net.Pause(away...)); err != nil {
			return err
		}
		dead, err := k.dies(ctx, long)
		if err := errors.Join(err, k.flag("mute", false, ""), k.w.net.Continue(away...)); dead || err != nil {
			return err
		}
	}
}

// dies waits for the end of the victim, which has to be of its own doing.
func (k *Kills) dies(ctx context.Context, most time.Duration) (bool, error) {
	for began := time.Now(); ; {
		if name, why, ok := k.w.net.Died(); ok {
			_, err := os.Stat(k.file("death", k.victim))
			if name == k.name() && err == nil && strings.HasPrefix(why, "signal: killed") {
				return true, nil
			}
			return false, fmt.Errorf("%s ended by itself: %s", name, why)
		}
		if time.Since(began) > most {
			return false, nil
		}
		if !openloop.Wait(ctx, lookAgain) {
			return false, ctx.Err()
		}
	}
}

// signs waits until another node has a certificate with the victim's signature for a block above a height.
func (k *Kills) signs(ctx context.Context, above consensus.Height) error {
	at, ended := above+1, ""
	if await(ctx, votesWithin, k.w.witness.News, func() bool {
		if name, why, ok := k.w.net.Died(); ok {
			ended = fmt.Sprintf("%s ended by itself: %s", name, why)
			return true
		}
		for ; at <= k.w.witness.Height(0); at++ {
			for i, n := range k.w.nodes {
				if i == k.victim {
					continue
				}
				c, err := n.Block(ctx, at)
				if err != nil {
					return false // it may be behind
				}
				if c.Block.Final.Cert.Signers.Has(k.victim) {
					return true
				}
			}
		}
		return false
	}) {
		if ended != "" {
			return errors.New(ended)
		}
		return nil
	}
	return fmt.Errorf("no certificate of blocks %d to %d has the signature of %s, which was killed and started again", above+1, at-1, k.name())
}

// judge looks for votes that contradict each other in what members heard, for evidence, and for complaints in logs.
func (k *Kills) judge(ctx context.Context) error {
	for i := range k.heard {
		if err := k.listen(i); err != nil {
			return err
		}
	}
	for i, n := range k.w.nodes {
		if i == k.victim { // it may be dying
			continue
		}
		b, err := n.get(ctx, "/v1/evidence")
		var e api.Evidence
		if err == nil {
			err = json.Unmarshal(b, &e)
		}
		switch {
		case err != nil:
			k.w.witness.Wrong("%s: evidence: %v", n.name, err)
		case e.Total > 0:
			k.convicted = true
			k.w.witness.Wrong("%s has evidence: %s and %s of view %d", n.name, e.Proofs[0].First, e.Proofs[0].Second, e.Proofs[0].View)
		}
	}
	for _, name := range k.w.net.Names {
		k.w.silent(name)
	}
	return nil
}

// listen takes in what a member heard since.
func (k *Kills) listen(i int) error {
	f, err := os.Open(k.file("heard", i))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewReader(io.NewSectionReader(f, k.heard[i], 1<<40))
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil // the rest is being written
		}
		k.heard[i] += int64(len(line))
		h, err := killpoint.ParseHeard(line)
		if err != nil {
			return err
		}
		if pair := k.votes.Add(h.Votes...); pair != nil {
			k.convicted = true
			k.w.witness.Wrong("validator %d sent two votes that contradict each other: %+v and %+v", pair[0].Validator, pair[0].Statement, pair[1].Statement)
		}
	}
}

// Close ends the load, checks everything that clients were told, and ends the network.
func (k *Kills) Close(ctx context.Context) error {
	w := k.w
	if len(w.witness.Wrongs()) == 0 {
		if k.next != nil { // it would die of the plan that waits
			_ = os.Remove(k.file("plan", k.victim))
		}
		if err := k.check(ctx); err != nil {
			w.witness.Wrong("%v", err)
		}
	}
	k.Logf("%d different votes were heard", k.votes.Len())
	return errors.Join(w.close(), os.RemoveAll(k.dir))
}

func (k *Kills) check(ctx context.Context) error {
	w := k.w
	if k.next != nil {
		if err := w.net.Kill(k.name()); err != nil {
			return err
		}
		for {
			if _, _, ok := w.net.Died(); !ok {
				break
			}
		}
		if err := w.net.Restart(k.name()); err != nil {
			return err
		}
	}
	if _, err := w.endLoad(); err != nil {
		return err
	}
	if err := w.finalAt(ctx, w.nodes[k.victim], w.witness.Height(0), catchUp); err != nil {
		return err
	}
	w.witness.CheckSupply(ctx, w.shards, w.supply())
	each(w.nodes, func(n *apiNode) {
		w.witness.CheckKept(ctx, n, span{1, w.witness.Height(0)})
		w.witness.CheckAccounts(ctx, n, w.sample(0))
	})
	if err := k.judge(ctx); err != nil {
		return err
	}
	w.orderly()
	return nil
}
