package statesync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/ledger"
)

// served is a server over a small chain, on a clock of its own.
func served(t *testing.T, l Limits) (*chain, *Server, *time.Time) {
	t.Helper()
	c := newChain(t)
	c.blocks(6, 60)
	now := time.Unix(1000, 0)
	l.Now = func() time.Time { return now }
	return c, NewServer(c.ledger, l), &now
}

func ask(t *testing.T, s *Server, from string, r request) ([][]byte, error) {
	t.Helper()
	b, err := s.Answer(context.Background(), from, r.encode())
	if err != nil {
		t.Fatal(err)
	}
	return decodeAnswer(&r, b)
}

// TestServer: every kind of part comes as the ledger has it.
func TestServer(t *testing.T) {
	c, s, _ := served(t, Limits{})
	ids := []ledger.ChunkID{{Partition: 0}, {Partition: 5}, {Partition: 127}}
	parts, err := ask(t, s, "a", request{typ: typeChunks, chunks: ids})
	if err != nil || len(parts) != 3 {
		t.Fatal(len(parts), err)
	}
	for i, id := range ids {
		want, err := c.ledger.Chunk(id.Partition, id.Index)
		if err != nil || !bytes.Equal(parts[i], want.Append(nil)) {
			t.Errorf("chunk %v: %v", id, err)
		}
	}
	parts, err = ask(t, s, "a", request{typ: typeChunks, chunks: []ledger.ChunkID{{Partition: 0}, {Partition: 0, Index: 7}}})
	if err != nil || len(parts) != 1 {
		t.Errorf("with one that is not there: %d chunks, %v", len(parts), err)
	}
	parts, err = ask(t, s, "a", request{typ: typeOutline})
	o, err2 := ledger.DecodeOutline(parts[0])
	if err != nil || err2 != nil || o.Height != 4 {
		t.Errorf("outline %+v: %v, %v", o, err, err2)
	}
	if parts, err = ask(t, s, "a", request{typ: typeDifferences, from: 2, most: MaxDifferenceBytes}); err != nil || len(parts) != 5 {
		t.Errorf("%d differences: %v", len(parts), err)
	}
	if parts, err = ask(t, s, "a", request{typ: typeDifferences, from: 2, most: 1}); err != nil || len(parts) != 1 {
		t.Errorf("%d differences of one byte: %v", len(parts), err)
	}
	keys := c.ledger.Meta().Directory.Count()
	if parts, err = ask(t, s, "a", request{typ: typeKeys, most: MaxKeys}); err != nil || uint64(len(parts[0])) != keys*keyBytes {
		t.Errorf("%d bytes of %d keys: %v", len(parts[0]), keys, err)
	}
	if parts, err = ask(t, s, "a", request{typ: typeTops, most: 9}); err != nil || len(parts[0]) != topBytes {
		t.Errorf("%d bytes of one top: %v", len(parts[0]), err)
	}
	sent := c.ledger.Meta().Channels[0].Sent.Count()
	if parts, err = ask(t, s, "a", request{typ: typeOutbox, shard: 1, from: 0, to: sent}); err != nil {
		t.Error(err)
	} else if box, err := ledger.DecodeOutbox(parts[0]); err != nil || uint64(len(box.Receipts)) != sent {
		t.Errorf("%+v: %v", box, err)
	}
}

// TestServerRefuses: what is not there, what breaks the rules, and everything once the ledger is closed.
func TestServerRefuses(t *testing.T) {
	c, s, _ := served(t, Limits{})
	for name, r := range map[string]request{
		"a chunk of another shard": {typ: typeChunks, chunks: []ledger.ChunkID{{Partition: 200}}},
		"a chunk that is empty":    {typ: typeChunks, chunks: []ledger.ChunkID{{Partition: 0, Index: 9}}},
		"a difference to come":     {typ: typeDifferences, from: 7, most: 10},
		"keys to come":             {typ: typeKeys, from: 1 << 30, most: 10},
		"tops to come":             {typ: typeTops, from: 1 << 20, most: 10},
		"receipts to come":         {typ: typeOutbox, shard: 1, from: 0, to: 1 << 16},
		"receipts to nobody":       {typ: typeOutbox, shard: 9, from: 0, to: 1},
	} {
		var no refusal
		if _, err := ask(t, s, "a", r); !errors.As(err, &no) || no.why != notHere {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Answer(context.Background(), "a", []byte("nonsense")); !errors.Is(err, ErrMalformed) {
		t.Errorf("nonsense: %v", err)
	}
	var no refusal
	for range 40 { // cycles of pages end, and differences go
		c.now = c.now.Add(6 * time.Minute)
		c.block(5)
	}
	oldest, err := c.ledger.Oldest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, s, "a", request{typ: typeDifferences, from: 3, most: 10}); !errors.As(err, &no) || no.why != notKept || no.kept != oldest {
		t.Errorf("a difference that was dropped: %v, oldest %d", err, oldest)
	}
	if got := s.Counters(); got.Malformed != 1 || got.NotHere != 8 || got.Failed != 0 || got.Busy != 0 {
		t.Errorf("%+v", got)
	}
	l := c.open(vfs.NewMem(), "closed", true)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, NewServer(l, Limits{}), "a", request{typ: typeOutline}); !errors.As(err, &no) || no.why != busy {
		t.Errorf("a closed ledger: %v", err)
	}
}

// TestServerRate: all peers together get the rate, each that asks the same share, whatever the others do; and who is refused
// is told a time after which it is not.
func TestServerRate(t *testing.T) {
	const rate = 1 << 20
	_, s, now := served(t, Limits{BytesPerSecond: rate})
	all := request{typ: typeChunks}
	for p := range uint16(MaxChunks) {
		all.chunks = append(all.chunks, ledger.ChunkID{Partition: p})
	}
	got, next := map[string]int{}, map[string]time.Time{}
	peer := func(name string, r request) {
		for !next[name].After(*now) {
			b, err := s.Answer(context.Background(), name, r.encode())
			if err != nil {
				t.Fatal(err)
			}
			var no refusal
			if _, err := decodeAnswer(&r, b); errors.As(err, &no) {
				if no.why != busy || no.wait <= 0 {
					t.Fatalf("%s: %v", name, err)
				}
				next[name] = now.Add(no.wait)
				return
			}
			got[name] += len(b)
		}
	}
	begin := *now
	tick := func(until time.Duration, step func()) {
		for now.Sub(begin) < until {
			*now = now.Add(10 * time.Millisecond)
			step()
		}
	}
	greedy := func() {
		for i := range 3 {
			peer(fmt.Sprintf("greedy %d", i), all)
		}
	}
	tick(30*time.Second, greedy) // their bursts go
	clear(got)
	tick(90*time.Second, func() {
		greedy()
		peer("modest", request{typ: typeChunks, chunks: all.chunks[:1]})
	})
	total := 0
	for name, bytes := range got {
		total += bytes
		if share := float64(bytes-burstFor(name)) / (rate * 60 / 4); share < 0.8 || share > 1.3 {
			t.Errorf("%s got %d bytes, %.2f of its share", name, bytes, share)
		}
	}
	if total > rate*60*11/10+burstFor("modest") {
		t.Errorf("%d bytes in a minute at %d a second", total, rate)
	}
	if c := s.Counters(); c.Busy == 0 || c.Answers == 0 {
		t.Errorf("%+v", c)
	}
}

// burstFor is what a peer gets at once that is new.
func burstFor(name string) int {
	if name == "modest" {
		return burstBytes
	}
	return 0
}

// blocking is a source whose chunks come when they are let go.
type blocking struct {
	Source
	in  chan struct{}
	out chan struct{}
}

func (b blocking) Chunk(p uint16, i uint32) (*ledger.Chunk, error) {
	b.in <- struct{}{}
	<-b.out
	return b.Source.Chunk(p, i)
}

// TestServerAtOnce: one peer can't hold all places, nobody gets more than there are, and the number of accounts is bounded.
func TestServerAtOnce(t *testing.T) {
	c := newChain(t)
	c.blocks(3, 3)
	b := blocking{c.ledger, make(chan struct{}), make(chan struct{})}
	s := NewServer(b, Limits{AtOnce: 3, PeerAtOnce: 2})
	r := request{typ: typeChunks, chunks: []ledger.ChunkID{{Partition: 1}}}
	answers := make(chan error, 3)
	begin := func(name string) {
		go func() {
			b, err := s.Answer(context.Background(), name, r.encode())
			if err == nil {
				_, err = decodeAnswer(&r, b)
			}
			answers <- err
		}()
		<-b.in
	}
	begin("a")
	begin("a")
	var no refusal
	if _, err := ask(t, s, "a", r); !errors.As(err, &no) || no.why != busy {
		t.Errorf("a third request of one peer: %v", err)
	}
	begin("b")
	if _, err := ask(t, s, "c", r); !errors.As(err, &no) || no.why != busy {
		t.Errorf("a fourth request: %v", err)
	}
	close(b.out)
	for range 3 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	for i := range maxAccounts + 50 {
		if _, err := ask(t, s, fmt.Sprint(i), request{typ: typeOutline}); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.peers) > maxAccounts || s.making != 0 {
		t.Errorf("%d accounts, %d answers being made", len(s.peers), s.making)
	}
}
