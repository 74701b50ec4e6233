package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"tutti/accel/distill"
	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/pool"
	"tutti/state/tx"
)

// TestRefusals holds the pool's codes to the API's table: same words, and an answer with a remedy for each.
func TestRefusals(t *testing.T) {
	for _, code := range pool.Codes() {
		err := refusal(fmt.Errorf("wrapped: %w", &pool.Reject{Code: code, Detail: "the case in hand"}))
		if code == pool.Duplicate {
			if err != nil {
				t.Errorf("%s: %v: a duplicate is as good as accepted", code, err)
			}
			continue
		}
		var e *api.Error
		if !errors.As(err, &e) || string(e.Code) != string(code) || e.Detail != "the case in hand" {
			t.Errorf("%s is answered with %v", code, err)
			continue
		}
		r, ok := api.Lookup(e.Code)
		if !ok || r.Status < 400 || r.Status > 599 || r.Remedy == "" || r.Message == "" {
			t.Errorf("%s is not in the API's table: %+v", code, r)
		}
		if r.Status == 500 {
			t.Errorf("%s is called the node's fault", code)
		}
	}
	other := errors.New("disk")
	if err := refusal(other); err != other {
		t.Errorf("what the pool did not say became %v", err)
	}
	if err := refusal(nil); err != nil {
		t.Errorf("accepted became %v", err)
	}
}

func TestAccountProofsHaveABound(t *testing.T) {
	n := &Node{accountChunks: rate.NewLimiter(1, 1)}
	if err := n.takeTurn(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var e *api.Error
	if err := n.takeTurn(t.Context(), 1); !errors.As(err, &e) || e.Code != api.Busy || e.RetryAfter <= 0 || time.Since(began) > accountProofWait {
		t.Errorf("a full second away: %v after %s", err, time.Since(began))
	}
	n.accountChunks = rate.NewLimiter(rate.Every(100*time.Millisecond), 1)
	n.accountChunks.Allow()
	if err := n.takeTurn(t.Context(), 1); err != nil {
		t.Errorf("a moment away: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.takeTurn(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("the client left: %v", err)
	}
}

func TestOpenedBlocks(t *testing.T) {
	var o openedBlocks
	for h := range consensus.Height(6) {
		o.put(&proof.Contents{Header: &consensus.Header{Height: h}})
	}
	for h := range consensus.Height(7) {
		if c := o.get(h); (c != nil) != (h >= 2 && h < 6) || c != nil && c.Header.Height != h {
			t.Errorf("block %d: %v", h, c)
		}
	}
}

// TestOwesRoot: an idle chain makes the blocks that carry the roots of what was done, and then rests.
func TestOwesRoot(t *testing.T) {
	a := &application{open: map[consensus.Hash]*openBlock{}, history: &history{headers: map[consensus.Hash]*consensus.Header{}}}
	parent := consensus.Hash{}
	var got []bool
	for i, bytes := range []uint32{1, 1, 500, 1, 1, 1, 500, 1} {
		h := &consensus.Header{Height: consensus.Height(i + 1), Parent: parent, Body: consensus.BodyRef{Length: bytes}}
		parent = h.Hash()
		if i%2 == 0 {
			a.open[parent] = &openBlock{header: h, executed: &ledger.Executed{IDs: []tx.Hash{{byte(i)}}}}
		} else {
			a.history.headers[parent] = h
		}
		got = append(got, a.owesRoot(h))
	}
	if want := []bool{false, false, true, true, false, false, true, true}; !slices.Equal(got, want) {
		t.Errorf("owes %v, want %v", got, want)
	}
	if h, ok := a.included(tx.Hash{2}); !ok || h != 3 {
		t.Errorf("transaction in open block %d (%t), want 3", h, ok)
	}
	if _, ok := a.included(tx.Hash{1}); ok {
		t.Error("a transaction of no open block")
	}
	if got := a.ancestry(parent); len(got) != 0 { // the last is final
		t.Errorf("ancestry of a final block: %d", len(got))
	}
	if body := (&tx.Body{}).Append(nil); len(body) != emptyBody {
		t.Errorf("an empty body has %d bytes", len(body))
	}
	batch := transfersInBatch(t, 8)
	full := tx.Body{Txs: make([]tx.Signed, 8), Batches: []*distill.Batch{batch}, Outcomes: make([]bool, 16), Bundles: []tx.Bundle{{Receipts: make([]tx.Receipt, 2)}}}
	for i := range full.Txs {
		full.Txs[i].Kind = tx.Transfer
	}
	if n, want := len(full.Append(nil)), bodyHeads+8*tx.TransferWire+batch.Bytes()+2+bundleBytes(&full.Bundles[0]); n != want {
		t.Errorf("a body with all sections has %d bytes, reckoned %d", n, want)
	}
}

func TestApiURL(t *testing.T) {
	for listen, c := range map[string]struct {
		advertise []string
		want      string
	}{
		"127.0.0.1:0":  {nil, "http://127.0.0.1:PORT"},
		"localhost:0":  {nil, "http://localhost:PORT"},
		"0.0.0.0:0":    {[]string{"/ip4/192.0.2.7/tcp/9710"}, "http://192.0.2.7:PORT"},
		"[::]:0":       {[]string{"/dns4/node.example/udp/9710/quic-v1"}, "http://node.example:PORT"},
		"0.0.0.0:00":   {nil, ""},
		"0.0.0.0:0000": {[]string{"nonsense", "/ip6/2001:db8::1/tcp/1"}, "http://[2001:db8::1]:PORT"},
	} {
		t.Run(listen, func(t *testing.T) {
			n := &Node{}
			n.cfg.API.Listen, n.cfg.Network.Advertise = listen, c.advertise
			l := listenAny(t)
			n.listener = l
			if got, want := n.apiURL(), withPort(c.want, l); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

func listenAny(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// withPort puts a listener's port in a text.
func withPort(text string, l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return strings.ReplaceAll(text, "PORT", port)
}
