package genesis

import (
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"tutti/accel/bls"
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
	var b [len(tagCrowd) + len(c.Seed) + 8]byte
	copy(b[copy(b[:], tagCrowd[:]):], c.Seed[:])
	binary.BigEndian.PutUint64(b[len(b)-8:], i)
	return sha256.Sum256(b[:])
}

// Key is the key pair of member i, of KeySeed. It takes about 20 microseconds.
func (c Crowd) Key(i uint64) ed25519.PrivateKey { return ed25519.NewPrivateKey(c.KeySeed(i)) }

// PublicKeys sets keys to the public keys of members first, first+step, first+2*step and so on, under a microsecond each
// where there is AVX-512 IFMA.
func (c Crowd) PublicKeys(keys [][32]byte, first, step uint64) {
	var seeds [256][32]byte
	for len(keys) > 0 {
		n := min(len(keys), len(seeds))
		for i := range n {
			seeds[i] = c.KeySeed(first + uint64(i)*step)
		}
		ed25519.PublicKeysVartime(seeds[:n], keys[:n])
		keys, first = keys[n:], first+uint64(n)*step
	}
}

// BLSSeed is what bls.NewSecretKey makes the BLS key of member i of: SHA-256 of tag 16, Seed 32, i 8.
func (c Crowd) BLSSeed(i uint64) [32]byte {
	b := append(append(make([]byte, 0, 56), tagCrowdBLS[:]...), c.Seed[:]...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, i))
}

// BLSKey is the BLS key of member i.
func (c Crowd) BLSKey(i uint64) *bls.SecretKey {
	seed := c.BLSSeed(i)
	k, err := bls.NewSecretKey(seed[:])
	if err != nil {
		panic(err) // never: the seed is long enough, and a key is made of any
	}
	return k
}

// BLSKeys sets keys to the public BLS keys of members first, first+step and so on, about 11 microseconds each.
func (c Crowd) BLSKeys(keys []bls.PublicKey, first, step uint64) {
	secrets := make([]*bls.SecretKey, len(keys))
	for i := range secrets {
		secrets[i] = c.BLSKey(first + uint64(i)*step)
	}
	bls.PublicKeysVartime(secrets, keys)
}

// Population lays accounts out over shards and partitions. Member i of the crowd is on shard i mod the number of shards;
// on each shard the crowd comes first, so that its ids depend on Table and Crowd alone, then the named accounts.
// Ids go to the least-filled partition of the shard, the lowest of several: one to each in turn.
type Population struct {
	Table ledger.PartitionTable
	Crowd Crowd
	BLS   bool        // members have BLS keys, too, as Genesis.TestCrowd says
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

// memberOf is the member of a crowd that an id belongs to if the crowd has so many.
func memberOf(table ledger.PartitionTable, shards uint64, id tx.ID) (i uint64, ok bool) {
	shard, ok := table.ShardOf(id.Partition())
	if !ok {
		return 0, false
	}
	partitions := table.Partitions(shard)
	at := slices.Index(partitions, id.Partition())
	return (uint64(id.Index())*uint64(len(partitions))+uint64(at))*shards + uint64(shard), true
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

// All yields every account, ascending by id, as Create wants them. Keys are derived on all cores.
func (p *Population) All() iter.Seq[Account] {
	return func(yield func(Account) bool) {
		var round []*run
		size := 0
		flush := func() bool {
			p.fill(round)
			for _, r := range round {
				for _, a := range r.accounts {
					if !yield(a) {
						return false
					}
				}
			}
			round, size = round[:0], 0
			return true
		}
		for r := range p.runs() {
			round = append(round, r)
			if size += r.count; size >= roundAccounts && !flush() {
				return
			}
		}
		flush()
	}
}

// Accounts are derived runAccounts by one worker, and roundAccounts before they are yielded: 6 MB.
const (
	runAccounts   = 4096
	roundAccounts = 1 << 16
)

// run is consecutive accounts of a partition: the shard's accounts first, first+step and so on.
type run struct {
	shard      consensus.ShardID
	partitions []uint16 // of the shard; their number is step
	first      uint64
	count      int
	crowd      uint64 // accounts of the shard below this number are of the crowd
	accounts   []Account
}

// runs yields all accounts, without their contents, in order.
func (p *Population) runs() iter.Seq[*run] {
	return func(yield func(*run) bool) {
		at := make([]uint64, p.shards()) // how many partitions of each shard are done
		for _, r := range p.Table {
			shard := consensus.ShardID(r.Shard)
			partitions, crowd := p.Table.Partitions(r.Shard), p.crowdOn(shard)
			step, all := uint64(len(partitions)), crowd
			if int(shard) < len(p.Named) {
				all += uint64(len(p.Named[shard]))
			}
			for range 1 << r.Log2 {
				for n := at[shard]; n < all; n += runAccounts * step {
					count := int(min(runAccounts, (all-n+step-1)/step))
					if !yield(&run{shard: shard, partitions: partitions, first: n, count: count, crowd: crowd}) {
						return
					}
				}
				at[shard]++
			}
		}
	}
}

// fill derives the accounts of runs, on all cores.
func (p *Population) fill(runs []*run) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(runs)) {
		group.Go(func() {
			for i := int(next.Add(1) - 1); i < len(runs); i = int(next.Add(1) - 1) {
				p.fillOne(runs[i])
			}
		})
	}
	group.Wait()
}

func (p *Population) fillOne(r *run) {
	step, shards := uint64(len(r.partitions)), p.shards()
	r.accounts = make([]Account, r.count)
	crowd := 0 // of these
	if r.first < r.crowd {
		crowd = int(min(uint64(r.count), (r.crowd-r.first+step-1)/step))
	}
	keys := make([][32]byte, crowd)
	p.Crowd.PublicKeys(keys, r.first*shards+uint64(r.shard), step*shards)
	var blsKeys []bls.PublicKey
	if p.BLS {
		blsKeys = make([]bls.PublicKey, crowd)
		p.Crowd.BLSKeys(blsKeys, r.first*shards+uint64(r.shard), step*shards)
	}
	for i := range r.accounts {
		n := r.first + uint64(i)*step
		if i < crowd {
			r.accounts[i] = Account{Key: keys[i], Balance: p.Crowd.Balance}
			if p.BLS {
				r.accounts[i].BLS = &BLSKey{Key: blsKeys[i].Bytes(), Made: true, Ordinate: blsKeys[i].Ordinate()}
			}
		} else {
			r.accounts[i] = p.Named[r.shard][n-r.crowd]
		}
		r.accounts[i].ID = nth(r.partitions, n)
	}
}
