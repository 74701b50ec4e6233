package state

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tutti/bench/workload"
	"tutti/state/ledger"
)

var (
	full     = flag.Bool("full", false, "measure at full size, not at toy size")
	accounts = flag.Int("accounts", 10_000_000, "accounts at full size")
	txs      = flag.Int("txs", 100_000, "transfers in a block at full size")
	blocks   = flag.Int("blocks", 50, "blocks of each kind at full size")
	each     = flag.Bool("each", false, "print every block and what ran beside it")
	jsonFile = flag.String("json", "", "write the rows to this file as well")
)

// row is one figure; references are the same work done otherwise, in the same run.
type row struct {
	Name       string             `json:"name"`
	Value      float64            `json:"value"`
	Unit       string             `json:"unit"`
	References map[string]float64 `json:"references,omitempty"`
}

// table collects rows.
type table struct{ Rows []row }

func (t *table) add(name string, value float64, unit string) {
	t.Rows = append(t.Rows, row{Name: name, Value: value, Unit: unit})
}

func (t *table) get(name string) *row {
	for i := range t.Rows {
		if t.Rows[i].Name == name {
			return &t.Rows[i]
		}
	}
	return nil
}

func (t *table) print() {
	for _, r := range t.Rows {
		fmt.Printf("%-44s %12.1f %-12s", r.Name, r.Value, r.Unit)
		for _, k := range slices.Sorted(func(yield func(string) bool) {
			for k := range r.References {
				if !yield(k) {
					return
				}
			}
		}) {
			fmt.Printf("  %s %.1f", k, r.References[k])
		}
		fmt.Println()
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// median sorts v.
func median(v []float64) float64 {
	sort.Float64s(v)
	return v[len(v)/2]
}

// TestBenchState measures; see the package comment.
func TestBenchState(t *testing.T) {
	n, perBlock, count, slow := 3000, 300, 4, 2
	if *full {
		n, perBlock, count, slow = *accounts, *txs, *blocks, 3
	}
	out := new(table)
	r := newRig(t, n)
	out.add("first touch of a page of memory", float64(firstTouch(t).Nanoseconds()), "cpu_ns")
	began := time.Now()
	cpu := cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID)
	r.create(runtime.NumCPU())
	out.add("create from genesis", ms(cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID)-cpu), "cpu_ms")
	t.Logf("genesis of %d accounts: %.1f s", n, time.Since(began).Seconds())
	first := true
	for _, workers := range []int{2, 1} {
		for _, kind := range []workload.Kind{workload.Uniform, workload.Zipf} {
			r.close()
			r.restart(out, workers, n, first)
			first = false
			r.draw(kind, uint64(workers))
			var samples []sample
			for range count {
				samples = append(samples, r.block(perBlock))
			}
			report(out, fmt.Sprintf("block/%s/%d workers", kind, workers), samples)
		}
	}
	r.references(out, perBlock, slow)
	r.close()
	out.print()
	if *jsonFile != "" {
		b, err := json.MarshalIndent(map[string]any{"rows": out.Rows}, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(*jsonFile, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// restart opens the ledger from disk and, the first time, says what that and its memory cost.
func (r *rig) restart(out *table, workers, accounts int, tell bool) {
	r.ids, r.gen = nil, nil
	debug.FreeOSMemory()
	idle := residentBytes(r.t)
	wall, cpu := time.Now(), cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID)
	r.open(r.options(workers))
	if !tell {
		return
	}
	out.add("start from disk", ms(cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID)-cpu), "cpu_ms")
	out.add("start from disk, wall", ms(time.Since(wall)), "ms")
	debug.FreeOSMemory()
	out.add("resident memory", (residentBytes(r.t)-idle)/1e6, "MB")
	out.add("resident memory of an account", (residentBytes(r.t)-idle)/float64(accounts), "bytes")
}

func report(out *table, name string, samples []sample) {
	if *each {
		for i, s := range samples {
			fmt.Printf("%s %3d: all %6.1f  execute %6.1f  log %5.1f  finalise %5.1f cpu_ms, wall %6.1f ms, collections %d, flushed %4.1f, compacted %5.1f MB\n", name, i,
				ms(s.all), ms(s.execute), ms(s.log), ms(s.finalise), ms(s.wall), s.collections, float64(s.flushed)/1e6, float64(s.compacted)/1e6)
		}
	}
	for _, part := range []struct {
		name string
		of   func(s sample) time.Duration
	}{
		{"execute and hash", func(s sample) time.Duration { return s.execute }},
		{"block log", func(s sample) time.Duration { return s.log }},
		{"durable batch", func(s sample) time.Duration { return s.finalise }},
		{"all", func(s sample) time.Duration { return s.all }},
	} {
		var v []float64
		for _, s := range samples {
			v = append(v, ms(part.of(s)))
		}
		out.add(name+"/"+part.name, median(v), "cpu_ms")
		if part.name == "all" {
			out.add(name+"/all, worst block", v[len(v)-1], "cpu_ms")
		}
	}
	var v []float64
	for _, s := range samples {
		v = append(v, ms(s.wall))
	}
	out.add(name+"/wall", median(v), "ms")
	out.add(name+"/wall, worst block", v[len(v)-1], "ms")
}

// references does the same work in a serial and in a naive way and compares the balances with the engine's.
func (r *rig) references(out *table, perBlock, count int) {
	for _, kind := range []workload.Kind{workload.Uniform, workload.Zipf} {
		r.draw(kind, 77)
		var blocks [][]workload.Transfer
		for range count {
			blocks = append(blocks, r.transfers(perBlock))
		}
		for _, other := range []struct {
			name string
			make func(r *rig) reference
		}{{"serial", newSerial}, {"naive", newNaive}} {
			ref := other.make(r)
			var took []float64
			for _, b := range blocks {
				body, _ := r.body(b)
				c := cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID)
				ref.block(b, body)
				took = append(took, ms(cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID)-c))
			}
			if row := out.get(fmt.Sprintf("block/%s/1 workers/all", kind)); row != nil {
				if row.References == nil {
					row.References = map[string]float64{}
				}
				row.References[other.name] = median(took)
			}
			r.compare(other.name, blocks, ref)
			ref.close()
			debug.FreeOSMemory()
		}
	}
}

// compare checks a reference against plain arithmetic on what the engine had before the blocks.
func (r *rig) compare(name string, blocks [][]workload.Transfer, ref reference) {
	change := map[uint32]int64{}
	for _, b := range blocks {
		for _, t := range b {
			change[t.From] -= int64(t.Amount) + 1
			change[t.To] += int64(t.Amount)
		}
	}
	for i, d := range change {
		rec, _ := r.l.Account(r.ids[i])
		if got := ref.balance(i); got != uint64(int64(rec.Balance)+d) {
			r.t.Fatalf("%s: account %d has %d, want %d and %d", name, i, got, rec.Balance, d)
		}
	}
}

// reference is another way to bring transfers to a durable state with a root.
type reference interface {
	block(ts []workload.Transfer, body []byte)
	balance(i uint32) uint64
	close()
}

func (r *rig) file(name string) *os.File {
	f, err := os.Create(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

// record reads an account's record.
func (r *rig) record(i int) ledger.Record {
	rec, ok := r.l.Account(r.ids[i])
	if !ok {
		r.t.Fatalf("account %d is not there", i)
	}
	return rec
}
