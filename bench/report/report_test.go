package report

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/go-cmp/cmp"

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
			CPUUsPerTxPerValidator: ptr(41.7), BytesPerTxPerValidator: ptr(512), ReceivedBytesPerTxPerValidator: ptr(498),
			WireSentBytesPerTxPerValidator: ptr(580.4), WireReceivedBytesPerTxPerValidator: ptr(577.9), RSSMiBPerValidator: ptr(230.4),
			StateRootAgrees: true, SupplyConserved: true,
		},
		ClientSigning: Online, GeneratorCPUS: 4.63, BlocksPerS: 4.87, AccountProofMs: ptr(733.5),
		Checks: []Check{
			{Name: "state_root_agrees", OK: true, Detail: "8 validators at height 160"},
			{Name: "none_lost", OK: false, Detail: "3 transactions"},
		},
		Details: Details{
			Seed: 1, WarmUpS: 5, DrainS: 0.7, RejectedByCode: map[string]uint64{"wrong_signature": 2400},
			RetriedByReason: map[string]uint64{"busy": 1200, "unreachable": 7}, Skipped: 2, DiskSyncMs: ptr(0.42), OwnCores: 1.91,
			Search: []Trial{{Rate: 4000, TPS: 4000, P99Ms: 410, OK: true}, {Rate: 16000, TPS: 9100, P99Ms: 5200, Why: "p99 over 1 s"}}, TransactionsSeen: 237_611, GeneratorUsPerTx: 19.3,
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
