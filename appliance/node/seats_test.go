package node

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/appliance/epochs"
	"tutti/appliance/genesis"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
	"tutti/internal/plant"
)

// seatLog is a block log that knows hashes, and what ended one epoch.
type seatLog struct {
	blockSource
	final map[consensus.Height]consensus.Hash
	end   *consensus.EpochEnd
}

func (l *seatLog) FinalAt(h consensus.Height) (consensus.Hash, bool) {
	hash, ok := l.final[h]
	return hash, ok
}

func (l *seatLog) EpochEnd(e consensus.Epoch) (*consensus.EpochEnd, error) {
	if l.end == nil || l.end.Last.Epoch != e {
		return nil, blocklog.ErrNotFound
	}
	return l.end, nil
}

// bench is a shard of 6 with 4 seats and epochs of 10 blocks, and a chain of 10 headers, of which none is final.
type bench struct {
	seats *seats
	log   *seatLog
	store *epochs.Store
	chain []*consensus.Header // by height - 1
	open  map[consensus.Hash]*openBlock
}

func newBench(t *testing.T) *bench {
	g := &genesis.Genesis{Shards: make([]genesis.Shard, 1), Parameters: genesis.Parameters{EpochBlocks: 10, CommitteeSize: 4}}
	for i := range 6 {
		g.Shards[0].Validators = append(g.Shards[0].Validators, genesis.Validator{Key: consensus.PublicKey{byte(i), 1}, Power: 1})
	}
	c, err := g.Committee(0)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{log: &seatLog{final: map[consensus.Height]consensus.Hash{}}, open: map[consensus.Hash]*openBlock{}}
	if b.store, err = epochs.Open(vfs.NewMem(), "epochs", consensus.Hash{7}, c); err != nil {
		t.Fatal(err)
	}
	b.seats = &seats{genesis: g, store: b.store, log: b.log}
	b.seats.current.Store(&term{Term: b.store.Newest()})
	var parent consensus.Hash
	for h := range consensus.Height(10) {
		x := &consensus.Header{
			Version: consensus.HeaderVersion, Chain: consensus.Hash{7}, View: consensus.View(h + 1), Height: h + 1, Parent: parent,
			Body: consensus.NewBodyRef(nil), Committee: c.Hash(), NextCommittee: c.Hash(),
		}
		parent = x.Hash()
		b.chain = append(b.chain, x)
		b.open[parent] = &openBlock{header: x}
	}
	last := *b.chain[9]
	b.chain[9] = &last
	next, err := g.NextCommittee(c, b.chain[4].Hash())
	if err != nil {
		t.Fatal(err)
	}
	last.NextCommittee = next.Hash()
	return b
}

// finalise makes blocks final up to a height, as the application does.
func (b *bench) finalise(t *testing.T, to consensus.Height) {
	for _, h := range b.chain[:to] {
		b.log.final[h.Height] = h.Hash()
		if err := b.seats.final(h); err != nil {
			t.Fatal(err)
		}
		delete(b.open, h.Hash())
	}
}

func (b *bench) app() *application { return &application{seats: b.seats, open: b.open} }

// TestSeatsNext: whatever part of the epoch is final, its last block has to name the committee that its own chain draws.
func TestSeatsNext(t *testing.T) {
	for _, final := range []consensus.Height{0, 4, 5, 9} {
		b := newBench(t)
		b.finalise(t, final)
		a := b.app()
		for _, h := range b.chain[final:] {
			if got, err := b.seats.committeeAfter(h, a.openHeader); err != nil || got != h.NextCommittee {
				t.Errorf("final %d, block %d: %s, %v", final, h.Height, got.Short(), err)
			}
		}
	}
	b := newBench(t)
	b.log.final[9] = b.chain[8].Hash()
	clear(b.open)
	if _, err := b.seats.committeeAfter(b.chain[9], b.app().openHeader); err == nil {
		t.Error("drawn from a block that is not held")
	}
}

// TestSeatsCertify: a block that names another next committee is invalid, and says so.
func TestSeatsCertify(t *testing.T) {
	b := newBench(t)
	for _, tc := range []struct {
		height consensus.Height
		next   consensus.Hash
	}{{10, b.chain[9].Committee}, {10, consensus.Hash{9}}, {9, b.chain[9].NextCommittee}, {1, consensus.Hash{}}} {
		h := *b.chain[tc.height-1]
		h.NextCommittee = tc.next
		a := b.app()
		valid, err := a.Certify(context.Background(), consensus.Block{Header: &h})
		if valid || err != nil || !strings.Contains(a.lastReason(), "next committee") {
			t.Errorf("block %d with %s: %t, %v, %q", tc.height, tc.next.Short(), valid, err, a.lastReason())
		}
	}
}

// TestSeatsHandOver: the middle block is stored when it is final, and the hand-over needs nothing more of the log; after a crash
// before it was stored it is made again from the log.
func TestSeatsHandOver(t *testing.T) {
	for _, crash := range []bool{false, true} {
		b := newBench(t)
		b.finalise(t, 10)
		if _, ok := b.store.Middle(0); !ok {
			t.Fatal("the middle is not stored")
		}
		clear(b.log.final) // pruned
		end := &consensus.EpochEnd{Last: b.chain[9], Cert: consensus.Certificate{Statement: consensus.Statement{
			Kind: consensus.Finalize, View: 10, Block: b.chain[9].Hash(),
		}, Signers: consensus.NewSigners(4)}}
		if crash {
			if err := b.seats.fill(1, 10); !errors.Is(err, errNoHandovers) {
				t.Errorf("out of an empty log: %v", err)
			}
			b.log.end = end
		} else if err := b.seats.handOver(end); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := b.seats.fill(1, 10); err != nil {
				t.Fatal(err)
			}
		}
		if got := b.store.Newest(); got.Committee.Hash() != b.chain[9].NextCommittee || got.Start != 10 {
			t.Errorf("the newest epoch is %+v", got)
		}
		if err := b.seats.handOver(end); err != nil {
			t.Errorf("again: %v", err)
		}
		// The first epoch is played again, with what is stored.
		b.seats.current.Store(&term{Term: epochs.Term{Committee: b.seats.current.Load().Committee}})
		if got, err := b.seats.committeeAfter(b.chain[9], b.app().openHeader); err != nil || got != b.chain[9].NextCommittee {
			t.Errorf("played again: %s, %v", got.Short(), err)
		}
		if err := b.seats.fill(1, 15); !errors.Is(err, errNoHandovers) {
			t.Errorf("the middle of epoch 1 is in no log: %v", err)
		}
	}
}

// TestSeatsBarred: a floor of a later epoch bars the epochs before.
func TestSeatsBarred(t *testing.T) {
	log, err := blocklog.Open(blocklog.Options{FS: vfs.NewMem(), Dir: "log", Chain: consensus.Hash{7}, Create: true, Retention: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if barred(log, 0) {
		t.Error("without a floor")
	}
	if err := log.SetFloor(simplex.Floor{Epoch: 4, View: 9}, nil); err != nil {
		t.Fatal(err)
	}
	for epoch, want := range map[consensus.Epoch]bool{0: true, 3: true, 4: false, 5: false} {
		if barred(log, epoch) != want {
			t.Errorf("epoch %d barred: %t", epoch, !want)
		}
	}
}

// TestSeatsProof: the last blocks of an epoch that is over by echoes are proven through them.
func TestSeatsProof(t *testing.T) {
	for _, echoes := range []int{0, 1, 3, proof.MaxDescendants, proof.MaxDescendants + 1} {
		net := prooftest.New(t, "echoes", 1)
		net.Add(0, nil, nil)
		log := &chainLog{base: 1, blocks: net.Finalise(0)}
		net.Add(0, nil, nil)
		h, blocks := net.HandOver(0, echoes)
		log.blocks, log.end = append(log.blocks, blocks...), h.End
		hist := historyOf(net, log)
		play(t, hist, log)
		for i, b := range log.blocks {
			f, err := hist.final(consensus.Height(i + 1))
			if len(b.Final.Headers) > 1+proof.MaxDescendants {
				if err == nil {
					t.Errorf("%d echoes, block %d: a proof of %d headers", echoes, i+1, len(f.Headers))
				}
				continue
			}
			if err != nil {
				t.Fatalf("%d echoes, block %d: %v", echoes, i+1, err)
			}
			if _, err := f.Verify(net.Trust); err != nil || len(f.Headers) != len(b.Final.Headers) {
				t.Errorf("%d echoes, block %d: %d headers, want %d, %v", echoes, i+1, len(f.Headers), len(b.Final.Headers), err)
			}
		}
		if own, err := hist.certified(3); err != nil || (own != nil) != (echoes == 0) {
			t.Errorf("%d echoes: a certificate of the last block's own: %v, %v", echoes, own, err)
		}
	}
}

func FuzzDecodeHandovers(f *testing.F) {
	net := prooftest.New(f, "hand-overs", 1)
	var list []*proof.Handover
	for i := range 3 {
		h, _ := net.HandOver(0, i)
		list = append(list, h)
		b := appendHandovers(nil, list)
		if got, err := decodeHandovers(b); err != nil || len(got) != len(list) {
			f.Fatalf("%d hand-overs came back as %d, %v", len(list), len(got), err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := decodeHandovers(b); err == nil && !bytes.Equal(appendHandovers(nil, list), b) {
			t.Error("another encoding of the same hand-overs")
		}
	})
}

// bugs are faults that the tests of seats and of proofs of bundles must notice.
var bugs = []plant.Bug{
	{Name: "any next committee is certified", File: "app.go", Old: "if b.Header.NextCommittee != next {", New: "if b.Header.NextCommittee != next && !planted(%q) {"},
	{Name: "the middle is not stored", File: "epochs.go", Old: "!ends || h.Height != at {", New: "!ends || h.Height != at || planted(%q) {"},
	{Name: "the next committee is drawn from the last block", File: "epochs.go", Old: "for h.Height > at {", New: "for h.Height > at && !planted(%q) {"},
	{Name: "a proof ends with the last block", File: "history.go", Old: "if cert.Block == last.Hash() {", New: "if cert.Block == last.Hash() || planted(%q) {"},
	{Name: "a proof begins with any committee", File: "headers.go", Old: "case p.known.Hash() != consensus.Hash(known.Committee):", New: "case p.known.Hash() != consensus.Hash(known.Committee) && !planted(%q):"},
	{Name: "what ended an epoch is not checked", File: "headers.go", Old: "error { return h.Verify(", New: "error { if planted(%q) { return nil }; return h.Verify("},
	{Name: "one verdict is another's", File: "headers.go", Old: "d.Write(content)", New: "if !planted(%q) { d.Write(content) }"},
	{Name: "a floor bars its own epoch only", File: "handovers.go", Old: "r.Floor.Epoch > epoch {", New: "r.Floor.Epoch > epoch && !planted(%q) {"},
}

// TestPlantedSeats: each bug makes the tests fail, and without one they pass.
func TestPlantedSeats(t *testing.T) {
	plant.Noticed(t, bugs, "-test.run", "^Test(Seats|LinkProofs$)", "-test.failfast")
}
