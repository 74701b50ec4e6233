package peers

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs a test on a clock of its own, so that a busy machine changes nothing.
func inBubble(t *testing.T, name string, f func(*testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// TestTrial measures the toy: latency is from due to block, and what the toy refuses, forgets or is too slow for spoils the
// trial with its reason.
func TestTrial(t *testing.T) {
	const rate = 1000
	for _, tc := range []struct {
		name string
		toy  toy
		why  string
	}{
		{"held", toy{every: 5 * time.Millisecond, perBlk: 1e6}, ""},
		{"refused", toy{every: 5 * time.Millisecond, perBlk: 1e6, refuse: true}, "60 refused: the toy is full"},
		{"forgotten", toy{every: 5 * time.Millisecond, perBlk: 1e6, forget: true}, "60 not committed"},
		{"too slow", toy{every: 10 * time.Millisecond, perBlk: 5}, "not committed"},
	} {
		inBubble(t, tc.name, func(t *testing.T) {
			trials := of(t)
			f, err := Open(&tc.toy, trials).Trial(t.Context(), rate)
			if err != nil {
				t.Fatal(err)
			}
			if f.Held() != (tc.why == "") || !strings.Contains(f.Why, tc.why) {
				t.Errorf("verdict %q, want %q", f.Why, tc.why)
			}
			if f.Rate != rate || f.P50 > f.P90 || f.P90 > f.P99 || f.P99 > f.Max {
				t.Errorf("figures %+v", f)
			}
			if tc.why == "" && (f.TPS < 0.97*rate || f.TPS > 1.03*rate || f.P50 < 2 || f.P99 > 16 || f.BlocksPerS == 0 || f.RSSMiB == 0) {
				t.Errorf("figures %+v", f)
			}
			if tc.toy.forget && f.Max < float64(trials.Drain.Milliseconds()) {
				t.Errorf("what never came is counted as %.0f ms late, after a drain of %s", f.Max, trials.Drain)
			}
			if left, err := os.ReadDir(trials.Dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestTrialEnds: a network that can no longer be followed is an error that says where its files are, and an
// interrupted trial leaves nothing.
func TestTrialEnds(t *testing.T) { synctest.Test(t, testTrialEnds) }

func testTrialEnds(t *testing.T) {
	trials := of(t)
	broken := errors.New("broken")
	if _, err := Open(&toy{every: time.Millisecond, perBlk: 1, follows: broken}, trials).Trial(t.Context(), 100); !errors.Is(err, broken) || !strings.Contains(err.Error(), trials.Dir) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	trials.Dir = t.TempDir()
	if _, err := Open(&toy{every: time.Millisecond, perBlk: 1}, trials).Trial(ctx, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(trials.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestVerdict is what a rate has to stand.
func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		f    Figures
		want string
	}{
		{Figures{Rate: 100, TPS: 97, P99: 1000}, ""},
		{Figures{Rate: 100, TPS: 96.9, P99: 1000}, "committed 97 tx/s"},
		{Figures{Rate: 100, TPS: 100, P99: 1000.1}, "p99 1000 ms"},
	} {
		if got := tooMuch(&tc.f); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.f, got, tc.want)
		}
	}
}
