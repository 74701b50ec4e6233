package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/engine"
	"tutti/netstack"
)

// handoverProtocol carries hand-overs to validators of the own shard that were away, and to those of other shards. A request is
// the epoch 8 that the first one leads out of, and how many to send at most 2; an answer is as many as there is room for, in
// order, each with its length 4 before it.
const handoverProtocol netstack.Protocol = "/tutti/handovers/2"

// handoversAsked is how many hand-overs an answer has at most.
const handoversAsked = 256

// serveHandovers answers the validators of the network.
func (n *Node) serveHandovers() {
	n.transport.Serve(handoverProtocol, func(_ context.Context, _ netstack.NodeID, request []byte) ([]byte, error) {
		return answerHandovers(request, func(from consensus.Epoch, limit int) ([]*proof.Handover, error) {
			list, err := n.epochs.Handovers(from, limit, handoversBytes)
			if err != nil {
				n.log.Error("a hand-over can not be read", "err", err)
				err = errors.New("hand-overs can not be read here")
			}
			return list, err
		})
	})
}

// answerHandovers answers a request out of what read has.
func answerHandovers(request []byte, read func(from consensus.Epoch, limit int) ([]*proof.Handover, error)) ([]byte, error) {
	if len(request) != 10 {
		return nil, errors.New("malformed request for hand-overs")
	}
	list, err := read(consensus.Epoch(binary.BigEndian.Uint64(request)), min(handoversAsked, int(binary.BigEndian.Uint16(request[8:]))))
	if err != nil {
		return nil, err
	}
	return appendHandovers(nil, list), nil
}

func appendHandovers(b []byte, list []*proof.Handover) []byte {
	for _, h := range list {
		at := len(b)
		b = h.Append(append(b, 0, 0, 0, 0))
		binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	}
	return b
}

// decodeHandovers decodes an answer. Nothing is verified.
func decodeHandovers(b []byte) (list []*proof.Handover, err error) {
	for len(b) > 0 {
		if len(list) == handoversAsked || len(b) < 4 {
			return nil, errors.New("malformed hand-overs: too many, or cut short")
		}
		n := int64(binary.BigEndian.Uint32(b))
		if n > int64(len(b)-4) {
			return nil, errors.New("malformed hand-overs: one is cut short")
		}
		h, err := proof.DecodeHandover(b[4 : 4+n])
		if err != nil {
			return nil, err
		}
		list, b = append(list, h), b[4+n:]
	}
	return list, nil
}

// handoverRequest asks for hand-overs.
func handoverRequest(from consensus.Epoch, limit int) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64(nil, uint64(from)), uint16(limit))
}

// trusted is a trust that was led to the newest epoch of the store, whose hand-overs were verified before they came there.
func (n *Node) trusted() (*proof.Trust, error) {
	t, err := proof.NewTrust(consensus.Hash(n.chain), n.committees, n.shardOf)
	newest := n.epochs.Newest()
	epoch := newest.Committee.Epoch
	if err != nil || epoch == n.committees[n.shard].Epoch {
		return t, err
	}
	at := proof.CheckpointShard{Shard: n.shard, Epoch: epoch, Committee: newest.Committee.Hash(), Height: newest.Start, Block: newest.Block}
	if err := t.Adopt(&proof.Checkpoint{Genesis: consensus.Hash(n.chain), Shards: []proof.CheckpointShard{at}}); err != nil {
		return nil, err
	}
	last, err := n.epochs.Handovers(epoch-1, 1, 1)
	if err != nil {
		return nil, err
	}
	return t, t.Advance(last[0])
}

// handovers asks the other validators for hand-overs beyond those of the store, verifies and stores them, until nobody has more. That
// nobody answers is no error here: what is asked next says so.
func (j *joining) handovers(ctx context.Context) error {
	if j.n.genesis.Parameters.EpochBlocks == 0 {
		return nil
	}
	for id, name := range j.names {
		for {
			from := j.n.epochs.Newest().Committee.Epoch
			b, err := j.transport.Request(ctx, id, handoverProtocol, handoverRequest(from, handoversAsked))
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil || len(b) == 0 {
				break
			}
			list, err := decodeHandovers(b)
			for i := 0; i < len(list) && err == nil; i++ {
				if err = j.trust.Advance(list[i]); err != nil {
					break
				}
				if err := j.n.epochs.Add(list[i]); err != nil {
					return err
				}
			}
			if err != nil {
				j.n.log.Warn("a validator sent a wrong hand-over", "validator", string(name), "what", err)
				break
			}
		}
	}
	return j.followNewest()
}

// following is the follower that state sync has its headers from.
func (j *joining) following() (*engine.Follower, consensus.Epoch) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.follower, j.epoch
}

// followNewest follows the newest epoch of the store.
func (j *joining) followNewest() error {
	newest := j.n.epochs.Newest().Committee.Epoch
	if f, epoch := j.following(); f != nil && epoch == newest {
		return nil
	}
	f, err := j.newFollower(newest, true)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.follower, j.epoch = f, newest
	return nil
}

// newFollower follows an epoch. With a seat it sets vote floors.
func (j *joining) newFollower(epoch consensus.Epoch, seat bool) (*engine.Follower, error) {
	t, err := j.n.epochs.Term(epoch)
	if err != nil {
		return nil, err
	}
	keys, err := consensus.NewKeys(t.Committee)
	if err != nil {
		return nil, err
	}
	c := engine.FollowerConfig{
		Chain: consensus.Hash(j.n.chain), Genesis: j.n.root, Committee: t.Committee, Keys: keys, Index: -1,
		Network: newCommitteeNetwork(j.transport, t.Committee),
	}
	if seat {
		c.Index, c.Later = j.n.seat(t.Committee), j.n.genesis.Parameters.EpochBlocks != 0
	}
	return engine.NewFollower(c), nil
}

// epochAt is the epoch of the final block at a height, as far as the store knows.
func (j *joining) epochAt(height consensus.Height) (consensus.Epoch, error) {
	epoch := j.n.epochs.Newest().Committee.Epoch
	for {
		t, err := j.n.epochs.Term(epoch)
		if err != nil || height > t.Start || epoch == j.n.committees[j.n.shard].Epoch {
			return epoch, err
		}
		epoch--
	}
}

// followerAt follows the epoch of a height: the present one's if it is that.
func (j *joining) followerAt(height consensus.Height) (*engine.Follower, error) {
	epoch, err := j.epochAt(height)
	if err != nil {
		return nil, err
	}
	if f, now := j.following(); now == epoch {
		return f, nil
	}
	return j.newFollower(epoch, false)
}

// adopt makes an empty log one that begins at a height: the floor of the present epoch, then the blocks of the height's.
func (j *joining) adopt(ctx context.Context, log *blocklog.Log, height consensus.Height) error {
	now, _ := j.following()
	f, err := j.followerAt(height)
	if err != nil {
		return err
	}
	if f != now {
		if err := now.Adopt(ctx, log, 0); err != nil {
			return err
		}
	}
	return f.Adopt(ctx, log, height)
}

// extend brings a log of this validator's up to a height, epoch by epoch.
func (j *joining) extend(ctx context.Context, log *blocklog.Log, height consensus.Height) error {
	for {
		final, _ := log.Final()
		if final >= height {
			f, err := j.followerAt(height)
			if err != nil {
				return err
			}
			return f.Extend(ctx, log, height)
		}
		f, err := j.followerAt(final + 1)
		if err != nil {
			return err
		}
		to := height
		if epoch, err := j.epochAt(final + 1); err != nil {
			return err
		} else if next, err := j.n.epochs.Term(epoch + 1); err == nil {
			to = min(to, next.Start)
		}
		if err := f.Extend(ctx, log, to); err != nil {
			return err
		}
	}
}

// middle gets the block that the committee after the newest epoch's is drawn from, if it lies below what the log begins with.
func (j *joining) middle(ctx context.Context, height consensus.Height) error {
	t := j.n.epochs.Newest()
	at, ends := j.n.genesis.EpochMiddle(t.Start)
	if _, known := j.n.epochs.Middle(t.Committee.Epoch); known || !ends || height < at {
		return nil
	}
	f, _ := j.following()
	if tip := f.Tip(); tip.Height < at {
		if _, err := f.Advance(ctx); err != nil {
			return err
		}
	}
	for to := f.Tip().Height; ; { // in parts: each is kept by the follower, and the next goes on below
		from := max(at, to-min(to, engine.MaxHeaders-1))
		hs, err := f.Headers(ctx, from, to)
		if err != nil {
			return fmt.Errorf("the block in the middle of epoch %d: %w", t.Committee.Epoch, err)
		}
		if from == at {
			return j.n.epochs.SetMiddle(t.Committee.Epoch, hs[0].Hash())
		}
		to = from
	}
}

// barred reports whether the vote log has a floor of a later epoch: then this node, which lost its votes, may have voted in any
// epoch before, and takes no part in those.
func barred(log *blocklog.Log, epoch consensus.Epoch) bool {
	for _, r := range slices.Backward(log.Records()) {
		if r.Floor != nil && r.Floor.Epoch > epoch {
			return true
		}
	}
	return false
}
