package engine

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"tutti/consensus"
	"tutti/consensus/blocklog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestFinality: four validators finalise the same blocks at the pace of the application, and Status shows it.
func TestFinality(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		began := time.Now()
		c.start(all(4)...)
		c.reach(10, time.Minute, all(4)...)
		if took := time.Since(began); took > 10*220*time.Millisecond {
			t.Errorf("ten blocks took %v", took)
		}
		for i, n := range c.nodes {
			s := n.Status()
			if s.View < 10 || s.Final.Height < 10 || s.Logged < s.Final.Height || s.Height < s.Logged || s.Syncing || s.Shard != testShard ||
				s.Leader != c.committee.Leader(s.View) || s.Counters.Finalised != uint64(s.Final.Height) || s.Counters.Penalties != 0 {
				t.Errorf("node %d: %+v", i, s)
			}
			for k, v := range s.Validators {
				if v.Power != 1 || v.View < 9 || v.Height < 9 || time.Since(v.Seen) > time.Second || !v.PenaltyUntil.IsZero() {
					t.Errorf("node %d of validator %d: %+v", i, k, v)
				}
			}
		}
		c.stop(all(4)...)
		c.agree()
	})
}

// TestDuties holds every message against what a power loss at that very moment would leave: an own vote is in the vote
// log, the block of a proposal or a finalize is in the block log, and a block is logged as final before the application
// is told.
func TestDuties(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		var mu sync.Mutex
		checked := map[string]bool{}
		durable := func(i int, look func(*blocklog.Log)) {
			l, err := blocklog.Open(blocklog.Options{FS: c.nodes[i].fs.CrashClone(vfs.CrashCloneCfg{}), Dir: "log", Chain: testChain, Shard: testShard, Retention: 1000})
			if err != nil {
				t.Errorf("after a power loss: %v", err)
				return
			}
			look(l)
			must(t, l.Close())
		}
		c.wire.sent = func(from, to int, class Class, payload []byte) bool {
			m, err := decodeInbound(class, payload)
			if err != nil {
				t.Errorf("sent: %v", err)
				return true
			}
			vote := m.vote
			if m.proposal != nil {
				vote = &m.proposal.Vote
			}
			if vote == nil || checked[string(payload)] {
				return true
			}
			checked[string(payload)] = true
			durable(from, func(l *blocklog.Log) {
				logged := false
				for _, r := range l.Records() {
					logged = logged || r.Vote != nil && *r.Vote == *vote
				}
				if !logged {
					t.Errorf("node %d: %s of view %d left before it was durable", from, vote.Kind, vote.View)
				}
				if (m.proposal != nil || vote.Kind == consensus.Finalize) && !l.Has(vote.Block) {
					t.Errorf("node %d: %s of view %d left before the block was durable", from, vote.Kind, vote.View)
				}
			})
			return true
		}
		c.options = func(i int, cfg *Config) {
			cfg.App.(*toyApp).final = func(blocks []consensus.Block) {
				mu.Lock()
				defer mu.Unlock()
				durable(i, func(l *blocklog.Log) {
					for _, bl := range blocks {
						if hash, ok := l.FinalAt(bl.Header.Height); !ok || hash != bl.Header.Hash() {
							t.Errorf("node %d: finalised height %d before that was durable", i, bl.Header.Height)
						}
					}
				})
			}
		}
		c.start(all(4)...)
		c.reach(5, time.Minute, all(4)...)
		c.stop(all(4)...)
		if len(checked) < 4*5 {
			t.Errorf("only %d votes were seen", len(checked))
		}
	})
}

// TestSilentThenCatchesUp: three of four go on without the fourth, a view timer at a time, and the fourth, which never ran
// before, catches up by runs when it starts.
func TestSilentThenCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.wire.unplug(3)
		c.start(0, 1, 2)
		c.reach(45, 5*time.Minute, 0, 1, 2)
		c.start(3)
		c.reach(50, 20*time.Second, all(4)...)
		s := c.nodes[3].Status()
		if s.Counters.Syncs == 0 || s.Counters.SyncedBlocks < 20 || s.Counters.Penalties != 0 {
			t.Errorf("caught up with %+v", s.Counters)
		}
		at := c.nodes[3].Status().Final.Height
		c.await("node 3 votes again", 20*time.Second, func() bool { return c.nodes[0].Status().Validators[3].Height > at })
		c.stop(all(4)...)
		c.agree()
	})
}

// TestCatchUpInSeveralRuns: blocks too long for one run come in several, each finalised before the next is asked for.
func TestCatchUpInSeveralRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.options = func(i int, cfg *Config) {
			cfg.App.(*toyApp).padding = 1 << 20
			cfg.Limits = nearReach()
		}
		c.wire.unplug(3)
		c.start(0, 1, 2)
		c.reach(14, 5*time.Minute, 0, 1, 2)
		c.start(3)
		c.reach(16, 20*time.Second, 3)
		if s := c.nodes[3].Status(); s.Counters.Syncs < 3 || s.Counters.SyncedBlocks < 9 {
			t.Errorf("caught up with %+v", s.Counters)
		}
		c.stop(all(4)...)
		c.agree()
	})
}

// TestSlowDisk: while the application's disk stands still everywhere, blocks go on to be voted for and finalised, up to
// the finalizations that may wait; then verdicts wait, and all of it goes on when the disk does.
func TestSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		stuck := make(chan struct{})
		c.options = func(i int, cfg *Config) {
			cfg.App.(*toyApp).final = func(blocks []consensus.Block) {
				if blocks[0].Header.Height > 5 {
					<-stuck
				}
			}
		}
		c.start(all(4)...)
		c.await("logged finality is ahead of the disks", time.Minute, func() bool {
			return c.nodes[0].Status().Logged >= 5+maxFinals
		})
		time.Sleep(time.Minute)
		for _, n := range c.nodes {
			if s := n.Status(); s.Final.Height != 5 || s.Logged > 5+2*maxFinals {
				t.Errorf("durable to %d, logged to %d", s.Final.Height, s.Logged)
			}
		}
		close(stuck)
		c.reach(60, time.Minute, all(4)...)
		c.stop(all(4)...)
		c.agree()
	})
}

// TestRestartOne: a validator that is stopped for a few blocks fetches them by hash and goes on.
func TestRestartOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.start(all(4)...)
		c.reach(6, time.Minute, all(4)...)
		c.stop(1)
		c.reach(12, time.Minute, 0, 2, 3)
		c.start(1)
		c.reach(16, 20*time.Second, all(4)...)
		c.stop(all(4)...)
		c.agree()
	})
}

// TestPowerLossOfAll kills everyone at the same moment, several times. What was final stays final, in the application
// and in the log, and the shard goes on. The state is set back each time, so that the log has to make up for it.
func TestPowerLossOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		var before []consensus.Hash
		for round := range 4 {
			c.start(all(4)...)
			c.reach(consensus.Height(len(before))+4, time.Minute, all(4)...)
			time.Sleep(time.Duration(round) * 37 * time.Millisecond) // die at different moments of a view
			before = c.nodes[2].disk.chainOf()
			c.crash(all(4)...)
			if round%2 == 1 { // the application's last two blocks did not reach its disk
				d := c.nodes[0].disk
				c.nodes[0].disk = c.rebuilt(d, len(d.blocks)-2)
			}
		}
		c.start(all(4)...)
		c.reach(consensus.Height(len(before))+2, time.Minute, all(4)...)
		for i, n := range c.nodes {
			for k, hash := range n.disk.chainOf()[:len(before)] {
				if hash != before[k] {
					t.Fatalf("node %d: height %d was final and is not any more", i, k+1)
				}
				if got, ok := n.log.FinalAt(consensus.Height(k + 1)); !ok || got != hash {
					t.Fatalf("node %d: height %d is not final in the log", i, k+1)
				}
			}
		}
		c.stop(all(4)...)
		c.agree()
		digests := map[[32]byte]bool{}
		for _, n := range c.nodes {
			digests[c.rebuilt(n.disk, len(before)).digest] = true
		}
		if len(digests) != 1 {
			t.Error("the same blocks gave different states")
		}
	})
}

// rebuilt is the disk as it was when it had only the first k blocks.
func (c *cluster) rebuilt(d *toyDisk, k int) *toyDisk {
	out := &toyDisk{hash: c.genesis.Hash()}
	app := newToyApp(c.tb, testChain, out)
	var l *blocklog.Log
	for _, n := range c.nodes { // any log that has them
		if n.log.Has(d.blocks[k-1]) {
			l = n.log
		}
	}
	for _, hash := range d.blocks[:k] {
		bl, err := l.Block(hash)
		must(c.tb, err)
		_, err = app.Certify(context.Background(), bl)
		must(c.tb, err)
		must(c.tb, app.Finalise(context.Background(), []consensus.Block{bl}, consensus.Certificate{Statement: consensus.Statement{Block: hash}}))
	}
	return out
}

// TestStartRefuses: a state that can't belong to the log ends the start with an error that says what to do.
func TestStartRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.start(all(4)...)
		c.reach(6, time.Minute, all(4)...)
		c.stop(all(4)...)
		disk := c.nodes[0].disk
		for _, tc := range []struct {
			name  string
			spoil func(*toyDisk)
			opts  func(int, *Config)
			want  error
		}{
			{"state on another block", func(d *toyDisk) { d.hash[0]++ }, nil, ErrContradiction},
			{"state on another genesis", func(d *toyDisk) { *d = toyDisk{hash: consensus.Hash{9}} }, nil, ErrContradiction},
			{"state ahead of the log", func(d *toyDisk) { d.height += 10 }, nil, ErrStateAhead},
			{"a final block is invalid here", func(d *toyDisk) { *d = *c.rebuilt(d, 2) }, func(_ int, cfg *Config) {
				cfg.App.(*toyApp).refuse = func(bl consensus.Block) bool { return bl.Header.Height == 4 }
			}, ErrContradiction},
			{"another validator's log", func(*toyDisk) {}, func(_ int, cfg *Config) { cfg.Index, cfg.Signer = 2, c.signers[2] }, ErrOtherValidator},
		} {
			n := c.nodes[0]
			n.disk, c.options = disk.copy(), tc.opts
			tc.spoil(n.disk)
			_, err := Start(context.Background(), c.config(0))
			if !errors.Is(err, tc.want) {
				t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
			}
			must(t, n.log.Close())
		}
	})
}

// TestContradictionWhileRunning: a validator whose own verdict contradicts what the others finalise halts with the typed
// error; the others go on.
func TestContradictionWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.options = func(i int, cfg *Config) {
			if i == 3 {
				cfg.App.(*toyApp).refuse = func(bl consensus.Block) bool { return bl.Header.Height == 3 }
			}
		}
		c.start(all(4)...)
		<-c.nodes[3].Done()
		if err := c.nodes[3].Err(); !errors.Is(err, ErrContradiction) {
			t.Errorf("got %v", err)
		}
		c.wire.unplug(3)
		c.reach(6, time.Minute, 0, 1, 2)
		c.stop(0, 1, 2)
		must(t, c.nodes[3].log.Close())
	})
}

// TestContradictionInRun: the same for blocks that come in a run.
func TestContradictionInRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.options = func(i int, cfg *Config) {
			cfg.Limits = nearReach()
			if i == 3 {
				cfg.App.(*toyApp).refuse = func(bl consensus.Block) bool { return bl.Header.Height == 3 }
			}
		}
		c.wire.unplug(3)
		c.start(0, 1, 2)
		c.reach(10, 5*time.Minute, 0, 1, 2)
		c.start(3)
		<-c.nodes[3].Done()
		if err := c.nodes[3].Err(); !errors.Is(err, ErrContradiction) {
			t.Errorf("got %v", err)
		}
		if h, _ := c.nodes[3].disk.final(); h > 2 {
			t.Errorf("finalised height %d", h)
		}
		c.stop(0, 1, 2)
		must(t, c.nodes[3].log.Close())
	})
}

// TestFailedSync: when the disk fails, the engine ends with the log's error and sends nothing any more.
func TestFailedSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		var fail errorfs.Toggle
		fail.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileSyncData {
				return syscall.ENOSPC
			}
			return nil
		})
		c.nodes[2].view = errorfs.Wrap(c.nodes[2].fs, &fail)
		c.start(all(4)...)
		c.reach(3, time.Minute, all(4)...)
		var mu sync.Mutex
		after := 0
		c.wire.mu.Lock()
		c.wire.sent = func(from, to int, class Class, payload []byte) bool {
			if m, err := decodeInbound(class, payload); from == 2 && err == nil && (m.vote != nil || m.proposal != nil) {
				mu.Lock()
				after++
				mu.Unlock()
			}
			return true
		}
		c.wire.mu.Unlock()
		mu.Lock()
		fail.On()
		after = 0
		mu.Unlock()
		<-c.nodes[2].Done()
		w := (*blocklog.WriteError)(nil)
		if err := c.nodes[2].Err(); !errors.As(err, &w) || !errors.Is(err, syscall.ENOSPC) || w.Remedy() == "" {
			t.Errorf("got %v", err)
		}
		if after != 0 {
			t.Errorf("%d votes left after the disk had failed", after)
		}
		c.wire.unplug(2)
		c.reach(6, time.Minute, 0, 1, 3)
		c.stop(0, 1, 3)
	})
}

// TestCloseIsPrompt: Close ends an engine whose application is in the middle of a call, within a moment.
func TestCloseIsPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.options = func(i int, cfg *Config) {
			a := cfg.App.(*toyApp)
			a.every = time.Hour
			a.gate = make(chan struct{})
		}
		c.start(all(4)...)
		time.Sleep(300 * time.Millisecond)
		began := time.Now()
		c.stop(all(4)...)
		if took := time.Since(began); took > time.Second {
			t.Errorf("Close took %v", took)
		}
	})
}

// TestObserverNode: a node outside the committee follows without a vote.
func TestObserverNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.start(all(4)...)
		c.wire.mu.Lock() // the observer's port: it may ask, nobody sends to it
		c.wire.ports = append(c.wire.ports, nil)
		c.wire.mu.Unlock()
		fs := vfs.NewCrashableMem()
		c.nodes = append(c.nodes, &node{fs: fs, view: fs, disk: &toyDisk{hash: c.genesis.Hash()}})
		c.signers = append(c.signers, nil)
		c.options = func(i int, cfg *Config) { cfg.Index = -1 }
		c.start(4)
		c.reach(12, 2*time.Minute, 4)
		c.stop(all(5)...)
		c.agree()
	})
}
