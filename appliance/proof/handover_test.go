package proof_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/state/tx"
)

// epochs is a chain of one shard over several epochs with the genesis' epoch 1: in each a block, one on top that nobody voted
// final, and the last, with so many echoes.
type epochs struct {
	net       *prooftest.Network
	handovers []*proof.Handover // [i] leads out of epoch 1+i
	blocks    [][]*proof.Block  // [i] of epoch 1+i, lowest first
}

func handOver(tb testing.TB, echoes ...int) *epochs {
	tb.Helper()
	e := &epochs{net: prooftest.New(tb, "epochs", 1)}
	n := e.net
	for i, k := range echoes {
		n.Add(0, []tx.Signed{n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, uint32(i))}, nil)
		first := n.Finalise(0)
		n.Add(0, nil, nil)
		h, rest := n.HandOver(0, k)
		e.handovers, e.blocks = append(e.handovers, h), append(e.blocks, append(first, rest...))
	}
	return e
}

// follow is a trust that was led over the first hand-overs.
func (e *epochs) follow(tb testing.TB, count int) *proof.Trust {
	tb.Helper()
	t := e.net.NewTrust()
	for i, h := range e.handovers[:count] {
		if err := t.Advance(copyHandover(tb, h)); err != nil {
			tb.Fatalf("hand-over %d: %v", i, err)
		}
	}
	return t
}

func copyHandover(tb testing.TB, h *proof.Handover) *proof.Handover {
	tb.Helper()
	out, err := proof.DecodeHandover(h.Append(nil))
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func copyFinal(tb testing.TB, f *proof.Final) *proof.Final {
	tb.Helper()
	out, err := proof.DecodeFinal(f.Append(nil))
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// TestHandover: a chain of hand-overs is followed with one signature check each, with and without echoes; then a block of any
// epoch verifies with one more, once its committee is brought back, which needs none.
func TestHandover(t *testing.T) {
	e := handOver(t, 0, 1, 3, 0, 2)
	trust := e.follow(t, 5)
	if got := trust.Newest(0); got != 6 || trust.Checks() != 5 {
		t.Errorf("followed to epoch %d with %d checks", got, trust.Checks())
	}
	for i, blocks := range e.blocks {
		epoch := consensus.Epoch(1 + i)
		for _, b := range blocks {
			_, err := b.Final.Verify(trust)
			var miss *proof.EpochError
			if errors.As(err, &miss) {
				if !errors.Is(err, proof.ErrEpoch) || *miss != (proof.EpochError{Epoch: epoch, From: epoch - 1}) || epoch == 1 || epoch == 5 {
					t.Fatalf("block of epoch %d: %v", epoch, err)
				}
				before := trust.Checks()
				if err := trust.Advance(e.handovers[i-1]); err != nil || trust.Checks() != before {
					t.Fatalf("committee of epoch %d again: %v, %d checks", epoch, err, trust.Checks()-before)
				}
				_, err = b.Final.Verify(trust)
			}
			if err != nil {
				t.Errorf("block %d of epoch %d: %v", b.Final.Header().Height, epoch, err)
			}
		}
		if last := blocks[len(blocks)-1].Final.Headers; len(last) != 1+len(e.handovers[i].End.Echoes) || last[0] != e.handovers[i].End.Last {
			t.Errorf("epoch %d ends with another block than its hand-over's", epoch)
		}
	}
	first := e.net.Add(0, nil, nil)
	if first.Height != e.handovers[4].End.Last.Height+1 || first.Parent != e.handovers[4].End.Last.Hash() || first.Epoch != 6 {
		t.Fatalf("the first block of epoch 6 is %+v", first)
	}
	if _, err := e.net.Finalise(0)[0].Verify(trust); err != nil {
		t.Error(err)
	}
	if _, _, err := trust.Committee(0, 7); !errors.Is(err, proof.ErrEpoch) {
		t.Errorf("of an epoch to come: %v", err)
	}
}

// TestHandoverRefused: whatever is changed in a hand-over, it is refused for its reason, and nothing is learned.
func TestHandoverRefused(t *testing.T) {
	e := handOver(t, 0, 1, 0)
	head := func(change func(*consensus.Header)) func(*proof.Handover) {
		return func(h *proof.Handover) { change(h.End.Last) }
	}
	echo := func(change func(*consensus.Header)) func(*proof.Handover) {
		return func(h *proof.Handover) { change(h.End.Echoes[0]) }
	}
	next := func(change func(c *consensus.Committee)) func(*proof.Handover) {
		return func(h *proof.Handover) { h.Next = changed(t, h.Next, change) }
	}
	type (
		H = *consensus.Header
		C = *consensus.Committee
	)
	for name, tc := range map[string]struct {
		change func(*proof.Handover)
		want   error
	}{
		"chain":          {head(func(h H) { h.Chain[0]++ }), proof.ErrGenesis},
		"shard":          {head(func(h H) { h.Shard++ }), proof.ErrNext},
		"epoch":          {head(func(h H) { h.Epoch++ }), proof.ErrNext},
		"view":           {head(func(h H) { h.View++ }), consensus.ErrEnd},
		"height":         {head(func(h H) { h.Height++ }), consensus.ErrEnd},
		"time":           {head(func(h H) { h.TimeMs++ }), consensus.ErrEnd},
		"parent":         {head(func(h H) { h.Parent[0]++ }), consensus.ErrEnd},
		"body":           {head(func(h H) { h.Body.Root[0]++ }), consensus.ErrEnd},
		"outcomes":       {head(func(h H) { h.Outcomes[0]++ }), consensus.ErrEnd},
		"links":          {head(func(h H) { h.Links = []consensus.Link{{Shard: 1}} }), consensus.ErrEnd},
		"state":          {head(func(h H) { h.State[0]++ }), consensus.ErrEnd},
		"diff":           {head(func(h H) { h.Diff[0]++ }), consensus.ErrEnd},
		"committee":      {head(func(h H) { h.Committee[0]++ }), consensus.ErrEnd},
		"next committee": {head(func(h H) { h.NextCommittee[0]++ }), proof.ErrNext},
		"not the last":   {head(func(h H) { h.NextCommittee = h.Committee }), proof.ErrNotLast},

		"echo's chain":     {echo(func(h H) { h.Chain[0]++ }), consensus.ErrEnd},
		"echo's shard":     {echo(func(h H) { h.Shard++ }), consensus.ErrEnd},
		"echo's epoch":     {echo(func(h H) { h.Epoch++ }), consensus.ErrEnd},
		"echo's view":      {echo(func(h H) { h.View++ }), consensus.ErrEnd},
		"echo's height":    {echo(func(h H) { h.Height++ }), consensus.ErrEnd},
		"echo's time":      {echo(func(h H) { h.TimeMs++ }), consensus.ErrEnd},
		"echo's parent":    {echo(func(h H) { h.Parent[0]++ }), consensus.ErrEnd},
		"echo's body":      {echo(func(h H) { h.Body = consensus.NewBodyRef(nil) }), consensus.ErrEnd},
		"echo's outcomes":  {echo(func(h H) { h.Outcomes[0]++ }), consensus.ErrEnd},
		"echo's links":     {echo(func(h H) { h.Links = []consensus.Link{{Shard: 1}} }), consensus.ErrEnd},
		"echo's state":     {echo(func(h H) { h.State[0]++ }), consensus.ErrEnd},
		"echo's diff":      {echo(func(h H) { h.Diff[0]++ }), consensus.ErrEnd},
		"echo's committee": {echo(func(h H) { h.Committee[0]++ }), consensus.ErrEnd},
		"echo's next":      {echo(func(h H) { h.NextCommittee[0]++ }), consensus.ErrEnd},
		"echo missing":     {func(h *proof.Handover) { h.End.Echoes = nil }, proof.ErrCertificate},
		"the echo's":       {func(h *proof.Handover) { h.End.Last, h.End.Echoes = h.End.Echoes[0], nil }, proof.ErrEcho},

		"notarized only":    {func(h *proof.Handover) { h.End.Cert.Kind = consensus.Notarize }, proof.ErrCertificate},
		"cert's shard":      {func(h *proof.Handover) { h.End.Cert.Shard++ }, proof.ErrCertificate},
		"cert's epoch":      {func(h *proof.Handover) { h.End.Cert.Epoch++ }, proof.ErrCertificate},
		"cert's view":       {func(h *proof.Handover) { h.End.Cert.View++ }, proof.ErrCertificate},
		"cert's block":      {func(h *proof.Handover) { h.End.Cert.Block = h.End.Last.Hash() }, proof.ErrCertificate},
		"no quorum":         {func(h *proof.Handover) { h.End.Cert.Signers[0] = 0b11 }, consensus.ErrNoQuorum},
		"other signers":     {func(h *proof.Handover) { h.End.Cert.Signers[0] = 0b1111 }, consensus.ErrBadSignature},
		"signature":         {func(h *proof.Handover) { h.End.Cert.Signature[50]++ }, consensus.ErrBadSignature},
		"another's seed":    {next(func(c C) { c.Seed[0]++ }), proof.ErrNext},
		"another's shard":   {next(func(c C) { c.Shard++ }), proof.ErrNext},
		"another's epoch":   {next(func(c C) { c.Epoch++ }), proof.ErrNext},
		"another's key":     {next(func(c C) { c.Validators[3].Key = e.handovers[0].Next.Validators[1].Key; c.Validators[1].Key[0] = 0 }), proof.ErrNext},
		"another's node":    {next(func(c C) { c.Validators[3].Node[0]++ }), proof.ErrNext},
		"another's power":   {next(func(c C) { c.Validators[0].Power++ }), proof.ErrNext},
		"seats in disorder": {next(func(c C) { c.Validators[0], c.Validators[1] = c.Validators[1], c.Validators[0] }), proof.ErrNext},
		"a seat less":       {next(func(c C) { c.Validators = c.Validators[:3] }), proof.ErrNext},
		"the same again":    {func(h *proof.Handover) { h.Next = e.handovers[0].Next }, proof.ErrNext},
	} {
		t.Run(name, func(t *testing.T) {
			trust := e.follow(t, 1)
			h := copyHandover(t, e.handovers[1])
			tc.change(h)
			if err := trust.Advance(h); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if trust.Newest(0) != 2 {
				t.Error("the epoch was taken all the same")
			}
		})
	}
	t.Run("skipped", func(t *testing.T) {
		var miss *proof.EpochError
		if err := e.follow(t, 1).Advance(e.handovers[2]); !errors.As(err, &miss) || *miss != (proof.EpochError{Epoch: 3, From: 2}) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another network", func(t *testing.T) {
		if err := prooftest.New(t, "other", 1).Trust.Advance(e.handovers[0]); !errors.Is(err, proof.ErrGenesis) {
			t.Errorf("got %v", err)
		}
	})
}

// changed is a committee with something changed in it.
func changed(tb testing.TB, c *consensus.Committee, change func(*consensus.Committee)) *consensus.Committee {
	tb.Helper()
	x := &consensus.Committee{Shard: c.Shard, Epoch: c.Epoch, Seed: c.Seed, Validators: slices.Clone(c.Validators)}
	change(x)
	out, err := consensus.NewCommittee(x.Shard, x.Epoch, x.Seed, x.Validators)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// TestHandoverSigned: what a committee must not sign is refused even if it did.
func TestHandoverSigned(t *testing.T) {
	e := handOver(t, 0, 0)
	forge := func(t *testing.T, change func(h *consensus.Header, next **consensus.Committee)) *proof.Handover {
		h := copyHandover(t, e.handovers[1])
		b := h.End.Last
		change(b, &h.Next)
		h.End.Cert = e.net.Certify(0, b)
		return h
	}
	named := func(edit func(*consensus.Committee)) func(*consensus.Header, **consensus.Committee) {
		return func(h *consensus.Header, next **consensus.Committee) {
			*next = changed(t, *next, edit)
			h.NextCommittee = (*next).Hash()
		}
	}
	for name, tc := range map[string]struct {
		change func(*consensus.Header, **consensus.Committee)
		want   error
	}{
		"another committee":        {named(func(c *consensus.Committee) { c.Seed[0]++ }), nil},
		"of another shard":         {named(func(c *consensus.Committee) { c.Shard++ }), proof.ErrNext},
		"an epoch too far":         {named(func(c *consensus.Committee) { c.Epoch++ }), proof.ErrNext},
		"of the same epoch":        {named(func(c *consensus.Committee) { c.Epoch-- }), proof.ErrNext},
		"a key that is no point":   {named(func(c *consensus.Committee) { c.Validators[2].Key[5]++ }), proof.ErrNext},
		"before the epoch began":   {func(h *consensus.Header, _ **consensus.Committee) { h.Height = 3 }, proof.ErrFollowed},
		"beside the epoch's begin": {func(h *consensus.Header, _ **consensus.Committee) { h.Height = 4 }, proof.ErrFollowed},
	} {
		t.Run(name, func(t *testing.T) {
			if err := e.follow(t, 1).Advance(forge(t, tc.change)); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	t.Run("another end than the one followed", func(t *testing.T) {
		trust := e.follow(t, 2)
		if err := trust.Advance(forge(t, named(func(c *consensus.Committee) { c.Seed[0]++ }))); !errors.Is(err, proof.ErrFollowed) {
			t.Errorf("another committee: %v", err)
		}
		if err := trust.Advance(forge(t, func(h *consensus.Header, _ **consensus.Committee) { h.TimeMs++ })); !errors.Is(err, proof.ErrFollowed) {
			t.Errorf("another block: %v", err)
		}
	})
	t.Run("by the committee before", func(t *testing.T) {
		h := copyHandover(t, e.handovers[1])
		b := *h.End.Last
		b.Epoch = 1
		h.End.Cert = e.net.Certify(0, &b)
		h.End.Cert.Statement = e.handovers[1].End.Cert.Statement
		if err := e.follow(t, 1).Advance(h); !errors.Is(err, proof.ErrCertificate) {
			t.Errorf("got %v", err)
		}
	})
}

// TestEpochs: which headers prove what, around the end of an epoch.
func TestEpochs(t *testing.T) {
	e := handOver(t, 2, 0)
	n, blocks := e.net, e.blocks[0] // 1, then 2 and the last, 3, by the second echo
	b, second := e.handovers[0].End.Last, e.blocks[1][0].Final.Header()
	below := blocks[1].Final
	signed := func(hs ...*consensus.Header) func() *proof.Final {
		return func() *proof.Final { return &proof.Final{Headers: hs, Cert: n.Certify(0, hs[len(hs)-1])} }
	}
	child := func(of *consensus.Header, change func(*consensus.Header)) *consensus.Header {
		h := *of
		h.Parent, h.Height, h.TimeMs, h.View = of.Hash(), of.Height+1, of.TimeMs+1, of.View+1
		change(&h)
		return &h
	}
	mute := func(h *consensus.Header) { h.Body = consensus.BodyRef{Codec: consensus.CodecNone} }
	none := func(*consensus.Header) {}
	for name, tc := range map[string]struct {
		final func() *proof.Final
		known int // hand-overs followed
		want  error
	}{
		"a block by echoes":              {func() *proof.Final { return &below }, 0, nil},
		"the same once the end is known": {func() *proof.Final { return &below }, 2, nil},
		"the last block by echoes":       {func() *proof.Final { return &blocks[2].Final }, 1, nil},
		"the last block by itself":       {signed(b), 1, nil},
		"an echo": {func() *proof.Final {
			return &proof.Final{Headers: below.Headers[2:], Cert: below.Cert}
		}, 0, proof.ErrEcho},
		"the second echo": {func() *proof.Final {
			return &proof.Final{Headers: below.Headers[3:], Cert: below.Cert}
		}, 0, proof.ErrEcho},
		"a gap above a block":               {signed(blocks[0].Final.Header(), b), 0, proof.ErrChain},
		"a block after the last":            {signed(b, child(b, none)), 0, proof.ErrChain},
		"a block after an echo":             {signed(b, child(b, mute), child(child(b, mute), func(h *consensus.Header) { h.Body = b.Body })), 0, proof.ErrChain},
		"an echo that ends it otherwise":    {signed(b, child(b, func(h *consensus.Header) { mute(h); h.NextCommittee[0]++ })), 0, proof.ErrChain},
		"an echo of another state":          {signed(b, child(b, func(h *consensus.Header) { mute(h); h.State[0]++ })), 0, proof.ErrChain},
		"an echo in the middle":             {signed(blocks[0].Final.Header(), child(blocks[0].Final.Header(), mute)), 0, proof.ErrChain},
		"another last block, unknown":       {signed(child(b, none)), 0, nil},
		"another last block":                {signed(child(b, none)), 1, proof.ErrFollowed},
		"another of the same height":        {signed(child(below.Headers[0], func(h *consensus.Header) { h.NextCommittee[0]++ })), 1, proof.ErrFollowed},
		"a block above the last":            {signed(child(b, func(h *consensus.Header) { h.NextCommittee = h.Committee })), 1, proof.ErrFollowed},
		"a block of the height of the last": {signed(child(below.Headers[0], none)), 1, proof.ErrFollowed},
		"the next epoch's first block":      {func() *proof.Final { return &e.blocks[1][0].Final }, 1, nil},
		"of the next epoch, unknown":        {func() *proof.Final { return &e.blocks[1][0].Final }, 0, proof.ErrEpoch},
		"of another parent": {signed(func() *consensus.Header {
			h := *second
			h.Parent[0]++
			return &h
		}()), 1, proof.ErrFollowed},
		"too low": {signed(func() *consensus.Header {
			h := *second
			h.Height--
			return &h
		}()), 1, proof.ErrFollowed},
		"through the next epoch": {func() *proof.Final {
			return &proof.Final{Headers: []*consensus.Header{b, second}, Cert: e.blocks[1][0].Final.Cert}
		}, 1, proof.ErrChain},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := copyFinal(t, tc.final()).Verify(e.follow(t, tc.known)); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestBounds: however many epochs there are, a Trust keeps few committees and a bounded number of records.
func TestBounds(t *testing.T) {
	e := handOver(t, make([]int, 40)...)
	trust := e.net.NewTrust()
	trust.SetLimit(30)
	for _, h := range e.handovers {
		if err := trust.Advance(h); err != nil {
			t.Fatal(err)
		}
	}
	var miss *proof.EpochError
	if _, err := e.blocks[5][0].Final.Verify(trust); !errors.As(err, &miss) || !miss.Lost || miss.From != 12 || !strings.Contains(err.Error(), "from the genesis file again") {
		t.Errorf("a block of an epoch that is forgotten: %v", err)
	}
	if err := trust.Advance(e.handovers[5]); !errors.Is(err, proof.ErrEpoch) {
		t.Errorf("a hand-over of an epoch that is forgotten: %v", err)
	}
	if _, err := e.blocks[0][0].Final.Verify(trust); err != nil {
		t.Errorf("a block of the genesis' epoch: %v", err)
	}
	for range 2 {
		for i, h := range e.handovers[12:] {
			if err := trust.Advance(h); err != nil {
				t.Fatal(err)
			}
			if i+13 < len(e.blocks) {
				if _, err := e.blocks[i+13][0].Final.Verify(trust); err != nil {
					t.Errorf("block of epoch %d: %v", i+14, err)
				}
			}
			if trust.Held() > proof.MostHeld {
				t.Fatalf("%d committees kept", trust.Held())
			}
		}
	}
}

// TestBegin: a chain begins anew with a committee above all that is known, and goes on from there.
func TestBegin(t *testing.T) {
	net := prooftest.New(t, "begin", 2)
	var steps []*proof.Handover
	var blocks []*proof.Block
	for range 6 {
		h, b := net.HandOver(0, 1)
		steps, blocks = append(steps, h), append(blocks, b...)
	}
	trust := net.NewTrust()
	if err := trust.Advance(steps[0]); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*consensus.Committee{"known": steps[0].Next, "the genesis'": net.Committees[0]} {
		if err := trust.Begin(c); !errors.Is(err, proof.ErrFollowed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	third, err := consensus.NewCommittee(2, 5, consensus.Hash{}, steps[0].Next.Validators)
	if err != nil {
		t.Fatal(err)
	}
	if err := trust.Begin(third); !errors.Is(err, proof.ErrShard) {
		t.Errorf("a shard that there is not: %v", err)
	}
	if err := trust.Begin(steps[3].Next); err != nil {
		t.Fatal(err)
	}
	for i, b := range blocks {
		_, err := b.Final.Verify(trust)
		var miss *proof.EpochError
		if known := i == 0 || i == 4; known != (err == nil) || err != nil && (!errors.As(err, &miss) || miss.Lost != (i < 4)) {
			t.Errorf("a block of epoch %d: %v", b.Final.Header().Epoch, err)
		}
	}
	if err := trust.Advance(steps[4]); err != nil || trust.Newest(0) != steps[4].Next.Epoch {
		t.Errorf("going on: %v, epoch %d", err, trust.Newest(0))
	}
}

func TestCheckpoint(t *testing.T) {
	e := handOver(t, 0, 1, 0, 0)
	led := e.follow(t, 4)
	c := e.follow(t, 2).Checkpoint()
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "checkpoint.json", append(b, '\n'))
	read, err := proof.DecodeCheckpoint(b)
	if err != nil || cmp.Diff(read, c) != "" {
		t.Fatalf("read back as %+v, %v", read, err)
	}
	trust := e.net.NewTrust()
	if err := trust.Adopt(read); err != nil {
		t.Fatal(err)
	}
	var miss *proof.EpochError
	if err := trust.Advance(e.handovers[2]); !errors.As(err, &miss) || *miss != (proof.EpochError{Epoch: 3, From: 2}) {
		t.Errorf("without the checkpoint's committee: %v", err)
	}
	for i, h := range e.handovers[1:] {
		if err := trust.Advance(h); err != nil {
			t.Fatalf("hand-over %d: %v", i, err)
		}
	}
	if trust.Checks() != 2 || cmp.Diff(trust.Checkpoint(), led.Checkpoint()) != "" {
		t.Errorf("from the checkpoint with %d checks to %+v", trust.Checks(), trust.Checkpoint())
	}
	if _, err := e.blocks[1][0].Final.Verify(trust); !errors.As(err, &miss) || !miss.Lost {
		t.Errorf("a block before the checkpoint: %v", err)
	}
	if _, err := e.blocks[0][0].Final.Verify(trust); err != nil {
		t.Errorf("a block of the genesis' epoch: %v", err)
	}
	if err := led.Check(read); err != nil {
		t.Errorf("a checkpoint on the way: %v", err)
	}
	if err := e.net.Trust.Check(read); !errors.Is(err, proof.ErrEpoch) {
		t.Errorf("a checkpoint ahead: %v", err)
	}
	if err := led.Adopt(read); err == nil {
		t.Error("a checkpoint is taken where hand-overs were followed")
	}
	if err := e.net.NewTrust().Adopt(e.net.NewTrust().Checkpoint()); err != nil {
		t.Errorf("the genesis' own checkpoint: %v", err)
	}
	for name, change := range map[string]func(*proof.Checkpoint){
		"committee": func(c *proof.Checkpoint) { c.Shards[0].Committee[0]++ },
		"height":    func(c *proof.Checkpoint) { c.Shards[0].Height++ },
		"block":     func(c *proof.Checkpoint) { c.Shards[0].Block[0]++ },
	} {
		bad, err := proof.DecodeCheckpoint(b)
		if err != nil {
			t.Fatal(err)
		}
		change(bad)
		if err := led.Check(bad); !errors.Is(err, proof.ErrFollowed) {
			t.Errorf("another %s: %v", name, err)
		}
		trust := e.net.NewTrust()
		if err := trust.Adopt(bad); err != nil {
			t.Fatal(err)
		}
		if err := trust.Advance(e.handovers[1]); !errors.Is(err, proof.ErrFollowed) {
			t.Errorf("from another %s: %v", name, err)
		}
	}
	for name, tc := range map[string]struct {
		change func(*proof.Checkpoint)
		want   error
	}{
		"another network":   {func(c *proof.Checkpoint) { c.Genesis[0]++ }, proof.ErrGenesis},
		"another shard":     {func(c *proof.Checkpoint) { c.Shards[0].Shard = 9 }, proof.ErrShard},
		"another genesis":   {func(c *proof.Checkpoint) { c.Shards[0].Epoch = 1 }, proof.ErrFollowed},
		"below the genesis": {func(c *proof.Checkpoint) { c.Shards[0].Epoch = 0 }, proof.ErrFollowed},
	} {
		bad := *read
		bad.Shards = slices.Clone(read.Shards)
		tc.change(&bad)
		if err := e.net.NewTrust().Adopt(&bad); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string][2]string{
		"format": {"tutti-checkpoint/1", "tutti-checkpoint/2"}, "unknown": {`"epoch"`, `"note": "", "epoch"`}, "no epoch": {`"epoch": 3`, `"epoch": -1`},
		"epoch too high": {`"epoch": 3`, `"epoch": 9223372036854775807`}, "height without block": {`"height": 6`, `"height": 0`},
		"no shards": {`"shards": [`, `"shards": [], "x": [`}, "shard twice": {`"shards": [`, `"shards": [` + fmt.Sprintf(`{"shard":0,"epoch":1,"committee":"%064x","height":0,"block":"%064x"},`, 1, 0)},
	} {
		bad := bytes.Replace(b, []byte(change[0]), []byte(change[1]), 1)
		if _, err := proof.DecodeCheckpoint(bad); !errors.Is(err, proof.ErrMalformed) || bytes.Equal(bad, b) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestState: what a Trust has learned survives a file.
func TestState(t *testing.T) {
	e := handOver(t, 0, 1, 0, 0, 0)
	led := e.follow(t, 5)
	if err := led.Advance(e.handovers[1]); err != nil { // an old committee, brought back
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(led.State(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "light.json", append(b, '\n'))
	s, err := proof.DecodeState(b)
	if err != nil {
		t.Fatal(err)
	}
	trust := e.net.NewTrust()
	if err := trust.Restore(s); err != nil {
		t.Fatal(err)
	}
	again, err := json.MarshalIndent(trust.State(), "", "  ")
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("%v, or another state: %s", err, again)
	}
	for i, known := range []bool{true, false, true, false, true} {
		if _, err := e.blocks[i][0].Final.Verify(trust); known != (err == nil) || !known && !errors.Is(err, proof.ErrEpoch) {
			t.Errorf("a block of epoch %d: %v", 1+i, err)
		}
	}
	if err := trust.Restore(s); err == nil {
		t.Error("a state is taken where hand-overs were followed")
	}
	if err := prooftest.New(t, "other", 1).Trust.Restore(s); !errors.Is(err, proof.ErrGenesis) {
		t.Errorf("another network's state: %v", err)
	}
	for name, change := range map[string]func(map[string]any){
		"format":            func(m map[string]any) { m["format"] = "tutti-light/2" },
		"no records":        func(m map[string]any) { shardOf(m)["records"] = "" },
		"a cut record":      func(m map[string]any) { shardOf(m)["records"] = shardOf(m)["records"].(string)[2:] },
		"heights disorder":  func(m map[string]any) { r := shardOf(m)["records"].(string); shardOf(m)["records"] = r + r[144:288] },
		"other first epoch": func(m map[string]any) { shardOf(m)["first"] = 2 },
		"epoch too high":    func(m map[string]any) { shardOf(m)["first"] = uint64(1) << 63 },
		"other committee": func(m map[string]any) {
			shardOf(m)["committees"] = []string{hex.EncodeToString(e.net.Committees[0].Append(nil))[2:]}
		},
		"too many committees": func(m map[string]any) {
			shardOf(m)["committees"] = slices.Repeat(shardOf(m)["committees"].([]any)[:1], proof.MostHeld+1)
		},
	} {
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		bad, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := proof.DecodeState(bad); !errors.Is(err, proof.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func shardOf(m map[string]any) map[string]any { return m["shards"].([]any)[0].(map[string]any) }

func TestHandoverEncoding(t *testing.T) {
	e := handOver(t, 1)
	enc := e.handovers[0].Append(nil)
	golden(t, "handover.hex", []byte(hex.EncodeToString(enc)+"\n"))
	if got := copyHandover(t, e.handovers[0]).Append(nil); !bytes.Equal(got, enc) {
		t.Error("encoding is not stable")
	}
	for cut := range len(enc) {
		if _, err := proof.DecodeHandover(enc[:cut]); !errors.Is(err, proof.ErrMalformed) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	if _, err := proof.DecodeHandover(append(bytes.Clone(enc), 0)); !errors.Is(err, proof.ErrMalformed) {
		t.Errorf("with a byte more: %v", err)
	}
}

func FuzzDecodeHandover(f *testing.F) {
	e := handOver(f, 0, 2)
	for _, h := range e.handovers {
		f.Add(h.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := proof.DecodeHandover(b)
		if err != nil {
			return
		}
		if !bytes.Equal(h.Append(nil), b) {
			t.Error("a second encoding of the same hand-over")
		}
		_ = e.net.NewTrust().Advance(h) // must not panic
	})
}

func FuzzDecodeCheckpoint(f *testing.F) {
	e := handOver(f, 0)
	for k := range 2 {
		b, err := json.Marshal(e.follow(f, k).Checkpoint())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := proof.DecodeCheckpoint(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := proof.DecodeCheckpoint(again); err != nil || cmp.Diff(c, d) != "" {
			t.Errorf("%+v became %+v, %v", c, d, err)
		}
		trust := e.net.NewTrust()
		if trust.Adopt(c) == nil { // must not panic, and agree with itself
			if err := trust.Check(c); err != nil {
				t.Error(err)
			}
			_ = trust.Advance(e.handovers[0])
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	e := handOver(f, 0, 0)
	for k := range 3 {
		b, err := json.Marshal(e.follow(f, k).State())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := proof.DecodeState(b)
		if err != nil {
			return
		}
		trust := e.net.NewTrust()
		if trust.Restore(s) != nil {
			return
		}
		for _, h := range e.handovers { // must not panic
			_ = trust.Advance(h)
		}
		if b, err := json.Marshal(trust.State()); err != nil {
			t.Error(err)
		} else if _, err := proof.DecodeState(b); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkAdvance is a light client's cost of an epoch.
func BenchmarkAdvance(b *testing.B) {
	for _, seats := range []int{4, 100} {
		b.Run(fmt.Sprint(seats), func(b *testing.B) {
			n := prooftest.NewOf(b, "benchmark", 1, seats)
			first, _ := n.HandOver(0, 0)
			second, _ := n.HandOver(0, 0)
			for b.Loop() {
				b.StopTimer()
				t := n.NewTrust()
				if err := t.Advance(first); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := t.Advance(second); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
