package node_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/accel/distill/summed"
	"tutti/accel/ed25519"
	"tutti/appliance/api"
	"tutti/appliance/config"
	"tutti/appliance/node"
	"tutti/appliance/proof"
	"tutti/state/tx"
)

// holder is an account that was opened with a BLS key.
type holder struct {
	id    tx.ID
	ed    ed25519.PrivateKey
	bls   *bls.SecretKey
	nonce uint32
}

// batches is a network of one shard, and holders.
type batches struct {
	*network
	holders []*holder
}

const holders = 12

// TestBatches: four nodes finalise distilled batches that are posted to one of them, and clients see each transfer proven.
func TestBatches(t *testing.T) {
	n := &batches{network: startNetwork(t, 1)}
	defer n.client.Close()
	for _, step := range []struct {
		name string
		run  func(*batches, *testing.T)
	}{
		{"open accounts", (*batches).open},
		{"with stragglers", (*batches).stragglers},
		{"refused", (*batches).refused},
		{"a sender in two", (*batches).twice},
		{"a later nonce first", (*batches).backwards},
		{"crash", (*batches).crash},
		{"copied state", (*batches).copied},
	} {
		if !t.Run(step.name, func(t *testing.T) { n.t = t; step.run(n, t) }) {
			break
		}
	}
	n.t = t
	n.client.Close()
	n.stop(slices.Collect(maps.Keys(n.nodes))...)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.logs) > 0 {
		t.Errorf("in the logs:\n%s", strings.Join(n.logs, ""))
	}
}

func (n *batches) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(n.t.Context(), d)
}

// open has the crowd open accounts with BLS keys.
func (n *batches) open(t *testing.T) {
	ctx, cancel := n.within(30 * time.Second)
	defer cancel()
	genesis := tx.Hash(n.Genesis.Hash())
	var opens []tx.Signed
	for i := range holders {
		seed := sha256.Sum256([]byte{byte(i)})
		secret, err := bls.NewSecretKey(seed[:])
		if err != nil {
			t.Fatal(err)
		}
		h := &holder{ed: ed25519.NewPrivateKey(seed), bls: secret}
		n.holders = append(n.holders, h)
		o := tx.Tx{Kind: tx.Open, Amount: 100_000, Key: h.ed.Public(), BLS: &tx.BLSKey{Key: secret.Public()}}
		o.BLS.Possession = secret.ProvePossession(tx.PossessionMessage(genesis, o.Key, o.BLS.Key))
		opens = append(opens, n.sign(0, o))
	}
	if err := errors.Join(n.client.Submit(ctx, opens)...); err != nil {
		t.Fatal(err)
	}
	for i := range opens {
		if p, _, err := n.client.Await(ctx, &opens[i]); err != nil || !p.Success {
			t.Fatal(p, err)
		}
		n.until("the account is named", func() bool {
			got, _ := get[api.Transaction](n.network, "s0v0", "/v1/transactions/"+n.id(opens[i]))
			if got.Opened != nil {
				n.holders[i].id = *got.Opened
			}
			return got.Opened != nil
		})
	}
}

// transfer is a holder's next transfer.
func (n *batches) transfer(from, to int, amount uint64) tx.Signed {
	h := n.holders[from]
	s := tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: h.id, To: n.holders[to].id, Amount: amount, Nonce: h.nonce, Expiry: 50_000}}
	h.nonce++
	s.Signature = h.ed.Sign(s.Message(tx.Hash(n.Genesis.Hash())))
	return s
}

// distil makes a batch, of which those in late and those who are no holders are stragglers.
func (n *batches) distil(late []int, txs ...tx.Signed) *distill.Batch {
	n.t.Helper()
	return n.distilWith(func(i int) *bls.SecretKey {
		if slices.Contains(late, i) {
			return nil
		}
		return n.holders[i].bls
	}, txs...)
}

func (n *batches) distilWith(secret func(holder int) *bls.SecretKey, txs ...tx.Signed) *distill.Batch {
	n.t.Helper()
	var subs []distill.Submission
	for i := range txs {
		subs = append(subs, distill.Submission{Body: [distill.BodyBytes]byte(txs[i].AppendBody(nil)[1:]), Signature: txs[i].Signature})
	}
	b, err := summed.Batch(distill.Chain(n.Genesis.Hash()), subs, func(sender uint64) *bls.SecretKey {
		if i := slices.IndexFunc(n.holders, func(h *holder) bool { return uint64(h.id) == sender }); i >= 0 {
			return secret(i)
		}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return b
}

// proven waits until each transaction is proven to be final with success, and returns where.
func (n *batches) proven(txs ...tx.Signed) (places []proof.Where) {
	n.t.Helper()
	ctx, cancel := n.within(30 * time.Second)
	defer cancel()
	for i := range txs {
		id := txs[i].TxID(tx.Hash(n.Genesis.Hash()))
		var p *proof.Proven
		n.until("transfer "+id.String()+" is proven", func() bool {
			var err error
			p, _, err = n.client.Proof(ctx, id)
			return err == nil
		})
		if !p.Success || !p.Settled || p.From != txs[i].From || *p.To != txs[i].To || p.Amount != txs[i].Amount {
			n.t.Fatalf("%+v", p)
		}
		places = append(places, p.Where)
	}
	return places
}

// post sends bytes to a node as a batch.
func (n *batches) post(name string, body []byte) (status int, answer api.BatchAnswer, refused api.Answer) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost, n.nodes[name].url+"/v1/batches", bytes.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	to := any(&refused)
	if status = resp.StatusCode; status/100 == 2 {
		to = &answer
	}
	if err := json.NewDecoder(resp.Body).Decode(to); err != nil {
		n.t.Fatal(err)
	}
	return status, answer, refused
}

func (n *batches) accepted(name string, b *distill.Batch) {
	n.t.Helper()
	if status, answer, refused := n.post(name, b.Append(nil)); status != http.StatusAccepted || answer.Transfers != b.Count() || answer.Stragglers != b.Stragglers() {
		n.t.Fatalf("%d %+v %+v", status, answer, refused)
	}
}

// stragglers: a batch of those who answered, one who was late and one who has no BLS key, beside a signed transaction. Every
// node tells of each transfer, and the block has them all.
func (n *batches) stragglers(t *testing.T) {
	var txs []tx.Signed
	for i := range 8 {
		txs = append(txs, n.transfer(i, i+1, uint64(10+i)))
	}
	txs = append(txs, n.sign(3, tx.Tx{Kind: tx.Transfer, To: n.holders[0].id, Amount: 77}))
	b := n.distil([]int{5}, txs...)
	if b.Stragglers() != 2 {
		t.Fatal(b.Stragglers())
	}
	single := n.sign(4, tx.Tx{Kind: tx.Transfer, To: n.holders[9].id, Amount: 5})
	ctx, cancel := n.within(30 * time.Second)
	defer cancel()
	if err := n.client.Submit(ctx, []tx.Signed{single})[0]; err != nil {
		t.Fatal(err)
	}
	if err := n.client.SubmitBatch(ctx, b); err != nil {
		t.Fatal(err)
	}
	places := n.proven(append(txs, single)...)
	for _, name := range n.Names {
		for i := range txs {
			n.until(name+" tells of it", func() bool {
				got, _ := get[api.Transaction](n.network, name, "/v1/transactions/"+n.id(txs[i]))
				return got.State == api.Final && *got.Success && got.Height == places[i].Height
			})
		}
		n.until(name+" has the block", func() bool {
			got, status := get[api.Block](n.network, name, "/v1/blocks/"+strconv.FormatUint(uint64(places[0].Height), 10)+"?ids=1")
			return status == http.StatusOK && len(got.IDs) == got.Transactions && got.Transactions >= len(txs) && slices.Contains(got.IDs, proof.Digest(txs[0].TxID(tx.Hash(n.Genesis.Hash()))))
		})
	}
	a, err := n.client.Account(ctx, n.holders[1].id)
	if err != nil || a.Balance != 100_000-11-1+10 || a.Nonce != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	// It was checked once where it came in, however often it was judged.
	values := scrape(n.network, "s0v0")
	if got := values["tutti_pool_batch_admitted_total"]; got != 1+9 { // of each unit
		t.Errorf("admitted %v", got)
	}
	if err := n.client.SubmitBatch(ctx, b); err != nil { // it is final: there is nothing to do
		t.Error(err)
	}
}

// refused: what is wrong with a batch is named, and it leaves no trace.
func (n *batches) refused(t *testing.T) {
	stale := n.transfer(0, 1, 1)
	n.holders[0].nonce--
	stale.Expiry = 1
	good := n.distil(nil, stale) // but for its expiry
	fresh := func() []tx.Signed {
		defer func() { n.holders[0].nonce--; n.holders[1].nonce-- }()
		return []tx.Signed{n.transfer(0, 2, 1), n.transfer(1, 2, 1)}
	}
	wrong := n.distilWith(func(i int) *bls.SecretKey { return n.holders[i+1].bls }, fresh()...)
	foreign := n.distil([]int{0}, func() []tx.Signed { txs := fresh(); txs[0].Signature[7] ^= 1; return txs }()...)
	for name, c := range map[string]struct {
		body   []byte
		code   api.Code
		status int
		detail string
	}{
		"expired":         {good.Append(nil), api.Expired, 422, "height 1"},
		"wrong shares":    {wrong.Append(nil), api.WrongBatch, 422, "signature of the root is wrong"},
		"wrong straggler": {foreign.Append(nil), api.WrongBatch, 422, "straggler's signature is wrong"},
		"no batch":        {[]byte("hello"), api.Malformed, 400, "no batch"},
		"too large":       {make([]byte, 1<<20+100), api.TooLarge, 413, "bytes"},
	} {
		var status int
		var refused api.Answer
		n.until("the last wrong one is paid for", func() bool {
			status, _, refused = n.post("s0v2", c.body)
			return status != http.StatusTooManyRequests
		})
		if status != c.status || refused.Error.Code != c.code || !strings.Contains(refused.Error.Detail, c.detail) || refused.Error.Remedy == "" {
			t.Errorf("%s: %d %+v", name, status, refused.Error)
		}
	}
	if st, _ := get[api.Status](n.network, "s0v2", "/v1/status"); st.Pool.Batches != 0 || st.Pool.Batched != 0 || st.Pool.BatchedLimit == 0 {
		t.Errorf("%+v", st.Pool)
	}
}

// twice: senders in two batches, of which the second has their next nonces, and the first is sent to two nodes.
func (n *batches) twice(t *testing.T) {
	first := []tx.Signed{n.transfer(0, 1, 1), n.transfer(2, 1, 1)}
	second := []tx.Signed{n.transfer(0, 1, 2), n.transfer(3, 1, 2), n.transfer(2, 1, 2)}
	a, b := n.distil(nil, first...), n.distil(nil, second...)
	n.accepted("s0v1", a)
	n.accepted("s0v1", b)
	n.accepted("s0v1", a)
	n.accepted("s0v3", a)
	before, after := n.proven(first...), n.proven(second...)
	if before[0].Height > after[0].Height || before[0].Height != before[1].Height || after[1].Height != after[2].Height {
		t.Errorf("%+v, then %+v", before, after)
	}
}

// backwards: the batch with the later nonces comes first, and waits for the other.
func (n *batches) backwards(t *testing.T) {
	first := []tx.Signed{n.transfer(4, 1, 1), n.transfer(5, 1, 1)}
	second := []tx.Signed{n.transfer(4, 1, 2), n.transfer(5, 1, 2)}
	n.accepted("s0v1", n.distil(nil, second...))
	n.accepted("s0v1", n.distil(nil, first...))
	before, after := n.proven(first...), n.proven(second...)
	if before[0].Height >= after[0].Height {
		t.Errorf("%+v, then %+v", before, after)
	}
}

// crash: a node is killed when it has accepted a batch. The others, which it was forwarded to, make it final, and the node
// knows it when it is there again.
func (n *batches) crash(t *testing.T) {
	const name = "s0v3"
	n.stop(name)
	kill := n.process(name)
	txs := []tx.Signed{n.transfer(6, 1, 3), n.transfer(7, 1, 3), n.transfer(8, 1, 3)}
	n.accepted(name, n.distil([]int{7}, txs...))
	n.until("another node has it", func() bool {
		got, _ := get[api.Transaction](n.network, "s0v0", "/v1/transactions/"+n.id(txs[0]))
		return got.State != api.Unknown
	})
	kill()
	places := n.proven(txs...)
	more := []tx.Signed{n.transfer(6, 1, 4), n.transfer(7, 1, 4)}
	n.accepted("s0v1", n.distil(nil, more...))
	places = append(places, n.proven(more...)...)
	n.start(name)
	for i, s := range append(txs, more...) {
		n.until("it knows them again", func() bool {
			got, _ := get[api.Transaction](n.network, name, "/v1/transactions/"+n.id(s))
			return got.State == api.Final && *got.Success && got.Height == places[i].Height
		})
		if _, status := n.raw(name, "/v1/transactions/"+n.id(s)+"/proof"); status != http.StatusOK {
			t.Errorf("its proof: HTTP status %d", status)
		}
	}
	n.agrees("s0v1", name, places[len(places)-1].Height)
}

// process runs a node as a process, which the function that is returned kills.
func (n *batches) process(name string) (kill func()) {
	n.t.Helper()
	self, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	cfg, err := config.Load(n.home(name).Config())
	if err != nil {
		n.t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), homeOfProcess+"="+string(n.home(name)))
	in, err := c.StdinPipe() // open until it has ended, or this process has
	if err != nil {
		n.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		n.t.Fatal(err)
	}
	kill = func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		_ = in.Close()
		delete(n.nodes, name)
	}
	n.nodes[name] = &running{url: "http://" + cfg.API.Listen, cancel: func() { _ = in.Close() }, done: make(chan error, 1)}
	n.until("the process is ready", func() bool { return n.ready(name) })
	return kill
}

// copied: a node that has copied its state judges, executes and takes in batches like the others.
func (n *batches) copied(t *testing.T) {
	const name = "s0v2"
	n.stop(name)
	if err := os.RemoveAll(n.home(name).Data()); err != nil {
		t.Fatal(err)
	}
	n.begin(name, node.Sync)
	n.until("it is there again", func() bool { return n.ready(name) })
	txs := []tx.Signed{n.transfer(9, 1, 5), n.transfer(10, 1, 5), n.transfer(11, 1, 5)}
	n.accepted(name, n.distil([]int{11}, txs...))
	places := n.proven(txs...)
	n.agrees("s0v1", name, places[0].Height)
}
