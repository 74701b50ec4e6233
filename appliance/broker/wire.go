package broker

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"tutti/accel/distill"
	"tutti/accel/merkle"
)

const version = 1

// Types of messages.
const (
	typeHello      = 1
	typeWelcome    = 2
	typeSubmission = 3
	typeOffer      = 4
	typeAnswer     = 5
	typeVerdict    = 6
)

// Lengths of messages, without the type; of an offer, without the siblings.
const (
	helloBytes      = 1 + 32
	welcomeBytes    = 1 + 2 + 2
	submissionBytes = 4 + distill.BodyBytes + 64
	offerHeadBytes  = 4 + 4 + 4 + 4
	answerBytes     = 4 + 4 + distill.ShareBytes
	verdictBytes    = 4 + 1 + 4
	maxMessage      = offerHeadBytes + pathNodes*32
)

// pathNodes is how many siblings a path has in all.
const pathNodes = (distill.OfferBytes - 8) / 32

type (
	submission struct {
		number uint32
		Submission
	}
	offer struct {
		number, round uint32
		distill.Offer
	}
	answer struct {
		number, round uint32
		share         [distill.ShareBytes]byte
	}
	verdict struct {
		number uint32
		Verdict
	}
)

func appendHello(b []byte, chain distill.Chain) []byte {
	return append(append(b, typeHello, version), chain[:]...)
}

func (w *Welcome) append(b []byte) []byte {
	b = append(b, typeWelcome, version)
	b = binary.BigEndian.AppendUint16(b, uint16(w.Window.Milliseconds()))
	return binary.BigEndian.AppendUint16(b, uint16(w.Patience.Milliseconds()))
}

func (s *submission) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, typeSubmission), s.number)
	b = append(b, s.Body[:]...)
	return append(b, s.Signature[:]...)
}

func (o *offer) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, typeOffer), o.number)
	b = binary.BigEndian.AppendUint32(b, o.round)
	b = binary.BigEndian.AppendUint32(b, uint32(o.Index))
	b = binary.BigEndian.AppendUint32(b, uint32(o.Count))
	for _, node := range o.Path[:merkle.Depth(o.Count)] {
		b = append(b, node[:]...)
	}
	return b
}

func (a *answer) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, typeAnswer), a.number)
	b = binary.BigEndian.AppendUint32(b, a.round)
	return append(b, a.share[:]...)
}

func (v *verdict) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, typeVerdict), v.number)
	return binary.BigEndian.AppendUint32(append(b, byte(v.Code)), uint32(v.Retry.Milliseconds()))
}

// reader reads messages of one end. It belongs to one goroutine.
type reader struct {
	r     *bufio.Reader
	buf   [maxMessage]byte
	empty [pathNodes][32]byte // the top of an empty subtree of each height
}

func newReader(r io.Reader) *reader {
	out := &reader{r: bufio.NewReaderSize(r, 64<<10)}
	for i := 1; i < len(out.empty); i++ {
		out.empty[i] = merkle.Climb(out.empty[i-1], 0, out.empty[i-1:i])
	}
	return out
}

// take reads n bytes, which are valid until the next call.
func (r *reader) take(n int) ([]byte, error) {
	if _, err := io.ReadFull(r.r, r.buf[:n]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return r.buf[:n], nil
}

// kind reads the type of the next message. The error is io.EOF where the stream ends between messages.
func (r *reader) kind() (byte, error) { return r.r.ReadByte() }

// expect reads a message of a type and length.
func (r *reader) expect(kind byte, n int) ([]byte, error) {
	k, err := r.kind()
	if err != nil {
		return nil, err
	}
	if k != kind {
		return nil, fmt.Errorf("%w: type %d, expected %d", ErrMalformed, k, kind)
	}
	return r.take(n)
}

func (r *reader) hello() (chain distill.Chain, err error) {
	b, err := r.expect(typeHello, helloBytes)
	if err != nil {
		return chain, err
	}
	if b[0] != version {
		return chain, fmt.Errorf("%w: version %d, this build knows %d", ErrMalformed, b[0], version)
	}
	return distill.Chain(b[1:]), nil
}

func (r *reader) welcome() (w Welcome, err error) {
	b, err := r.expect(typeWelcome, welcomeBytes)
	if err != nil {
		return w, err
	}
	if b[0] != version {
		return w, fmt.Errorf("%w: version %d, this build knows %d", ErrMalformed, b[0], version)
	}
	ms := func(b []byte) time.Duration { return time.Duration(binary.BigEndian.Uint16(b)) * time.Millisecond }
	return Welcome{Window: ms(b[1:]), Patience: ms(b[3:])}, nil
}

func (r *reader) submission() (s submission, err error) {
	b, err := r.take(submissionBytes)
	if err != nil {
		return s, err
	}
	s.number = binary.BigEndian.Uint32(b)
	s.Body, s.Signature = [distill.BodyBytes]byte(b[4:]), [64]byte(b[4+distill.BodyBytes:])
	return s, nil
}

func (r *reader) offer() (o offer, err error) {
	b, err := r.take(offerHeadBytes)
	if err != nil {
		return o, err
	}
	o.number, o.round = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	index, count := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	if count > distill.MaxCount || index >= count {
		return o, fmt.Errorf("%w: offer of place %d of %d", ErrMalformed, index, count)
	}
	o.Index, o.Count = int(index), int(count)
	o.Path = r.empty
	depth := merkle.Depth(o.Count)
	if b, err = r.take(32 * depth); err != nil {
		return o, err
	}
	for i := range depth {
		o.Path[i] = [32]byte(b[32*i:])
	}
	return o, nil
}

func (r *reader) answer() (a answer, err error) {
	b, err := r.take(answerBytes)
	if err != nil {
		return a, err
	}
	a.number, a.round = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	a.share = [distill.ShareBytes]byte(b[8:])
	return a, nil
}

func (r *reader) verdict() (v verdict, err error) {
	b, err := r.take(verdictBytes)
	if err != nil {
		return v, err
	}
	v.number, v.Code = binary.BigEndian.Uint32(b), Code(b[4])
	v.Retry = time.Duration(binary.BigEndian.Uint32(b[5:])) * time.Millisecond
	if v.Code >= codes {
		return v, fmt.Errorf("%w: verdict %d", ErrMalformed, v.Code)
	}
	return v, nil
}
