package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// Open makes the logger that the options describe. Without a file it writes to stderr. Close the closer after the last line.
func (l Log) Open(home Home, stderr io.Writer) (*slog.Logger, io.Closer, error) {
	out, closer := stderr, io.Closer(io.NopCloser(nil))
	if l.File != "" {
		r, err := OpenRotating(home.Resolve(l.File), int64(l.MaxSizeMiB)<<20, l.MaxFiles)
		if err != nil {
			return nil, nil, err
		}
		out, closer = r, r
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return nil, nil, fmt.Errorf("config: log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(out, options)), closer, nil
	}
	return slog.New(slog.NewTextHandler(out, options)), closer, nil
}

// Rotating is a file of bounded size with a bounded number of older ones: PATH, then PATH.1 (the newest of the old) and
// so on. Each Write is one record and stays in one file; a record over the size is cut. Safe for concurrent use.
type Rotating struct {
	path     string
	maxBytes int64
	maxFiles int

	mu   sync.Mutex // guards what follows
	file *os.File   // nil after Close, or while a new file could not be opened
	size int64
	done bool
}

// OpenRotating opens or continues the file at path, mode 0640, in a folder that it makes if need be. At most maxFiles
// files of at most maxBytes each ever exist.
func OpenRotating(path string, maxBytes int64, maxFiles int) (*Rotating, error) {
	if maxBytes < 1 || maxFiles < 1 {
		return nil, fmt.Errorf("config: log of %d files of %d bytes: need at least 1 of each", maxFiles, maxBytes)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("config: log: %w", err)
	}
	r := &Rotating{path: path, maxBytes: maxBytes, maxFiles: maxFiles}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r, r.open()
}

func (r *Rotating) open() error {
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("config: log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("config: log: %w", err)
	}
	r.file, r.size = f, info.Size()
	return nil
}

// Write appends one record. On an error the record is lost, and the next Write tries afresh.
func (r *Rotating) Write(record []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return 0, fs.ErrClosed
	}
	cut := record[:min(int64(len(record)), r.maxBytes)]
	if r.file == nil {
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	if r.size > 0 && r.size+int64(len(cut)) > r.maxBytes {
		if err := r.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := r.file.Write(cut)
	r.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("config: log: %w", err)
	}
	return len(record), nil
}

// rotate sets the current file aside, drops the oldest, and starts a new one.
func (r *Rotating) rotate() error {
	err := r.file.Close()
	r.file = nil
	name := func(i int) string {
		if i == 0 {
			return r.path
		}
		return fmt.Sprintf("%s.%d", r.path, i)
	}
	remove := os.Remove(name(r.maxFiles - 1))
	if !errors.Is(remove, fs.ErrNotExist) {
		err = errors.Join(err, remove)
	}
	for i := r.maxFiles - 2; i >= 0; i-- {
		if rename := os.Rename(name(i), name(i+1)); !errors.Is(rename, fs.ErrNotExist) {
			err = errors.Join(err, rename)
		}
	}
	if err != nil {
		return fmt.Errorf("config: log: %w", err)
	}
	return r.open()
}

// Close ends writing.
func (r *Rotating) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = true
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}
