// Package report is the result of a benchmark: the JSON form with schema tutti-bench/1, and the table for people.
//
// Fields and units are those of system.md section 5 and stay as they are; what is not there stands in `checks` and
// `details`. What was not or could not be measured is null; what a run did not use (brokers, distilled batches) is 0.
// The order of the fields is fixed, so that results can be compared line by line. A golden file holds all this.
package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tutti/appliance/host"
)

// Schema names the form.
const Schema = "tutti-bench/1"

// Report is one benchmark.
type Report struct {
	Schema            string   `json:"schema"`
	Commit            string   `json:"commit"`
	Machine           Machine  `json:"machine"`
	Scenario          Scenario `json:"scenario"`
	Result            Result   `json:"result"`
	Brokers           int      `json:"brokers"`
	BatchWindowMs     float64  `json:"batch_window_ms"`
	MeanBatch         float64  `json:"mean_batch"`
	DistilledMeasured float64  `json:"distilled_measured"` // share of finalised transactions that were in distilled batches
	ClientSigning     string   `json:"client_signing"`
	GeneratorCPUS     float64  `json:"generator_cpu_s"`  // of this process, in the measurement
	BlocksPerS        float64  `json:"blocks_per_s"`     // of each shard, mean
	AccountProofMs    *float64 `json:"account_proof_ms"` // median, from due to the verified proof of the payer's state after it
	Checks            []Check  `json:"checks"`

	Stretches []Stretch `json:"stretches,omitempty"` // of a run that went through several; the first is the one in Result
	Details   Details   `json:"details"`
	Evidence  *Evidence `json:"evidence,omitempty"` // nil: there is none, and nothing in the report can be checked
}

// Evidence is what `tutti bench verify` checks the figures against; package bench/replay has its form.
type Evidence struct {
	Format  string `json:"format"`
	Genesis string `json:"genesis"` // hash of the network's genesis, which is in Data: whose validators signed
	Data    []byte `json:"data"`    // base64 here
}

// Machine is where it ran.
type Machine struct {
	host.Machine
	ForeignCores float64 `json:"foreign_cores"` // mean use by other work in the measurement, 1.0 is one core
}

// Scenario is what was asked for.
type Scenario struct {
	Name            string  `json:"name"`
	Shards          int     `json:"shards"`
	Validators      int     `json:"validators"` // of each shard
	Accounts        uint64  `json:"accounts"`
	Workload        string  `json:"workload"`
	CrossShardShare float64 `json:"cross_shard_share"`
	InvalidShare    float64 `json:"invalid_share"`
	DistilledShare  float64 `json:"distilled_share"`
	Rate            float64 `json:"rate"` // transactions due a second; with --rate max the one that was found
	DurationS       float64 `json:"duration_s"`
	Link            string  `json:"link"`            // "loopback", "network", or the name of one that was put between namespaces, and what it is
	Burst           bool    `json:"burst,omitempty"` // each second's transactions were due within its first tenth
}

// Values of Scenario.Link and Report.ClientSigning.
const (
	Loopback = "loopback"
	Network  = "network"
	Online   = "online"        // signed in the run, just before sending
	Summed   = "summed-secret" // made before the measurement: a batch by one signature under the sum of a simulated crowd's keys
)

// Result is what came out. Counts are of the transactions that were due in the measurement.
type Result struct {
	Submitted                          uint64     `json:"submitted"`
	Finalised                          uint64     `json:"finalised"` // with success; between shards: credited
	Rejected                           uint64     `json:"rejected"`
	Lost                               uint64     `json:"lost"`
	TPS                                float64    `json:"tps"` // with success, verified by the client in the measurement
	FinalityMs                         Quantiles  `json:"finality_ms"`
	CrossShardMs                       *Quantiles `json:"cross_shard_finality_ms"` // of FinalityMs, the transfers between shards: to the credit
	CPUUsPerTxPerValidator             *float64   `json:"cpu_us_per_tx_per_validator"`
	BytesPerTxPerValidator             *float64   `json:"bytes_per_tx_per_validator"`          // payload sent to other validators
	ReceivedBytesPerTxPerValidator     *float64   `json:"received_bytes_per_tx_per_validator"` // payload from other validators
	WireSentBytesPerTxPerValidator     *float64   `json:"wire_sent_bytes_per_tx_per_validator"`
	WireReceivedBytesPerTxPerValidator *float64   `json:"wire_received_bytes_per_tx_per_validator"` // these two with framing and headers
	RSSMiBPerValidator                 *float64   `json:"rss_mib_per_validator"`                    // mean, at the end
	StateRootAgrees                    bool       `json:"state_root_agrees"`
	SupplyConserved                    bool       `json:"supply_conserved"`
}

// Quantiles are in milliseconds, from due to the verified proof.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// QuantilesOf reads a histogram of microseconds.
func QuantilesOf(h *hdrhistogram.Histogram) Quantiles {
	at := func(q float64) float64 { return Round(float64(h.ValueAtQuantile(q))/1000, 1) }
	return Quantiles{P50: at(50), P90: at(90), P99: at(99), Max: Round(float64(h.Max())/1000, 1)}
}

// Check is something that has to hold after every run.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Details are what one wants to know when a result surprises.
type Details struct {
	Seed             uint64            `json:"seed"`
	WarmUpS          float64           `json:"warm_up_s"`
	DrainS           float64           `json:"drain_s"`
	RejectedByCode   map[string]uint64 `json:"rejected_by_code"`
	RetriedByReason  map[string]uint64 `json:"retried_by_reason"`
	Returned         uint64            `json:"returned"` // receiver did not exist
	Expired          uint64            `json:"expired"`
	Unsent           uint64            `json:"unsent"`  // due, but no payer was free or too many waited
	Skipped          uint64            `json:"skipped"` // were in a block without effect; they may have succeeded later
	InvalidAccepted  uint64            `json:"invalid_accepted"`
	DiskSyncMs       *float64          `json:"disk_sync_ms"` // median sync of 4 KiB where the validators keep their data
	OwnCores         float64           `json:"own_cores"`    // used by this process and its validators
	StealCores       float64           `json:"steal_cores"`  // taken by the hypervisor
	Search           []Trial           `json:"search,omitempty"`
	TransactionsSeen uint64            `json:"transactions_seen"` // in all final blocks of the measurement, whoever sent them
	GeneratorUsPerTx float64           `json:"generator_cpu_us_per_tx"`
	Command          string            `json:"command,omitempty"`
	Latency          *Distribution     `json:"latency,omitempty"`
	Series           *Series           `json:"series,omitempty"`
	CPUByStage       []Stage           `json:"cpu_by_stage,omitempty"` // only where profiles were taken
	BrokerCPUS       float64           `json:"broker_cpu_s,omitempty"` // of the broker's process, in the measurement
}

// Trial is one rate that the search for the highest one tried.
type Trial struct {
	Rate  float64 `json:"rate"`
	TPS   float64 `json:"tps"`
	P99Ms float64 `json:"p99_ms"`
	OK    bool    `json:"ok"`
	Why   string  `json:"why,omitempty"` // it was not
}

// Failed is the names of the checks that do not hold.
func (r *Report) Failed() (names []string) {
	for _, c := range r.Checks {
		if !c.OK {
			names = append(names, c.Name)
		}
	}
	return names
}

// Round keeps so many decimals. What is not a number becomes 0.
func Round(v float64, decimals int) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	p := math.Pow(10, float64(decimals))
	return math.Round(v*p) / p
}

// numbers is a list of numbers and nulls, which stands on one line.
var numbers = regexp.MustCompile(`\[\n(\s+(-?[0-9][0-9.eE+-]*|null),?\n)+\s*\]`)

// maxJSON bounds a report that is read: about a day of seconds.
const maxJSON = 64 << 20

// Read reads a report that WriteJSON wrote.
func Read(r io.Reader) (*Report, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxJSON+1))
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if len(b) > maxJSON {
		return nil, fmt.Errorf("report: more than %d bytes", maxJSON)
	}
	out := &Report{}
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("report: not a result of tutti bench --json: %w", err)
	}
	if out.Schema != Schema {
		return nil, fmt.Errorf("report: schema %q, want %q", out.Schema, Schema)
	}
	return out, out.check()
}

// check says whether columns fit together, as those who draw them rely on.
func (r *Report) check() error {
	if s := r.Details.Series; s != nil {
		for _, column := range [][]Value{s.Submitted, s.Finalised, s.Refused, s.P50Ms, s.P99Ms, s.CPUCores, s.RSSMiB, s.UnderWay} {
			if len(column) != len(s.AtS) {
				return fmt.Errorf("report: series of %d and %d rows", len(column), len(s.AtS))
			}
		}
		if len(s.StretchAt) > 0 && len(s.StretchAt) != len(s.Stretches)+1 {
			return fmt.Errorf("report: %d stretches with %d ends", len(s.Stretches), len(s.StretchAt))
		}
	}
	if d := r.Details.Latency; d != nil && len(d.UpToMs) != len(d.Count) {
		return fmt.Errorf("report: a distribution of %d and %d bins", len(d.UpToMs), len(d.Count))
	}
	return nil
}

// WriteJSON writes the report as one indented JSON value, a list of numbers on one line.
func (r *Report) WriteJSON(w io.Writer) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	b = numbers.ReplaceAllFunc(b, func(list []byte) []byte { return bytes.Join(bytes.Fields(list), nil) })
	if _, err := w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	s, x, d := &r.Scenario, &r.Result, &r.Details
	rows := [][2]string{
		{"scenario", s.String()},
		{"finalised", fmt.Sprintf("%s tx/s: %s of %s submitted, %s rejected, %s lost", Number(x.TPS), Number(float64(x.Finalised)), Number(float64(x.Submitted)), Number(float64(x.Rejected)), Number(float64(x.Lost)))},
		{"finality", fmt.Sprintf("p50 %.0f ms, p90 %.0f ms, p99 %.0f ms, at most %.0f ms, from due to verified proof", x.FinalityMs.P50, x.FinalityMs.P90, x.FinalityMs.P99, x.FinalityMs.Max)},
		{"between shards", between(x.CrossShardMs)},
		{"account proof", optional(r.AccountProofMs, "median %s ms", 1)},
		{"blocks", fmt.Sprintf("%.2f a second in each shard", r.BlocksPerS)},
		{"CPU", optional(x.CPUUsPerTxPerValidator, "%s µs for each transaction and validator", 1)},
		{"network", both("%s bytes of payload sent, %s received for each transaction and validator", x.BytesPerTxPerValidator, x.ReceivedBytesPerTxPerValidator)},
		{"on the wire", both("%s bytes sent, %s received for each transaction and validator, headers included", x.WireSentBytesPerTxPerValidator, x.WireReceivedBytesPerTxPerValidator)},
		{"memory", optional(x.RSSMiBPerValidator, "%s MiB for each validator", 0)},
		{"generator", fmt.Sprintf("%.2f CPU-seconds, %.1f µs for each transaction, signing %s", r.GeneratorCPUS, d.GeneratorUsPerTx, r.ClientSigning)},
		{"machine", fmt.Sprintf("%s, %d cores: %.2f used by the run, %.2f by other work, %.2f stolen", r.Machine.CPU, r.Machine.Cores, d.OwnCores, r.Machine.ForeignCores, d.StealCores)},
		{"disk", optional(d.DiskSyncMs, "median sync %s ms", 2)},
	}
	if r.Brokers > 0 {
		rows = append(rows, [2]string{"broker", fmt.Sprintf("%.2f CPU-seconds, %.0f transfers in a batch, %.1f %% of all that were finalised", d.BrokerCPUS, r.MeanBatch, 100*r.DistilledMeasured)})
	}
	for _, extra := range []struct {
		name string
		text string
	}{
		{"rejected", Counts(d.RejectedByCode)},
		{"sent again", Counts(d.RetriedByReason)},
		{"not sent", count(d.Unsent)},
		{"expired", count(d.Expired)},
		{"returned", count(d.Returned)},
		{"skipped", count(d.Skipped)},
	} {
		if extra.text != "" {
			rows = append(rows, [2]string{extra.name, extra.text})
		}
	}
	for _, s := range r.Stretches {
		rows = append(rows, [2]string{"stretch", s.line()})
	}
	for _, s := range d.CPUByStage {
		rows = append(rows, [2]string{"CPU", fmt.Sprintf("%4.1f %% %s", s.Percent, s.Name)})
	}
	for _, c := range r.Checks {
		verdict := "ok    "
		if !c.OK {
			verdict = "FAILED"
		}
		rows = append(rows, [2]string{"check", verdict + "  " + c.Name + ": " + c.Detail})
	}
	for _, row := range rows {
		if row[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-14s  %s\n", row[0], row[1]); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}

// String is the scenario in a line.
func (s Scenario) String() string {
	text := fmt.Sprintf("%s, %d × %d validators, %s accounts, %s tx/s for %g s over %s", s.Workload, s.Shards, s.Validators,
		Number(float64(s.Accounts)), Number(s.Rate), s.DurationS, s.Link)
	if s.CrossShardShare > 0 {
		text += fmt.Sprintf(", %g %% between shards", Round(100*s.CrossShardShare, 2))
	}
	if s.InvalidShare > 0 {
		text += fmt.Sprintf(", %g %% invalid", Round(100*s.InvalidShare, 2))
	}
	if s.Burst {
		text += ", in a tenth of each second"
	}
	return text
}

// line is one stretch for people.
func (s *Stretch) line() string {
	text := fmt.Sprintf("%-8s  %s tx/s offered", s.Name, Number(s.Rate))
	if s.InvalidShare > 0 {
		text += fmt.Sprintf(", %g %% invalid", Round(100*s.InvalidShare, 2))
	}
	text += fmt.Sprintf(" for %g s: %s tx/s finalised, p50 %.0f ms, p99 %.0f ms", s.DurationS, Number(s.TPS), s.FinalityMs.P50, s.FinalityMs.P99)
	if s.PeakRSSMiB != nil {
		text += fmt.Sprintf(", at most %.0f MiB", *s.PeakRSSMiB)
	}
	if codes := Counts(s.Rejected); codes != "" {
		text += ", refused " + codes
	}
	if s.Unsent > 0 {
		text += fmt.Sprintf(", %s not sent", Number(float64(s.Unsent)))
	}
	return text
}

func between(q *Quantiles) string {
	if q == nil {
		return ""
	}
	return fmt.Sprintf("p50 %.0f ms, p90 %.0f ms, p99 %.0f ms, at most %.0f ms, to the finalised credit", q.P50, q.P90, q.P99, q.Max)
}

func optional(v *float64, format string, decimals int) string {
	if v == nil {
		return "not measured"
	}
	return fmt.Sprintf(format, strconv.FormatFloat(*v, 'f', decimals, 64))
}

// both writes two whole numbers that were measured together.
func both(format string, a, b *float64) string {
	if a == nil || b == nil {
		return "not measured"
	}
	return fmt.Sprintf(format, strconv.FormatFloat(*a, 'f', 0, 64), strconv.FormatFloat(*b, 'f', 0, 64))
}

func count(n uint64) string {
	if n == 0 {
		return ""
	}
	return Number(float64(n))
}

// Counts lists counts by name, in the names' order.
func Counts(m map[string]uint64) string {
	names := make([]string, 0, len(m))
	for name, n := range m {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = Number(float64(m[name])) + " " + name
	}
	return strings.Join(names, ", ")
}

// Number writes a whole number with a comma between groups of three digits.
func Number(v float64) string {
	text := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
