package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/receipt"
	"tutti/state/tx"
)

// knownMeta is the counters of a shard whose first channel knows k.
func knownMeta(p *Params, k Known) *Meta {
	m := genesisMeta(p)
	m.Height = 9
	c := &m.Channels[0]
	c.Sent, c.Received = c.Sent.Append(make([][32]byte, 3)), c.Received.Append(make([][32]byte, 2))
	c.Acked, c.Outflow, c.Inflow, c.Known, c.HeaderHeight = 1, 20, 30, k, 77
	return m
}

// TestGoldenChannels pins the encoding of what a channel knows. Without a committee above the genesis' it is what it was.
func TestGoldenChannels(t *testing.T) {
	p := testParams(t, 1, 3, 10)
	p.Table = PartitionTable{{First: 0, Log2: 0, Shard: 0}, {First: 1, Log2: 0, Shard: 1}, {First: 2, Log2: 0, Shard: 2}}
	parts := []partition{{number: 1}}
	encode := func(k Known) []byte { return knownMeta(&p, k).append(nil, parts) }
	var b strings.Builder
	var sizes []int
	for _, k := range []Known{{}, {Epoch: 1}, {5, blockName(5)}, {MaxEpoch - 1, tx.Hash{31: 1}}} {
		enc := encode(k)
		fmt.Fprintf(&b, "known %d %v: hash %v\n  %x\n", k.Epoch, k.Committee, metaHash(enc), enc)
		m, rest, err := readMeta(enc, genesisMeta(&p), parts)
		if err != nil || len(rest) > 0 || m.Channels[0].Known != k || m.Channels[0].HeaderHeight != 77 || m.Channels[1].Known != (Known{}) {
			t.Errorf("%+v comes back as %+v, %v", k, m, err)
		}
		sizes = append(sizes, len(enc))
	}
	if sizes[0] != sizes[1] || sizes[2] != sizes[0]+32 || sizes[3] != sizes[2] {
		t.Errorf("sizes %v", sizes)
	}
	golden(t, "channels.golden", b.String())

	c := blockName(4)
	noCommittee := bytes.Replace(encode(Known{4, c}), c[:], make([]byte, 32), 1)
	for name, enc := range map[string][]byte{"a committee in epoch 0": encode(Known{0, c}), "no committee where it says that there is one": noCommittee} {
		if _, _, err := readMeta(enc, genesisMeta(&p), parts); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestChannelFollowsEpochs: a proof is judged by what the parent's channel knows, final or not, and what it shows is known after.
func TestChannelFollowsEpochs(t *testing.T) {
	p := testParams(t, 0, 2, 10)
	o := testOptions(p, 10)
	o.FS = vfs.NewMem()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	committee := func(e uint64) tx.Hash { return blockName(100 + e) }
	// bundle brings nothing but a header at a height, whose proof begins with from and shows to.
	bundle := func(from, to Known, height uint64) tx.Bundle {
		h := ForeignHeader{Shard: 1, Known: to, Height: height, Links: []Link{{Shard: 0, Root: receipt.Range{}.Root()}}}
		return tx.Bundle{Source: 1, Proof: fakeProofFrom(h, &from)}
	}
	parent, at := p.GenesisBlock, Known{}
	for h, next := range []Known{{}, {1, committee(1)}, {1, committee(1)}, {9, committee(9)}, {12, committee(12)}} {
		height := uint64(h + 1)
		refused := map[string]tx.Bundle{
			"begins with another committee": bundle(Known{at.Epoch, committee(77)}, Known{at.Epoch + 1, committee(3)}, 50),
			"begins with another epoch":     bundle(Known{at.Epoch + 1, at.Committee}, Known{at.Epoch + 2, committee(3)}, 50),
			"another committee now":         bundle(at, Known{at.Epoch, committee(77)}, 50),
			"epochs that there are not":     bundle(at, Known{MaxEpoch, committee(3)}, 50),
		}
		if at.Epoch > 0 {
			refused["the genesis' committee again"] = bundle(at, Known{Epoch: at.Epoch + 1}, 50)
			refused["the same committee an epoch later"] = bundle(at, Known{at.Epoch + 1, at.Committee}, 50)
			refused["an epoch before"] = bundle(at, Known{at.Epoch - 1, committee(at.Epoch - 1)}, 50)
			refused["a header before"] = bundle(at, at, uint64(h)-1)
			refused["a header before, in a later epoch's proof"] = bundle(Known{}, at, 50)
		}
		for name, u := range refused {
			built, err := l.Build(context.Background(), BuildInput{Parent: parent, Height: height, Bundles: []tx.Bundle{u}, MaxBytes: 1 << 20, MaxTxs: 1})
			if err != nil || built.LeftBundles[0] == nil {
				t.Errorf("block %d: %s: taken in, %v", height, name, err)
			}
			body := tx.Body{Bundles: []tx.Bundle{u}}
			in := ExecuteInput{Parent: parent, Block: blockName(50), Height: height, Body: body.Append(nil), Want: built.Commitments}
			if _, err := l.Execute(context.Background(), in); !errors.Is(err, ErrInvalidBody) {
				t.Errorf("block %d: %s: executed, %v", height, name, err)
			}
		}
		step(t, l, parent, height, blockName(height), nil, bundle(at, next, height))
		parent, at = blockName(height), next
		cs, err := l.Channels(parent, height)
		if err != nil || cs[0].Known != at || cs[0].HeaderHeight != height {
			t.Fatalf("block %d: the channel knows %+v, %v", height, cs, err)
		}
	}
	if m := l.Meta(); m.Channels[0].Known != (Known{}) {
		t.Errorf("nothing is final, and the final state knows %+v", m.Channels[0].Known)
	}
	if _, err := l.Channels(blockName(99), 5); !errors.Is(err, ErrUnknownParent) {
		t.Errorf("channels after a block that there is not: %v", err)
	}
	for height := range uint64(5) {
		finalise(t, l, blockName(height+1))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o.Create = false
	if m := mustOpen(t, o).Meta(); m.Channels[0].Known != at {
		t.Errorf("after a start the channel knows %+v", m.Channels[0].Known)
	}
}
