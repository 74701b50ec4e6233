package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"tutti/accel/distill"
	"tutti/bench/child"
	"tutti/bench/report"
	"tutti/state/tx"
)

// Tutti is a contender that is `tutti bench`.
type Tutti struct {
	Trials
	Binary    string
	Accounts  uint64
	Distilled bool      // all transfers are in distilled batches; else each carries its own signature
	Out       io.Writer // what the program says; nil: nowhere
}

// Name says how transfers are signed.
func (t *Tutti) Name() string {
	if t.Distilled {
		return "Tutti, distilled"
	}
	return "Tutti, signed"
}

// Conditions are those of all its runs.
func (t *Tutti) Conditions() string {
	signed := "each transfer signed by Ed25519"
	if t.Distilled {
		signed = "transfers in batches of one BLS signature, made before"
	}
	return fmt.Sprintf("%s; state of %s accounts on disk, client verifies proofs", signed, report.Number(float64(t.Accounts)))
}

// TxBytes is the length on the wire; in a distilled batch there are a bit for each transfer and 133 bytes for all besides.
func (t *Tutti) TxBytes() int {
	if t.Distilled {
		return distill.BodyBytes
	}
	return tx.TransferWire
}

func (t *Tutti) args(rate float64) []string {
	args := []string{
		"--shards", "1", "--validators", strconv.Itoa(t.Validators), "--accounts", strconv.FormatUint(t.Accounts, 10),
		"--rate", strconv.FormatFloat(rate, 'f', -1, 64), "--warm-up", t.WarmUp.String(), "--duration", t.Duration.String(),
	}
	if t.Distilled {
		args = append(args, "--distilled", "1")
	}
	return args
}

// Trial runs the program once.
func (t *Tutti) Trial(ctx context.Context, rate float64) (Figures, error) {
	r, err := child.Bench(ctx, child.Run{Binary: t.Binary, Args: t.args(rate), Out: t.Out})
	if err != nil {
		return Figures{}, err
	}
	if r.Result.CPUUsPerTxPerValidator == nil || r.Result.RSSMiBPerValidator == nil {
		return Figures{}, errors.New("peers: tutti bench could not measure its validators")
	}
	return figuresOf(r), nil
}

// figuresOf reads a report.
func figuresOf(r *report.Report) Figures {
	x := &r.Result
	f := Figures{
		Rate: r.Scenario.Rate, TPS: x.TPS, P50: x.FinalityMs.P50, P90: x.FinalityMs.P90, P99: x.FinalityMs.P99, Max: x.FinalityMs.Max,
		CPUUs: deref(x.CPUUsPerTxPerValidator) * float64(r.Scenario.Validators), RSSMiB: deref(x.RSSMiBPerValidator), BlocksPerS: r.BlocksPerS,
		Generator: r.GeneratorCPUS / r.Scenario.DurationS, Foreign: r.Machine.ForeignCores, Steal: r.Details.StealCores,
	}
	switch failed := r.Failed(); {
	case len(failed) > 0:
		f.Why = "checks failed: " + strings.Join(failed, ", ")
	case x.Rejected+x.Lost+r.Details.Expired+r.Details.Unsent > 0:
		f.Why = fmt.Sprintf("%d rejected, %d lost, %d expired, %d not sent", x.Rejected, x.Lost, r.Details.Expired, r.Details.Unsent)
	default:
		f.Why = tooMuch(&f)
	}
	return f
}

func deref(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}
