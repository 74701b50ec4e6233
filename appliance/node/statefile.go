package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"tutti/accel/bls"
	"tutti/accel/ed25519"
	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/proof"
	"tutti/appliance/statefile"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/state/ledger"
	"tutti/state/tx"
	"tutti/state/verify"
)

// A shard's state as a file: ExportState writes that of a stopped node, VerifyState checks one against a genesis alone,
// and ImportState (import.go) makes a data folder of it.
//
// The file has the state as of the block whose root the node's final header carries, with all final blocks after it. The
// root of the state is in a final header; what the blocks after it did is in no header yet, so whoever reads the file
// executes them: every signature, outcome and credit is checked as validators do.

// StateInfo says what is in a file.
type StateInfo struct {
	Chain    proof.Digest      `json:"chain"` // genesis hash
	Network  string            `json:"network"`
	Shard    consensus.ShardID `json:"shard"`
	Height   consensus.Height  `json:"height"` // of the last block in it
	Block    proof.Digest      `json:"block"`  // its hash
	Proven   consensus.Height  `json:"proven"` // height of the state that a header's root proves; the blocks after it were executed
	Root     proof.Digest      `json:"root"`   // that root
	Accounts uint64            `json:"accounts"`
	Bytes    int64             `json:"bytes"`
	Quorum   *proof.Quorum     `json:"signed,omitempty"` // behind the last block; absent where it was not checked
}

// Progress is called now and then with how much is done, of how much; in steps of its own.
type Progress func(done, total uint64)

// ExportState writes the state of the node in home, which is stopped, to w.
func ExportState(ctx context.Context, home config.Home, v *genesis.Verified, shard consensus.ShardID, retentionBlocks int, w io.Writer, progress Progress) (*StateInfo, error) {
	release, err := home.Lock()
	if err != nil {
		return nil, err
	}
	defer release()
	if err := config.CheckFormat(home.Data(), config.DataFormat); err != nil {
		return nil, err
	}
	header, err := genesisHeader(home, v, shard, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	params := shardParams(v, shard)
	params.GenesisBlock = tx.Hash(header.Hash())
	log, err := blocklog.Open(blocklog.Options{FS: disk(), Dir: home.Blocks(), Chain: v.Hash(), Shard: shard, Retention: keptBlocks(retentionBlocks)})
	if err != nil {
		return nil, err
	}
	l, err := ledger.Open(ledger.Options{
		FS: disk(), Dir: home.State(), Params: params, Verifier: noBlocks{}, Headers: noBlocks{}, Possession: bls.VerifyPossession,
	})
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	x := &exporter{ctx: ctx, log: log, ledger: l, params: &params, progress: progress}
	info, err := x.export(v, shard, w)
	return info, errors.Join(err, l.Close(), log.Close())
}

// noBlocks stands where a ledger that is only read would check blocks: it judges nothing good.
type noBlocks struct{}

var errNoBlocks = errors.New("this ledger is only being read")

func (noBlocks) Check(context.Context, []tx.Signed, [][32]byte, []uint16, []bool) error {
	return errNoBlocks
}

func (noBlocks) Verify(uint16, ledger.Known, []byte) (ledger.ForeignHeader, error) {
	return ledger.ForeignHeader{}, errNoBlocks
}

// exporter writes one file.
type exporter struct {
	ctx      context.Context
	log      *blocklog.Log
	ledger   *ledger.Ledger
	params   *ledger.Params
	progress Progress
	w        *statefile.Writer
	scratch  []byte // of the section in hand
}

func (x *exporter) export(v *genesis.Verified, shard consensus.ShardID, w io.Writer) (*StateInfo, error) {
	outline, err := x.ledger.Outline()
	if err != nil {
		return nil, err
	}
	base := consensus.Height(outline.Height)
	if base == 0 {
		return nil, fmt.Errorf("the chain of shard %d has %d final blocks, too few for a proven state: others begin with the genesis file", shard, x.ledger.Stats().Height)
	}
	final, err := x.final(base)
	if err != nil {
		return nil, err
	}
	root := tx.Hash(final.Headers[consensus.StateLag].State)
	meta, err := outline.Verify(root, x.params)
	if err != nil {
		return nil, err
	}
	last := final.Headers[len(final.Headers)-1]
	if x.w, err = statefile.NewWriter(w); err != nil {
		return nil, err
	}
	head := statefile.Info{Chain: v.Hash(), Shard: shard, Height: base, Last: last.Height}
	for _, s := range []struct {
		kind    statefile.Kind
		content []byte
	}{
		{statefile.Head, head.Append(nil)}, {statefile.Final, final.Append(nil)}, {statefile.Outline, outline.Append(nil)},
	} {
		if err := x.w.Add(s.kind, s.content); err != nil {
			return nil, err
		}
	}
	for _, write := range []func(*ledger.Meta) error{x.difference, x.chunks, x.keys, x.outboxes} {
		if err := write(meta); err != nil {
			return nil, err
		}
	}
	if err := x.blocks(final.Headers); err != nil {
		return nil, err
	}
	if err := x.w.Finish(); err != nil {
		return nil, err
	}
	return &StateInfo{
		Chain: proof.Digest(v.Hash()), Network: v.Name, Shard: shard, Height: last.Height, Block: proof.Digest(last.Hash()), Proven: base,
		Root: proof.Digest(root), Accounts: meta.Accounts, Bytes: x.w.Bytes(),
	}, nil
}

// final shows the base and the blocks above it to be final, up to the lowest finalization at or above the ledger's height.
func (x *exporter) final(base consensus.Height) (*proof.Final, error) {
	certified, cert, err := x.log.Finalization(base + consensus.StateLag)
	if err == nil && base < x.log.Base() {
		err = fmt.Errorf("its block log begins at height %d, its state at %d: run the node until it has a few blocks more, then export", x.log.Base(), base)
	}
	if err != nil {
		return nil, err
	}
	if certified-base > proof.MaxDescendants {
		return nil, fmt.Errorf("no finalization between heights %d and %d: run the node until it has one, then export", base, base+proof.MaxDescendants)
	}
	f := &proof.Final{Cert: *cert}
	for at := base; at <= certified; at++ {
		hash, ok := x.log.FinalAt(at)
		if !ok {
			return nil, fmt.Errorf("final block %d: %w", at, blocklog.ErrNotFound)
		}
		h, err := x.log.Header(hash)
		if err != nil {
			return nil, err
		}
		f.Headers = append(f.Headers, h)
	}
	if last := f.Headers[len(f.Headers)-1]; f.Cert.Block != last.Hash() || f.Header().Epoch != last.Epoch {
		return nil, errors.New("an epoch has just ended: run the node until it has a few blocks more, then export")
	}
	return f, nil
}

func (x *exporter) difference(m *ledger.Meta) error {
	ds, err := x.ledger.Differences(m.Height, 1)
	if err != nil {
		return err
	}
	return x.w.Add(statefile.Difference, ds[0].Append(nil))
}

func (x *exporter) chunks(m *ledger.Meta) error {
	total, done := uint64(0), uint64(0)
	for _, next := range m.Next {
		total += chunksOf(next)
	}
	for slot, partition := range x.params.Table.Partitions(x.params.Shard) {
		for k := range chunksOf(m.Next[slot]) {
			if err := x.ctx.Err(); err != nil {
				return err
			}
			c, err := x.ledger.Chunk(partition, uint32(k))
			if err != nil {
				return err
			}
			x.scratch = c.Append(x.scratch[:0])
			if err := x.w.Add(statefile.Chunk, x.scratch); err != nil {
				return err
			}
			done++
			x.progress(done, total)
		}
	}
	return nil
}

func chunksOf(next uint32) uint64 {
	return (uint64(next) + ledger.ChunkAccounts - 1) / ledger.ChunkAccounts
}

func (x *exporter) keys(m *ledger.Meta) error {
	for at, count := uint64(0), m.Directory.Count(); at < count; {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		keys, err := x.ledger.DirectoryKeys(at, int(min(count-at, ledger.SegmentKeys)))
		if err != nil {
			return err
		}
		x.scratch = ledger.AppendKeys(x.scratch[:0], keys)
		if err := x.w.Add(statefile.Keys, x.scratch); err != nil {
			return err
		}
		at += uint64(len(keys))
	}
	return nil
}

func (x *exporter) outboxes(m *ledger.Meta) error {
	for i := range m.Channels {
		c := &m.Channels[i]
		if c.Acked == c.Sent.Count() {
			continue
		}
		o, err := x.ledger.Outbox(c.Shard, c.Acked, c.Sent.Count())
		if err != nil {
			return fmt.Errorf("receipts to shard %d: %w: run the node until they are acknowledged, then export", c.Shard, err)
		}
		if err := x.w.Add(statefile.Outbox, o.Append(nil)); err != nil {
			return err
		}
	}
	return nil
}

func (x *exporter) blocks(headers []*consensus.Header) error {
	for _, h := range headers {
		b, err := x.log.Block(h.Hash())
		if err != nil {
			return err
		}
		x.scratch = b.Append(x.scratch[:0])
		if err := x.w.Add(statefile.Block, x.scratch); err != nil {
			return err
		}
	}
	return nil
}

// VerifyState checks everything in a file against a genesis. It needs the memory of a node of that shard, and no disk.
func VerifyState(ctx context.Context, r io.Reader, v *genesis.Verified, workers int, progress Progress) (*StateInfo, error) {
	s, err := openStateFile(r, v, workers, progress)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.load(ctx, ""); err != nil {
		return nil, err
	}
	return s.info, errors.Join(s.execute(ctx, nil), s.ledger.Close())
}

// stateReader reads one file and believes nothing in it.
type stateReader struct {
	in         *statefile.Reader
	genesis    *genesis.Verified
	info       *StateInfo
	final      *proof.Final
	params     ledger.Params
	root       *consensus.Header // the genesis block's
	headers    *finalHeaders
	queue      *ed25519.Queue
	workers    int
	progress   Progress
	ledger     *ledger.Ledger
	kind       statefile.Kind // of the section in hand
	content    []byte
	chunks     uint64 // taken
	chunkTotal uint64
}

// openStateFile reads the first sections, which say what the file is and prove it. The caller closes it.
func openStateFile(r io.Reader, v *genesis.Verified, workers int, progress Progress) (*stateReader, error) {
	in, err := statefile.NewReader(r)
	if err != nil {
		return nil, err
	}
	s := &stateReader{in: in, genesis: v, workers: workers, progress: progress}
	if err := s.next(); err != nil {
		return nil, err
	}
	head, err := statefile.DecodeInfo(s.content)
	switch {
	case err != nil:
		return nil, err
	case head.Chain != v.Hash():
		return nil, fmt.Errorf("the file is of the chain %s, the genesis file is of %s (%s): take the genesis file of that network", head.Chain.Short(), v.Hash().Short(), v.Name)
	case int(head.Shard) >= len(v.Shards):
		return nil, fmt.Errorf("the file is of shard %d, the network has %d", head.Shard, len(v.Shards))
	}
	trust, err := Trust(v)
	if err != nil {
		return nil, err
	}
	if err := s.next(); err != nil {
		return nil, err
	}
	if s.final, err = proof.DecodeFinal(s.content); err != nil {
		return nil, err
	}
	quorum, err := s.final.Verify(trust)
	if errors.Is(err, proof.ErrEpoch) {
		return nil, fmt.Errorf("%w. A state file of a later epoch than the first can not be checked with the genesis file alone: 'tutti run --sync' copies the state from the other validators and follows the hand-overs", err)
	}
	if err != nil {
		return nil, err
	}
	first, last := s.final.Header(), s.final.Headers[len(s.final.Headers)-1]
	if first.Shard != head.Shard || first.Height != head.Height || last.Height != head.Last || len(s.final.Headers) <= consensus.StateLag || head.Height == 0 {
		return nil, fmt.Errorf("the final headers in the file are of shard %d, heights %d to %d, and its head says otherwise: export it again", first.Shard, first.Height, last.Height)
	}
	s.info = &StateInfo{
		Chain: proof.Digest(head.Chain), Network: v.Name, Shard: head.Shard, Height: head.Last, Block: proof.Digest(last.Hash()), Proven: head.Height,
		Root: proof.Digest(s.final.Headers[consensus.StateLag].State), Quorum: &quorum,
	}
	b, err := Begin(v, head.Shard, nil)
	if err != nil {
		return nil, err
	}
	s.params, s.root = b.params, b.header
	return s, errors.Join(b.Close(), s.verifiers())
}

// verifiers makes what checks transactions and headers of other shards.
func (s *stateReader) verifiers() error {
	var committees []*consensus.Committee
	for i := range s.genesis.Shards {
		c, err := s.genesis.Committee(consensus.ShardID(i))
		if err != nil {
			return err
		}
		committees = append(committees, c)
	}
	var err error
	if s.headers, err = newFinalHeaders(s.genesis.Hash(), committees); err != nil {
		return err
	}
	s.queue, err = ed25519.NewQueue(ed25519.QueueOptions{Workers: s.workers, MaxBatch: 512, MaxDelay: time.Millisecond, Depth: verifyDepth})
	return err
}

func (s *stateReader) close() { s.queue.Close() }

func (s *stateReader) next() (err error) {
	s.kind, s.content, err = s.in.Next()
	return err
}

// load makes a ledger of the state in the file, in dir, or in memory if that is empty.
func (s *stateReader) load(ctx context.Context, dir string) error {
	verifier, err := verify.New(s.params.GenesisHash, s.queue, verifyCache)
	if err != nil {
		return err
	}
	h := s.final.Headers
	base := ledger.Base{
		Height: uint64(h[0].Height), Block: tx.Hash(h[0].Hash()), Parent: tx.Hash(h[0].Parent),
		State: tx.Hash(h[consensus.StateLag].State), Diff: tx.Hash(h[consensus.StateLag].Diff),
		ParentState: tx.Hash(h[1].State), ParentDiff: tx.Hash(h[1].Diff),
	}
	s.ledger, err = ledger.Rebuild(ledger.Options{
		FS: disk(), Dir: dir, Params: s.params, Verifier: verify.Ledger{Verifier: verifier}, Headers: s.headers,
		Possession: bls.VerifyPossession, Workers: s.workers,
	}, base, func(r *ledger.Rebuilder) error {
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.next(); err != nil {
				return err
			}
			if s.kind >= statefile.Block {
				return nil
			}
			if err := s.part(r); err != nil {
				return s.where(err)
			}
		}
	})
	return err
}

// where adds to an error in which part of the file it is.
func (s *stateReader) where(err error) error {
	return fmt.Errorf("the %s that ends at byte %d of the state file: %w", s.kind, s.in.Offset(), err)
}

// part gives the section in hand to a ledger.
func (s *stateReader) part(r *ledger.Rebuilder) error {
	switch s.kind {
	case statefile.Outline:
		o, err := ledger.DecodeOutline(s.content)
		if err != nil {
			return err
		}
		o.Height = uint64(s.info.Proven)
		if err := r.Outline(o); err != nil {
			return err
		}
		meta := r.Meta()
		s.info.Accounts = meta.Accounts
		for _, next := range meta.Next {
			s.chunkTotal += chunksOf(next)
		}
		return nil
	case statefile.Difference:
		d, err := ledger.DecodeDifference(s.content)
		if err != nil {
			return err
		}
		return r.Difference(&d)
	case statefile.Chunk:
		c, err := ledger.DecodeChunk(s.content)
		if err != nil {
			return err
		}
		if err := r.Chunk(c); err != nil {
			return err
		}
		s.chunks++
		s.progress(s.chunks, s.chunkTotal)
		return nil
	case statefile.Keys:
		keys, err := ledger.DecodeKeys(s.content)
		if err != nil {
			return err
		}
		return r.Keys(keys)
	}
	o, err := ledger.DecodeOutbox(s.content)
	if err != nil {
		return err
	}
	return r.Outbox(o)
}

// execute takes the blocks above the state to the ledger. With keep they become final there, and keep gets them and the
// state's own. It reads the file to its end.
func (s *stateReader) execute(ctx context.Context, keep func(consensus.Block) error) error {
	for i, h := range s.final.Headers {
		if s.kind != statefile.Block {
			return s.where(fmt.Errorf("block %d is missing", h.Height))
		}
		b, err := consensus.DecodeBlock(append([]byte{}, s.content...))
		if err == nil && b.Header.Hash() != h.Hash() {
			err = fmt.Errorf("it is not block %d of the final headers", h.Height)
		}
		if err == nil && i > 0 { // the state is that after the first
			err = s.executeOne(ctx, b, keep != nil)
		}
		if err == nil && keep != nil {
			err = keep(b)
		}
		if err != nil {
			return s.where(err)
		}
		if err := s.next(); err != nil {
			return err
		}
		s.progress(uint64(i+1), uint64(len(s.final.Headers)))
	}
	if s.kind != statefile.End {
		return s.where(errors.New("the final headers have no more blocks"))
	}
	s.info.Bytes = s.in.Offset()
	return nil
}

func (s *stateReader) executeOne(ctx context.Context, b consensus.Block, final bool) error {
	h := b.Header
	if _, err := s.ledger.Execute(ctx, ledger.ExecuteInput{
		Parent: tx.Hash(h.Parent), Block: tx.Hash(h.Hash()), Height: uint64(h.Height), Body: b.Body,
		Want: ledger.Commitments{Outcomes: tx.Hash(h.Outcomes), Links: ledgerLinks(h.Links), State: tx.Hash(h.State), Diff: tx.Hash(h.Diff)},
	}); err != nil || !final {
		return err
	}
	return s.ledger.Finalise(ctx, tx.Hash(h.Hash()))
}
