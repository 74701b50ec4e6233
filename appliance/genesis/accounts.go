package genesis

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"tutti/accel/bls"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Account is an account that exists at height 0.
type Account struct {
	ID      tx.ID
	Key     [32]byte // Ed25519
	Balance uint64
	BLS     *BLSKey // nil if it has none
}

// BLSKey is an account's BLS key, with its proof of possession over AccountMessage or, if it is Made, without: then it is that of
// a member of the network's test crowd, and Ordinate its other coordinate.
type BLSKey struct {
	Key        [48]byte
	Possession [96]byte
	Made       bool
	Ordinate   [48]byte
}

// accountsMagic starts the accounts file and says its format.
const accountsMagic = "tutti/accounts/1"

const (
	accountBytes = 6 + 8 + 1 + 32
	blsBytes     = 48 + 96
	madeBytes    = 48 + 48
)

// AppendAccount appends the account as in the accounts file: id 6, balance 8, BLS flag 1, Ed25519 key 32, and then with flag 1
// BLS key 48, proof of possession 96; with flag 2, for one of the test crowd, BLS key 48, its other coordinate 48.
func AppendAccount(b []byte, a Account) []byte {
	b = append(b, byte(a.ID>>40), byte(a.ID>>32), byte(a.ID>>24), byte(a.ID>>16), byte(a.ID>>8), byte(a.ID))
	b = binary.BigEndian.AppendUint64(b, a.Balance)
	if a.BLS == nil {
		return append(append(b, 0), a.Key[:]...)
	}
	if a.BLS.Made {
		b = append(append(b, 2), a.Key[:]...)
		return append(append(b, a.BLS.Key[:]...), a.BLS.Ordinate[:]...)
	}
	b = append(append(b, 1), a.Key[:]...)
	b = append(b, a.BLS.Key[:]...)
	return append(b, a.BLS.Possession[:]...)
}

// readAccounts yields the accounts of an accounts file until yield returns false. It checks the encoding only.
func readAccounts(r io.Reader, yield func(Account) bool) error {
	var b [accountBytes + blsBytes]byte
	if _, err := io.ReadFull(r, b[:len(accountsMagic)]); err != nil || string(b[:len(accountsMagic)]) != accountsMagic {
		return malformed("%s is no accounts file of format %d", AccountsName, Format)
	}
	for n := 0; ; n++ {
		if _, err := io.ReadFull(r, b[:accountBytes]); err == io.EOF {
			return nil
		} else if err != nil {
			return malformed("%s: account %d: %v", AccountsName, n, err)
		}
		a := Account{
			ID:      tx.ID(binary.BigEndian.Uint16(b[:]))<<32 | tx.ID(binary.BigEndian.Uint32(b[2:])),
			Balance: binary.BigEndian.Uint64(b[6:]),
			Key:     [32]byte(b[15:]),
		}
		switch b[14] {
		case 0:
		case 1:
			if _, err := io.ReadFull(r, b[accountBytes:]); err != nil {
				return malformed("%s: account %d: %v", AccountsName, n, err)
			}
			a.BLS = &BLSKey{Key: [48]byte(b[accountBytes:]), Possession: [96]byte(b[accountBytes+48:])}
		case 2:
			if _, err := io.ReadFull(r, b[accountBytes:][:madeBytes]); err != nil {
				return malformed("%s: account %d: %v", AccountsName, n, err)
			}
			a.BLS = &BLSKey{Key: [48]byte(b[accountBytes:]), Made: true, Ordinate: [48]byte(b[accountBytes+48:])}
		default:
			return malformed("%s: account %d: BLS flag %d", AccountsName, n, b[14])
		}
		if !yield(a) {
			return nil
		}
	}
}

// census checks accounts one by one, in order, and adds them up.
type census struct {
	g        *Genesis
	proven   bool      // keys' proofs are checked
	made     []Account // of the test crowd, whose keys are to be derived again
	next     tx.ID     // the one after the last account
	total    Accounts  // but for the digest
	counts   []uint64  // by shard
	supplies []uint64  // units by shard
}

func newCensus(g *Genesis, proven bool) *census {
	return &census{g: g, proven: proven, counts: make([]uint64, len(g.Shards)), supplies: make([]uint64, len(g.Shards))}
}

// add checks order, density, place, limits and the proof of possession of the next account.
func (c *census) add(a Account) error {
	bad := func(format string, args ...any) error {
		return malformed("account %s (number %d): %s", a.ID, c.total.Count, fmt.Sprintf(format, args...))
	}
	switch next := tx.MakeID(a.ID.Partition(), 0); {
	case a.ID < c.next:
		return bad("is out of order: accounts ascend by id")
	case a.ID != next && a.ID != c.next:
		return bad("leaves a gap: each partition is filled from index 0")
	}
	if a.Key == ([32]byte{}) {
		return bad("has no Ed25519 key")
	}
	if a.ID.Index() >= ledger.AccountsPerPartition {
		return bad("partition %d holds %d accounts at most", a.ID.Partition(), ledger.AccountsPerPartition)
	}
	shard, ok := c.g.Table.ShardOf(a.ID.Partition())
	if !ok {
		return bad("partition %d belongs to no shard", a.ID.Partition())
	}
	if c.counts[shard]++; c.counts[shard] > c.g.Parameters.AccountLimit {
		return bad("shard %d has more accounts than parameters.account_limit, %d", shard, c.g.Parameters.AccountLimit)
	}
	sum, carry := bits.Add64(c.total.Total, a.Balance, 0)
	if carry != 0 || sum > ledger.MaxSupply {
		return bad("all balances together are over %d", uint64(ledger.MaxSupply))
	}
	switch {
	case a.BLS == nil:
	case !a.BLS.Made:
		if c.proven && !bls.VerifyPossession(a.BLS.Key, AccountMessage(c.g.Name, a.Key, a.BLS.Key), a.BLS.Possession) {
			return bad("the proof of possession of its BLS key does not verify for network %q", c.g.Name)
		}
	case c.g.TestCrowd == nil:
		return bad("its BLS key has no proof of possession, and the network has no test_crowd")
	case c.proven:
		if c.made = append(c.made, a); len(c.made) == roundAccounts {
			if err := c.derive(); err != nil {
				return err
			}
		}
	}
	c.total.Total = sum
	c.supplies[shard] += a.Balance
	c.total.Count++
	c.next = a.ID + 1
	return nil
}

// derive makes the keys of the test crowd again that have come since, on all cores, and compares them.
func (c *census) derive() error {
	const some = 1024
	wrong := make([]int, (len(c.made)+some-1)/some) // the first one in each part, -1: none
	var next atomic.Int64
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for k := int(next.Add(1)) - 1; k < len(wrong); k = int(next.Add(1)) - 1 {
				wrong[k] = c.strange(c.made[k*some : min((k+1)*some, len(c.made))])
			}
		})
	}
	group.Wait()
	for k, i := range wrong {
		if i >= 0 {
			return malformed("account %s: its BLS key has no proof of possession, and is not that of the test_crowd's member there", c.made[k*some+i].ID)
		}
	}
	c.made = c.made[:0]
	return nil
}

// strange is the first account whose BLS key is not that of the crowd's member there, -1: none.
func (c *census) strange(part []Account) int {
	secrets, keys := make([]*bls.SecretKey, len(part)), make([]bls.PublicKey, len(part))
	for i, a := range part {
		member, ok := memberOf(c.g.Table, uint64(len(c.g.Shards)), a.ID)
		if !ok || member >= c.g.TestCrowd.Count {
			return i
		}
		secrets[i] = c.g.TestCrowd.BLSKey(member)
	}
	bls.PublicKeysVartime(secrets, keys)
	return slices.IndexFunc(part, func(a Account) bool {
		k := &keys[0]
		keys = keys[1:]
		return k.Bytes() != a.BLS.Key || k.Ordinate() != a.BLS.Ordinate
	})
}
