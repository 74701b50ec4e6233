package broker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	stded25519 "crypto/ed25519"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/accel/ed25519"
	"tutti/appliance/api"
	"tutti/consensus"
	"tutti/state/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience of tests in which everybody answers, on a machine as busy as it may be.
const patience = 8 * time.Second

// person is an account with its secrets.
type person struct {
	id  tx.ID
	ed  ed25519.PrivateKey
	bls *bls.SecretKey
}

func seed(what string, i int) [32]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte(what), uint64(i)))
}

var crowd = sync.OnceValue(func() []person {
	out := make([]person, 40)
	for i := range out {
		ikm := seed("bls", i)
		key, err := bls.NewSecretKey(ikm[:])
		if err != nil {
			panic(err)
		}
		out[i] = person{tx.MakeID(0, uint32(i)), ed25519.NewPrivateKey(seed("ed", i)), key}
	}
	return out
})

// world is a network of one node, which executes what it takes at once. It implements Nodes.
type world struct {
	t     *testing.T
	chain distill.Chain

	mu      sync.Mutex
	down    bool
	lazy    map[tx.ID]bool // whose transfers take no effect
	nonces  map[tx.ID]uint32
	batches []*distill.Batch
	singles []tx.Signed
	asked   int
}

func newWorld(t *testing.T) *world {
	return &world{t: t, chain: distill.Chain{7}, lazy: map[tx.ID]bool{}, nonces: map[tx.ID]uint32{}}
}

func (w *world) shardOf(id tx.ID) consensus.ShardID { return consensus.ShardID(id.Partition()) }

const balance = 1000

// Signers implements Nodes. Account 39 has no BLS key.
func (w *world) Signers(_ context.Context, shard consensus.ShardID, ids []tx.ID) (*api.Signers, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return nil, errors.New("down")
	}
	w.asked++
	out := &api.Signers{Height: 100, Accounts: make([]api.Signer, len(ids))}
	for i, id := range ids {
		if int(id.Index()) >= len(crowd()) || w.shardOf(id) != shard {
			continue
		}
		p := &crowd()[id.Index()]
		out.Accounts[i] = api.Signer{Known: true, Nonce: w.nonces[id], Balance: balance, Key: p.ed.Public()}
		if id.Index() == 39 {
			continue
		}
		key, err := bls.ParsePublicKey(p.bls.Public())
		if err != nil {
			w.t.Error(err)
		}
		out.Accounts[i].BLS = &key
	}
	return out, nil
}

// Submit implements Nodes.
func (w *world) Submit(_ context.Context, txs []tx.Signed) []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]error, len(txs))
	for i, t := range txs {
		item := []ed25519.Item{{Key: crowd()[t.From.Index()].ed.Public(), Message: t.Message(tx.Hash(w.chain)), Signature: t.Signature}}
		var ok [1]bool
		if ed25519.VerifyMany(item, ok[:]); !ok[0] {
			out[i] = api.Refuse(api.WrongSignature, "no")
			continue
		}
		w.singles = append(w.singles, t)
		w.nonces[t.From]++
	}
	return out
}

// SubmitBatch implements Nodes.
func (w *world) SubmitBatch(_ context.Context, b *distill.Batch) error {
	directory, keys := bls.NewDirectory(len(crowd())), keysBySender{}
	for i := range crowd() {
		p := &crowd()[i]
		if err := directory.AddTrusted(uint32(i), p.bls.Public()); err != nil {
			w.t.Error(err)
		}
		keys = append(keys, &entry{t: tx.Signed{Tx: tx.Tx{From: p.id}}, signer: api.Signer{Key: p.ed.Public()}})
	}
	if _, err := b.Verify(w.chain, directory, keys); err != nil {
		w.t.Errorf("a wrong batch came: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return errors.New("down")
	}
	w.batches = append(w.batches, b)
	for i := range b.Count() {
		if id := tx.ID(distill.Sender(b.Body(i))); !w.lazy[id] {
			w.nonces[id]++
		}
	}
	return nil
}

// broker starts a broker and returns its address.
func (w *world) broker(change func(*Options)) (*Server, string) {
	w.t.Helper()
	key := stded25519.NewKeyFromSeed(make([]byte, 32))
	opt := Options{
		Chain: w.chain, Shards: 1, ShardOf: w.shardOf, Fees: []uint64{1}, MaxExpiry: 1000, MaxCount: 1000, Nodes: w, Key: key,
		Window: 150 * time.Millisecond, Patience: patience, Least: 2, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&opt)
	}
	s, err := New(opt)
	if err != nil {
		w.t.Fatal(err)
	}
	s.settleAfter = 10 * time.Millisecond
	at, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, at) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	return s, at.LocalAddr().String()
}

func (w *world) dial(address string) *Conn {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	c, err := Dial(ctx, address, w.chain)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// pay is a transfer of account i, to its neighbour unless change says otherwise.
func (w *world) pay(i int, change func(*tx.Tx)) Submission {
	t := tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: tx.MakeID(0, uint32(i)), To: tx.MakeID(0, uint32((i+1)%39)), Amount: 1, Expiry: 500}}
	if change != nil {
		change(&t.Tx)
	}
	sign := i
	if sign >= len(crowd()) {
		sign = 0
	}
	var s Submission
	copy(s.Body[:], t.AppendBody(nil)[1:])
	s.Signature = crowd()[sign].ed.Sign(t.Message(tx.Hash(w.chain)))
	return s
}

// all submits and returns the verdicts.
func all(t *testing.T, c *Conn, subs []Submission, key func(i int) *bls.SecretKey) []Verdict {
	t.Helper()
	out := make([]Verdict, len(subs))
	var group sync.WaitGroup
	for i := range subs {
		group.Go(func() {
			var err error
			if out[i], err = c.Submit(t.Context(), subs[i], key(i)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	return out
}

func own(i int) *bls.SecretKey { return crowd()[i].bls }

func wantCodes(t *testing.T, got []Verdict, want Code) {
	t.Helper()
	for i, v := range got {
		if v.Code != want {
			t.Errorf("submission %d: %v, want %v", i, v, want)
		}
	}
}

// idle waits until no transfer is in work: its place is given back after its verdict is sent, not before.
func idle(t *testing.T, s *Server) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); s.Stats().InWork > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still in work: %+v", s.Stats())
		}
	}
}

// TestBatch: those who come together, on several connections, are in one batch with one signature, and their next transfers in
// the next. Who has answered rightly is not checked again.
func TestBatch(t *testing.T) {
	w := newWorld(t)
	s, at := w.broker(func(o *Options) { o.Least = 1 })
	a, b := w.dial(hex.EncodeToString(stded25519.NewKeyFromSeed(make([]byte, 32))[32:])+"@"+at), w.dial(at)
	if got := a.Welcome(); got != (Welcome{150 * time.Millisecond, patience}) {
		t.Errorf("welcome %v", got)
	}
	for nonce := range uint32(2) {
		var group sync.WaitGroup
		for k, c := range []*Conn{a, b} {
			group.Go(func() {
				var subs []Submission
				for i := range 10 {
					subs = append(subs, w.pay(10*k+i, func(t *tx.Tx) { t.Nonce = nonce }))
				}
				wantCodes(t, all(t, c, subs, func(i int) *bls.SecretKey { return own(10*k + i) }), CodeBatched)
			})
		}
		group.Wait()
	}
	idle(t, s)
	w.mu.Lock()
	defer w.mu.Unlock()
	transfers := 0
	for _, b := range w.batches {
		transfers += b.Count()
		if b.Stragglers() != 0 {
			t.Errorf("%d stragglers though all answered", b.Stragglers())
		}
	}
	if st := s.Stats(); transfers != 40 || st.Batched != 40 || st.Batches != uint64(len(w.batches)) || st.Strikes != 0 || len(w.batches) > 8 {
		t.Errorf("%d transfers in %d batches, %+v", transfers, len(w.batches), st)
	}
	if _, ok := s.standing.get(uint64(tx.MakeID(0, 3))); !ok {
		t.Error("who answered rightly has no standing")
	}
}

// TestPin: a client whose address names another key does not talk to the broker.
func TestPin(t *testing.T) {
	w := newWorld(t)
	_, at := w.broker(nil)
	if _, err := Dial(t.Context(), fmt.Sprintf("%064x@%s", 1, at), w.chain); !errors.Is(err, ErrReach) {
		t.Errorf("dialled the wrong broker: %v", err)
	}
	if _, err := Dial(t.Context(), at, distill.Chain{8}); !errors.Is(err, ErrReach) {
		t.Errorf("dialled a broker of another chain: %v", err)
	}
}

// TestRefusals: each refusal has its code, before anything is offered.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	s, at := w.broker(func(o *Options) { o.Window = 10 * time.Millisecond })
	c := w.dial(at)
	for name, tc := range map[string]struct {
		who    int
		change func(*tx.Tx)
		want   Code
	}{
		"stranger":        {50, nil, CodeNoAccount},
		"no BLS key":      {39, nil, CodeNoKey},
		"nonce used":      {0, func(t *tx.Tx) { t.Nonce = 1 }, CodeNonce},
		"too much":        {1, func(t *tx.Tx) { t.Amount = balance }, CodeBalance},
		"expires soon":    {2, func(t *tx.Tx) { t.Expiry = 110 }, CodeExpiry},
		"expires late":    {3, func(t *tx.Tx) { t.Expiry = 1100 }, CodeExpiry},
		"no receiver":     {4, func(t *tx.Tx) { t.To = tx.MakeID(0, 1000) }, CodeTransfer},
		"no such shard":   {5, func(t *tx.Tx) { t.To = tx.MakeID(9, 0) }, CodeTransfer},
		"to itself":       {6, func(t *tx.Tx) { t.To = t.From }, CodeTransfer},
		"nothing":         {7, func(t *tx.Tx) { t.Amount = 0 }, CodeTransfer},
		"fee class":       {8, func(t *tx.Tx) { t.FeeClass = 1 }, CodeTransfer},
		"payer elsewhere": {0, func(t *tx.Tx) { t.From = tx.MakeID(3, 0) }, CodeShard},
		"last unit":       {9, func(t *tx.Tx) { t.Amount = balance - 1 }, CodeSingle},
	} {
		if v, err := c.Submit(t.Context(), w.pay(tc.who, tc.change), own(0)); err != nil || v.Code != tc.want {
			t.Errorf("%s: %v, %v, want %v", name, v, err, tc.want)
		}
	}
	forged := w.pay(10, nil)
	forged.Signature[3] ^= 1
	if v, err := c.Submit(t.Context(), forged, own(10)); err != nil || v.Code != CodeSignature {
		t.Errorf("forged: %v, %v", v, err)
	}
	idle(t, s)
	if st := s.Stats(); st.Strikes != 1 {
		t.Errorf("%+v", st)
	}
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	if v, err := c.Submit(t.Context(), w.pay(11, nil), own(11)); err != nil || v.Code != CodeUnavailable || v.Retry == 0 {
		t.Errorf("no node: %v, %v", v, err)
	}
}

// mute is a client that submits and reads, and answers nothing.
type mute struct {
	t  *testing.T
	q  *quic.Conn
	st *quic.Stream
	r  *reader
}

func (w *world) mute(address string) *mute {
	w.t.Helper()
	m := &mute{t: w.t}
	if err := quiet(); err != nil {
		w.t.Fatal(err)
	}
	q, err := quic.DialAddr(w.t.Context(), address, insecure(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	m.q = q
	w.t.Cleanup(func() { _ = q.CloseWithError(0, "") })
	if m.st, err = q.OpenStream(); err != nil {
		w.t.Fatal(err)
	}
	if _, err := m.st.Write(appendHello(nil, w.chain)); err != nil {
		w.t.Fatal(err)
	}
	if err := m.st.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	m.r = newReader(m.st)
	if _, err := m.r.welcome(); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// submit submits one transfer.
func (m *mute) submit(number uint32, s Submission) {
	m.t.Helper()
	if _, err := m.st.Write((&submission{number, s}).append(nil)); err != nil {
		m.t.Fatal(err)
	}
}

// verdict reads offers up to a verdict.
func (m *mute) verdict() (v verdict, offers int) {
	m.t.Helper()
	for {
		kind, err := m.r.kind()
		if err != nil {
			m.t.Fatal(err)
		}
		if kind == typeOffer {
			offers++
			if _, err := m.r.offer(); err != nil {
				m.t.Fatal(err)
			}
			continue
		}
		if v, err = m.r.verdict(); err != nil {
			m.t.Fatal(err)
		}
		return v, offers
	}
}

// TestStragglers: who does not answer, or answers with a wrong share, is in the batch with its own signature.
func TestStragglers(t *testing.T) {
	w := newWorld(t)
	s, at := w.broker(func(o *Options) { o.Patience, o.Window = time.Second, 300*time.Millisecond })
	c, m := w.dial(at), w.mute(at)
	m.submit(5, w.pay(20, nil))
	var subs []Submission
	for i := range 6 {
		subs = append(subs, w.pay(i, nil))
	}
	wantCodes(t, all(t, c, subs, func(i int) *bls.SecretKey { return own(max(i, 1)) }), CodeBatched) // 0 signs as 1
	if v, offers := m.verdict(); v.Code != CodeBatched || v.number != 5 || offers != 1 {
		t.Errorf("%v after %d offers", v, offers)
	}
	st := s.Stats()
	if st.Stragglers < 2 || st.Strikes != 1 || st.Batched != 7 {
		t.Errorf("%+v", st)
	}
	for _, id := range []int{0, 20} {
		if _, ok := s.standing.get(uint64(tx.MakeID(0, uint32(id)))); ok {
			t.Errorf("straggler %d has standing", id)
		}
	}
}

// TestBorrowedStanding: standing is of a sender and where it answered from, so nobody else can spoil a batch in its name.
func TestBorrowedStanding(t *testing.T) {
	w := newWorld(t)
	s, at := w.broker(func(o *Options) { o.Patience, o.Window = time.Second, 300*time.Millisecond })
	s.standing.put(uint64(tx.MakeID(0, 20)), netip.MustParsePrefix("192.0.2.1/32"))
	m := w.mute(at)
	bad := w.pay(20, nil)
	bad.Signature[0] ^= 1
	m.submit(1, bad)
	if v, offers := m.verdict(); v.Code != CodeSignature || offers != 0 {
		t.Errorf("%v after %d offers", v, offers)
	}
}

// TestSpoiler: who has standing is not checked at intake; if it then signs wrongly and does not answer, the batch is made again
// without it, and it and its source pay for it.
func TestSpoiler(t *testing.T) {
	w := newWorld(t)
	s, at := w.broker(func(o *Options) { o.Patience, o.Window = time.Second, 300*time.Millisecond })
	s.standing.put(uint64(tx.MakeID(0, 20)), netip.MustParsePrefix("127.0.0.1/32"))
	c, m := w.dial(at), w.mute(at)
	bad := w.pay(20, nil)
	bad.Signature[0] ^= 1
	m.submit(1, bad)
	var subs []Submission
	for i := range 6 {
		subs = append(subs, w.pay(i, nil))
	}
	wantCodes(t, all(t, c, subs, own), CodeBatched)
	if v, offers := m.verdict(); v.Code != CodeSignature || offers != 1 {
		t.Errorf("%v after %d offers", v, offers)
	}
	if st := s.Stats(); st.Again != 1 || st.Strikes != 1 || st.Batched != 6 {
		t.Errorf("%+v", st)
	}
	if _, ok := s.standing.get(uint64(tx.MakeID(0, 20))); ok {
		t.Error("it still has standing")
	}
}

// TestNobodyAnswers: there is no batch then, and the transfers go on their own.
func TestNobodyAnswers(t *testing.T) {
	w := newWorld(t)
	_, at := w.broker(func(o *Options) { o.Patience = 50 * time.Millisecond })
	m := w.mute(at)
	for i := range 3 {
		m.submit(uint32(i), w.pay(i, nil))
	}
	for range 3 {
		if v, _ := m.verdict(); v.Code != CodeSingle {
			t.Error(v)
		}
	}
}

// TestBehind: a sender's next transfers wait for the one in work, a few of them, and then go in order.
func TestBehind(t *testing.T) {
	w := newWorld(t)
	_, at := w.broker(func(o *Options) { o.Least, o.Patience = 1, 100*time.Millisecond })
	m := w.mute(at)
	for nonce := range uint32(maxBehind + 2) {
		m.submit(nonce, w.pay(0, func(t *tx.Tx) { t.Nonce = nonce }))
	}
	if v, _ := m.verdict(); v.Code != CodeBusy || v.number != maxBehind+1 || v.Retry == 0 {
		t.Errorf("%v", v)
	}
	for i := range uint32(2) {
		if v, _ := m.verdict(); v.Code != CodeSingle || v.number != i {
			t.Errorf("%v, want %d", v, i)
		}
	}
}

// TestQuota: over its places and its rate a source is refused with a time to come back, and after enough harm it is barred.
func TestQuota(t *testing.T) {
	w := newWorld(t)
	s, at := w.broker(func(o *Options) {
		o.Quota = Quota{InWork: 100, InWorkEach: 2, PerSecond: 1000, Conns: 3, TotalConns: 10}
		o.Window, o.Patience = time.Second, 50*time.Millisecond
	})
	m := w.mute(at)
	for i := range 3 {
		m.submit(uint32(i), w.pay(i, nil))
	}
	if v, _ := m.verdict(); v.Code != CodeBusy || v.number != 2 || v.Retry != busyFor {
		t.Error(v)
	}
	for range 2 {
		if v, _ := m.verdict(); v.Code != CodeSingle {
			t.Error(v)
		}
	}
	from := sourceOf(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
	now := time.Now()
	idle(t, s)
	s.sources.mu.Lock()
	s.sources.all[from].tokens, s.sources.all[from].at = 0, now.Add(time.Hour)
	s.sources.mu.Unlock()
	m.submit(9, w.pay(9, nil))
	if v, _ := m.verdict(); v.Code != CodeRate || v.Retry == 0 {
		t.Error(v)
	}
	s.sources.mu.Lock()
	s.sources.all[from].tokens, s.sources.all[from].at = 1000, time.Now()
	s.sources.mu.Unlock()
	for range maxStrikes {
		s.sources.strike(from, time.Now())
	}
	m.submit(10, w.pay(10, nil))
	if v, _ := m.verdict(); v.Code != CodeBarred || v.Retry == 0 {
		t.Error(v)
	}
	if _, err := Dial(t.Context(), at, w.chain); err == nil {
		t.Error("a barred source connects")
	}
}

// TestSettle: senders whose transfers took no effect though their batch did are refused for a while; the others are not.
func TestSettle(t *testing.T) {
	w := newWorld(t)
	s, at := w.broker(nil)
	w.lazy[tx.MakeID(0, 2)] = true
	c := w.dial(at)
	var subs []Submission
	for i := range 8 {
		subs = append(subs, w.pay(i, nil))
	}
	wantCodes(t, all(t, c, subs, own), CodeBatched)
	for end := time.Now().Add(10 * time.Second); s.Stats().Excluded == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if v, err := c.Submit(t.Context(), w.pay(2, nil), own(2)); err != nil || v.Code != CodeBarred {
		t.Errorf("%v, %v", v, err)
	}
	if v, err := c.Submit(t.Context(), w.pay(3, func(t *tx.Tx) { t.Nonce = 1 }), own(3)); err != nil || !v.Taken() {
		t.Errorf("%v, %v", v, err)
	}
}
