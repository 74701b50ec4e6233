package trace

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

var update = flag.Bool("update", false, "rewrite the golden vectors in testdata/")

var (
	committee = simtest.Committee(1, 1, 1, 1, 1)
	keys      = simtest.NewKeys(4)
	genesis   = simtest.Genesis(committee)
	child     = simtest.Child(committee, genesis, 1, []byte("body"))
)

func vote(i int, k consensus.Kind, view consensus.View, block consensus.Hash) consensus.Vote {
	st := consensus.Statement{Kind: k, Shard: committee.Shard, Epoch: committee.Epoch, View: view, Block: block}
	return consensus.Vote{Statement: st, Validator: uint16(i), Signature: keys.Signer(i).Sign(consensus.VoteMessage(simtest.Chain, st))}
}

func certificate(k consensus.Kind, view consensus.View, block consensus.Hash) consensus.Certificate {
	cert := consensus.Certificate{Signers: consensus.NewSigners(4)}
	var sigs []consensus.Signature
	for i := range 3 {
		v := vote(i, k, view, block)
		cert.Statement = v.Statement
		cert.Signers.Add(i)
		sigs = append(sigs, v.Signature)
	}
	var err error
	if cert.Signature, err = keys.Aggregate(sigs); err != nil {
		panic(err)
	}
	return cert
}

// events are one of each kind, and of each form.
func events() []simplex.Event {
	h := child.Header.Hash()
	leader := committee.Leader(1)
	sharded := *child.Header
	sharded.Body = cut.Ref()
	return []simplex.Event{
		simplex.ProposalReceived{From: leader, Proposal: &consensus.Proposal{Block: child, Vote: vote(leader, consensus.Notarize, 1, h)}},
		simplex.Judged{Block: h, Valid: true},
		simplex.VoteReceived{From: 2, Vote: vote(2, consensus.Notarize, 1, h)},
		simplex.CertificateReceived{From: -1, Cert: certificate(consensus.Notarize, 1, h)},
		simplex.TimerFired{View: 2},
		simplex.Tick{},
		simplex.Built{View: 2},
		simplex.Built{View: 2, Block: &child},
		simplex.BlockFetched{From: 1, Block: child},
		simplex.BlockFetched{From: 1, Block: child, Notarization: certificate(consensus.Notarize, 1, h)},
		simplex.CertificateReceived{From: 3, Cert: certificate(consensus.Finalize, 1, h)},
		simplex.Synced{Header: genesis},
		simplex.Judged{Block: consensus.Hash{7}},
		simplex.PartReceived{From: 2, Part: cut.Part(2, &sharded, vote(leader, consensus.Notarize, 1, sharded.Hash()))},
		simplex.Rebuilt{Block: h, Shreds: cut},
		simplex.Rebuilt{Block: consensus.Hash{8}},
	}
}

// cut is a body in shards.
var cut = func() *shred.Set {
	set, err := shred.Cut(committee, []byte("a body in shards"))
	if err != nil {
		panic(err)
	}
	return set
}()

// record writes the trace of a machine that is told events, after a restart.
func record(t testing.TB, size int64) ([]byte, *Writer) {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf, size)
	self := (committee.Leader(1) + 1) % 4
	old := vote(self, consensus.Nullify, 0, consensus.Hash{})
	null := certificate(consensus.Nullify, 9, consensus.Hash{})
	null.Epoch++ // of another epoch: the machine skips it
	c := simplex.Config{
		Chain: simtest.Chain, Root: genesis, Committee: committee, Keys: keys, Signer: keys.Signer(self), Index: self,
		Timing: simplex.Timing{View: time.Second, Cap: 4 * time.Second, GrowthPercent: 200},
		Log:    []simplex.Record{{Vote: &old}, {Cert: &null}, {Floor: &simplex.Floor{Shard: 3, Epoch: 1, View: 4}}},
		Blocks: []consensus.Block{child},
	}
	w.Start(&c)
	m, r, err := simplex.New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.Made(r)
	for _, e := range events() {
		w.Step(e, m.Step(e))
	}
	return buf.Bytes(), w
}

func check(b []byte) (Report, error) {
	return Check(bytes.NewReader(b), simtest.Chain, committee, keys)
}

// TestGolden pins the bytes of a trace that has one of each kind of frame, record and event, and that they pass.
func TestGolden(t *testing.T) {
	b, w := record(t, 1<<20)
	if w.Err() != nil {
		t.Fatal(w.Err())
	}
	r, err := check(b)
	if err != nil || r.Steps != 1+len(events()) || r.Votes < 3 || r.Torn {
		t.Errorf("%+v, %v", r, err)
	}
	const path = "testdata/trace.hex"
	var text strings.Builder
	for line := b; len(line) > 0; line = line[min(len(line), 60):] {
		fmt.Fprintln(&text, hex.EncodeToString(line[:min(len(line), 60)]))
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Error("the format differs from testdata/trace.hex: a new one needs a new version; then run with -update and review")
	}
}

// TestEvents: what is read is what was written.
func TestEvents(t *testing.T) {
	for _, e := range events() {
		b, err := appendEvent(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		s := cryptobyte.String(b)
		got, err := readEvent(&s, committee)
		if err != nil || !s.Empty() {
			t.Fatalf("%T: %v, %d bytes left", e, err, len(s))
		}
		if again, err := appendEvent(nil, got); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%T: %v, written again\n%x\nbefore\n%x", e, err, again, b)
		}
	}
}

// TestEnds: a trace may end anywhere; what is whole counts. With bytes missing in the middle it is none.
func TestEnds(t *testing.T) {
	b, _ := record(t, 1<<20)
	steps := 0
	for n := range len(b) {
		r, err := check(b[:n])
		if err != nil || r.Steps < steps {
			t.Fatalf("%d of %d bytes: %+v, %v", n, len(b), r, err)
		}
		steps = r.Steps
	}
	if _, err := check(append(bytes.Clone(b[:400]), b[401:]...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("with a byte missing: %v", err)
	}
	other := simtest.Committee(2, 1, 1, 1, 1)
	if _, err := Check(bytes.NewReader(b), simtest.Chain, other, keys); !errors.Is(err, ErrMalformed) {
		t.Errorf("of another committee: %v", err)
	}
}

// TestSize: a writer stops at its size, before the frame that does not fit, and says so. A nil one does nothing.
func TestSize(t *testing.T) {
	whole, _ := record(t, 1<<20)
	size := int64(len(whole) * 2 / 3)
	b, w := record(t, size)
	r, err := check(b)
	if !errors.Is(w.Err(), ErrFull) || int64(len(b)) > size || err != nil || r.Torn || r.Steps < 2 {
		t.Errorf("%d of %d bytes: %v; checked: %+v, %v", len(b), size, w.Err(), r, err)
	}
	var none *Writer
	none.Start(nil)
	none.Made(simplex.Ready{})
	none.Step(simplex.Tick{}, simplex.Ready{})
	if none.Err() != nil {
		t.Error(none.Err())
	}
}

// FuzzCheck: whatever a file holds, it is judged, in bounded memory.
func FuzzCheck(f *testing.F) {
	b, _ := record(f, 1<<20)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		resum(b)
		r, err := check(b)
		if err == nil && !r.Torn && r.Steps == 0 && len(b) > 4096 {
			t.Errorf("%d bytes and no step: %+v", len(b), r)
		}
	})
}

// resum makes the checksums of frames right, so that the fuzzer gets past them.
func resum(b []byte) {
	for len(b) >= frameHead {
		n := int(binary.BigEndian.Uint32(b))
		if n <= 0 || n > len(b)-frameHead {
			return
		}
		binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[frameHead:frameHead+n], castagnoli))
		b = b[frameHead+n:]
	}
}
