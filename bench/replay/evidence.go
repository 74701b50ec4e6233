package replay

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"tutti/appliance/genesis"
	"tutti/appliance/proof"
	"tutti/bench/report"
	"tutti/consensus"
)

// Format names the form of the evidence in a report.
const Format = "tutti-bench-evidence/1"

// Bounds of evidence.
const (
	MaxBytes     = 64 << 20 // before compression
	MaxLength    = 2 * time.Hour
	MaxStretches = 16
	MaxBlocks    = 1 << 17 // of a shard
	maxCommittee = 64      // epochs that begin within the run
	maxGenesis   = 16 << 20
	maxFinal     = 4 << 20
)

// ErrMalformed wraps every error about bytes that are no evidence.
var ErrMalformed = errors.New("malformed evidence")

func malformed(format string, args ...any) error {
	return fmt.Errorf("replay: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Evidence is what a run leaves behind. All durations are since the phase began, by one clock of the client.
type Evidence struct {
	Genesis *genesis.Genesis
	Phase   Phase
	Shards  []Shard // by id, all of the network
	Missed  [Reasons]Slots
}

// Phase is what was to be done, and when the client counted.
type Phase struct {
	Start     int64         // Unix nanoseconds, when the first transaction was due
	WarmUp    time.Duration // at the rate of the first stretch
	Burst     time.Duration // each second's transactions are due within so long from its beginning; 0: evenly
	Stretches []Stretch     // one after the other, 1 to MaxStretches; the first is the measurement of the report's result
}

// Stretch is a part of a run at one rate.
type Stretch struct {
	Rate     float64
	Duration time.Duration
	Marks
}

// Marks are when the counts were taken between which a stretch's throughput is: its ends, or a little later.
type Marks struct{ Begin, End time.Duration }

// Shard is the part of one shard.
type Shard struct {
	Base       proof.Final            // the last block that was verified before the phase began
	Committees []*consensus.Committee // of the epochs that begin after Base, in order
	Blocks     []Block                // every one above Base that was verified before the phase ended
}

// Block is one block of the run.
type Block struct {
	Final   proof.Final
	At      time.Duration // when it had been verified
	Opening Opening
	Settled Slots  // the client's own transactions that settled with it
	Credits uint64 // of these, by a receipt that it consumed
}

// Reason is why a transaction of the schedule did not settle. Settled and Missed together are the schedule.
type Reason int

// The reasons, as load.Tally counts them.
const (
	Rejected Reason = iota
	Lost
	Expired
	Unsent
	Returned
	InvalidAccepted
	Reasons // how many there are
)

func (r Reason) String() string {
	return [...]string{"rejected", "lost", "expired", "unsent", "returned", "accepted though invalid"}[r]
}

// Slots counts transactions by the slot in which they were due, ascending, each slot once.
type Slots []Count

// Count is how many transactions of a slot.
type Count struct{ Slot, N uint32 }

// Sum is all of them.
func (s Slots) Sum() (n uint64) {
	for _, c := range s {
		n += uint64(c.N)
	}
	return n
}

// within is the part from slot first to before end.
func (s Slots) within(first, end uint32) Slots {
	at := func(slot uint32) int { return sort.Search(len(s), func(i int) bool { return s[i].Slot >= slot }) }
	return s[at(first):at(end)]
}

const evidenceVersion = 1

// Append appends the binary form: version 1; genesis (length 4, bytes); start, warm-up and burst 8 each, in nanoseconds; number of
// stretches 1, and of each: rate 8 (IEEE 754), duration, begin and end 8 each; number of shards 2, and of each: base (length 4,
// bytes), committees (count 1; length 4, bytes each), number of blocks 4, and of each: final (length 4, bytes), at 8, leaves 4,
// top 32, pieces (count 1; state 32, length 4, bytes, hashes of the path 1, 32 each), credits varint, slots; then the slots of each
// reason. Slots are their number and for each the distance from the one before and the count, as varints.
func (e *Evidence) Append(b []byte) []byte {
	be := binary.BigEndian
	long := func(enc []byte) { b = append(be.AppendUint32(b, uint32(len(enc))), enc...) }
	b = append(b, evidenceVersion)
	long(e.Genesis.Append(nil))
	p := &e.Phase
	for _, v := range []int64{p.Start, int64(p.WarmUp), int64(p.Burst)} {
		b = be.AppendUint64(b, uint64(v))
	}
	b = append(b, byte(len(p.Stretches)))
	for _, t := range p.Stretches {
		b = be.AppendUint64(b, math.Float64bits(t.Rate))
		for _, v := range []time.Duration{t.Duration, t.Begin, t.End} {
			b = be.AppendUint64(b, uint64(v))
		}
	}
	b = be.AppendUint16(b, uint16(len(e.Shards)))
	for i := range e.Shards {
		s := &e.Shards[i]
		long(s.Base.Append(nil))
		b = append(b, byte(len(s.Committees)))
		for _, c := range s.Committees {
			long(c.Append(nil))
		}
		b = be.AppendUint32(b, uint32(len(s.Blocks)))
		for k := range s.Blocks {
			x := &s.Blocks[k]
			long(x.Final.Append(nil))
			b = be.AppendUint64(b, uint64(x.At))
			b = append(be.AppendUint32(b, uint32(x.Opening.Leaves)), x.Opening.Top[:]...)
			b = append(b, byte(len(x.Opening.Pieces)))
			for _, piece := range x.Opening.Pieces {
				b = append(b, piece.State[:]...)
				long(piece.Bytes)
				b = append(b, byte(len(piece.Path)))
				for _, h := range piece.Path {
					b = append(b, h[:]...)
				}
			}
			b = x.Settled.append(binary.AppendUvarint(b, x.Credits))
		}
	}
	for _, s := range e.Missed {
		b = s.append(b)
	}
	return b
}

func (s Slots) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	last := uint32(0)
	for _, c := range s {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(c.Slot-last)), uint64(c.N))
		last = c.Slot
	}
	return b
}

// Decode decodes exactly one Evidence in its binary form, with bounds, and only in the form that Append gives it. Nothing is
// verified beyond the form.
func Decode(b []byte) (*Evidence, error) {
	if len(b) > MaxBytes {
		return nil, malformed("%d bytes, limit %d", len(b), MaxBytes)
	}
	s := cryptobyte.String(b)
	var version uint8
	if !s.ReadUint8(&version) || version != evidenceVersion {
		return nil, malformed("version %d, this build knows %d: update tutti", version, evidenceVersion)
	}
	e := &Evidence{}
	enc, err := readLong(&s, maxGenesis, "genesis")
	if err != nil {
		return nil, err
	}
	if e.Genesis, err = genesis.Decode(enc); err != nil {
		return nil, fmt.Errorf("replay: %w: %w", ErrMalformed, err)
	}
	if err := e.Phase.read(&s); err != nil {
		return nil, err
	}
	var shards uint16
	if !s.ReadUint16(&shards) || int(shards) != len(e.Genesis.Shards) {
		return nil, malformed("%d shards, the genesis has %d", shards, len(e.Genesis.Shards))
	}
	e.Shards = make([]Shard, shards)
	for i := range e.Shards {
		if err := e.Shards[i].read(&s, e.Phase.slots()); err != nil {
			return nil, fmt.Errorf("shard %d: %w", i, err)
		}
	}
	for i := range e.Missed {
		if e.Missed[i], err = readSlots(&s, e.Phase.slots()); err != nil {
			return nil, err
		}
	}
	switch {
	case !s.Empty():
		return nil, malformed("%d bytes too many", len(s))
	case !bytes.Equal(e.Append(make([]byte, 0, len(b))), b):
		return nil, malformed("it is not in the one form that evidence has")
	}
	return e, nil
}

func (p *Phase) read(s *cryptobyte.String) error {
	var v [4]uint64
	var stretches uint8
	for i := range v[:3] {
		if !s.ReadUint64(&v[i]) {
			return malformed("phase too short")
		}
	}
	*p = Phase{Start: int64(v[0]), WarmUp: time.Duration(v[1]), Burst: time.Duration(v[2])}
	if !s.ReadUint8(&stretches) || stretches > MaxStretches {
		return malformed("%d stretches, limit %d", stretches, MaxStretches)
	}
	for range stretches {
		for i := range v {
			if !s.ReadUint64(&v[i]) {
				return malformed("stretch too short")
			}
		}
		p.Stretches = append(p.Stretches, Stretch{math.Float64frombits(v[0]), time.Duration(v[1]), Marks{time.Duration(v[2]), time.Duration(v[3])}})
	}
	return p.check()
}

func (s *Shard) read(in *cryptobyte.String, slots uint32) (err error) {
	if s.Base, err = readFinal(in); err != nil {
		return err
	}
	var epochs uint8
	var blocks uint32
	if !in.ReadUint8(&epochs) || epochs > maxCommittee {
		return malformed("%d committees, limit %d", epochs, maxCommittee)
	}
	for range epochs {
		enc, err := readLong(in, consensus.MaxCommitteeBytes, "committee")
		if err != nil {
			return err
		}
		c, err := consensus.DecodeCommittee(enc)
		if err != nil {
			return fmt.Errorf("replay: %w: %w", ErrMalformed, err)
		}
		s.Committees = append(s.Committees, c)
	}
	if !in.ReadUint32(&blocks) || blocks > MaxBlocks {
		return malformed("%d blocks, limit %d", blocks, MaxBlocks)
	}
	for k := range blocks {
		var x Block
		if err := x.read(in, slots); err != nil {
			return fmt.Errorf("block %d: %w", k, err)
		}
		s.Blocks = append(s.Blocks, x)
	}
	return nil
}

func (x *Block) read(in *cryptobyte.String, slots uint32) (err error) {
	if x.Final, err = readFinal(in); err != nil {
		return err
	}
	var at uint64
	var leaves uint32
	var pieces uint8
	if !in.ReadUint64(&at) || !in.ReadUint32(&leaves) || !in.CopyBytes(x.Opening.Top[:]) || !in.ReadUint8(&pieces) || pieces > maxPieces {
		return malformed("opening too short, or of %d pieces, limit %d", pieces, maxPieces)
	}
	x.At, x.Opening.Leaves = time.Duration(at), uint64(leaves)
	for range pieces {
		var p Piece
		var path uint8
		if !in.CopyBytes(p.State[:]) {
			return malformed("piece too short")
		}
		if p.Bytes, err = readLong(in, maxPieceBytes, "piece"); err != nil {
			return err
		}
		if !in.ReadUint8(&path) || path > maxShardPath {
			return malformed("path of %d hashes, limit %d", path, maxShardPath)
		}
		for range path {
			var h [32]byte
			if !in.CopyBytes(h[:]) {
				return malformed("path too short")
			}
			p.Path = append(p.Path, h)
		}
		x.Opening.Pieces = append(x.Opening.Pieces, p)
	}
	if x.Credits, err = readUvarint(in); err != nil {
		return err
	}
	x.Settled, err = readSlots(in, slots)
	return err
}

func readFinal(in *cryptobyte.String) (f proof.Final, err error) {
	enc, err := readLong(in, maxFinal, "final header")
	if err != nil {
		return f, err
	}
	p, err := proof.DecodeFinal(enc)
	if err != nil {
		return f, fmt.Errorf("replay: %w: %w", ErrMalformed, err)
	}
	return *p, nil
}

func readLong(in *cryptobyte.String, most int, what string) (b []byte, err error) {
	var n uint32
	if !in.ReadUint32(&n) || int64(n) > int64(most) || !in.ReadBytes(&b, int(n)) {
		return nil, malformed("%s cut short, or of %d bytes, limit %d", what, n, most)
	}
	return b, nil
}

func readUvarint(in *cryptobyte.String) (uint64, error) {
	v, n := binary.Uvarint(*in)
	if n <= 0 || !in.Skip(n) {
		return 0, malformed("number cut short or too long")
	}
	return v, nil
}

func readSlots(in *cryptobyte.String, slots uint32) (s Slots, err error) {
	n, err := readUvarint(in)
	if err != nil {
		return nil, err
	}
	if n > uint64(slots) || n > uint64(len(*in))/2 {
		return nil, malformed("%d slots in %d bytes, the run has %d", n, len(*in), slots)
	}
	last := uint64(0)
	for i := range n {
		step, err := readUvarint(in)
		if err != nil {
			return nil, err
		}
		count, err := readUvarint(in)
		if err != nil {
			return nil, err
		}
		if step >= uint64(slots) || last+step >= uint64(slots) || step == 0 && i > 0 || count == 0 || count > math.MaxUint32 {
			return nil, malformed("slot %d after %d with %d transactions: the run has %d slots", last+step, last, count, slots)
		}
		last += step
		s = append(s, Count{uint32(last), uint32(count)})
	}
	return s, nil
}

// Encode puts e into the form that a report carries.
func (e *Evidence) Encode() (*report.Evidence, error) {
	for i := range e.Shards {
		if epoch := e.Shards[i].Base.Header().Epoch; epoch != genesis.Epoch {
			return nil, fmt.Errorf("replay: shard %d was in epoch %d: evidence begins with the committees of the genesis, so only a run that begins in epoch %d leaves any", i, epoch, genesis.Epoch)
		}
	}
	plain := e.Append(nil)
	if len(plain) > MaxBytes {
		return nil, fmt.Errorf("replay: evidence of %d bytes, limit %d: measure for a shorter time", len(plain), MaxBytes)
	}
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	return &report.Evidence{Format: Format, Genesis: e.Genesis.Hash().String(), Data: out.Bytes()}, nil
}

// Of is the evidence in a report.
func Of(r *report.Report) (*Evidence, error) {
	switch {
	case r.Schema != report.Schema:
		return nil, fmt.Errorf("replay: the report has schema %.40q, this build knows %q: update tutti", r.Schema, report.Schema)
	case r.Evidence == nil:
		return nil, errors.New("replay: the report carries no evidence, so nothing in it can be checked: measure again with this build of tutti")
	case r.Evidence.Format != Format:
		return nil, fmt.Errorf("replay: the evidence has format %.40q, this build knows %q: update tutti", r.Evidence.Format, Format)
	}
	packed := bytes.NewReader(r.Evidence.Data)
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(packed), MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("replay: %w: %w", ErrMalformed, err)
	}
	if packed.Len() > 0 && len(plain) <= MaxBytes {
		return nil, malformed("%d bytes after it", packed.Len())
	}
	e, err := Decode(plain)
	if err != nil {
		return nil, err
	}
	if got := e.Genesis.Hash().String(); got != r.Evidence.Genesis {
		return nil, malformed("the report says that the genesis hash is %.80s, that of the genesis in it is %s", r.Evidence.Genesis, got)
	}
	return e, nil
}
