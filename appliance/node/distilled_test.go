package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/accel/distill/summed"
	"tutti/accel/ed25519"
	"tutti/appliance/epochs"
	"tutti/appliance/genesis"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/engine"
	"tutti/state/ledger"
	"tutti/state/pool"
	"tutti/state/tx"
	"tutti/state/verify"
)

// rig is one validator's application over a real ledger on a real disk, and a crowd of accounts that all have BLS keys. It
// is its own leader, and every block is final at once.
type rig struct {
	t       testing.TB
	app     *application
	params  ledger.Params
	ids     []tx.ID
	nonces  []uint32
	secrets []*bls.SecretKey
	rng     *rand.Rand
	log     *seatLog
	tip     *consensus.Header
	last    consensus.Block
	genesis *genesis.Genesis
	told    int // final blocks
	checks  int // batches that the ledger was asked about at intake
}

// noForeign is the headers of a network of one shard.
type noForeign struct{}

func (noForeign) Verify(uint16, ledger.Known, []byte) (ledger.ForeignHeader, error) {
	return ledger.ForeignHeader{}, fmt.Errorf("there is no other shard")
}

// quietObserver takes no notice.
type quietObserver struct{}

func (quietObserver) step(string, time.Duration)                       {}
func (quietObserver) final(_, _ *consensus.Header, _ *ledger.Executed) {}

const rigBalance = 1_000_000

// secretsOf are n BLS keys, made on all cores.
func secretsOf(t testing.TB, n int) []*bls.SecretKey {
	t.Helper()
	out := make([]*bls.SecretKey, n)
	var group sync.WaitGroup
	for part := range 2 {
		group.Go(func() {
			for i := part; i < n; i += 2 {
				seed := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("bls"), uint64(i)))
				out[i], _ = bls.NewSecretKey(seed[:])
			}
		})
	}
	group.Wait()
	if slices.Contains(out, nil) {
		t.Fatal("no key")
	}
	return out
}

// newRig makes a validator of accounts, of which a batch has at most batch, so that no key comes twice in one.
func newRig(t testing.TB, accounts, batch int) *rig {
	t.Helper()
	table, err := ledger.GenesisTable(1)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, secrets: secretsOf(t, batch), nonces: make([]uint32, accounts), rng: rand.New(rand.NewPCG(1, 2))}
	r.genesis = &genesis.Genesis{Shards: make([]genesis.Shard, 1)}
	for i := range 4 {
		r.genesis.Shards[0].Validators = append(r.genesis.Shards[0].Validators, genesis.Validator{Key: consensus.PublicKey{byte(i), 1}, Power: 1})
	}
	committee, err := r.genesis.Committee(0)
	if err != nil {
		t.Fatal(err)
	}
	r.tip = &consensus.Header{Version: consensus.HeaderVersion, Chain: consensus.Hash{1}, Body: committee.BodyRef((&tx.Body{}).Append(nil)), Committee: committee.Hash(), NextCommittee: committee.Hash()}
	r.params = ledger.Params{
		GenesisHash: tx.Hash{1}, GenesisBlock: tx.Hash(r.tip.Hash()), Shards: 1, Table: table, Fees: []uint64{1}, OpenDeposit: 1, OpenCap: 8,
		AccountLimit: uint64(accounts) + 8, ReceiptWindow: 8, Supplies: []uint64{uint64(accounts) * rigBalance},
	}
	keys := make([][48]byte, len(r.secrets))
	for i, k := range r.secrets {
		keys[i] = k.Public()
	}
	for i := range accounts {
		r.ids = append(r.ids, r.params.GenesisID(uint64(i)))
	}
	queue, err := ed25519.NewQueue(ed25519.QueueOptions{Workers: 2, MaxBatch: 512, MaxDelay: time.Millisecond, Depth: verifyDepth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(queue.Close)
	verifier, err := verify.New(r.params.GenesisHash, queue, verifyCache)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(ledger.Options{
		FS: vfs.Default, Dir: t.TempDir() + "/state", Create: true, Params: r.params, Verifier: verify.Ledger{Verifier: verifier},
		Headers: noForeign{}, Possession: bls.VerifyPossession,
		Genesis: func(yield func(ledger.GenesisAccount) bool) {
			for i, id := range r.ids {
				if !yield(ledger.GenesisAccount{ID: id, Key: [32]byte{1}, Balance: rigBalance, BLS: &keys[i%len(keys)]}) {
					return
				}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	r.application(l, verifier)
	return r
}

// application wires what a node wires, without a network.
func (r *rig) application(l *ledger.Ledger, verifier *verify.Verifier) {
	t := r.t
	committee, err := r.genesis.Committee(0)
	if err != nil {
		t.Fatal(err)
	}
	store, err := epochs.Open(vfs.NewMem(), "epochs", consensus.Hash(r.params.GenesisHash), committee)
	if err != nil {
		t.Fatal(err)
	}
	r.log = &seatLog{final: map[consensus.Height]consensus.Hash{}}
	s := &seats{genesis: r.genesis, store: store, log: r.log}
	s.current.Store(&term{Term: store.Newest()})
	quota := pool.Quota{PerSecond: 1 << 20, Burst: 1 << 20, Held: 1 << 20}
	a := &application{
		chain: r.params.GenesisHash, seats: s, ledger: l, cross: &crossLinks{sources: make([]*source, 1)}, observe: quietObserver{},
		pace: pace{maxBytes: 8 << 20, maxTxs: 1 << 16}, tell: func(*proof.Block) { r.told++ }, wake: make(chan struct{}, 1),
		open:    map[consensus.Hash]*openBlock{},
		history: newHistory(r.params.GenesisHash, 0, func(tx.ID) consensus.ShardID { return 0 }, r.log, l, newMeter(time.Now())),
	}
	if a.pool, err = pool.New(pool.Options{
		Genesis: r.params.GenesisHash, ShardOf: func(tx.ID) (uint16, bool) { return 0, true }, Fees: r.params.Fees, OpenDeposit: 1,
		MaxTxs: 1 << 16, MaxBytes: 1 << 30, MaxPerAccount: 16, MaxAhead: maxAhead, Client: quota, Peer: quota, ResendAfter: resendAfter,
		Possession: bls.VerifyPossession,
	}, finalState{l}, verifier); err != nil {
		t.Fatal(err)
	}
	if a.batches, err = pool.NewBatches(pool.BatchOptions{
		MaxCount: distill.MaxCount, MaxSize: distill.MaxBatchBytes, MaxTransfers: 1 << 20, MaxBytes: batchBytes, MaxAhead: maxAhead,
		Client: quota, Peer: quota, ResendAfter: resendAfter,
		Check: func(b *distill.Batch) ([]tx.Hash, error) { r.checks++; return l.CheckBatch(b) },
	}); err != nil {
		t.Fatal(err)
	}
	r.app = a
}

// batch is of the next transfers of n accounts from one on, to others by lot.
func (r *rig) batch(from, n int) *distill.Batch {
	r.t.Helper()
	subs, place := make([]distill.Submission, n), make(map[uint64]int, n)
	for i := range subs {
		k := from + i
		t := tx.Tx{Kind: tx.Transfer, From: r.ids[k], To: r.ids[(k+1+r.rng.IntN(len(r.ids)-1))%len(r.ids)], Amount: 1 + r.rng.Uint64N(9), Nonce: r.nonces[k], Expiry: 50_000}
		r.nonces[k]++
		subs[i].Body = [distill.BodyBytes]byte(t.AppendBody(nil)[1:])
		place[uint64(t.From)] = k
	}
	b, err := summed.Batch(distill.Chain(r.params.GenesisHash), subs, func(sender uint64) *bls.SecretKey { return r.secrets[place[sender]%len(r.secrets)] })
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// steps are the CPU seconds of what a validator does.
type steps struct{ intake, build, certify, finalise float64 }

// block takes batches in and makes the next block.
func (r *rig) block(s *steps, batches ...*distill.Batch) *tx.Body {
	r.t.Helper()
	ctx := context.Background()
	at := cpuSeconds()
	lap := func(to *float64) { now := cpuSeconds(); *to += now - at; at = now }
	for i, b := range batches {
		if err := r.app.batches.Submit(uint64(i), b); err != nil {
			r.t.Fatal(err)
		}
	}
	lap(&s.intake)
	block, err := r.app.Build(ctx, engine.BuildRequest{View: consensus.View(r.tip.Height) + 1, Parent: r.tip, MaxBody: 8 << 20})
	if err != nil {
		r.t.Fatal(err)
	}
	lap(&s.build)
	if ok, err := r.app.Certify(ctx, *block); !ok || err != nil {
		r.t.Fatal(r.app.lastReason(), err)
	}
	lap(&s.certify)
	body := r.app.open[block.Header.Hash()].executed.Body
	r.finalise(*block)
	lap(&s.finalise)
	return body
}

// finalise makes a block final that was judged.
func (r *rig) finalise(block consensus.Block) {
	r.t.Helper()
	hash := block.Header.Hash()
	cert := consensus.Certificate{Statement: consensus.Statement{Kind: consensus.Finalize, Block: hash}}
	r.log.final[block.Header.Height] = hash
	if err := r.app.Finalise(r.t.Context(), []consensus.Block{block}, cert); err != nil {
		r.t.Fatal(err)
	}
	r.tip, r.last = block.Header, block
}

var (
	benchBlocks    = flag.Int("blocks", 4, "blocks of BenchmarkDistilled")
	benchTransfers = flag.Int("transfers", 25_000, "transfers in each block of BenchmarkDistilled")
)

// BenchmarkDistilled takes blocks of one distilled batch each through everything but consensus that a validator does, and
// tells the CPU time, system and garbage collection included, for each transfer. Only the leader builds.
func BenchmarkDistilled(b *testing.B) { distilled(b, *benchBlocks, *benchTransfers) }

func distilled(b *testing.B, blocks, transfers int) {
	r := newRig(b, blocks*transfers, transfers)
	var s steps
	n := 0
	for b.Loop() {
		b.StopTimer()
		batches := make([]*distill.Batch, blocks)
		for i := range batches {
			batches[i] = r.batch(i*transfers, transfers)
		}
		b.StartTimer()
		for i := range batches {
			if body := r.block(&s, batches[i]); body.Len() != transfers || slices.Contains(body.Outcomes, false) {
				b.Fatal(body.Len())
			}
		}
		n += blocks * transfers
	}
	us := func(seconds float64) float64 { return 1e6 * seconds / float64(n) }
	b.ReportMetric(us(s.intake), "intake_cpu_us/tx")
	b.ReportMetric(us(s.build), "build_cpu_us/tx")
	b.ReportMetric(us(s.certify), "certify_cpu_us/tx")
	b.ReportMetric(us(s.finalise), "finalise_cpu_us/tx")
	b.ReportMetric(us(s.intake+s.certify+s.finalise+s.build/4), "cpu_us/tx")
	b.Logf("root %v after %d transfers", r.app.ledger.Stats().Root, n)
}

// TestBenchmarkDistilled keeps the benchmark from rotting.
func TestBenchmarkDistilled(t *testing.T) {
	r := newRig(t, 80, 40)
	var s steps
	for i := range 4 {
		if body := r.block(&s, r.batch(40*(i%2), 40)); body.Len() != 40 || slices.Contains(body.Outcomes, false) {
			t.Fatal(body.Outcomes)
		}
	}
	if r.told != 4 || s.certify == 0 {
		t.Error(r.told, s)
	}
}

// TestBatchesCheckedOnce: what was checked when it came in is not checked again when it is built in, judged and finalised, and
// a batch that a body brings is checked once.
func TestBatchesCheckedOnce(t *testing.T) {
	leader, other := newRig(t, 40, 20), newRig(t, 40, 20)
	var s steps
	batches := []*distill.Batch{leader.batch(0, 20), leader.batch(20, 20)}
	if body := leader.block(&s, batches...); len(body.Batches) != 2 || body.Len() != 40 {
		t.Fatal(len(body.Batches), body.Len())
	}
	if st := leader.app.ledger.Stats(); st.BatchesChecked != 2 || st.BatchesKnown != 4 || leader.checks != 2 { // built in, judged
		t.Errorf("%d checked, %d known, %d at intake", st.BatchesChecked, st.BatchesKnown, leader.checks)
	}
	// The same block at a node that has seen one of the two.
	if err := other.app.batches.Submit(1, batches[1]); err != nil {
		t.Fatal(err)
	}
	block := leader.last
	if ok, err := other.app.Certify(t.Context(), block); !ok || err != nil {
		t.Fatal(other.app.lastReason(), err)
	}
	other.finalise(block)
	if st := other.app.ledger.Stats(); st.BatchesChecked != 2 || st.BatchesKnown != 1 {
		t.Errorf("%d checked, %d known", st.BatchesChecked, st.BatchesKnown)
	}
	if c := other.app.batches.Counters(); c.Batches != 0 || c.Used != 1 {
		t.Errorf("%+v", c)
	}
	for _, b := range batches { // final: not even looked at
		if err := other.app.batches.Submit(1, b); !pool.Pooled(err) || err == nil {
			t.Error(err)
		}
	}
	if st := other.app.ledger.Stats(); st.BatchesChecked+st.BatchesKnown != 3 {
		t.Errorf("%d checked, %d known", st.BatchesChecked, st.BatchesKnown)
	}
}

// TestSenderInTwoBatches: of two batches in one block the second has its senders' next nonces; in the wrong order the one that
// comes too soon waits for the block after.
func TestSenderInTwoBatches(t *testing.T) {
	r := newRig(t, 40, 20)
	var s steps
	a, b := r.batch(0, 20), r.batch(0, 20)
	if body := r.block(&s, a, b); len(body.Batches) != 2 || slices.Contains(body.Outcomes, false) {
		t.Fatal(len(body.Batches), body.Outcomes)
	}
	c, d := r.batch(0, 20), r.batch(0, 20)
	if body := r.block(&s, d, c); len(body.Batches) != 1 || slices.Contains(body.Outcomes, false) {
		t.Fatal(len(body.Batches), body.Outcomes)
	}
	if body := r.block(&s); len(body.Batches) != 1 || slices.Contains(body.Outcomes, false) {
		t.Fatal(len(body.Batches), body.Outcomes)
	}
	if c := r.app.batches.Counters(); c.Batches != 0 || c.Used != 4 || c.Dropped != 0 {
		t.Errorf("%+v", c)
	}
	// What is in no block by then is known to be nowhere; what is, is found with its success.
	for i := range a.Count() {
		id := tx.Hash(sha256.Sum256(distill.Chain(r.params.GenesisHash).AppendMessage(nil, a.Body(i))))
		if p, ok := r.app.history.find(id); !ok || p.height != 1 || !p.success || p.index != uint32(i) {
			t.Fatalf("transfer %d: %+v %t", i, p, ok)
		}
	}
}

// TestTookEffect: a batch that a body has and for the most part skips still waits for a block that takes it.
func TestTookEffect(t *testing.T) {
	a, b := transfersInBatch(t, 8), transfersInBatch(t, 5)
	body, err := tx.NewBody(make([]tx.Signed, 1), []*distill.Batch{a, b})
	if err != nil {
		t.Fatal(err)
	}
	for skips, want := range map[[2]int][]*distill.Batch{{0, 0}: {a, b}, {2, 1}: {a, b}, {3, 1}: {b}, {2, 2}: {a}, {8, 5}: nil} {
		body.Outcomes = make([]bool, 14) // the signed one is skipped, too
		for i := 1; i < 14; i++ {
			body.Outcomes[i] = i-1 >= skips[0] && i < 9 || i-9 >= skips[1]
		}
		if got := tookEffect(body); !slices.Equal(got, want) {
			t.Errorf("skipped %v: %d took effect", skips, len(got))
		}
	}
}

// TestPaceRoom: batches leave an eighth of a block to signed transactions, but not more than those need that wait.
func TestPaceRoom(t *testing.T) {
	p := pace{maxTxs: 800}
	const block = 80_000
	for waiting, want := range map[int][2]int{
		0: {800, block - bodyHeads}, 3: {797, block - bodyHeads - 3*tx.MaxTxBytes}, 1000: {700, block - bodyHeads - block/8},
	} {
		if txs, bytes := p.room(block, waiting); txs != want[0] || bytes != want[1] {
			t.Errorf("%d wait: %d transfers in %d bytes, want %v", waiting, txs, bytes, want)
		}
	}
}
