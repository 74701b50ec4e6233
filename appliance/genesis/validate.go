package genesis

import (
	"fmt"
	"math/bits"
	"strings"

	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Problem is one thing that is wrong.
type Problem struct {
	Field  string // as in genesis.json: shards[0].validators[2].power
	Detail string
	Remedy string
}

func (p Problem) String() string { return fmt.Sprintf("%s: %s: %s", p.Field, p.Detail, p.Remedy) }

// Problems is everything that is wrong, as an error with one line for each.
type Problems []Problem

func (p Problems) Error() string {
	if len(p) == 1 {
		return "genesis: " + p[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "genesis: %d problems:", len(p))
	for _, one := range p {
		b.WriteString("\n  " + one.String())
	}
	return b.String()
}

func (p *Problems) add(field, remedy, detail string, args ...any) {
	*p = append(*p, Problem{field, fmt.Sprintf(detail, args...), remedy})
}

// err is the problems as an error, or nil.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// Limits of parameters that are this package's own; the others are the ledger's and consensus's.
const (
	maxName            = 64
	maxTimeMs          = 253402300799999 // end of the year 9999
	minBodyBytes       = 256 << 10       // a bundle of receipts with its proof must fit
	minBlockIntervalMs = 10
	maxHeartbeatMs     = 1500 // an idle leader must propose well before the view timer of 2 s ends
	minEpochBlocks     = 10
	maxEpochBlocks     = 1 << 40
)

// Validate checks everything that does not need the accounts file or a pairing. Its error is Problems, all of them.
func (g *Genesis) Validate() error {
	var p Problems
	g.validate(&p)
	return p.err()
}

func (g *Genesis) validate(p *Problems) {
	g.validateRules(p)
	g.validateValidators(p)
	a := &g.Accounts
	if a.Count == 0 {
		p.add("accounts.count", "a network needs at least one account", "is 0")
	}
	if a.Total > ledger.MaxSupply {
		p.add("accounts.total", fmt.Sprintf("at most %d", uint64(ledger.MaxSupply)), "is %d", a.Total)
	}
	if a.SHA256.IsZero() {
		p.add("accounts.sha256", "give the SHA-256 of "+AccountsName, "is missing")
	}
}

// validateRules checks all but validators and accounts.
func (g *Genesis) validateRules(p *Problems) {
	checkName(p, "name", g.Name)
	if g.TimeMs <= 0 || g.TimeMs > maxTimeMs {
		p.add("time", "give a time in UTC, as 2026-11-22T12:00:00.000Z", "%d ms after 1970 is out of range", g.TimeMs)
	}
	if g.Seed.IsZero() {
		p.add("seed", "draw 32 random bytes, as 64 hex digits", "is missing")
	}
	r := &g.Parameters
	if n := len(r.Fees); n == 0 || n > ledger.MaxFeeClasses {
		p.add("parameters.fees", fmt.Sprintf("give the prices of 1 to %d fee classes", ledger.MaxFeeClasses), "has %d prices", n)
	}
	between := func(field string, v, low, high uint64) {
		if v < low || v > high {
			p.add("parameters."+field, fmt.Sprintf("give %d to %d", low, high), "is %d", v)
		}
	}
	for i, fee := range r.Fees {
		between(fmt.Sprintf("fees[%d]", i), fee, 0, ledger.MaxSupply)
	}
	between("open_deposit", r.OpenDeposit, 0, ledger.MaxSupply)
	between("open_cap", r.OpenCap, 0, tx.MaxBodyTx)
	between("receipt_window", r.ReceiptWindow, 1, ledger.MaxReceiptWindow)
	between("max_body_bytes", r.MaxBodyBytes, minBodyBytes, consensus.MaxBodyBytes)
	between("max_block_txs", r.MaxBlockTxs, 1, tx.MaxBodyTx)
	between("block_interval_ms", r.BlockIntervalMs, minBlockIntervalMs, maxHeartbeatMs)
	between("heartbeat_ms", r.HeartbeatMs, min(max(r.BlockIntervalMs, minBlockIntervalMs), maxHeartbeatMs), maxHeartbeatMs)

	if r.EpochBlocks != 0 {
		between("epoch_blocks", r.EpochBlocks, minEpochBlocks, maxEpochBlocks)
	}
	if r.CommitteeSize != 0 {
		between("committee_size", r.CommitteeSize, 1, consensus.MaxCommittee)
		if r.EpochBlocks == 0 {
			p.add("parameters.committee_size", "give epoch_blocks too, or leave it out: seats change hands where an epoch ends", "is %d, and no epoch ends", r.CommitteeSize)
		}
	}

	if c := g.TestCrowd; c != nil && (c.Seed == [32]byte{} || c.Count == 0 || c.Balance > ledger.MaxSupply) {
		p.add("test_crowd", "leave it out, or give a seed of 64 hex digits and a count", "has no seed, no members or too much money")
	}
	if n := len(g.Shards); n == 0 || n > ledger.GenesisPartitions {
		p.add("shards", fmt.Sprintf("give 1 to %d shards", ledger.GenesisPartitions), "has %d", n)
		return
	}
	if err := g.Table.Validate(uint16(len(g.Shards))); err != nil {
		p.add("partitions", "use the table that 'tutti genesis' makes for this number of shards", "%v", err)
		return
	}
	most := uint64(1) << 62
	for shard := range g.Shards {
		most = min(most, uint64(len(g.Table.Partitions(uint16(shard))))*ledger.AccountsPerPartition)
	}
	between("account_limit", r.AccountLimit, 1, most)
}

func (g *Genesis) validateValidators(p *Problems) {
	names, keys, nodes := map[string]string{}, map[consensus.PublicKey]string{}, map[[32]byte]string{}
	for s := range g.Shards {
		at := fmt.Sprintf("shards[%d].validators", s)
		validators := g.Shards[s].Validators
		if n := len(validators); n == 0 || n > consensus.MaxCommittee {
			p.add(at, fmt.Sprintf("give 1 to %d validators", consensus.MaxCommittee), "has %d", n)
		}
		var total consensus.Power
		var carry uint64
		for i := range validators {
			v := &validators[i]
			at := fmt.Sprintf("shards[%d].validators[%d]", s, i)
			checkName(p, at+".name", v.Name)
			unique(p, names, at+".name", v.Name)
			unique(p, keys, at+".voting_key", v.Key)
			unique(p, nodes, at+".node_key", v.Node)
			if v.Key == (consensus.PublicKey{}) {
				p.add(at+".voting_key", "give the validator's BLS key, 96 hex digits", "is missing")
			}
			if v.Possession == (consensus.Signature{}) {
				p.add(at+".possession", "take the whole line that 'tutti genesis entry' prints on the validator's machine", "is missing")
			}
			if v.Node == ([32]byte{}) {
				p.add(at+".node_key", "give the node's Ed25519 key, 64 hex digits", "is missing")
			}
			if v.Power == 0 || v.Power > consensus.MaxTotalPower {
				p.add(at+".power", fmt.Sprintf("give 1 to %d", consensus.MaxTotalPower), "is %d", v.Power)
				continue
			}
			sum, c := bits.Add64(uint64(total), uint64(v.Power), 0)
			total, carry = consensus.Power(sum), carry|c
		}
		if carry != 0 || total > consensus.MaxTotalPower {
			p.add(at, "give smaller powers, in the same proportion", "have more power together than %d", consensus.MaxTotalPower)
		}
	}
}

// unique reports a value that another field has; the zero value is not for it to judge.
func unique[T comparable](p *Problems, seen map[T]string, field string, v T) {
	var zero T
	if other, ok := seen[v]; ok && v != zero {
		p.add(field, "each seat needs its own", "is the same as %s", other)
		return
	}
	seen[v] = field
}

func checkName(p *Problems, field, name string) {
	ok := name != "" && len(name) <= maxName
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		p.add(field, fmt.Sprintf("use 1 to %d of a-z, 0-9 and '-'", maxName), "%q is no name", name)
	}
}
