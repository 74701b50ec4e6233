package p2p

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"tutti/netstack"
)

func frames(b []byte, limit int) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(bytes.NewReader(b), bufferBytes), max: limit}
}

func TestFrameGolden(t *testing.T) {
	var out bytes.Buffer
	for _, p := range []string{"", "abc", string(make([]byte, 3))} {
		if err := writeFrame(&out, []byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	const want = "00000000" + "00000003616263" + "00000003000000"
	if got := hex.EncodeToString(out.Bytes()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFrameRead(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789"), 3*growBytes/10)
	var whole bytes.Buffer
	if err := writeFrame(&whole, big); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		in   []byte
		max  int
		want error // of length or payload
	}{
		{"empty stream", nil, 10, io.EOF},
		{"cut head", []byte{0, 0, 0}, 10, io.ErrUnexpectedEOF},
		{"no payload", []byte{0, 0, 0, 1}, 10, io.ErrUnexpectedEOF},
		{"cut payload", []byte{0, 0, 0, 2, 7}, 10, io.ErrUnexpectedEOF},
		{"at the limit", []byte{0, 0, 0, 1, 7}, 1, nil},
		{"over the limit", []byte{0, 0, 0, 2, 7, 7}, 1, netstack.ErrTooLarge},
		{"longest length", []byte{255, 255, 255, 255}, netstack.MaxResponseBytes, netstack.ErrTooLarge},
		{"grows", whole.Bytes(), len(big), nil},
		{"grows, cut", whole.Bytes()[:growBytes+100], len(big), io.ErrUnexpectedEOF},
		{"grows, cut at a step", whole.Bytes()[:growBytes+frameHeadBytes], len(big), io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, slow := range []bool{false, true} {
				f := frames(tt.in, tt.max)
				if slow {
					f.r = bufio.NewReader(iotest.OneByteReader(bytes.NewReader(tt.in)))
				}
				n, err := f.length()
				var p []byte
				if err == nil {
					p, err = f.payload(n)
				}
				if !errors.Is(err, tt.want) {
					t.Fatalf("got %v, want %v", err, tt.want)
				}
				if err == nil && !bytes.Equal(p, tt.in[frameHeadBytes:]) {
					t.Fatal("another payload")
				}
			}
			f := frames(tt.in, tt.max)
			if n, err := f.length(); err == nil {
				if err := f.skip(n); !errors.Is(err, tt.want) {
					t.Fatalf("skip: got %v, want %v", err, tt.want)
				}
			}
		})
	}
}

// FuzzFrames reads arbitrary bytes as frames: what is read encodes to what was read, memory is bounded by the input,
// and passing over a frame ends where reading it does.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0}, uint32(10))
	f.Add([]byte{0, 0, 0, 9, 'a'}, uint32(9))
	f.Add([]byte{255, 255, 255, 255}, uint32(netstack.MaxProposalBytes))
	f.Add(append([]byte{0, 1, 0, 1}, make([]byte, growBytes+1)...), uint32(1<<20))
	f.Fuzz(func(t *testing.T, in []byte, limit uint32) {
		limit %= netstack.MaxResponseBytes + 1
		read, skipped := frames(in, int(limit)), frames(in, int(limit))
		var out bytes.Buffer
		for {
			n, err := read.length()
			m, err2 := skipped.length()
			if n != m || (err == nil) != (err2 == nil) {
				t.Fatal("skipping ended elsewhere than reading")
			}
			if err != nil {
				break
			}
			if n > int(limit) {
				t.Fatalf("frame of %d bytes, limit %d", n, limit)
			}
			p, err := read.payload(n)
			err2 = skipped.skip(n)
			if cap(p) > max(growBytes, 2*len(in)) {
				t.Fatalf("%d bytes set aside for an input of %d", cap(p), len(in))
			}
			if (err == nil) != (err2 == nil) {
				t.Fatalf("read %v, skip %v", err, err2)
			}
			if err != nil {
				break
			}
			if err := writeFrame(&out, p); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(in, out.Bytes()) {
			t.Fatal("frames do not encode to what they were read from")
		}
	})
}
