package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Reasons to refuse a folder.
var (
	ErrMissing    = errors.New("no ledger here")
	ErrExists     = errors.New("a ledger exists here")
	ErrIncomplete = errors.New("not a complete ledger")
	ErrRestoring  = errors.New("a copy of a ledger that is not finished")
	ErrFormat     = errors.New("unknown folder format")
	ErrBinding    = errors.New("the folder belongs to another ledger")
	ErrLocked     = errors.New("the folder is in use")
	ErrCorrupt    = errors.New("the folder's content contradicts itself")
)

// RefusedError says why a folder is not used and what a person can do.
type RefusedError struct {
	Dir    string
	Reason error // one of the above
	Detail string
	Remedy string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: %v: %s. Remedy: %s", e.Dir, e.Reason, e.Detail, e.Remedy)
}

func (e *RefusedError) Unwrap() error { return e.Reason }

// Corrupt refuses a folder whose content contradicts itself.
func Corrupt(dir, format string, args ...any) error {
	return &RefusedError{
		dir, ErrCorrupt, fmt.Sprintf(format, args...),
		"do not vote with it; check the disk (dmesg, smartctl), move the folder away, start with an empty one and sync from the other validators",
	}
}

// FatalError is a failed write. The process must end; what was committed before is safe.
type FatalError struct {
	Dir      string
	Op       string
	DiskFull bool
	Err      error
}

func newFatal(dir, op string, err error) *FatalError {
	return &FatalError{dir, op, errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT), err}
}

func (e *FatalError) Error() string {
	if e.DiskFull {
		return fmt.Sprintf("%s: %s: the disk is full. Nothing that was final is lost. Remedy: free space or use a bigger disk, then start again (%v)",
			e.Dir, e.Op, e.Err)
	}
	return fmt.Sprintf("%s: %s failed. Nothing that was final is lost. Remedy: check the disk (dmesg, smartctl), then start again (%v)",
		e.Dir, e.Op, e.Err)
}

func (e *FatalError) Unwrap() error { return e.Err }

func openError(dir string, err error) error {
	switch {
	case errors.As(err, new(*FatalError)) || errors.As(err, new(*RefusedError)):
		return err
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES):
		return &RefusedError{dir, ErrLocked, err.Error(), "stop the other process that uses it, or check the folder's owner"}
	case !errors.As(err, new(syscall.Errno)) || errors.Is(err, os.ErrNotExist): // not the disk's word, but pebble's about what it read
		return Corrupt(dir, "%v", err)
	}
	return newFatal(dir, "open", err)
}
