// Package metrics declares every Prometheus metric of a node and of a broker, in this file and nowhere else.
//
// New registers them with the registry it is given; the node's parts get their own group and count there. Nothing is
// global. Names are tutti_<part>_<what>_<unit>: counters end in _total, times are in seconds, sizes in bytes, money
// in units; a table test holds the names to that. Every label has few values, fixed by the code: no account, no
// transaction id and no address ever becomes a label.
package metrics

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics is everything a node counts. Its fields are safe for concurrent use.
type Metrics struct {
	Consensus Consensus
	Execution Execution
	State     State
	Storage   Storage
	Verify    Verify
	Pool      Pool
	Batches   Batches
	Net       Net
	Sync      Sync
	API       API
}

// Consensus is the agreement of this node's shard.
type Consensus struct {
	View         prometheus.Gauge
	Epoch        prometheus.Gauge
	EpochLeft    prometheus.Gauge
	Seat         prometheus.Gauge
	HeadHeight   prometheus.Gauge
	FinalHeight  prometheus.Gauge
	FinalTime    prometheus.Gauge // Unix seconds of the final tip, by its leader's clock
	FinalBlocks  prometheus.Counter
	Evidence     prometheus.Counter
	Misbehaviour *prometheus.CounterVec // by reason
	Dropped      *prometheus.CounterVec // by reason: stranger, penalty, rate, malformed, clock, fetch
	Finality     prometheus.Histogram   // from a block's time to its finality on this node
	LogSync      *prometheus.HistogramVec
}

// Execution is what blocks did.
type Execution struct {
	Transactions *prometheus.CounterVec // by outcome: success, skipped
	Receipts     *prometheus.CounterVec // by event: sent, credited, returned, treasury
	BodyBytes    prometheus.Histogram
	Seconds      *prometheus.HistogramVec // by step: build, certify, finalise
}

// State is the account table and its storage.
type State struct {
	Accounts    prometheus.Gauge
	Supply      *prometheus.GaugeVec // by part: balances, fees, deposits, treasury, inflow, outflow, genesis
	TableBytes  prometheus.Gauge
	Memory      *prometheus.GaugeVec // by kind (appliance/api, Memory)
	DiskBytes   prometheus.Gauge
	Unfinalised prometheus.Gauge
}

// Storage is what is written to the disk, and how the storage engine keeps up.
type Storage struct {
	Written        *prometheus.CounterVec // by writer: engine_log, flush, compaction, load, block_log
	ProcessWritten prometheus.Counter     // as the kernel counts
	Stalls         prometheus.Counter     // times that writes had to wait for flushes or compactions
	StallSeconds   prometheus.Counter
	Compactions    prometheus.Counter
	Debt           prometheus.Gauge // bytes that compactions are behind
	Tables         prometheus.Gauge // bytes in live tables
}

// Verify is the checking of transaction signatures.
type Verify struct {
	Signatures *prometheus.CounterVec // by result: valid, invalid
	CacheHits  prometheus.Counter
	QueueFull  prometheus.Counter
	Waiting    prometheus.Gauge
	Batches    *prometheus.CounterVec // by result: checked, known
}

// Pool is the transactions that wait.
type Pool struct {
	Transactions prometheus.Gauge
	Bytes        prometheus.Gauge
	Admitted     prometheus.Counter
	Refused      *prometheus.CounterVec // by code (appliance/api)
	Dropped      *prometheus.CounterVec // by reason: expired, evicted, ...
	Resent       prometheus.Counter
}

// Batches is the distilled batches that wait.
type Batches struct {
	Held      prometheus.Gauge
	Transfers prometheus.Gauge // in those
	Bytes     prometheus.Gauge
	Admitted  *prometheus.CounterVec // by unit: batches, transfers
	Refused   *prometheus.CounterVec // by code (appliance/api)
	Dropped   *prometheus.CounterVec // by reason: used, expired, dropped
	Resent    prometheus.Counter
}

// Net is the traffic with other nodes.
type Net struct {
	Peers    prometheus.Gauge
	Messages *prometheus.CounterVec // by direction: sent, received; by class
	Bytes    *prometheus.CounterVec // by direction; by class
	Wire     *prometheus.CounterVec // by direction
	Dropped  *prometheus.CounterVec // by class and reason
}

// Sync is catching up with the shard.
type Sync struct {
	Active prometheus.Gauge   // 1 while the node catches up
	Runs   prometheus.Counter // times that it had to
	Blocks prometheus.Counter // blocks that came so
}

// API is the HTTP interface.
type API struct {
	Requests     *prometheus.CounterVec   // by route and HTTP status
	Seconds      *prometheus.HistogramVec // by route
	InFlight     prometheus.Gauge
	Refused      *prometheus.CounterVec // by code
	Transactions *prometheus.CounterVec // by result: accepted or a code
	Subscribers  prometheus.Gauge
	Cut          *prometheus.CounterVec // by code: slow_subscriber, shutting_down
}

// Buckets in seconds, and in bytes.
var (
	shortTimes = prometheus.ExponentialBuckets(0.0001, 2, 16) // 0.1 ms to 3.3 s
	longTimes  = []float64{0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.25, 1.5, 2, 3, 5, 10, 30}
	bodySizes  = prometheus.ExponentialBuckets(256, 4, 9) // 256 B to 16 MiB
)

// New makes and registers all metrics. version and commit become labels of tutti_build_info. It fails if reg already
// has one of the names.
func New(reg prometheus.Registerer, version, commit string) (*Metrics, error) {
	r := &registrar{reg: reg}
	m := &Metrics{
		Consensus: newConsensus(r), Execution: newExecution(r), State: newState(r), Storage: newStorage(r), Verify: newVerify(r),
		Pool: newPool(r), Batches: newBatches(r), Net: newNet(r), Sync: newSync(r), API: newAPI(r),
	}
	r.build(version, commit)
	if err := r.err(); err != nil {
		return nil, err
	}
	return m, nil
}

func newConsensus(r *registrar) Consensus {
	return Consensus{
		View:         r.gauge("consensus_view", "View this node is in."),
		Epoch:        r.gauge("consensus_epoch", "Epoch of this node's shard."),
		EpochLeft:    r.gauge("consensus_epoch_blocks_left", "Final blocks that the epoch still needs to end; 0 if it never ends."),
		Seat:         r.gauge("consensus_seat", "This node's seat in the committee, -1 for none."),
		HeadHeight:   r.gauge("consensus_head_height", "Height of the highest block this node judged valid."),
		FinalHeight:  r.gauge("consensus_final_height", "Height of the final tip."),
		FinalTime:    r.gauge("consensus_final_timestamp_seconds", "Unix time of the final tip, by its leader's clock."),
		FinalBlocks:  r.counter("consensus_final_blocks_total", "Blocks that became final."),
		Evidence:     r.counter("consensus_evidence_total", "Proofs that a validator signed a contradiction."),
		Misbehaviour: r.counters("consensus_misbehaviour_total", "Messages no correct validator sends, by reason.", "reason"),
		Dropped:      r.counters("consensus_dropped_total", "Messages that the engine dropped before the machine saw them, by reason.", "reason"),
		Finality:     r.histogram("consensus_finality_seconds", "Time from a block's proposal to its finality on this node.", longTimes),
		LogSync:      r.histograms("consensus_log_sync_seconds", "Time of one sync of a log: votes or blocks.", shortTimes, "log"),
	}
}

func newExecution(r *registrar) Execution {
	return Execution{
		Transactions: r.counters("execution_transactions_total", "Transactions in final blocks, by outcome: success or skipped.", "outcome"),
		Receipts:     r.counters("execution_receipts_total", "Receipts in final blocks: sent, credited, returned or treasury.", "event"),
		BodyBytes:    r.histogram("execution_body_bytes", "Size of the bodies of final blocks.", bodySizes),
		Seconds:      r.histograms("execution_step_seconds", "Time of one step on one block: build, certify or finalise.", shortTimes, "step"),
	}
}

func newState(r *registrar) State {
	return State{
		Accounts:    r.gauge("state_accounts", "Accounts of the shard."),
		Supply:      r.gauges("state_supply_units", "Where the shard's money is: balances, fees, deposits, treasury, inflow, outflow, genesis.", "part"),
		TableBytes:  r.gauge("state_table_bytes", "Memory of the account table and its hashes."),
		Memory:      r.gauges("state_memory_bytes", "What the memory is for, by kind.", "kind"),
		DiskBytes:   r.gauge("state_disk_bytes", "Size of the data folder."),
		Unfinalised: r.gauge("state_unfinalised_blocks", "Executed blocks that are not final yet."),
	}
}

func newStorage(r *registrar) Storage {
	return Storage{
		Written:        r.counters("storage_written_bytes_total", "Bytes given to the file system, by writer: engine_log, flush, compaction, load or block_log.", "writer"),
		ProcessWritten: r.counter("storage_process_written_bytes_total", "Bytes that the process caused to be written to disks, as the kernel counts them."),
		Stalls:         r.counter("storage_stalls_total", "Times that writes had to wait for the storage engine's flushes or compactions."),
		StallSeconds:   r.counter("storage_stall_seconds_total", "Time in which writes had to wait for the storage engine."),
		Compactions:    r.counter("storage_compactions_total", "Compactions of the storage engine that finished."),
		Debt:           r.gauge("storage_debt_bytes", "Bytes that the storage engine's compactions are behind."),
		Tables:         r.gauge("storage_table_bytes", "Bytes in the storage engine's tables."),
	}
}

func newVerify(r *registrar) Verify {
	return Verify{
		Signatures: r.counters("verify_signatures_total", "Transaction signatures checked, by result: valid or invalid.", "result"),
		CacheHits:  r.counter("verify_cache_hits_total", "Signatures whose verdict was known already."),
		QueueFull:  r.counter("verify_queue_full_total", "Calls that the full verification queue refused."),
		Waiting:    r.gauge("verify_waiting_signatures", "Signatures in the verification queue."),
		Batches:    r.counters("verify_batches_total", "Distilled batches that were judged, by result: checked (keys added up and signatures verified) or known (from an earlier check).", "result"),
	}
}

func newPool(r *registrar) Pool {
	return Pool{
		Transactions: r.gauge("pool_transactions", "Transactions in the pool."),
		Bytes:        r.gauge("pool_bytes", "Size of the transactions in the pool."),
		Admitted:     r.counter("pool_admitted_total", "Transactions that the pool took in."),
		Refused:      r.counters("pool_refused_total", "Transactions that the pool refused, by code.", "code"),
		Dropped:      r.counters("pool_dropped_total", "Transactions that left the pool without being final, by reason.", "reason"),
		Resent:       r.counter("pool_resent_total", "Transactions sent again to coming leaders."),
	}
}

func newBatches(r *registrar) Batches {
	return Batches{
		Held:      r.gauge("pool_batches", "Distilled batches that wait."),
		Transfers: r.gauge("pool_batched_transactions", "Transfers in the distilled batches that wait."),
		Bytes:     r.gauge("pool_batched_bytes", "Size of the distilled batches that wait."),
		Admitted:  r.counters("pool_batch_admitted_total", "Distilled batches that were taken in, and transfers in them, by unit.", "unit"),
		Refused:   r.counters("pool_batch_refused_total", "Distilled batches that were refused, by code.", "code"),
		Dropped:   r.counters("pool_batch_dropped_total", "Distilled batches that left, by reason: used (they are in a final block), expired, or dropped (blocks could not take them).", "reason"),
		Resent:    r.counter("pool_batch_resent_total", "Distilled batches sent again to coming leaders."),
	}
}

func newNet(r *registrar) Net {
	return Net{
		Peers:    r.gauge("net_peers", "Nodes connected to this one."),
		Messages: r.counters("net_messages_total", "Messages by direction and class.", "direction", "class"),
		Bytes:    r.counters("net_bytes_total", "Payload by direction and class.", "direction", "class"),
		Wire:     r.counters("net_wire_bytes_total", "Bytes on the connections with other nodes by direction, with framing and headers as in packets of 1,500 bytes.", "direction"),
		Dropped:  r.counters("net_dropped_total", "Messages dropped, by class and reason.", "class", "reason"),
	}
}

func newSync(r *registrar) Sync {
	return Sync{
		Active: r.gauge("sync_active", "1 while the node catches up, else 0."),
		Runs:   r.counter("sync_runs_total", "Times that the node had to catch up."),
		Blocks: r.counter("sync_blocks_total", "Blocks that came while catching up."),
	}
}

func newAPI(r *registrar) API {
	return API{
		Requests:     r.counters("api_requests_total", "HTTP requests by route and status.", "route", "status"),
		Seconds:      r.histograms("api_request_seconds", "Time to answer a request, by route; subscriptions are not in it.", shortTimes, "route"),
		InFlight:     r.gauge("api_in_flight_requests", "Requests in work, subscriptions not counted."),
		Refused:      r.counters("api_refused_total", "Requests refused, by code.", "code"),
		Transactions: r.counters("api_transactions_total", "Transactions submitted, by result: accepted or a code.", "result"),
		Subscribers:  r.gauge("api_subscribers", "Open subscriptions to final blocks."),
		Cut:          r.counters("api_cut_subscribers_total", "Subscriptions that the node ended, by code.", "code"),
	}
}

// Broker is what a broker of distilled batches has counted since its start, and what it has now.
type Broker struct {
	Submitted, Batches, Batched, Stragglers, Single, Again, Strikes, Excluded uint64
	Refused                                                                   map[string]uint64 // by code
	Connections, InWork                                                       int
}

// brokerMetrics are all but the refusals.
var brokerMetrics = []struct {
	name, help string
	kind       prometheus.ValueType
	of         func(*Broker) float64
}{
	{"broker_submitted_total", "Transfers that clients submitted.", prometheus.CounterValue, func(b *Broker) float64 { return float64(b.Submitted) }},
	{"broker_batches_total", "Batches that nodes took.", prometheus.CounterValue, func(b *Broker) float64 { return float64(b.Batches) }},
	{"broker_batched_total", "Transfers in batches that nodes took.", prometheus.CounterValue, func(b *Broker) float64 { return float64(b.Batched) }},
	{"broker_stragglers_total", "Transfers in those batches whose senders did not sign in time.", prometheus.CounterValue, func(b *Broker) float64 { return float64(b.Stragglers) }},
	{"broker_singles_total", "Transfers sent on with their own signatures.", prometheus.CounterValue, func(b *Broker) float64 { return float64(b.Single) }},
	{"broker_remade_batches_total", "Batches made again without a wrong signature.", prometheus.CounterValue, func(b *Broker) float64 { return float64(b.Again) }},
	{"broker_strikes_total", "Wrong signatures and shares.", prometheus.CounterValue, func(b *Broker) float64 { return float64(b.Strikes) }},
	{"broker_excluded_total", "Times that a sender was left out for a while, for transfers without effect.", prometheus.CounterValue, func(b *Broker) float64 { return float64(b.Excluded) }},
	{"broker_connections_active", "Connections of clients.", prometheus.GaugeValue, func(b *Broker) float64 { return float64(b.Connections) }},
	{"broker_waiting_transactions", "Transfers in work.", prometheus.GaugeValue, func(b *Broker) float64 { return float64(b.InWork) }},
}

// brokerCollector reads a broker at each scrape.
type brokerCollector struct {
	read    func() Broker
	descs   []*prometheus.Desc // of brokerMetrics
	refused *prometheus.Desc
}

// NewBroker registers the metrics of a broker, which read says at each scrape. version and commit are as for New.
func NewBroker(reg prometheus.Registerer, version, commit string, read func() Broker) error {
	r := &registrar{reg: reg}
	c := &brokerCollector{read: read, refused: prometheus.NewDesc(namespace+"_broker_refused_total", "Transfers refused, by code.", []string{"code"}, nil)}
	for _, m := range brokerMetrics {
		c.descs = append(c.descs, prometheus.NewDesc(namespace+"_"+m.name, m.help, nil, nil))
	}
	r.add(c)
	r.build(version, commit)
	return r.err()
}

// Describe implements prometheus.Collector.
func (c *brokerCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
	to <- c.refused
}

// Collect implements prometheus.Collector.
func (c *brokerCollector) Collect(to chan<- prometheus.Metric) {
	b := c.read()
	for i, m := range brokerMetrics {
		to <- prometheus.MustNewConstMetric(c.descs[i], m.kind, m.of(&b))
	}
	for code, n := range b.Refused {
		to <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(n), code)
	}
}

// registrar makes metrics under the prefix and registers them, collecting failures.
type registrar struct {
	reg    prometheus.Registerer
	failed []error
}

const namespace = "tutti"

// build says which build runs.
func (r *registrar) build(version, commit string) {
	r.gauges("build_info", "Always 1; the labels say which build runs.", "version", "commit").WithLabelValues(version, commit).Set(1)
}

func (r *registrar) err() error {
	if len(r.failed) == 0 {
		return nil
	}
	return fmt.Errorf("metrics: %w", errors.Join(r.failed...))
}

func (r *registrar) add(c prometheus.Collector) {
	if err := r.reg.Register(c); err != nil {
		r.failed = append(r.failed, err)
	}
}

func (r *registrar) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
	r.add(g)
	return g
}

func (r *registrar) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	r.add(g)
	return g
}

func (r *registrar) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	r.add(c)
	return c
}

func (r *registrar) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	r.add(c)
	return c
}

func (r *registrar) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
	r.add(h)
	return h
}

func (r *registrar) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
	r.add(h)
	return h
}
