package node_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/appliance/config"
	"tutti/appliance/keys"
	"tutti/appliance/localnet"
	"tutti/appliance/metrics"
	"tutti/appliance/node"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

func TestMain(m *testing.M) {
	if home := os.Getenv(homeOfProcess); home != "" {
		runProcess(config.Home(home))
	}
	goleak.VerifyTestMain(m)
}

// stopLimit is how long a node may take to stop.
const stopLimit = 10 * time.Second

// network is shards of 4 validators in this process, over real ports and disks.
type network struct {
	*localnet.Network
	t      *testing.T
	nodes  map[string]*running
	client *client.Client
	nonce  map[uint64]uint32 // by member of the crowd

	mu   sync.Mutex
	logs []string // warnings and errors
}

type running struct {
	url    string
	cancel context.CancelFunc
	done   chan error
}

// Write takes a line of a node's log.
func (n *network) Write(line []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.logs = append(n.logs, string(line))
	return len(line), nil
}

// startNetwork starts shards of four, with a client of each shard's first.
func startNetwork(t *testing.T, shards int) *network {
	n := startOf(t, localnet.Options{
		Shards: shards, Validators: 4, Config: func(c *config.Config) { c.Verify.Workers, c.API.MaxSubscribers = 1, 1 },
	})
	var first []string
	for s := range shards {
		first = append(first, fmt.Sprintf("s%dv0", s))
	}
	n.client = n.newClient(first...)
	return n
}

// start runs nodes and waits until they listen.
func (n *network) start(names ...string) {
	n.t.Helper()
	for _, name := range names {
		n.begin(name, node.AsItIs)
	}
}

// begin is start by the operator's word.
func (n *network) begin(name string, word node.Source) {
	n.t.Helper()
	home := config.Home(filepath.Join(string(n.Home), "nodes", name))
	cfg, err := config.Load(home.Config())
	if err != nil {
		n.t.Fatal(err)
	}
	password, err := keys.ReadPasswordFile(home.KeyPassword())
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // steps end before their nodes
	r := &running{cancel: cancel, done: make(chan error, 1)}
	n.nodes[name] = r
	listens := make(chan string, 1)
	go func() {
		r.done <- node.Run(ctx, node.Options{
			Home: home, Config: cfg, Password: password, Source: word, Build: node.Build{Version: "test", Commit: "abc"},
			Log: slog.New(slog.NewTextHandler(n, &slog.HandlerOptions{Level: slog.LevelWarn})), Ready: func(addr string) { listens <- addr },
		})
	}()
	select {
	case addr := <-listens:
		r.url = "http://" + addr
	case err := <-r.done:
		n.t.Fatalf("%s did not start: %v", name, err)
	case <-time.After(time.Minute):
		n.t.Fatalf("%s did not start", name)
	}
}

// stop ends nodes as SIGTERM does.
func (n *network) stop(names ...string) {
	n.t.Helper()
	for _, name := range names {
		n.nodes[name].cancel()
	}
	limit := time.After(stopLimit)
	for _, name := range names {
		select {
		case err := <-n.nodes[name].done:
			if err != nil {
				n.t.Errorf("%s ended with %v", name, err)
			}
		case <-limit:
			n.t.Fatalf("%s did not stop within %s", name, stopLimit)
		}
		delete(n.nodes, name)
	}
}

// get reads JSON from a node's API.
func get[T any](n *network, name, path string) (v T, status int) {
	n.t.Helper()
	b, status := n.raw(name, path)
	if err := json.Unmarshal(b, &v); err != nil {
		n.t.Fatalf("%s%s: %v: %.200s", name, path, err, b)
	}
	return v, status
}

func (n *network) raw(name, path string) ([]byte, int) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, n.nodes[name].url+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	for range 40 {
		if err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond) // a node that has copied its data changes its API, and may not answer for a moment
		resp, err = http.DefaultClient.Do(req)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return b, resp.StatusCode
}

// until asks again and again, for at most a minute.
func (n *network) until(what string, ok func() bool) {
	n.t.Helper()
	limit, beat := time.After(time.Minute), time.NewTicker(50*time.Millisecond)
	defer beat.Stop()
	for !ok() {
		select {
		case <-beat.C:
		case <-limit:
			n.t.Fatalf("%s: not within a minute", what)
		}
	}
}

// sign makes a member of the crowd sign its next transaction. Even members are on shard 0, odd ones on shard 1.
func (n *network) sign(member uint64, t tx.Tx) tx.Signed {
	t.From, t.Nonce, t.Expiry = n.Population.CrowdIDs()[member], n.nonce[member], 50_000
	n.nonce[member]++
	s := tx.Signed{Tx: t}
	key := n.Crowd.Key(member)
	s.Signature = key.Sign(t.Message(tx.Hash(n.Genesis.Hash())))
	return s
}

func (n *network) member(k int) tx.ID { return n.Population.CrowdIDs()[k] }

func (n *network) id(s tx.Signed) string { return s.TxID(tx.Hash(n.Genesis.Hash())).String() }

func TestNetwork(t *testing.T) {
	n := startNetwork(t, 2)
	defer n.client.Close()
	for _, step := range []struct {
		name string
		run  func(*network, *testing.T)
	}{
		{"agree", (*network).agree},
		{"pay another shard", (*network).payAcross},
		{"open an account", (*network).open},
		{"pay nobody", (*network).payNobody},
		{"refuse", (*network).refuse},
		{"metrics", (*network).metricsAreFed},
		{"overview", (*network).overview},
		{"restart", (*network).restart},
		{"carry a state in a file", (*network).carryState},
		{"a home serves one node", (*network).oneAtATime},
		{"lose the data", (*network).loseData},
		{"damage the data", (*network).damageData},
	} {
		if !t.Run(step.name, func(t *testing.T) { n.t = t; step.run(n, t) }) {
			break
		}
	}
	n.t = t
	n.client.Close()
	n.stop(slices.Collect(maps.Keys(n.nodes))...) // all of them, but where a step has failed
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.logs) > 0 {
		t.Errorf("in the logs:\n%s", strings.Join(n.logs, ""))
	}
}

// agree: every node becomes ready and follows its shard.
func (n *network) agree(*testing.T) {
	for _, name := range n.Names {
		n.until(name+" is ready", func() bool { _, status := n.raw(name, "/readyz"); return status == http.StatusOK })
	}
}

// payAcross: a transfer to another shard arrives, is proven with its credit, and every node of either shard tells so.
func (n *network) payAcross(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	before, err := n.client.Account(ctx, n.member(1))
	if err != nil {
		t.Fatal(err)
	}
	s := n.sign(0, tx.Tx{Kind: tx.Transfer, To: n.member(1), Amount: 700})
	if err := n.client.Submit(ctx, []tx.Signed{s})[0]; err != nil {
		t.Fatal(err)
	}
	p, file, err := n.client.Await(ctx, &s)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Success || !p.CrossShard || !p.Settled || p.Credit == nil || p.Credit.Outcome != "credited" || p.Where.Shard != 0 || p.Credit.Where.Shard != 1 {
		t.Errorf("proven: %+v", p)
	}
	if _, err := file.Verify(n.client.Trust()); err != nil {
		t.Error(err)
	}
	for _, name := range n.Names[:4] {
		n.until(name+" knows the credit", func() bool {
			got, _ := get[api.Transaction](n, name, "/v1/transactions/"+n.id(s))
			return got.State == api.Credited && got.CrossShard && *got.Success && got.Height == p.Where.Height && got.Credit.Height == p.Credit.Where.Height
		})
	}
	after, err := n.client.Account(ctx, n.member(1))
	if err != nil || after.Balance != before.Balance+700 {
		t.Errorf("balance %d, was %d: %v", after.Balance, before.Balance, err)
	}
	n.until("the balance is under a certified root", func() bool {
		st, _, err := n.client.ProvenAccount(ctx, n.member(1))
		return err == nil && st.Balance == after.Balance
	})
	all, proofs, err := n.client.ProvenAccounts(ctx, []tx.ID{n.member(1), n.member(0), n.member(3)}) // of two shards
	if err != nil || len(proofs) != 2 || all[0].Balance != after.Balance || all[0].Where.Shard != 1 || !all[1].Exists || !all[2].Exists {
		t.Errorf("several accounts: %+v, %d proofs, %v", all, len(proofs), err)
	}
	// Again: as good as accepted while it waits, and refused when its nonce is used.
	if err := n.client.Submit(ctx, []tx.Signed{s})[0]; !errors.Is(err, &api.Error{Code: api.NonceTooLow}) {
		t.Errorf("sent again: %v", err)
	}
}

func (n *network) open(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	key := n.Crowd.Key(99)
	s := n.sign(0, tx.Tx{Kind: tx.Open, Amount: 40, Key: key.Public()})
	if err := n.client.Submit(ctx, []tx.Signed{s})[0]; err != nil {
		t.Fatal(err)
	}
	if p, _, err := n.client.Await(ctx, &s); err != nil || !p.Success || !p.Settled {
		t.Fatalf("%+v: %v", p, err)
	}
	for _, name := range n.Names[:4] {
		n.until(name+" names the account", func() bool {
			got, _ := get[api.Transaction](n, name, "/v1/transactions/"+n.id(s))
			if got.Opened == nil {
				return false
			}
			a, err := n.client.Account(ctx, *got.Opened)
			return err == nil && [32]byte(a.Key) == key.Public() && a.Balance == 40
		})
	}
}

// payNobody: money for an account that another shard does not have comes back.
func (n *network) payNobody(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	before, err := n.client.Account(ctx, n.member(2))
	if err != nil {
		t.Fatal(err)
	}
	s := n.sign(2, tx.Tx{Kind: tx.Transfer, To: tx.MakeID(n.member(1).Partition(), 1_000_000), Amount: 900})
	if err := n.client.Submit(ctx, []tx.Signed{s})[0]; err != nil {
		t.Fatal(err)
	}
	if p, _, err := n.client.Await(ctx, &s); err != nil || !p.Settled || p.Credit.Outcome != "returned" {
		t.Fatalf("%+v: %v", p, err)
	}
	if got, _ := get[api.Transaction](n, "s0v0", "/v1/transactions/"+n.id(s)); got.State != api.Returned {
		t.Errorf("state %s", got.State)
	}
	n.until("all but the fee is back", func() bool {
		a, err := n.client.Account(ctx, n.member(2))
		return err == nil && a.Balance == before.Balance-n.Genesis.Parameters.Fees[0]
	})
}

func (n *network) refuse(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	forged := n.sign(4, tx.Tx{Kind: tx.Transfer, To: n.member(6), Amount: 1})
	forged.Signature[3] ^= 1
	n.nonce[4]--
	if err := n.client.Submit(ctx, []tx.Signed{forged})[0]; !errors.Is(err, &api.Error{Code: api.WrongSignature}) {
		t.Errorf("forged: %v", err)
	}
	for path, want := range map[string]api.Code{
		"/v1/transactions/" + strings.Repeat("0", 64) + "/proof":                        api.NotFound,
		"/v1/transactions/" + strings.Repeat("0", 64) + "/credit":                       api.NotFinal,
		"/v1/accounts/" + n.member(1).String():                                          api.WrongShard,
		"/v1/accounts/" + n.member(1).String() + "/proof":                               api.WrongShard,
		"/v1/accounts/proof?id=" + n.member(0).String() + "&id=" + n.member(1).String(): api.WrongShard,
		"/v1/accounts/" + tx.MakeID(0, ledger.AccountsPerPartition).String() + "/proof": api.NotFound,
		"/v1/accounts/proof?id=" + tx.MakeID(0, ledger.AccountsPerPartition).String():   api.NotFound,
		"/v1/blocks/0":         api.NotFound,
		"/v1/blocks/999999999": api.NotFinal,
	} {
		if got, _ := get[api.Answer](n, "s0v1", path); got.Error.Code != want {
			t.Errorf("%s: %s, want %s", path, got.Error.Code, want)
		}
	}
	if got, _ := get[api.Transaction](n, "s0v1", "/v1/transactions/"+strings.Repeat("0", 64)); got.State != api.Unknown {
		t.Errorf("a transaction that nobody sent is %s", got.State)
	}
}

// metricsAreFed: every metric that is declared is there, with a value that makes sense after what the network has done.
func (n *network) metricsAreFed(t *testing.T) {
	stream, err := http.Get(n.nodes["s0v0"].url + "/v1/finality") // a subscriber
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	n.raw("s0v0", "/v1/status?nonsense=1")
	n.raw("s0v0", "/metrics")
	values := scrape(n, "s0v0")
	declared := declaredMetrics(t)
	// From, to (0: no bound), of the sum over all labels.
	type bounds struct{ from, to float64 }
	any := bounds{0, 0}
	for name, b := range map[string]bounds{
		"tutti_build_info":     {1, 1},
		"tutti_consensus_view": {1, 1e6}, "tutti_consensus_head_height": {1, 1e6}, "tutti_consensus_final_height": {1, 1e6},
		"tutti_consensus_final_timestamp_seconds": {float64(time.Now().Add(-time.Minute).Unix()), float64(time.Now().Add(time.Minute).Unix())},
		"tutti_consensus_final_blocks_total":      {1, 1e6}, "tutti_consensus_evidence_total": {0, -1},
		"tutti_consensus_misbehaviour_total": {0, -1}, "tutti_consensus_dropped_total": any,
		"tutti_consensus_finality_seconds": {1, 0}, "tutti_consensus_log_sync_seconds": {1, 0},
		"tutti_execution_transactions_total": {3, 0}, "tutti_execution_receipts_total": {3, 0},
		"tutti_execution_body_bytes": {1, 0}, "tutti_execution_step_seconds": {3, 0},
		"tutti_state_accounts": {9, 100}, "tutti_state_supply_units": {1e10, 0}, "tutti_state_table_bytes": {1024, 0},
		"tutti_state_memory_bytes": {1024, 0}, "tutti_storage_written_bytes_total": {1024, 0}, "tutti_storage_process_written_bytes_total": any,
		"tutti_storage_stalls_total": {0, -1}, "tutti_storage_stall_seconds_total": {0, -1}, "tutti_storage_debt_bytes": any,
		"tutti_storage_compactions_total": any, "tutti_storage_table_bytes": any,
		"tutti_state_disk_bytes": {1024, 0}, "tutti_state_unfinalised_blocks": {0, 10},
		"tutti_verify_signatures_total": {3, 0}, "tutti_verify_cache_hits_total": any, "tutti_verify_queue_full_total": {0, -1},
		"tutti_verify_waiting_signatures": {0, 10}, "tutti_verify_batches_total": {0, -1}, "tutti_pool_transactions": {0, 10}, "tutti_pool_bytes": {0, 1000},
		"tutti_pool_admitted_total": {1, 0}, "tutti_pool_refused_total": any, "tutti_pool_dropped_total": {1, 0}, "tutti_pool_resent_total": any,
		"tutti_pool_batches": {0, -1}, "tutti_pool_batched_transactions": {0, -1}, "tutti_pool_batched_bytes": {0, -1}, "tutti_pool_batch_admitted_total": {0, -1},
		"tutti_pool_batch_refused_total": {0, -1}, "tutti_pool_batch_dropped_total": {0, -1}, "tutti_pool_batch_resent_total": {0, -1},
		"tutti_net_peers": {1, 7}, "tutti_net_messages_total": {10, 0}, "tutti_net_bytes_total": {1000, 0}, "tutti_net_wire_bytes_total": {0, 0}, "tutti_net_dropped_total": any,
		"tutti_sync_active": {0, 1}, "tutti_sync_runs_total": any, "tutti_sync_blocks_total": any,
		"tutti_api_requests_total": {1, 0}, "tutti_api_request_seconds": {1, 0}, "tutti_api_in_flight_requests": {1, 10},
		"tutti_api_refused_total": {1, 0}, "tutti_api_transactions_total": {1, 0}, "tutti_api_subscribers": {1, 1},
		"tutti_api_cut_subscribers_total": {0, -1}, "tutti_consensus_epoch": {0, -1}, "tutti_consensus_epoch_blocks_left": {0, -1}, "tutti_consensus_seat": any,
	} {
		sum, ok := values[name]
		switch {
		case !ok:
			t.Errorf("%s is not there", name)
		case sum < b.from || b.to > 0 && sum > b.to || b.to < 0 && sum != 0:
			t.Errorf("%s is %g, want %g to %g", name, sum, b.from, b.to)
		}
		declared = slices.DeleteFunc(declared, func(d string) bool { return d == name })
	}
	if len(declared) > 0 {
		t.Errorf("this test does not know %v", declared)
	}
	for series, want := range map[string]float64{
		`tutti_execution_step_seconds_count{step="build"}`: 1, `tutti_execution_step_seconds_count{step="certify"}`: 1,
		`tutti_execution_step_seconds_count{step="finalise"}`: 1, `tutti_execution_transactions_total{outcome="success"}`: 3,
		`tutti_execution_receipts_total{event="sent"}`: 2, `tutti_execution_receipts_total{event="credited"}`: 1,
		`tutti_net_messages_total{class="gossip",direction="received"}`: 1, `tutti_net_messages_total{class="vote",direction="sent"}`: 1,
	} {
		if got := values[series]; got < want {
			t.Errorf("%s is %g, want at least %g", series, got, want)
		}
	}
	refused := 0.0 // by the node that got the forged one
	for _, name := range n.Names[:4] {
		refused += scrape(n, name)[`tutti_pool_refused_total{code="wrong_signature"}`]
	}
	if refused != 1 {
		t.Errorf("%g forged signatures are counted, want 1", refused)
	}
	if values["tutti_execution_transactions_total"] != values[`tutti_execution_transactions_total{outcome="success"}`] {
		t.Error("an honest leader's block skips nothing")
	}
}

// scrape reads a node's metrics: each series, and under the bare name the sum over all labels (of a histogram, the count).
func scrape(n *network, name string) map[string]float64 {
	n.t.Helper()
	out := map[string]float64{}
	b, _ := n.raw(name, "/metrics")
	lines := bufio.NewScanner(strings.NewReader(string(b)))
	for lines.Scan() {
		line := lines.Text()
		cut := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || cut < 0 || strings.Contains(line, "_bucket{") {
			continue
		}
		v, err := strconv.ParseFloat(line[cut+1:], 64)
		if err != nil {
			n.t.Fatalf("%s: %v", line, err)
		}
		series := line[:cut]
		out[series] = v
		bare, _, labelled := strings.Cut(series, "{")
		if h, ok := strings.CutSuffix(bare, "_count"); ok {
			out[h] += v
		} else if labelled && !strings.HasSuffix(bare, "_sum") {
			out[bare] += v
		}
	}
	return out
}

// declaredMetrics are the names in appliance/metrics.
func declaredMetrics(t *testing.T) (names []string) {
	reg := prometheus.NewRegistry()
	if _, err := metrics.New(reg, "", ""); err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 1000)
	reg.Describe(descs)
	close(descs)
	name := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range descs {
		names = append(names, name.FindStringSubmatch(d.String())[1])
	}
	return names
}

// overview: each node shows both shards and all APIs.
func (n *network) overview(t *testing.T) {
	n.until("everybody is heard of", func() bool {
		got, _ := get[api.Network](n, "s1v3", "/v1/network")
		return len(got.Shards) == 2 && len(got.APIs) == 8 && got.Shards[0].Height > 0
	})
	got, _ := get[api.Network](n, "s1v3", "/v1/network")
	for i, s := range got.Shards {
		if int(s.Shard) != i || len(s.Validators) != 4 {
			t.Errorf("shard %d: %+v", i, s)
		}
		for k, v := range s.Validators {
			if v.Name != fmt.Sprintf("s%dv%d", i, k) || v.Self != (i == 1 && k == 3) || !v.Connected {
				t.Errorf("validator %+v", v)
			}
		}
	}
	for _, a := range got.APIs {
		if a.URL != n.nodes[a.Name].url {
			t.Errorf("API of %s is %s, want %s", a.Name, a.URL, n.nodes[a.Name].url)
		}
	}
	status, _ := get[api.Status](n, "s0v2", "/v1/status")
	if !status.Supply.Conserved() || status.Role != "validator" || status.ValidatorIndex != 2 || status.FinalHeight <= consensus.StateLag || status.StateRoot == [32]byte{} {
		t.Errorf("status %+v", status)
	}
}

// restart: a node that was away remembers what was final and comes up to date.
func (n *network) restart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := n.sign(6, tx.Tx{Kind: tx.Transfer, To: n.member(3), Amount: 5})
	if err := n.client.Submit(ctx, []tx.Signed{s})[0]; err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.client.Await(ctx, &s); err != nil {
		t.Fatal(err)
	}
	const name = "s0v3"
	n.until("the node has it", func() bool {
		got, _ := get[api.Transaction](n, name, "/v1/transactions/"+n.id(s))
		return got.State == api.Credited
	})
	before, _ := get[api.Status](n, name, "/v1/status")
	n.stop(name)
	later := n.sign(6, tx.Tx{Kind: tx.Transfer, To: n.member(3), Amount: 6}) // finality goes on without it
	if err := n.client.Submit(ctx, []tx.Signed{later})[0]; err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.client.Await(ctx, &later); err != nil {
		t.Fatal(err)
	}
	n.start(name)
	after, _ := get[api.Status](n, name, "/v1/status")
	if after.FinalHeight < before.FinalHeight || after.StateHeight < before.StateHeight || after.StateRoot == [32]byte{} {
		t.Errorf("final height %d, state %d of %s; was %d, %d", after.FinalHeight, after.StateHeight, after.StateRoot, before.FinalHeight, before.StateHeight)
	}
	if got, _ := get[api.Transaction](n, name, "/v1/transactions/"+n.id(s)); got.State != api.Final && got.State != api.Credited {
		t.Errorf("what was credited before is %s after the restart", got.State)
	}
	if _, status := n.raw(name, "/v1/transactions/"+n.id(s)+"/proof"); status != http.StatusOK {
		t.Errorf("its proof: HTTP status %d", status)
	}
	n.until("it catches up", func() bool {
		got, _ := get[api.Transaction](n, name, "/v1/transactions/"+n.id(later))
		_, ready := n.raw(name, "/readyz")
		return got.State == api.Credited && ready == http.StatusOK
	})
}

// oneAtATime: a second node on a home that is in use is refused, and so is a port that is taken. One that is told to stop
// before it has started has nothing to complain about.
func (n *network) oneAtATime(t *testing.T) {
	home := config.Home(filepath.Join(string(n.Home), "nodes", "s1v2"))
	run := func(home config.Home, limit time.Duration) error {
		cfg, err := config.Load(home.Config())
		if err != nil {
			t.Fatal(err)
		}
		password, err := keys.ReadPasswordFile(home.KeyPassword())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return node.Run(ctx, node.Options{Home: home, Config: cfg, Password: password, Log: slog.New(slog.DiscardHandler)})
	}
	if err := run(home, 20*time.Second); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second node in one home: %v", err)
	}
	other := config.Home(filepath.Join(t.TempDir(), "other"))
	if err := os.CopyFS(string(other), os.DirFS(string(home))); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{other.VotingKey(), other.NodeKey(), other.KeyPassword()} {
		if err := os.Chmod(secret, 0o600); err != nil { // copies get what the umask leaves
			t.Fatal(err)
		}
	}
	if err := run(other, 20*time.Second); err == nil || !strings.Contains(err.Error(), "another node on this machine runs with the voting key") {
		t.Errorf("a second node with one key: %v", err)
	}
	addr := strings.TrimPrefix(n.nodes["s1v2"].url, "http://")
	n.stop("s1v2")
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(home, 20*time.Second); err == nil || !strings.Contains(err.Error(), "api.listen") {
		t.Errorf("the API's port is taken: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := run(home, 0); err != nil {
		t.Errorf("told to stop at once: %v", err)
	}
	n.start("s1v2")
}
