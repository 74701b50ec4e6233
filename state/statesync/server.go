package statesync

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"tutti/state/ledger"
	"tutti/state/tx"
)

// Source is what a Server gives away: *ledger.Ledger is one. Safe for concurrent use. ledger.ErrNotHere and
// ledger.ErrNotStored are answered as refusals, ErrClosed as busy; any other error fails the one request.
type Source interface {
	Outline() (*ledger.Outline, error)
	Chunk(partition uint16, chunk uint32) (*ledger.Chunk, error)
	Differences(from uint64, maxBytes int) ([]ledger.Difference, error)
	Oldest() (uint64, error) // the lowest height whose difference is kept
	DirectoryTops(from uint64, max int) ([]tx.Hash, error)
	DirectoryKeys(from uint64, max int) ([]ledger.DirectoryKey, error)
	Outbox(shard uint16, from, to uint64) (*ledger.Outbox, error)
}

// Limits of a Server. Zero fields have the defaults that are named.
type Limits struct {
	BytesPerSecond float64 // of answers to all peers together; DefaultBytesPerSecond
	AtOnce         int     // answers being made at a time; 4
	PeerAtOnce     int     // of one peer; 3
	Now            func() time.Time
}

// DefaultBytesPerSecond lets three peers give a joiner 640 MB in seven seconds. Votes have streams and queues of their own.
const DefaultBytesPerSecond = 32 << 20

const (
	maxAccounts = 2048            // peers remembered; beyond it the one that was silent for longest is forgotten
	activeFor   = 2 * time.Second // a peer that asked within this has its share
	burstBytes  = MaxAnswerBytes  // of a peer that asked for nothing lately
)

// Server answers the requests of peers that sync. Its rate is shared evenly by those that ask: an answer is paid for when
// it is made, and who owes is told when to come back. Safe for concurrent use.
type Server struct {
	source Source
	limits Limits

	mu     sync.Mutex // guards what follows; never held while a part is read
	peers  map[string]*account
	making int
	counts Counters
}

// account is one peer's share.
type account struct {
	bytes  float64 // that it may still have; below zero it owes
	at     time.Time
	making int
}

// Counters count since NewServer.
type Counters struct {
	Answers, Bytes uint64
	Busy           uint64 // refused because of a limit
	NotHere        uint64 // refused because the part is not here, or not any more
	Malformed      uint64
	Failed         uint64 // reads of the source
}

// NewServer makes a server.
func NewServer(source Source, limits Limits) *Server {
	if limits.BytesPerSecond <= 0 {
		limits.BytesPerSecond = DefaultBytesPerSecond
	}
	if limits.AtOnce <= 0 {
		limits.AtOnce = 4
	}
	if limits.PeerAtOnce <= 0 {
		limits.PeerAtOnce = 3
	}
	if limits.Now == nil {
		limits.Now = time.Now
	}
	return &Server{source: source, limits: limits, peers: map[string]*account{}}
}

// Counters is a snapshot.
func (s *Server) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Answer answers one request of a peer, which the network has proved to be who it is. An error is for that request: the
// peer broke the rules (ErrMalformed), or the source could not be read.
func (s *Server) Answer(ctx context.Context, from string, b []byte) ([]byte, error) {
	r, err := decodeRequest(b)
	if err != nil {
		s.count(func(c *Counters) { c.Malformed++ })
		return nil, err
	}
	a, wait := s.enter(from)
	if a == nil {
		return refusal{why: busy, wait: wait}.encode(), nil
	}
	out, err := s.answer(ctx, r)
	s.leave(a, len(out))
	no := refusal{why: notHere}
	if errors.Is(err, ledger.ErrNotStored) && r.typ == typeDifferences {
		if kept, fault := s.source.Oldest(); fault != nil {
			err = fault
		} else if kept > r.from { // else it has been dropped just now
			no = refusal{why: notKept, kept: kept}
		}
	}
	switch {
	case err == nil:
		s.count(func(c *Counters) { c.Answers++; c.Bytes += uint64(len(out)) })
		return out, nil
	case errors.Is(err, ledger.ErrNotHere) || errors.Is(err, ledger.ErrNotStored) || errors.Is(err, ledger.ErrNoProof):
		s.count(func(c *Counters) { c.NotHere++ })
		return no.encode(), nil
	case errors.Is(err, ledger.ErrClosed):
		return refusal{why: busy, wait: MaxWait}.encode(), nil
	}
	s.count(func(c *Counters) { c.Failed++ })
	return nil, err
}

func (s *Server) count(f func(*Counters)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.counts)
}

// enter lets a peer's request in, or says when to come back.
func (s *Server) enter(from string) (*account, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.limits.Now()
	a := s.account(from, now)
	rate := s.share(now)
	a.bytes = min(burstBytes, a.bytes+rate*max(0, now.Sub(a.at).Seconds()))
	a.at = now
	wait := time.Duration(0)
	switch {
	case a.bytes <= 0:
		wait = time.Duration(-a.bytes/rate*float64(time.Second)) + 10*time.Millisecond
	case s.making >= s.limits.AtOnce || a.making >= s.limits.PeerAtOnce:
		wait = 100 * time.Millisecond
	default:
		s.making++
		a.making++
		return a, 0
	}
	s.counts.Busy++
	return nil, min(wait, MaxWait)
}

// account finds or makes a peer's account. mu is held.
func (s *Server) account(from string, now time.Time) *account {
	if a := s.peers[from]; a != nil {
		return a
	}
	if len(s.peers) >= maxAccounts {
		silent := ""
		for name, a := range s.peers {
			if a.making == 0 && (silent == "" || a.at.Before(s.peers[silent].at)) {
				silent = name
			}
		}
		delete(s.peers, silent)
	}
	a := &account{bytes: burstBytes, at: now}
	s.peers[from] = a
	return a
}

// share is the bytes a second of each peer that is asking now. mu is held.
func (s *Server) share(now time.Time) float64 {
	active := 0
	for _, a := range s.peers {
		if a.making > 0 || now.Sub(a.at) < activeFor {
			active++
		}
	}
	return s.limits.BytesPerSecond / float64(max(active, 1))
}

func (s *Server) leave(a *account, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.making--
	a.making--
	a.bytes -= float64(bytes)
}

// answer makes the answer to a request that was let in.
func (s *Server) answer(ctx context.Context, r *request) ([]byte, error) {
	head := r.typ | answerBit
	switch r.typ {
	case typeOutline:
		o, err := s.source.Outline()
		if err != nil {
			return nil, err
		}
		return o.Append([]byte{head}), nil
	case typeChunks:
		return s.chunks(ctx, r)
	case typeDifferences:
		return s.differences(r)
	case typeTops:
		tops, err := s.source.DirectoryTops(r.from, int(r.most))
		return part(head, ledger.AppendTops, tops, topBytes, err)
	case typeKeys:
		var keys []ledger.DirectoryKey
		for most := int(r.most); most > 0; {
			some, err := s.source.DirectoryKeys(r.from+uint64(len(keys)), min(most, ledger.SegmentKeys))
			if err != nil && len(keys) == 0 {
				return nil, err
			}
			if err != nil || len(some) == 0 || ctx.Err() != nil {
				break
			}
			keys, most = append(keys, some...), most-len(some)
		}
		return part(head, ledger.AppendKeys, keys, keyBytes, nil)
	}
	o, err := s.source.Outbox(r.shard, r.from, r.to)
	if err != nil {
		return nil, err
	}
	return o.Append([]byte{head}), nil
}

// part is an answer that is a list of entries of some bytes each.
func part[T any](head byte, encode func([]byte, []T) []byte, list []T, bytes int, err error) ([]byte, error) {
	if err == nil && len(list) == 0 {
		err = ledger.ErrNotHere
	}
	if err != nil {
		return nil, err
	}
	return encode(append(make([]byte, 0, 1+len(list)*bytes), head), list), nil
}

// chunks reads the chunks asked for, or the first of them when the context ends or one is not here.
func (s *Server) chunks(ctx context.Context, r *request) ([]byte, error) {
	b := []byte{r.typ | answerBit, 0}
	for i, id := range r.chunks {
		c, err := s.source.Chunk(id.Partition, id.Index)
		if err != nil && i == 0 {
			return nil, err
		}
		if err != nil || len(b) > MaxAnswerBytes-ledger.MaxChunkBytes-4 || i > 0 && ctx.Err() != nil {
			break
		}
		before := len(b)
		b = appendSized(b, c.Append)
		b[1]++
		if i == 0 { // the others are about as long
			b = slices.Grow(b, (len(r.chunks)-1)*(len(b)-before))
		}
	}
	return b, nil
}

// differences reads what follows a height, at least one.
func (s *Server) differences(r *request) ([]byte, error) {
	ds, err := s.source.Differences(r.from, int(r.most))
	if err == nil && len(ds) == 0 {
		err = ledger.ErrNotHere // the next one is not final yet
	}
	if err != nil {
		return nil, err
	}
	ds = ds[:min(len(ds), maxDifferences)]
	size := 3
	for i := range ds {
		size += 4 + ds[i].Bytes()
	}
	b := binary.BigEndian.AppendUint16(append(make([]byte, 0, size), r.typ|answerBit), uint16(len(ds)))
	for i := range ds {
		b = appendSized(b, ds[i].Append)
	}
	return b, nil
}
