package peers

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// fakeNode answers JSON-RPC as a CometBFT node does: a mempool that makes a block of what it has whenever cut is called.
type fakeNode struct {
	mu      sync.Mutex
	full    int // transactions that fit; more are refused as CometBFT does
	waiting [][]byte
	blocks  [][][]byte
	events  []chan int
}

func (n *fakeNode) serve(t *testing.T) *rpc {
	mux := http.NewServeMux()
	mux.HandleFunc("/", n.post)
	mux.Handle("/websocket", websocket.Handler(n.socket))
	s := httptest.NewServer(mux)
	r := newRPC(strings.TrimPrefix(s.URL, "http://"))
	t.Cleanup(func() { r.close(); s.Close() })
	return r
}

func (n *fakeNode) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.blocks = append(n.blocks, n.waiting)
	n.waiting = nil
	for _, e := range n.events {
		e <- len(n.blocks)
	}
}

type request struct {
	ID     int    `json:"id"`
	Method string `json:"method"`
	Params struct {
		Tx     []byte `json:"tx"`
		Height string `json:"height"`
		Query  string `json:"query"`
	} `json:"params"`
}

func (n *fakeNode) post(w http.ResponseWriter, req *http.Request) {
	var raw json.RawMessage
	if err := json.NewDecoder(req.Body).Decode(&raw); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var many []request
	if json.Unmarshal(raw, &many) != nil {
		many = make([]request, 1)
		if err := json.Unmarshal(raw, &many[0]); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	var answers []string
	for _, r := range many {
		answers = append(answers, n.answer(r))
	}
	if len(answers) == 1 {
		fmt.Fprint(w, answers[0])
		return
	}
	fmt.Fprintf(w, "[%s]", strings.Join(answers, ","))
}

func (n *fakeNode) answer(r request) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	ok := func(result string) string { return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":%s}`, r.ID, result) }
	bad := func(data string) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"error":{"code":-32603,"message":"Internal error","data":%q}}`, r.ID, data)
	}
	switch r.Method {
	case "status":
		return ok(fmt.Sprintf(`{"node_info":{},"sync_info":{"latest_block_height":"%d"}}`, len(n.blocks)))
	case "broadcast_tx_sync":
		switch {
		case strings.Count(string(r.Params.Tx), "=") != 1:
			return ok(`{"code":2,"log":"invalid tx format","hash":"00"}`)
		case len(n.waiting) == n.full:
			return bad("mempool is full")
		}
		n.waiting = append(n.waiting, r.Params.Tx)
		return ok(`{"code":0,"data":"","log":"","codespace":"","hash":"00"}`)
	case "block":
		var height int
		if _, err := fmt.Sscan(r.Params.Height, &height); err != nil || height < 1 || height > len(n.blocks) {
			return bad("height must be less than or equal to the current blockchain height")
		}
		var txs []string
		for _, tx := range n.blocks[height-1] {
			txs = append(txs, `"`+base64.StdEncoding.EncodeToString(tx)+`"`)
		}
		return ok(fmt.Sprintf(`{"block_id":{},"block":{"header":{"height":"%d"},"data":{"txs":[%s]},"last_commit":null}}`, height, strings.Join(txs, ",")))
	}
	return bad("no such method")
}

func (n *fakeNode) socket(c *websocket.Conn) {
	var r request
	if err := websocket.JSON.Receive(c, &r); err != nil || r.Params.Query != "tm.event='NewBlockHeader'" {
		return
	}
	events := make(chan int, 16)
	n.mu.Lock()
	n.events = append(n.events, events)
	n.mu.Unlock()
	_, _ = c.Write([]byte(`{"jsonrpc":"2.0","id":1,"result":{}}`)) // the test sees if not
	for height := range events {
		if height < 0 {
			_, _ = c.Write([]byte(`{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"Server error","data":"subscription was cancelled"}}`))
			continue
		}
		fmt.Fprintf(c, `{"jsonrpc":"2.0","id":1,"result":{"query":"tm.event='NewBlockHeader'","data":{"type":"tendermint/event/NewBlockHeader","value":{"header":{"version":{"block":"11"},"chain_id":"c","height":"%d"}}},"events":{"tm.event":["NewBlockHeader"]}}}`, height)
	}
}

// subscribed waits until somebody follows.
func (n *fakeNode) subscribed(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		n.mu.Lock()
		is := len(n.events) > 0
		n.mu.Unlock()
		if is {
			return
		}
	}
	t.Fatal("nobody subscribed")
}

func (n *fakeNode) hangUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		close(e)
	}
	n.events = nil
}

// TestRPC: what is submitted comes back in the blocks that follow, in order.
func TestRPC(t *testing.T) {
	node := &fakeNode{full: 100}
	r := node.serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	network := &cometNetwork{rpcs: []*rpc{r}}
	got := make(chan [][]byte, 16)
	ended := make(chan error, 1)
	go func() { ended <- network.Follow(ctx, func(txs [][]byte) { got <- txs }) }()
	node.subscribed(t)
	for block, count := range []int{2, 1, 0, 3} {
		var txs [][]byte
		for i := range count {
			txs = append(txs, network.Transaction(uint64(100*block+i), 97))
		}
		if count > 0 {
			if err := network.Submit(ctx, 0, txs); err != nil {
				t.Fatal(err)
			}
		}
		node.cut()
		back := <-got
		if len(back) != count {
			t.Fatalf("block %d has %d transactions, want %d", block, len(back), count)
		}
		for i, tx := range back {
			if n, ok := network.Number(tx); !ok || n != uint64(100*block+i) || len(tx) != 97 {
				t.Errorf("block %d, transaction %d is %q", block, i, tx)
			}
		}
	}
	if height, err := r.height(ctx); err != nil || height != 4 {
		t.Errorf("height %d, %v", height, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("following ended with %v", err)
	}
	node.hangUp()
}

// TestRPCRefusals: what a node does not take is counted, and the reason is told; a subscription that ends is an error.
func TestRPCRefusals(t *testing.T) {
	node := &fakeNode{full: 2}
	r := node.serve(t)
	network := &cometNetwork{rpcs: []*rpc{r}}
	var refused *Refused
	err := network.Submit(t.Context(), 0, [][]byte{network.Transaction(1, 97), []byte("nothing"), network.Transaction(2, 97), network.Transaction(3, 97)})
	if !errors.As(err, &refused) || refused.Count != 2 || !strings.Contains(refused.Why, "mempool is full") {
		t.Errorf("got %v", err)
	}
	err = network.Submit(t.Context(), 0, [][]byte{[]byte("nothing")})
	if !errors.As(err, &refused) || refused.Count != 1 || !strings.Contains(refused.Why, "invalid tx format") {
		t.Errorf("got %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- network.Follow(t.Context(), func([][]byte) {}) }()
	node.subscribed(t)
	node.mu.Lock()
	node.events[0] <- -1
	node.mu.Unlock()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "subscription was cancelled") {
		t.Errorf("got %v", err)
	}
	node.hangUp()
}

// TestTransaction: transactions have the wanted length and the form that the key-value application takes.
func TestTransaction(t *testing.T) {
	n := &cometNetwork{}
	seen := map[string]bool{}
	for _, number := range []uint64{0, 1, 2, 1 << 40, 1<<64 - 1} {
		for _, size := range []int{0, 18, 33, 97, 200} {
			b := n.Transaction(number, size)
			if len(b) != max(size, 18) || strings.Count(string(b), "=") != 1 || strings.HasSuffix(string(b), "=") || strings.Contains(string(b), ":") {
				t.Errorf("%d, %d bytes: %q", number, size, b)
			}
			if back, ok := n.Number(b); !ok || back != number {
				t.Errorf("%q is number %d, want %d", b, back, number)
			}
			seen[string(b)] = true
		}
	}
	if len(seen) != 20 { // 0 and 18 bytes are the same
		t.Errorf("%d different transactions", len(seen))
	}
	for _, other := range []string{"", "key=value", "0123456789abcdex=1", "0123456789abcdef:1"} {
		if _, ok := n.Number([]byte(other)); ok {
			t.Errorf("%q has a number", other)
		}
	}
}

// TestConfigure: settings take the place of those that are there, and one that is not, or is of another kind, is an error.
func TestConfigure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	write := func() {
		t.Helper()
		if err := os.WriteFile(path, []byte("log_level = \"info\" # how much\n[p2p]\nladdr = \"tcp://0.0.0.0:26656\"\nsend_rate = 5120000\n[rpc]\nladdr = \"x\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if err := configure(path, []setting{{"", "log_level", "error"}, {"p2p", "send_rate", int64(7)}}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if text := string(b); err != nil || !strings.Contains(text, `log_level = "error"`) || !strings.Contains(text, "send_rate = 7") || !strings.Contains(text, `laddr = "x"`) {
		t.Errorf("%v:\n%s", err, text)
	}
	for _, s := range []setting{{"", "gone", true}, {"p2p", "gone", true}, {"gone", "laddr", "x"}, {"p2p", "send_rate", "7"}} {
		write()
		if err := configure(path, []setting{s}); err == nil {
			t.Errorf("%+v was set", s)
		}
	}
}

func TestAddresses(t *testing.T) {
	got, err := addresses("aa@127.0.0.1:26656,bb@127.0.0.2:26656", 1, 11000)
	if err != nil || got[0].value != "tcp://127.0.0.1:11002" || got[1].value != "aa@127.0.0.1:11000,bb@127.0.0.1:11002" || got[2].value != "tcp://127.0.0.1:11003" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := addresses("127.0.0.1:26656", 0, 11000); err == nil {
		t.Error("a peer without an id was taken")
	}
}

// FuzzRPC: whatever a node answers is refused or read, and never more than it says.
func FuzzRPC(f *testing.F) {
	for _, s := range []string{
		`[{"id":0,"result":{"code":0}},{"id":1,"error":{"code":1,"message":"m","data":"d"}}]`, `{"result":{"block":{"data":{"txs":["AAAA",""]}}}}`,
		`{"result":{"data":{"value":{"header":{"height":"12"}}}}}`, `{"result":{}}`, `[]`, `null`, `[null]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if all, err := parseAnswers(b); err == nil {
			for i := range all {
				_ = taken(&all[i])
				if txs, err := parseBlock(all[i].Result); err == nil {
					for _, tx := range txs {
						(&cometNetwork{}).Number(tx)
					}
				}
			}
		}
		_, _ = parseEvent(b)
	})
}

// TestComet measures the real program for a moment, in each version that `make bench-peers` has installed.
func TestComet(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real networks")
	}
	for _, version := range CometVersions {
		t.Run(version, func(t *testing.T) {
			a := Comet(version, "../../bin/peers", "go")
			if !a.(*comet).installed() {
				t.Skipf("%s is not installed: make bench-peers does that", a.Name())
			}
			trials := of(t)
			trials.Validators, trials.TxBytes, trials.Drain = 2, 97, 10*time.Second
			f, err := Open(a, trials).Trial(t.Context(), 100)
			if err != nil {
				t.Fatal(err)
			}
			if f.Max == 0 || f.RSSMiB == 0 || strings.Contains(f.Why, "not committed") || strings.Contains(f.Why, "refused") {
				t.Errorf("figures %+v", f)
			}
		})
	}
}
