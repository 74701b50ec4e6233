package engine

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
)

// TestWorkerKeepsPromises asks a worker for random verdicts, finalizations and abandonments over a random tree of blocks,
// as the machine and block sync may do between them. toyApp fails the test when it sees what App's comments rule out; in
// the end it holds exactly the states that the worker knows of.
func TestWorkerKeepsPromises(t *testing.T) {
	ctx := context.Background()
	genesis := wireHeader(0, consensus.Hash{}, "")
	rapid.Check(t, func(rt *rapid.T) {
		l, err := blocklog.Open(blocklog.Options{FS: vfs.NewMem(), Dir: "log", Chain: testChain, Shard: testShard, Create: true, Retention: 100})
		must(t, err)
		defer l.Close()
		app := newToyApp(t, testChain, &toyDisk{hash: genesis.Hash()})
		w := &worker{app: app, log: l, hash: genesis.Hash(), known: map[consensus.Hash]knownBlock{}}
		tree := []*consensus.Header{genesis}
		bodies := map[consensus.Hash]consensus.Block{}
		for i := range rapid.IntRange(1, 12).Draw(rt, "blocks") {
			parent := tree[rapid.IntRange(0, len(tree)-1).Draw(rt, "parent")]
			h := wireHeader(parent.Height+1, parent.Hash(), string(rune('a'+i)))
			tree = append(tree, h)
			bodies[h.Hash()] = consensus.Block{Header: h, Body: []byte{byte('a' + i)}}
		}
		for range 40 {
			h := tree[rapid.IntRange(1, len(tree)-1).Draw(rt, "block")]
			bl := bodies[h.Hash()]
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0:
				w.abandon(h.Hash())
			case 1:
				var chain []consensus.Block // from above the final block, all known
				for at := bl; ; at = bodies[at.Header.Parent] {
					if _, ok := w.known[at.Header.Hash()]; !ok {
						chain = nil
						break
					}
					chain = append([]consensus.Block{at}, chain...)
					if at.Header.Parent == w.hash {
						break
					}
				}
				if chain == nil {
					continue
				}
				for _, b := range chain {
					must(t, l.AppendBlock(b))
				}
				cert := wireCert(consensus.Finalize, h)
				must(t, l.AppendFinal(&cert))
				must(t, w.finalise(ctx, chain, cert))
			default:
				valid, known, err := w.certify(ctx, bl)
				final, ok := l.FinalAt(h.Height)
				if err != nil || known && !valid || known != (w.stands(h.Hash()) || ok && final == h.Hash()) {
					rt.Fatalf("certify: %v %v %v", valid, known, err)
				}
			}
			if len(app.states) != len(w.known) {
				rt.Fatalf("the application holds %d states, the worker knows of %d", len(app.states), len(w.known))
			}
			for hash := range app.states {
				if !w.stands(hash) {
					rt.Fatal("the application holds a state that the worker does not know of")
				}
			}
		}
	})
}

// TestAbandonDuringSync: what block sync has executed is proven final; the machine, which does not know yet, can't have it
// abandoned.
func TestAbandonDuringSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := alone(t)
		e := c.nodes[0].Engine
		synced, other := consensus.Hash{1}, consensus.Hash{2}
		var left int
		e.post(func() error {
			e.sync.hashes = map[consensus.Hash]bool{synced: true}
			e.enqueue(func() outcome {
				for _, h := range []consensus.Hash{synced, other} {
					e.worker.known[h], c.nodes[0].app.states[h] = knownBlock{}, toyState{}
				}
				return nil
			})
			if err := e.apply(simplex.Abandoned{Block: synced}); err != nil {
				return err
			}
			if err := e.apply(simplex.Abandoned{Block: other}); err != nil {
				return err
			}
			e.enqueue(func() outcome { left = len(e.worker.known); return nil })
			return nil
		})
		synctest.Wait()
		if left != 1 {
			t.Errorf("%d blocks left, want the one that sync has executed", left)
		}
		c.stop(0)
	})
}

// TestAwaitEndsWithView: the wait for something to propose ends with the view, not with the next time this validator leads.
func TestAwaitEndsWithView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.options = func(i int, cfg *Config) {
			if i == 0 {
				cfg.App.(*toyApp).every = time.Hour
			}
		}
		c.start(all(4)...)
		led := false
		c.await("validator 0 leads and fails, and others finalise", time.Minute, func() bool {
			synctest.Wait()
			leads := c.nodes[0].Status().Leader == 0
			led = led || leads
			if waits := c.nodes[0].app.waits.Load(); waits > 1 || !leads && waits != 0 {
				t.Errorf("%d waits, leads %v", waits, leads)
			}
			h, _ := c.nodes[0].disk.final()
			return led && !leads && h >= 6
		})
		c.stop(all(4)...)
	})
}
