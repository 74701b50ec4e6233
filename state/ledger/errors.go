package ledger

import (
	"errors"
	"fmt"
)

// Errors of a ledger, besides those of its parameters, formats and folder (store.RefusedError, store.FatalError).
var (
	ErrInvalidBody   = errors.New("invalid body")                // for ever: a function of body, commitments and parent state
	ErrUnknownParent = errors.New("parent unknown")              // not executed, abandoned, or below the final block
	ErrTooDeep       = errors.New("too many unfinalised blocks") // finalise or abandon some first
	ErrHeight        = errors.New("height is not the parent's plus one")
	ErrOrder         = errors.New("not a child of the final block")
	ErrNotHere       = errors.New("not a place in a partition of this shard")
	ErrNotStored     = errors.New("receipts not stored") // never sent, not final yet, or acknowledged and dropped
	ErrClosed        = errors.New("ledger is closed")
	ErrFatal         = errors.New("fatal") // the process must end; every later call returns it too
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("ledger: %w: %s", ErrInvalidBody, fmt.Sprintf(format, args...))
}

// fail remembers the first fatal error and returns err as one.
func (l *Ledger) fail(err error) error {
	err = fmt.Errorf("%w: %w", ErrFatal, err)
	l.fatal.CompareAndSwap(nil, &err)
	return err
}

// alive returns the fatal error, if there was one.
func (l *Ledger) alive() error {
	if err := l.fatal.Load(); err != nil {
		return *err
	}
	return nil
}
