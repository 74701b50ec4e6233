package dashboard_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tutti/appliance/api"
	"tutti/appliance/api/apitest"
	"tutti/appliance/dashboard"
	"tutti/appliance/metrics"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/state/tx"
)

// screenshot makes TestScreenshot save the picture in README.md: go test ./appliance/dashboard -run TestScreenshot
// -screenshot http://127.0.0.1:9700, of a network with load.
var screenshot = flag.String("screenshot", "", "address of a running node to take docs/dashboard.png of")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestScreenshot(t *testing.T) {
	if *screenshot == "" {
		return // nothing to test
	}
	const width, most = 1200, 200 << 10
	p := startBrowser(t).open(t, *screenshot, width, "prefers-color-scheme=light", "prefers-reduced-motion=reduce")
	p.until("the network is shown", "document.querySelectorAll('#shards tbody tr').length >= 8 && document.querySelectorAll('#blocks tbody tr').length === 12")
	p.until("a block has transactions", "[...document.querySelectorAll('#blocks tbody tr')].some((r) => +r.cells[2].innerText > 0)")
	eval[any](p, "document.getElementById('newest').click()")
	p.says("#steps", "Proven")
	p.quiet(*screenshot)
	height := eval[float64](p, "document.getElementById('steps').getBoundingClientRect().bottom + scrollY + 16")
	var shot struct{ Data []byte }
	p.decode(p.do("Page.captureScreenshot", map[string]any{
		"format": "png", "captureBeyondViewport": true, "clip": map[string]any{"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
	}), &shot)
	if len(shot.Data) > most {
		t.Errorf("the picture has %d bytes, at most %d", len(shot.Data), most)
	}
	if err := os.MkdirAll("../../docs", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("../../docs/dashboard.png", shot.Data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// fake is a node of shard 0 of two whose figures the test sets.
type fake struct {
	*apitest.Backend
	t      *testing.T
	net    *prooftest.Network
	server *api.Server
	url    string

	mu     sync.Mutex // guards what follows
	status api.Status
	shards []api.ShardStatus
	states map[tx.Hash]api.Transaction
	proofs map[tx.Hash]*proof.Finality
	broken bool // answers with nothing but 500
}

func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// Status implements api.Backend.
func (f *fake) Status() api.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.FinalHeight = f.FinalHeight()
	return s
}

// Network implements api.Backend.
func (f *fake) Network(context.Context) (api.Network, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return api.Network{Shards: f.shards}, nil
}

// Transaction implements api.Backend.
func (f *fake) Transaction(_ context.Context, id tx.Hash) (api.Transaction, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := f.states[id]; ok {
		return t, nil
	}
	return api.Transaction{ID: proof.Digest(id), State: api.Unknown}, nil
}

// Proof implements api.Backend.
func (f *fake) Proof(_ context.Context, id tx.Hash) (*proof.Finality, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.proofs[id]; p != nil {
		return p, nil
	}
	return nil, api.Refuse(api.NotFinal, "not yet")
}

// block makes the next final block, with so many transactions, and publishes it.
func (f *fake) block(txs int) *proof.Block {
	var all []tx.Signed
	for i := range txs {
		all = append(all, f.net.Transfer(f.net.Account(0, 1), f.net.Account(0, 2), 5, uint32(1000*int(f.FinalHeight())+i)))
	}
	f.net.Add(0, all, nil)
	b := f.net.Finalise(0)[0]
	f.Append(b)
	f.server.Publish(b)
	return b
}

func validator(i int, change func(*api.ValidatorStatus)) api.ValidatorStatus {
	v := api.ValidatorStatus{Index: i, Name: fmt.Sprintf("v%d", i), Power: 10, Connected: true, LastHeight: 1234, LastVoteMs: 90}
	if change != nil {
		change(&v)
	}
	return v
}

// startFake serves the page over a node with 14 blocks.
func startFake(t *testing.T) *fake {
	t.Helper()
	net := prooftest.New(t, "dashboard", 2)
	f := &fake{Backend: apitest.New(net, 0), t: t, net: net, states: map[tx.Hash]api.Transaction{}, proofs: map[tx.Hash]*proof.Finality{}}
	f.status = api.Status{
		Version: "1.2.3", Commit: "abc123", Chain: "testnet", Genesis: proof.Digest(net.Genesis), Shards: 2, Role: "validator", View: 1300,
		StateRoot: proof.Digest{7}, StateHeight: 1232, Accounts: 10_000, PeersConnected: 7, UptimeS: 3 * 3600, DiskMiB: 88,
		Pool: api.PoolStatus{Txs: 12, Limit: 200_000}, Memory: api.Memory{RSSMiB: 70},
		FinalityHistogram: []api.Bucket{{UpToMs: 100, Count: 3}, {UpToMs: 200, Count: 40}, {UpToMs: 1000, Count: 2}, {UpToMs: 120_000, Count: 1}},
	}
	f.shards = []api.ShardStatus{
		{Shard: 0, Height: 1234, TPS: 25.4, FinalityMs: api.Quantiles{P50: 152, P99: 380}, Validators: []api.ValidatorStatus{
			validator(0, func(v *api.ValidatorStatus) { v.Self = true }),
			validator(1, nil),
			validator(2, func(v *api.ValidatorStatus) { v.Connected = false }),
			validator(3, func(v *api.ValidatorStatus) { v.Lag = 9 }),
		}},
		{Shard: 1, Height: 4321, TPS: 1200.3, FinalityMs: api.Quantiles{P50: 160, P99: 412}, StaleMs: 1500, Validators: []api.ValidatorStatus{
			validator(0, nil), validator(1, func(v *api.ValidatorStatus) { v.LastVoteMs = -1 }),
		}},
	}
	page, err := dashboard.Handler()
	if err != nil {
		t.Fatal(err)
	}
	m, err := metrics.New(prometheus.NewRegistry(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if f.server, err = api.New(f, api.Options{
		Log: slog.New(slog.DiscardHandler), Params: f.Params(), Dashboard: page, Counters: &m.API, Rates: api.Rates{ClientRequests: 1000},
	}); err != nil {
		t.Fatal(err)
	}
	for i := range 14 {
		f.block(i % 3)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		broken := f.broken
		f.mu.Unlock()
		if broken {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		f.server.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	f.url = server.URL
	return f
}

// text is what a part of the page says.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return strings.Join(strings.Fields(eval[string](p, fmt.Sprintf("document.querySelector(%q).innerText", selector))), " ")
}

func (p *tab) says(selector, want string) {
	p.t.Helper()
	p.until(selector+" says "+want, fmt.Sprintf("document.querySelector(%q)?.innerText.replace(/\\s+/g, ' ').includes(%q)", selector, want))
}

// TestPage runs every check of the page in one browser.
func TestPage(t *testing.T) {
	b := startBrowser(t)
	for name, test := range map[string]func(*testing.T, *browser, *fake){
		"shows the network":       showsTheNetwork,
		"follows a transfer":      followsATransfer,
		"follows inside a shard":  followsInsideAShard,
		"what can't be followed":  whatCannotBeFollowed,
		"says how the node does":  saysHowTheNodeDoes,
		"by keyboard alone":       byKeyboardAlone,
		"fits a phone":            fitsAPhone,
		"structure":               structure,
		"moves only if one may":   movesOnlyIfOneMay,
		"keeps what stays":        keepsWhatStays,
		"comes back by itself":    comesBackByItself,
		"never by colour alone":   neverByColourAlone,
		"the policy is in effect": policyIsInEffect,
	} {
		t.Run(name, func(t *testing.T) { test(t, b, startFake(t)) })
	}
}

func showsTheNetwork(t *testing.T, b *browser, f *fake) {
	p := b.open(t, f.url, 1200)
	p.says("#health", "finalising")
	p.says("#chain", "testnet · genesis "+proof.Digest(f.net.Genesis).String()[:8]+" · 2 shards")
	p.says("#tps", "1,226")
	p.says("#p50", "160")
	p.says("#p99", "412")
	p.says("#voting", "3 of 6")
	for _, want := range []string{
		"Shard 0", "height 1,234 · 25.4 tx/s · final in 152 ms, 99 of 100 in 380 ms", "v0 10 1,234 0 ● this node", "v1 10 1,234 0 ● voting",
		"v2 10 1,234 0 ✕ not connected", "v3 10 1,234 9 ▲ behind", "Shard 1", "height 4,321 · 1,200 tx/s", "v1 10 1,234 0 ▲ no vote seen",
	} {
		p.says("#shards", want)
	}
	p.says("#histogram", "up to 100 ms 3")
	p.says("#histogram", "100 ms – 200 ms 40")
	p.says("#histogram", "200 ms – 1 s 2")
	p.says("#histogram", "over 1 s 1")
	if got := eval[string](p, "[...document.querySelectorAll('meter')].map((m) => m.value + '/' + m.max).join()"); got != "3/40,40/40,2/40,1/40" {
		t.Errorf("bars %s", got)
	}
	for _, want := range []string{"validator 0 of shard 0", "1.2.3 (abc123)", "12 of 200,000", "10,000", "70 MiB", "88 MiB", "3 hours", "after block 1,232"} {
		p.says("#node", want)
	}
	// The blocks that were there, and then a new one on top.
	p.until("twelve blocks with their hashes", "[...document.querySelectorAll('#blocks tbody tr')].filter((r) => r.cells[4].innerText.length === 16).length === 12")
	if got := p.text("#blocks tbody tr th"); got != "14" {
		t.Errorf("the newest block is %s", got)
	}
	block := f.block(7)
	p.says("#blocks tbody tr", fmt.Sprintf("15 %d 7", block.Final.Header().View))
	p.says("#blocks tbody tr", proof.Digest(block.Final.Header().Hash()).String()[:16])
	if n := eval[int](p, "document.querySelectorAll('#blocks tbody tr').length"); n != 12 {
		t.Errorf("%d rows", n)
	}
	f.set(func(f *fake) { f.shards[0].Height = 1300 })
	p.says("#shards", "height 1,300")
	p.quiet(f.url)
}

func (f *fake) state(t api.Transaction) {
	f.set(func(f *fake) { f.states[tx.Hash(t.ID)] = t })
}

func followsATransfer(t *testing.T, b *browser, f *fake) {
	transfer := f.net.Transfer(f.net.Account(0, 1), f.net.Account(1, 2), 30, 1)
	id := f.net.ID(transfer)
	p := b.open(t, f.url, 1200)
	p.says("#health", "finalising")
	eval[any](p, "document.getElementById('txid').focus()")
	p.write(" " + strings.ToUpper(id.String()[:32]) + id.String()[32:])
	p.key("Enter")
	p.says("#steps", "Not known to this node yet")
	at := api.Transaction{ID: proof.Digest(id), State: api.Pooled}
	f.state(at)
	p.says("#steps", "Accepted: it waits for a block")
	at.State, at.Height = api.Included, 15
	f.state(at)
	p.says("#steps", "In block 15, which is being voted on")
	yes := true
	at.State, at.Success, at.CrossShard = api.Final, &yes, true
	f.state(at)
	p.says("#steps", "Final in block 15 of shard 0: it cannot be undone")
	p.says("#steps", "On its way to the receiver's shard")
	debit, credit := f.net.Send(transfer)
	f.set(func(f *fake) {
		d, err := debit.Open()
		if err != nil {
			t.Fatal(err)
		}
		c, err := credit.Open()
		if err != nil {
			t.Fatal(err)
		}
		f.proofs[id] = d.Finality(0)
		f.proofs[id].Credit = c.Credit(0)
		at.State, at.Credit = api.Credited, &api.CreditPlace{Shard: 1, Height: 1}
		f.states[id] = at
	})
	p.says("#steps", "Credited in block 1 of shard 1")
	p.says("#steps", "Proven: debit and credit, in blocks "+proof.Digest(debit.Final.Header().Hash()).String()[:8])
	p.says("#steps", "Save the proof")
	if n := eval[int](p, "document.querySelectorAll('#steps li').length"); n != 7 {
		t.Errorf("%d steps:\n%s", n, p.text("#steps"))
	}
	// What the link saves is a proof that verifies.
	saved := eval[string](p, "fetch(document.querySelector('#steps a').href).then((r) => r.text())")
	file, err := proof.DecodeFinality([]byte(saved))
	if err != nil {
		t.Fatal(err)
	}
	if proven, err := file.Verify(f.net.Trust); err != nil || !proven.Settled {
		t.Errorf("%+v: %v", proven, err)
	}
	p.quiet(f.url)
}

func followsInsideAShard(t *testing.T, b *browser, f *fake) {
	block := f.block(3)
	c, err := block.Open()
	if err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	f.set(func(f *fake) {
		f.states[c.IDs[2]] = api.Transaction{ID: proof.Digest(c.IDs[2]), State: api.Final, Height: 15, Success: &yes}
		f.proofs[c.IDs[2]] = c.Finality(2)
		f.states[c.IDs[0]] = api.Transaction{ID: proof.Digest(c.IDs[0]), State: api.Final, Height: 15, Success: &no}
		f.states[c.IDs[1]] = api.Transaction{ID: proof.Digest(c.IDs[1]), State: api.Returned, Height: 15, Success: &yes, CrossShard: true, Credit: &api.CreditPlace{Shard: 1}}
		f.proofs[c.IDs[0]], f.proofs[c.IDs[1]] = c.Finality(0), c.Finality(1)
	})
	f.block(0) // newer, but with nothing in it
	p := b.open(t, f.url, 1200)
	p.until("the block's transactions are counted", "[...document.querySelectorAll('#blocks tbody tr')][1]?.cells[2].innerText === '3'")
	eval[any](p, "document.getElementById('newest').click()")
	p.says("#steps", "Final in block 15 of shard 0: it cannot be undone")
	p.says("#steps", "Proven: block "+proof.Digest(block.Final.Header().Hash()).String()[:16])
	if got := eval[string](p, "document.getElementById('txid').value"); got != c.IDs[2].String() {
		t.Errorf("followed %s", got)
	}
	follow := func(id tx.Hash, want string) {
		t.Helper()
		eval[any](p, fmt.Sprintf("document.getElementById('txid').value = '%s'; document.querySelector('#follow button').click()", id))
		p.says("#steps", want)
		p.says("#steps", "Proven")
	}
	follow(c.IDs[0], "without effect: nothing was moved or paid")
	follow(c.IDs[1], "The receiver does not exist: the money goes back")
	p.quiet(f.url)
}

func whatCannotBeFollowed(t *testing.T, b *browser, f *fake) {
	p := b.open(t, f.url, 1200)
	p.says("#health", "finalising")
	eval[any](p, "document.getElementById('txid').value = 'xyz'; document.querySelector('#follow button').click()")
	p.says("#steps", "A transaction id has 64 hexadecimal digits.")
	p.until("the blocks are described", "[...document.querySelectorAll('#blocks tbody tr')].filter((r) => r.cells[2].innerText).length === 12")
	for range 12 { // push the blocks with transactions out
		f.block(0)
	}
	p.until("they are shown", "document.querySelector('#blocks th[scope=row]').innerText === '26' && document.querySelectorAll('#blocks tbody tr')[0].cells[2].innerText === '0'")
	eval[any](p, "document.getElementById('newest').click()")
	p.says("#steps", "None of the latest blocks of this shard has a transaction.")
	// An id whose proof the node refuses.
	id := tx.Hash{9}
	yes := true
	f.state(api.Transaction{ID: proof.Digest(id), State: api.Final, Success: &yes})
	p.quiet(f.url)
	eval[any](p, fmt.Sprintf("document.getElementById('txid').value = '%s'; document.querySelector('#follow button').click()", id))
	p.says("#steps", "This node says: It is not final yet, so there is no proof of it.")
}

func saysHowTheNodeDoes(t *testing.T, b *browser, f *fake) {
	p := b.open(t, f.url, 1200)
	p.says("#health", "● finalising")
	f.set(func(f *fake) { f.status.Syncing = true })
	p.says("#health", "▲ catching up")
	f.set(func(f *fake) {
		f.status.Sync = &api.SyncStatus{Step: "accounts", Share: 0.437, TotalBytes: 1}
	})
	p.says("#health", "▲ getting the state from other nodes: 43 %")
	f.set(func(f *fake) { f.status.Sync = nil })
	p.says("#health", "▲ catching up")
	p.quiet(f.url)
	f.set(func(f *fake) { f.status.Syncing, f.status.Stalled = false, true })
	p.says("#health", "✕ no new final block")
	f.set(func(f *fake) {
		f.status.Stalled = false
		f.shards[1].StaleMs = 65_000
	})
	p.says("#shards", "as of 65 seconds ago")
	p.says("#shards", "▲ no news")
	p.says("#voting", "2 of 6")
	f.set(func(f *fake) { f.shards[0].Validators[0].Lag = 5 })
	p.says("#shards", "▲ this node, behind")
	f.set(func(f *fake) { f.shards[0].Validators = nil }) // a smaller committee
	p.until("its rows go", "document.querySelectorAll('#shards article')[0].querySelectorAll('tbody tr').length === 0")
	p.quiet(f.url)
	f.set(func(f *fake) { f.broken = true })
	p.says("#health", "✕ this node does not answer")
	f.set(func(f *fake) { f.broken = false })
	p.says("#health", "● finalising")
}

func byKeyboardAlone(t *testing.T, b *browser, f *fake) {
	p := b.open(t, f.url, 1200)
	p.says("#health", "finalising")
	p.until("the blocks are described", "[...document.querySelectorAll('#blocks tbody tr')].filter((r) => r.cells[2].innerText).length === 12")
	focused := func() string {
		return eval[string](p, "document.activeElement.id || document.activeElement.className || document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
	}
	seen := func() bool { // the ring around the focus, and that it is in view
		return eval[bool](p, `(() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
			return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 && r.left >= 0 && r.right <= innerWidth && r.bottom > 0 && r.top < innerHeight; })()`)
	}
	p.key("Tab")
	if got := focused(); got != "skip" || !seen() {
		t.Errorf("the first stop is %q, visible %t", got, seen())
	}
	p.key("Enter")
	if got := eval[string](p, "location.hash"); got != "#main" {
		t.Errorf("skipped to %q", got)
	}
	for i := 0; focused() != "txid"; i++ {
		if i == 10 {
			t.Fatalf("the field is not reached; focus is on %q", focused())
		}
		p.key("Tab")
		if !seen() {
			t.Errorf("no focus is visible on %q", focused())
		}
	}
	p.write("nonsense")
	p.key("Enter")
	p.says("#steps", "64 hexadecimal digits")
	p.key("Tab")
	if got := focused(); got != "Follow" || !seen() {
		t.Errorf("behind the field is %q", got)
	}
	p.key("Tab")
	if got := focused(); got != "newest" || !seen() {
		t.Errorf("behind the button is %q", got)
	}
	p.key("Enter")
	p.until("the newest is followed", "document.getElementById('txid').value.length === 64")
	p.quiet(f.url)
}

func fitsAPhone(t *testing.T, b *browser, f *fake) {
	f.set(func(f *fake) {
		f.shards[0].Validators[1].Name = strings.Repeat("a-very-long-name-", 4)
		f.shards[0].Height, f.shards[0].TPS = 123_456_789, 123_456
		f.status.Chain = strings.Repeat("n", 64)
	})
	for _, width := range []int{320, 400, 768, 1200} {
		p := b.open(t, f.url, width)
		p.says("#shards", "a-very-long-name")
		p.says("#chain", "nnnn")
		p.until("the blocks are there", "document.querySelectorAll('#blocks tbody tr')[11]?.cells[4].innerText")
		eval[any](p, "document.getElementById('txid').value = 'f'.repeat(64); document.querySelector('#follow button').click()")
		p.says("#steps", "Not known")
		if w := eval[int](p, "document.documentElement.scrollWidth"); w > width {
			widest := eval[string](p, fmt.Sprintf("[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > %d && !e.closest('.scroll')).map((e) => e.tagName + '#' + e.id + '.' + e.className).slice(0, 8).join(' ')", width))
			t.Errorf("at %d px the page is %d px wide: %s", width, w, widest)
		}
		if small := eval[string](p, "[...document.querySelectorAll('button, input')].filter((e) => e.getBoundingClientRect().height < 44).map((e) => e.id || e.textContent).join()"); small != "" {
			t.Errorf("at %d px too small for a finger: %s", width, small)
		}
		p.quiet(f.url)
	}
}

// structure is what assistive technology needs, on the page as it is once filled.
func structure(t *testing.T, b *browser, f *fake) {
	p := b.open(t, f.url, 1200)
	p.says("#shards", "Shard 1")
	p.until("the blocks are there", "document.querySelectorAll('#blocks tbody tr').length === 12")
	for what, expression := range map[string]string{
		"the language is not named":                    "document.documentElement.lang === 'en' ? '' : 'html'",
		"the title is missing":                         "document.title ? '' : 'title'",
		"fields without a label":                       "list('input, select, textarea', (e) => e.labels.length !== 1)",
		"buttons and links without a name":             "list('button, a', (e) => !e.textContent.trim())",
		"images without alt":                           "list('img', (e) => !e.hasAttribute('alt'))",
		"ids twice":                                    "list('[id]', (e) => document.querySelectorAll('#' + e.id).length !== 1)",
		"references to nothing":                        "list('[aria-labelledby], [aria-describedby], label[for]', (e) => !document.getElementById(e.getAttribute('aria-labelledby') ?? e.getAttribute('aria-describedby') ?? e.htmlFor))",
		"tables without caption":                       "list('table', (e) => !e.caption?.textContent)",
		"heads of columns without scope":               "list('th', (e) => !['col', 'row'].includes(e.scope))",
		"sections without a name":                      "list('section, article, [role=region]', (e) => !e.getAttribute('aria-labelledby') && !e.getAttribute('aria-label'))",
		"not one first heading":                        "document.querySelectorAll('h1').length === 1 ? '' : 'h1'",
		"a heading that skips a level":                 "(() => { let last = 0; return list('h1, h2, h3, h4, h5, h6', (e) => { const l = +e.tagName[1], bad = l > last + 1; last = l; return bad; }); })()",
		"landmarks missing":                            "['header', 'main', 'footer'].filter((n) => document.querySelectorAll('body > ' + n).length !== 1).join()",
		"inline script or style":                       "list('script:not([src]), style, [style]', (e) => true) + list('*', (e) => [...e.attributes].some((a) => a.name.startsWith('on')))",
		"scrolling that the keyboard can't do":         "list('.scroll', (e) => e.tabIndex !== 0)",
		"parts that are read out although they hurry":  "list('[aria-live], [role=status], output', (e) => !['health', 'steps'].includes(e.id))",
		"text below twelve pixels":                     "list('body *', (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && parseFloat(getComputedStyle(e).fontSize) < 12)",
		"hidden labels that take room":                 "list('.hidden', (e) => e.getBoundingClientRect().width > 1)",
		"the viewport is not declared, or zoom is off": "/width=device-width/.test(document.querySelector('meta[name=viewport]').content) && !/maximum-scale|user-scalable/.test(document.querySelector('meta[name=viewport]').content) ? '' : 'viewport'",
	} {
		list := "const list = (s, bad) => [...document.querySelectorAll(s)].filter(bad).map((e) => e.outerHTML.slice(0, 120)).join('\\n'); "
		if got := eval[string](p, "(() => { "+list+"return "+expression+"; })()"); got != "" {
			t.Errorf("%s: %s", what, got)
		}
	}
	p.quiet(f.url)
}

func movesOnlyIfOneMay(t *testing.T, b *browser, f *fake) {
	for setting, want := range map[string]bool{"no-preference": true, "reduce": false} {
		p := b.open(t, f.url, 1200, "prefers-reduced-motion="+setting)
		p.says("#health", "finalising")
		p.until("the blocks are there", "document.querySelectorAll('#blocks tbody tr').length === 12")
		eval[any](p, "window.moved = false; new MutationObserver(() => { window.moved ||= document.getAnimations().length > 0; window.looked = true; }).observe(document.querySelector('#blocks tbody'), { childList: true })")
		f.block(1)
		p.until("a block came", "window.looked")
		if got := eval[bool](p, "window.moved"); got != want {
			t.Errorf("prefers-reduced-motion: %s: something moves: %t", setting, got)
		}
		p.quiet(f.url)
	}
}

// keepsWhatStays: what a reader holds, focus, selection and scrolling, is not replaced under his hands.
func keepsWhatStays(t *testing.T, b *browser, f *fake) {
	p := b.open(t, f.url, 400)
	p.says("#shards", "v3")
	p.until("the blocks are there", "document.querySelectorAll('#blocks tbody tr').length === 12")
	eval[any](p, `window.region = document.querySelector('#shards .scroll'); region.focus(); region.scrollLeft = 30;
		window.cell = document.querySelector('#shards tbody td'); getSelection().selectAllChildren(cell);`)
	f.set(func(f *fake) {
		f.shards[0].Height = 1301
		f.shards[0].Validators[0].LastHeight = 1301
	})
	f.block(2)
	p.says("#shards", "height 1,301")
	p.says("#blocks th[scope=row]", "15")
	if got := eval[string](p, "[document.activeElement === region, region.scrollLeft > 0, cell.isConnected, getSelection().toString()].join()"); got != "true,true,true,10" {
		t.Errorf("focus, scrolling, cell, selection: %s", got)
	}
	p.quiet(f.url)
}

// comesBackByItself: a page whose subscription is refused or ended asks again.
func comesBackByItself(t *testing.T, b *browser, f *fake) {
	p := b.open(t, f.url, 1200)
	p.says("#blocks th[scope=row]", "14")
	f.set(func(f *fake) { f.broken = true })
	p.reload()
	f.set(func(f *fake) { f.broken = false })
	p.reload()
	p.says("#blocks th[scope=row]", "14")

	ctx, cancel := context.WithCancel(t.Context()) // the node stops: its subscribers are told
	cancel()
	stopped := httptest.NewUnstartedServer(nil)
	if err := f.server.Serve(ctx, stopped.Listener); err != nil {
		t.Fatal(err)
	}
	p.until("it asks again and is refused", "performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/v1/finality')).length >= 2")
}

// neverByColourAlone: whatever is coloured says the same in words and with a mark.
func neverByColourAlone(t *testing.T, b *browser, f *fake) {
	p := b.open(t, f.url, 1200)
	p.says("#shards", "no vote seen")
	marks := map[string]string{"good": "●", "warn": "▲", "bad": "✕"}
	for _, got := range eval[[][2]string](p, "[...document.querySelectorAll('[data-state]')].map((e) => [e.dataset.state, e.innerText.trim()])") {
		if mark := marks[got[0]]; mark == "" || !strings.HasPrefix(got[1], mark+" ") || len(strings.Fields(got[1])) < 2 {
			t.Errorf("state %q is said as %q", got[0], got[1])
		}
	}
	p.quiet(f.url)
}

// policyIsInEffect is a canary: the browser would say so if the page broke its policy, and this test would see it.
func policyIsInEffect(t *testing.T, b *browser, f *fake) {
	p := b.open(t, f.url, 1200)
	p.says("#health", "finalising")
	p.quiet(f.url)
	eval[any](p, "(() => { const s = document.createElement('script'); s.textContent = 'window.bad = 1'; document.head.append(s); const i = new Image(); i.src = 'http://127.0.0.1:1/x.png'; document.body.setAttribute('style', 'color: red'); })()")
	p.until("the policy has spoken", "window.bad === undefined")
	p.mu.Lock()
	defer p.mu.Unlock()
	said := strings.Join(p.troubles, "\n")
	for _, want := range []string{"inline script", "127.0.0.1:1", "inline style"} {
		if !strings.Contains(said, want) {
			t.Errorf("nothing is said about %s:\n%s", want, said)
		}
	}
}
