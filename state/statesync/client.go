package statesync

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tutti/state/ledger"
)

// Options of a Client. Restore, Network, Headers and Partitions are required; zero numbers have the defaults that are named.
type Options struct {
	Restore  *ledger.Restore // opened by the caller, who closes it
	Network  Network
	Headers  Headers
	Observer Observer // nil: nobody

	Partitions []uint16 // of the shard, ascending (ledger.PartitionTable.Partitions)

	Requests     int           // under way at a time, over all peers; 6
	PeerRequests int           // with one peer; 2
	Timeout      time.Duration // of one request, at most; 30 s. It is less once it is known how fast peers are
	Grace        time.Duration // how long headers are waited for; 10 s
	Patience     time.Duration // how long nothing good may come before Run gives up; 5 min
	MaxBehind    uint64        // blocks that an outline may be behind the chain; 1024
}

// Observer is told what happens. Calls come from one goroutine at a time and return at once.
type Observer interface {
	// Began: a step began. Steps may come again.
	Began(step Step)
	// Dropped: a peer sent something wrong, and is asked for nothing any more.
	Dropped(peer Peer, why string)
	// Again: what was there below a height is fetched again, because no peer keeps the differences since.
	Again(below uint64)
}

type deaf struct{}

func (deaf) Began(Step)           {}
func (deaf) Dropped(Peer, string) {}
func (deaf) Again(uint64)         {}

func or[T int | uint64 | time.Duration](v *T, standard T) {
	if *v <= 0 {
		*v = standard
	}
}

// Client fills a folder from peers. Run it once; Progress may be asked for at any time, from any goroutine.
type Client struct {
	o     Options
	trust *trust
	meter *meter
	crew  *crew // Run's
}

// NewClient makes a client. Nothing is asked yet.
func NewClient(o Options) (*Client, error) {
	if o.Restore == nil || o.Network == nil || o.Headers == nil || len(o.Partitions) == 0 {
		return nil, errors.New("statesync: Restore, Network, Headers and Partitions are required")
	}
	if o.Observer == nil {
		o.Observer = deaf{}
	}
	or(&o.Requests, 6)
	or(&o.PeerRequests, 2)
	or(&o.Timeout, 30*time.Second)
	or(&o.Grace, 10*time.Second)
	or(&o.Patience, 5*time.Minute)
	or(&o.MaxBehind, 1024)
	c := &Client{o: o, trust: newTrust(o.Headers, o.Grace), meter: newMeter(time.Now())}
	c.crew = newCrew(&c.o, c.meter)
	return c, nil
}

// Progress is a snapshot.
func (c *Client) Progress() Progress {
	p := c.meter.read(time.Now())
	p.Tip = c.trust.tip.Load()
	return p
}

// errTooOld says that the peers do not keep the differences from the next height on any more; kept is the lowest height
// from which on one of them does.
type errTooOld struct{ kept uint64 }

func (e *errTooOld) Error() string {
	return fmt.Sprintf("differences are kept by peers from height %d on", e.kept)
}

// errMoved says that a step took so long that it is better begun again at a newer height.
var errMoved = errors.New("the chain has moved on")

// Run fills the folder, from whatever is there already, and finishes it: afterwards ledger.Open opens it, final at the
// height returned. When ctx ends, or on an error, what came is kept, and another client goes on from there. Errors:
// ErrNobody, which names the peers and what they did; *store.FatalError; the context's.
func (c *Client) Run(ctx context.Context) (height uint64, err error) {
	watching, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	if err := c.findTip(ctx); err != nil {
		return 0, err
	}
	group.Go(func() { c.trust.watch(watching) })
	for {
		err := c.outline(ctx)
		if err == nil {
			height, err = c.fill(ctx)
		}
		if err == nil {
			err = c.receipts(ctx, height)
		}
		var old *errTooOld
		switch {
		case errors.As(err, &old):
			c.o.Observer.Again(old.kept)
			if err := c.o.Restore.DropBelow(old.kept); err != nil {
				return 0, err
			}
			continue
		case errors.Is(err, errMoved):
			continue
		case err != nil:
			return 0, err
		}
		break
	}
	c.begin(Finishing)
	above, err := c.trust.header(ctx, height+1)
	if err != nil {
		return 0, err
	}
	if err := c.o.Restore.Finish(height, above); err != nil {
		return 0, err
	}
	c.begin(Done)
	return height, nil
}

func (c *Client) begin(s Step) {
	c.meter.set(func(p *Progress) { p.Step = s })
	c.o.Observer.Began(s)
}

// findTip asks for the tip until somebody answers.
func (c *Client) findTip(ctx context.Context) error {
	c.begin(Finding)
	late := time.Now().Add(c.o.Patience)
	for {
		err := c.trust.again(ctx, func() (bool, error) {
			err := c.trust.with(ctx, func() error { return c.trust.advance(ctx) })
			return err == nil || ctx.Err() != nil, err
		})
		if err == nil || ctx.Err() != nil {
			return err
		}
		if time.Now().After(late) {
			return fmt.Errorf("statesync: %w: nobody could tell the latest final block for %v: check the network and start again (%w)", ErrNobody, c.o.Patience, err)
		}
	}
}

// outline takes an outline where there is none.
func (c *Client) outline(ctx context.Context) error {
	if c.o.Restore.Outline() != nil {
		return nil
	}
	return c.crew.do(ctx, &outlineWork{c: c})
}

// outlineWork asks one peer after the other for an outline.
type outlineWork struct {
	c   *Client
	out bool
	got bool
}

func (w *outlineWork) next(Peer, int) *job {
	if w.out || w.got {
		return nil
	}
	w.out = true
	return &job{request: request{typ: typeOutline}, bytes: 16 << 10, take: w.take}
}

func (w *outlineWork) take(ctx context.Context, parts [][]byte) error {
	o, err := ledger.DecodeOutline(parts[0])
	if err != nil {
		return &ledger.BadPart{Part: "an outline", Err: err}
	}
	// Before it is proven: the headers down to an old one are not worth fetching.
	if tip := w.c.trust.tip.Load(); o.Height < tip && tip-o.Height > ledger.StateLag+w.c.o.MaxBehind {
		return &behind{o.Height, tip - ledger.StateLag - w.c.o.MaxBehind}
	}
	root, err := w.c.trust.root(ctx, o.Height)
	if err != nil {
		return aboveIsBad(fmt.Sprintf("the outline of height %d", o.Height), err)
	}
	return verdict(w.c.o.Restore.Begin(o, root))
}

func (w *outlineWork) ended(_ Peer, _ *job, err error) error {
	w.out, w.got = false, w.got || err == nil
	return err
}

func (w *outlineWork) done() (bool, error) { return w.got, nil }

// aboveIsBad makes a part of a height that nobody else knows of a bad part.
func aboveIsBad(part string, err error) error {
	if errors.Is(err, errAbove) {
		return &ledger.BadPart{Part: part, Err: err}
	}
	return err
}

// verdict sorts what a Restore says about parts: a bad one, a header that is not there any more, or else this node's own
// trouble.
func verdict(err error) error {
	if err == nil || errors.As(err, new(*ledger.BadPart)) || errors.Is(err, ledger.ErrNoHeader) {
		return err
	}
	return &fatalError{err}
}

// receipts fetches what is on its way to other shards, as of the block at a height.
func (c *Client) receipts(ctx context.Context, height uint64) error {
	spans, err := c.o.Restore.MissingOutbox(height)
	if err != nil {
		return err
	}
	w := &receiptsWork{c: c, height: height}
	for _, s := range spans {
		w.left = append(w.left, request{typ: typeOutbox, shard: s.Shard, from: s.From, to: s.To})
	}
	if len(w.left) == 0 {
		return nil
	}
	c.begin(Receipts)
	return c.crew.do(ctx, w)
}

// receiptsWork is one request for each channel.
type receiptsWork struct {
	c      *Client
	height uint64
	left   []request
	out    int
}

// maxStale is after how many blocks receipts are asked for as of a newer one: peers keep them for 64 blocks after they
// are acknowledged.
const maxStale = 48

func (w *receiptsWork) next(Peer, int) *job {
	if len(w.left) == 0 {
		return nil
	}
	r := w.left[0]
	w.left = w.left[1:]
	w.out++
	return &job{request: r, bytes: int(r.to-r.from) * 53, take: func(_ context.Context, parts [][]byte) error {
		o, err := ledger.DecodeOutbox(parts[0])
		if err == nil && o.Shard != r.shard {
			err = fmt.Errorf("it is of shard %d", o.Shard)
		}
		if err != nil {
			return &ledger.BadPart{Part: fmt.Sprintf("the receipts to shard %d", r.shard), Err: err}
		}
		return verdict(w.c.o.Restore.PutOutbox(w.height, o))
	}}
}

func (w *receiptsWork) ended(_ Peer, j *job, err error) error {
	w.out--
	if err != nil {
		w.left = append(w.left, j.request)
	}
	return err
}

func (w *receiptsWork) done() (bool, error) {
	if len(w.left) > 0 && w.height+maxStale < w.c.trust.tip.Load() {
		return false, errMoved
	}
	return len(w.left)+w.out == 0, nil
}
