package statesync

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"tutti/state/ledger"
)

var update = flag.Bool("update", false, "rewrite golden files in testdata")

// exchange is a request and an answer to it.
type exchange struct {
	name   string
	ask    request
	answer []byte
}

// encodeAnswer is the definition in wire.go, for parts that are not made by a ledger.
func encodeAnswer(typ byte, parts ...[]byte) []byte {
	b := []byte{typ | answerBit}
	switch typ {
	case typeChunks:
		b = append(b, byte(len(parts)))
	case typeDifferences:
		b = binary.BigEndian.AppendUint16(b, uint16(len(parts)))
	default:
		return append(b, parts[0]...)
	}
	for _, p := range parts {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
	}
	return b
}

func exchanges() []exchange {
	two := []ledger.ChunkID{{Partition: 3, Index: 9}, {Partition: 4, Index: 0}}
	return []exchange{
		{"outline", request{typ: typeOutline}, encodeAnswer(typeOutline, []byte("outline"))},
		{"chunks", request{typ: typeChunks, chunks: two}, encodeAnswer(typeChunks, []byte("chunk 9"), []byte("0"))},
		{"fewer chunks", request{typ: typeChunks, chunks: two}, encodeAnswer(typeChunks, []byte("chunk 9"))},
		{"differences", request{typ: typeDifferences, from: 77, most: 4096}, encodeAnswer(typeDifferences, []byte("77"), []byte("seventy-eight"))},
		{"tops", request{typ: typeTops, from: 5, most: 2}, encodeAnswer(typeTops, bytes.Repeat([]byte("t"), topBytes))},
		{"keys", request{typ: typeKeys, from: 4096, most: 1}, encodeAnswer(typeKeys, bytes.Repeat([]byte("k"), keyBytes))},
		{"outbox", request{typ: typeOutbox, shard: 6, from: 10, to: 12}, encodeAnswer(typeOutbox, []byte("outbox"))},
		{"busy", request{typ: typeOutline}, refusal{why: busy, wait: 1500 * time.Millisecond}.encode()},
		{"not kept", request{typ: typeDifferences, from: 1, most: 1}, refusal{why: notKept, kept: 1 << 40}.encode()},
		{"not here", request{typ: typeOutbox, shard: 1, from: 1, to: 2}, refusal{why: notHere}.encode()},
	}
}

// TestGolden pins every message.
func TestGolden(t *testing.T) {
	var got strings.Builder
	for _, x := range exchanges() {
		fmt.Fprintf(&got, "%s: %x\n  = %x\n", x.name, x.ask.encode(), x.answer)
	}
	const path = "testdata/golden.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the wire format changed; run with -update and review:\n%s", got.String())
	}
}

// reencode decodes an answer and encodes it again.
func reencode(r *request, b []byte) ([]byte, error) {
	parts, err := decodeAnswer(r, b)
	var no refusal
	switch {
	case errors.As(err, &no):
		return no.encode(), nil
	case err != nil:
		return nil, err
	}
	return encodeAnswer(r.typ, parts...), nil
}

// TestWire: every message round-trips, and every shorter or longer one of fixed length is refused.
func TestWire(t *testing.T) {
	for _, x := range exchanges() {
		ask := x.ask.encode()
		r, err := decodeRequest(ask)
		if err != nil || !bytes.Equal(r.encode(), ask) {
			t.Fatalf("%s: request: %v", x.name, err)
		}
		for cut := range len(ask) {
			if _, err := decodeRequest(ask[:cut]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: request cut to %d bytes: %v", x.name, cut, err)
			}
		}
		if _, err := decodeRequest(append(ask, 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: request with a trailing byte: %v", x.name, err)
		}
		got, err := reencode(r, x.answer)
		if err != nil || !bytes.Equal(got, x.answer) {
			t.Errorf("%s: answer: %x, %v", x.name, got, err)
		}
		if x.ask.typ == typeOutline || x.ask.typ == typeOutbox {
			continue // as long as its part, which says itself how long it is
		}
		for cut := range len(x.answer) {
			if _, err := decodeAnswer(r, x.answer[:cut]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: answer cut to %d bytes: %v", x.name, cut, err)
			}
		}
		if _, err := decodeAnswer(r, append(bytes.Clone(x.answer), 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: answer with a trailing byte: %v", x.name, err)
		}
	}
}

// TestWireLimits: what is over a limit, out of order, or not an answer to the question is refused.
func TestWireLimits(t *testing.T) {
	id := func(p uint16, i uint32) ledger.ChunkID { return ledger.ChunkID{Partition: p, Index: i} }
	for name, r := range map[string]request{
		"no chunks":           {typ: typeChunks},
		"chunks out of order": {typ: typeChunks, chunks: []ledger.ChunkID{id(1, 1), id(1, 0)}},
		"a chunk twice":       {typ: typeChunks, chunks: []ledger.ChunkID{id(1, 1), id(1, 1)}},
		"too many chunks":     {typ: typeChunks, chunks: make([]ledger.ChunkID, MaxChunks+1)},
		"no differences":      {typ: typeDifferences, from: 1},
		"too many bytes":      {typ: typeDifferences, from: 1, most: MaxDifferenceBytes + 1},
		"too many tops":       {typ: typeTops, most: ledger.MaxTops + 1},
		"too many keys":       {typ: typeKeys, most: MaxKeys + 1},
		"receipts backwards":  {typ: typeOutbox, from: 5, to: 5},
		"no type":             {typ: 0x07},
	} {
		if _, err := decodeRequest(r.encode()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	one := &request{typ: typeChunks, chunks: []ledger.ChunkID{id(1, 1)}}
	keys := &request{typ: typeKeys, most: 1}
	for name, x := range map[string]struct {
		r *request
		b []byte
	}{
		"more chunks than asked for": {one, encodeAnswer(typeChunks, []byte("a"), []byte("b"))},
		"no chunk":                   {one, encodeAnswer(typeChunks)},
		"an empty chunk":             {one, encodeAnswer(typeChunks, nil)},
		"another type":               {one, encodeAnswer(typeOutline, []byte("a"))},
		"more keys than asked for":   {keys, encodeAnswer(typeKeys, make([]byte, 2*keyBytes))},
		"half a key":                 {keys, encodeAnswer(typeKeys, make([]byte, keyBytes/2))},
		"no keys":                    {keys, encodeAnswer(typeKeys, nil)},
		"no outline":                 {&request{typ: typeOutline}, encodeAnswer(typeOutline, nil)},
		"too long":                   {&request{typ: typeOutline}, encodeAnswer(typeOutline, make([]byte, MaxAnswerBytes))},
		"a wait without end":         {one, []byte{typeRefusal, byte(busy), 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		"kept, though busy":          {one, refusal{why: busy, kept: 1}.encode()},
		"a refusal without a word":   {one, refusal{}.encode()},
	} {
		if _, err := decodeAnswer(x.r, x.b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRequest: whatever decodes encodes to exactly the same bytes.
func FuzzRequest(f *testing.F) {
	for _, x := range exchanges() {
		f.Add(x.ask.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err == nil && !bytes.Equal(r.encode(), b) {
			t.Fatal("decodes but encodes differently")
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("not ErrMalformed: %v", err)
		}
	})
}

// FuzzAnswer: whatever decodes as an answer to some request encodes to exactly the same bytes.
func FuzzAnswer(f *testing.F) {
	for _, x := range exchanges() {
		f.Add(x.ask.encode(), x.answer)
	}
	f.Fuzz(func(t *testing.T, ask, b []byte) {
		r, err := decodeRequest(ask)
		if err != nil {
			return
		}
		got, err := reencode(r, b)
		if err == nil && !bytes.Equal(got, b) {
			t.Fatalf("decodes but encodes differently: %s, %s", hex.EncodeToString(b), hex.EncodeToString(got))
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("not ErrMalformed: %v", err)
		}
	})
}
