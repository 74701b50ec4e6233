package node

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tutti/accel/bls"
	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/metrics"
	"tutti/consensus"
	"tutti/consensus/evidence"
	"tutti/state/tx"
)

// TestEvidenceIsKept: what the engine's observer hears becomes proofs that hold, that the API shows, and that are still
// there after a restart, once each.
func TestEvidenceIsKept(t *testing.T) {
	var said bytes.Buffer
	home := config.Home(t.TempDir())
	if err := config.CreateFormat(home.Data(), config.DataFormat); err != nil {
		t.Fatal(err)
	}
	g := &genesis.Genesis{Name: "net", Shards: make([]genesis.Shard, 1)}
	var secrets []*bls.SecretKey
	for i := range 4 {
		k, err := bls.NewSecretKey(bytes.Repeat([]byte{byte(i + 1)}, 32))
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, k)
		g.Shards[0].Validators = append(g.Shards[0].Validators, genesis.Validator{Name: string(rune('a' + i)), Key: k.Public(), Node: [32]byte{byte(i)}, Power: 10})
	}
	c, err := g.Committee(0)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := consensus.NewKeys(c)
	if err != nil {
		t.Fatal(err)
	}
	var registry *prometheus.Registry
	start := func() *Node {
		registry = prometheus.NewRegistry()
		m, err := metrics.New(registry, "", "")
		if err != nil {
			t.Fatal(err)
		}
		n := &Node{
			home: home, genesis: g, chain: tx.Hash{7}, committees: []*consensus.Committee{c}, metrics: m,
			log: slog.New(slog.NewTextHandler(&said, nil)),
		}
		if err := errors.Join(n.openEpochs(), n.openEvidence()); err != nil {
			t.Fatal(err)
		}
		return n
	}
	statement := func(k consensus.Kind, view consensus.View, block byte) consensus.Statement {
		st := consensus.Statement{Kind: k, View: view}
		if k != consensus.Nullify {
			st.Block = consensus.Hash{block}
		}
		return st
	}
	vote := func(i int, st consensus.Statement) consensus.Vote {
		return consensus.Vote{Statement: st, Validator: uint16(i), Signature: secrets[i].Sign(consensus.VoteMessage(consensus.Hash{7}, st))}
	}
	certificate := func(st consensus.Statement, signers ...int) consensus.Certificate {
		cert := consensus.Certificate{Statement: st, Signers: consensus.NewSigners(4)}
		var sigs []consensus.Signature
		for _, i := range signers {
			cert.Signers.Add(i)
			sigs = append(sigs, vote(i, st).Signature)
		}
		if cert.Signature, err = keys.Aggregate(sigs); err != nil {
			t.Fatal(err)
		}
		return cert
	}
	see := func(n *Node) {
		o := observer{n}
		o.Evidence(vote(2, statement(consensus.Notarize, 5, 2)), vote(2, statement(consensus.Notarize, 5, 1)))
		o.Conflict(certificate(statement(consensus.Nullify, 6, 0), 0, 1, 2), certificate(statement(consensus.Finalize, 6, 1), 1, 2, 3))
		o.Conflict(certificate(statement(consensus.Notarize, 6, 2), 0, 1, 2), certificate(statement(consensus.Finalize, 6, 1), 1, 2, 3)) // legal for each
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if strings.HasSuffix(f.GetName(), "consensus_evidence_total") && f.GetMetric()[0].GetCounter().GetValue() == 2 {
				return
			}
		}
		t.Error("the metric does not say 2")
	}

	n := start()
	see(n)
	if err := n.evidence.Close(); err != nil { // as it ends, it keeps what waits
		t.Fatal(err)
	}
	for _, want := range []string{"validators=[2]", `validators="[1 2]"`, "notarize of view 5 for block 01000000"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the log does not say %s:\n%s", want, &said)
		}
	}
	n = start()
	see(n)
	if err := n.evidence.Close(); err != nil {
		t.Fatal(err)
	}
	n = start()
	defer n.evidence.Close()
	page := backend{n}.Evidence(0, 10)
	if page.Total != 2 || len(page.Proofs) != 2 {
		t.Fatalf("%+v", page)
	}
	for i, want := range []string{"c", "bc"} {
		p, err := evidence.Decode(page.Proofs[i].Proof)
		if err != nil {
			t.Fatal(err)
		}
		f, err := evidence.Verify(p, consensus.Hash{7}, c, keys)
		if err != nil || len(f.Guilty) != len(want) {
			t.Errorf("proof %d: %+v, %v", i, f, err)
		}
		var names string
		for _, v := range page.Proofs[i].Validators {
			names += v.Name
		}
		if names != want {
			t.Errorf("proof %d names %q", i, names)
		}
	}
	if rest := (backend{n}).Evidence(1, 10); rest.Total != 2 || len(rest.Proofs) != 1 || rest.From != 1 {
		t.Errorf("%+v", rest)
	}
}
