// Package client talks to Tutti nodes over their HTTP API and believes only what it can verify.
//
// It takes API addresses, of any shards, and a proof.Trust made from a genesis file. What a node says that carries a
// proof (blocks, finality proofs, proven accounts) is verified before a caller sees it; an answer that fails is treated
// like a node that fails: another one is asked. What carries none (Account, Transaction, Status, Network, Params,
// Genesis) is passed on as that node's word.
//
// A proof may be of an epoch whose committee the Trust does not know yet. The client then asks the nodes of its shard for the
// hand-overs that lead there, and verifies them, one signature check each; a node that shows a wrong one, or none, is named
// (Options.Trouble) and the next one is asked. Sync does the same ahead of any proof. What one node alone keeps back nobody
// can see: give the addresses of several.
//
// A transfer of an account with a BLS key can go through a broker of distilled batches (Distill). Nothing rests on the broker: what
// it refuses, or does not bring into a block in time, is sent with its own signature.
//
// Every call takes a context and runs in the caller's goroutine; nothing outlives it but idle connections and those to brokers,
// which Close ends. A request that fails in passing is repeated on the other nodes of the shard, in rounds with growing pauses. A
// transaction is always sent again with the same bytes, so it can not be paid twice.
//
// A Client is safe for concurrent use. No error is fatal.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/evidence"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Options configure a Client.
type Options struct {
	URLs        []string      // API addresses, such as http://127.0.0.1:9700; more are learned from them where a shard has none
	Brokers     []string      // of distilled batches, HOST:PORT or KEY@HOST:PORT; nodes tell of more
	Trust       *proof.Trust  // nil: calls that verify fail with ErrNoTrust
	HTTP        *http.Client  // nil: one of its own, which Close closes. It must not have a timeout, for Follow
	CallTimeout time.Duration // for one request to one node; 10 s
	Rounds      int           // over the nodes of a shard, before a call fails; 3
	// Trouble, if set, is told of a node that did not show hand-overs as it should have. It is called in the goroutine of
	// the call that asked, of one at a time.
	Trouble func(url string, err error)
}

// Errors of calls. An error of a node is an *api.Error, to be told by its code:
// errors.Is(err, &api.Error{Code: api.NotFinal}).
var (
	ErrNoTrust = errors.New("client: nothing to verify with: give a genesis file")
	ErrNoNode  = errors.New("client: no node of the shard is known: give the address of one")
	ErrReach   = errors.New("client: the node can not be reached")
	ErrAnswer  = errors.New("client: the node's answer can not be read")
	ErrFork    = errors.New("client: two final blocks contradict each other: the committee has failed, keep both proofs")
	ErrExpired = errors.New("client: the transaction expired without being executed: it can be signed anew")
)

// Limits.
const (
	maxNodes       = 1024    // addresses kept
	maxAnswer      = 8 << 20 // bytes of a JSON answer
	firstPause     = 100 * time.Millisecond
	maxPause       = 5 * time.Second
	askAgain       = time.Second      // between questions to a node that does not say its shard
	askLast        = 30 * time.Second // a node that did not answer is asked after the others for so long
	maxGenesis     = 64 << 20
	unknownShard   = -1
	contentBinary  = "application/octet-stream"
	maxErrorAnswer = 64 << 10
)

// Client talks to nodes. Make it with New.
type Client struct {
	trust   *proof.Trust
	http    *http.Client
	own     bool // http is ours to close
	timeout time.Duration
	rounds  int
	turn    atomic.Uint64 // rotates over the nodes
	trouble func(string, error)
	learner chan struct{} // holds a token while a call follows hand-overs: no two do at once

	distillFor, distillIn time.Duration // constants; tests are less patient

	mu       sync.Mutex // guards what follows
	nodes    []*node
	brokers  []*knownBroker
	onTheWay map[tx.Hash]time.Time // transfers that a broker says a node holds, and until when it may take
}

// node is one API. url is fixed; shard is unknownShard until the node has said it.
type node struct {
	url   string
	shard atomic.Int32
	asked atomic.Int64 // Unix nanoseconds of the last time it was asked for its shard
	mute  atomic.Int64 // Unix nanoseconds of when it last did not answer; 0: it did
}

// heard notes how a question to n ended: with an answer, or without one although the caller would have waited on.
func (n *node) heard(caller context.Context, err error) {
	switch {
	case err == nil:
		n.mute.Store(0)
	case caller.Err() == nil:
		n.mute.Store(time.Now().UnixNano())
	}
}

// answers reports whether n did not leave a question without an answer lately.
func (n *node) answers() bool { return time.Now().UnixNano()-n.mute.Load() > int64(askLast) }

// strange reports whether n has to be asked for its shard now; if so nobody else asks it for a while.
func (n *node) strange() bool {
	now, last := time.Now().UnixNano(), n.asked.Load()
	return n.shard.Load() == unknownShard && now-last > int64(askAgain) && n.asked.CompareAndSwap(last, now)
}

// New makes a client. No node is asked yet.
func New(opt Options) (*Client, error) {
	c := &Client{trust: opt.Trust, http: opt.HTTP, timeout: opt.CallTimeout, rounds: opt.Rounds, trouble: opt.Trouble, learner: make(chan struct{}, 1)}
	c.distillFor, c.distillIn, c.onTheWay = distillFor, distillIn, map[tx.Hash]time.Time{}
	if c.timeout == 0 {
		c.timeout = 10 * time.Second
	}
	if c.rounds == 0 {
		c.rounds = 3
	}
	if c.http == nil {
		c.own = true
		c.http = &http.Client{Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 16,
			MaxConnsPerHost:     64,
			IdleConnTimeout:     time.Minute,
		}}
	}
	for _, u := range opt.URLs {
		if err := c.add(u, unknownShard); err != nil {
			return nil, err
		}
	}
	for _, b := range opt.Brokers {
		if err := c.addBroker(b); err != nil {
			return nil, err
		}
	}
	if len(c.nodes) == 0 {
		return nil, errors.New("client: no API address given: write it as http://127.0.0.1:9700")
	}
	return c, nil
}

// Close ends idle connections and those to brokers. Calls of nodes under way go on.
func (c *Client) Close() {
	c.closeBrokers()
	if c.own {
		c.http.CloseIdleConnections()
	}
}

// Trust is what the client verifies with; nil if it has nothing.
func (c *Client) Trust() *proof.Trust { return c.trust }

// add keeps an address once. Over maxNodes it is left out.
func (c *Client) add(text string, shard int32) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("client: %q is not an API address: write it as http://127.0.0.1:9700", text)
	}
	text = strings.TrimRight(text, "/")
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		if n.url == text {
			return nil
		}
	}
	if len(c.nodes) < maxNodes {
		n := &node{url: text}
		n.shard.Store(shard)
		c.nodes = append(c.nodes, n)
	}
	return nil
}

// rotated is the nodes that keep accepts, beginning with another one each time. Those that did not answer lately come last, lest
// one machine that hangs costs every so many calls their time limit.
func (c *Client) rotated(keep func(*node) bool) []*node {
	var well, mute []*node
	c.mu.Lock()
	for _, n := range c.nodes {
		switch {
		case !keep(n):
		case n.answers():
			well = append(well, n)
		default:
			mute = append(mute, n)
		}
	}
	c.mu.Unlock()
	turn := c.turn.Add(1)
	return append(turned(well, turn), turned(mute, turn)...)
}

// turned is nodes in their order from another one on.
func turned(nodes []*node, turn uint64) []*node {
	if len(nodes) < 2 {
		return nodes
	}
	k := int(turn % uint64(len(nodes)))
	return append(slices.Clone(nodes[k:]), nodes[:k]...)
}

func every(*node) bool { return true }

// ofShard is the nodes of a shard. It asks nodes for their shard, once each, those that did not answer lately only when the
// others are of other shards, and for more addresses where the shard has none.
func (c *Client) ofShard(ctx context.Context, shard consensus.ShardID) ([]*node, error) {
	match := func(n *node) bool { return n.shard.Load() == int32(shard) }
	var failed error
	for _, ask := range []func() error{
		func() error { return c.askShards(ctx, (*node).answers) },
		func() error { return c.askShards(ctx, every) },
		func() error { return c.askNodes(ctx) },
	} {
		failed = errors.Join(failed, ask())
		if found := c.rotated(match); len(found) > 0 {
			return found, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("%w: shard %d", ErrNoNode, shard), failed)
}

// askShards asks nodes that keep accepts for their shard, if they have not said it.
func (c *Client) askShards(ctx context.Context, keep func(*node) bool) (last error) {
	for _, n := range c.rotated(func(n *node) bool { return keep(n) && n.strange() }) {
		var p api.Params
		if err := c.getJSON(ctx, n, "/v1/params", &p); err != nil {
			last = err
			continue
		}
		n.shard.Store(int32(p.Shard))
		for _, b := range p.Brokers {
			_ = c.addBroker(b) // one that can't be read is left out
		}
	}
	return last
}

// askNodes asks for more addresses, and the nodes there for their shard.
func (c *Client) askNodes(ctx context.Context) error {
	network, err := c.Network(ctx)
	if err != nil {
		return err
	}
	for _, a := range network.APIs {
		if failed := c.add(a.URL, unknownShard); failed != nil {
			err = failed
		}
	}
	return errors.Join(err, c.askShards(ctx, every))
}

// send makes one request to one node and returns the answer's body, at most limit bytes.
func (c *Client) send(ctx context.Context, n *node, method, path, contentType string, body []byte, limit int64) ([]byte, error) {
	within, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(within, method, n.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	n.heard(ctx, err)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReach, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return nil, refusal(n, resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	n.heard(ctx, err)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrReach, n.url, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s: over %d bytes", ErrAnswer, n.url, limit)
	}
	return b, nil
}

// refusal is the error in an answer that refuses.
func refusal(n *node, resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorAnswer))
	var a api.Answer
	if err != nil || json.Unmarshal(b, &a) != nil || a.Error.Code == "" {
		return fmt.Errorf("%w: %s: HTTP status %s: is it a Tutti node?", ErrAnswer, n.url, resp.Status)
	}
	e := refusedBy(&a.Error)
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 && e.RetryAfter == 0 { // an older node's
		e.RetryAfter = min(time.Duration(s)*time.Second, maxPause)
	}
	return e
}

// refusedBy is the error that a node's answer describes.
func refusedBy(b *api.ErrorBody) *api.Error {
	wait := min(max(b.RetryAfterMs, 0), maxPause.Milliseconds())
	return &api.Error{Code: b.Code, Detail: b.Detail, RetryAfter: time.Duration(wait) * time.Millisecond}
}

func (c *Client) getJSON(ctx context.Context, n *node, path string, v any) error {
	b, err := c.send(ctx, n, http.MethodGet, path, "", nil, maxAnswer)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %s%s: %w", ErrAnswer, n.url, path, err)
	}
	return nil
}

// passing reports whether an error may be gone in a moment: the node said so, was not reached, or is not to be believed,
// and another one may be.
func passing(err error) bool {
	var e *api.Error
	if !errors.As(err, &e) {
		return true
	}
	switch e.Code {
	case api.RateLimited, api.Busy, api.NotReady, api.ShuttingDown, api.Internal, api.PoolFull, api.TooManySubscribers:
		return true
	}
	return false
}

// telling ranks errors by what they tell the caller: a lasting refusal, an answer that failed, a node that was not
// reached or is busy.
func telling(err error) int {
	switch {
	case !passing(err):
		return 2
	case !errors.Is(err, ErrReach) && !errors.As(err, new(*api.Error)):
		return 1
	}
	return 0
}

// pause waits before round k, k from 1, or as long as err asks for, and up to half as long again, lest all who were refused
// together come back together.
func pause(ctx context.Context, k int, err error) error {
	wait := min(firstPause<<min(k-1, 10), maxPause)
	if e := (*api.Error)(nil); errors.As(err, &e) {
		wait = max(wait, e.RetryAfter)
	}
	t := time.NewTimer(wait + rand.N(wait/2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// each calls ask with one node after the other until it succeeds: rounds over all of them while an error is passing.
// An error that is not still lets the other nodes have their say, since a node may lag or lie, but only once, and only those that
// answered lately.
func (c *Client) each(ctx context.Context, nodes []*node, ask func(*node) error) error {
	var last error
	for round := range c.rounds {
		again := false
		for _, n := range nodes {
			if last != nil && !passing(last) && !n.answers() {
				continue
			}
			err := ask(n)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return errors.Join(ctx.Err(), err)
			}
			again = again || passing(err)
			if last == nil || telling(err) >= telling(last) {
				last = err
			}
		}
		if !again || round == c.rounds-1 {
			break
		}
		if err := pause(ctx, round+1, last); err != nil {
			return errors.Join(err, last)
		}
	}
	return last
}

func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	err = c.each(ctx, c.rotated(every), func(n *node) error { return c.getJSON(ctx, n, path, &v) })
	return v, err
}

// Status is one node's view of itself.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return get[api.Status](ctx, c, "/v1/status")
}

// Network is one node's view of all shards.
func (c *Client) Network(ctx context.Context) (api.Network, error) {
	return get[api.Network](ctx, c, "/v1/network")
}

// Params is one node's word on the chain. What is signed should carry the trusted genesis hash, not this one.
func (c *Client) Params(ctx context.Context) (api.Params, error) {
	return get[api.Params](ctx, c, "/v1/params")
}

// Evidence is the proofs of slashable votes that the known nodes have, each once, by shard, epoch and view; at most
// evidence.MaxFileProofs. Nothing is verified but the form. err tells of nodes that did not answer or sent nonsense; answered
// is how many did.
func (c *Client) Evidence(ctx context.Context) (proofs []*evidence.Proof, answered int, err error) {
	seen := map[consensus.Hash]bool{}
	for _, n := range c.rotated(every) {
		of, failed := c.evidenceOf(ctx, n)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", n.url, failed))
			continue
		}
		answered++
		for _, p := range of {
			if id := p.ID(); !seen[id] && len(proofs) < evidence.MaxFileProofs {
				seen[id] = true
				proofs = append(proofs, p)
			}
		}
	}
	slices.SortFunc(proofs, func(a, b *evidence.Proof) int {
		x, y := a.Statements()[0], b.Statements()[0]
		i, k := a.ID(), b.ID()
		return cmp.Or(cmp.Compare(x.Shard, y.Shard), cmp.Compare(x.Epoch, y.Epoch), cmp.Compare(x.View, y.View), bytes.Compare(i[:], k[:]))
	})
	return proofs, answered, err
}

// evidenceOf is all proofs of one node.
func (c *Client) evidenceOf(ctx context.Context, n *node) (proofs []*evidence.Proof, err error) {
	for {
		var page api.Evidence
		if err := c.getJSON(ctx, n, fmt.Sprintf("/v1/evidence?from=%d", len(proofs)), &page); err != nil {
			return nil, err
		}
		for _, e := range page.Proofs {
			p, err := evidence.Decode(e.Proof)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
			}
			proofs = append(proofs, p)
		}
		if len(page.Proofs) == 0 || len(proofs) >= min(page.Total, evidence.MaxProofs) {
			return proofs, nil
		}
	}
}

// Genesis is the genesis file of one node. It is to be trusted only if its hash is known from elsewhere.
func (c *Client) Genesis(ctx context.Context) (b []byte, err error) {
	err = c.each(ctx, c.rotated(every), func(n *node) (err error) {
		b, err = c.send(ctx, n, http.MethodGet, "/v1/genesis", "", nil, maxGenesis)
		return err
	})
	return b, err
}

// fetch gets path from a node of the shard and hands it to use; an error of use makes it ask the next node.
func (c *Client) fetch(ctx context.Context, shard consensus.ShardID, path string, limit int64, use func([]byte) error) error {
	if c.trust == nil {
		return ErrNoTrust
	}
	nodes, err := c.ofShard(ctx, shard)
	if err != nil {
		return err
	}
	return c.each(ctx, nodes, func(n *node) error {
		b, err := c.send(ctx, n, http.MethodGet, path, "", nil, limit)
		if err != nil {
			return err
		}
		return use(b)
	})
}

// Account is a node's word on an account, as of its final tip: what a wallet needs to make the next transaction.
func (c *Client) Account(ctx context.Context, id tx.ID) (a api.Account, err error) {
	err = c.fetch(ctx, c.shardOf(id), "/v1/accounts/"+id.String(), maxAnswer, func(b []byte) error {
		if err := json.Unmarshal(b, &a); err != nil || a.ID != id {
			return fmt.Errorf("%w: account %s: %v", ErrAnswer, id, err)
		}
		return nil
	})
	return a, err
}

func (c *Client) shardOf(id tx.ID) consensus.ShardID {
	if c.trust == nil {
		return 0
	}
	return c.trust.ShardOf(id)
}

// Transaction is a node's word on how far a transaction is.
func (c *Client) Transaction(ctx context.Context, shard consensus.ShardID, id tx.Hash) (t api.Transaction, err error) {
	err = c.fetch(ctx, shard, "/v1/transactions/"+id.String(), maxAnswer, func(b []byte) error {
		if err := json.Unmarshal(b, &t); err != nil || tx.Hash(t.ID) != id {
			return fmt.Errorf("%w: transaction %s: %v", ErrAnswer, id, err)
		}
		return nil
	})
	return t, err
}

// ProvenAccount is an account's record under a final state root, verified, and the proof, to keep.
func (c *Client) ProvenAccount(ctx context.Context, id tx.ID) (s *proof.AccountStatement, p *proof.Account, err error) {
	err = c.fetch(ctx, c.shardOf(id), "/v1/accounts/"+id.String()+"/proof", proof.MaxFileBytes, func(b []byte) (err error) {
		if p, err = proof.DecodeAccount(b); err != nil {
			return err
		}
		if p.ID != id {
			return fmt.Errorf("%w: a proof of account %s, asked for %s", ErrAnswer, p.ID, id)
		}
		return c.proven(ctx, func() error { s, err = p.Verify(c.trust); return err })
	})
	if err != nil {
		return nil, nil, err
	}
	return s, p, nil
}

// ProvenAccounts are the records of several accounts under final state roots, verified, in the order of ids. It asks for
// as few proofs as nodes give: each is of accounts of one shard, so those of one proof are as of one block. The proofs
// are there to keep.
func (c *Client) ProvenAccounts(ctx context.Context, ids []tx.ID) ([]*proof.AccountStatement, []*proof.Accounts, error) {
	sorted := slices.Clone(ids)
	slices.Sort(sorted)
	shown := map[tx.ID]*proof.AccountStatement{}
	var proofs []*proof.Accounts
	for rest := slices.Compact(sorted); len(rest) > 0; {
		n := c.together(rest)
		p, err := c.provenTogether(ctx, rest[:n], shown)
		if err != nil {
			return nil, nil, err
		}
		proofs, rest = append(proofs, p), rest[n:]
	}
	out := make([]*proof.AccountStatement, len(ids))
	for i, id := range ids {
		out[i] = shown[id]
	}
	return out, proofs, nil
}

// together is how many of the first accounts, not none, can be asked for in one call.
func (c *Client) together(ids []tx.ID) int {
	n := 1
	for n < min(len(ids), api.MaxProofAccounts) && c.shardOf(ids[n]) == c.shardOf(ids[0]) && ledger.ProofChunks(ids[:n+1]) <= api.MaxProofChunks {
		n++
	}
	return n
}

// provenTogether adds what one call shows of accounts of one shard.
func (c *Client) provenTogether(ctx context.Context, ids []tx.ID, shown map[tx.ID]*proof.AccountStatement) (p *proof.Accounts, err error) {
	query := url.Values{}
	for _, id := range ids {
		query.Add("id", id.String())
	}
	err = c.fetch(ctx, c.shardOf(ids[0]), "/v1/accounts/proof?"+query.Encode(), proof.MaxFileBytes, func(b []byte) (err error) {
		if p, err = proof.DecodeAccounts(b); err != nil {
			return err
		}
		if !slices.Equal(p.IDs, ids) {
			return fmt.Errorf("%w: a proof of %d accounts, asked for %d others", ErrAnswer, len(p.IDs), len(ids))
		}
		return c.proven(ctx, func() error {
			statements, err := p.Verify(c.trust)
			for _, s := range statements {
				shown[s.ID] = s
			}
			return err
		})
	})
	return p, err
}

// Block is a final block, verified in full.
func (c *Client) Block(ctx context.Context, shard consensus.ShardID, height consensus.Height) (k *proof.Contents, err error) {
	path := fmt.Sprintf("/v1/blocks/%d/raw", height)
	err = c.fetch(ctx, shard, path, proof.MaxBlockBytes, func(b []byte) error {
		block, err := proof.DecodeBlock(b)
		if err != nil {
			return err
		}
		if h := block.Final.Header(); h.Shard != shard || h.Height != height {
			return fmt.Errorf("%w: block %d of shard %d, asked for %d of %d", ErrAnswer, h.Height, h.Shard, height, shard)
		}
		return c.proven(ctx, func() error { k, err = block.Verify(c.trust); return err })
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}
