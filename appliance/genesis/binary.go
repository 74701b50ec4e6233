package genesis

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"tutti/consensus"
	"tutti/state/ledger"
)

// ErrMalformed wraps every error about bytes that are not the form they should be.
var ErrMalformed = errors.New("malformed genesis")

func malformed(format string, args ...any) error {
	return fmt.Errorf("genesis: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Append appends the canonical binary form. Integers are big-endian: format 2, name (length 1, bytes), time 8, seed 32,
// fees (count 2, 8 each), the other parameters 8 each in their order, partition table (length 2, bytes), shards (count
// 2; each: validators (count 2; each: name, voting key 48, possession 96, node key 32, power 8)), accounts: count 8,
// total 8, SHA-256 32; and only where epochs end: blocks of an epoch 8, seats of a committee 8.
func (g *Genesis) Append(b []byte) []byte {
	be := binary.BigEndian
	name := func(s string) { b = append(append(b, byte(len(s))), s...) }
	b = be.AppendUint16(b, Format)
	name(g.Name)
	b = be.AppendUint64(b, uint64(g.TimeMs))
	b = append(b, g.Seed[:]...)
	p := &g.Parameters
	b = be.AppendUint16(b, uint16(len(p.Fees)))
	for _, v := range p.Fees {
		b = be.AppendUint64(b, v)
	}
	for _, v := range p.numbers() {
		b = be.AppendUint64(b, *v)
	}
	table := g.Table.Append(nil)
	b = append(be.AppendUint16(b, uint16(len(table))), table...)
	b = be.AppendUint16(b, uint16(len(g.Shards)))
	for i := range g.Shards {
		b = be.AppendUint16(b, uint16(len(g.Shards[i].Validators)))
		for _, v := range g.Shards[i].Validators {
			name(v.Name)
			b = append(b, v.Key[:]...)
			b = append(b, v.Possession[:]...)
			b = append(b, v.Node[:]...)
			b = be.AppendUint64(b, uint64(v.Power))
		}
	}
	b = be.AppendUint64(b, g.Accounts.Count)
	b = be.AppendUint64(b, g.Accounts.Total)
	b = append(b, g.Accounts.SHA256[:]...)
	if p.EpochBlocks != 0 || p.CommitteeSize != 0 || g.TestCrowd != nil {
		b = be.AppendUint64(be.AppendUint64(b, p.EpochBlocks), p.CommitteeSize)
	}
	if c := g.TestCrowd; c != nil {
		b = be.AppendUint64(be.AppendUint64(append(b, c.Seed[:]...), c.Count), c.Balance)
	}
	return b
}

// numbers lists the parameters after the fees, in the order of the binary form, but for those at its end.
func (p *Parameters) numbers() []*uint64 {
	return []*uint64{
		&p.OpenDeposit, &p.OpenCap, &p.AccountLimit, &p.ReceiptWindow, &p.MaxBodyBytes, &p.MaxBlockTxs, &p.BlockIntervalMs, &p.HeartbeatMs,
	}
}

// Decode decodes exactly one genesis in its binary form and validates it.
func Decode(b []byte) (*Genesis, error) {
	s := cryptobyte.String(b)
	var g Genesis
	if err := g.read(&s); err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, malformed("%d bytes too many", len(s))
	}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	return &g, nil
}

func (g *Genesis) read(s *cryptobyte.String) error {
	var format, fees, shards uint16
	var time uint64
	if !s.ReadUint16(&format) || format != Format {
		return malformed("format %d, this build knows %d: use the tutti version that made it, or a newer one", format, Format)
	}
	if !(readName(s, &g.Name) && s.ReadUint64(&time) && s.CopyBytes(g.Seed[:]) && s.ReadUint16(&fees)) {
		return malformed("too short")
	}
	g.TimeMs = int64(time)
	if fees > ledger.MaxFeeClasses {
		return malformed("%d fee classes, limit %d", fees, ledger.MaxFeeClasses)
	}
	g.Parameters.Fees = make([]uint64, fees)
	for i := range g.Parameters.Fees {
		if !s.ReadUint64(&g.Parameters.Fees[i]) {
			return malformed("fees too short")
		}
	}
	for _, v := range g.Parameters.numbers() {
		if !s.ReadUint64(v) {
			return malformed("parameters too short")
		}
	}
	var table cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&table) {
		return malformed("partition table too short")
	}
	var err error
	if g.Table, err = ledger.DecodePartitionTable(table); err != nil {
		return malformed("%v", err)
	}
	if !s.ReadUint16(&shards) || shards > ledger.MaxShards {
		return malformed("%d shards, limit %d", shards, ledger.MaxShards)
	}
	g.Shards = make([]Shard, shards)
	for i := range g.Shards {
		if g.Shards[i].Validators, err = readValidators(s); err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
	}
	if !(s.ReadUint64(&g.Accounts.Count) && s.ReadUint64(&g.Accounts.Total) && s.CopyBytes(g.Accounts.SHA256[:])) {
		return malformed("accounts too short")
	}
	if s.Empty() {
		return nil
	}
	p := &g.Parameters
	if !(s.ReadUint64(&p.EpochBlocks) && s.ReadUint64(&p.CommitteeSize)) || p.EpochBlocks == 0 && (s.Empty() || p.CommitteeSize != 0) {
		return malformed("epochs too short, or without blocks")
	}
	if s.Empty() {
		return nil
	}
	g.TestCrowd = &Crowd{}
	if c := g.TestCrowd; !(s.CopyBytes(c.Seed[:]) && s.ReadUint64(&c.Count) && s.ReadUint64(&c.Balance)) {
		return malformed("test crowd too short")
	}
	return nil
}

func readValidators(s *cryptobyte.String) ([]Validator, error) {
	var n uint16
	if !s.ReadUint16(&n) || n > consensus.MaxCommittee {
		return nil, malformed("%d validators, limit %d", n, consensus.MaxCommittee)
	}
	if len(*s) < int(n)*(1+48+96+32+8) {
		return nil, malformed("%d validators in %d bytes", n, len(*s))
	}
	validators := make([]Validator, n)
	for i := range validators {
		v := &validators[i]
		if !(readName(s, &v.Name) && s.CopyBytes(v.Key[:]) && s.CopyBytes(v.Possession[:]) && s.CopyBytes(v.Node[:]) &&
			s.ReadUint64((*uint64)(&v.Power))) {
			return nil, malformed("validator %d too short", i)
		}
	}
	return validators, nil
}

func readName(s *cryptobyte.String, name *string) bool {
	var b cryptobyte.String
	if !s.ReadUint8LengthPrefixed(&b) {
		return false
	}
	*name = string(b)
	return true
}
