package peers

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"sync"
	"testing"
	"time"
)

// toy is the smallest adapter: one sequencer in this process that makes a block every few milliseconds. It is what
// doc.go shows to those who write one.
type toy struct {
	every   time.Duration
	perBlk  int  // transactions of a block, at most
	refuse  bool // each tenth transaction
	forget  bool // each tenth transaction, after taking it
	follows error
}

func (t *toy) Name() string                             { return "toy" }
func (t *toy) Conditions() string                       { return "no agreement at all" }
func (t *toy) Install(context.Context, io.Writer) error { return nil }
func (n *toyNetwork) Processes() []int                  { return []int{os.Getpid()} }
func (n *toyNetwork) Transaction(i uint64, s int) []byte {
	return binary.BigEndian.AppendUint64(nil, i)[:max(8, min(s, 8))]
}

func (t *toy) Start(context.Context, string, int) (Network, error) {
	n := &toyNetwork{toy: t, stop: make(chan struct{}), blocks: make(chan [][]byte, 1024)}
	n.group.Go(n.sequence)
	return n, nil
}

type toyNetwork struct {
	*toy
	stop   chan struct{}
	blocks chan [][]byte
	group  sync.WaitGroup

	mu      sync.Mutex
	waiting [][]byte
}

func (n *toyNetwork) Number(tx []byte) (uint64, bool) {
	if len(tx) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(tx), true
}

func (n *toyNetwork) Submit(_ context.Context, _ int, txs [][]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	refused := &Refused{Why: "the toy is full"}
	for _, tx := range txs {
		number, _ := n.Number(tx)
		switch tenth := number%10 == 0; {
		case tenth && n.refuse:
			refused.Count++
		case tenth && n.forget:
		default:
			n.waiting = append(n.waiting, tx)
		}
	}
	if refused.Count > 0 {
		return refused
	}
	return nil
}

func (n *toyNetwork) sequence() {
	t := time.NewTicker(n.every)
	defer t.Stop()
	for {
		select {
		case <-n.stop:
			return
		case <-t.C:
		}
		n.mu.Lock()
		k := min(len(n.waiting), n.perBlk)
		block := n.waiting[:k]
		n.waiting = n.waiting[k:]
		n.mu.Unlock()
		select {
		case n.blocks <- block:
		case <-n.stop:
			return
		}
	}
}

func (n *toyNetwork) Follow(ctx context.Context, block func(txs [][]byte)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-n.blocks:
			if n.follows != nil {
				return n.follows
			}
			block(b)
		}
	}
}

func (n *toyNetwork) Close() error {
	close(n.stop)
	n.group.Wait()
	return nil
}

// of is trials short enough for a test.
func of(t *testing.T) Trials {
	return Trials{Validators: 2, TxBytes: 8, PerCall: 100, WarmUp: 100 * time.Millisecond, Duration: 500 * time.Millisecond, Drain: 200 * time.Millisecond, Dir: t.TempDir()}
}
