package client_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/state/tx"
)

var errEnough = errors.New("enough")

// grow makes blocks with one transaction each.
func grow(n *prooftest.Network, count int) (out []*proof.Block) {
	for i := range count {
		n.Add(0, []tx.Signed{n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, uint32(i))}, nil)
		if i%2 == 1 { // every other block is final by its child only
			out = append(out, n.Finalise(0)...)
		}
	}
	return append(out, n.Finalise(0)...)
}

// publish makes a node know a block and tell it.
func (n *node) publish(blocks ...*proof.Block) {
	for _, b := range blocks {
		n.Append(b)
		n.server.Publish(b)
	}
}

// follow collects heights until it has those up to last. each runs after every block.
func follow(t *testing.T, c *client.Client, opt client.FollowOptions, last consensus.Height, each func(client.Event)) ([]consensus.Height, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []consensus.Height
	err := c.Follow(ctx, opt, func(e client.Event) error {
		got = append(got, e.Header.Height)
		if opt.Body != (e.Contents != nil) || opt.Body && len(e.Contents.IDs) != 1 {
			t.Errorf("contents of block %d: %+v", e.Header.Height, e.Contents)
		}
		if each != nil {
			each(e)
		}
		if e.Header.Height == last {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return got, err
}

func upTo(first, last consensus.Height) (out []consensus.Height) {
	for h := first; h <= last; h++ {
		out = append(out, h)
	}
	return out
}

func TestFollow(t *testing.T) {
	for name, body := range map[string]bool{"headers": false, "blocks": true} {
		t.Run(name, func(t *testing.T) {
			n := prooftest.New(t, "follow", 1)
			at := serve(t, n, 0, nil)
			blocks := grow(n, 12)
			at.Append(blocks[:5]...)
			c := connect(t, n, at.url)
			// 2 to 5 are fetched, 6 and 7 are told, 8 is missed on the stream, 9 is told, and so on
			got, err := follow(t, c, client.FollowOptions{From: 2, Body: body}, 12, func(e client.Event) {
				switch e.Header.Height {
				case 5:
					at.publish(blocks[5:7]...)
				case 7:
					at.Append(blocks[7])
					at.publish(blocks[8])
				case 9:
					at.server.Publish(blocks[3]) // an old one again
					at.publish(blocks[9:]...)
				}
			})
			if err != nil || !slices.Equal(got, upTo(2, 12)) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestFollowFromTip(t *testing.T) {
	n := prooftest.New(t, "follow", 1)
	at := serve(t, n, 0, nil)
	blocks := grow(n, 4)
	at.Append(blocks[:2]...)
	c := connect(t, n, at.url)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if got, err := follow(t, c, client.FollowOptions{Body: true}, 4, nil); err != nil || got[len(got)-1] != 4 || got[0] < 3 {
			t.Errorf("%v, %v", got, err)
		}
	}()
	for _, b := range blocks[2:] {
		time.Sleep(100 * time.Millisecond) // let the subscription open; if it does not in time, it starts later
		at.publish(b)
	}
	<-done
}

func TestFollowFarBehind(t *testing.T) {
	n := prooftest.New(t, "follow", 1)
	at := serve(t, n, 0, func(o *api.Options) { o.QueueEvents = 2 })
	blocks := grow(n, 60)
	at.Append(blocks[:40]...)
	got, err := follow(t, connect(t, n, at.url), client.FollowOptions{From: 1, Body: true}, 60, func(e client.Event) {
		if e.Header.Height == 20 { // the open subscription is cut off: nobody reads it
			at.publish(blocks[40:]...)
		}
	})
	if err != nil || !slices.Equal(got, upTo(1, 60)) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestFollowReconnects(t *testing.T) {
	n := prooftest.New(t, "follow", 1)
	nodes := []*node{serve(t, n, 0, nil), serve(t, n, 0, nil), serve(t, n, 0, nil)}
	blocks := grow(n, 9)
	for _, at := range nodes {
		at.Append(blocks[:3]...)
	}
	c := connect(t, n, nodes[0].url, nowhere(t), nodes[1].url, nodes[2].url)
	got, err := follow(t, c, client.FollowOptions{From: 1, Body: true}, 9, func(e client.Event) {
		switch e.Header.Height {
		case 3:
			nodes[0].stopSoon(t)
			nodes[1].publish(blocks[3:6]...)
			nodes[2].publish(blocks[3:6]...)
		case 6:
			nodes[1].stopSoon(t)
			nodes[2].publish(blocks[6:]...)
		}
	})
	if err != nil || !slices.Equal(got, upTo(1, 9)) {
		t.Errorf("%v, %v", got, err)
	}
}

// stopSoon stops a node while its subscriber's callback runs; the test ends only when it has stopped.
func (n *node) stopSoon(t *testing.T) {
	done := make(chan struct{})
	go func() { defer close(done); n.stop() }()
	t.Cleanup(func() { <-done })
}

func TestFollowLiar(t *testing.T) {
	n := prooftest.New(t, "follow", 1)
	liar, good := serve(t, n, 0, nil), serve(t, n, 0, nil)
	blocks := grow(n, 6)
	liar.Append(blocks...)
	for h := consensus.Height(2); h <= 6; h++ {
		liar.Spoil(h, func(b *proof.Block) { b.Final.Cert.Signature[7]++ })
	}
	good.Append(blocks...)
	got, err := follow(t, connect(t, n, liar.url, good.url), client.FollowOptions{From: 1, Body: true}, 6, nil)
	if err != nil || !slices.Equal(got, upTo(1, 6)) {
		t.Errorf("%v, %v", got, err)
	}
	got, err = follow(t, connect(t, n, liar.url), client.FollowOptions{From: 1, Body: true, Patience: 300 * time.Millisecond}, 6, nil)
	if !errors.Is(err, proof.ErrCertificate) || !slices.Equal(got, upTo(1, 1)) {
		t.Errorf("from the liar alone: %v, %v", got, err)
	}
}

func TestFollowFork(t *testing.T) {
	n := prooftest.New(t, "follow", 1)
	at := serve(t, n, 0, nil)
	blocks := grow(n, 2)
	fork := prooftest.New(t, "follow", 1) // the same committee signs another block 1
	fork.Add(0, nil, nil)
	other := fork.Finalise(0)[0]
	at.Append(other, blocks[1])
	_, err := connect(t, n, at.url).Block(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, n, at.url)
	if err := c.Follow(t.Context(), client.FollowOptions{From: 1}, func(client.Event) error { return nil }); !errors.Is(err, client.ErrFork) {
		t.Errorf("got %v", err)
	}
}

func TestFollowPruned(t *testing.T) {
	n := prooftest.New(t, "follow", 1)
	at := serve(t, n, 0, nil)
	at.Append(grow(n, 4)...)
	at.Forget(2)
	got, err := follow(t, connect(t, n, at.url), client.FollowOptions{From: 1, Body: true}, 4, nil)
	if !errors.Is(err, &api.Error{Code: api.Pruned}) || !slices.Equal(got, upTo(1, 1)) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestFollowEnds(t *testing.T) {
	n := prooftest.New(t, "follow", 1)
	c := connect(t, n, nowhere(t))
	none := func(client.Event) error { return nil }
	if err := c.Follow(t.Context(), client.FollowOptions{Patience: 200 * time.Millisecond}, none); !errors.Is(err, client.ErrNoNode) {
		t.Errorf("without a node: %v", err)
	}
	at := serve(t, n, 0, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := connect(t, n, at.url).Follow(ctx, client.FollowOptions{}, none); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at the context's end: %v", err)
	}
}

func FuzzReadEvent(f *testing.F) {
	f.Add("retry: 1000\nevent: hello\ndata: {}\n\n: alive\n\nid: 3\r\nevent: final\ndata: x\n\n")
	f.Add("\n\n\ndata")
	f.Fuzz(func(t *testing.T, text string) {
		r := bufio.NewReaderSize(strings.NewReader(text), 16)
		for events := 0; ; events++ {
			kind, data, err := client.ReadEvent(r)
			if err != nil {
				return
			}
			if events > len(text) || strings.ContainsAny(kind, "\n") || bytes.ContainsAny(data, "\n") {
				t.Fatalf("event %d: %q %q", events, kind, data)
			}
		}
	})
}
