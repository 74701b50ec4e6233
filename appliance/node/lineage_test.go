package node

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/netstack"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// serveSteps answers as the validators of shard 0 do.
func (w *world) serveSteps(_ context.Context, _ netstack.NodeID, request []byte) ([]byte, error) {
	w.asked.Add(1)
	return answerHandovers(request, func(from consensus.Epoch, limit int) ([]*proof.Handover, error) {
		if from < 1 || from > consensus.Epoch(len(w.steps)) {
			return nil, nil
		}
		return w.steps[from-1:][:min(limit, len(w.steps)-int(from-1))], nil
	})
}

// end ends an epoch of shard 0, with so many echoes.
func (w *world) end(echoes int) {
	h, _ := w.net.HandOver(0, echoes)
	w.steps = append(w.steps, h)
	m, err := w.dest.headers.member(h.Next, nil)
	if err != nil {
		panic(err)
	}
	w.seats.Store(&m)
}

// destination is the channel of shard 1 from shard 0, after the blocks that a test makes.
type destination struct {
	t     *testing.T
	c     *crossLinks
	final ledger.Channel
	tip   ledger.Channel // of a block that is not final
}

// block takes in what a block may include, judged as the ledger judges it, and says how many receipts and hand-overs that was; -1
// for no bundle.
func (d *destination) block(height consensus.Height, room int) (receipts, steps int) {
	d.t.Helper()
	got := d.c.bundles(height, []ledger.Channel{d.tip}, room, 8<<20)
	if len(got) == 0 {
		return -1, -1
	}
	h, err := d.c.headers.Verify(0, d.tip.Known, got[0].Proof)
	if err != nil {
		d.t.Fatalf("the proof of the bundle: %v", err)
	}
	first := d.tip.Received.Count()
	l := h.Links[0]
	if got[0].First != first || l.Sent != first+uint64(len(got[0].Receipts)) || h.Epoch < d.tip.Epoch || h.Epoch == d.tip.Epoch && h.Height < d.tip.HeaderHeight {
		d.t.Fatalf("it brings [%d, %d), its header, of epoch %d and height %d, has sent %d; the channel is at %+v",
			got[0].First, got[0].First+uint64(len(got[0].Receipts)), h.Epoch, h.Height, l.Sent, d.tip.Known)
	}
	for i, r := range got[0].Receipts {
		if r.Amount != first+uint64(i)+1 {
			d.t.Fatalf("receipt %d is another one", i)
		}
	}
	p, err := decodeLinkProof(got[0].Proof)
	if err != nil {
		d.t.Fatal(err)
	}
	d.tip.Received, d.tip.Known, d.tip.HeaderHeight, d.tip.Acked = rangeOf(int(l.Sent)), h.Known, h.Height, l.Received
	return len(got[0].Receipts), len(p.steps)
}

// finalise makes the tip final.
func (d *destination) finalise() {
	d.final = d.tip
	d.c.finalised(&consensus.Header{Links: []consensus.Link{{Shard: 0, Received: d.final.Received.Count()}}}, nil, []ledger.Channel{d.final})
}

// expect makes a block and compares.
func (d *destination) expect(height consensus.Height, receipts, steps int) {
	d.t.Helper()
	if r, s := d.block(height, 1<<20); r != receipts || s != steps {
		d.t.Errorf("a block brings %d receipts by %d hand-overs, want %d by %d", r, s, receipts, steps)
	}
}

// settle waits until nothing is under way.
func settle() {
	time.Sleep(2 * headPoll)
	synctest.Wait()
}

func TestLineage(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *world, *destination){
		"receipts of the next epoch": func(t *testing.T, w *world, d *destination) {
			w.gossip(t, 0, w.send(3, 0, 1, 2))
			w.held(t, 200*time.Millisecond)
			d.expect(1, 3, 0)
			w.end(0)
			w.gossip(t, 0, w.send(7, 0, 1, 2))
			if n := w.held(t, 300*time.Millisecond); n != 7 { // hand-overs first, then receipts
				t.Errorf("%d receipts", n)
			}
			d.expect(2, 4, 1)
			d.finalise()
			w.gossip(t, 0, w.send(9, 0, 1, 2))
			w.held(t, 200*time.Millisecond)
			d.expect(3, 2, 0) // with the committee that is known now
			if c := d.c.transport.Counters(); c.GossipInvalid != 0 || c.GossipIgnored != 1 {
				t.Errorf("%d gossiped headers were wrong, %d not judged", c.GossipInvalid, c.GossipIgnored)
			}
		},
		"without gossip": func(t *testing.T, w *world, d *destination) {
			w.end(2)
			w.end(0)
			w.send(7, 0, 1, 2)
			w.held(t, 2*headPoll)
			d.expect(1, 7, 2)
		},
		"nothing to bring but an epoch": func(t *testing.T, w *world, d *destination) {
			w.gossip(t, 0, w.send(0, 0, 1, 2))
			settle()
			d.expect(1, -1, -1)
			w.end(1)
			w.gossip(t, 0, w.send(0, 0, 1, 2))
			settle()
			d.expect(1, 0, 1)
			d.expect(2, -1, -1)
			if d.tip.Epoch != 2 {
				t.Errorf("the channel knows epoch %d", d.tip.Epoch)
			}
			w.end(0) // and nothing of the new epoch is final yet, or heard of: its hand-over is brought when it is
			settle()
			d.expect(3, -1, -1)
		},
		"a long gap": func(t *testing.T, w *world, d *destination) {
			for e := range 20 {
				w.send(uint64(e + 1))
				w.end(e % 3)
			}
			w.gossip(t, 0, w.send(21, 0, 1, 2))
			settle()
			d.expect(1, 8, 8) // up to the last block of the eighth epoch
			d.expect(2, 8, 8) // also on a block that is not final
			d.finalise()
			settle()
			d.expect(3, 5, 4)
			d.expect(4, -1, -1)
		},
		"a gap longer than what is kept": func(t *testing.T, w *world, d *destination) {
			for range 2*keptSteps + 3 {
				w.end(0)
			}
			w.gossip(t, 0, w.send(5, 0, 1, 2))
			settle()
			for blocks := 1; ; blocks++ {
				s := d.c.sources[0]
				if n := len(s.steps); n > keptSteps || s.lineage.bytes != stepBytes(s.steps) {
					t.Fatalf("%d hand-overs of %d bytes are kept", n, s.lineage.bytes)
				}
				r, _ := d.block(consensus.Height(blocks), 1<<20)
				if r < 0 || blocks > 20 {
					t.Fatalf("block %d brings nothing, the channel knows epoch %d", blocks, d.tip.Epoch)
				}
				d.finalise()
				settle()
				if r > 0 {
					break
				}
			}
			if d.tip.Epoch != 2*keptSteps+4 {
				t.Errorf("the channel knows epoch %d", d.tip.Epoch)
			}
		},
		"little room": func(t *testing.T, w *world, d *destination) {
			for e := range 3 {
				w.send(uint64(e + 1))
				w.end(0)
			}
			w.gossip(t, 0, w.send(4, 0, 1, 2))
			settle()
			one := stepBytes([]step{{w.steps[0], len(w.steps[0].Append(nil))}})
			if r, s := d.block(1, 2*one+100); r != 2 || s != 2 {
				t.Errorf("%d receipts by %d hand-overs where there is room for two", r, s)
			}
			if r, s := d.block(2, 100); r != 2 || s != 1 { // one is always brought, and the header with it
				t.Errorf("%d receipts by %d hand-overs where there is room for none", r, s)
			}
		},
		"after a start": func(t *testing.T, w *world, d *destination) {
			for range 6 {
				w.end(0)
			}
			// The trust begins with the genesis again, the state's channel knows the fifth epoch.
			c := w.steps[3].Next
			d.tip.Known = ledger.Known{Epoch: 5, Committee: tx.Hash(c.Hash())}
			d.final = d.tip
			d.c.resume([]ledger.Channel{d.final}, nil)
			w.send(4, 0, 1, 2)
			settle()
			d.expect(1, 4, 2)
		},
		"after a start, far from the genesis": func(t *testing.T, w *world, d *destination) {
			for range keptSteps + 3 {
				w.end(0)
			}
			lied := atomic.Int32{}
			w.sources[0].transport.Serve(handoverProtocol, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
				lied.Add(1)
				return appendHandovers(nil, w.steps[:1]), nil
			})
			at := keptSteps + 2
			d.tip.Known = ledger.Known{Epoch: uint64(at), Committee: tx.Hash(w.steps[at-2].Next.Hash())}
			d.final = d.tip
			d.c.resume([]ledger.Channel{d.final}, nil)
			w.send(4, 0, 1, 2)
			settle()
			d.expect(1, 4, 2)
			if n := d.c.trust.Checks(); n > 10 || lied.Load() == 0 {
				t.Errorf("the trust made %d checks, of %d hand-overs one is needed", n, len(w.steps))
			}
			if _, _, err := d.c.trust.Committee(0, 5); !errors.Is(err, proof.ErrEpoch) {
				t.Errorf("an epoch that was left out: %v", err)
			}
			d.c.want(0, 5) // which nobody can show
			settle()
			w.end(0)
			w.gossip(t, 1, w.send(5, 0, 1, 2))
			settle()
			d.expect(2, 1, 1)
		},
		"the state is ahead of what is kept": func(t *testing.T, w *world, d *destination) {
			for range 4 {
				w.end(0)
			}
			w.gossip(t, 0, w.send(4, 0, 1, 2))
			settle()
			w.end(0) // others heard of it before, and a block of theirs is final here
			d.tip.Known = ledger.Known{Epoch: 6, Committee: tx.Hash(w.steps[4].Next.Hash())}
			d.finalise()
			w.send(5, 0, 1, 2)
			settle()
			d.expect(1, 5, 0)
		},
		"nobody can show what is claimed": func(t *testing.T, w *world, d *destination) {
			fh := w.send(7, 0, 1, 2)
			for i := range 100 {
				far := *fh.Header
				far.Epoch, far.Height = 50, far.Height+consensus.Height(i)
				cert := fh.Cert
				cert.Statement = consensus.Statement{Kind: consensus.Finalize, Epoch: 50, View: far.View, Block: far.Hash()}
				w.gossip(t, 0, &consensus.FinalHeader{Header: &far, Cert: cert})
				time.Sleep(headPoll / 10)
			}
			if n := w.asked.Load(); n < fetchTries || n > 12*fetchTries {
				t.Errorf("asked %d times in ten times headPoll", n)
			}
			w.end(0)
			time.Sleep(headPoll)
			w.gossip(t, 0, w.send(9, 0, 1, 2))
			settle()
			d.expect(1, 9, 1)
		},
		"receipts that a header of an older epoch proves": func(t *testing.T, w *world, d *destination) {
			w.box.all = receipts(2 * bundleAim)
			for e := range 9 {
				if e == 2 {
					w.send(bundleAim-1, 0, 1, 2)
				}
				w.end(0)
			}
			w.gossip(t, 0, w.send(2*bundleAim, 0, 1, 2))
			settle()
			d.expect(1, bundleAim-1, 2)
			d.finalise()
			settle()
			d.expect(2, bundleAim+1, 7)
		},
		"an older committee is wanted": func(t *testing.T, w *world, d *destination) {
			for range 9 {
				w.end(0)
			}
			w.send(0, 0, 1, 2)
			settle()
			if _, _, err := d.c.trust.Committee(0, 4); !errors.Is(err, proof.ErrEpoch) {
				t.Fatalf("held before: %v", err)
			}
			d.c.want(0, 4)
			settle()
			if _, _, err := d.c.trust.Committee(0, 4); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, stop := startWorld(t, 3)
				defer stop()
				test(t, w, &destination{t: t, c: w.dest})
			})
		})
	}
}

func stepBytes(steps []step) (n int) {
	for _, s := range steps {
		n += len(s.Append(nil))
	}
	return n
}

// TestLineageOfLiars: a validator that sends wrong hand-overs, or none, is passed over, and nothing of it is kept.
func TestLineageOfLiars(t *testing.T) {
	forged := func(h *proof.Handover) *proof.Handover {
		end := *h.End
		end.Cert.Signature[7] ^= 1
		return &proof.Handover{End: &end, Next: h.Next}
	}
	for name, lie := range map[string]func(w *world, good []*proof.Handover) []byte{
		"none":        func(*world, []*proof.Handover) []byte { return nil },
		"no encoding": func(*world, []*proof.Handover) []byte { return []byte("hand-overs") },
		"cut short":   func(_ *world, good []*proof.Handover) []byte { return appendHandovers(nil, good)[:500] },
		"the first is forged": func(_ *world, good []*proof.Handover) []byte {
			return appendHandovers(nil, []*proof.Handover{forged(good[0])})
		},
		"the second is forged": func(_ *world, good []*proof.Handover) []byte {
			return appendHandovers(nil, []*proof.Handover{good[0], forged(good[1])})
		},
		"one is left out": func(_ *world, good []*proof.Handover) []byte {
			return appendHandovers(nil, append(slices.Clone(good[:1]), good[2:]...))
		},
		"not from where it was asked": func(_ *world, good []*proof.Handover) []byte {
			return appendHandovers(nil, good[1:])
		},
		"of another shard": func(w *world, _ []*proof.Handover) []byte {
			h, _ := w.net.HandOver(1, 0)
			return appendHandovers(nil, []*proof.Handover{h})
		},
		"another next committee": func(_ *world, good []*proof.Handover) []byte {
			return appendHandovers(nil, []*proof.Handover{{End: good[0].End, Next: good[1].Next}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, stop := startWorld(t, 3)
				defer stop()
				for range 3 {
					w.end(1)
				}
				lied := atomic.Int32{}
				w.sources[0].transport.Serve(handoverProtocol, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
					lied.Add(1)
					return lie(w, w.steps), nil
				})
				w.gossip(t, 1, w.send(7, 0, 1, 2))
				w.held(t, 500*time.Millisecond)
				d := &destination{t: t, c: w.dest}
				d.expect(1, 7, 3)
				if lied.Load() != 1 {
					t.Errorf("the liar was asked %d times", lied.Load())
				}
			})
		})
	}
	// What ended an epoch that is followed already is checked where it is kept for proofs, too.
	synctest.Test(t, func(t *testing.T) {
		w, stop := startWorld(t, 1)
		defer stop()
		for range 3 {
			w.end(0)
		}
		for _, h := range w.steps {
			if err := w.dest.trust.Advance(h); err != nil {
				t.Fatal(err)
			}
		}
		s := w.dest.sources[0]
		if n, err := w.dest.takeSteps(s, 1, 3, appendHandovers(nil, []*proof.Handover{forged(w.steps[0])})); err == nil || n != 0 || len(s.steps) != 0 {
			t.Errorf("a forged end is kept: %d, %v", n, err)
		}
		if n, err := w.dest.takeSteps(s, 1, 2, appendHandovers(nil, w.steps)); err == nil || n != 0 {
			t.Errorf("more than were asked for: %d, %v", n, err)
		}
		if n, err := w.dest.takeSteps(s, 1, 3, appendHandovers(nil, w.steps)); err != nil || n != 3 || len(s.steps) != 3 {
			t.Errorf("right ones: %d, %v", n, err)
		}
	})
}

func TestHandoverRequests(t *testing.T) {
	none := func(consensus.Epoch, int) ([]*proof.Handover, error) { return nil, nil }
	for _, request := range [][]byte{nil, handoverRequest(3, 7)[1:], append(handoverRequest(3, 7), 0)} {
		if _, err := answerHandovers(request, none); err == nil {
			t.Errorf("a request of %d bytes is answered", len(request))
		}
	}
	var asked []int
	for _, limit := range []int{7, handoversAsked, 1<<16 - 1} {
		if _, err := answerHandovers(handoverRequest(3, limit), func(from consensus.Epoch, limit int) ([]*proof.Handover, error) {
			asked = append(asked, int(from), limit)
			return nil, nil
		}); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(asked, []int{3, 7, 3, handoversAsked, 3, handoversAsked}) {
		t.Errorf("asked for %v", asked)
	}
}
