package store

import (
	"fmt"
)

// Restore makes a folder to be filled from elsewhere, or opens one that was begun. It is no ledger until Promote. A
// folder that was promoted is refused with ErrExists.
func Restore(o Options) (*Store, error) {
	names, err := list(o)
	if err != nil {
		return nil, err
	}
	switch {
	case has(names, formatFile):
		return nil, &RefusedError{o.Dir, ErrExists, "it holds a whole ledger", "start with it, or name another folder to copy into"}
	case has(names, restoreFile):
		if _, err := checkFormat(o, restoreFile); err != nil {
			return nil, err
		}
	case len(names) == 0, len(names) == 1 && names[0] == restoreFile+".new":
		if err := makeDir(o.FS, o.Dir); err != nil {
			return nil, fmt.Errorf("store: create %s: %w", o.Dir, err)
		}
		if err := writeFormat(o, restoreFile); err != nil {
			return nil, err
		}
	default:
		return nil, incomplete(o.Dir, names)
	}
	return open(o, either)
}

// Promote closes a store that Restore opened, and makes its folder a ledger that Open opens. Any error is fatal; the
// folder is then still one for Restore, or promoted.
func (s *Store) Promote(o Options) error {
	if err := s.Err(); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return newFatal(o.Dir, "close", err)
	}
	from, to := o.FS.PathJoin(o.Dir, restoreFile), o.FS.PathJoin(o.Dir, formatFile)
	if err := o.FS.Rename(from, to); err != nil {
		return newFatal(o.Dir, "write "+formatFile, err)
	}
	if err := syncDir(o.FS, o.Dir); err != nil {
		return newFatal(o.Dir, "write "+formatFile, err)
	}
	return nil
}

// forget drops the notes of a restore that was finished.
func (s *Store) forget() error {
	any := false
	if err := s.scan(bounds('x'), []byte{'x'}, func(_, _ []byte) (bool, error) { any = true; return false, nil }); err != nil || !any {
		return err
	}
	b := s.NewBatch()
	b.drop([]byte{'x'}, []byte{'x' + 1})
	return s.Commit(b)
}
