package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/consensus/evidence"
)

func contradiction(shard consensus.ShardID, view consensus.View) *evidence.Proof {
	return &evidence.Proof{Votes: &[2]consensus.Vote{
		{Statement: consensus.Statement{Kind: consensus.Nullify, Shard: shard, View: view}},
		{Statement: consensus.Statement{Kind: consensus.Finalize, Shard: shard, View: view, Block: consensus.Hash{1}}},
	}}
}

// TestEvidence: the proofs of all nodes, over many pages, each once, in order; who does not answer is named.
func TestEvidence(t *testing.T) {
	n := prooftest.New(t, "client", 2)
	a, b := serve(t, n, 0, nil), serve(t, n, 1, nil)
	const many = api.MaxEvidence*2 + 5
	for view := range consensus.View(many) {
		a.AddEvidence(contradiction(0, many-view))
		b.AddEvidence(contradiction(0, view), contradiction(1, view))
	}
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"total":1,"from":0,"proofs":[{"proof":"00"}]}`))
	}))
	defer liar.Close()
	c := connect(t, n, a.url, b.url, liar.URL)
	defer c.Close()
	proofs, answered, err := c.Evidence(context.Background())
	if answered != 2 || !errors.Is(err, client.ErrAnswer) {
		t.Errorf("%d nodes answered, err %v", answered, err)
	}
	if len(proofs) != many+1+many {
		t.Fatalf("%d proofs", len(proofs))
	}
	for i, p := range proofs {
		shard, view := consensus.ShardID(0), consensus.View(i)
		if i > many {
			shard, view = 1, consensus.View(i-many-1)
		}
		if st := p.Statements()[0]; st.Shard != shard || st.View != view {
			t.Fatalf("proof %d is of shard %d, view %d", i, st.Shard, st.View)
		}
	}
}
