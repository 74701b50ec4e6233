package client_test

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/state/tx"
)

// light is a client that begins with the genesis, and what it says of nodes.
type light struct {
	*client.Client
	trouble map[string][]error
}

func lightClient(t *testing.T, n *prooftest.Network, trust *proof.Trust, urls ...string) *light {
	t.Helper()
	if trust == nil {
		trust = n.NewTrust()
	}
	l := &light{trouble: map[string][]error{}}
	var err error
	l.Client, err = client.New(client.Options{
		URLs: urls, Trust: trust, CallTimeout: 2 * time.Second, Rounds: 1,
		Trouble: func(url string, err error) { l.trouble[url] = append(l.trouble[url], err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// epochs makes the nodes know a block of each epoch and the hand-overs between them.
func epochs(n *prooftest.Network, count int, nodes ...*node) {
	for i := range count {
		n.Add(0, []tx.Signed{n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, uint32(i))}, nil)
		h, blocks := n.HandOver(0, i%3)
		for _, at := range nodes {
			at.Append(blocks...)
			at.AddHandovers(h)
		}
	}
}

// TestLightFollows: a proof of a later epoch makes the client follow, one signature check for each hand-over and one for the
// proof; what it knows already costs nothing, and an old epoch's committee one fetch and no check.
func TestLightFollows(t *testing.T) {
	n := prooftest.New(t, "light", 1)
	at := serve(t, n, 0, nil)
	epochs(n, 30, at)
	c := lightClient(t, n, nil, at.url)
	checks := func(want uint64, what string, do func() error) {
		t.Helper()
		before := c.Trust().Checks()
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := c.Trust().Checks() - before; got != want {
			t.Errorf("%s: %d signature checks, want %d", what, got, want)
		}
	}
	block := func(h consensus.Height) func() error {
		return func() error { _, err := c.Block(t.Context(), 0, h); return err }
	}
	checks(20+1, "a block of epoch 21", block(41)) // two blocks an epoch, the first epoch is 1
	checks(1, "another", block(42))
	checks(1, "of epoch 10 again", block(19))
	checks(1, "of the genesis' epoch", block(1))
	saved, err := c.Trust().State().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	checks(10, "to the end", func() error { return c.Sync(t.Context(), 0, nil) })
	checks(0, "to the end again", func() error { return c.Sync(t.Context(), 0, nil) })
	id := n.ID(n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, 25))
	checks(1, "a transaction's", func() error { _, _, err := c.Proof(t.Context(), id); return err })
	if c.Trust().Newest(0) != 31 || len(c.trouble) > 0 {
		t.Errorf("at epoch %d, trouble %v", c.Trust().Newest(0), c.trouble)
	}
	var seen []consensus.Height
	err = lightClient(t, n, nil, at.url).Follow(t.Context(), client.FollowOptions{From: 1, Body: true}, func(e client.Event) error {
		if seen = append(seen, e.Header.Height); e.Header.Height == 60 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || !slices.Equal(seen, upTo(1, 60)) {
		t.Errorf("followed %v, %v", seen, err)
	}
	state, err := proof.DecodeState(saved)
	if err != nil {
		t.Fatal(err)
	}
	trust := n.NewTrust()
	if err := trust.Restore(state); err != nil {
		t.Fatal(err)
	}
	if err := lightClient(t, n, trust, at.url).Sync(t.Context(), 0, nil); err != nil || trust.Newest(0) != 31 || trust.Checks() != 10 {
		t.Errorf("from what was saved to epoch %d with %d checks, %v", trust.Newest(0), trust.Checks(), err)
	}
}

// TestLightLiars: a node that lies, withholds or lags is named, and another one is asked.
func TestLightLiars(t *testing.T) {
	n := prooftest.New(t, "light", 1)
	good, forger, withholder, skipper, lagging := serve(t, n, 0, nil), serve(t, n, 0, nil), serve(t, n, 0, nil), serve(t, n, 0, nil), serve(t, n, 0, nil)
	epochs(n, 2, good, forger, withholder, skipper, lagging)
	epochs(n, 6, good, forger, withholder, skipper)
	forger.SpoilHandover(4, func(h *proof.Handover) {
		vs := slices.Clone(h.Next.Validators)
		vs[0].Power++
		forged, err := consensus.NewCommittee(0, h.Next.Epoch, h.Next.Seed, vs)
		if err != nil {
			t.Fatal(err)
		}
		h.Next = forged
	})
	var six *proof.Handover
	good.SpoilHandover(5, func(h *proof.Handover) { six = h })
	skipper.SpoilHandover(3, func(h *proof.Handover) { *h = *six })
	withholder.KeepBack(0)
	all := []string{forger.url, withholder.url, skipper.url, lagging.url, good.url}

	for range 5 { // each is asked first once
		c := lightClient(t, n, nil, all...)
		if _, err := c.Block(t.Context(), 0, 15); err != nil { // of epoch 8
			t.Fatal(err)
		}
		for url, errs := range c.trouble {
			if url == good.url {
				t.Errorf("the good node is named: %v", errs)
			}
		}
	}
	c := lightClient(t, n, nil, all...)
	if err := c.Sync(t.Context(), 0, nil); err != nil || c.Trust().Newest(0) != 9 {
		t.Fatalf("at epoch %d, %v", c.Trust().Newest(0), err)
	}
	if c.trouble[good.url] != nil || c.trouble[lagging.url] == nil || !errors.Is(c.trouble[lagging.url][0], client.ErrWithheld) {
		t.Errorf("trouble: %v", c.trouble)
	}

	for name, tc := range map[string]struct {
		node  *node
		want  error
		learn consensus.Epoch // what is true is kept all the same
	}{
		"a forged committee": {forger, proof.ErrNext, 5}, "another's hand-over": {skipper, client.ErrAnswer, 4},
		"nothing": {withholder, client.ErrWithheld, 1}, "too little": {lagging, client.ErrWithheld, 3},
	} {
		c := lightClient(t, n, nil, tc.node.url)
		_, err := c.Block(t.Context(), 0, 15)
		if tc.node == lagging {
			err = c.Learn(t.Context(), 0, 8)
		}
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.node.url) || c.Trust().Newest(0) != tc.learn {
			t.Errorf("%s: at epoch %d, %v", name, c.Trust().Newest(0), err)
		}
	}
	c = lightClient(t, n, nil, forger.url)
	if err := c.Sync(t.Context(), 0, nil); !errors.Is(err, proof.ErrNext) {
		t.Errorf("from the forger alone: %v", err)
	}
}

// TestLightFalseAlarm: a proof that claims an epoch that does not exist costs a question to each node and no more.
func TestLightFalseAlarm(t *testing.T) {
	n := prooftest.New(t, "light", 1)
	liar, good := serve(t, n, 0, nil), serve(t, n, 0, nil)
	epochs(n, 3, liar, good)
	liar.Spoil(5, func(b *proof.Block) {
		for _, h := range b.Final.Headers {
			h.Epoch = 1 << 50
		}
	})
	c := lightClient(t, n, nil, liar.url, good.url)
	for range 2 {
		if _, err := c.Block(t.Context(), 0, 5); err != nil {
			t.Error(err)
		}
	}
	if c.Trust().Newest(0) != 4 || c.Trust().Checks() != 3+2 {
		t.Errorf("at epoch %d after %d checks", c.Trust().Newest(0), c.Trust().Checks())
	}
}

func TestLightCheckpoint(t *testing.T) {
	n := prooftest.New(t, "light", 1)
	at := serve(t, n, 0, nil)
	epochs(n, 12, at)
	first := lightClient(t, n, nil, at.url)
	if err := first.Learn(t.Context(), 0, 8); err != nil {
		t.Fatal(err)
	}
	for name, with := range map[string]func(*light) error{
		"a proof":      func(c *light) error { _, err := c.Block(t.Context(), 0, 23); return err },
		"all there is": func(c *light) error { return c.Sync(t.Context(), 0, nil) },
	} {
		trust := n.NewTrust()
		if err := trust.Adopt(first.Trust().Checkpoint()); err != nil {
			t.Fatal(err)
		}
		c := lightClient(t, n, trust, at.url)
		if err := with(c); err != nil || trust.Newest(0) < 12 || trust.Checks() > 5 {
			t.Errorf("%s: at epoch %d with %d checks, %v", name, trust.Newest(0), trust.Checks(), err)
		}
		var miss *proof.EpochError
		if _, err := c.Block(t.Context(), 0, 5); !errors.As(err, &miss) || !miss.Lost {
			t.Errorf("a block before the checkpoint: %v", err)
		}
	}
}

// TestLightThousands: from the genesis over thousands of epochs, with one signature check each, and the CPU time of it.
func TestLightThousands(t *testing.T) {
	const count = 2000
	n := prooftest.New(t, "light", 1)
	at := serve(t, n, 0, nil)
	for range count {
		h, _ := n.HandOver(0, 0)
		at.AddHandovers(h)
	}
	c := lightClient(t, n, nil, at.url)
	before, start := cpu(t), time.Now()
	steps := 0
	if err := c.Sync(t.Context(), 0, func(consensus.Epoch) { steps++ }); err != nil {
		t.Fatal(err)
	}
	used := cpu(t) - before
	if c.Trust().Newest(0) != 1+count || c.Trust().Checks() != count || steps < count/api.MaxHandovers {
		t.Errorf("at epoch %d after %d checks, told %d times", c.Trust().Newest(0), c.Trust().Checks(), steps)
	}
	b, err := c.Trust().State().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d epochs of 4 validators: %.2f ms of CPU each, node included, %s in all, %d bytes of state", count,
		used.Seconds()*1000/count, time.Since(start).Round(time.Millisecond), len(b))
}

// cpu is the CPU time that the process has used.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
