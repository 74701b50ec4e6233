package genesis

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"time"

	"tutti/consensus"
	"tutti/state/ledger"
)

// maxJSON bounds genesis.json in bytes.
const maxJSON = 128 << 20

// document is genesis.json. Keys and digests are lower-case hex.
type document struct {
	Format     int             `json:"format"`
	Name       string          `json:"name"`
	Time       string          `json:"time"` // UTC with milliseconds, RFC 3339
	Seed       string          `json:"seed"`
	Parameters parametersEntry `json:"parameters"`
	Partitions []rangeEntry    `json:"partitions"`
	Shards     []shardEntry    `json:"shards"`
	Accounts   accountsEntry   `json:"accounts"`
	TestCrowd  *crowdEntry     `json:"test_crowd,omitempty"`
}

type parametersEntry struct {
	Fees            []uint64 `json:"fees"`
	OpenDeposit     uint64   `json:"open_deposit"`
	OpenCap         uint64   `json:"open_cap"`
	AccountLimit    uint64   `json:"account_limit"`
	ReceiptWindow   uint64   `json:"receipt_window"`
	MaxBodyBytes    uint64   `json:"max_body_bytes"`
	MaxBlockTxs     uint64   `json:"max_block_txs"`
	BlockIntervalMs uint64   `json:"block_interval_ms"`
	HeartbeatMs     uint64   `json:"heartbeat_ms"`
	EpochBlocks     uint64   `json:"epoch_blocks,omitempty"`
	CommitteeSize   uint64   `json:"committee_size,omitempty"`
}

// rangeEntry is count partitions from first on; count is a power of two.
type rangeEntry struct {
	First uint16 `json:"first"`
	Count uint32 `json:"count"`
	Shard uint16 `json:"shard"`
}

type shardEntry struct {
	Validators []Entry `json:"validators"`
}

type accountsEntry struct {
	Count  uint64 `json:"count"`
	Total  uint64 `json:"total"`
	SHA256 string `json:"sha256"`
}

type crowdEntry struct {
	Seed    string `json:"seed"`
	Count   uint64 `json:"count"`
	Balance uint64 `json:"balance"`
}

// Entry is a validator as it stands in genesis.json: what its operator hands to the maker of the genesis file.
type Entry struct {
	Name       string          `json:"name"`
	VotingKey  string          `json:"voting_key"`
	Possession string          `json:"possession"`
	NodeKey    string          `json:"node_key"`
	Power      consensus.Power `json:"power"`
}

// Entry is v's form in genesis.json.
func (v *Validator) Entry() Entry {
	return Entry{v.Name, hex.EncodeToString(v.Key[:]), hex.EncodeToString(v.Possession[:]), hex.EncodeToString(v.Node[:]), v.Power}
}

// Validator decodes the entry's keys. Its error is Problems.
func (e Entry) Validator() (Validator, error) {
	var p Problems
	v := e.validator(&p, "")
	return v, p.err()
}

func (e Entry) validator(p *Problems, at string) Validator {
	v := Validator{Name: e.Name, Power: e.Power}
	unhex(p, at+"voting_key", e.VotingKey, v.Key[:])
	unhex(p, at+"possession", e.Possession, v.Possession[:])
	unhex(p, at+"node_key", e.NodeKey, v.Node[:])
	return v
}

const timeFormat = "2006-01-02T15:04:05.000Z"

// JSON is the content of genesis.json.
func (g *Genesis) JSON() []byte {
	d := document{
		Format: Format, Name: g.Name, Time: time.UnixMilli(g.TimeMs).UTC().Format(timeFormat), Seed: g.Seed.String(),
		Parameters: parametersEntry(g.Parameters),
		Accounts:   accountsEntry{g.Accounts.Count, g.Accounts.Total, g.Accounts.SHA256.String()},
	}
	for _, r := range g.Table {
		d.Partitions = append(d.Partitions, rangeEntry{r.First, 1 << r.Log2, r.Shard})
	}
	for i := range g.Shards {
		var s shardEntry
		for k := range g.Shards[i].Validators {
			s.Validators = append(s.Validators, g.Shards[i].Validators[k].Entry())
		}
		d.Shards = append(d.Shards, s)
	}
	if c := g.TestCrowd; c != nil {
		d.TestCrowd = &crowdEntry{hex.EncodeToString(c.Seed[:]), c.Count, c.Balance}
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		panic(err) // strings and integers only
	}
	return append(b, '\n')
}

// Parse reads genesis.json and validates it. Its error is Problems, or wraps ErrMalformed with the line at which the
// text stops being JSON for a genesis.
func Parse(text []byte) (*Genesis, error) {
	if len(text) > maxJSON {
		return nil, malformed("%d bytes, limit %d", len(text), maxJSON)
	}
	var d document
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return nil, jsonError(text, dec.InputOffset(), err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, malformed("line %d: text after the end", line(text, dec.InputOffset()))
	}
	if d.Format != Format {
		return nil, malformed("format: is %d, this build knows %d: use the tutti version that made it, or a newer one", d.Format, Format)
	}
	var p Problems
	g := d.genesis(&p)
	g.validate(&p)
	if err := p.err(); err != nil {
		return nil, err
	}
	return g, nil
}

// genesis converts what JSON leaves as text.
func (d *document) genesis(p *Problems) *Genesis {
	g := &Genesis{
		Name: d.Name, Parameters: Parameters(d.Parameters),
		Accounts: Accounts{Count: d.Accounts.Count, Total: d.Accounts.Total},
	}
	if t, err := time.Parse(timeFormat, d.Time); err != nil {
		p.add("time", "write it as 2026-11-22T12:00:00.000Z", "%q is no time in UTC with milliseconds", d.Time)
		g.TimeMs = 1 // reported once
	} else {
		g.TimeMs = t.UnixMilli()
	}
	unhex(p, "seed", d.Seed, g.Seed[:])
	unhex(p, "accounts.sha256", d.Accounts.SHA256, g.Accounts.SHA256[:])
	if c := d.TestCrowd; c != nil {
		g.TestCrowd = &Crowd{Count: c.Count, Balance: c.Balance}
		unhex(p, "test_crowd.seed", c.Seed, g.TestCrowd.Seed[:])
	}
	for i, r := range d.Partitions {
		if bits.OnesCount32(r.Count) != 1 || r.Count > 1<<16 {
			p.add(fmt.Sprintf("partitions[%d].count", i), "give a power of two up to 65536", "is %d", r.Count)
		}
		g.Table = append(g.Table, ledger.PartitionRange{First: r.First, Log2: uint8(bits.TrailingZeros32(r.Count)), Shard: r.Shard})
	}
	for i := range d.Shards {
		var s Shard
		for k, e := range d.Shards[i].Validators {
			s.Validators = append(s.Validators, e.validator(p, fmt.Sprintf("shards[%d].validators[%d].", i, k)))
		}
		g.Shards = append(g.Shards, s)
	}
	return g
}

// unhex decodes exactly len(to) bytes. An empty text leaves zeros, which Validate reports as missing.
func unhex(p *Problems, field, text string, to []byte) {
	if text == "" {
		return
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(to) || strings.ToLower(text) != text {
		p.add(field, fmt.Sprintf("give %d lower-case hex digits", 2*len(to)), "%d characters that are not that", len(text))
		other := sha256.Sum256([]byte(field)) // neither missing nor repeated: reported once
		copy(to, other[:])
		return
	}
	copy(to, b)
}

// jsonError names line and field.
func jsonError(text []byte, offset int64, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return malformed("line %d: %v", line(text, syntax.Offset), err)
	case errors.As(err, &kind):
		return malformed("line %d: field %s: a JSON %s where %s belongs", line(text, kind.Offset), kind.Field, kind.Value, kind.Type)
	}
	return malformed("line %d: %s", line(text, offset), strings.TrimPrefix(err.Error(), "json: "))
}

func line(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(int(offset), len(text))], []byte("\n"))
}
