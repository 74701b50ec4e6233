package broker

import (
	"bytes"
	"context"
	stded25519 "crypto/ed25519"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"tutti/accel/distill"
)

// liar is a broker that does what a test tells it. act gets the stream behind the welcome, and the first submission.
func (w *world) liar(act func(st *quic.Stream, r *reader, s submission) error) string {
	w.t.Helper()
	cert, err := certificate(stded25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := quiet(); err != nil {
		w.t.Fatal(err)
	}
	at, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	transport := &quic.Transport{Conn: at}
	listener, err := transport.Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{ALPN}}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.t.Cleanup(func() { cancel(); <-done; _ = listener.Close(); _ = transport.Close(); _ = at.Close() })
	go func() {
		defer close(done)
		q, err := listener.Accept(ctx)
		if err != nil {
			return
		}
		st, err := q.AcceptStream(ctx)
		if err != nil {
			return
		}
		r := newReader(st)
		if _, err := r.hello(); err != nil {
			w.t.Error(err)
		}
		if _, err := st.Write((&Welcome{time.Second, time.Second}).append(nil)); err != nil {
			w.t.Error(err)
		}
		if _, err := r.kind(); err != nil {
			w.t.Error(err)
		}
		s, err := r.submission()
		if err != nil {
			w.t.Error(err)
		}
		if err := act(st, r, s); err != nil {
			w.t.Error(err)
		}
		<-ctx.Done()
		_ = q.CloseWithError(0, "")
	}()
	return at.LocalAddr().String()
}

// TestWrongLeaf: who is offered a place in a tree that holds another transfer there signs another root: the liar's batch is not
// signed, whatever it shows.
func TestWrongLeaf(t *testing.T) {
	w := newWorld(t)
	mine, other := w.pay(0, nil), w.pay(0, nil)
	other.Body[19]++ // a larger amount
	r, err := w.chain.NewRound([]Submission{other, w.pay(1, nil)})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan answer, 1)
	at := w.liar(func(st *quic.Stream, in *reader, s submission) error {
		if _, err := st.Write((&offer{s.number, 1, *r.Offer(0)}).append(nil)); err != nil {
			return err
		}
		if _, err := in.kind(); err != nil {
			return err
		}
		a, err := in.answer()
		got <- a
		return errors.Join(err, write(st, &verdict{number: s.number}))
	})
	c := w.dial(at)
	if v, err := c.Submit(t.Context(), mine, own(0)); err != nil || v.Code != CodeBatched {
		t.Fatal(v, err)
	}
	roots := map[string]*[distill.BodyBytes]byte{"its own": &mine.Body, "the liar's": &other.Body}
	share := (<-got).share
	for whose, body := range roots {
		root, err := w.chain.Root(body, r.Offer(0))
		if err != nil {
			t.Fatal(err)
		}
		same := own(0).SignShare(w.chain.RootMessage(root, 2)) == share
		if same != (whose == "its own") {
			t.Errorf("it signed %s root: %v", whose, same)
		}
	}
}

func write(st *quic.Stream, v *verdict) error {
	_, err := st.Write(v.append(nil))
	return err
}

// TestLiars: a broker that breaks the protocol loses the connection, at once.
func TestLiars(t *testing.T) {
	place := distill.Offer{Index: 0, Count: 1}
	for name, act := range map[string]func(st *quic.Stream, s submission) []byte{
		"an offer of nothing":  func(_ *quic.Stream, s submission) []byte { return (&offer{s.number + 1, 1, place}).append(nil) },
		"a verdict on nothing": func(_ *quic.Stream, s submission) []byte { return (&verdict{number: s.number + 1}).append(nil) },
		"an unknown code": func(_ *quic.Stream, s submission) []byte {
			return (&verdict{s.number, Verdict{Code: codes}}).append(nil)
		},
		"an unknown type": func(*quic.Stream, submission) []byte { return []byte{77} },
		"offers without end": func(_ *quic.Stream, s submission) (b []byte) {
			for round := range uint32(maxOffers + 1) {
				b = (&offer{s.number, round, place}).append(b)
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			at := w.liar(func(st *quic.Stream, _ *reader, s submission) error {
				_, err := st.Write(act(st, s))
				return err
			})
			c := w.dial(at)
			if _, err := c.Submit(t.Context(), w.pay(0, nil), own(0)); !errors.Is(err, ErrLied) {
				t.Errorf("%v", err)
			}
			if _, err := c.Submit(t.Context(), w.pay(1, nil), own(1)); !errors.Is(err, ErrLied) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// TestHostile: a client that breaks the protocol is cut off, and the broker goes on.
func TestHostile(t *testing.T) {
	w := newWorld(t)
	s, at := w.broker(nil)
	for name, b := range map[string][]byte{
		"an offer":          (&offer{1, 1, distill.Offer{Count: 1}}).append(nil),
		"no transfer":       (&submission{1, Submission{Body: [distill.BodyBytes]byte{31: 9}}}).append(nil),
		"one number twice":  append((&submission{1, w.pay(0, nil)}).append(nil), (&submission{1, w.pay(1, nil)}).append(nil)...),
		"a second greeting": appendHello(nil, w.chain),
	} {
		m := w.mute(at)
		if _, err := m.st.Write(b); err != nil {
			t.Fatal(err)
		}
		var gone *quic.ApplicationError
		for {
			_, err := m.r.kind()
			if err == nil {
				_, err = m.r.offer()
			}
			if errors.As(err, &gone) && gone.ErrorCode == closeMalformed {
				break
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
		}
	}
	idle(t, s)
	if v, err := w.dial(at).Submit(t.Context(), w.pay(5, nil), own(5)); err != nil || !v.Taken() {
		t.Error(v, err)
	}
}

// TestLateOffer: an offer that has waited so long that the broker waits no more is not signed: the time goes to one that is not late.
func TestLateOffer(t *testing.T) {
	w := newWorld(t)
	c := &Conn{chain: w.chain, jobs: make(chan job, 2), wake: make(chan struct{}, 1)}
	place := distill.Offer{Count: 1}
	for number, until := range []time.Time{time.Now().Add(-time.Millisecond), time.Now().Add(time.Hour)} {
		c.jobs <- job{&call{body: w.pay(number, nil).Body, key: own(number)}, until, offer{uint32(number), 1, place}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.sign(ctx) }()
	<-c.wake
	cancel()
	<-done
	r := newReader(bytes.NewReader(c.out[1:]))
	if a, err := r.answer(); err != nil || a.number != 1 || len(c.out) != 1+answerBytes {
		t.Errorf("%d bytes of answers, the first to offer %d: %v", len(c.out), a.number, err)
	}
}
