package node

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"tutti/consensus"
	"tutti/state/ledger"
)

// Bounds of the memory of verified final headers. An encoded one has 400 bytes, and 50 more for each other shard.
const (
	maxVerifiedHeaders = 4096
	maxVerifiedBytes   = 16 << 20
)

// finalHeaders verifies final headers of every shard of the network against the genesis committees. The verdict is a
// pure function of the bytes, so it may be used inside block execution; good verdicts are remembered, because the
// same proof is checked when it arrives, when a block with it is built and when it is executed.
// Safe for concurrent use.
type finalHeaders struct {
	genesis    consensus.Hash
	committees []*consensus.Committee // by shard
	keys       []consensus.Keys       // by shard

	mu    sync.Mutex // guards what follows, held for map operations only
	known map[[32]byte]*consensus.FinalHeader
	order []verified // oldest first
	bytes int        // encoded, of all
}

// verified is one entry in the order of insertion.
type verified struct {
	id    [32]byte
	bytes int
}

func newFinalHeaders(genesis consensus.Hash, committees []*consensus.Committee) (*finalHeaders, error) {
	f := &finalHeaders{genesis: genesis, committees: committees, known: map[[32]byte]*consensus.FinalHeader{}}
	for _, c := range committees {
		k, err := consensus.NewKeys(c)
		if err != nil {
			return nil, fmt.Errorf("keys of shard %d: %w", c.Shard, err)
		}
		f.keys = append(f.keys, k)
	}
	return f, nil
}

// check decodes and verifies an encoded consensus.FinalHeader.
func (f *finalHeaders) check(proof []byte) (*consensus.FinalHeader, error) {
	id := sha256.Sum256(proof)
	f.mu.Lock()
	fh := f.known[id]
	f.mu.Unlock()
	if fh != nil {
		return fh, nil
	}
	fh, err := consensus.DecodeFinalHeader(proof)
	if err != nil {
		return nil, err
	}
	shard := int(fh.Header.Shard)
	if shard >= len(f.committees) {
		return nil, fmt.Errorf("final header of shard %d: this network has %d shards", shard, len(f.committees))
	}
	if fh.Header.Chain != f.genesis {
		return nil, fmt.Errorf("final header is of chain %s, this is %s", fh.Header.Chain.Short(), f.genesis.Short())
	}
	if err := f.committees[shard].VerifyCertificate(f.genesis, f.keys[shard], &fh.Cert); err != nil {
		return nil, fmt.Errorf("final header of shard %d: %w", shard, err)
	}
	f.remember(id, fh, len(proof))
	return fh, nil
}

func (f *finalHeaders) remember(id [32]byte, fh *consensus.FinalHeader, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known[id] != nil {
		return
	}
	f.known[id] = fh
	f.order = append(f.order, verified{id, bytes})
	f.bytes += bytes
	old := 0
	for ; len(f.order)-old > maxVerifiedHeaders || f.bytes > maxVerifiedBytes; old++ {
		delete(f.known, f.order[old].id)
		f.bytes -= f.order[old].bytes
	}
	f.order = slices.Delete(f.order, 0, old)
}

// Verify implements ledger.Headers.
func (f *finalHeaders) Verify(source uint16, _ ledger.Known, proof []byte) (ledger.ForeignHeader, error) {
	fh, err := f.check(proof)
	if err != nil {
		return ledger.ForeignHeader{}, err
	}
	if uint16(fh.Header.Shard) != source {
		return ledger.ForeignHeader{}, fmt.Errorf("final header is of shard %d, not %d", fh.Header.Shard, source)
	}
	return ledger.ForeignHeader{
		Shard:  source,
		Known:  ledger.Known{Epoch: uint64(fh.Header.Epoch)},
		Height: uint64(fh.Header.Height),
		Links:  ledgerLinks(fh.Header.Links),
	}, nil
}

func ledgerLinks(links []consensus.Link) []ledger.Link {
	out := make([]ledger.Link, len(links))
	for i, l := range links {
		out[i] = ledger.Link{Shard: uint16(l.Shard), Sent: l.Sent, Received: l.Received, Root: [32]byte(l.Root)}
	}
	return out
}

func consensusLinks(links []ledger.Link) []consensus.Link {
	out := make([]consensus.Link, len(links))
	for i, l := range links {
		out[i] = consensus.Link{Shard: consensus.ShardID(l.Shard), Sent: l.Sent, Received: l.Received, Root: consensus.Hash(l.Root)}
	}
	return out
}
