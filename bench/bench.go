// Package bench measures a Tutti network: it starts one on this machine or takes one that runs, loads it at a steady
// rate or finds the highest rate that it stands, and afterwards checks the validators against one another.
//
// The load is bench/load over transfers of bench/workload; the result is a bench/report. CPU, traffic and memory of
// validators are what their own /v1/status and /metrics say; CPU of this process is in no validator's figure.
//
// # Time
//
// For every second the report has a row of what the client saw and of what validators say of their CPU and memory, warm-up
// included, and for the measurement a distribution of latencies in bins of 5 %. Asking costs a status of each validator a second.
//
// # Bytes
//
// bytes_per_tx_per_validator and received_bytes_per_tx_per_validator count the payload of messages between validators: votes,
// proposals and forwarded transactions, without the API, gossip and requests. The two wire figures count all that goes between
// validators, as netstack/p2p says: gossip, requests, framing, encryption, what TCP sent again, and the headers of IP and TCP as
// in packets of 1,500 bytes, though loopback's are larger; not Ethernet's 38 bytes for each packet.
//
// # Checks after every run
//
//   - state_root_agrees: all validators of a shard show one state root at one height, and never two.
//   - supply_conserved: on every validator balances, fees, deposits and treasury add up to the genesis supply and what
//     came in less what went out; shards together hold what genesis gave them less what is on its way between them.
//   - finalised_kept: every validator still has, and can prove, a sample of the blocks that this client has seen final,
//     or has pruned what lies below those that it has, as long as another one proves that.
//   - none_lost: every transaction that a node accepted is final or has expired.
//   - no_invalid_accepted: no node took a wrongly signed transaction.
//   - rate_stood: where the highest rate was searched for, the full run at it met the target too.
//   - overload_rate, overload_memory, overload_answers, overload_recovery, invalid_throughput: where there are several stretches;
//     see stretches.go.
//   - replayable: the report's evidence, of every stretch, with which `tutti bench verify` follows its figures elsewhere, bears them out here.
//   - balances_match: on a network of our own, the accounts of a sample hold exactly what the transfers that this
//     client saw settle leave them.
//
// A check that could not be made has failed.
//
// Source: system.md section 5. Nothing here is fatal; Run cleans up what it starts, also when it is interrupted, but
// keeps the folder of a network whose run or checks failed and says where it is.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/host"
	"tutti/appliance/proof"
	"tutti/bench/load"
	"tutti/bench/replay"
	"tutti/bench/report"
	"tutti/bench/stages"
	"tutti/bench/workload"
	"tutti/consensus"
)

// Config is what to measure. Standard gives good values for all that has no meaning when it is zero.
type Config struct {
	Shards, Validators int
	Accounts           uint64
	Workload           workload.Kind
	CrossShard         float64 // share of transfers, 0 to 1
	Distilled          float64 // share of transfers; above 0 all are in batches, and the rest of their senders does not sign those
	Online             bool    // batches are distilled by a broker, in the run, and its latency counts
	Invalid            float64 // share of transfers, 0 to 1
	Alternate          bool    // stretches without wrong signatures in turn with such as have Invalid of them; see stretches.go
	Overload           float64 // times the rate, in a stretch after the measurement; 0: none. See stretches.go
	Burst              bool    // each second's transactions are due within its first tenth
	Rate               float64 // transactions due a second; 0: find the highest
	WarmUp, Duration   time.Duration
	Drain              time.Duration // to wait at the end for what has not settled
	Seed               uint64
	Attach             *Attach // nil: start a network
	Link               *Link   // between its nodes, and from them to this client; nil: loopback. See links.go

	Commit   string
	Command  string    // that asked for this, for the report
	Binary   string    // tutti, for the network's nodes; empty: this program
	Profiles string    // existing folder for a CPU profile of each node of the own network and of this process; empty: none
	Out      io.Writer // progress; nil: none
	Terminal bool      // Out is one
}

// Attach names a network that runs.
type Attach struct {
	APIs    []string // of at least one node
	Genesis *genesis.Genesis
	Trust   *proof.Trust
	Crowd   [32]byte // seed of the crowd that pays; the second half of it, as the demo load uses the first
}

// Standard is the benchmark that all others are variations of.
func Standard() Config {
	return Config{
		Shards: 1, Validators: 4, Accounts: 100_000, Workload: workload.Uniform, Rate: 8000,
		WarmUp: 5 * time.Second, Duration: 30 * time.Second, Drain: 30 * time.Second, Seed: 1,
	}
}

// Bounds of a run.
const (
	maxRate      = 10_000_000
	maxDuration  = 24 * time.Hour
	maxOverload  = 100
	maxAlternate = 0.9
	burst        = replay.Burst
	zipfWindow   = 128 // transfers of one payer under way, where some payers pay most of the time
)

// Validate says what is wrong with a configuration.
func (c *Config) Validate() error {
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	switch {
	case !share(c.Distilled) || !share(c.CrossShard) || !share(c.Invalid):
		return errors.New("a share is a number from 0 to 1")
	case c.Distilled > 0 && (c.CrossShard > 0 || c.Invalid > 0 || c.Workload != workload.Uniform):
		return errors.New("distilled batches are of uniform, valid transfers within a shard: leave cross-shard and invalid shares at 0")
	case c.Distilled > 0 && c.Attach != nil:
		return errors.New("distilled batches are made for a network that is started for them: name none that runs")
	case c.Distilled > 0 && c.Overload > 0:
		return errors.New("distilled batches are made before a phase begins, more than an overload's would not fit into memory: overload with single transfers")
	case c.Overload != 0 && !(c.Overload > 1 && c.Overload <= maxOverload):
		return fmt.Errorf("overload of %v times the rate: choose a number above 1, up to %d", c.Overload, maxOverload)
	case c.Alternate && !(c.Invalid > 0 && c.Invalid <= maxAlternate && c.Overload == 0):
		return fmt.Errorf("stretches in turn compare a share of wrong signatures with none: give an invalid share up to %v, and no overload", maxAlternate)
	case c.Link != nil && c.Attach != nil:
		return errors.New("a network that runs has its links: name either one with --api, or a link for one of our own")
	case c.Online && c.Distilled != 1:
		return errors.New("online is about distilled batches that everybody signs: give a distilled share of 1 with it")
	case c.Online && c.Rate == 0:
		return errors.New("the highest rate is searched for with batches that are made before: give online a rate")
	case c.Workload != workload.Uniform && c.Workload != workload.Zipf:
		return fmt.Errorf("workload %q: choose %s or %s", c.Workload, workload.Uniform, workload.Zipf)
	case math.IsNaN(c.Rate) || c.Rate < 0 || c.Rate > maxRate:
		return fmt.Errorf("rate %v: choose a number from 1 to %d, or max", c.Rate, maxRate)
	case c.Duration < time.Second || c.Duration > maxDuration:
		return fmt.Errorf("duration %s: choose 1s to %s", c.Duration, maxDuration)
	case c.Burst && (c.WarmUp%time.Second != 0 || c.Duration%time.Second != 0):
		return fmt.Errorf("bursts begin with whole seconds: give whole seconds of warm-up and duration, not %s and %s", c.WarmUp, c.Duration)
	case c.Attach == nil && c.Shards == 1 && c.CrossShard > 0:
		return errors.New("with one shard there is no other to send to: leave the cross-shard share at 0, or take more shards")
	case c.Accounts > workload.MaxAccounts:
		return fmt.Errorf("%d accounts: the limit is %d", c.Accounts, workload.MaxAccounts)
	}
	return nil
}

// Run makes one benchmark. A report whose checks failed comes without an error; see report.Failed.
func Run(ctx context.Context, c Config) (*report.Report, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	b := &bench{Config: c, screen: screen{out: c.Out, terminal: c.Terminal}}
	return b.run(ctx)
}

// bench is one run.
type bench struct {
	Config
	screen   screen
	recorder recorder // written by what progress starts
}

func (b *bench) run(ctx context.Context) (r *report.Report, err error) {
	var t *target
	if b.Attach != nil {
		t, err = b.attach(ctx)
	} else {
		t, err = b.start(ctx)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		failed := err != nil || len(r.Failed()) > 0
		err = errors.Join(err, t.close(), b.clean(t, failed && ctx.Err() == nil))
	}()
	s, err := b.session(ctx, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	stop := b.progress(ctx, t, s)
	m, err := b.profiling(func() (*measurement, error) { return b.measure(ctx, t, s) })
	stop()
	if err != nil {
		return nil, err
	}
	r = b.report(t, m, s.AccountProofs())
	b.screen.say("checking the validators against one another")
	r.Checks, err = b.checks(ctx, t, s, m, r.Stretches)
	for _, k := range r.Checks {
		r.Result.StateRootAgrees = r.Result.StateRootAgrees || k.Name == checkRoots && k.OK
		r.Result.SupplyConserved = r.Result.SupplyConserved || k.Name == checkSupply && k.OK
	}
	b.evidence(t, r, m.outcome)
	if err == nil && b.Profiles != "" && t.own != nil {
		r.Details.CPUByStage, err = b.profiled(t)
	}
	return r, err
}

// profiling measures with a CPU profile of this process, where profiles are wanted.
func (b *bench) profiling(measure func() (*measurement, error)) (m *measurement, err error) {
	if b.Profiles == "" {
		return measure()
	}
	f, err := os.Create(filepath.Join(b.Profiles, "generator.pprof"))
	if err != nil {
		return nil, fmt.Errorf("bench: create a profile: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, fmt.Errorf("bench: profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	return measure()
}

// profiled stops the network, whose nodes write their profiles then, and reads those.
func (b *bench) profiled(t *target) ([]report.Stage, error) {
	if err := t.stop(); err != nil {
		return nil, err
	}
	var paths []string
	for _, name := range t.own.Names {
		paths = append(paths, filepath.Join(b.Profiles, name+".pprof"))
	}
	return stages.Of(paths...)
}

// evidence puts the evidence into a report, and looks whether it bears the report out if all other checks hold.
func (b *bench) evidence(t *target, r *report.Report, o *load.Outcome) {
	err := o.NoEvidence
	if o.Evidence != nil {
		o.Evidence.Genesis = t.genesis
		r.Evidence, err = o.Evidence.Encode()
	}
	if err != nil {
		b.screen.say("'tutti bench verify' will not be able to check this report: %v", err)
		return
	}
	if len(r.Failed()) > 0 {
		return
	}
	k := report.Check{Name: checkReplay, OK: true, Detail: fmt.Sprintf("%s KiB of evidence bear it out", report.Number(float64(len(r.Evidence.Data))/1024))}
	if v := replay.Verify(r, replay.Options{Genesis: t.genesis}); !v.OK {
		k.OK, k.Detail = false, v.Refused()
	}
	r.Checks = append(r.Checks, k)
}

// session is a load on a network: of single transactions or of distilled batches.
type session interface {
	Known(context.Context) error
	Run(context.Context, load.Phase) (*load.Outcome, error)
	Totals() load.Totals
	Snapshot() load.Snapshot
	Sample() [][]load.Seen
	Delta(account uint32) int64
	AccountProofs() *hdrhistogram.Histogram
	Close() error
}

// batchWindow is the time between two batches.
const batchWindow = 100 * time.Millisecond

// batches opens a load of distilled batches.
func (b *bench) batches(ctx context.Context, t *target, crowd *workload.Crowd) (session, error) {
	params, err := t.nodes[0][0].client.Params(ctx)
	if err != nil {
		return nil, err
	}
	b.screen.say("deriving the BLS keys of %s accounts", report.Number(float64(t.accounts)))
	var makers []*workload.Batcher
	shards := len(t.genesis.Shards)
	for shard := range shards {
		m, err := workload.NewBatcher(ctx, crowd, workload.BatchOptions{Seed: b.Seed, Shards: shards, Shard: shard, Straggling: 1 - b.Distilled})
		if err != nil {
			return nil, err
		}
		makers = append(makers, m)
	}
	perBlock := time.Duration(t.genesis.Parameters.BlockIntervalMs) * time.Millisecond
	s, err := load.OpenBatches(ctx, load.BatchOptions{
		Target: load.Target{Trust: t.trust, APIs: t.apis(), Crowd: crowd, Fee: t.fee()}, Makers: makers, Window: batchWindow,
		Most: min(params.MaxBatchTransfers, makers[0].Accounts()), Seed: b.Seed,
		ExpiryBlocks: 100 + uint32((b.WarmUp+b.Duration+b.Drain)/perBlock),
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// keysEvery is how long keys are derived between two lines about it.
const keysEvery = 2 * time.Second

// session opens the load on a target.
func (b *bench) session(ctx context.Context, t *target) (session, error) {
	deriving := fmt.Sprintf("deriving the keys of %s accounts", report.Number(float64(t.accounts)))
	b.screen.say("%s", deriving)
	shown := time.Now()
	crowd, err := workload.NewCrowd(ctx, t.crowd, t.ids, t.first, t.accounts, t.genesis.Hash(), func(keys uint64) {
		if time.Since(shown) > keysEvery {
			shown = time.Now()
			b.screen.line(fmt.Sprintf("%s: %d %%", deriving, 100*keys/t.accounts), false)
		}
	})
	if err != nil {
		return nil, err
	}
	if b.Online {
		return b.online(ctx, t, crowd)
	}
	if b.Distilled > 0 {
		return b.batches(ctx, t, crowd)
	}
	window := 1
	if b.Workload == workload.Zipf {
		window = zipfWindow
	}
	s, err := load.Open(ctx, load.Options{
		Target: load.Target{Trust: t.trust, APIs: t.apis(), Crowd: crowd, Fee: t.fee()},
		Workload: workload.Options{
			Kind: b.Workload, Seed: b.Seed, Shards: len(t.genesis.Shards), Accounts: int(t.accounts), CrossShard: b.CrossShard,
			Invalid: b.mixed(), Window: window,
		},
		Fresh: t.own != nil, ReadRate: t.readRate,
	})
	if err != nil {
		return nil, err
	}
	if t.own == nil {
		b.screen.say("reading the nonces of %s accounts", report.Number(float64(t.accounts)))
	}
	if err := s.Known(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if n := s.Totals().Foreign; n > 0 {
		b.screen.say("%s of these accounts do not belong to the crowd and are left out", report.Number(float64(n)))
		if n == t.accounts {
			return nil, errors.Join(errors.New("bench: none of the accounts belongs to this crowd: give the seed of this network's crowd"), s.Close())
		}
	}
	return s, nil
}

// measurement is one phase with the validators' and the machine's figures around it.
type measurement struct {
	rate       float64 // of valid ones, where stretches alternate
	outcome    *load.Outcome
	begin, end moment
	search     []report.Trial
}

// moment is what was read at one end of the measurement.
type moment struct {
	at         time.Time
	machine    host.Sample
	machineErr error
	own        float64 // CPU seconds of this process
	broker     float64 // and of the broker's
	validators []sample
}

func (t *target) moment(ctx context.Context) (m moment) {
	m.at = time.Now()
	m.machine, m.machineErr = host.ReadSample()
	m.own, m.broker = ownCPU(), t.brokerCPU()
	m.validators = t.samples(ctx)
	return m
}

// ownCPU is the CPU time of this process in seconds, without its children.
func ownCPU() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// measure runs the load, after a search for the rate if need be.
func (b *bench) measure(ctx context.Context, t *target, s session) (*measurement, error) {
	if b.Rate > 0 {
		return b.phase(ctx, t, s, b.Rate)
	}
	return b.search(ctx, t, s)
}

// burst is Phase.Burst.
func (b *bench) burst() time.Duration {
	if b.Burst {
		return burst
	}
	return 0
}

func (b *bench) phase(ctx context.Context, t *target, s session, rate float64) (*measurement, error) {
	m := &measurement{rate: rate}
	if b.Distilled > 0 && !b.Online {
		b.screen.say("making the batches of %s first", b.WarmUp+b.Duration)
	}
	b.screen.say("warming up for %s, then measuring for %s at %s tx/s", b.WarmUp, b.Duration, report.Number(rate))
	if b.Overload > 0 {
		b.screen.say("then %g times that for %s, and the rate again", b.Overload, b.Duration)
	} else if b.Alternate {
		b.screen.say("then as long with wrong signatures on top, without, and with again")
	}
	var err error
	then, _ := b.stretches(rate)
	m.outcome, err = s.Run(ctx, load.Phase{
		Rate: rate, WarmUp: b.WarmUp, Duration: b.Duration, Drain: b.Drain, Burst: b.burst(), Then: then,
		Begin: func() { m.begin = t.moment(ctx) }, End: func() { m.end = t.moment(ctx) },
	})
	return m, err
}

// report puts the figures together.
func (b *bench) report(t *target, m *measurement, proofs *hdrhistogram.Histogram) *report.Report {
	o, span := m.outcome, m.end.at.Sub(m.begin.at).Seconds()
	r := &report.Report{
		Schema: report.Schema, Commit: b.Commit, Machine: report.Machine{Machine: host.Describe()}, ClientSigning: report.Online,
		Scenario: report.Scenario{
			Shards: len(t.nodes), Validators: len(t.nodes[0]), Accounts: t.accounts, Workload: string(b.Workload), CrossShardShare: b.CrossShard,
			InvalidShare: b.mixed(), Burst: b.Burst, DistilledShare: b.Distilled, Rate: report.Round(m.rate, 1), DurationS: b.Duration.Seconds(), Link: b.link(t),
		},
		Result: report.Result{
			Submitted: o.Submitted(), Finalised: o.Finalised, Rejected: o.RejectedSum(), Lost: o.Lost, TPS: report.Round(o.TPS(), 1),
			FinalityMs: report.QuantilesOf(o.Latency),
		},
		GeneratorCPUS: report.Round(m.end.own-m.begin.own, 3),
		Details: report.Details{
			Seed: b.Seed, WarmUpS: b.WarmUp.Seconds(), DrainS: report.Round(o.Drain.Seconds(), 2), RejectedByCode: o.Rejected, RetriedByReason: o.Retried,
			Returned: o.Returned, Expired: o.Expired, Unsent: o.Unsent, Skipped: o.Skipped, InvalidAccepted: o.InvalidAccepted,
			DiskSyncMs: t.diskSyncMs, Search: m.search, Command: b.Command, Latency: report.DistributionOf(o.Latency),
			Series: b.recorder.series(o.Begin.At-b.WarmUp, o.Begin.At),
		},
		Stretches: b.stretched(m),
	}
	if o.Cross.TotalCount() > 0 {
		q := report.QuantilesOf(o.Cross)
		r.Result.CrossShardMs = &q
	}
	end := 0.0
	for _, s := range r.Stretches {
		r.Details.Series.Stretches, r.Details.Series.StretchAt = append(r.Details.Series.Stretches, s.Name), append(r.Details.Series.StretchAt, report.Value(end))
		end += s.DurationS
	}
	if end > 0 {
		r.Details.Series.StretchAt = append(r.Details.Series.StretchAt, report.Value(end))
	}
	if b.Online {
		r.Brokers, r.Details.BrokerCPUS = 1, report.Round(m.end.broker-m.begin.broker, 3)
	}
	if b.Distilled > 0 {
		r.ClientSigning, r.BatchWindowMs = report.Summed, float64(batchWindow.Milliseconds())
		if b.Online {
			r.ClientSigning = report.Online
		}
		if o.Batches > 0 {
			r.DistilledMeasured = report.Round(float64(o.Distilled)/float64(o.Finalised), 4)
			r.MeanBatch = report.Round(float64(o.Batched)/float64(o.Batches), 1)
		}
	}
	r.Scenario.Name = fmt.Sprintf("%s-%dx%d", b.Workload, r.Scenario.Shards, r.Scenario.Validators)
	if o.Submitted() > 0 {
		r.Details.GeneratorUsPerTx = report.Round(r.GeneratorCPUS*1e6/float64(o.Submitted()), 1)
	}
	blocks := uint64(0)
	for i := range o.End.Shards {
		blocks += o.End.Shards[i].Blocks - o.Begin.Shards[i].Blocks
		r.Details.TransactionsSeen += o.End.Shards[i].Transactions - o.Begin.Shards[i].Transactions
	}
	r.BlocksPerS = report.Round(float64(blocks)/(o.End.At-o.Begin.At).Seconds()/float64(len(t.nodes)), 2)
	if proofs.TotalCount() > 0 {
		p50 := report.QuantilesOf(proofs).P50
		r.AccountProofMs = &p50
	}
	use := t.usage(m)
	r.Result.CPUUsPerTxPerValidator, r.Result.RSSMiBPerValidator = use.cpuUs, use.rssMiB
	r.Result.BytesPerTxPerValidator, r.Result.ReceivedBytesPerTxPerValidator = use.sent, use.received
	r.Result.WireSentBytesPerTxPerValidator, r.Result.WireReceivedBytesPerTxPerValidator = use.wireSent, use.wireReceived
	if m.begin.machineErr == nil && m.end.machineErr == nil && span > 0 {
		l := host.Between(m.begin.machine, m.end.machine)
		if t.own == nil && t.link() == report.Loopback { // validators that others started are no foreign work
			l.Foreign, l.Own = max(0, l.Foreign-use.cores), l.Own+use.cores
		}
		r.Machine.ForeignCores = report.Round(l.Foreign, 2)
		r.Details.OwnCores, r.Details.StealCores = report.Round(l.Own, 2), report.Round(l.Steal, 2)
	}
	return r
}

// link says whether all nodes are on this machine.
// link is what is between client and nodes.
func (b *bench) link(t *target) string {
	if b.Link != nil {
		return b.Link.String()
	}
	return t.link()
}

func (t *target) link() string {
	for _, row := range t.nodes {
		for _, n := range row {
			u, err := url.Parse(n.url)
			if err != nil {
				return report.Network
			}
			ip := net.ParseIP(u.Hostname())
			if u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
				return report.Network
			}
		}
	}
	return report.Loopback
}

// fee is the price of fee class 0.
func (t *target) fee() uint64 { return t.genesis.Parameters.Fees[0] }

// unlimited lifts the limits that a node has for one client: here all clients are one address, and what is to be
// measured is the node.
func unlimited(c *config.Config) {
	c.API.RequestsPerSecond, c.API.TotalRequestsPerSecond = 1_000_000, 1_000_000
	c.API.TransactionsPerSecond, c.API.TotalTransactionsPerSecond = 1_000_000, 1_000_000
	c.API.BatchedPerSecond, c.API.TotalBatchedPerSecond = 10_000_000, 10_000_000
	c.Pool.MaxPerSource, c.Pool.MaxBatchedPerSource = c.Pool.MaxTransactions, c.Pool.MaxBatched
}

// shardOf is the shard that keeps an account of the crowd.
func (t *target) shardOf(account uint32) consensus.ShardID {
	return consensus.ShardID(account % uint32(len(t.nodes)))
}
