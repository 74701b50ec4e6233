package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
	"testing/synctest"
	"time"

	"tutti/consensus"
	"tutti/consensus/trace"
)

// TestVerifyTrace: four engines over the in-memory network, one of which loses power and starts again while another is cut
// off for a while; every step that they took is one that the machine allows. A trace with one bit of a vote changed is refused.
func TestVerifyTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		var traces []*bytes.Buffer
		var writers []*trace.Writer
		c.options = func(i int, cfg *Config) {
			b := new(bytes.Buffer)
			cfg.Trace = trace.NewWriter(b, 64<<20)
			traces, writers = append(traces, b), append(writers, cfg.Trace)
		}
		c.start(all(4)...)
		c.reach(5, time.Minute, all(4)...)
		c.crash(1)
		c.reach(10, time.Minute, 0, 2, 3)
		c.start(1)
		c.reach(15, time.Minute, all(4)...)
		c.wire.unplug(2)
		c.reach(18, 2*time.Minute, 0, 1, 3)
		c.stop(all(4)...)
		steps, votes := 0, 0
		for i, b := range traces {
			r, err := trace.Check(bytes.NewReader(b.Bytes()), testChain, c.committee, c.keys)
			if err != nil || r.Torn || writers[i].Err() != nil {
				t.Fatalf("trace %d: %v, %+v, writer: %v", i, err, r, writers[i].Err())
			}
			steps, votes = steps+r.Steps, votes+r.Votes
		}
		if len(traces) != 5 || votes < 100 {
			t.Errorf("%d traces, %d steps, %d votes", len(traces), steps, votes)
		}
		t.Logf("%d traces, %d steps, %d votes", len(traces), steps, votes)

		if _, err := trace.Check(bytes.NewReader(altered(t, traces[0].Bytes(), c.signers[0])), testChain, c.committee, c.keys); !errors.Is(err, trace.ErrRefused) {
			t.Errorf("a vote of another view, signed by the validator: %v", err)
		}
	})
}

// altered is a trace in which the first own vote to finalize is, wherever it stands, a properly signed one for another block.
func altered(t *testing.T, b []byte, signer consensus.Signer) []byte {
	b = bytes.Clone(b)
	for at := 0; at+8 <= len(b); {
		n := int(binary.BigEndian.Uint32(b[at:]))
		payload := b[at+8 : at+8+n]
		// A step of one byte of event or more, then the number of own votes, one of them, and the digest at the end.
		if votes := len(payload) - 32 - consensus.VoteBytes; payload[0] == 4 && votes > 3 && binary.BigEndian.Uint16(payload[votes-2:]) == 1 {
			if v, err := consensus.DecodeVote(payload[votes : votes+consensus.VoteBytes]); err == nil && v.Kind == consensus.Finalize && v.Validator == 0 {
				v.Block[0]++
				v.Signature = signer.Sign(consensus.VoteMessage(testChain, v.Statement))
				v.Append(payload[:votes])
				binary.BigEndian.PutUint32(b[at+4:], crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
				return b
			}
		}
		at += 8 + n
	}
	t.Fatal("no vote to finalize in the trace")
	return nil
}
