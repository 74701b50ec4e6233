package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/consensus"
)

// FollowOptions say what to follow.
type FollowOptions struct {
	Shard    consensus.ShardID
	From     consensus.Height // first height wanted; 0: the next one to become final
	Body     bool             // whole blocks: Event.Contents is set
	Patience time.Duration    // without a sign of life from any node, or without a block that verifies, before Follow gives up; 30 s
}

// Event is one final block, verified.
type Event struct {
	Header   *consensus.Header
	Contents *proof.Contents // with FollowOptions.Body; belongs to the receiver
	Received time.Time       // when it had arrived, before it was verified
}

// maxGap is how many blocks are fetched while a subscription is open; more are fetched before one is opened, since
// the node cuts off subscribers who do not read.
const maxGap = 32

// maxEvent bounds a line of the stream: a whole block in base64.
const maxEvent = proof.MaxBlockBytes/3*4 + 4096

// Follow calls use with every final block of a shard from opt.From on, in height order, each once, verified and linked
// to the one before. It reconnects, to another node if need be, and fetches what it missed. It returns when ctx ends,
// when use fails, when a wanted block is kept by no node any more, after opt.Patience without progress, or with
// ErrFork. use runs in the caller's goroutine; while it is slow the node may cut the subscription off, which costs a
// reconnect and no block.
func (c *Client) Follow(ctx context.Context, opt FollowOptions, use func(Event) error) error {
	if c.trust == nil {
		return ErrNoTrust
	}
	if opt.Patience == 0 {
		opt.Patience = 30 * time.Second
	}
	f := &follower{c: c, opt: opt, use: use, next: opt.From, progress: time.Now()}
	for round := 1; ; round++ {
		nodes, err := c.ofShard(ctx, opt.Shard)
		for _, n := range nodes {
			before := f.next
			if err = f.subscribe(ctx, n); f.next != before {
				round = 1
			}
			if f.stop != nil {
				return f.stop
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if time.Since(f.progress) > opt.Patience {
			return fmt.Errorf("client: no progress for %s: %w", opt.Patience, err)
		}
		if err := pause(ctx, round, nil); err != nil {
			return err
		}
	}
}

// follower is the state of one Follow. One goroutine owns it.
type follower struct {
	c        *Client
	opt      FollowOptions
	use      func(Event) error
	next     consensus.Height  // to deliver; 0 before the first hello
	last     *consensus.Header // delivered
	progress time.Time         // last sign that a node is well
	stop     error             // why Follow has to return
}

// subscribe reads one subscription to its end. The error says why it ended; stop is set if Follow must end too.
func (f *follower) subscribe(ctx context.Context, n *node) error {
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(f.c.timeout, cancel) // a connection that says nothing is dead
	defer silence.Stop()
	path := "/v1/finality"
	if f.opt.Body {
		path += "?body=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+path, nil)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	resp, err := f.c.http.Do(req)
	n.heard(caller, err)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(n, resp)
	}
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		kind, data, err := readEvent(lines)
		n.heard(caller, err)
		if err != nil {
			return fmt.Errorf("client: %s: %w", n.url, err)
		}
		silence.Stop()
		if err := f.event(ctx, kind, data); err != nil {
			return err
		}
		silence.Reset(f.c.timeout)
	}
}

// readEvent reads up to the end of one event or of one comment, whose kind is empty.
func readEvent(r *bufio.Reader) (kind string, data []byte, err error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return "", nil, err
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case len(line) == 0:
			return kind, data, nil
		case string(name) == "event":
			kind = string(value)
		case string(name) == "data":
			data = value
		}
	}
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxEvent {
			return nil, fmt.Errorf("%w: a line over %d bytes", ErrAnswer, maxEvent)
		}
		line = append(line, part...)
		if err == nil {
			return bytes.TrimRight(line, "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// event handles one event of a stream. An error ends the subscription.
func (f *follower) event(ctx context.Context, kind string, data []byte) error {
	received := time.Now()
	switch kind {
	case "": // a comment: the node is alive
		f.progress = received
		return nil
	case "hello":
		var h api.HelloEvent
		if err := json.Unmarshal(data, &h); err != nil || h.Shard != f.opt.Shard {
			return fmt.Errorf("%w: hello of shard %d: %v", ErrAnswer, h.Shard, err)
		}
		if f.next == 0 {
			f.next = h.Height + 1
		}
		return f.fill(ctx, h.Height)
	case "final":
		var e api.FinalEvent
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("%w: %w", ErrAnswer, err)
		}
		if e.Height < f.next {
			return nil
		}
		if err := f.fill(ctx, e.Height-1); err != nil {
			return err
		}
		return f.final(ctx, &e, received)
	case "end":
		var why api.ErrorBody
		if err := json.Unmarshal(data, &why); err != nil {
			return fmt.Errorf("%w: %w", ErrAnswer, err)
		}
		return &api.Error{Code: why.Code, Detail: why.Detail}
	}
	return nil // an event of a newer node
}

// final verifies an event of height next and delivers it.
func (f *follower) final(ctx context.Context, e *api.FinalEvent, received time.Time) error {
	if !f.opt.Body {
		final, err := proof.DecodeFinal(e.Final)
		if err != nil {
			return err
		}
		if err := f.c.proven(ctx, func() error { _, err := final.Verify(f.c.trust); return err }); err != nil {
			return err
		}
		return f.deliver(Event{Header: final.Header(), Received: received})
	}
	block, err := proof.DecodeBlock(e.Block)
	if err != nil {
		return err
	}
	var contents *proof.Contents
	if err := f.c.proven(ctx, func() error { contents, err = block.Verify(f.c.trust); return err }); err != nil {
		return err
	}
	return f.deliver(Event{Header: contents.Header, Contents: contents, Received: received})
}

// fill fetches and delivers the blocks from next up to height. A long way is not gone while the subscription that
// asked for it is open: it ends with errCaughtUp and the next one begins at the tip.
func (f *follower) fill(ctx context.Context, height consensus.Height) error {
	long := height >= f.next && height-f.next >= maxGap
	for f.next <= height {
		contents, err := f.c.Block(ctx, f.opt.Shard, f.next)
		if errors.Is(err, &api.Error{Code: api.Pruned}) {
			f.stop = err
		}
		if err != nil {
			return err
		}
		e := Event{Header: contents.Header, Received: time.Now()}
		if f.opt.Body {
			e.Contents = contents
		}
		if err := f.deliver(e); err != nil {
			return err
		}
	}
	if long {
		return errCaughtUp
	}
	return nil
}

var errCaughtUp = errors.New("client: caught up")

// deliver hands a verified block of height next on, once it is seen to follow the one before.
func (f *follower) deliver(e Event) error {
	h := e.Header
	if h.Shard != f.opt.Shard || h.Height != f.next {
		return fmt.Errorf("%w: block %d of shard %d, expected %d of %d", ErrAnswer, h.Height, h.Shard, f.next, f.opt.Shard)
	}
	if f.last != nil && h.Parent != f.last.Hash() {
		f.stop = fmt.Errorf("%w: block %d of shard %d does not follow block %s", ErrFork, h.Height, h.Shard, f.last.Hash())
		return f.stop
	}
	f.last, f.progress = h, e.Received
	f.next++
	if err := f.use(e); err != nil {
		f.stop = err
	}
	return f.stop
}
