// Package store keeps one shard's ledger in a folder: pages of account records, the differences that blocks made,
// the outbox of receipts, the outcomes of those received, the accounts that openings made, and the directory of BLS
// keys. It knows keys, atomicity and durability; what the values mean is the business of state/ledger.
//
// # Layout of a folder
//
//	FORMAT   "tutti-ledger 2", then the binding (hash of the ledger's parameters) in hex; written last at creation
//	RESTORE  the same, instead of FORMAT, while the folder is filled from elsewhere; written first, renamed at the end
//	db/      pebble
//
// Keys are a prefix byte and big-endian numbers:
//
//	's'                             Progress: height of the final block, and the page cursor
//	'b' height 8                    a final block: its difference and what follows from it
//	'p' partition 2, page 4         a page of records
//	'r' shard 2, first sequence 8   receipts to a shard, in order from that sequence number
//	'k' place 8                     an entry of the directory of BLS keys
//	'c' height 8                    what became of the receipts that a final block consumed
//	'o' height 8                    the accounts that a final block opened
//	'e'                             the height from which on 'c' and 'o' were ever written; only in copies
//	'q' shard 2, first sequence 8   the range of all receipts to a shard before that sequence number; one for each 'r',
//	                                but for those that version 1 wrote and whose range was not known any more
//	'y' place 8                     the other coordinate of an entry's point, where that was found to be in the group
//	'f'                             where a ledger begins that was not made from genesis: height 8, and what the block below it
//	                                left: state root 32, hash of its difference 32
//	'x' ...                         notes of a restore: what of the ledger is there already
//
// Version 1 had no 'q'. Open upgrades such a folder: the ledger adds them, in batches that may be repeated, and FORMAT
// is written last.
//
// # Guarantees
//
// A batch is atomic, and durable when Commit returns. Batches come from one goroutine at a time; reads from any.
//
// # What is fatal
//
// Any error of a write, in Open, Commit or pebble's background work, is a *FatalError: the store takes no more batches,
// every later Commit returns the same error, and the process must end; what was committed before is safe. The goroutine
// that met the error is parked for good, so that pebble, which expects the process to exit, never acts on it. A folder that
// must not be used is a *RefusedError, which names the remedy. Damage found later, by whoever reads, is one too
// (ErrCorrupt), and fatal in the same way. Nothing is logged.
package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Version is the format of the folder.
const Version = 2

const (
	formatFile  = "FORMAT"
	restoreFile = "RESTORE"
	formatLine  = "tutti-ledger %d"
	formatBytes = 1 << 10 // at most
	dbFolder    = "db"
)

// Sizes in bytes.
const (
	memTableBytes     = 8 << 20
	defaultCacheBytes = 8 << 20
)

// Options say where a store is and whose.
type Options struct {
	FS      vfs.FS
	Dir     string
	Binding [32]byte // hash of the parameters that the content depends on

	CacheBytes int64 // pebble's cache of blocks read; 0: 8 MiB

	// Upgrade commits what the content of a folder of an older version lacks. It may be called again on a folder on
	// which it was interrupted. nil: older folders are refused.
	Upgrade func(s *Store, version int) error
}

// Store is an open folder. Its methods may be called from any goroutine, Commit from one at a time.
type Store struct {
	dir     string
	db      *pebble.DB
	options *pebble.Options // that db was opened with, defaults filled in
	stalls  stalls

	mu    sync.Mutex
	fatal error         // the first one: *FatalError or *RefusedError
	stuck chan struct{} // closed after a failed write: pebble's locks may be held for good
}

// Create makes a new store in a missing or empty folder. seed commits the first content; the folder counts as created
// only after seed returned and FORMAT is durable.
func Create(o Options, seed func(*Store) error) (*Store, error) {
	names, err := list(o)
	if err != nil {
		return nil, err
	}
	if has(names, formatFile) {
		return nil, &RefusedError{
			o.Dir, ErrExists, "it holds a ledger already",
			"start without creating, or name another folder",
		}
	}
	if len(names) > 0 {
		return nil, incomplete(o.Dir, names)
	}
	if err := makeDir(o.FS, o.Dir); err != nil {
		return nil, newFatal(o.Dir, "create", err)
	}
	s, err := open(o, absent)
	if err != nil {
		return nil, err
	}
	if err = seed(s); err == nil {
		err = writeFormat(o, formatFile)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Open opens the store that Create or a finished restore made, and upgrades it if an older version of this package did.
func Open(o Options) (*Store, error) {
	names, err := list(o)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, &RefusedError{
			o.Dir, ErrMissing, "there is no ledger in it",
			"if this is a new node, create it; if not, check the path and that the disk is mounted",
		}
	}
	if !has(names, formatFile) {
		return nil, incomplete(o.Dir, names)
	}
	version, err := checkFormat(o, formatFile)
	if err != nil {
		return nil, err
	}
	s, err := open(o, present)
	if err != nil {
		return nil, err
	}
	if version < Version {
		if err = o.Upgrade(s, version); err == nil {
			err = writeFormat(o, formatFile)
		}
	}
	if err == nil {
		err = s.forget()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func incomplete(dir string, names []string) error {
	if has(names, restoreFile) {
		return &RefusedError{
			dir, ErrRestoring, "it is being filled with a copy from the other validators, which is not finished",
			"let the copying go on, or delete the folder and begin again",
		}
	}
	return &RefusedError{
		dir, ErrIncomplete, "it has content but no " + formatFile + " file",
		"if its creation was interrupted, delete the folder and create again; if it is something else, name another folder",
	}
}

func list(o Options) ([]string, error) {
	names, err := o.FS.List(o.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("store: %w", err)
	}
	return names, nil
}

func has(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// makeDir makes dir and its parents, each synced into its parent.
func makeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := makeDir(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(fs, parent)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeFormat makes FORMAT or RESTORE durable, whole or not at all.
func writeFormat(o Options, file string) error {
	name := o.FS.PathJoin(o.Dir, file)
	f, err := o.FS.Create(name+".new", vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = fmt.Fprintf(f, formatLine+"\n%s\n", Version, hex.EncodeToString(o.Binding[:]))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = o.FS.Rename(name+".new", name)
	}
	if err == nil {
		err = syncDir(o.FS, o.Dir)
	}
	if err != nil {
		return newFatal(o.Dir, "write "+file, err)
	}
	return nil
}

// checkFormat reads the version in FORMAT or RESTORE, which must be this one or, in FORMAT, one that can be upgraded.
func checkFormat(o Options, file string) (version int, err error) {
	f, err := o.FS.Open(o.FS.PathJoin(o.Dir, file))
	if err != nil {
		return 0, fmt.Errorf("store: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, formatBytes))
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("store: %w", err)
	}
	lines := strings.Split(string(b), "\n")
	for version = Version; version > 0; version-- {
		if lines[0] == fmt.Sprintf(formatLine, version) {
			break
		}
	}
	if version == 0 || version < Version && (o.Upgrade == nil || file != formatFile) {
		return 0, &RefusedError{
			o.Dir, ErrFormat, fmt.Sprintf("its format is %.40q, this build knows %q", lines[0], fmt.Sprintf(formatLine, Version)),
			"use the release of tutti that wrote it, or start with an empty folder and sync from the other validators",
		}
	}
	if len(lines) != 3 || lines[2] != "" || lines[1] != hex.EncodeToString(o.Binding[:]) {
		return 0, &RefusedError{
			o.Dir, ErrBinding, "it was made for another chain, shard or set of genesis parameters",
			"check the genesis file and the path; give each node its own folder",
		}
	}
	return version, nil
}

// What open finds in a folder.
type state int

const (
	absent  state = iota // no database
	present              // a database
	either
)

func open(o Options, in state) (*Store, error) {
	if o.CacheBytes <= 0 {
		o.CacheBytes = defaultCacheBytes
	}
	s := &Store{dir: o.Dir, stuck: make(chan struct{})}
	options := &pebble.Options{
		FS:                 disk{o.FS, s},
		FormatMajorVersion: pebble.FormatNewest,
		CacheSize:          o.CacheBytes,
		MemTableSize:       memTableBytes,
		ErrorIfExists:      in == absent,
		ErrorIfNotExists:   in == present,
		Logger:             quiet{s},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				if pebble.IsCorruptionError(err) {
					s.note(Corrupt(s.dir, "%v", err))
				} else {
					s.fail("background write", err)
				}
			},
			// Without this one pebble parks whoever reads the damage.
			DataCorruption:  func(i pebble.DataCorruptionInfo) { s.note(Corrupt(s.dir, "%v", i.Details)) },
			WriteStallBegin: func(pebble.WriteStallBeginInfo) { s.stalls.begin() },
			WriteStallEnd:   s.stalls.end,
		},
	}
	// Keys and hashes do not compress, and the rest of a record is not worth the time.
	options.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	options.EnsureDefaults()
	s.options = options
	opened := make(chan *pebble.DB, 1)
	err := s.guard(func() error {
		db, err := pebble.Open(o.FS.PathJoin(o.Dir, dbFolder), options)
		opened <- db
		return err
	})
	if err != nil {
		return nil, openError(o.Dir, err)
	}
	s.db = <-opened
	return s, nil
}

// guard runs one of pebble's calls that write. The goroutine that meets a failed write is parked, so that is not ours.
func (s *Store) guard(call func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				err, ok := r.(error)
				if !ok {
					err = fmt.Errorf("%v", r)
				}
				s.fail("write", err)
			}
		}()
		done <- call()
	}()
	select {
	case err := <-done:
		return err
	case <-s.stuck:
		return s.Err()
	}
}

// Close releases the folder. After a failed write it leaves pebble as it is, whose locks may be held for good.
func (s *Store) Close() error {
	select {
	case <-s.stuck:
		return nil
	default:
	}
	if err := s.guard(s.db.Close); err != nil {
		return fmt.Errorf("store: close %s: %w", s.dir, err)
	}
	return nil
}

// Err is the fatal error, if there was one.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fatal
}

func (s *Store) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == nil {
		s.fatal = err
	}
}

// fail notes a failed write.
func (s *Store) fail(op string, err error) {
	s.note(newFatal(s.dir, op, err))
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stuck:
	default:
		close(s.stuck)
	}
}

// quiet is pebble's logger. Pebble relies on Fatalf not to return.
type quiet struct{ s *Store }

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

func (q quiet) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err = fmt.Errorf("%s: %w", strings.TrimSuffix(err.Error(), ": "+cause.Error()), cause)
			break
		}
	}
	q.s.fail("write", err)
	select {}
}
