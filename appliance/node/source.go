package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tutti/appliance/config"
	"tutti/appliance/host"
)

// Source is what Run does about data before it starts, by the operator's word.
type Source uint8

const (
	AsItIs Source = iota // the data must be there; where a copy from the other validators was interrupted, it goes on
	Sync                 // where there is no data yet, it is copied from the other validators
	Resync               // the state, which is damaged, is moved aside and copied again; the consensus log stays if it is intact
)

// prepare readies the data folder. The mark that data is being copied is there as long as the data is not whole; it lies
// beside FORMAT or instead of it, and no data with the mark is ever run.
func (s Source) prepare(home config.Home) error {
	switch {
	case marked(home) || s == AsItIs:
		return nil
	case s == Resync:
		return beginResync(home)
	}
	err := config.CheckFormat(home.Data(), config.DataFormat)
	if !errors.Is(err, fs.ErrNotExist) {
		return err // nil: there is nothing to do
	}
	if err := os.Mkdir(home.Data(), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	left, err := os.ReadDir(home.Data())
	if err != nil {
		return err
	}
	whole := func(e os.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".new-") } // else a mark that was not written
	if slices.ContainsFunc(left, whole) {
		return fmt.Errorf("%s holds data whose making was interrupted: if this validator has never voted, remove that folder and try again", home.Data())
	}
	return mark(home)
}

// beginResync moves the state aside. A crash before the mark leaves data without a state, which does not run either.
func beginResync(home config.Home) error {
	if err := config.CheckFormat(home.Data(), config.DataFormat); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no chain data in %s to repair: 'tutti run --sync' copies it from the other validators", home)
		}
		return err
	}
	if _, err := moveAside(home.State()); err != nil {
		return err
	}
	return mark(home)
}

// moveAside renames a folder to the first free NAME.damaged-N; nothing is done where there is none.
func moveAside(dir string) (to string, err error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	for n := 1; n < 1000; n++ {
		to = fmt.Sprintf("%s.damaged-%d", dir, n)
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			if err := os.Rename(dir, to); err != nil {
				return "", err
			}
			return to, host.SyncDir(filepath.Dir(dir))
		}
	}
	return "", fmt.Errorf("%s.damaged-1 to -999 are there: remove what nobody needs any more", dir)
}

func marked(home config.Home) bool {
	_, err := os.Lstat(home.SyncMark())
	return err == nil
}

const markText = "The data is being copied from other validators. 'tutti run' goes on with it.\n"

func mark(home config.Home) error { return host.CreateFile(home.SyncMark(), []byte(markText), 0o644) }

// unmark says that the data is whole.
func unmark(home config.Home) error {
	if err := config.CheckFormat(home.Data(), config.DataFormat); errors.Is(err, fs.ErrNotExist) {
		if err := config.MarkFormat(home.Data(), config.DataFormat); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := os.Remove(home.SyncMark()); err != nil {
		return err
	}
	return host.SyncDir(home.Data())
}
