package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/accel/distill/summed"
	"tutti/state/tx"
)

// BatchOptions of a Batcher.
type BatchOptions struct {
	Seed       uint64
	Shards     int
	Shard      int
	Straggling float64 // share of senders who do not sign the batch, 0 to 1, but never all of them
	MaxAmount  uint64  // amounts are uniform from 1 to this; 0: 16
}

// Batcher makes distilled batches of a crowd's accounts on one shard, who pay one another. Payers take turns in an order drawn
// once: nobody pays a second time before everybody else has, as a sender has one transfer in a batch. Receivers are uniform.
//
// Who has a BLS key signs it with the others by one signature under the sum of their secrets: these are the bytes that
// a broker gets by adding up theirs. One goroutine at a time may call it.
type Batcher struct {
	crowd   *Crowd
	opt     BatchOptions
	random  *rand.Rand
	turn    []uint32 // accounts of the shard, in the order in which they pay
	next    int      // in turn
	nonces  []uint32 // by place in turn
	secrets []*bls.SecretKey
}

// NewBatcher derives the BLS keys of a crowd's accounts on a shard, on all cores, two microseconds each.
func NewBatcher(ctx context.Context, c *Crowd, opt BatchOptions) (*Batcher, error) {
	if opt.MaxAmount == 0 {
		opt.MaxAmount = 16
	}
	switch {
	case opt.Shards < 1 || opt.Shard < 0 || opt.Shard >= opt.Shards:
		return nil, fmt.Errorf("workload: shard %d of %d", opt.Shard, opt.Shards)
	case opt.Straggling < 0 || opt.Straggling >= 1:
		return nil, fmt.Errorf("workload: %v of the senders do not sign: choose from 0 to below 1", opt.Straggling)
	case c.Len()/opt.Shards < 2:
		return nil, fmt.Errorf("workload: %d accounts on %d shards: need two for each", c.Len(), opt.Shards)
	}
	b := &Batcher{crowd: c, opt: opt, random: rand.New(rand.NewPCG(opt.Seed, 0x626174636800+uint64(opt.Shard)))}
	for i := opt.Shard; i < c.Len(); i += opt.Shards {
		b.turn = append(b.turn, uint32(i))
	}
	b.random.Shuffle(len(b.turn), func(i, j int) { b.turn[i], b.turn[j] = b.turn[j], b.turn[i] })
	b.nonces, b.secrets = make([]uint32, len(b.turn)), make([]*bls.SecretKey, len(b.turn))
	var group sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		group.Go(func() {
			for i := w; i < len(b.turn) && ctx.Err() == nil; i += workers {
				b.secrets[i] = c.crowd.BLSKey(c.first + uint64(b.turn[i]))
			}
		})
	}
	group.Wait()
	return b, ctx.Err()
}

// SetNonces says what the next nonces of some accounts are, for when what they were to sign was not taken.
func (b *Batcher) SetNonces(nonces map[uint32]uint32) {
	for place, account := range b.turn {
		if n, ok := nonces[account]; ok {
			b.nonces[place] = n
		}
	}
}

// Accounts is how many take turns: the most that a batch can have.
func (b *Batcher) Accounts() int { return len(b.turn) }

// Batch is a batch with what its maker knows of it. Slices are by the transfer's place in it.
type Batch struct {
	*distill.Batch
	From, To []uint32 // account numbers
	Drawn    []uint32 // as which of the batch the transfer was drawn
}

// Amount is what the transfer at a place pays.
func (b *Batch) Amount(i int) uint64 {
	body := b.Body(i)
	var v uint64
	for _, c := range body[12:20] {
		v = v<<8 | uint64(c)
	}
	return v
}

// Make makes the next batch, of n transfers, which execute at expiry at the latest.
func (b *Batcher) Make(n int, expiry uint32) (*Batch, error) {
	if n < 1 || n > len(b.turn) || n > distill.MaxCount {
		return nil, fmt.Errorf("workload: a batch of %d transfers: there are %d accounts, and the limit is %d", n, len(b.turn), distill.MaxCount)
	}
	type drawn struct {
		place, to, order uint32 // place in turn
		late             bool
	}
	all := make([]drawn, n)
	for i := range all {
		d := &all[i]
		d.place, d.order = uint32((b.next+i)%len(b.turn)), uint32(i)
		if d.to = b.turn[b.random.IntN(len(b.turn))]; d.to == b.turn[d.place] {
			d.to = b.turn[(int(d.place)+1)%len(b.turn)]
		}
		d.late = i > 0 && b.random.Float64() < b.opt.Straggling
	}
	b.next = (b.next + n) % len(b.turn)
	slices.SortFunc(all, func(x, y drawn) int { return cmp.Compare(b.crowd.ids[b.turn[x.place]], b.crowd.ids[b.turn[y.place]]) })
	out := &Batch{From: make([]uint32, n), To: make([]uint32, n), Drawn: make([]uint32, n)}
	subs := make([]distill.Submission, n)
	secrets := make([]*bls.SecretKey, n)
	var lateAt []int // in subs
	var late []Transfer
	var lateSigned []tx.Signed
	for i, d := range all {
		from := b.turn[d.place]
		out.From[i], out.To[i], out.Drawn[i] = from, d.to, d.order
		t := Transfer{From: from, To: d.to, Amount: 1 + b.random.Uint64N(b.opt.MaxAmount), Nonce: b.nonces[d.place]}
		unsigned := b.crowd.Unsigned(t, expiry)
		b.nonces[d.place]++
		var buf [128]byte
		copy(subs[i].Body[:], unsigned.AppendBody(buf[:0])[1:])
		if d.late {
			lateAt, late, lateSigned = append(lateAt, i), append(late, t), append(lateSigned, unsigned)
			continue
		}
		secrets[i] = b.secrets[d.place]
	}
	b.crowd.SignMany(late, lateSigned, make([]tx.Hash, len(late)))
	for k, i := range lateAt {
		subs[i].Signature = lateSigned[k].Signature
	}
	next := 0 // senders are asked for in order
	made, err := summed.Batch(distill.Chain(b.crowd.genesis), subs, func(uint64) *bls.SecretKey { next++; return secrets[next-1] })
	if err != nil {
		return nil, errors.Join(errors.New("workload: a batch can not be made"), err)
	}
	out.Batch = made
	return out, nil
}
