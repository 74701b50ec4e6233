package workload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"tutti/accel/bls"
	"tutti/accel/ed25519"
	"tutti/appliance/genesis"
	"tutti/consensus"
	"tutti/state/tx"
)

// Crowd signs for members of a genesis.Crowd. Account i of a workload is member First+i. Immutable and safe for
// concurrent use.
//
// It signs in bulk and in variable time, five times as fast as one by one and with the same bytes: the load generator shares the
// machine with what it measures, and the crowd's keys are no secrets.
type Crowd struct {
	genesis tx.Hash
	ids     []tx.ID
	crowd   genesis.Crowd
	first   uint64
	keys    [][32]byte // public; a seed is derived again when it signs
}

// NewCrowd derives the public keys of members first to first+n-1, on all cores, about a microsecond each where there is
// AVX-512 IFMA and twelve elsewhere. It takes 32 bytes for each besides ids, which are those of the whole crowd, by
// member. report, if not nil, is called by one goroutine now and then with the number of keys that there are.
func NewCrowd(ctx context.Context, c genesis.Crowd, ids []tx.ID, first, n uint64, chain consensus.Hash, report func(keys uint64)) (*Crowd, error) {
	if first > c.Count || n > c.Count-first || uint64(len(ids)) < first+n {
		return nil, fmt.Errorf("workload: members %d to %d of a crowd of %d", first, first+n, c.Count)
	}
	if n > MaxAccounts {
		return nil, fmt.Errorf("workload: %d accounts, limit %d", n, MaxAccounts)
	}
	out := &Crowd{genesis: tx.Hash(chain), ids: ids[first : first+n], crowd: c, first: first, keys: make([][32]byte, n)}
	const slice = 4096
	var group sync.WaitGroup
	var done atomic.Uint64
	workers := uint64(runtime.GOMAXPROCS(0))
	for w := range workers {
		group.Go(func() {
			for i := w * slice; i < n && ctx.Err() == nil; i += workers * slice {
				part := out.keys[i:min(i+slice, n)]
				c.PublicKeys(part, first+i, 1)
				if now := done.Add(uint64(len(part))); w == 0 && report != nil {
					report(now)
				}
			}
		})
	}
	group.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if n > 0 && out.PublicKey(0) != c.Key(first).Public() {
		return nil, errors.New("workload: two libraries give one seed two keys")
	}
	return out, nil
}

// Len is the number of accounts.
func (c *Crowd) Len() int { return len(c.ids) }

// ID is the id of an account.
func (c *Crowd) ID(i uint32) tx.ID { return c.ids[i] }

// PublicKey is the key of an account.
func (c *Crowd) PublicKey(i uint32) [32]byte { return c.keys[i] }

// BLSKey is the BLS key of an account of a test crowd. About 2 microseconds.
func (c *Crowd) BLSKey(i uint32) *bls.SecretKey { return c.crowd.BLSKey(c.first + uint64(i)) }

// Genesis is the genesis hash that is signed with.
func (c *Crowd) Genesis() tx.Hash { return c.genesis }

// Unsigned makes the transaction of a transfer, to execute at expiry at the latest, for fee class 0.
func (c *Crowd) Unsigned(t Transfer, expiry uint32) (s tx.Signed) {
	s.Tx = tx.Tx{Kind: tx.Transfer, From: c.ids[t.From], To: c.ids[t.To], Amount: t.Amount, Nonce: t.Nonce, Expiry: expiry}
	return s
}

// Sign makes the transaction of a transfer, signed, and its id. About 10 microseconds.
func (c *Crowd) Sign(t Transfer, expiry uint32) (s tx.Signed, id tx.Hash) {
	all, ids := []tx.Signed{c.Unsigned(t, expiry)}, []tx.Hash{{}}
	c.SignMany([]Transfer{t}, all, ids)
	return all[0], ids[0]
}

// SignMany signs all[i], which Unsigned made of ts[i], and sets ids[i], on the calling goroutine. About 2 microseconds each where
// there is AVX-512 IFMA, from eight on, and 10 elsewhere.
func (c *Crowd) SignMany(ts []Transfer, all []tx.Signed, ids []tx.Hash) {
	n := len(ts)
	seeds, keys, messages, signatures := make([][32]byte, n), make([][32]byte, n), make([][]byte, n), make([][64]byte, n)
	buf := make([]byte, 0, n*128)
	for i, t := range ts {
		seeds[i], keys[i] = c.crowd.KeySeed(c.first+uint64(t.From)), c.keys[t.From]
		at := len(buf)
		buf = all[i].AppendMessage(buf, c.genesis)
		messages[i] = buf[at:len(buf):len(buf)]
	}
	ed25519.SignManyVartime(seeds, keys, messages, signatures)
	for i := range ts {
		all[i].Signature, ids[i] = signatures[i], sha256.Sum256(messages[i])
		if ts[i].Invalid {
			all[i].Signature[40] ^= 1 // of S: still below the group order but for a chance of 2^-120
		}
	}
}
