package p2p

import (
	"bufio"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"tutti/netstack"
)

const (
	batchBytes      = 64 << 10              // messages written between two looks at the deadline
	bufferBytes     = 16 << 10              // of a stream's reader and writer
	maxClassStreams = 3                     // of one peer and class; old ones drain while it moves to a new connection
	reopenMin       = 20 * time.Millisecond // pause after a stream failed; doubles up to reopenMax
	reopenMax       = time.Second
	ratePause       = 50 * time.Millisecond // a stream over its rate is not read for this long
	slowestBytes    = 512 << 10             // bytes a second that a link must carry
)

func classProtocol(c netstack.Class) protocol.ID { return protocol.ID("/tutti/" + c.String() + "/1") }

// allowance is the time for n bytes to pass.
func (l Limits) allowance(n int) time.Duration {
	return l.WriteTimeout + time.Duration(n)*time.Second/slowestBytes
}

// write is the goroutine of one peer and class: it moves messages from the outbox to a stream on the peer's newest
// connection, and opens a new stream when that fails or a newer connection comes. What was being written when a
// stream failed is lost.
func (l *link) write(class netstack.Class) {
	out := l.out[class]
	var s network.Stream
	var w *bufio.Writer
	var batch [][]byte
	back := reopenMin
	retry := func() {
		if s != nil {
			_ = s.Reset()
			s = nil
		}
		pause(l.ctx, jitter(back))
		back = min(2*back, reopenMax)
	}
	for out.wait(l.ctx) {
		conn := l.await(l.ctx)
		if conn == nil {
			break
		}
		if s != nil && s.Conn() != conn {
			_ = s.Close() // what it holds still arrives
			s = nil
		}
		if s == nil {
			var err error
			if s, err = open(l.ctx, conn, classProtocol(class)); err != nil {
				retry()
				continue
			}
			_ = s.CloseRead()
			w = bufio.NewWriterSize(s, bufferBytes)
		}
		var stale int
		batch, stale = out.take(batch[:0], batchBytes, time.Now())
		l.n.count.droppedSendStale[class].Add(uint64(stale))
		size, err := l.writeBatch(s, w, batch)
		if err != nil {
			retry()
			continue
		}
		back = reopenMin
		l.n.count.sentMessages[class].Add(uint64(len(batch)))
		l.n.count.sentBytes[class].Add(uint64(size))
		clear(batch)
	}
	if s != nil {
		_ = s.Close()
	}
}

// writeBatch writes messages as frames and returns their payload bytes.
func (l *link) writeBatch(s network.Stream, w *bufio.Writer, batch [][]byte) (size int, err error) {
	for _, p := range batch {
		size += len(p)
	}
	if err := s.SetWriteDeadline(time.Now().Add(l.n.limits.allowance(size))); err != nil {
		return 0, err
	}
	for _, p := range batch {
		if err := writeFrame(w, p); err != nil {
			return 0, err
		}
	}
	return size, w.Flush()
}

// readClass reads the frames of one inbound stream until it ends.
func (n *Node) readClass(l *link, class netstack.Class, s network.Stream) {
	in := &l.in[class]
	defer in.streams.Add(-1)
	if in.streams.Add(1) > maxClassStreams || l.stranger {
		_ = s.Reset()
		return
	}
	f := frameReader{r: bufio.NewReaderSize(s, bufferBytes), max: netstack.MaxBytes(class)}
	for {
		err := n.readMessage(l, class, s, &f)
		if errors.Is(err, netstack.ErrTooLarge) {
			n.count.refusedTooLarge.Add(1)
		}
		if err == io.EOF {
			_ = s.Close()
			return
		}
		if err != nil {
			_ = s.Reset()
			return
		}
	}
}

// readMessage reads one frame and queues its payload, or drops it if the peer is over its rate. At a clean end it
// returns io.EOF.
func (n *Node) readMessage(l *link, class netstack.Class, s network.Stream, f *frameReader) error {
	size, err := f.length()
	if err != nil {
		return err
	}
	if size > growBytes { // smaller ones hold too little to be worth a timer
		if err := s.SetReadDeadline(time.Now().Add(n.limits.allowance(size))); err != nil {
			return err
		}
		defer s.SetReadDeadline(time.Time{}) //nolint:errcheck // the next read finds out
	}
	in, now := &l.in[class], time.Now()
	if !in.bytes.AllowN(now, size) || !in.messages.AllowN(now, 1) {
		n.count.refusedRate.Add(1)
		if err := f.skip(size); err != nil {
			return err
		}
		pause(l.ctx, ratePause)
		return l.ctx.Err()
	}
	payload, err := f.payload(size)
	if err != nil {
		return err
	}
	n.count.receivedMessages[class].Add(1)
	n.count.receivedBytes[class].Add(uint64(size))
	if dropped := offer(n.receive[class], netstack.Message{From: l.id, Payload: payload}); dropped > 0 {
		n.count.droppedReceiveFull[class].Add(uint64(dropped))
	}
	return nil
}

// offer sends m on a channel with room for at least one, pushing out the oldest if it is full, and returns how many
// messages it dropped. When others take and refill the channel faster than this goroutine can, m itself is dropped.
func offer(to chan netstack.Message, m netstack.Message) (dropped int) {
	for range 4 {
		select {
		case to <- m:
			return dropped
		default:
		}
		select {
		case <-to:
			dropped++
		default:
		}
	}
	return dropped + 1
}
