package p2p

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"tutti/netstack"
)

// A frame is a u32 big-endian length and that many bytes of payload. There is exactly one encoding of a payload.

const (
	frameHeadBytes = 4
	// growBytes is how much is set aside for a payload before its bytes have come, so that a peer pays in
	// bandwidth for the memory it takes here.
	growBytes = 64 << 10
)

// frameReader reads frames from one stream. One goroutine owns it.
type frameReader struct {
	r    *bufio.Reader
	max  int // payload bytes
	head [frameHeadBytes]byte
}

// length reads the head of the next frame. At a clean end of the stream it returns io.EOF; a length over the limit
// is netstack.ErrTooLarge, after which the stream is of no more use.
func (f *frameReader) length() (int, error) {
	if _, err := io.ReadFull(f.r, f.head[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(f.head[:])
	if uint64(n) > uint64(f.max) {
		return 0, fmt.Errorf("%w: frame of %d bytes, at most %d", netstack.ErrTooLarge, n, f.max)
	}
	return int(n), nil
}

// payload reads the n bytes announced by length into memory of their own.
func (f *frameReader) payload(n int) ([]byte, error) {
	buf := make([]byte, min(n, growBytes))
	for have := 0; ; {
		m, err := io.ReadFull(f.r, buf[have:])
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // the head promised more
		}
		if have += m; err != nil || have == n {
			return buf, err
		}
		grown := make([]byte, min(2*have, n))
		copy(grown, buf)
		buf = grown
	}
}

// skip passes over the n bytes announced by length.
func (f *frameReader) skip(n int) error {
	_, err := f.r.Discard(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// writeFrame writes one frame. len(payload) fits 32 bits: every caller has checked it against a limit.
func writeFrame(w io.Writer, payload []byte) error {
	var head [frameHeadBytes]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(payload)))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}
