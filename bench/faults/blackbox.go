package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tutti/appliance/localnet"
	"tutti/appliance/proof"
	"tutti/bench/lan"
	"tutti/bench/openloop"
	"tutti/consensus"
	"tutti/state/tx"
)

// BoxOptions is one black-box run.
type BoxOptions struct {
	Seed     uint64
	Dir      string // of the run, new; kept if it fails
	Product  string // tutti as it is
	Unsynced string // tutti that loses what was not synced, and has TUTTI_CLOCK if Clock says so
	Clock    bool
	Short    bool // the version for every test run
	Power    bool // cuts of power only, whatever the seed says
}

// BoxResult is how a black-box run went.
type BoxResult struct {
	Result
	Build              string // product or unsynced
	Shards, Validators int
	Nemeses            string
	Blocks             int           // that clients were told of, over all shards
	Stall              time.Duration // longest time without a final block of a shard, nemeses or not
	Settle             time.Duration // from the end of the last nemesis until all nodes finalise
}

// boxPlan is what a seed draws.
type boxPlan struct {
	size     size
	powers   []uint64 // nil: 1 each
	unsynced bool
	power    bool   // cycles of powerCycle in place of nemeses
	epoch    uint64 // blocks of an epoch; 0: there is one
	binary   string
	span     time.Duration
	nemeses  []*nemesis
}

// settleBound is how long a network may take, after the last nemesis has ended, until every node finalises with the others.
const settleBound = 60 * time.Second

// Loads that leave a machine of two cores time for packets.
const (
	boxRate     = 150 // transfers a second, over all shards
	boxAccounts = 2000
	boxEpoch    = 25 // blocks, where epochs end
	portOfAPI   = 9700
)

// planBox draws a run.
func planBox(o BoxOptions) (p boxPlan) {
	r := rand.New(rand.NewPCG(o.Seed, 0xb0))
	p.size = size{shards: 1, validators: 4, accounts: boxAccounts, rate: boxRate, eachNode: true}
	two, seven, build, profile, epochs := r.IntN(10) < 3, r.IntN(10) < 2, r.IntN(3), r.IntN(4), r.IntN(3) == 0
	p.span = 60*time.Second + time.Duration(r.IntN(20))*time.Second
	pause := 5 * time.Second
	switch {
	case o.Short:
		p.span, pause, build, profile = 8*time.Second, 1500*time.Millisecond, 1, 1
	case o.Power:
		build, profile = 1, 0
	case two:
		p.size.shards, p.size.cross = 2, 0.3
	case seven:
		p.size.validators = 7
		for range p.size.validators {
			p.powers = append(p.powers, 1+r.Uint64N(4))
		}
	}
	p.unsynced, p.power, p.binary = build > 0, build > 0 && profile == 0, o.Product
	if p.unsynced {
		p.binary = o.Unsynced
	}
	if !p.power {
		if epochs && !two {
			p.epoch = boxEpoch
		}
		p.nemeses = schedule(r, p.size.shards*p.size.validators, p.unsynced, p.unsynced && o.Clock, p.span, pause)
	}
	return p
}

func localnetOptions(hosts []string, p boxPlan, spawn func(string, *exec.Cmd) error) localnet.Options {
	return localnet.Options{APIPort: portOfAPI, Binary: p.binary, Hosts: hosts, Powers: p.powers, EpochBlocks: p.epoch, Spawn: spawn}
}

// boxEnv holds a run's options for the process that it has for itself.
const boxEnv = "TUTTI_FAULTS_BOX"

// BoxSupported says why there can be no black-box run here; nil: there can.
func BoxSupported() error {
	if err := lan.Supported(); err != nil {
		return err
	}
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: boxSpaces}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("faults: namespaces of processes and mounts need root: %w", err)
	}
	return nil
}

// boxLimit bounds a run. Everything in it is bounded, too; this is for what nobody thought of.
const boxLimit = 20 * time.Minute

// boxSpaces keep a run to itself: its network, its disks and its processes are gone when its first process is.
const boxSpaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID

// BlackBox makes a black-box run, in a process of its own: this program once more, which must call InBox before anything
// else. The run's log goes to run.log in its folder. The error says that it could not run.
func BlackBox(ctx context.Context, o BoxOptions) (r BoxResult, err error) {
	plan, err := json.Marshal(o)
	if err != nil {
		return r, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return r, err
	}
	log, err := os.Create(filepath.Join(o.Dir, "run.log"))
	if err != nil {
		return r, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, boxLimit)
	defer cancel()
	runtime.LockOSThread() // the process ends with the thread that started it
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), boxEnv+"="+string(plan))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: boxSpaces, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return r, fmt.Errorf("faults: seed %d: %w\n%s", o.Seed, err, text[max(0, len(text)-4000):])
	}
	b, err := os.ReadFile(filepath.Join(o.Dir, "result.json"))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && len(r.Wrongs) == 0 {
		err = os.RemoveAll(o.Dir)
	}
	return r, err
}

// InBox makes the run that BlackBox has started this process for, and ends it; in any other process it does nothing.
func InBox() {
	plan := os.Getenv(boxEnv)
	if plan == "" {
		return
	}
	if err := inBox(plan); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func inBox(plan string) error {
	var o BoxOptions
	if err := json.Unmarshal([]byte(plan), &o); err != nil {
		return err
	}
	if err := os.Unsetenv(boxEnv); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil { // what is mounted here is not mounted elsewhere
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil { // of these processes
		return fmt.Errorf("mount /proc: %w", err)
	}
	began := time.Now()
	logf := func(format string, args ...any) {
		fmt.Printf("%6.2f "+format+"\n", append([]any{time.Since(began).Seconds()}, args...)...)
	}
	r, err := runBox(context.Background(), o, logf)
	if err != nil {
		return err
	}
	r.Took = time.Since(began)
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.Dir, "result.json"), b, 0o644)
}

func runBox(ctx context.Context, o BoxOptions, logf func(string, ...any)) (r BoxResult, err error) {
	p := planBox(o)
	r.Seed, r.Build, r.Shards, r.Validators, r.Nemeses = o.Seed, "product", p.size.shards, p.size.validators, tally(p.nemeses)
	if p.unsynced {
		r.Build = "unsynced"
	}
	if p.epoch > 0 {
		r.Nemeses += " epochs"
	}
	logf("seed %d: %s build, %d shards of %d validators, powers %v, %s", o.Seed, r.Build, r.Shards, r.Validators, p.powers, r.Nemeses)
	b, err := newBox(ctx, o, p, logf)
	if err != nil {
		return r, err
	}
	defer func() {
		for _, wrong := range b.witness.Wrongs() {
			logf("WRONG: %s", wrong)
		}
		err = errors.Join(err, b.close())
	}()
	run := &boxRun{box: b, plan: p, result: &r, seed: o.Seed}
	if err := run.run(); err != nil {
		b.orderly()
		b.witness.Wrong("%v", err)
	}
	for _, h := range b.witness.Heights() {
		r.Blocks += int(h)
	}
	r.Wrongs, r.Proofs = b.witness.Wrongs(), b.witness.Reverified()
	passed, dropped := b.lan.Counts()
	logf("%d packets passed, %d dropped; %d transfers took effect", passed, dropped, b.witness.Executed())
	return r, nil
}

// boxRun is one run in its box.
type boxRun struct {
	*box
	plan   boxPlan
	result *BoxResult
	seed   uint64

	holder sync.WaitGroup
	held   []*proof.Finality // owned by the goroutine of hold until holder is done
}

func (b *boxRun) run() error {
	for shard := range b.shards {
		if err := b.grows(b.ctx, consensus.ShardID(shard), 3, goesOn); err != nil {
			return err
		}
	}
	began := time.Now()
	holding, stop := context.WithCancel(b.ctx)
	b.holder.Go(func() { b.hold(holding) })
	play := b.play
	if b.plan.power {
		play = b.cutPower
	}
	err := play()
	stop()
	b.holder.Wait()
	if err != nil {
		return err
	}
	healed := time.Now()
	if err := b.recover(healed); err != nil {
		return err
	}
	b.result.Settle, b.result.Stall = time.Since(healed), b.witness.Stall(began, time.Now())
	b.logf("all finalise %.1f s after the last nemesis; the longest time without finality was %.1f s", b.result.Settle.Seconds(), b.result.Stall.Seconds())
	return b.judge()
}

// play plays the nemeses, each from its start to its end.
func (b *boxRun) play() error {
	type moment struct {
		at  time.Duration
		log string
		do  func(*box) error
	}
	var all []moment
	for _, n := range b.plan.nemeses {
		all = append(all, moment{n.at, n.String(), n.begin}, moment{n.at + n.lasts, "end of " + n.kind + " " + n.what, n.end})
	}
	slices.SortStableFunc(all, func(x, y moment) int { return int(x.at - y.at) })
	began := time.Now()
	for _, m := range all {
		if err := b.tend(began.Add(m.at)); err != nil {
			return err
		}
		b.logf("%s; heights %v", m.log, b.witness.Heights())
		if err := m.do(b.box); err != nil {
			return fmt.Errorf("%s: %w", m.log, err)
		}
		if len(b.witness.Wrongs()) > 0 {
			return errors.New("after " + m.log)
		}
	}
	return nil
}

// recover waits until every node finalises with the others.
func (b *boxRun) recover(healed time.Time) error {
	within := func() time.Duration { return max(time.Until(healed.Add(settleBound)), time.Millisecond) }
	if err := b.tend(time.Now()); err != nil {
		return err
	}
	for i := range b.shards {
		shard := consensus.ShardID(i)
		if err := b.grows(b.ctx, shard, 3, within()); err != nil {
			return fmt.Errorf("all nemeses have ended: %w", err)
		}
	}
	told := b.witness.Heights()
	for _, n := range b.nodes {
		for !b.net.Alive(n.name) && b.machine(n.name).pinched() { // it has not yet said that its disk was full
			if err := b.tend(time.Now().Add(askEvery)); err != nil {
				return err
			}
		}
		if err := b.finalAt(b.ctx, n, told[n.shard], within()); err != nil {
			return fmt.Errorf("all nemeses have ended: %w", err)
		}
	}
	return nil
}

// judge ends the load and asks every node for everything that clients were told.
func (b *boxRun) judge() error {
	lasted, err := b.endLoad()
	if err != nil {
		return err
	}
	o := b.outcome
	b.logf("load: %d due in %.1f s, %d final, %d expired, %d lost, %d unsent, rejected %v", o.Due, lasted.Seconds(), o.Finalised, o.Expired, o.Lost, o.Unsent, o.Rejected)
	b.witness.CheckSupply(b.ctx, b.shards, b.supply())
	each(b.nodes, func(n *apiNode) {
		b.witness.CheckKept(b.ctx, n, span{1, b.witness.Height(n.shard)})
		b.witness.CheckHeld(b.ctx, n, n.believe, b.held)
		b.witness.CheckRoot(b.ctx, n)
		b.witness.CheckAccounts(b.ctx, n, b.sample(n.shard))
		b.witness.CheckEvidence(b.ctx, n)
	})
	b.fallen()
	b.orderly()
	b.logf("checked %d blocks, proofs and accounts", b.witness.Reverified())
	return nil
}

// Proofs that clients ask for and hold.
const (
	maxHeld   = 200
	holdEvery = 400 * time.Millisecond
	holdWait  = 2 * time.Second // for an answer
)

// hold asks nodes now and then for the proof of a transfer, and keeps it.
func (b *boxRun) hold(ctx context.Context) {
	r := rand.New(rand.NewPCG(b.seed, 0x401d))
	for len(b.held) < maxHeld && openloop.Wait(ctx, holdEvery) {
		if f := b.holdOne(ctx, r); f != nil {
			b.held = append(b.held, f)
		}
	}
}

// holdOne asks a node for the proof of a transfer in the newest block. It may not answer; what it answers has to be right.
func (b *boxRun) holdOne(ctx context.Context, r *rand.Rand) *proof.Finality {
	ctx, cancel := context.WithTimeout(ctx, holdWait)
	defer cancel()
	n := b.nodes[r.IntN(len(b.nodes))]
	c, err := n.Block(ctx, b.witness.Height(n.shard))
	if err != nil {
		return nil
	}
	k := slices.Index(c.Body.Outcomes, true)
	if k < 0 {
		return nil
	}
	id := tx.Hash(c.IDs[k])
	text, err := n.get(ctx, finalityOf(id))
	if err != nil {
		return nil
	}
	p, f, err := n.proven(ctx, id, text)
	if err != nil || !p.Success || p.Where.Height != c.Header.Height {
		b.witness.Wrong("%s: the proof of transaction %s of block %d: %+v, %v", n.name, id, c.Header.Height, p, err)
		return nil
	}
	return f
}
