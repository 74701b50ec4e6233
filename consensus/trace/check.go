package trace

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Bounds of what a machine is made from, so that a trace cannot make its reader hold more than it is worth.
const (
	maxStartItems = 1 << 20
	maxStartBytes = 1 << 30
)

// Errors of Check: a trace is either not one, or is one of a step that the machine does not take.
var (
	ErrMalformed = errors.New("not a trace that this build writes: take one of the same version, or look at the file's disk")
	ErrRefused   = errors.New("the machine does not do this: keep the trace and the node's folder, for the node or its build is not what it should be")
)

// Report says what a checked trace held.
type Report struct {
	Index int  // the validator's, -1 for an observer
	Steps int  // with the making of the machine
	Votes int  // own votes cast in them
	Torn  bool // the end of the last frame is missing
}

// Check reads a trace and replays it through a fresh machine of this committee. The error wraps ErrMalformed, ErrRefused or
// the reader's; the Report counts what was right before it.
func Check(r io.Reader, chain consensus.Hash, c *consensus.Committee, keys consensus.Keys) (Report, error) {
	k := &checker{r: bufio.NewReaderSize(r, 1<<16), signer: signer{}}
	k.config = simplex.Config{Chain: chain, Committee: c, Keys: keys, Index: -1}
	err := k.run()
	return k.report, err
}

// checker is one run of Check.
type checker struct {
	r       *bufio.Reader
	config  simplex.Config
	signer  signer
	machine *simplex.Machine
	report  Report
	held    int // bytes of records and blocks
}

// signer has the own signatures of a trace by message; without one it signs with nothing, which no key verifies.
type signer map[string]consensus.Signature

// Sign looks the signature up.
func (s signer) Sign(msg []byte) consensus.Signature { return s[string(msg)] }

func malformed(format string, args ...any) error {
	return fmt.Errorf("trace: "+format+": %w", append(args, ErrMalformed)...)
}

func (k *checker) run() error {
	k.report.Index = -1
	for n := 0; ; n++ {
		payload, err := k.frame()
		if err != nil || payload == nil {
			return err
		}
		s := cryptobyte.String(payload[1:])
		switch typ := payload[0]; {
		case (typ == frameStart) != (n == 0):
			return malformed("frame %d of type %d: a trace begins with one start", n, typ)
		case typ == frameStart:
			err = k.start(&s)
		case typ == frameRecord && k.machine == nil, typ == frameBlock && k.machine == nil:
			err = k.item(typ, &s, len(payload))
		case typ == frameStep:
			err = k.step(&s)
		default:
			err = malformed("frame %d of type %d out of place", n, typ)
		}
		if err == nil && !s.Empty() {
			err = malformed("frame %d with %d bytes too many", n, len(s))
		}
		if err != nil {
			return err
		}
	}
}

// frame reads the next frame's payload; nil at the end.
func (k *checker) frame() ([]byte, error) {
	var head [frameHead]byte
	if n, err := io.ReadFull(k.r, head[:]); err != nil {
		k.report.Torn = n > 0
		return nil, ended(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > uint32(maxFrame) {
		return nil, malformed("a frame of %d bytes", n)
	}
	payload, err := io.ReadAll(io.LimitReader(k.r, int64(n))) // no more memory than there is file
	if err != nil || len(payload) < int(n) {
		k.report.Torn = true
		return nil, err
	}
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		if _, err := k.r.Peek(1); err != nil {
			k.report.Torn = true
			return nil, ended(err)
		}
		return nil, malformed("a frame with a wrong checksum")
	}
	return payload, nil
}

func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("trace: reading: %w", err)
}

func (k *checker) start(s *cryptobyte.String) error {
	var name []byte
	var v uint8
	var chain, committee consensus.Hash
	if !s.ReadBytes(&name, len(magic)) || string(name) != magic || !s.ReadUint8(&v) || v != version {
		return malformed("no start of version %d", version)
	}
	if !s.CopyBytes(chain[:]) || !s.CopyBytes(committee[:]) || chain != k.config.Chain || committee != k.config.Committee.Hash() {
		return malformed("of another chain or committee")
	}
	var index, growth, depth, tailBody uint32
	var view, limit, window, tailDepth, reach uint64
	ok := s.ReadUint32(&index) && s.ReadUint64(&view) && s.ReadUint64(&limit) && s.ReadUint32(&growth) &&
		s.ReadUint64(&window) && s.ReadUint32(&depth) && s.ReadUint64(&tailDepth) && s.ReadUint32(&tailBody) && s.ReadUint64(&reach)
	c := &k.config
	c.Index = int(int32(index))
	c.Timing = simplex.Timing{View: time.Duration(view), Cap: time.Duration(limit), GrowthPercent: int(int32(growth))}
	c.Limits = simplex.Limits{
		Window: consensus.View(window), Depth: int(int32(depth)), TailDepth: consensus.Height(tailDepth),
		TailBody: int(int32(tailBody)), Reach: consensus.Height(reach),
	}
	if !ok || c.Index < -1 || c.Index >= len(c.Committee.Validators) || c.Timing.View <= 0 || c.Timing.Cap < c.Timing.View ||
		c.Timing.Cap > time.Hour || c.Timing.GrowthPercent < 100 || c.Timing.GrowthPercent > 1000 || window > 1<<16 || tailDepth > 1<<32 || reach > 1<<32 {
		return malformed("a start with fields that cannot be")
	}
	k.report.Index = c.Index
	if c.Index >= 0 {
		c.Signer = k.signer
	}
	var err error
	if c.Root, err = readHeader(s); err != nil {
		return err
	}
	c.RootCert, err = readCert(s)
	return err
}

// item is a record or block that the machine is made from.
func (k *checker) item(typ byte, s *cryptobyte.String, size int) error {
	c := &k.config
	if k.held += size; len(c.Log)+len(c.Blocks) >= maxStartItems || k.held > maxStartBytes {
		return malformed("a start of more than %d records and blocks or %d bytes", maxStartItems, maxStartBytes)
	}
	if typ == frameBlock {
		bl, err := readBlock(s)
		c.Blocks = append(c.Blocks, bl)
		return err
	}
	rec, err := readRecord(s)
	c.Log = append(c.Log, rec)
	return err
}

// step takes one step and compares.
func (k *checker) step(s *cryptobyte.String) error {
	event, err := readEvent(s, k.config.Committee)
	if err != nil {
		return err
	}
	if (event == nil) != (k.machine == nil) {
		return malformed("step %d: a machine is made once, and first", k.report.Steps)
	}
	votes, want, err := k.ready(s)
	if err != nil {
		return err
	}
	what := "the making of the machine"
	var r simplex.Ready
	if event == nil {
		k.machine, r, err = simplex.New(k.config)
		if err != nil {
			return fmt.Errorf("trace: %s: %w: %w", what, err, ErrRefused)
		}
	} else {
		what = fmt.Sprintf("step %d, %T in view %d", k.report.Steps, event, k.machine.Status().View)
		r = k.machine.Step(event)
	}
	clear(k.signer)
	var cast []consensus.Vote
	for _, rec := range r.Persist.Records {
		if rec.Vote != nil {
			cast = append(cast, *rec.Vote)
		}
	}
	for i := range max(len(cast), len(votes)) {
		switch {
		case i >= len(votes):
			return fmt.Errorf("trace: %s: the machine votes %s in view %d, the node did not: %w", what, cast[i].Kind, cast[i].View, ErrRefused)
		case i >= len(cast) || cast[i] != votes[i]:
			return fmt.Errorf("trace: %s: the node votes %s in view %d for %s, the machine does not: %w", what, votes[i].Kind, votes[i].View, votes[i].Block.Short(), ErrRefused)
		}
	}
	if digest(r) != want {
		return fmt.Errorf("trace: %s: the node logs, sends or asks for something else than the machine: %w", what, ErrRefused)
	}
	k.report.Steps++
	k.report.Votes += len(votes)
	return nil
}

// ready reads what a step brought, and checks the votes' signatures before the machine gets them.
func (k *checker) ready(s *cryptobyte.String) (votes []consensus.Vote, want [32]byte, err error) {
	var n uint16
	if !s.ReadUint16(&n) || n > maxVotes {
		return nil, want, malformed("step %d: votes", k.report.Steps)
	}
	for range n {
		v, err := readVote(s)
		if err != nil {
			return nil, want, err
		}
		msg := consensus.VoteMessage(k.config.Chain, v.Statement)
		if int(v.Validator) != k.config.Index || !k.config.Keys.Verify(int(v.Validator), msg, v.Signature) {
			return nil, want, fmt.Errorf("trace: step %d: a %s of view %d that is not signed by validator %d: %w", k.report.Steps, v.Kind, v.View, k.config.Index, ErrRefused)
		}
		k.signer[string(msg)] = v.Signature
		votes = append(votes, v)
	}
	if !s.CopyBytes(want[:]) {
		return nil, want, malformed("step %d: no digest", k.report.Steps)
	}
	return votes, want, nil
}
