package p2p

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"tutti/netstack"
)

// An answer is a status byte and a frame: the handler's answer, or the text of a refusal.
const (
	statusOK      = 0
	statusRefused = 1

	maxRefusalBytes = 256
)

// Serve registers the handler of a protocol; see netstack.Transport. Its context ends after Limits.RequestTime and
// with the node.
func (n *Node) Serve(p netstack.Protocol, h netstack.Handler) {
	n.handle(protocol.ID(p), func(l *link, s network.Stream) {
		finish(s, n.serve(l, s, h))
	})
}

// serve answers one request. The time for all of it is Limits.RequestTime.
func (n *Node) serve(l *link, s network.Stream, h netstack.Handler) error {
	ctx, cancel := context.WithTimeout(l.ctx, n.limits.RequestTime)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := s.SetDeadline(deadline); err != nil {
		return err
	}
	select {
	case l.serving <- struct{}{}:
		defer func() { <-l.serving }()
	case <-ctx.Done():
		n.count.requestsRefused.Add(1)
		return ctx.Err()
	}
	f := frameReader{r: bufio.NewReaderSize(s, 4<<10), max: netstack.MaxRequestBytes}
	size, err := f.length()
	if err != nil {
		n.count.requestsRefused.Add(1)
		if errors.Is(err, netstack.ErrTooLarge) {
			n.count.refusedTooLarge.Add(1)
		}
		return err
	}
	request, err := f.payload(size)
	if err != nil {
		n.count.requestsRefused.Add(1)
		return err
	}
	answer, err := h(ctx, l.id, request)
	if err == nil && len(answer) > netstack.MaxResponseBytes {
		err = fmt.Errorf("the answer has %d bytes, at most %d are allowed; ask for less", len(answer), netstack.MaxResponseBytes)
	}
	status := []byte{statusOK}
	if err != nil {
		n.count.requestsRefused.Add(1)
		status[0], answer = statusRefused, []byte(err.Error())
		answer = answer[:min(len(answer), maxRefusalBytes)]
	} else {
		n.count.requestsServed.Add(1)
	}
	w := bufio.NewWriterSize(s, 4<<10)
	if _, err := w.Write(status); err != nil {
		return err
	}
	if err := writeFrame(w, answer); err != nil {
		return err
	}
	return w.Flush()
}

// Request asks a peer; see netstack.Transport. Its own limit is Limits.RequestTime, after which it fails with
// netstack.ErrNotReached; when ctx ends first it returns the context's error.
func (n *Node) Request(ctx context.Context, to netstack.NodeID, p netstack.Protocol, request []byte) ([]byte, error) {
	l, err := n.peerLink(to)
	if err != nil {
		return nil, err
	}
	if len(request) > netstack.MaxRequestBytes {
		n.count.refusedTooLarge.Add(1)
		return nil, fmt.Errorf("%w: request of %d bytes, at most %d", netstack.ErrTooLarge, len(request), netstack.MaxRequestBytes)
	}
	own, cancel := context.WithTimeout(ctx, n.limits.RequestTime)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	select {
	case l.asking <- struct{}{}:
		defer func() { <-l.asking }()
	case <-own.Done():
		err = own.Err()
	}
	var answer []byte
	if err == nil {
		answer, err = l.ask(own, protocol.ID(p), request)
	}
	switch {
	case err == nil || errors.Is(err, netstack.ErrRefused) || errors.Is(err, netstack.ErrTooLarge):
		return answer, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case n.ctx.Err() != nil:
		return nil, netstack.ErrClosed
	case own.Err() != nil:
		return nil, fmt.Errorf("%w: %s did not answer within %v", netstack.ErrNotReached, to.Short(), n.limits.RequestTime)
	default:
		return nil, fmt.Errorf("%w: %s: %w", netstack.ErrNotReached, to.Short(), err)
	}
}

// ask makes one request on a stream of its own. The protocol is not negotiated first but assumed, which saves a
// round trip; a peer that does not speak it says so instead of answering.
func (l *link) ask(ctx context.Context, p protocol.ID, request []byte) (answer []byte, err error) {
	conn := l.newest()
	if conn == nil {
		return nil, errors.New("not connected")
	}
	s, err := conn.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { finish(s, err) }()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if err := s.SetProtocol(p); err != nil {
		return nil, err
	}
	lazy := multistream.NewMSSelect(s, p)
	w := bufio.NewWriterSize(lazy, 4<<10)
	wrong := writeFrame(w, request)
	if wrong == nil {
		wrong = w.Flush()
	}
	// A peer that refuses may stop reading before it has everything; its answer tells more than the failed write.
	r := bufio.NewReaderSize(lazy, bufferBytes)
	status, err := r.ReadByte()
	switch {
	case errors.As(err, new(multistream.ErrNotSupported[protocol.ID])):
		return nil, fmt.Errorf("%w: peer does not serve %s", netstack.ErrRefused, p)
	case err != nil && wrong != nil:
		return nil, wrong
	case err != nil:
		return nil, err
	}
	f := frameReader{r: r, max: netstack.MaxResponseBytes}
	if status != statusOK {
		f.max = maxRefusalBytes
	}
	size, err := f.length()
	if err != nil {
		return nil, err
	}
	if answer, err = f.payload(size); err != nil {
		return nil, err
	}
	if status != statusOK {
		return nil, fmt.Errorf("%w: %s", netstack.ErrRefused, printable(answer))
	}
	if _, err := r.ReadByte(); err != io.EOF {
		return nil, errors.New("more bytes follow the answer")
	}
	return answer, nil
}

// printable makes one harmless line of a remote text.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(b), "?"))
}
