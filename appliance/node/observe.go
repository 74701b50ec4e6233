package node

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tutti/appliance/api"
	"tutti/consensus"
	"tutti/netstack"
	"tutti/state/ledger"
	"tutti/state/pool"
	"tutti/state/tx"
)

// finalState shows the final state to the pool.
type finalState struct{ ledger *ledger.Ledger }

// Accounts implements pool.State.
func (s finalState) Accounts(ids []tx.ID, found []pool.Account) {
	clear(found)
	s.ledger.Accounts(ids, func(i int, r ledger.Record) {
		found[i] = pool.Account{Exists: true, Key: r.Key, Generation: r.Generation, Balance: r.Balance, Nonce: r.Nonce}
	})
}

// observer turns events into metrics and log lines: it implements engine.Observer and appObserver.
type observer struct{ n *Node }

func (o observer) step(name string, took time.Duration) {
	o.n.metrics.Execution.Seconds.WithLabelValues(name).Observe(took.Seconds())
}

func (o observer) final(parent, h *consensus.Header, executed *ledger.Executed) {
	m := o.n.metrics.Execution
	m.BodyBytes.Observe(float64(h.Body.Length))
	o.n.finalTxs.Add(uint64(len(executed.Outcomes)))
	succeeded := 0
	for _, ok := range executed.Outcomes {
		if ok {
			succeeded++
		}
	}
	m.Transactions.WithLabelValues("success").Add(float64(succeeded))
	m.Transactions.WithLabelValues("skipped").Add(float64(len(executed.Outcomes) - succeeded))
	var credits [tx.Treasury + 1]int
	for _, c := range executed.Credits {
		credits[c]++
	}
	for c := tx.Credited; c <= tx.Treasury; c++ {
		m.Receipts.WithLabelValues(c.String()).Add(float64(credits[c]))
	}
	if parent == nil && h.Height > 1 {
		return // how many were sent before is not known
	}
	for i, l := range h.Links {
		sent := l.Sent
		if parent != nil {
			sent -= parent.Links[i].Sent
		}
		m.Receipts.WithLabelValues("sent").Add(float64(sent))
	}
}

func (o observer) ViewEntered(view consensus.View, _ int) {
	o.n.metrics.Consensus.View.Set(float64(view))
}

func (o observer) Persisted(took time.Duration) {
	o.n.metrics.Consensus.LogSync.WithLabelValues("all").Observe(took.Seconds())
}

func (o observer) Judged(h *consensus.Header, valid bool, took time.Duration) {
	o.step("certify", took)
	if !valid {
		o.n.log.Warn("a block is invalid", "height", h.Height, "view", h.View, "block", h.Hash().Short(), "reason", o.n.app.lastReason())
	}
}

func (o observer) Finalised(h *consensus.Header, _ consensus.Certificate) {
	c := o.n.metrics.Consensus
	c.FinalBlocks.Inc()
	c.FinalHeight.Set(float64(h.Height))
	c.FinalTime.Set(float64(h.TimeMs) / 1000)
	c.Finality.Observe(time.Since(time.UnixMilli(h.TimeMs)).Seconds())
}

func (o observer) Penalised(validator int, reason string, until time.Time) {
	o.n.metrics.Consensus.Misbehaviour.WithLabelValues("protocol").Inc()
	o.n.log.Warn("a validator sent what no correct one sends", "validator", validator, "reason", reason, "until", until)
}

// sampled is what was read at the scrape before, so that snapshots become counters.
type sampled struct {
	mu       sync.Mutex // one scrape at a time
	counters map[string]float64
}

// raise brings a counter up to a snapshot's value.
func (s *sampled) raise(name string, c prometheus.Counter, value float64) {
	if before := s.counters[name]; value > before {
		c.Add(value - before)
		s.counters[name] = value
	}
}

// showZeros makes counters visible that nothing has counted yet and perhaps nothing ever will.
func (n *Node) showZeros() {
	for _, reason := range []string{"protocol", "transactions"} {
		n.metrics.Consensus.Misbehaviour.WithLabelValues(reason)
	}
	for _, code := range []api.Code{api.SlowSubscriber, api.ShuttingDown} {
		n.metrics.API.Cut.WithLabelValues(string(code))
	}
}

// scraper reads the parts' snapshots into the metrics whenever they are asked for.
func (n *Node) scraper(next http.Handler) http.Handler {
	n.showZeros()
	n.sampled.counters = map[string]float64{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.sampled.mu.Lock()
		n.sampleEngine()
		n.sampleState()
		n.samplePool()
		n.sampleNet()
		n.sampled.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

func (n *Node) sampleEngine() {
	at := n.now()
	m, e, raise := n.metrics, at.engine.Status(), n.sampled.raise
	epoch := n.epochStatus(at)
	m.Consensus.Epoch.Set(float64(epoch.Number))
	m.Consensus.Seat.Set(float64(at.index))
	if epoch.Left != nil {
		m.Consensus.EpochLeft.Set(float64(*epoch.Left))
	}
	m.Consensus.HeadHeight.Set(float64(e.Height))
	if e.Final != nil {
		m.Consensus.FinalHeight.Set(float64(e.Final.Height))
		m.Consensus.FinalTime.Set(float64(e.Final.TimeMs) / 1000)
	}
	for reason, v := range map[string]uint64{
		"stranger": e.Counters.DroppedStranger, "penalty": e.Counters.DroppedPenalty, "rate": e.Counters.DroppedRate,
		"malformed": e.Counters.DroppedMalformed, "clock": e.Counters.DroppedClock, "fetch": e.Counters.DroppedFetch,
	} {
		raise("consensus "+reason, m.Consensus.Dropped.WithLabelValues(reason), float64(v))
	}
	raise("receipts", m.Consensus.Misbehaviour.WithLabelValues("receipts"), float64(n.cross.refusals()))
	m.Sync.Active.Set(0)
	if e.Syncing {
		m.Sync.Active.Set(1)
	}
	raise("sync runs", m.Sync.Runs, float64(e.Counters.Syncs))
	raise("sync blocks", m.Sync.Blocks, float64(e.Counters.SyncedBlocks))
}

func (n *Node) sampleState() {
	m, s := n.metrics, backend{n}.Status().Supply
	for part, v := range map[string]uint64{
		"balances": s.Balances, "fees": s.Fees, "deposits": s.Deposits, "treasury": s.Treasury,
		"inflow": s.Inflow, "outflow": s.Outflow, "genesis": s.Genesis,
	} {
		m.State.Supply.WithLabelValues(part).Set(float64(v))
	}
	stats := n.ledger.Stats()
	m.State.Accounts.Set(float64(stats.Accounts))
	m.State.TableBytes.Set(float64(stats.TableBytes))
	m.State.DiskBytes.Set(n.disk.get() * (1 << 20))
	m.State.Unfinalised.Set(float64(stats.Unfinalised))
	for _, k := range n.memoryKinds(stats) {
		m.State.Memory.WithLabelValues(k.Kind).Set(float64(k.Bytes))
	}
	n.sampleStorage()
}

func (n *Node) sampleStorage() {
	m, raise := n.metrics.Storage, n.sampled.raise
	raise("log written", m.Written.WithLabelValues("block_log"), float64(n.logWritten.Load()))
	raise("process written", m.ProcessWritten, float64(processWritten()))
	s, err := n.ledger.Storage()
	if err != nil {
		return // closed
	}
	for by, v := range map[string]uint64{"engine_log": s.LogBytes, "flush": s.FlushBytes, "compaction": s.CompactBytes, "load": s.LoadBytes} {
		raise("written "+by, m.Written.WithLabelValues(by), float64(v))
	}
	raise("stalls", m.Stalls, float64(s.Stalls))
	raise("stall time", m.StallSeconds, s.StallTime.Seconds())
	raise("compactions", m.Compactions, float64(s.Compactions))
	m.Debt.Set(float64(s.DebtBytes))
	m.Tables.Set(float64(s.TableBytes))
}

func (n *Node) samplePool() {
	m, c, raise := n.metrics, n.pool.Counters(), n.sampled.raise
	m.Pool.Transactions.Set(float64(c.Txs))
	m.Pool.Bytes.Set(float64(c.Bytes))
	raise("pool admitted", m.Pool.Admitted, float64(c.Added))
	raise("pool resent", m.Pool.Resent, float64(c.Resent))
	for reason, v := range map[string]uint64{
		"replaced": c.Replaced, "evicted": c.Evicted, "used": c.Used, "expired": c.Expired, "unaffordable": c.Unaffordable,
	} {
		raise("pool "+reason, m.Pool.Dropped.WithLabelValues(reason), float64(v))
	}
	for _, code := range pool.Codes() {
		raise("pool refused "+string(code), m.Pool.Refused.WithLabelValues(string(code)), float64(c.Rejected[code]))
	}
	n.sampleBatches()
	v, q := n.verifier.Counters(), n.queue.Counters()
	raise("verify hits", m.Verify.CacheHits, float64(v.Hits))
	raise("verify full", m.Verify.QueueFull, float64(q.Full+q.OverShare))
	raise("verify valid", m.Verify.Signatures.WithLabelValues("valid"), float64(q.Valid))
	raise("verify invalid", m.Verify.Signatures.WithLabelValues("invalid"), float64(q.Invalid))
	s := n.ledger.Stats()
	raise("verify batches checked", m.Verify.Batches.WithLabelValues("checked"), float64(s.BatchesChecked))
	raise("verify batches known", m.Verify.Batches.WithLabelValues("known"), float64(s.BatchesKnown))
	m.Verify.Waiting.Set(float64(q.Waiting))
}

func (n *Node) sampleBatches() {
	m, c, raise := n.metrics.Batches, n.batches.Counters(), n.sampled.raise
	m.Held.Set(float64(c.Batches))
	m.Transfers.Set(float64(c.Transfers))
	m.Bytes.Set(float64(c.Bytes))
	raise("batches admitted", m.Admitted.WithLabelValues("batches"), float64(c.Added))
	raise("batched admitted", m.Admitted.WithLabelValues("transfers"), float64(c.AddedTransfers))
	raise("batches resent", m.Resent, float64(c.Resent))
	for reason, v := range map[string]uint64{"used": c.Used, "expired": c.Expired, "dropped": c.Dropped} {
		raise("batches "+reason, m.Dropped.WithLabelValues(reason), float64(v))
	}
	for _, code := range pool.Codes() {
		raise("batches refused "+string(code), m.Refused.WithLabelValues(string(code)), float64(c.Rejected[code]))
	}
}

func (n *Node) sampleNet() {
	m, c, raise := n.metrics.Net, n.transport.Counters(), n.sampled.raise
	connected := 0
	for _, p := range n.transport.Peers() {
		if p.Connected {
			connected++
		}
	}
	m.Peers.Set(float64(connected))
	for class := range netstack.Class(netstack.Classes) {
		name := class.String()
		raise("sent "+name, m.Messages.WithLabelValues("sent", name), float64(c.SentMessages[class]))
		raise("received "+name, m.Messages.WithLabelValues("received", name), float64(c.ReceivedMessages[class]))
		raise("sent bytes "+name, m.Bytes.WithLabelValues("sent", name), float64(c.SentBytes[class]))
		raise("received bytes "+name, m.Bytes.WithLabelValues("received", name), float64(c.ReceivedBytes[class]))
		raise("send full "+name, m.Dropped.WithLabelValues(name, "send_full"), float64(c.DroppedSendFull[class]))
		raise("send stale "+name, m.Dropped.WithLabelValues(name, "send_stale"), float64(c.DroppedSendStale[class]))
		raise("receive full "+name, m.Dropped.WithLabelValues(name, "receive_full"), float64(c.DroppedReceiveFull[class]))
	}
	raise("wire sent", m.Wire.WithLabelValues("sent"), float64(c.WireSent))
	raise("wire received", m.Wire.WithLabelValues("received"), float64(c.WireReceived))
	raise("sent gossip", m.Messages.WithLabelValues("sent", "gossip"), float64(c.GossipPublished))
	raise("received gossip", m.Messages.WithLabelValues("received", "gossip"), float64(c.GossipReceived))
	raise("gossip invalid", m.Dropped.WithLabelValues("gossip", "invalid"), float64(c.GossipInvalid))
	raise("gossip ignored", m.Dropped.WithLabelValues("gossip", "ignored"), float64(c.GossipIgnored))
	raise("gossip full", m.Dropped.WithLabelValues("gossip", "receive_full"), float64(c.GossipDroppedFull))
	raise("requests", m.Messages.WithLabelValues("received", "request"), float64(c.RequestsServed+c.RequestsRefused))
	raise("requests refused", m.Dropped.WithLabelValues("request", "refused"), float64(c.RequestsRefused))
	raise("too large", m.Dropped.WithLabelValues("any", "too_large"), float64(c.RefusedTooLarge))
	raise("unknown peer", m.Dropped.WithLabelValues("any", "unknown_peer"), float64(c.RefusedUnknownPeer))
	raise("rate", m.Dropped.WithLabelValues("any", "rate"), float64(c.RefusedRate))
}
