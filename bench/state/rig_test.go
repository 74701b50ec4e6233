package state

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"tutti/accel/bls"
	"tutti/accel/merkle"
	"tutti/bench/workload"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/state/ledger"
	"tutti/state/store"
	"tutti/state/tx"
)

// believing takes every signature for right: they are not what is measured.
type believing struct{}

func (believing) Check(_ context.Context, _ []tx.Signed, _ [][32]byte, _ []uint16, ok []bool) error {
	for i := range ok {
		ok[i] = true
	}
	return nil
}

// alone is a network of one shard.
type alone struct{}

func (alone) Verify(uint16, ledger.Known, []byte) (ledger.ForeignHeader, error) {
	return ledger.ForeignHeader{}, fmt.Errorf("there is no other shard")
}

const balance = 1_000_000

var chain = tx.Hash(sha256.Sum256([]byte("state benchmark")))

func params(t testing.TB, accounts uint64) ledger.Params {
	t.Helper()
	table, err := ledger.GenesisTable(1)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.Params{
		GenesisHash: chain, GenesisBlock: name(0), Shards: 1, Table: table, Fees: []uint64{1}, OpenDeposit: 1, OpenCap: 1000,
		AccountLimit: accounts + 1000, ReceiptWindow: 1000, Supplies: []uint64{accounts * balance},
	}
}

func name(height uint64) tx.Hash {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte("block"), height))
}

// rig is a ledger, a block log and a source of transfers. One goroutine owns it, locked to its thread.
type rig struct {
	t        testing.TB
	p        ledger.Params
	accounts int
	dir      string
	now      time.Time // moves on by a second for each block
	ids      []tx.ID   // by account number
	l        *ledger.Ledger
	log      *blocklog.Log
	gen      *workload.Generator
	height   uint64
	roots    [2]tx.Hash // state roots after the last two blocks, older first
	diffs    [2]tx.Hash
}

func newRig(t testing.TB, accounts int) *rig {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	return &rig{t: t, p: params(t, uint64(accounts)), accounts: accounts, dir: t.TempDir(), now: time.Unix(1e9, 0)}
}

func (r *rig) options(workers int) ledger.Options {
	return ledger.Options{
		FS: vfs.Default, Dir: filepath.Join(r.dir, "state"), Params: r.p, Verifier: believing{}, Headers: alone{},
		Possession: bls.VerifyPossession, Workers: workers, Now: func() time.Time { return r.now },
	}
}

// create makes the genesis state and opens it.
func (r *rig) create(workers int) {
	o := r.options(workers)
	o.Create = true
	o.Genesis = func(yield func(ledger.GenesisAccount) bool) {
		for i := range uint64(r.accounts) {
			id := r.p.GenesisID(i)
			if !yield(ledger.GenesisAccount{ID: id, Key: sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(id))), Balance: balance}) {
				return
			}
		}
	}
	r.open(o)
	root := r.l.Stats().Root
	r.roots = [2]tx.Hash{root, root}
}

func (r *rig) open(o ledger.Options) {
	var err error
	if r.l, err = ledger.Open(o); err != nil {
		r.t.Fatal(err)
	}
	r.log, err = blocklog.Open(blocklog.Options{FS: vfs.Default, Dir: filepath.Join(r.dir, "blocks"), Chain: consensus.Hash(chain), Create: true, Retention: 64})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) close() {
	if err := r.log.Close(); err != nil {
		r.t.Error(err)
	}
	if err := r.l.Close(); err != nil {
		r.t.Error(err)
	}
	r.l, r.log = nil, nil
}

// draw begins a new distribution.
func (r *rig) draw(kind workload.Kind, seed uint64) {
	if r.ids == nil {
		r.ids = make([]tx.ID, r.accounts)
		for i := range r.ids {
			r.ids[i] = r.p.GenesisID(uint64(i))
		}
	}
	var err error
	if r.gen, err = workload.New(workload.Options{Kind: kind, Seed: seed, Shards: 1, Accounts: r.accounts, Window: 65535}); err != nil {
		r.t.Fatal(err)
	}
	for i := range r.accounts {
		rec, ok := r.l.Account(r.ids[i])
		if !ok {
			r.t.Fatalf("account %d is not there", i)
		}
		r.gen.Ready(uint32(i), rec.Nonce)
	}
}

// transfers draws n transfers.
func (r *rig) transfers(n int) []workload.Transfer {
	out := make([]workload.Transfer, n)
	for i := range out {
		var ok bool
		if out[i], ok = r.gen.Next(); !ok {
			r.t.Fatal("no payer is free")
		}
		r.gen.Done(out[i].From, true)
	}
	return out
}

// body makes the body and its commitments.
func (r *rig) body(ts []workload.Transfer) ([]byte, ledger.Commitments) {
	b := tx.Body{Txs: make([]tx.Signed, len(ts)), Outcomes: make([]bool, len(ts))}
	leaves := make([][32]byte, len(ts))
	for i, t := range ts {
		b.Txs[i] = tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: r.ids[t.From], To: r.ids[t.To], Amount: t.Amount, Nonce: t.Nonce, Expiry: 1<<32 - 1}}
		binary.BigEndian.PutUint64(b.Txs[i].Signature[:], uint64(i))
		b.Outcomes[i] = true
		leaves[i] = tx.TxLeaf(b.Txs[i].TxID(chain), true)
	}
	return b.Append(nil), ledger.Commitments{Outcomes: merkle.ListRoot(leaves), State: r.roots[0], Diff: r.diffs[0]}
}

// sample is what one block took.
type sample struct {
	execute, log, finalise, all time.Duration // CPU time of the process; all has what ran in the background as well
	wall                        time.Duration
	collections                 uint32 // of garbage, that ended during the block
	flushed, compacted          uint64 // bytes that the storage engine wrote meanwhile
}

// block draws, executes and finalises one block.
func (r *rig) block(txs int) (s sample) {
	stored, collected := r.background()
	began, mine := cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID), cpuOf(unix.CLOCK_THREAD_CPUTIME_ID)
	body, want := r.body(r.transfers(txs))
	parent := r.p.GenesisBlock
	if r.height > 0 {
		parent = name(r.height)
	}
	r.height++
	r.now = r.now.Add(time.Second)
	mine = cpuOf(unix.CLOCK_THREAD_CPUTIME_ID) - mine
	ctx, wall := context.Background(), time.Now()

	c0 := cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID)
	done, err := r.l.Execute(ctx, ledger.ExecuteInput{Parent: parent, Block: name(r.height), Height: r.height, Body: body, Want: want})
	if err != nil {
		r.t.Fatal(err)
	}
	c1 := cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID)
	r.append(body, want)
	c2 := cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID)
	if err := r.l.Finalise(ctx, name(r.height)); err != nil {
		r.t.Fatal(err)
	}
	c3 := cpuOf(unix.CLOCK_PROCESS_CPUTIME_ID)
	r.roots, r.diffs = [2]tx.Hash{r.roots[1], done.Root}, [2]tx.Hash{r.diffs[1], done.Diff}
	s = sample{execute: c1 - c0, log: c2 - c1, finalise: c3 - c2, all: c3 - began - mine, wall: time.Since(wall)}
	storedNow, collectedNow := r.background()
	s.collections = collectedNow - collected
	s.flushed, s.compacted = storedNow.FlushBytes-stored.FlushBytes, storedNow.CompactBytes-stored.CompactBytes
	return s
}

// background is what has been done beside the blocks.
func (r *rig) background() (store.Metrics, uint32) {
	m, err := r.l.Storage()
	if err != nil {
		r.t.Fatal(err)
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return m, mem.NumGC
}

// append writes the body to the block log as the bodies of several blocks, since one has consensus.MaxBodyBytes at most,
// and syncs it.
func (r *rig) append(body []byte, c ledger.Commitments) {
	const part = 4 << 20
	for i := 0; len(body) > 0; i++ {
		b := body[:min(part, len(body))]
		body = body[len(b):]
		h := &consensus.Header{
			Version: consensus.HeaderVersion, Chain: consensus.Hash(chain), View: consensus.View(r.height), Height: consensus.Height(r.height),
			TimeMs: int64(i), Body: consensus.NewBodyRef(b), Outcomes: consensus.Hash(c.Outcomes), State: consensus.Hash(c.State),
		}
		if err := r.log.AppendBlock(consensus.Block{Header: h, Body: b}); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := r.log.Sync(); err != nil {
		r.t.Fatal(err)
	}
}

func cpuOf(clock int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// firstTouch is the CPU time that the first touch of a page of memory takes. Where a hypervisor has taken free memory back
// it is tens of times what the kernel alone needs.
func firstTouch(t testing.TB) time.Duration {
	t.Helper()
	const pages = 1 << 16
	page := os.Getpagesize()
	m, err := unix.Mmap(-1, 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	if err := unix.Madvise(m, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	began := cpuOf(unix.CLOCK_THREAD_CPUTIME_ID)
	for i := 0; i < len(m); i += page {
		m[i] = 1
	}
	return (cpuOf(unix.CLOCK_THREAD_CPUTIME_ID) - began) / pages
}

// residentBytes is the memory that this process has in RAM.
func residentBytes(t testing.TB) float64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return float64(pages) * float64(os.Getpagesize())
}
