package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"tutti/state/receipt"
	"tutti/state/tx"
)

// Meta is what is under the state root beside the accounts.
//
//	height 8, fees 8, deposits 8, treasury 8, accounts 8, partitions 4, for each: partition 2, next 4,
//	directory (receipt.Range), channels 2, for each Channel: shard 2, sent (Range), received (Range), acked 8,
//	outflow 8, inflow 8, supply 8, epoch 8, committee 32 if the epoch's highest bit is set, header height 8, returns 4,
//	returns hash 32
//
// The highest bit is set where a committee above the genesis' is known, and is no part of the epoch. So a channel that knows
// the genesis' committee only, as all do in a network without epochs, has the encoding that it had before there were others.
//
// Its hash is SHA-256("tutti/meta/1" padded to 16 bytes || encoding). Shared ones are never modified.
type Meta struct {
	Height    uint64
	Fees      uint64        // collected
	Deposits  uint64        // paid by openings
	Treasury  uint64        // returns that nobody could take
	Accounts  uint64        // that exist
	Next      []uint32      // for each partition of the shard, ascending: accounts ever opened
	Directory receipt.Range // of BLS keys, in order of opening
	Channels  []Channel     // one for each other shard, ascending
}

// Channel is the state of the receipt channel with another shard. Flows are modulo 2^64: only their difference, the
// net inflow, which is below 2^63 either way, has a meaning.
type Channel struct {
	Shard        uint16
	Sent         receipt.Range // over all receipts ever sent
	Received     receipt.Range // over all receipts ever received and consumed
	Acked        uint64        // receipts sent that the other shard has consumed, by the last header used
	Outflow      uint64        // units sent, from the block that decided it
	Inflow       uint64        // units received
	Supply       uint64        // the other shard's at genesis: the bound of net inflow
	Known                      // by the last header used
	HeaderHeight uint64        // of that header
	Returns      uint32        // return receipts that the next block sends
	ReturnsHash  tx.Hash       // SHA-256 of their encodings; zero for none
}

// Net is the net inflow of units: what this shard holds of the other's, negative where it is the other way round.
func (c *Channel) Net() int64 { return int64(c.Inflow - c.Outflow) }

// Link is the channel as headers show it.
func (c *Channel) Link() Link {
	return Link{Shard: c.Shard, Sent: c.Sent.Count(), Received: c.Received.Count(), Root: c.Sent.Root()}
}

func genesisMeta(p *Params) *Meta {
	m := &Meta{Next: make([]uint32, len(p.Table.Partitions(p.Shard)))}
	for s := range p.Shards {
		if s != p.Shard {
			m.Channels = append(m.Channels, Channel{Shard: s, Supply: p.Supplies[s]})
		}
	}
	return m
}

// clone copies m so that the copy can be modified.
func (m *Meta) clone() *Meta {
	c := *m
	c.Next = slices.Clone(m.Next)
	c.Channels = slices.Clone(m.Channels)
	return &c
}

// channel finds the channel with another shard; -1: there is none.
func (m *Meta) channel(shard uint16) int {
	i, ok := slices.BinarySearchFunc(m.Channels, shard, func(c Channel, s uint16) int { return int(c.Shard) - int(s) })
	if !ok {
		return -1
	}
	return i
}

// append appends the encoding; parts are the partitions that Next is about.
func (m *Meta) append(b []byte, parts []partition) []byte {
	be := binary.BigEndian
	for _, v := range [...]uint64{m.Height, m.Fees, m.Deposits, m.Treasury, m.Accounts} {
		b = be.AppendUint64(b, v)
	}
	b = be.AppendUint32(b, uint32(len(m.Next)))
	for i, n := range m.Next {
		b = be.AppendUint16(b, parts[i].number)
		b = be.AppendUint32(b, n)
	}
	b = m.Directory.AppendBytes(b)
	b = be.AppendUint16(b, uint16(len(m.Channels)))
	for i := range m.Channels {
		c := &m.Channels[i]
		b = be.AppendUint16(b, c.Shard)
		b = c.Sent.AppendBytes(b)
		b = c.Received.AppendBytes(b)
		for _, v := range [...]uint64{c.Acked, c.Outflow, c.Inflow, c.Supply} {
			b = be.AppendUint64(b, v)
		}
		if c.Committee == (tx.Hash{}) {
			b = be.AppendUint64(b, c.Epoch)
		} else {
			b = append(be.AppendUint64(b, c.Epoch|MaxEpoch), c.Committee[:]...)
		}
		b = be.AppendUint64(b, c.HeaderHeight)
		b = be.AppendUint32(b, c.Returns)
		b = append(b, c.ReturnsHash[:]...)
	}
	return b
}

func metaHash(encoded []byte) tx.Hash {
	d := sha256.New()
	d.Write([]byte("tutti/meta/1\x00\x00\x00\x00"))
	d.Write(encoded)
	return tx.Hash(d.Sum(nil))
}

// readMeta decodes a Meta from the front of b and returns what follows it. It must be of the shape of like: the same
// partitions, shards and supplies.
func readMeta(b []byte, like *Meta, parts []partition) (*Meta, []byte, error) {
	r := reader{b: b}
	m := &Meta{Height: r.u64(), Fees: r.u64(), Deposits: r.u64(), Treasury: r.u64(), Accounts: r.u64()}
	if n := r.u32(); r.ok(n == uint32(len(parts))) {
		m.Next = make([]uint32, n)
		for i := range m.Next {
			r.ok(r.u16() == parts[i].number)
			m.Next[i] = r.u32()
			r.ok(m.Next[i] <= AccountsPerPartition)
		}
	}
	m.Directory = r.ranged()
	if n := r.u16(); r.ok(int(n) == len(like.Channels)) {
		m.Channels = make([]Channel, n)
		for i := range m.Channels {
			c := Channel{
				Shard: r.u16(), Sent: r.ranged(), Received: r.ranged(), Acked: r.u64(), Outflow: r.u64(),
				Inflow: r.u64(), Supply: r.u64(), Known: r.known(), HeaderHeight: r.u64(), Returns: r.u32(), ReturnsHash: r.hash(),
			}
			r.ok(c.Shard == like.Channels[i].Shard && c.Supply == like.Channels[i].Supply)
			r.ok((c.Returns == 0) == (c.ReturnsHash == tx.Hash{}))
			m.Channels[i] = c
		}
	}
	if r.bad {
		return nil, nil, fmt.Errorf("ledger: counters: %w", ErrMalformed)
	}
	return m, r.b, nil
}

// reader takes big-endian values from the front of b; after the first failure it gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, n)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u16() uint16   { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) u32() uint32   { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64   { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) hash() tx.Hash { return tx.Hash(r.take(32)) }

// ok notes a condition and reports whether all was well so far.
func (r *reader) ok(v bool) bool {
	r.bad = r.bad || !v
	return !r.bad
}

func (r *reader) known() Known {
	k := Known{Epoch: r.u64()}
	if k.Epoch&MaxEpoch != 0 {
		k.Epoch &^= MaxEpoch
		k.Committee = r.hash()
		r.ok(k.Epoch > 0 && k.Committee != tx.Hash{})
	}
	return k
}

func (r *reader) ranged() receipt.Range {
	v, rest, err := receipt.Read(r.b)
	if r.ok(err == nil) {
		r.b = rest
	}
	return v
}
