package report

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tutti/appliance/host"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func ptr(v float64) *float64 { return &v }

func full() *Report {
	return &Report{
		Schema: Schema, Commit: "0123456789ab",
		Machine: Machine{
			Machine:      host.Machine{CPU: "Testium 9000", Cores: 2, Features: []string{"avx2", "sha"}, Memory: 24 << 30, Kernel: "Linux 6.12"},
			ForeignCores: 0.04,
		},
		Scenario: Scenario{
			Name: "uniform-2x4", Shards: 2, Validators: 4, Accounts: 100_000, Workload: "uniform", CrossShardShare: 0.2,
			InvalidShare: 0.01, Rate: 8000, DurationS: 30, Link: Loopback,
		},
		Result: Result{
			Submitted: 240_000, Finalised: 237_600, Rejected: 2400, TPS: 7920.5, FinalityMs: Quantiles{P50: 312.2, P90: 401, P99: 523.9, Max: 700.1},
			CrossShardMs:           &Quantiles{P50: 500, P90: 600, P99: 700, Max: 700.1},
			CPUUsPerTxPerValidator: ptr(41.7), BytesPerTxPerValidator: ptr(512), ReceivedBytesPerTxPerValidator: ptr(498),
			WireSentBytesPerTxPerValidator: ptr(580.4), WireReceivedBytesPerTxPerValidator: ptr(577.9), RSSMiBPerValidator: ptr(230.4),
			StateRootAgrees: true, SupplyConserved: true,
		},
		ClientSigning: Online, GeneratorCPUS: 4.63, BlocksPerS: 4.87, AccountProofMs: ptr(733.5),
		Stretches: []Stretch{
			{Name: "limit", Rate: 8000, DurationS: 30, Due: 240_000, Finalised: 240_000, TPS: 7990, FinalityMs: Quantiles{300, 400, 500, 600}, InTime: []Value{1, 0.995}},
			{
				Name: "overload", Rate: 24_000, DurationS: 30, InvalidShare: 0.1, Due: 720_000, Finalised: 230_000, Unsent: 8, Rejected: map[string]uint64{"pool_full": 490_000},
				TPS: 7700, FinalityMs: Quantiles{500, 700, 900, 1000}, InTime: []Value{0.4, None}, PeakRSSMiB: ptr(300),
			},
		},
		Checks: []Check{
			{Name: "state_root_agrees", OK: true, Detail: "8 validators at height 160"},
			{Name: "none_lost", OK: false, Detail: "3 transactions"},
		},
		Details: Details{
			Seed: 1, WarmUpS: 5, DrainS: 0.7, RejectedByCode: map[string]uint64{"wrong_signature": 2400},
			RetriedByReason: map[string]uint64{"busy": 1200, "unreachable": 7}, Skipped: 2, DiskSyncMs: ptr(0.42), OwnCores: 1.91,
			Search: []Trial{{Rate: 4000, TPS: 4000, P99Ms: 410, OK: true}, {Rate: 16000, TPS: 9100, P99Ms: 5200, Why: "p99 over 1 s"}}, TransactionsSeen: 237_611, GeneratorUsPerTx: 19.3,
			Command: "tutti bench --shards 2", Latency: &Distribution{UpToMs: []Value{294.1, 308.8}, Count: []uint64{7, 3}},
			Series: &Series{
				AtS: []Value{-0.5, 0.5}, Submitted: []Value{8000, 7999.5}, Finalised: []Value{6000, 8000}, Refused: []Value{0, 12}, P50Ms: []Value{None, 300},
				P99Ms: []Value{None, 500.5}, CPUCores: []Value{1.2, None}, RSSMiB: []Value{200, 210.5}, UnderWay: []Value{2000, 2100},
				StretchAt: []Value{0, 30, 60}, Stretches: []string{"limit", "overload"},
			},
			CPUByStage: []Stage{{"check signatures", 12.5, 62.5}, {"network", 7.5, 37.5}},
		},
	}
}

func TestGolden(t *testing.T) {
	bare := &Report{Schema: Schema, ClientSigning: Online, Scenario: Scenario{Workload: "zipf", Shards: 1, Validators: 1, Link: Network}}
	for name, r := range map[string]*Report{"full": full(), "bare": bare} {
		for ext, write := range map[string]func(*bytes.Buffer) error{
			".json": func(b *bytes.Buffer) error { return r.WriteJSON(b) },
			".txt":  func(b *bytes.Buffer) error { return r.WriteTable(b) },
		} {
			t.Run(name+ext, func(t *testing.T) {
				var got bytes.Buffer
				if err := write(&got); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join("testdata", name+ext)
				if *update {
					if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), got.String()); d != "" {
					t.Errorf("rewrite with -update only on purpose:\n%s", d)
				}
			})
		}
	}
}

func TestFailed(t *testing.T) {
	if d := cmp.Diff([]string{"none_lost"}, full().Failed()); d != "" {
		t.Error(d)
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999.6: "1,000", 12: "12", -1234: "-1,234", -123: "-123", 1234567: "1,234,567"} {
		if got := Number(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
	h := hdrhistogram.New(1, 1_000_000, 3)
	for i := range int64(100) {
		if err := h.RecordValue((i + 1) * 1000); err != nil {
			t.Fatal(err)
		}
	}
	if q := QuantilesOf(h); q.P50 != 50 || q.P90 != 90 || q.P99 != 99 || q.Max != 100.1 && q.Max != 100 {
		t.Errorf("%+v", q)
	}
	if q := QuantilesOf(hdrhistogram.New(1, 1000, 3)); q != (Quantiles{}) {
		t.Errorf("of nothing: %+v", q)
	}
	if Round(1/zero, 1) != 0 {
		t.Error("infinity in a report")
	}
}

var zero float64

type full404 struct{}

func (full404) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteFails(t *testing.T) {
	if full().WriteJSON(full404{}) == nil || full().WriteTable(full404{}) == nil {
		t.Error("a failed write is not reported")
	}
}

// TestRead reads what was written, and refuses what does not fit together.
func TestRead(t *testing.T) {
	var b bytes.Buffer
	if err := full().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	got, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	same := cmp.Comparer(func(a, b Value) bool { return a == b || math.IsNaN(float64(a)) && math.IsNaN(float64(b)) })
	if d := cmp.Diff(full(), got, same, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	for what, change := range map[string][2]string{
		"schema":          {"tutti-bench/1", "tutti-bench/0"},
		"rows":            {`"refused": [0,12]`, `"refused": [0]`},
		"ends":            {`"stretch_at": [0,30,60]`, `"stretch_at": [0]`},
		"bins":            {`"count": [7,3]`, `"count": [7]`},
		"not a result of": {`"schema"`, `schema`},
	} {
		if _, err := Read(strings.NewReader(strings.Replace(text, change[0], change[1], 1))); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := full().WriteJSON(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := Read(bytes.NewReader(b)); err == nil {
			if err := r.WriteJSON(io.Discard); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestDistribution(t *testing.T) {
	h := hdrhistogram.New(1, 1_000_000_000, 3)
	for _, us := range []int64{200, 100_000, 101_000, 400_000} {
		if err := h.RecordValue(us); err != nil {
			t.Fatal(err)
		}
	}
	d := DistributionOf(h)
	if want := (&Distribution{UpToMs: []Value{1, 103.03, 403.91}, Count: []uint64{1, 2, 1}}); !cmp.Equal(want, d) {
		t.Error(cmp.Diff(want, d))
	}
}
