// Package blocklog is what one validator must not forget: the blocks of its shard with the finalizations over them
// (block log), and its own votes with the certificates that a restart needs (vote log).
//
// # Folder
//
//	FORMAT                text: format version, chain (genesis hash), shard; written last when the folder is made
//	LOCK                  held while a process uses the folder
//	blocks-NNNNNNNN.log   segments of the block log, numbered without gaps from the oldest kept
//	votes.log             the vote log, one file, replaced as a whole when compacted
//
// The finalised chain may begin at any height: retention removes the oldest blocks, and the log of a node that took its
// state from peers begins with the block of that state. It goes through epochs without a seam. Echoes (consensus.Echo) are held
// like blocks and are not in the chain; the finalization of an echo stands at the height of the last block of its epoch, and
// both go with the segments that they are in (EpochEnd).
//
// Both kinds of file hold framed records (frame.go): every record carries a CRC-32C (Castagnoli) over its bytes, its place
// and a random salt of its file, and the offset up to which the file was durable when the record was written.
//
// # What a crash may do, and what is damage
//
// Bytes appended since the last Sync may be lost, cut, zeroed or reordered by a crash. Such a torn tail exists only at the
// end of the last file; Open cuts it off. A record that cannot be read although a later one proves that it was durable,
// or that is not in the last segment, is damage: Open fails with a *CorruptionError and changes nothing.
// Damage to the very last synced records cannot be told from a torn tail; that is a limit of any log without a second copy.
//
// # Durability
//
// Append* hands bytes to the file system. Sync makes them durable (fdatasync), blocks first, then votes, and only then may
// a vote leave. A new file is synced before its directory, and the directory before the first record in it counts as synced.
// Any failed write or sync is fatal: the Log returns the same *WriteError from then on, because what the disk holds is unknown.
//
// # Bounds
//
// Segments that lie wholly below (final height - Retention) are removed, oldest first; nothing above ever is. A segment
// holds no more than a quarter of the blocks that Retention keeps, or 1,024, so that small blocks go in time. RAM holds
// about 200 bytes for each block kept, never bodies. The vote log is rewritten when it has grown past VoteLogBytes and
// twice its last compacted size; what is kept grows only with the number of views since the last finalization.
//
// A Log has one writer (the engine's goroutine); readers may be many and run beside it.
package blocklog

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// FormatVersion is the version of the folder that this build reads and writes.
const FormatVersion = 1

const (
	formatName = "FORMAT"
	lockName   = "LOCK"
	votesName  = "votes.log"
	tempSuffix = ".tmp"
)

// Options of Open. FS, Dir, Chain and Retention are required.
type Options struct {
	FS    vfs.FS
	Dir   string         // its parent must exist
	Chain consensus.Hash // genesis hash; a folder of another chain is refused
	Shard consensus.ShardID

	// Create permits making the folder when it is not there. Without it a missing folder is an error: an empty disk is
	// not a validator that never voted.
	Create bool

	Retention    consensus.Height // finalised blocks kept below the last one; at least MinRetention, or Forever
	SegmentBytes int64            // a segment of the block log is closed at this size, or before; default 64 MiB
	VoteLogBytes int64            // the vote log is compacted from this size on; default 1 MiB
}

// MinRetention covers the deepest chain of blocks that a crash can leave unfinalised in the application.
const MinRetention = 64

// Forever is a Retention that drops nothing, for nodes that keep the whole chain.
const Forever consensus.Height = math.MaxUint64

// segmentBlocks is how many blocks a segment holds at most.
func (o *Options) segmentBlocks() int { return int(min(max(o.Retention/4, 1024), math.MaxInt32)) }

func (o *Options) prepare() error {
	if o.FS == nil || o.Dir == "" || o.Chain.IsZero() {
		return errors.New("blocklog: FS, Dir and Chain are required")
	}
	if o.Retention < MinRetention {
		return fmt.Errorf("blocklog: retention of %d blocks: need at least %d", o.Retention, MinRetention)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 64 << 20
	}
	if o.SegmentBytes < segmentHeadBytes || o.SegmentBytes > 1<<30 {
		return fmt.Errorf("blocklog: segments of %d bytes: need %d to %d", o.SegmentBytes, segmentHeadBytes, 1<<30)
	}
	if o.VoteLogBytes == 0 {
		o.VoteLogBytes = 1 << 20
	}
	return nil
}

// Errors of Open, besides *CorruptionError and *WriteError.
var (
	ErrMissing    = errors.New("there is no consensus log here; if this validator has run before, restore its folder, or copy everything anew with `tutti run --sync` in an empty home, because voting without its log can be slashed; if it is new, run `tutti init`")
	ErrInUse      = errors.New("another process is using this folder; stop it first")
	ErrVersion    = errors.New("the folder has a format that this build does not know; install the version of tutti that wrote it, or a later one")
	ErrOtherChain = errors.New("the folder belongs to another chain or shard; point --home at the right one")
)

// ErrNotFound says that the log does not hold the block; it may have been pruned.
var ErrNotFound = errors.New("blocklog: block not held")

// ErrConflict says that two different blocks would be final at one height: more than a third of the committee is
// Byzantine, or the folder belongs to another fork. Stop and keep the folder as evidence.
var ErrConflict = errors.New("blocklog: finalization contradicts the finalised chain")

// CorruptionError says that bytes which were durable once are no longer what was written.
type CorruptionError struct {
	Path   string
	Offset int64
	Detail string
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("blocklog: %s is damaged at byte %d: %s. %s", e.Path, e.Offset, e.Detail, e.Remedy())
}

// Remedy says what the operator can do.
func (e *CorruptionError) Remedy() string {
	return "Check the disk. Move the folder aside and resync; the vote floor that is made then keeps this validator from voting twice in a view"
}

// WriteError says that the disk did not take a write or a sync. It is fatal: nothing may be sent after it.
type WriteError struct {
	Op, Path string
	Err      error
}

func (e *WriteError) Error() string {
	return fmt.Sprintf("blocklog: %s %s: %v. %s", e.Op, e.Path, e.Err, e.Remedy())
}

func (e *WriteError) Unwrap() error { return e.Err }

// Remedy says what the operator can do.
func (e *WriteError) Remedy() string {
	if errors.Is(e.Err, syscall.ENOSPC) || errors.Is(e.Err, syscall.EDQUOT) {
		return "The disk is full: free space, or lower the retention, and start again"
	}
	return "Check the disk and its mount, and start again"
}

// Log is an open folder.
type Log struct {
	fs   vfs.FS
	dir  string
	lock io.Closer

	records []simplex.Record // as read by Open or left by SetFloor

	// writer side: touched only by the one writer
	votes  *votes
	failed error // the first *WriteError or *CorruptionError; sticky

	mu     sync.RWMutex // guards blocks' index against the readers
	blocks *blocks
}

// Open locks and checks the folder, cuts torn tails, rebuilds the index and makes durable what it read.
func Open(o Options) (_ *Log, err error) {
	if err := o.prepare(); err != nil {
		return nil, err
	}
	l := &Log{fs: o.FS, dir: o.Dir}
	path := o.FS.PathJoin(o.Dir, formatName)
	_, err = o.FS.Stat(path)
	switch missing := err != nil; {
	case missing && !o.Create:
		return nil, fmt.Errorf("blocklog: %s: %w", o.Dir, ErrMissing)
	case missing:
		if err := o.FS.MkdirAll(o.Dir, 0o700); err != nil {
			return nil, &WriteError{"make", o.Dir, err}
		}
	}
	if l.lock, err = o.FS.Lock(o.FS.PathJoin(o.Dir, lockName)); err != nil {
		return nil, fmt.Errorf("blocklog: %s: %w (%v)", o.Dir, ErrInUse, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.lock.Close())
		}
	}()
	if _, err = o.FS.Stat(path); err != nil {
		if err = create(o); err != nil {
			return nil, err
		}
	}
	if err = checkFormat(o, path); err != nil {
		return nil, err
	}
	if l.blocks, err = openBlocks(o); err != nil {
		return nil, err
	}
	if l.votes, l.records, err = openVotes(o); err != nil {
		return nil, errors.Join(err, l.blocks.close())
	}
	return l, nil
}

// create makes an empty folder; FORMAT is renamed into place last, so that a crash leaves either no folder or a whole one.
func create(o Options) error {
	names, err := o.FS.List(o.Dir)
	if err != nil {
		return fmt.Errorf("blocklog: %w", err)
	}
	for _, n := range names { // what an earlier create left is empty
		info, err := o.FS.Stat(o.FS.PathJoin(o.Dir, n))
		if err != nil {
			return fmt.Errorf("blocklog: %w", err)
		}
		if strings.HasSuffix(n, ".log") && info.Size() > segmentHeadBytes {
			return &CorruptionError{o.FS.PathJoin(o.Dir, formatName), 0, "the file is gone while logs are there"}
		}
	}
	for _, f := range []struct {
		name string
		kind byte
	}{{votesName, kindVotes}, {segmentName(1), kindBlocks}} {
		if err := createFile(o.FS, o.FS.PathJoin(o.Dir, f.name), f.kind, FormatVersion, 1); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("tutti consensus log\nversion %d\nchain %s\nshard %d\n", FormatVersion, o.Chain, o.Shard)
	final := o.FS.PathJoin(o.Dir, formatName)
	if err := writeFile(o.FS, final+tempSuffix, []byte(text)); err != nil {
		return err
	}
	if err := syncDir(o.FS, o.Dir); err != nil { // the logs exist before FORMAT says so
		return err
	}
	if err := o.FS.Rename(final+tempSuffix, final); err != nil {
		return &WriteError{"rename", final, err}
	}
	if err := syncDir(o.FS, o.Dir); err != nil {
		return err
	}
	return syncDir(o.FS, o.FS.PathDir(o.Dir))
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return &WriteError{"open", dir, err}
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return &WriteError{"sync", dir, err}
	}
	return nil
}

// checkFormat compares FORMAT with what this build and this node expect.
func checkFormat(o Options, path string) error {
	f, err := o.FS.Open(path)
	if err != nil {
		return fmt.Errorf("blocklog: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("blocklog: %w", err)
	}
	field := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		k, v, _ := strings.Cut(s.Text(), " ")
		field[k] = v
	}
	version, err := strconv.ParseUint(field["version"], 10, 32)
	if err != nil || field["tutti"] != "consensus log" {
		return &CorruptionError{path, 0, "not a description of a consensus log"}
	}
	if version != FormatVersion {
		return fmt.Errorf("blocklog: %s: version %d: %w", o.Dir, version, ErrVersion)
	}
	if field["chain"] != hex.EncodeToString(o.Chain[:]) || field["shard"] != strconv.Itoa(int(o.Shard)) {
		return fmt.Errorf("blocklog: %s: chain %.8s shard %s, wanted chain %s shard %d: %w",
			o.Dir, field["chain"], field["shard"], o.Chain.Short(), o.Shard, ErrOtherChain)
	}
	return nil
}

// Records is what the vote log held at Open, or after SetFloor or Protect, oldest first: the input of the machine's restart.
func (l *Log) Records() []simplex.Record { return l.records }

// ErrVoted says that the vote log has own votes in it, so that it is not the log of a validator that lost its votes.
var ErrVoted = errors.New("blocklog: the vote log holds votes of this validator, and no floor can be put under them: start with it as it is, or move the folder aside")

// SetFloor makes durable that no own vote may leave in views up to the floor's (simplex, rule R17), with the certificate
// that it was made from, if there is one. Of several floors of an epoch the highest counts. Errors: ErrVoted, *WriteError. Writer only,
// before the machine is made.
func (l *Log) SetFloor(f simplex.Floor, leading *consensus.Certificate) error {
	return l.guard(func() error {
		records, err := l.votes.setFloor(f, leading)
		if err == nil {
			l.records = records
		}
		return err
	})
}

// Protect makes durable, in one step, that no own vote may leave in views up to the floor's, if there is one, and that these
// votes were cast, all above it: what another log of this validator is known to hold. Own votes up to the floor, which bars
// all that they bar, are dropped. Of several floors the highest counts. Error: *WriteError. Writer only, before the machine
// is made.
func (l *Log) Protect(floor *simplex.Floor, votes []consensus.Vote) error {
	return l.guard(func() error {
		records, err := l.votes.protect(floor, votes)
		if err == nil {
			l.records = records
		}
		return err
	})
}

// AppendRecord appends one record to the vote log. Writer only.
func (l *Log) AppendRecord(r simplex.Record) error {
	return l.guard(func() error { return l.votes.append(r) })
}

// AppendBlock appends a block; one that is held already is not written again. Writer only.
func (l *Log) AppendBlock(bl consensus.Block) error {
	return l.guard(func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.blocks.appendBlock(bl)
	})
}

// AppendFinal records that cert, a finalization that the caller has verified, makes its block and the block's ancestors
// final; of an echo, which must be held too, the last block of the epoch below it. The block must be held, and its ancestors down to the last final one. In a log where nothing is final yet, the
// ancestors that are held become final, without a gap: so the log of a node whose state came from peers begins above
// height 1. A finalization at or below the last final height changes nothing. Errors: ErrNotFound, ErrConflict, *WriteError. Writer only.
func (l *Log) AppendFinal(cert *consensus.Certificate) error {
	return l.guard(func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.blocks.appendFinal(cert)
	})
}

// ImproveFinal puts cert in the place of the finalization of the same block, or of a lower echo, that is held: the caller has
// verified it, and it has more signers. It needs no sync of its own, for losing it loses nothing. Errors: ErrNotFound where its
// block is not final or was pruned, *WriteError. Writer only.
func (l *Log) ImproveFinal(cert *consensus.Certificate) error {
	return l.guard(func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.blocks.improveFinal(cert)
	})
}

// Sync makes everything appended durable, blocks before votes, and then drops what retention no longer covers. Writer only.
func (l *Log) Sync() error {
	return l.guard(func() error {
		if err := l.blocks.sync(); err != nil {
			return err
		}
		if err := l.votes.sync(); err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.blocks.prune()
	})
}

// guard makes the first fatal error the only answer from then on.
func (l *Log) guard(f func() error) error {
	if l.failed != nil {
		return l.failed
	}
	err := f()
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrVoted) {
		l.failed = err
	}
	return err
}

// Close releases the folder. What was not synced may be lost. Readers must have ended.
func (l *Log) Close() error {
	return errors.Join(l.blocks.close(), l.votes.close(), l.lock.Close())
}
