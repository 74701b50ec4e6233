package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/accel/ed25519"
	"tutti/appliance/api"
	"tutti/appliance/api/apitest"
	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/keys"
	"tutti/appliance/metrics"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/evidence"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// testnet is a network of two shards with real genesis, ledgers, certificates and API servers, but without consensus and
// transport: one goroutine makes a certified block of each shard at each beat.
type testnet struct {
	genesis *genesis.Verified
	shards  []*testshard

	mu   sync.Mutex // guards what follows, and the fields of shards that say so
	urls []string
}

// testshard implements api.Backend.
type testshard struct {
	net      *testnet
	id       consensus.ShardID
	ledger   *ledger.Ledger
	evidence []*evidence.Proof // set before the shard serves

	// guarded by testnet.mu once the shard runs
	epochs    []testseats // from epoch 0 on
	handovers []*proof.Handover
	tip       *consensus.FinalHeader
	blocks    []*proof.Contents // by height from 1
	opened    map[tx.Hash]tx.ID
	pending   []tx.Signed
	consumed  map[tx.Hash]*proof.Credit
	busyUntil consensus.Height
}

// testseats is a committee with its secrets.
type testseats struct {
	committee *consensus.Committee
	keys      consensus.Keys
	secrets   []*bls.SecretKey
}

func (s *testshard) now() testseats { return s.epochs[len(s.epochs)-1] }

const testBeat = 30 * time.Millisecond

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// startTestnet makes the network's genesis in a home with the wallets demo (rich, shard 0) and friend (empty, shard 1)
// and runs it until the test ends.
func startTestnet(t testing.TB, home config.Home) *testnet {
	t.Helper()
	password := keys.RandomPassword()
	if err := config.CreateFormat(string(home), config.HomeFormat); err != nil {
		t.Fatal(err)
	}
	if err := keys.WritePasswordFile(home.WalletPassword(), password); err != nil {
		t.Fatal(err)
	}
	g := &genesis.Genesis{
		Name: "testnet", TimeMs: 1_795_348_800_000, Seed: consensus.Hash{7}, Table: must(ledger.GenesisTable(2)),
		Parameters: genesis.Parameters(standardRules()),
	}
	n := &testnet{}
	for s := range 2 {
		sh := &testshard{net: n, id: consensus.ShardID(s), busyUntil: 1 + consensus.StateLag, opened: map[tx.Hash]tx.ID{}, consumed: map[tx.Hash]*proof.Credit{}}
		var seats genesis.Shard
		var secrets []*bls.SecretKey
		for i := range 4 {
			k := must(bls.NewSecretKey(bytes.Repeat([]byte{byte(16*s + i + 1)}, 32)))
			v := genesis.Validator{Name: string(rune('a'+4*s+i)) + "-node", Key: k.Public(), Node: [32]byte{byte(s), byte(i), 1}, Power: 100}
			v.Possession = k.ProvePossession(genesis.ValidatorMessage(g.Name, v.Node, v.Key))
			secrets, seats.Validators = append(secrets, k), append(seats.Validators, v)
		}
		sh.epochs = []testseats{{secrets: secrets}}
		g.Shards, n.shards = append(g.Shards, seats), append(n.shards, sh)
	}
	demo, friend := must(keys.New(keys.Wallet)), must(keys.New(keys.Wallet))
	people := &genesis.Population{Table: g.Table, Named: [][]genesis.Account{
		{{Key: [32]byte(demo.Public()), Balance: 1_000_000}}, {{Key: [32]byte(friend.Public()), Balance: 5}},
	}}
	n.genesis = must(genesis.Create(string(home), g, people.All()))
	store := keys.Store{Dir: home.Wallets()}
	for s, w := range []*keys.Secret{demo, friend} {
		name := []string{"demo", "friend"}[s]
		if err := store.Add(name, must(keys.Seal(w, password, testCost, ""))); err != nil {
			t.Fatal(err)
		}
		account := keys.Account{Genesis: tx.Hash(n.genesis.Hash()), ID: people.NamedID(consensus.ShardID(s), 0), Shard: uint16(s)}
		if err := store.SetAccount(name, account); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range n.shards {
		s.open(t)
	}
	n.contradict()
	n.run(t)
	for n.shards[1].FinalHeight() <= consensus.StateLag { // the last one that begins
		runtime.Gosched()
	}
	if err := home.WriteEndpoints(n.urls); err != nil {
		t.Fatal(err)
	}
	return n
}

// open makes the shard's ledger.
func (s *testshard) open(t testing.TB) {
	v := s.net.genesis
	s.epochs[0].committee = must(v.Committee(s.id))
	s.epochs[0].keys = must(consensus.NewKeys(s.now().committee))
	p := ledger.Params{
		GenesisHash: tx.Hash(v.Hash()), Shard: uint16(s.id), Shards: 2, Table: v.Table, Fees: v.Parameters.Fees,
		OpenDeposit: v.Parameters.OpenDeposit, OpenCap: v.Parameters.OpenCap, AccountLimit: v.Parameters.AccountLimit,
		ReceiptWindow: v.Parameters.ReceiptWindow, Supplies: v.Supplies,
	}
	accounts := func(yield func(ledger.GenesisAccount) bool) {
		if err := v.AccountsOf(s.id, func(a genesis.Account) bool {
			return yield(ledger.GenesisAccount{ID: a.ID, Key: a.Key, Balance: a.Balance})
		}); err != nil {
			t.Error(err)
		}
	}
	p.GenesisBlock = tx.Hash{1} // does not matter to the root
	header := must(v.Header(s.id, consensus.Hash(must(ledger.GenesisRoot(p, accounts)))))
	p.GenesisBlock = tx.Hash(header.Hash())
	s.ledger = must(ledger.Open(ledger.Options{
		FS: vfs.NewMem(), Dir: "state", Create: true, Genesis: accounts, Params: p, Verifier: testVerifier(v.Hash()), Headers: s.net,
		Possession: bls.VerifyPossession, Workers: 1,
	}))
	t.Cleanup(func() {
		if err := s.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	s.tip = &consensus.FinalHeader{Header: header}
}

// vote is a vote of view 9 in the epoch of now.
func (s *testshard) vote(i int, k consensus.Kind, block byte) consensus.Vote {
	st := consensus.Statement{Kind: k, Shard: s.id, Epoch: s.now().committee.Epoch, View: 9}
	if k != consensus.Nullify {
		st.Block = consensus.Hash{block}
	}
	return consensus.Vote{Statement: st, Validator: uint16(i), Signature: s.now().secrets[i].Sign(consensus.VoteMessage(s.net.genesis.Hash(), st))}
}

// contradict gives the shards proofs: shard 0 has one of two finalize by b-node and one by certificates, shard 1 has one that
// is forged.
func (n *testnet) contradict() {
	vote := (*testshard).vote
	certificate := func(s *testshard, k consensus.Kind, block byte, signers ...int) consensus.Certificate {
		c := consensus.Certificate{Statement: vote(s, 0, k, block).Statement, Signers: consensus.NewSigners(4)}
		var sigs []consensus.Signature
		for _, i := range signers {
			c.Signers.Add(i)
			sigs = append(sigs, vote(s, i, k, block).Signature)
		}
		c.Signature = must(s.now().keys.Aggregate(sigs))
		return c
	}
	zero, one := n.shards[0], n.shards[1]
	zero.evidence = []*evidence.Proof{
		must(evidence.FromVotes(n.genesis.Hash(), zero.now().committee, vote(zero, 1, consensus.Finalize, 0xaa), vote(zero, 1, consensus.Finalize, 0xbb))),
		must(evidence.FromCertificates(n.genesis.Hash(), zero.now().committee,
			certificate(zero, consensus.Finalize, 0xaa, 0, 1, 2), certificate(zero, consensus.Nullify, 0, 1, 2, 3))),
	}
	forged := vote(one, 1, consensus.Nullify, 0)
	forged.Signature = vote(one, 2, consensus.Nullify, 0).Signature
	one.evidence = []*evidence.Proof{must(evidence.FromVotes(n.genesis.Hash(), one.now().committee, vote(one, 1, consensus.Finalize, 0xaa), forged))}
}

// testVerifier checks signatures on the chain of a genesis hash.
type testVerifier consensus.Hash

func (g testVerifier) Check(_ context.Context, txs []tx.Signed, public [][32]byte, _ []uint16, ok []bool) error {
	for i := range txs {
		ok[i] = ed25519.Verify(ed25519.Item{Key: public[i], Message: txs[i].Message(tx.Hash(g)), Signature: txs[i].Signature})
	}
	return nil
}

// Verify implements ledger.Headers.
func (n *testnet) Verify(source uint16, _ ledger.Known, b []byte) (ledger.ForeignHeader, error) {
	f, err := consensus.DecodeFinalHeader(b)
	if err != nil {
		return ledger.ForeignHeader{}, err
	}
	s := n.shards[source]
	of := s.epochs[f.Header.Epoch]
	if err := of.committee.VerifyCertificate(n.genesis.Hash(), of.keys, &f.Cert); err != nil {
		return ledger.ForeignHeader{}, err
	}
	h := ledger.ForeignHeader{Shard: source, Known: ledger.Known{Epoch: uint64(f.Header.Epoch)}, Height: uint64(f.Header.Height)}
	for _, l := range f.Header.Links {
		h.Links = append(h.Links, ledger.Link{Shard: uint16(l.Shard), Sent: l.Sent, Received: l.Received, Root: tx.Hash(l.Root)})
	}
	return h, nil
}

// run serves and makes blocks until the test ends.
func (n *testnet) run(t testing.TB) {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait() })
	for _, s := range n.shards {
		counters := must(metrics.New(prometheus.NewRegistry(), "test", "test"))
		server := must(api.New(s, api.Options{
			Log: slog.New(slog.DiscardHandler), Counters: &counters.API, Genesis: n.genesis.JSON,
			Params: api.Params{Chain: n.genesis.Name, Genesis: proof.Digest(n.genesis.Hash()), Shard: s.id, Shards: 2, Fees: n.genesis.Parameters.Fees},
			Rates:  api.Rates{ClientRequests: 1e4, TotalRequests: 1e4},
		}))
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		n.mu.Lock()
		n.urls = append(n.urls, "http://"+l.Addr().String())
		n.mu.Unlock()
		wg.Go(func() {
			if err := server.Serve(ctx, l); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		beat := time.NewTicker(testBeat)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
				for _, s := range n.shards {
					if err := s.extend(ctx); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			case <-ctx.Done():
				return
			}
		}
	})
}

// extend makes one final block, while there is anything to do or the state root has not caught up.
func (s *testshard) extend(ctx context.Context) error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	other := s.net.shards[1-s.id]
	parent := s.tip.Header
	if len(s.pending) > 0 || other.tip.Header.Links[0].Sent > parent.Links[0].Received {
		s.busyUntil = parent.Height + 1 + consensus.StateLag
	}
	if parent.Height >= s.busyUntil {
		return nil
	}
	_, err := s.block(ctx, s.now().committee.Hash(), 0)
	return err
}

// handOver ends the epoch: its last block is final by its second echo. In the next committee one seat is another's.
func (n *testnet) handOver(t testing.TB, shard consensus.ShardID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.shards[shard]
	old := s.now()
	e := old.committee.Epoch + 1
	next := testseats{secrets: slices.Clone(old.secrets)}
	seats := slices.Clone(old.committee.Validators)
	i := int(e) % len(seats)
	next.secrets[i] = must(bls.NewSecretKey(bytes.Repeat([]byte{0x80 + byte(shard), byte(e)}, 16)))
	seats[i] = consensus.Validator{Key: next.secrets[i].Public(), Node: [32]byte{byte(e)}, Power: 100 + consensus.Power(e)}
	next.committee = must(consensus.NewCommittee(shard, e, consensus.Hash{byte(e)}, seats))
	next.keys = must(consensus.NewKeys(next.committee))
	final, err := s.block(t.Context(), next.committee.Hash(), 2)
	if err != nil {
		t.Fatal(err)
	}
	s.handovers = append(s.handovers, &proof.Handover{
		End: &consensus.EpochEnd{Last: final.Headers[0], Echoes: final.Headers[1:], Cert: final.Cert}, Next: next.committee,
	})
	s.epochs = append(s.epochs, next)
}

// block makes one final block, the last of its epoch if next is another committee; it is final by so many echoes.
func (s *testshard) block(ctx context.Context, next consensus.Hash, echoes int) (final proof.Final, err error) {
	other, parent := s.net.shards[1-s.id], s.tip.Header
	var bundles []tx.Bundle
	if other.tip.Header.Height > 0 {
		sent, received := other.tip.Header.Links[0].Sent, parent.Links[0].Received
		if sent > received {
			receipts, err := other.ledger.Receipts(uint16(s.id), received, sent)
			if err != nil {
				return final, err
			}
			bundles = append(bundles, tx.Bundle{Source: uint16(other.id), Proof: other.tip.Append(nil), First: received, Receipts: receipts})
		}
	}
	built, err := s.ledger.Build(ctx, ledger.BuildInput{
		Parent: tx.Hash(parent.Hash()), Height: uint64(parent.Height + 1), Candidates: s.pending, Bundles: bundles,
		MaxBytes: 1 << 20, MaxTxs: 1000,
	})
	if err != nil {
		return final, err
	}
	s.pending = nil
	c := built.Commitments
	h := *parent
	h.View, h.Height, h.Parent, h.TimeMs = parent.View+1, parent.Height+1, parent.Hash(), max(time.Now().UnixMilli(), parent.TimeMs+1)
	h.Body, h.Outcomes, h.State, h.Diff = consensus.NewBodyRef(built.Body), consensus.Hash(c.Outcomes), consensus.Hash(c.State), consensus.Hash(c.Diff)
	h.Epoch, h.Committee, h.NextCommittee = s.now().committee.Epoch, s.now().committee.Hash(), next
	if h.Epoch != parent.Epoch {
		h.View = 1
	}
	h.Links = []consensus.Link{{Shard: other.id, Sent: c.Links[0].Sent, Received: c.Links[0].Received, Root: consensus.Hash(c.Links[0].Root)}}
	name := h.Hash()
	done, err := s.ledger.Execute(ctx, ledger.ExecuteInput{Parent: tx.Hash(h.Parent), Block: tx.Hash(name), Height: uint64(h.Height), Body: built.Body, Want: c})
	if err != nil {
		return final, err
	}
	if err := s.ledger.Finalise(ctx, tx.Hash(name)); err != nil {
		return final, err
	}
	final.Headers = []*consensus.Header{&h}
	for range echoes {
		top := final.Headers[len(final.Headers)-1]
		final.Headers = append(final.Headers, consensus.Echo(top, top.View+1))
	}
	if final.Cert, err = s.certify(final.Headers[echoes]); err != nil {
		return final, err
	}
	block := &proof.Block{Final: final, Body: built.Body, Credits: done.Credits}
	contents, err := block.Open()
	if err != nil {
		return final, err
	}
	cert, err := s.certify(&h) // what the other shard is shown
	if err != nil {
		return final, err
	}
	s.tip, s.blocks = &consensus.FinalHeader{Header: &h, Cert: cert}, append(s.blocks, contents)
	for k := range contents.Consumed {
		s.consumed[contents.Consumed[k].Receipt.Tx] = contents.Credit(k)
	}
	for _, o := range done.Opened {
		s.opened[done.IDs[o.Tx]] = o.ID
	}
	return final, nil
}

// certify signs a finalization by three of the four validators.
func (s *testshard) certify(h *consensus.Header) (consensus.Certificate, error) {
	cert := consensus.Certificate{
		Statement: consensus.Statement{Kind: consensus.Finalize, Shard: s.id, Epoch: h.Epoch, View: h.View, Block: h.Hash()},
		Signers:   consensus.NewSigners(len(s.now().secrets)),
	}
	var sigs []consensus.Signature
	for i, k := range s.now().secrets[:3] {
		cert.Signers.Add(i)
		sigs = append(sigs, k.Sign(consensus.VoteMessage(s.net.genesis.Hash(), cert.Statement)))
	}
	var err error
	cert.Signature, err = s.now().keys.Aggregate(sigs)
	return cert, err
}

// find is the block and index of a final transaction.
func (s *testshard) find(id tx.Hash) (*proof.Contents, int) {
	for _, b := range s.blocks {
		for i := range b.IDs {
			if b.IDs[i] == id {
				return b, i
			}
		}
	}
	return nil, 0
}

// The methods of api.Backend.

func (s *testshard) SubmitBatch(context.Context, uint64, *distill.Batch) error {
	return api.Refuse(api.Busy, "no batches here")
}

func (s *testshard) Submit(_ context.Context, _ uint64, txs []tx.Signed) []error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	out := make([]error, len(txs))
	for i := range txs {
		r, ok := s.ledger.Account(txs[i].From)
		switch {
		case !ok:
			out[i] = api.Refuse(api.UnknownAccount, "%s", txs[i].From)
		case txs[i].Nonce < r.Nonce:
			out[i] = api.Refuse(api.NonceTooLow, "the account is at %d", r.Nonce)
		default:
			s.pending = append(s.pending, txs[i])
		}
	}
	return out
}

func (s *testshard) Transaction(_ context.Context, id tx.Hash) (api.Transaction, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	t := api.Transaction{ID: proof.Digest(id), State: api.Unknown, Shard: s.id}
	if b, i := s.find(id); b != nil {
		t.State, t.Height, t.Success = api.Final, b.Header.Height, &b.Body.Outcomes[i]
	}
	if account, ok := s.opened[id]; ok {
		t.Opened = &account
	}
	return t, nil
}

func (s *testshard) Proof(_ context.Context, id tx.Hash) (*proof.Finality, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if b, i := s.find(id); b != nil {
		return b.Finality(i), nil
	}
	return nil, api.Refuse(api.NotFound, "transaction %s", id)
}

func (s *testshard) Credit(_ context.Context, id tx.Hash) (*proof.Credit, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if c := s.consumed[id]; c != nil {
		return c, nil
	}
	return nil, api.Refuse(api.NotFinal, "transaction %s", id)
}

func (s *testshard) Account(_ context.Context, id tx.ID) (api.Account, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	r, ok := s.ledger.Account(id)
	if !ok {
		return api.Account{}, api.Refuse(api.NotFound, "account %s does not exist", id)
	}
	return api.Account{ID: id, Shard: s.id, Height: s.tip.Header.Height, Balance: r.Balance, Nonce: r.Nonce, Key: r.Key}, nil
}

// Signers implements api.Backend: no account signs batches.
func (s *testshard) Signers(ids []tx.ID) (*api.Signers, error) {
	return &api.Signers{Accounts: make([]api.Signer, len(ids))}, nil
}

func (s *testshard) AccountProof(_ context.Context, id tx.ID) (*proof.Account, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	path, err := s.ledger.AccountProof(id)
	if err != nil {
		return nil, err
	}
	at := int(path.Height) + consensus.StateLag
	if path.Height == 0 || at > len(s.blocks) {
		return nil, api.Refuse(api.NotFinal, "no state root is final yet")
	}
	return &proof.Account{ID: id, Final: s.blocks[at-1].Block.Final, Path: path}, nil
}

func (s *testshard) AccountsProof(_ context.Context, ids []tx.ID) (*proof.Accounts, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	path, err := s.ledger.AccountsProof(ids)
	if err != nil {
		return nil, err
	}
	at := int(path.Height) + consensus.StateLag
	if path.Height == 0 || at > len(s.blocks) {
		return nil, api.Refuse(api.NotFinal, "no state root is final yet")
	}
	return &proof.Accounts{IDs: ids, Final: s.blocks[at-1].Block.Final, Path: path}, nil
}

func (s *testshard) Block(_ context.Context, height consensus.Height) (*proof.Block, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if height == 0 || int(height) > len(s.blocks) {
		return nil, api.Refuse(api.NotFinal, "block %d", height)
	}
	return s.blocks[height-1].Block, nil
}

func (s *testshard) FinalHeight() consensus.Height {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	return s.tip.Header.Height
}

func (s *testshard) Status() api.Status {
	st := s.ledger.Stats()
	v := s.net.genesis
	return api.Status{
		Version: "test", Commit: "0123456789abcdef", Chain: v.Name, Genesis: proof.Digest(v.Hash()), Shard: s.id, Shards: 2, Role: "validator",
		FinalHeight: s.FinalHeight(), Accounts: st.Accounts, Supply: api.Supply{Balances: v.Supplies[s.id], Genesis: v.Supplies[s.id]},
		Memory: api.Memory{RSSMiB: 1021.5, Kinds: []api.MemoryKind{
			{Kind: "records", Bytes: 640e6, PerAccount: 64}, {Kind: "upper_tree", Bytes: 2e6, PerAccount: 0.2}, {Kind: "heap", Bytes: 80 << 20, PerAccount: 8},
		}},
		Writes:     api.Writes{Loaded: api.WriteRate{Seconds: 10, EngineBytesPerDay: 90e9, LogBytesPerDay: 12.34e9, ProcessBytesPerDay: 110e9}},
		Validators: []api.ValidatorStatus{{Name: "a-node", Power: 100, Self: true, LastVoteMs: 12}, {Index: 1, Name: "b-node", Power: 100, Lag: 1234, LastVoteMs: -1}},
	}
}

func (s *testshard) Network(context.Context) (api.Network, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	n := api.Network{Shards: []api.ShardStatus{{Shard: 0, Height: s.tip.Header.Height, TPS: 1234.5}, {Shard: 1, StaleMs: 65_000}}}
	for i, u := range s.net.urls {
		n.APIs = append(n.APIs, api.NodeAPI{Shard: consensus.ShardID(i), URL: u})
	}
	return n, nil
}

func (s *testshard) Evidence(from, limit int) api.Evidence {
	return apitest.Evidence(s.evidence, from, limit)
}

func (s *testshard) Handovers(_ context.Context, shard consensus.ShardID, from consensus.Epoch, limit int) (consensus.Epoch, []*proof.Handover, error) {
	if shard != s.id {
		return 0, nil, api.Refuse(api.WrongShard, "this node is of shard %d", s.id)
	}
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	at := min(int(from), len(s.handovers))
	return s.now().committee.Epoch, s.handovers[at:min(at+limit, len(s.handovers))], nil
}

func (s *testshard) Ready() error { return nil }

// TestWallet runs the wallet's scripts on a testnet that all of them share.
func TestWallet(t *testing.T) {
	home := config.Home(filepath.Join(t.TempDir(), "home"))
	n := startTestnet(t, home)
	friend, err := keys.Store{Dir: home.Wallets()}.Get("friend")
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, "testdata/wallet", map[string]string{
		"NET": string(home), "API": n.urls[0], "API1": n.urls[1], "FRIEND": friend.Accounts[0].ID.String(), "FRIENDKEY": hex.EncodeToString(friend.Key[:]),
		"STRANGER": tx.MakeID(3, 77).String(), "NOWHERE": tx.MakeID(5000, 0).String(),
		"STRANGER1": tx.MakeID(200, 77).String(), "HASH": n.genesis.Hash().String(),
	}, nil)
}

// TestLight runs the light client's script on a testnet whose committees change when the script says so.
func TestLight(t *testing.T) {
	home := config.Home(filepath.Join(t.TempDir(), "home"))
	n := startTestnet(t, home)
	demo := must(keys.Store{Dir: home.Wallets()}.Get("demo"))
	env := map[string]string{"NET": string(home), "API": n.urls[0], "API1": n.urls[1], "DEMO": demo.Accounts[0].ID.String()}
	runScripts(t, "testdata/light", env, map[string]func(*testscript.TestScript, bool, []string){
		"handover": func(ts *testscript.TestScript, _ bool, args []string) { // handover SHARD COUNT: so many epochs end
			for range must(strconv.Atoi(args[1])) {
				n.handOver(t, consensus.ShardID(must(strconv.Atoi(args[0]))))
			}
		},
		"contradict": func(ts *testscript.TestScript, _ bool, args []string) { // contradict FILE SEAT: evidence of shard 0's present epoch
			n.mu.Lock()
			defer n.mu.Unlock()
			s, seat := n.shards[0], must(strconv.Atoi(args[1]))
			p := must(evidence.FromVotes(n.genesis.Hash(), s.now().committee, s.vote(seat, consensus.Finalize, 0xaa), s.vote(seat, consensus.Finalize, 0xbb)))
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), must(evidence.EncodeFile([]*evidence.Proof{p})), 0o600))
		},
		"accountproof": func(ts *testscript.TestScript, _ bool, args []string) { // accountproof FILE PATH: what shard 0's node answers
			resp, err := http.Get(n.urls[0] + args[1])
			ts.Check(err)
			defer resp.Body.Close()
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), must(io.ReadAll(resp.Body)), 0o600))
		},
	})
}
