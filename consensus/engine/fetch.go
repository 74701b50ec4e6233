package engine

import (
	"context"
	"fmt"
	"time"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// peers lists the members to ask, each once, from the one after the last that was asked; those in penalty left out. Owner only.
func (e *Engine) peers() []int {
	n := len(e.c.Committee.Validators)
	now := time.Now()
	var out []int
	for k := range n {
		if i := (e.rotor + 1 + k) % n; i != e.c.Index && !e.penalties.serves(i, now) {
			out = append(out, i)
		}
	}
	if len(out) > 0 {
		e.rotor = out[0]
	}
	return out
}

func (e *Engine) ask(ctx context.Context, to int, r request, timeout time.Duration) ([]byte, error) {
	return ask(ctx, e.c.Network, to, r, timeout)
}

// ask sends a request to a member and waits at most timeout. A nil answer says that the member does not hold it.
func ask(ctx context.Context, net Requester, to int, r request, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	b, err := net.Request(ctx, to, r.encode())
	if err != nil || isNothing(b) {
		return nil, err
	}
	return b, nil
}

// blame is penalise for goroutines other than the owner's.
func (e *Engine) blame(i int, reason string) {
	e.post(func() error { e.penalise(i, reason); return nil })
}

// fetch is one block being fetched.
type fetch struct{ cancel context.CancelFunc }

// fetch asks peers in turn for a block until one has it, each once; the machine calls again if none had. That may be because it
// is of an epoch that is over for so long that nobody keeps what this node lacks of it.
func (e *Engine) fetch(hash consensus.Hash) {
	if e.fetches[hash] != nil {
		return
	}
	if len(e.fetches) >= maxFetches {
		e.status.count(func(c *Counters) { c.DroppedFetch++ })
		return
	}
	ctx, cancel := context.WithCancel(e.ctx)
	f := &fetch{cancel}
	e.fetches[hash] = f
	peers, above := e.peers(), e.tip().Height+1
	e.spawn(func() {
		from, a, lacking := e.fetchFrom(ctx, peers, hash)
		behind := e.third(lacking)
		if behind {
			_, _, pruned := e.runFrom(ctx, peers, above)
			behind = e.third(pruned)
		}
		e.post(func() error {
			cancel()
			if e.fetches[hash] == f {
				delete(e.fetches, hash)
			}
			switch {
			case behind:
				return fatal(fmt.Sprintf("block %d", above), ErrBehind)
			case a.block.Header == nil:
				return nil
			}
			return e.step(simplex.BlockFetched{From: from, Block: a.block, Notarization: a.notarization})
		})
	})
}

// fetchFrom is the answer of the first peer that has a block. If none has, lacking is the power of those that say so.
func (e *Engine) fetchFrom(ctx context.Context, peers []int, hash consensus.Hash) (from int, a blockAnswer, lacking consensus.Power) {
	for _, to := range peers {
		b, err := e.ask(ctx, to, request{typ: typeGetBlock, hash: hash}, fetchTimeout)
		if ctx.Err() != nil {
			break
		}
		if err == nil && b == nil {
			lacking += e.c.Committee.Validators[to].Power
		}
		if err != nil || b == nil {
			continue
		}
		a, err := decodeBlockAnswer(b)
		if err == nil && a.block.Header.Hash() != hash {
			err = malformed("another block than the one asked for")
		}
		if err != nil {
			e.blame(to, err.Error())
			continue
		}
		return to, a, 0
	}
	return 0, blockAnswer{}, lacking
}

// third reports whether power is more than a third of the committee's, so that an honest member is in it.
func (e *Engine) third(power consensus.Power) bool { return 3*power > e.c.Committee.Total() }

func (e *Engine) cancelFetch(hash consensus.Hash) {
	if f := e.fetches[hash]; f != nil {
		f.cancel()
		delete(e.fetches, hash)
	}
}

// poll asks the next peer for its last finalization in this epoch, so that a node that hears nothing, or not enough, finds out
// how far the shard is: of a peer in a later epoch that is what ended this one. The machine judges the answer like any certificate.
func (e *Engine) poll() error {
	peers := e.peers()
	if e.polling || len(peers) == 0 {
		return nil
	}
	e.polling = true
	to := peers[0]
	e.spawn(func() {
		b, err := e.ask(e.ctx, to, request{typ: typeGetLatest, epoch: e.c.Committee.Epoch}, fetchTimeout)
		var f *consensus.FinalHeader
		if err == nil && b != nil {
			if f, err = decodeLatest(b); err != nil {
				e.blame(to, err.Error())
			}
		}
		e.post(func() error {
			e.polling = false
			if f == nil || f.Header.Height <= e.final.Height {
				return nil
			}
			return e.step(simplex.CertificateReceived{From: to, Cert: f.Cert})
		})
	})
	return nil
}

// verifier checks what members say about the finalised chain.
type verifier struct {
	chain     consensus.Hash
	committee *consensus.Committee
	keys      consensus.Keys
}

func (c *Config) verifier() verifier { return verifier{c.Chain, c.Committee, c.Keys} }

// certificate checks that cert is the committee's.
func (v verifier) certificate(cert *consensus.Certificate) error {
	if err := v.committee.VerifyCertificate(v.chain, v.keys, cert); err != nil {
		return fmt.Errorf("%w: %w", ErrWire, err)
	}
	return nil
}

// run checks a run that should continue the finalised chain of the committee's epoch at height from: heights and links, and
// the certificate. Echoes are right by the way they are decoded.
func (v verifier) run(r run, from consensus.Height) error {
	last, at := r.blocks[0].Header, from
	for i, n := 0, len(r.blocks)+len(r.links); i < n; i, at = i+1, at+1 {
		h := (*consensus.Header)(nil)
		if i < len(r.blocks) {
			h = r.blocks[i].Header
		} else {
			h = r.links[i-len(r.blocks)]
		}
		if h.Chain != v.chain || h.Shard != v.committee.Shard || h.Height != at || i > 0 && (h.Parent != last.Hash() || last.Ends()) {
			return malformed("run broken at height %d", at)
		}
		if h.Epoch != v.committee.Epoch || h.IsEcho() {
			return malformed("run with a block of another epoch, or an echo, at height %d", at)
		}
		last = h
	}
	if n := len(r.echoes); n > 0 {
		last = r.echoes[n-1]
	}
	want := consensus.Statement{Kind: consensus.Finalize, Shard: last.Shard, Epoch: last.Epoch, View: last.View, Block: last.Hash()}
	if r.cert.Statement != want {
		return malformed("run whose certificate is not for its end")
	}
	return v.certificate(&r.cert)
}
