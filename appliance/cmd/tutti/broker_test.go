package main

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"tutti/appliance/broker"
	"tutti/consensus"
	"tutti/state/tx"
)

// TestBrokerMetrics: they are served where --metrics says, and no longer once the broker stops; a taken port has its remedy.
func TestBrokerMetrics(t *testing.T) {
	s, err := broker.New(broker.Options{
		Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), Shards: 1, ShardOf: func(tx.ID) consensus.ShardID { return 0 }, Fees: []uint64{1},
		Nodes: struct{ broker.Nodes }{}, MaxCount: 100, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	a := &app{stdout: &said, stderr: &said}
	stop, err := a.serveBrokerMetrics("127.0.0.1:0", s)
	if err != nil {
		t.Fatal(err)
	}
	_, url, _ := strings.Cut(strings.TrimSpace(said.String()), "Metrics: ")
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(text), "\ntutti_broker_submitted_total 0\n") {
		t.Errorf("%s, %v: %s", answer.Status, err, text)
	}
	taken := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/metrics")
	if _, err := a.serveBrokerMetrics(taken, s); err == nil || !strings.Contains(err.Error(), "--metrics") {
		t.Errorf("a port that is taken: %v", err)
	}
	stop()
	http.DefaultClient.CloseIdleConnections()
	if answer, err := http.Get(url); err == nil {
		answer.Body.Close()
		t.Error("served after the end")
	}
}
