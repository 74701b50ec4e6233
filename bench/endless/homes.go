package endless

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"tutti/accel/bls"
	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/keys"
	"tutti/appliance/node"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Homes of a shard's validators are brought to a height in no time by one who has all their keys: the chain is that of empty
// blocks which they would have made, with the committee's real signatures below every finalization that they still keep. One
// validator stays behind, with what it had at a lower height: state, blocks, and its own votes.
type Homes struct {
	Genesis *genesis.Verified
	Homes   []config.Home // of all validators of shard 0, by place; each just made, and stopped
	Blocks  uint64        // height to reach
	Away    int           // who stays behind; -1: nobody
	At      uint64        // where
	Keep    int           // blocks that logs keep (storage.retention_blocks)
	Report  func(height uint64)
}

// segment is the length of a log's segments, so short that little more than Keep blocks stay: fewer than twice as many and a
// segment. What may stay has real signatures.
const (
	segment       = 64 << 10
	segmentBlocks = segment / 400
)

// forge is what makes the chain.
type forge struct {
	Homes
	committee *consensus.Committee
	keys      consensus.Keys
	signers   []consensus.Signer
	params    ledger.Params
	root      *consensus.Header
	parent    *consensus.Header
	ledger    *ledger.Ledger
	log       *blocklog.Log
	away      []simplex.Record // votes of who stays behind
}

// Make makes them.
func (h Homes) Make(ctx context.Context) (err error) {
	f := &forge{Homes: h}
	if err := f.meet(); err != nil {
		return err
	}
	first := 0
	if h.Away == 0 {
		first = 1
	}
	if h.Away >= 0 {
		if err := f.run(ctx, first, h.At); err != nil {
			return err
		}
		if err := f.give(first, h.Away); err != nil {
			return err
		}
		if err := f.vote(); err != nil {
			return err
		}
	}
	if err := f.run(ctx, first, h.Blocks); err != nil {
		return err
	}
	for i := range h.Homes {
		if i != first && i != h.Away {
			if err := f.give(first, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// meet opens keys and makes what follows from the genesis.
func (f *forge) meet() (err error) {
	if f.committee, err = f.Genesis.Committee(0); err != nil {
		return err
	}
	if f.keys, err = consensus.NewKeys(f.committee); err != nil {
		return err
	}
	for _, home := range f.Homes.Homes {
		password, err := keys.ReadPasswordFile(home.KeyPassword())
		if err != nil {
			return err
		}
		sealed, err := keys.LoadType(home.VotingKey(), keys.Voting)
		if err != nil {
			return err
		}
		secret, err := sealed.Open(password)
		if err != nil {
			return err
		}
		key, err := secret.BLS()
		if err != nil {
			return err
		}
		f.signers = append(f.signers, consensus.NewSigner(key))
	}
	b, err := node.Begin(f.Genesis, 0, nil)
	if err != nil {
		return err
	}
	f.root = b.Header()
	p := &f.Genesis.Parameters
	f.params = ledger.Params{
		GenesisHash: tx.Hash(f.Genesis.Hash()), GenesisBlock: tx.Hash(f.root.Hash()), Shards: uint16(len(f.Genesis.Shards)), Table: f.Genesis.Table,
		Fees: p.Fees, OpenDeposit: p.OpenDeposit, OpenCap: p.OpenCap, AccountLimit: p.AccountLimit, ReceiptWindow: p.ReceiptWindow,
		Supplies: f.Genesis.Supplies,
	}
	f.parent = f.root
	return b.Close()
}

// run brings one home to a height.
func (f *forge) run(ctx context.Context, i int, to uint64) (err error) {
	home := f.Homes.Homes[i]
	f.ledger, err = ledger.Open(ledger.Options{
		FS: hasty(), Dir: home.State(), Params: f.params, Verifier: trusting{}, Headers: headers{}, Possession: bls.VerifyPossession, Workers: 1,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.ledger.Close()) }()
	f.log, err = f.open(home)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.log.Close()) }()
	for h := uint64(f.parent.Height) + 1; h <= to; h++ {
		if err := f.next(ctx, h); err != nil {
			return fmt.Errorf("block %d: %w", h, err)
		}
		if f.Report != nil && h%50_000 == 0 {
			f.Report(h)
		}
	}
	return nil
}

func (f *forge) open(home config.Home) (*blocklog.Log, error) {
	return blocklog.Open(blocklog.Options{
		FS: hasty(), Dir: home.Blocks(), Chain: f.Genesis.Hash(), Retention: consensus.Height(f.Keep), SegmentBytes: segment,
	})
}

// next makes an empty block and makes it final.
func (f *forge) next(ctx context.Context, height uint64) error {
	parent := f.parent.Hash()
	built, err := f.ledger.Build(ctx, ledger.BuildInput{Parent: tx.Hash(parent), Height: height, MaxBytes: 1 << 10})
	if err != nil {
		return err
	}
	c := built.Commitments
	b := consensus.Block{Body: built.Body, Header: &consensus.Header{
		Version: consensus.HeaderVersion, Chain: f.Genesis.Hash(), Epoch: f.committee.Epoch, View: consensus.View(height),
		Height: consensus.Height(height), TimeMs: f.root.TimeMs + int64(height), Parent: parent, Body: f.committee.BodyRef(built.Body),
		Outcomes: consensus.Hash(c.Outcomes), State: consensus.Hash(c.State), Diff: consensus.Hash(c.Diff),
		Committee: f.committee.Hash(), NextCommittee: f.committee.Hash(),
	}}
	name := b.Header.Hash()
	if _, err := f.ledger.Execute(ctx, ledger.ExecuteInput{
		Parent: tx.Hash(parent), Block: tx.Hash(name), Height: height, Body: built.Body, Want: c,
	}); err != nil {
		return err
	}
	cert, err := f.certify(b.Header, name)
	if err != nil {
		return err
	}
	if err := errors.Join(f.log.AppendBlock(b), f.log.AppendFinal(cert), f.log.Sync()); err != nil {
		return err
	}
	f.parent = b.Header
	return f.ledger.Finalise(ctx, tx.Hash(name))
}

// certify makes a finalization, and the votes of who stays behind.
func (f *forge) certify(h *consensus.Header, name consensus.Hash) (*consensus.Certificate, error) {
	st := consensus.Statement{Kind: consensus.Finalize, Epoch: h.Epoch, View: h.View, Block: name}
	cert := &consensus.Certificate{Statement: st, Signers: consensus.NewSigners(len(f.signers))}
	early := f.Away >= 0 && uint64(h.Height) <= f.At
	for i := range f.signers {
		if i != f.Away || early { // who is away signs nothing
			cert.Signers.Add(i)
		}
	}
	if !early && uint64(h.Height)+uint64(2*f.Keep+segmentBlocks) < f.Blocks {
		return cert, nil // nobody keeps it
	}
	var sigs []consensus.Signature
	for i, s := range f.signers {
		if !cert.Signers.Has(i) {
			continue
		}
		sig := s.Sign(consensus.VoteMessage(f.Genesis.Hash(), st))
		sigs = append(sigs, sig)
		if i == f.Away && early {
			vote := &consensus.Vote{Statement: st, Validator: uint16(i), Signature: sig}
			f.away = append(f.away[max(0, len(f.away)-8):], simplex.Record{Vote: vote})
		}
	}
	var err error
	cert.Signature, err = f.keys.Aggregate(sigs)
	return cert, err
}

// give copies state and blocks from one home to another.
func (f *forge) give(from, to int) error {
	for _, path := range []func(config.Home) string{config.Home.State, config.Home.Blocks} {
		src, dst := path(f.Homes.Homes[from]), path(f.Homes.Homes[to])
		if err := os.RemoveAll(dst); err != nil {
			return err
		}
		if err := copyFolder(src, dst); err != nil {
			return err
		}
	}
	return nil
}

func copyFolder(src, dst string) error {
	return filepath.WalkDir(src, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		if e.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
}

// vote logs the last votes of who stays behind.
func (f *forge) vote() (err error) {
	log, err := f.open(f.Homes.Homes[f.Away])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	for _, r := range f.away {
		if err := log.AppendRecord(r); err != nil {
			return err
		}
	}
	return log.Sync()
}
