package report

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Value is a number, or null where nothing was measured: NaN in Go.
type Value float64

// None is the Value that stands for no measurement.
var None = Value(math.NaN())

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) {
	if f := float64(v); !math.IsNaN(f) && !math.IsInf(f, 0) {
		return strconv.AppendFloat(nil, f, 'f', -1, 64), nil
	}
	return []byte("null"), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Value) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		*v = None
		return nil
	}
	return json.Unmarshal(b, (*float64)(v))
}

// Series is a run over time: columns of one length, a row for about every second.
type Series struct {
	AtS       []Value  `json:"at_s"`      // end of the row's interval, from the beginning of the measurement; below 0: warm-up
	Submitted []Value  `json:"submitted"` // a second, as are the next two
	Finalised []Value  `json:"finalised"`
	Refused   []Value  `json:"refused"` // answers of nodes that refused a transaction, for good or for now
	P50Ms     []Value  `json:"p50_ms"`  // of what became final in the interval, from when it was due
	P99Ms     []Value  `json:"p99_ms"`
	CPUCores  []Value  `json:"cpu_cores"`  // of all validators together
	RSSMiB    []Value  `json:"rss_mib"`    // of the validator that has most
	UnderWay  []Value  `json:"under_way"`  // sent, not settled
	StretchAt []Value  `json:"stretch_at"` // where stretches begin, seconds; the last is the end of the load
	Stretches []string `json:"stretch_of"` // their names
}

// Distribution is a histogram of latencies in bins that are 5 % wide, those without any left out.
type Distribution struct {
	UpToMs []Value  `json:"up_to_ms"` // upper bounds, ascending
	Count  []uint64 `json:"count"`
}

// binWidth is by how much a bin's upper bound is above that of the one before.
const binWidth = 1.05

// DistributionOf puts a histogram of microseconds into bins.
func DistributionOf(h *hdrhistogram.Histogram) *Distribution {
	d := &Distribution{}
	last := math.MinInt
	for _, b := range h.Distribution() {
		if b.Count == 0 {
			continue
		}
		bin := int(math.Ceil(math.Log(math.Max(float64(b.To)/1000, 1)) / math.Log(binWidth)))
		if bin != last {
			d.UpToMs, d.Count = append(d.UpToMs, Value(Round(math.Pow(binWidth, float64(bin)), 2))), append(d.Count, 0)
			last = bin
		}
		d.Count[len(d.Count)-1] += uint64(b.Count)
	}
	return d
}

// Stretch is a part of a run that went through several, without a pause between them.
type Stretch struct {
	Name         string            `json:"name"`
	Rate         float64           `json:"rate"` // offered
	DurationS    float64           `json:"duration_s"`
	InvalidShare float64           `json:"invalid_share"`
	Due          uint64            `json:"due"`
	Finalised    uint64            `json:"finalised"`
	Unsent       uint64            `json:"unsent"`
	Rejected     map[string]uint64 `json:"rejected_by_code"`
	Retried      map[string]uint64 `json:"retried_by_reason"`
	TPS          float64           `json:"tps"`
	FinalityMs   Quantiles         `json:"finality_ms"`
	InTime       []Value           `json:"in_time"`      // by second, the share of what was due in it that was final within a second
	PeakRSSMiB   *float64          `json:"peak_rss_mib"` // of the validator that had most
}

// Stage is the CPU that validators spent on one thing, in their whole life: start and checks as well.
type Stage struct {
	Name    string  `json:"name"`
	CPUS    float64 `json:"cpu_s"`
	Percent float64 `json:"percent"`
}
