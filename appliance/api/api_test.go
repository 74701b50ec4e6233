package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tutti/appliance/api"
	"tutti/appliance/api/apitest"
	"tutti/appliance/metrics"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/consensus/evidence"
	"tutti/state/pool"
	"tutti/state/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a server over a fake node of shard 0, with a transfer to shard 1 in block 1 and its credit known.
type world struct {
	net     *prooftest.Network
	backend *apitest.Backend
	across  tx.Signed
	url     string
	http    *http.Client
	log     *bytes.Buffer
}

// start serves on a port of its own until the test ends. change may edit the options.
func start(t *testing.T, change func(*api.Options)) (*api.Server, *world) {
	t.Helper()
	n := prooftest.New(t, "api", 2)
	w := &world{net: n, backend: apitest.New(n, 0), log: &bytes.Buffer{}}
	w.across = n.Transfer(n.Account(0, 1), n.Account(1, 7), 25, 1)
	debit, _ := n.Send(w.across)
	w.backend.Append(debit)

	m, err := metrics.New(prometheus.NewRegistry(), "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	text := func(s string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) })
	}
	opt := api.Options{
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelError})), Params: w.backend.Params(),
		Genesis: []byte(`{"chain":"testnet"}`), Metrics: text("tutti_up 1\n"), Dashboard: text("<h1>Tutti</h1>"), Counters: &m.API,
	}
	if change != nil {
		change(&opt)
	}
	s, err := api.New(w.backend, opt)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	w.url, w.http = "http://"+l.Addr().String(), &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		w.http.CloseIdleConnections()
	})
	return s, w
}

// answer is an HTTP answer read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (w *world) do(t *testing.T, method, path, contentType string, body []byte) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, b}
}

func (a answer) code() api.Code {
	var e api.Answer
	_ = json.Unmarshal(a.body, &e)
	return e.Error.Code
}

func (a answer) detail() string {
	var e api.Answer
	_ = json.Unmarshal(a.body, &e)
	return e.Error.Detail
}

func decode[T any](t *testing.T, a answer) (v T) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return v
}

// scattered asks for accounts of n partitions.
func scattered(n int) string {
	q := url.Values{}
	for i := range n {
		q.Add("id", tx.MakeID(uint16(i), 1).String())
	}
	return q.Encode()
}

// contradiction is a proof by its form.
func contradiction(view consensus.View) *evidence.Proof {
	return &evidence.Proof{Votes: &[2]consensus.Vote{
		{Statement: consensus.Statement{Kind: consensus.Nullify, View: view}},
		{Statement: consensus.Statement{Kind: consensus.Finalize, View: view, Block: consensus.Hash{1}}},
	}}
}

// TestHandoversAreBounded: an answer ends before it is too long, and the next one goes on there.
func TestHandoversAreBounded(t *testing.T) {
	_, w := start(t, nil)
	h, _ := w.net.HandOver(0, 0)
	for top := h.End.Last; len(h.End.Echoes) < consensus.MaxEchoes; { // half a megabyte
		top = consensus.Echo(top, top.View+1)
		h.End.Echoes = append(h.End.Echoes, top)
	}
	h.End.Cert = w.net.Certify(0, h.End.Echoes[consensus.MaxEchoes-1])
	w.backend.AddHandovers(h, h, h, h, h, h)
	a := w.do(t, "GET", "/v1/handovers?shard=0&from=1", "", nil)
	got := decode[api.Handovers](t, a)
	if n := len(got.Handovers); n != 4 || got.Newest != 7 || len(a.body) > api.MaxHandoversAnswer {
		t.Errorf("%d hand-overs in %d bytes", n, len(a.body))
	}
	if _, err := proof.DecodeHandover(got.Handovers[3].Handover); err != nil {
		t.Error(err)
	}
}

func TestRoutes(t *testing.T) {
	d := load(t)
	_, w := start(t, nil)
	for view := range consensus.View(3) {
		w.backend.AddEvidence(contradiction(view))
	}
	for range 3 {
		h, _ := w.net.HandOver(0, 1)
		w.backend.AddHandovers(h)
	}
	id := w.net.ID(w.across).String()
	account := w.net.Account(0, 9).String()
	for _, tc := range []struct {
		name, pattern, path string
		status              int
		want                string // in the answer
	}{
		{"transaction", "/v1/transactions/{id}", "/v1/transactions/" + id, 200, `"state":"final","shard":0,"height":1,"success":true`},
		{"transaction unknown", "/v1/transactions/{id}", "/v1/transactions/" + strings.Repeat("0", 64), 200, `"state":"unknown"`},
		{"transaction id short", "/v1/transactions/{id}", "/v1/transactions/12", 400, `"malformed"`},
		{"transaction id upper", "/v1/transactions/{id}", "/v1/transactions/" + strings.Repeat("A", 64), 400, `lower-case`},
		{"proof", "/v1/transactions/{id}/proof", "/v1/transactions/" + id + "/proof", 200, `"format":"tutti-finality/1"`},
		{"proof of nothing", "/v1/transactions/{id}/proof", "/v1/transactions/" + strings.Repeat("0", 64) + "/proof", 404, `"not_found"`},
		{"proof id", "/v1/transactions/{id}/proof", "/v1/transactions/x/proof", 400, `"malformed"`},
		{"credit elsewhere", "/v1/transactions/{id}/credit", "/v1/transactions/" + id + "/credit", 409, `"not_final"`},
		{"credit id", "/v1/transactions/{id}/credit", "/v1/transactions/x/credit", 400, `"malformed"`},
		{"account", "/v1/accounts/{id}", "/v1/accounts/" + account, 200, `"balance":"9","nonce":4`},
		{"account mistyped", "/v1/accounts/{id}", "/v1/accounts/" + "z" + account[1:], 400, `did you mean ` + account},
		{"account elsewhere", "/v1/accounts/{id}", "/v1/accounts/" + w.net.Account(1, 9).String(), 421, `"wrong_shard"`},
		{"account proof fails inside", "/v1/accounts/{id}/proof", "/v1/accounts/" + account + "/proof", 500, `"internal"`},
		{"account proof id", "/v1/accounts/{id}/proof", "/v1/accounts/x/proof", 400, `"malformed"`},
		{"accounts proof early", "/v1/accounts/proof", "/v1/accounts/proof?id=" + account + "&id=" + w.net.Account(0, 8).String(), 409, `2 accounts`},
		{"accounts proof twice", "/v1/accounts/proof", "/v1/accounts/proof?id=" + account + "&id=" + account, 409, `1 accounts`},
		{"accounts proof of none", "/v1/accounts/proof", "/v1/accounts/proof", 400, `name the accounts`},
		{"accounts proof id", "/v1/accounts/proof", "/v1/accounts/proof?id=x", 400, `"malformed"`},
		{"accounts proof too many", "/v1/accounts/proof", "/v1/accounts/proof?id=x" + strings.Repeat("&id=x", api.MaxProofAccounts), 413, `257 accounts, limit 256`},
		{"accounts proof scattered", "/v1/accounts/proof", "/v1/accounts/proof?" + scattered(api.MaxProofChunks+1), 413, `in 65 chunks of 4,096, limit 64`},
		{"accounts proof of fewer", "/v1/accounts/proof", "/v1/accounts/proof?" + scattered(api.MaxProofChunks), 409, `64 accounts`},
		{"block", "/v1/blocks/{height}", "/v1/blocks/1", 200, `"transactions":1,"succeeded":1`},
		{"block latest with ids", "/v1/blocks/{height}", "/v1/blocks/latest?ids=1", 200, `"ids":["` + id},
		{"block ahead", "/v1/blocks/{height}", "/v1/blocks/2", 409, `"not_final"`},
		{"block name", "/v1/blocks/{height}", "/v1/blocks/first", 400, `"malformed"`},
		{"block negative", "/v1/blocks/{height}", "/v1/blocks/-1", 400, `"malformed"`},
		{"block flag", "/v1/blocks/{height}", "/v1/blocks/1?ids=yes", 400, `ids must be 1 or 0`},
		{"block flag twice", "/v1/blocks/{height}", "/v1/blocks/1?ids=1&ids=0", 400, `given once`},
		{"block parameter", "/v1/blocks/{height}", "/v1/blocks/1?id=1", 400, `"unknown_parameter"`},
		{"raw block ahead", "/v1/blocks/{height}/raw", "/v1/blocks/7/raw", 409, `"not_final"`},
		{"raw block genesis", "/v1/blocks/{height}/raw", "/v1/blocks/0/raw", 404, `"not_found"`},
		{"follow parameter", "/v1/finality", "/v1/finality?bodies=1", 400, `"unknown_parameter"`},
		{"follow flag", "/v1/finality", "/v1/finality?body=all", 400, `"malformed"`},
		{"evidence", "/v1/evidence", "/v1/evidence", 200, `{"total":3,"from":0,"proofs":[{"id":"`},
		{"evidence page", "/v1/evidence", "/v1/evidence?from=2&limit=5", 200, `{"total":3,"from":2,"proofs":[{"id":"`},
		{"evidence end", "/v1/evidence", "/v1/evidence?from=3", 200, `{"total":3,"from":3,"proofs":[]}`},
		{"evidence limit", "/v1/evidence", "/v1/evidence?limit=101", 400, `limit must be a number from 0 to 100`},
		{"evidence from", "/v1/evidence", "/v1/evidence?from=-1", 400, `from must be a number`},
		{"evidence twice", "/v1/evidence", "/v1/evidence?from=1&from=2", 400, `given once`},
		{"evidence parameter", "/v1/evidence", "/v1/evidence?after=1", 400, `"unknown_parameter"`},
		{"hand-overs", "/v1/handovers", "/v1/handovers?shard=0", 200, `{"shard":0,"from":0,"newest":4,"handovers":[{"epoch":1,"height":2,"block":"`},
		{"hand-overs page", "/v1/handovers", "/v1/handovers?shard=0&from=2&limit=1", 200, `"from":2,"newest":4,"handovers":[{"epoch":2,"height":3,`},
		{"hand-overs end", "/v1/handovers", "/v1/handovers?shard=0&from=4", 200, `{"shard":0,"from":4,"newest":4,"handovers":[]}`},
		{"hand-overs of no shard", "/v1/handovers", "/v1/handovers?from=4", 400, `name the shard`},
		{"hand-overs elsewhere", "/v1/handovers", "/v1/handovers?shard=1", 421, `"wrong_shard"`},
		{"hand-overs shard", "/v1/handovers", "/v1/handovers?shard=65536", 400, `shard must be a number from 0 to 65535`},
		{"hand-overs from", "/v1/handovers", "/v1/handovers?shard=0&from=-1", 400, `from must be a number`},
		{"hand-overs limit", "/v1/handovers", "/v1/handovers?shard=0&limit=65", 400, `limit must be a number from 0 to 64`},
		{"hand-overs parameter", "/v1/handovers", "/v1/handovers?shard=0&to=4", 400, `"unknown_parameter"`},
		{"status", "/v1/status", "/v1/status", 200, `"final_height":1`},
		{"network", "/v1/network", "/v1/network", 200, `"shards":[{"shard":0`},
		{"params", "/v1/params", "/v1/params", 200, `"max_transactions":4096`},
		{"errors", "/v1/errors", "/v1/errors", 200, `"code":"nonce_gap"`},
		{"genesis", "/v1/genesis", "/v1/genesis", 200, `{"chain":"testnet"}`},
		{"health", "/healthz", "/healthz", 200, "ok"},
		{"ready", "/readyz", "/readyz", 200, "ready"},
		{"metrics", "/metrics", "/metrics", 200, "tutti_up 1"},
		{"openapi", "/openapi.yaml", "/openapi.yaml", 200, "openapi: 3.1.0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := w.do(t, "GET", tc.path, "", nil)
			if a.status != tc.status || !strings.Contains(string(a.body), tc.want) {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if a.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Error("no nosniff")
			}
			status := strconv.Itoa(a.status)
			d.checkAnswer(t, "GET", tc.pattern, status, a.body)
		})
	}
	if strings.Contains(string(w.do(t, "GET", "/v1/accounts/"+account+"/proof", "", nil).body), "fire") {
		t.Error("an inner error is shown to the client")
	}
	if !strings.Contains(w.log.String(), "the disk is on fire") {
		t.Error("an inner error is not logged")
	}
	if a := w.do(t, "GET", "/", "", nil); string(a.body) != "<h1>Tutti</h1>" {
		t.Errorf("dashboard: %s", a.body)
	}
	if a := w.do(t, "HEAD", "/v1/status", "", nil); a.status != 200 || len(a.body) != 0 {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
}

func TestNoSuchRoute(t *testing.T) {
	_, w := start(t, func(o *api.Options) { o.Metrics, o.Dashboard = nil, nil })
	for _, tc := range []struct {
		method, path, allow string
		status              int
		code                api.Code
	}{
		{"GET", "/", "", 404, api.NotFound},
		{"GET", "/metrics", "", 404, api.NotFound},
		{"GET", "/v1/nothing", "", 404, api.NotFound},
		{"GET", "/v1/accounts/", "", 404, api.NotFound},
		{"POST", "/v1/status", "GET, HEAD", 405, api.MethodNotAllowed},
		{"DELETE", "/v1/transactions", "GET, HEAD, POST", 405, api.MethodNotAllowed},
		{"PUT", "/elsewhere", "", 404, api.NotFound},
	} {
		a := w.do(t, tc.method, tc.path, "", nil)
		if a.status != tc.status || a.code() != tc.code || a.header.Get("Allow") != tc.allow {
			t.Errorf("%s %s: %d %s, Allow %q", tc.method, tc.path, a.status, a.body, a.header.Get("Allow"))
		}
	}
}

func TestReady(t *testing.T) {
	_, w := start(t, nil)
	w.backend.SetReady(errors.New("catching up: 812 blocks behind"))
	a := w.do(t, "GET", "/readyz", "", nil)
	if a.status != 503 || a.code() != api.NotReady || !strings.Contains(a.detail(), "812 blocks") || a.header.Get("Retry-After") != "1" {
		t.Errorf("%d %s %v", a.status, a.body, a.header)
	}
	if a := w.do(t, "GET", "/healthz", "", nil); a.status != 200 {
		t.Errorf("a node that is not ready is alive all the same: %d", a.status)
	}
}

func TestProofsVerify(t *testing.T) {
	_, w := start(t, nil)
	golden, err := os.ReadFile("../proof/testdata/account.json")
	if err != nil {
		t.Fatal(err)
	}
	p, err := proof.DecodeAccount(golden)
	if err != nil {
		t.Fatal(err)
	}
	w.backend.SetAccount(p)
	got := w.do(t, "GET", "/v1/accounts/"+p.ID.String()+"/proof", "", nil)
	load(t).checkAnswer(t, "GET", "/v1/accounts/{id}/proof", strconv.Itoa(got.status), got.body)
	if again, err := proof.DecodeAccount(got.body); err != nil || !bytes.Equal(again.Path.Append(nil), p.Path.Append(nil)) {
		t.Errorf("%s, %v", got.body, err)
	}
	if golden, err = os.ReadFile("../proof/testdata/accounts.json"); err != nil {
		t.Fatal(err)
	}
	all, err := proof.DecodeAccounts(golden)
	if err != nil {
		t.Fatal(err)
	}
	w.backend.SetAccounts(all)
	got = w.do(t, "GET", "/v1/accounts/proof?id="+all.IDs[1].String()+"&id="+all.IDs[0].String(), "", nil)
	load(t).checkAnswer(t, "GET", "/v1/accounts/proof", strconv.Itoa(got.status), got.body)
	if again, err := proof.DecodeAccounts(got.body); err != nil || !bytes.Equal(again.Path.Append(nil), all.Path.Append(nil)) {
		t.Errorf("%s, %v", got.body, err)
	}
	f, err := proof.DecodeFinality(w.do(t, "GET", "/v1/transactions/"+w.net.ID(w.across).String()+"/proof", "", nil).body)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := f.Verify(w.net.Trust); err != nil || p.Settled || !p.CrossShard {
		t.Errorf("%+v, %v", p, err)
	}
	a := w.do(t, "GET", "/v1/blocks/latest/raw", "", nil)
	b, err := proof.DecodeBlock(a.body)
	if err != nil || a.header.Get("Content-Type") != "application/octet-stream" {
		t.Fatal(a.header, err)
	}
	if c, err := b.Verify(w.net.Trust); err != nil || c.IDs[0] != w.net.ID(w.across) {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestCreditRoute is the destination's side: shard 1 proves the credit.
func TestCreditRoute(t *testing.T) {
	n := prooftest.New(t, "credit", 2)
	across := n.Transfer(n.Account(0, 1), n.Account(1, 7), 25, 1)
	_, credit := n.Send(across)
	backend := apitest.New(n, 1)
	backend.Append(credit)
	m, err := metrics.New(prometheus.NewRegistry(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(backend, api.Options{Log: slog.New(slog.DiscardHandler), Params: backend.Params(), Counters: &m.API})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, httptest.NewRequest("GET", "/v1/transactions/"+n.ID(across).String()+"/credit", nil))
	load(t).checkAnswer(t, "GET", "/v1/transactions/{id}/credit", strconv.Itoa(rec.Code), rec.Body.Bytes())
	c, err := proof.DecodeCredit(rec.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(n.Trust); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	n := prooftest.New(t, "options", 1)
	m, err := metrics.New(prometheus.NewRegistry(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]api.Options{
		"no log":         {Counters: &m.API},
		"no counters":    {Log: slog.New(slog.DiscardHandler)},
		"negative rate":  {Log: slog.New(slog.DiscardHandler), Counters: &m.API, Rates: api.Rates{ClientRequests: -1}},
		"negative limit": {Log: slog.New(slog.DiscardHandler), Counters: &m.API, QueueEvents: -1},
	} {
		if _, err := api.New(apitest.New(n, 0), o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestRefusals(t *testing.T) {
	seen := map[api.Code]bool{}
	for _, r := range api.Refusals() {
		if seen[r.Code] {
			t.Errorf("%s is in the table twice", r.Code)
		}
		seen[r.Code] = true
		for _, s := range []string{r.Message, r.Remedy} {
			if len(s) < 15 || !strings.HasSuffix(s, ".") {
				t.Errorf("%s: %q is no sentence", r.Code, s)
			}
		}
		if http.StatusText(r.Status) == "" || r.Status < 400 {
			t.Errorf("%s: status %d", r.Code, r.Status)
		}
	}
	for _, c := range pool.Codes() {
		if !seen[api.Code(c)] {
			t.Errorf("the pool's code %s is not in the table", c)
		}
	}
	err := fmt.Errorf("wrapped: %w", api.Refuse(api.Pruned, "block %d", 3))
	if !errors.Is(err, &api.Error{Code: api.Pruned}) || errors.Is(err, &api.Error{Code: api.Busy}) {
		t.Error("errors.Is does not go by the code")
	}
	if err.Error() != "wrapped: pruned: block 3" {
		t.Error(err)
	}
}

func TestSupplyConserved(t *testing.T) {
	s := api.Supply{Balances: 80, Fees: 3, Deposits: 2, Treasury: 1, Inflow: 6, Outflow: 20, Genesis: 100}
	if !s.Conserved() {
		t.Error("86 = 100 + 6 - 20")
	}
	if s.Fees++; s.Conserved() {
		t.Error("a unit too many is not noticed")
	}
}

func TestServeStops(t *testing.T) {
	_, w := start(t, func(o *api.Options) { o.Timeout = 500 * time.Millisecond })
	// a connection that never sends a request must not keep Serve from stopping: start's cleanup checks that
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}
