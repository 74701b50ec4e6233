package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Bounds of what is remembered: 32 bytes for each verdict, some 300 for each seat.
const (
	maxVerdicts     = 1 << 15
	maxDecodedSeats = 1 << 16
	maxDecoded      = 1 << 10 // committees
)

// finalHeaders verifies proofs of bundles, of every shard of the network, from the committees that the channels know on. A verdict
// is a pure function of its arguments, so it may be used inside block execution. The good verdicts on certificates are
// remembered, because the same one is checked when it arrives, when a block with it is built and when it is executed;
// so are committees with decoded keys. Safe for concurrent use.
type finalHeaders struct {
	genesis consensus.Hash
	first   []member // committees of the genesis, by shard

	mu      sync.Mutex // guards what follows, held for map operations only
	good    map[[32]byte]bool
	order   [][32]byte // ring once it is full
	next    int        // the oldest
	members []member   // last used last
	seats   int        // of them
}

// member is a committee with its decoded keys.
type member struct {
	*consensus.Committee
	keys consensus.Keys
}

func newFinalHeaders(genesis consensus.Hash, committees []*consensus.Committee) (*finalHeaders, error) {
	f := &finalHeaders{genesis: genesis, good: map[[32]byte]bool{}}
	for _, c := range committees {
		k, err := consensus.NewKeys(c)
		if err != nil {
			return nil, fmt.Errorf("keys of shard %d: %w", c.Shard, err)
		}
		f.first = append(f.first, member{c, k})
	}
	return f, nil
}

// member decodes a committee's keys, of which before's need no decoding; before may be nil.
func (f *finalHeaders) member(c *consensus.Committee, before consensus.Keys) (m member, err error) {
	if m, ok := f.decoded(c.Hash()); ok {
		return m, nil
	}
	m.Committee = c
	if before != nil {
		m.keys, err = consensus.NewKeysFrom(before, c)
	} else {
		m.keys, err = consensus.NewKeys(c)
	}
	if err != nil {
		return m, err
	}
	if again, ok := f.decoded(c.Hash()); ok { // somebody else was faster
		return again, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members, f.seats = append(f.members, m), f.seats+len(c.Validators)
	for len(f.members) > 1 && (f.seats > maxDecodedSeats || len(f.members) > maxDecoded) {
		f.seats -= len(f.members[0].Validators)
		f.members = slices.Delete(f.members, 0, 1)
	}
	return m, nil
}

// decoded finds a committee among those that were decoded.
func (f *finalHeaders) decoded(hash consensus.Hash) (member, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.members, func(m member) bool { return m.Hash() == hash })
	if i < 0 {
		return member{}, false
	}
	m := f.members[i]
	f.members = append(slices.Delete(f.members, i, i+1), m)
	return m, true
}

// once calls verify unless it was called before with this committee, kind and content, and all was well.
func (f *finalHeaders) once(m member, kind byte, content []byte, verify func() error) error {
	d := sha256.New()
	hash := m.Hash()
	d.Write(append(hash[:], kind))
	d.Write(content)
	id := [32]byte(d.Sum(nil))
	f.mu.Lock()
	known := f.good[id]
	f.mu.Unlock()
	if known {
		return nil
	}
	if err := verify(); err != nil {
		return err
	}
	f.remember(id)
	return nil
}

func (f *finalHeaders) remember(id [32]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.good[id]: // somebody else was faster
		return
	case len(f.order) < maxVerdicts:
		f.order = append(f.order, id)
	default:
		delete(f.good, f.order[f.next])
		f.order[f.next] = id
		f.next = (f.next + 1) % maxVerdicts
	}
	f.good[id] = true
}

// final verifies a final header of a committee's epoch.
func (f *finalHeaders) final(m member, fh *consensus.FinalHeader) error {
	h := fh.Header
	switch {
	case h.Chain != f.genesis:
		return fmt.Errorf("final header is of chain %s, this is %s", h.Chain.Short(), f.genesis.Short())
	case h.Shard != m.Shard || h.Epoch != m.Epoch || h.Committee != m.Hash():
		return fmt.Errorf("final header is of epoch %d of shard %d and committee %s, need epoch %d of shard %d and %s",
			h.Epoch, h.Shard, h.Committee.Short(), m.Epoch, m.Shard, m.Hash().Short())
	case h.IsEcho():
		return errors.New("final header is an echo, and no block of the chain")
	}
	err := f.once(m, 'f', fh.Append(nil), func() error { return m.VerifyCertificate(f.genesis, m.keys, &fh.Cert) })
	if err != nil {
		return fmt.Errorf("final header of shard %d: %w", m.Shard, err)
	}
	return nil
}

// step verifies a hand-over out of a committee's epoch, and is the next committee.
func (f *finalHeaders) step(m member, h *proof.Handover) (member, error) {
	if err := f.once(m, 'h', h.Append(nil), func() error { return h.Verify(f.genesis, m.Committee, m.keys) }); err != nil {
		return member{}, err
	}
	return f.member(h.Next, m.keys)
}

// Verify implements ledger.Headers.
func (f *finalHeaders) Verify(source uint16, known ledger.Known, b []byte) (ledger.ForeignHeader, error) {
	out := ledger.ForeignHeader{Shard: source}
	if int(source) >= len(f.first) {
		return out, fmt.Errorf("shard %d: this network has %d shards", source, len(f.first))
	}
	p, err := decodeLinkProof(b)
	if err != nil {
		return out, err
	}
	m, first := f.first[source], known.Committee == tx.Hash{}
	switch {
	case first != (p.known == nil):
		return out, errors.New("the proof has to begin with the committee that the channel knows, if that is not the genesis'")
	case first:
	case p.known.Hash() != consensus.Hash(known.Committee):
		return out, fmt.Errorf("the proof begins with committee %s, the channel knows %s", p.known.Hash().Short(), consensus.Hash(known.Committee).Short())
	default:
		if m, err = f.member(p.known, nil); err != nil {
			return out, err
		}
	}
	top := consensus.Height(0)
	for _, h := range p.steps {
		if h.End.Last.Height <= top {
			return out, fmt.Errorf("epoch %d ends at height %d, the one before at %d", h.Epoch(), h.End.Last.Height, top)
		}
		if m, err = f.step(m, h); err != nil {
			return out, err
		}
		top = h.End.Last.Height
	}
	if p.final != nil {
		if p.final.Header.Height <= top {
			return out, fmt.Errorf("final header at height %d, the epoch before ends at %d", p.final.Header.Height, top)
		}
		if err := f.final(m, p.final); err != nil {
			return out, err
		}
	}
	h := p.header()
	out.Epoch, out.Height, out.Links = uint64(m.Epoch), uint64(h.Height), ledgerLinks(h.Links)
	if !first || len(p.steps) > 0 {
		out.Committee = tx.Hash(m.Hash())
	}
	return out, nil
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
