package genesis

import (
	"crypto/sha256"
	"encoding/binary"
	"iter"

	"tutti/accel/ed25519"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Crowd is a made-up crowd of account holders for demonstrations, tests and benchmarks. Whoever knows Seed can spend
// everything the crowd has: never give it money that anyone cares about.
type Crowd struct {
	Seed    [32]byte
	Count   uint64
	Balance uint64 // of each account
}

// KeySeed is the Ed25519 seed of member i: SHA-256 of tag 16, Seed 32, i 8.
func (c Crowd) KeySeed(i uint64) [32]byte {
	b := append(tagCrowd[:], c.Seed[:]...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, i))
}

// Key is the key pair of member i, of KeySeed. It takes about 20 microseconds.
func (c Crowd) Key(i uint64) ed25519.PrivateKey { return ed25519.NewPrivateKey(c.KeySeed(i)) }

// Population lays accounts out over shards and partitions. Member i of the crowd is on shard i mod the number of shards;
// on each shard the crowd comes first, so that its ids depend on Table and Crowd alone, then the named accounts.
// Ids go to the least-filled partition of the shard, the lowest of several: one to each in turn.
type Population struct {
	Table ledger.PartitionTable
	Crowd Crowd
	Named [][]Account // by shard, may end early; their ids are NamedID, whatever ID says
}

// shards is how many shards Table names.
func (p *Population) shards() (n uint64) {
	for _, r := range p.Table {
		n = max(n, uint64(r.Shard)+1)
	}
	return n
}

// crowdOn is how many of the crowd are on the shard.
func (p *Population) crowdOn(shard consensus.ShardID) uint64 {
	shards := p.shards()
	return (p.Crowd.Count + shards - 1 - uint64(shard)) / shards
}

// nth is the id of the shard's n-th account.
func nth(partitions []uint16, n uint64) tx.ID {
	parts := uint64(len(partitions))
	return tx.MakeID(partitions[n%parts], uint32(n/parts))
}

// CrowdIDs are the ids of the crowd, by member.
func (p *Population) CrowdIDs() []tx.ID {
	shards := p.shards()
	partitions := make([][]uint16, shards)
	for s := range partitions {
		partitions[s] = p.Table.Partitions(uint16(s))
	}
	ids := make([]tx.ID, p.Crowd.Count)
	for i := range ids {
		ids[i] = nth(partitions[uint64(i)%shards], uint64(i)/shards)
	}
	return ids
}

// NamedID is the id of the k-th named account of a shard.
func (p *Population) NamedID(shard consensus.ShardID, k int) tx.ID {
	return nth(p.Table.Partitions(uint16(shard)), p.crowdOn(shard)+uint64(k))
}

// All yields every account, ascending by id, as Create wants them.
func (p *Population) All() iter.Seq[Account] {
	return func(yield func(Account) bool) {
		at := make([]int, p.shards()) // how many partitions of each shard are done
		for _, r := range p.Table {
			partitions := p.Table.Partitions(r.Shard)
			for range 1 << r.Log2 {
				if !p.partition(consensus.ShardID(r.Shard), partitions, at[r.Shard], yield) {
					return
				}
				at[r.Shard]++
			}
		}
	}
}

// partition yields the accounts of the shard's k-th partition.
func (p *Population) partition(shard consensus.ShardID, partitions []uint16, k int, yield func(Account) bool) bool {
	shards, crowd := p.shards(), p.crowdOn(shard)
	var named []Account
	if int(shard) < len(p.Named) {
		named = p.Named[shard]
	}
	all := crowd + uint64(len(named))
	for n := uint64(k); n < all; n += uint64(len(partitions)) {
		var a Account
		if n < crowd {
			a = Account{Key: p.Crowd.Key(n*shards + uint64(shard)).Public(), Balance: p.Crowd.Balance}
		} else {
			a = named[n-crowd]
		}
		a.ID = nth(partitions, n)
		if !yield(a) {
			return false
		}
	}
	return true
}
