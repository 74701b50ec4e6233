package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/appliance/proof"
	"tutti/bench/openloop"
	"tutti/consensus"
	"tutti/state/tx"
)

// Node is a node as the checker asks it: what carries a proof has been verified, the rest is the node's word. Safe for
// concurrent use. An *api.Error is the node's refusal; any other error means that it gave no answer that can be believed.
type Node interface {
	Name() string
	Shard() consensus.ShardID
	Status(ctx context.Context) (*api.Status, error)
	Block(ctx context.Context, height consensus.Height) (*proof.Contents, error)
	Finality(ctx context.Context, id tx.Hash) (*proof.Proven, error)
	Account(ctx context.Context, id tx.ID) (*proof.AccountStatement, error)
	Evidence(ctx context.Context) (*api.Evidence, error)
}

// apiNode is a Node over HTTP. It asks this one node and nobody else.
type apiNode struct {
	name  string
	shard consensus.ShardID
	url   string
	trust *proof.Trust
	http  *http.Client
}

const (
	askTimeout = 20 * time.Second // for one answer of a node on a busy machine
	askPause   = 200 * time.Millisecond
	maxAnswer  = 16 << 20
)

func (n *apiNode) Name() string             { return n.name }
func (n *apiNode) Shard() consensus.ShardID { return n.shard }

// get asks until there is an answer that is not of the moment, or for askTimeout.
func (n *apiNode) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for {
		b, err := n.once(ctx, path)
		var refused *api.Error
		if err == nil || errors.As(err, &refused) && refused.RetryAfter == 0 {
			return b, err
		}
		if !openloop.Wait(ctx, max(askPause, retryAfter(refused))) {
			return nil, fmt.Errorf("faults: %s: %s: %w", n.name, path, err)
		}
	}
}

func retryAfter(e *api.Error) time.Duration {
	if e == nil {
		return 0
	}
	return e.RetryAfter
}

func (n *apiNode) once(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := n.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return b, nil
	}
	var a api.Answer
	if err := json.Unmarshal(b, &a); err != nil || a.Error.Code == "" {
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	e := &api.Error{Code: a.Error.Code, Detail: a.Error.Detail}
	if resp.Header.Get("Retry-After") != "" {
		e.RetryAfter = askPause
	}
	return nil, e
}

func (n *apiNode) Status(ctx context.Context) (*api.Status, error) {
	b, err := n.get(ctx, "/v1/status")
	if err != nil {
		return nil, err
	}
	s := &api.Status{}
	return s, json.Unmarshal(b, s)
}

func (n *apiNode) Block(ctx context.Context, height consensus.Height) (*proof.Contents, error) {
	b, err := n.get(ctx, fmt.Sprintf("/v1/blocks/%d/raw", height))
	if err != nil {
		return nil, err
	}
	block, err := proof.DecodeBlock(b)
	if err != nil {
		return nil, err
	}
	var c *proof.Contents
	if err := n.verify(ctx, func() (err error) { c, err = block.Verify(n.trust); return err }); err != nil {
		return nil, err
	}
	if c.Header.Shard != n.shard || c.Header.Height != height {
		return nil, fmt.Errorf("faults: %s: asked for block %d of shard %d, got %d of %d", n.name, height, n.shard, c.Header.Height, c.Header.Shard)
	}
	return c, nil
}

func (n *apiNode) Finality(ctx context.Context, id tx.Hash) (*proof.Proven, error) {
	b, err := n.get(ctx, finalityOf(id))
	if err != nil {
		return nil, err
	}
	p, _, err := n.proven(ctx, id, b)
	return p, err
}

func finalityOf(id tx.Hash) string { return "/v1/transactions/" + id.String() + "/proof" }

// proven verifies a proof that was asked for.
func (n *apiNode) proven(ctx context.Context, id tx.Hash, b []byte) (*proof.Proven, *proof.Finality, error) {
	f, err := proof.DecodeFinality(b)
	if err != nil {
		return nil, nil, err
	}
	p, err := n.believe(ctx, f)
	if err == nil && tx.Hash(p.ID) != id {
		err = fmt.Errorf("faults: %s: asked for a proof of %s, got one of %s", n.name, id, p.ID)
	}
	return p, f, err
}

func (n *apiNode) Evidence(ctx context.Context) (*api.Evidence, error) {
	b, err := n.get(ctx, "/v1/evidence")
	if err != nil {
		return nil, err
	}
	e := &api.Evidence{}
	return e, json.Unmarshal(b, e)
}

func (n *apiNode) Account(ctx context.Context, id tx.ID) (*proof.AccountStatement, error) {
	b, err := n.get(ctx, "/v1/accounts/"+id.String()+"/proof")
	if err != nil {
		return nil, err
	}
	a, err := proof.DecodeAccount(b)
	if err != nil {
		return nil, err
	}
	var s *proof.AccountStatement
	err = n.verify(ctx, func() (err error) { s, err = a.Verify(n.trust); return err })
	if err == nil && s.ID != id {
		err = fmt.Errorf("faults: %s: asked for account %s, got %s", n.name, id, s.ID)
	}
	return s, err
}

// believe is a believer who asks the node for the hand-overs that it needs.
func (n *apiNode) believe(ctx context.Context, f *proof.Finality) (p *proof.Proven, err error) {
	err = n.verify(ctx, func() (err error) { p, err = f.Verify(n.trust); return err })
	return p, err
}

// verify checks a proof, with the node's own hand-overs where its epoch's committee is not known, or not any more: trust is
// shared, and others may have it forget that committee again meanwhile.
func (n *apiNode) verify(ctx context.Context, check func() error) error {
	for tries := 0; ; tries++ {
		err := check()
		var miss *proof.EpochError
		if tries == 3 || !errors.As(err, &miss) {
			return err
		}
		c, err := client.New(client.Options{URLs: []string{n.url}, Trust: n.trust, CallTimeout: askTimeout, HTTP: n.http})
		if err != nil {
			return err
		}
		err = c.Learn(ctx, miss.Shard, miss.Epoch)
		if c.Close(); err != nil {
			return err
		}
	}
}
